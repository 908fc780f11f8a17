"""Checks of appendix A2: AdamW, Muon's iteration, and filters that whiten."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor

from ...optimizers import orthogonalize as packages_orthogonalize
from . import Arguments, Function, exercise, solved


def draw_gradients() -> tuple[Tensor, list[Tensor], float, tuple[float, float], float]:
    strength = torch.tensor([10.0, 1.0, 0.1, 0.01])
    return 2 * torch.randn(4), list(strength * torch.randn(5, 4)), 0.05, (0.8, 0.95), 0.5


def adam(**wrong: bool) -> Function:
    """AdamW, written out, with what is wrong about it."""

    def steps(
        weight: Tensor, gradients: Sequence[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> Tensor:
        weight, mean, square = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
        first, second = betas[::-1] if "swapped" in wrong else betas
        for count, gradient in enumerate(gradients, start=1):
            gradient = gradient + weight_decay * weight * ("coupled" in wrong or "both" in wrong)
            mean = first * mean + (1 - first) * gradient
            square = second * square + (1 - second) * (gradient if "no square" in wrong else gradient**2)
            corrected = 1 - first**count, 1 - second**count
            if "uncorrected" in wrong:
                corrected = 1, 1
            if "late" in wrong:  # counts from 0
                corrected = 1 - first ** max(1, count - 1), 1 - second ** max(1, count - 1)
            size = square / corrected[1]
            update = mean / corrected[0] / ((size if "no root" in wrong else size.sqrt()) + 1e-8)
            decay = (1 if "free" in wrong else lr) * weight_decay * ("coupled" not in wrong and "none" not in wrong)
            of_update = 1 - decay if "after" in wrong else 1
            weight = weight * (1 - decay) - lr * update * of_update
        return weight

    return steps


@exercise(
    inputs=draw_gradients,
    outcome=lambda function, *arguments: solved(function(*arguments)),
    mistakes={
        "the decay still goes through the averages, as in `broken_adamw`": adam(coupled=True),
        "the decay acts twice: through the gradient as well as on the weight": adam(both=True),
        "there is no decay at all": adam(none=True),
        "the weight shrinks by weight_decay: it should be lr × weight_decay": adam(free=True),
        "the decay acts on the new weight: it is lr × weight_decay times the weight before the step": adam(after=True),
        "the bias correction is missing: the averages start at 0, so divide by 1 − β to the power of the step": (
            adam(uncorrected=True)
        ),
        "the bias correction is one step late: the first step has the power 1": adam(late=True),
        "the square root is missing": adam(**{"no root": True}),
        "the betas are swapped: the first is for the gradient, the second for its square": adam(swapped=True),
    },
    tolerance=1e-4,
)
def adamw(weight: Tensor, gradients: Sequence[Tensor], lr: float, betas: tuple[float, float], weight_decay: float) -> Tensor:
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, weight_decay=weight_decay)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def draw_matrices() -> dict[str, Arguments]:
    return {
        "for a wide matrix": (torch.randn(4, 9), 3),
        "for a tall one": (torch.randn(9, 4), 3),
        "with five rounds": (torch.randn(4, 4), 5),
        "without a number of rounds": (torch.randn(4, 6),),
        "for zeros": (torch.zeros(3, 5), 3),
    }


def rounds(matrix: Tensor, steps: int = 3, a: float = 3.4445, b: float = -4.7750, c: float = 2.0315) -> Tensor:
    """The polynomial on the singular values themselves, whose squares are the eigenvalues of matrix @ matrix.T."""
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    squares, u = torch.linalg.eigh(x @ x.T)
    factors = torch.ones_like(squares)
    for _ in range(steps):
        rise = a + b * squares + c * squares**2
        squares, factors = squares * rise**2, factors * rise
    return u @ (factors[:, None] * (u.T @ x))


def iterated(start: Function, each: Function) -> Function:
    """Some first value, and what each round makes of it."""

    def answer(matrix: Tensor, steps: int = 3) -> Tensor:
        x = start(matrix)
        for _ in range(steps):
            x = each(x)
        return x

    return answer


def divided(matrix: Tensor) -> Tensor:
    return matrix / (matrix.norm() + 1e-7)


def one_round(x: Tensor) -> Tensor:
    gram = x @ x.T
    return 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x


def without_svd(function: Function, *arguments: Any) -> Tensor:
    refuse = Mock(side_effect=RuntimeError("no SVD here"))
    with patch("torch.linalg.svd", refuse), patch("torch.svd", refuse), patch("torch.Tensor.svd", refuse):
        return solved(function(*arguments))


@exercise(
    inputs=draw_matrices,
    outcome=without_svd,
    package=packages_orthogonalize,
    mistakes={
        "the matrix is not divided by its norm first, so large singular values explode": iterated(lambda m: m, one_round),
        "it is divided by its largest singular value: the Frobenius norm costs no SVD": (
            iterated(lambda m: m / (torch.linalg.matrix_norm(m, 2) + 1e-7), one_round)
        ),
        "each row is divided by its own norm: divide the whole matrix by one number": (
            iterated(lambda m: m / (m.norm(dim=1, keepdim=True) + 1e-7), one_round)
        ),
        "it is divided by its norm in each round: once, at the start": iterated(divided, lambda x: one_round(divided(x))),
        "these are zero divided by zero: add a small number, 1e-7, to the norm": iterated(lambda m: m / m.norm(), one_round),
        "the powers are of single entries: a product of matrices takes powers of singular values": (
            iterated(divided, lambda x: 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5)
        ),
        "the fifth power has a gram matrix too few": (
            iterated(divided, lambda x: 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ x)
        ),
        "only one round is done": lambda matrix, steps=3: rounds(matrix, 1),
        "the number of rounds is ignored": lambda matrix, steps=3: rounds(matrix, 3),
        "this takes an SVD: here rounds of products do without": lambda matrix, steps=3: torch.linalg.svd(matrix),
        "these are the coefficients 1.5 and −0.5, which need many more rounds": (
            lambda matrix, steps=3: rounds(matrix, steps, 1.5, -0.5, 0.0)
        ),
        "the result of a tall matrix is still transposed": (
            lambda matrix, steps=3: rounds(matrix, steps).T if len(matrix) > matrix.shape[1] else rounds(matrix, steps)
        ),
    },
    tolerance=1e-3,
)
def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    return rounds(matrix, steps)


def draw_patches() -> tuple[Tensor]:
    mixed = torch.randn(100, 6) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3, 0.1])
    return (mixed @ torch.linalg.qr(torch.randn(6, 6))[0] + torch.rand(6),)


def spectrum(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments along the principal directions, largest first, and the directions as rows; by an SVD."""
    _, s, v = torch.linalg.svd(patches.double(), full_matrices=False)
    return s.square() / len(patches), v


