"""Attention and the encoder block that the text tower and the Vision Transformer share."""

import math

import torch
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product self-attention (Vaswani et al. 2017, §3.2).

    Args:
        width: length of each token's vector; a multiple of `num_heads`.
        num_heads: how many attention patterns are computed side by side.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.softmax = nn.Softmax(dim=-1)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mixes the tokens of each sequence.

        Args:
            x: (N, L, width).
            mask: bool, broadcastable to (N, num_heads, L, L); True where a query (row) may look at a key (column).
        """
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, num_heads, L, width / num_heads)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (N, num_heads, L, L)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        mixed = self.softmax(scores) @ v  # (N, num_heads, L, width / num_heads)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 · x), near GELU (Hendrycks and Gimpel 2016, §2). OpenAI's weights were trained with it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class EncoderBlock(nn.Module):
    """Attention, then a two-layer perceptron, each on a normalised input and added to a shortcut (pre-LayerNorm).

    Args:
        width, num_heads: see `MultiHeadAttention`.
        activation: what stands between the perceptron's two layers, `nn.GELU` or `QuickGELU`.
    """

    def __init__(self, width: int, num_heads: int, activation: type[nn.Module] = nn.GELU):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, num_heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm_1(x), mask)
        return x + self.mlp(self.norm_2(x))
