"""Two optimizers and the schedule of their learning rates."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .image_encoder import ResNet
from .model import MiniCLIP


def make_optimizers(
    model: MiniCLIP, learning_rate: float, convolution_learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the convolutions if the image tower is a ResNet.

    AdamW's weight decay pulls only matrices towards zero: gains, biases and the logit scale (`ndim` < 2) are left
    alone (paper §2.5). Frozen parameters, those without `requires_grad`, are left out.
    """
    tower = model.image_encoder
    stages = tower.stages.parameters() if isinstance(tower, ResNet) else []
    convolutions = [p for p in stages if p.requires_grad and p.ndim == 4]
    others = [p for p in model.parameters() if p.requires_grad and p not in set(convolutions)]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))
    return [adamw, Muon(convolutions, lr=convolution_learning_rate)] if convolutions else [adamw]


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Fraction of the peak learning rate at a step: a straight rise, then half a cosine down to zero (paper §2.5)."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Gives each optimizer that fraction of the learning rate it was made with, which is its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * optimizer.defaults["lr"]


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for convolutions (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    A gradient mostly points along a few directions that many filters share. Muon keeps its directions but gives
    all of them the same length, so that rare ones are learned too. Each weight is also kept at one norm, which
    changes nothing where a BatchNorm follows, and fixes how far a step turns it. torch has a Muon too, but it takes
    only matrices, and computes in bfloat16, which most CPUs have to emulate.

    Args:
        parameters: convolution weights, each followed by a normalisation.
        lr: length of a step; at 0.1, each filter (of norm 1 on average) moves by about 0.1.
        momentum: share of the earlier direction that is kept.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.6):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
                momentum = self.state[weight]["momentum"].mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad + group["momentum"] * momentum  # Nesterov's look ahead
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.sub_(group["lr"] * orthogonalize(direction.flatten(1)).view_as(weight))


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """The nearest matrix with orthonormal rows (or columns, if they are fewer), roughly: singular values near 1.

    By the Newton–Schulz iteration with Jordan's coefficients, which needs only matrix products.

    Args:
        matrix: (rows, columns).
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