def along(scale: Function) -> Function:
    """The directions as rows, each scaled by a function of its second moment."""

    def filters(patches: Tensor) -> Tensor:
        moments, directions = spectrum(patches)
        return scale(moments)[:, None] * directions

    return filters


whitening = along(lambda moments: moments**-0.5)


def outputs_of(function: Function, patches: Tensor) -> dict[str, Tensor]:
    """What does not depend on the filters' signs."""
    filters = solved(function(patches))
    if not isinstance(filters, Tensor) or filters.shape != (patches.shape[1],) * 2:
        return {"filters": filters}
    outputs = patches.double() @ filters.double().T
    moments = outputs.T @ outputs / len(patches)
    return {"filters": filters.abs(), "moments of the outputs": moments.abs()}


@exercise(
    inputs=draw_patches,
    outcome=outputs_of,
    mistakes={
        "these are the directions alone: divide each by the root of its second moment": along(torch.ones_like),
        "divided by the second moment: its root has the outputs' unit": along(lambda moments: 1 / moments),
        "multiplied by the root of the second moment: divide": along(lambda moments: moments**0.5),
        "the weakest direction comes first: `eigh` sorts in rising order": lambda patches: whitening(patches).flip(0),
        "the filters are the columns: `eigh` gives the directions as columns, so transpose": (
            lambda patches: (spectrum(patches)[1] * spectrum(patches)[0][:, None] ** -0.5).T
        ),
        "the mean is subtracted first: the stem has no bias, so take second moments around zero": (
            lambda patches: whitening(patches - patches.mean(dim=0))
        ),
        "the sum over all patches is not divided by their number": (
            lambda patches: whitening(patches) / len(patches) ** 0.5
        ),
        "it is rotated back into pixels: each filter should look along one direction": (
            lambda patches: spectrum(patches)[1].T @ whitening(patches)
        ),
    },
    tolerance=2e-3,
)
def principal_filters(patches: Tensor) -> Tensor:
    return whitening(patches)
