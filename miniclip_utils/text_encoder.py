"""The text tower: from token numbers to one vector for each caption."""

import torch
from torch import Tensor, nn

from .tokenizer import PAD
from .transformer import EncoderBlock


class TextTransformer(nn.Module):
    """Embedding, encoder blocks, and one position's output as the caption's feature.

    Args:
        vocab_size: how many token numbers there are.
        context_length: tokens in a caption.
        width: length of each token's vector, and of the feature.
        layers: encoder blocks.
        num_heads: attention heads in each block.
        eos: where the feature is read. None: at a trainable [CLS] vector put in front, in a tower where every token
            sees every other. A token number: at the first token with that number, in a causal tower where a token
            sees only itself and those before it, as CLIP reads at [EOS] (paper §2.4).
        activation: see `EncoderBlock`.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        width: int,
        layers: int = 3,
        num_heads: int = 4,
        eos: int | None = None,
        activation: type[nn.Module] = nn.GELU,
    ):
        super().__init__()
        self.width = width
        self.eos = eos
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        if eos is None:
            self.cls_token = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads, activation) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.positional_embedding, std=0.01)
        if eos is None:
            nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers, int64 (N, L) with L ≤ context_length → text features (N, width)."""
        n, length = tokens.shape
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # (N, L, width)
        if self.eos is None:
            x = torch.cat([self.cls_token.expand(n, 1, -1), x], dim=1)  # (N, 1 + L, width)
            is_word = nn.functional.pad(tokens != PAD, (1, 0), value=True)  # [CLS] is no padding
            mask = is_word[:, None, None, :]
        else:
            # No padding mask is needed: padding comes after [EOS], and a causal token never looks ahead.
            mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.eos is None:
            return x[:, 0]
        position = (tokens == self.eos).int().argmax(dim=1)  # (N,), the first of each row
        return x[torch.arange(n, device=tokens.device), position]
