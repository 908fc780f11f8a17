"""The text tower: from token numbers to one vector for each caption."""

import torch
from torch import Tensor, nn

from .tokenizer import EOS, PAD
from .transformer import EncoderBlock


class TextTransformer(nn.Module):
    """Embedding, encoder blocks, and one position's output as the caption's feature.

    Args:
        vocab_size: how many token numbers there are.
        context_length: tokens in a caption.
        width: length of each token's vector, and of the feature.
        layers: encoder blocks.
        num_heads: attention heads in each block.
        pooling: where the feature is read. "cls": at a trainable [CLS] vector put in front, in a tower where
            every token sees every other. "eos": at the [EOS] token, in a causal tower where a token sees only
            itself and those before it, as in CLIP (paper §2.4). "argmax": the same, where [EOS] is the largest
            number of the vocabulary, as in OpenAI's.
        activation: see `EncoderBlock`.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        width: int,
        layers: int = 3,
        num_heads: int = 4,
        pooling: str = "cls",
        activation: type[nn.Module] = nn.GELU,
    ):
        super().__init__()
        if pooling not in ("cls", "eos", "argmax"):
            raise ValueError(f"pooling must be 'cls', 'eos' or 'argmax', not {pooling!r}")
        self.pooling = pooling
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        if pooling == "cls":
            self.cls_token = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads, activation) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters(recurse=False):
            nn.init.normal_(parameter, std=0.01 if name == "positional_embedding" else 0.02)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers, int64 (N, L) with L ≤ context_length → text features (N, width)."""
        n, length = tokens.shape
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # (N, L, width)
        if self.pooling == "cls":
            x = torch.cat([self.cls_token.expand(n, 1, -1), x], dim=1)  # (N, 1 + L, width)
            is_word = nn.functional.pad(tokens != PAD, (1, 0), value=True)  # [CLS] is no padding
            mask = is_word[:, None, None, :]
        else:
            # No padding mask is needed: padding comes after [EOS], and a causal token never looks ahead.
            mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.pooling == "cls":
            return x[:, 0]
        place = tokens.argmax(dim=1) if self.pooling == "argmax" else (tokens == EOS).int().argmax(dim=1)
        return x[torch.arange(n, device=tokens.device), place]
