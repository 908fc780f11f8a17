"""Adapting a trained model with few weights: low-rank updates, a few words, and a mixture of two models."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .transformer import MultiHeadAttention


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained product of two thin matrices (Hu et al. 2021, "LoRA", §4.1).

    The layer computes W x + b + (alpha / rank) · B A x. B begins at zero, so that the first output is the frozen layer's.

    Args:
        linear: the layer; it is frozen.
        rank: rows of A and columns of B, at least 1.
        alpha: the update's scale is alpha / rank, so that another rank needs no other learning rate.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float = 8.0):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T


def merged_weight(layer: LoRALinear) -> Tensor:
    """The weight of one linear layer with the same outputs, (out_features, in_features)."""
    return layer.linear.weight + layer.scale * layer.B @ layer.A


def add_lora(model: nn.Module, rank: int, alpha: float = 8.0) -> list[nn.Parameter]:
    """Freezes a model, and puts a `LoRALinear` in the place of each projection of its attention layers.

    Returns:
        the new parameters, all that is left to train.
    """
    model.requires_grad_(False)
    new: list[nn.Parameter] = []
    for attention in [module for module in model.modules() if isinstance(module, MultiHeadAttention)]:
        for name in ("qkv", "out"):
            layer = LoRALinear(getattr(attention, name), rank, alpha)
            setattr(attention, name, layer)
            new += [layer.A, layer.B]
    return new


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Puts ordinary linear layers with the same outputs back, at the old cost; the state dict has its old names again."""
    for attention in [module for module in model.modules() if isinstance(module, MultiHeadAttention)]:
        for name in ("qkv", "out"):
            layer = getattr(attention, name)
            if isinstance(layer, LoRALinear):
                layer.linear.weight.copy_(merged_weight(layer))
                setattr(attention, name, layer.linear.requires_grad_(True))


def train_rows(embedding: nn.Embedding, rows: Sequence[int]) -> None:
    """Lets only these rows of an embedding be trained: the gradient of all others is zero."""
    chosen = torch.zeros(len(embedding.weight), 1)
    chosen[list(rows)] = 1
    embedding.weight.requires_grad_(True).register_hook(lambda gradient: gradient * chosen.to(gradient))


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A model between two of the same names and shapes: (1 − share) · start + share · end (Wortsman et al. 2022, WiSE-FT).

    Args:
        start, end: state dicts, such as before and after fine-tuning.
        share: 0 gives `start`, 1 gives `end`.
    """
    return {
        name: torch.lerp(tensor, end[name], share) if tensor.is_floating_point() else end[name]
        for name, tensor in start.items()
    }
