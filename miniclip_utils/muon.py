"""Muon, the optimizer for the convolutions. torch's own takes only matrices, and emulates bfloat16 on most CPUs."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    A gradient mostly points along a few directions that many filters share. Muon keeps its directions but gives
    all of them the same length, so that rare ones are learned too. Each weight is also kept at one norm, which
    changes nothing where a BatchNorm follows, and fixes how far a step turns it.

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
