"""Checks of lesson 13: training some rows, a low-rank layer, its merging, its parameters, and mixing two models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ... import lora
from . import Arguments, Function, NotSolved, examined, exercise, solved


def draw_embedding() -> Arguments:
    return (9, sorted(torch.randperm(9)[:3].tolist()))


def gradient_after(answer: Function, count: int, rows: list[int]) -> dict[str, Any]:
    """The gradients of two backward passes, of an embedding that was frozen before."""
    embedding = nn.Embedding(count, 4)
    embedding.requires_grad_(False)
    before = embedding.weight.detach().clone()
    answer(embedding, rows)
    if not embedding.weight.requires_grad:
        raise NotSolved
    gradients = []
    for factor in (1.0, -2.0):
        embedding.weight.grad = None
        (factor * embedding(torch.arange(count)).square().sum()).backward()
        gradients.append(torch.as_tensor(embedding.weight.grad) / factor / before)
    return {"gradients": gradients, "kept": torch.equal(before, embedding.weight)}


def hooked(change: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """`change` gets the gradient, and True (V, 1) for the rows to train."""

    def train(embedding: nn.Embedding, rows: list[int]) -> None:
        chosen = torch.isin(torch.arange(len(embedding.weight)), torch.tensor(list(rows)))[:, None]
        embedding.weight.requires_grad_(True).register_hook(lambda gradient: change(gradient, chosen))

    return train


def by_zeroing_weights(embedding: nn.Embedding, rows: list[int]) -> None:
    hooked(lambda gradient, chosen: gradient * chosen)(embedding, rows)
    chosen = torch.isin(torch.arange(len(embedding.weight)), torch.tensor(list(rows)))[:, None]
    embedding.weight.data *= chosen


@examined(
    right=hooked(lambda gradient, chosen: gradient.where(chosen, torch.zeros(()))),
    package=lora.train_rows,
    mistakes={
        "all rows have a gradient": lambda embedding, rows: embedding.requires_grad_(True),
        "other rows than the chosen ones have a gradient": lambda embedding, rows: hooked(
            lambda gradient, chosen: gradient * (chosen | chosen.roll(1, 0))
        )(embedding, rows),
        "the gradient is kept where it should be zero, and is zero where it should be kept": (
            hooked(lambda gradient, chosen: gradient * ~chosen)
        ),
        "the gradient of the chosen rows is not the one that backward computed": (
            hooked(lambda gradient, chosen: gradient.sign() * chosen)
        ),
        "the vectors themselves are changed": by_zeroing_weights,
    },
)
def train_rows(answer: Function) -> str | None:
    count, rows = draw_embedding()
    found = gradient_after(answer, count, rows)
    if not found["kept"]:
        return "the vectors themselves are changed: only their gradient is"
    chosen = torch.isin(torch.arange(count), torch.tensor(rows))
    for gradient in found["gradients"]:
        is_zero = (gradient == 0).all(dim=1)
        if not is_zero.any():
            return "all rows have a gradient: a hook on the weight can change it, see `register_hook`"
        if torch.equal(is_zero, chosen):
            return "the gradient is kept where it should be zero, and is zero where it should be kept"
        if not torch.equal(is_zero, ~chosen):
            return "other rows than the chosen ones have a gradient"
        if not torch.allclose(gradient[chosen], torch.full((), 2.0)):
            return "the gradient of the chosen rows is not the one that backward computed: leave it as it is"
    return None


def draw_layers() -> dict[str, Arguments]:
    return {
        "": (6, 10, 3, 8.0, torch.randn(4, 6)),
        "with a batch of sequences": (8, 24, 2, 4.0, torch.randn(2, 5, 8)),
    }


def output_of(answer: Function, wide: int, high: int, rank: int, alpha: float, x: Tensor) -> Tensor:
    """Of a layer whose B is no longer zero."""
    torch.manual_seed(3)
    linear = nn.Linear(wide, high)
    layer = solved(answer(linear, rank, alpha))
    layer.A.data, layer.B.data = torch.randn(rank, wide), torch.randn(high, rank)
    output = solved(layer(x))
    if isinstance(output, Tensor) and not output.requires_grad:
        raise ValueError("no gradient reaches A and B: compute with the parameters themselves")
    return output


def forward(compute: Callable[[Any, Tensor], Tensor]) -> type:
    class Answer(lora.LoRALinear):
        def forward(self, x: Tensor) -> Tensor:
            return compute(self, x)

    return Answer


def product(layer: Any, x: Tensor) -> Tensor:
    return torch.einsum("or,ri,...i->...o", layer.B, layer.A, x)


Right = forward(lambda self, x: self.linear(x) + self.scale * product(self, x))
Right.__name__ = "LoRALinear"
LoRALinear = exercise(
    inputs=draw_layers,
    outcome=output_of,
    package=lora.LoRALinear,
    mistakes={
        "the scale is missing: multiply the product by `self.scale`": forward(lambda s, x: s.linear(x) + product(s, x)),
        "the frozen layer is missing: add what `self.linear` gives": forward(lambda s, x: s.scale * product(s, x)),
        "the scale multiplies the frozen layer too": forward(lambda s, x: s.scale * (s.linear(x) + product(s, x))),
        "the update is subtracted": forward(lambda s, x: s.linear(x) - s.scale * product(s, x)),
        "the bias is left out: call the layer": (forward(lambda s, x: x @ s.linear.weight.T + s.scale * product(s, x))),
    },
)(Right)


def draw_layer() -> list[Arguments]:
    layers = [lora.LoRALinear(nn.Linear(wide, high), 3, alpha) for wide, high, alpha in ((7, 7, 6.0), (5, 15, 12.0))]
    for layer in layers:
        nn.init.normal_(layer.B)
    return [(layer,) for layer in layers]


@exercise(
    inputs=draw_layer,
    outcome=lambda function, layer: solved(function(layer)),
    package=lora.merged_weight,
    tolerance=1e-5,
    mistakes={
        "the scale is missing": lambda layer: layer.linear.weight + layer.B @ layer.A,
        "this is the update alone: add the frozen weight": lambda layer: layer.scale * layer.B @ layer.A,
        "this is the frozen weight alone": lambda layer: layer.linear.weight * 1,
        "this is transposed: an `nn.Linear` computes x W.T, and its weight is (out, in)": (
            lambda layer: (layer.linear.weight + layer.scale * layer.B @ layer.A).T
        ),
        "the scale multiplies the frozen weight too": lambda layer: layer.scale * (layer.linear.weight + layer.B @ layer.A),
    },
)
def merged_weight(layer: Any) -> Tensor:
    return layer.linear.weight + layer.scale * torch.einsum("or,ri->oi", layer.B, layer.A)


@exercise(
    inputs=lambda: [(64, 3, 4), (768, 12, 8), (8 * int(torch.randint(2, 9, ())), 5, 2)],
    mistakes={
        "this is one layer's: multiply by the number of layers": lambda width, layers, rank: 6 * rank * width,
        "this is `qkv` alone, or `qkv` taken for a square matrix: `out` has an update too, and `qkv` 3 · width outputs": (
            lambda width, layers, rank: 4 * rank * width * layers
        ),
        "this is `out` alone: `qkv` has an update too": lambda width, layers, rank: 2 * rank * width * layers,
        "these are the whole matrices: A is (rank, in), and B (out, rank)": (
            lambda width, layers, rank: 4 * width**2 * layers
        ),
    },
)
def lora_parameters(width: int, layers: int, rank: int) -> int:
    of_qkv, of_out = rank * width + 3 * width * rank, rank * width + width * rank
    return layers * (of_qkv + of_out)


def draw_states() -> list[Arguments]:
    def state() -> dict[str, Tensor]:
        return {"weight": torch.randn(3, 4), "bias": torch.randn(3), "steps": torch.randint(5, 9, ())}

    return [(state(), state(), share) for share in (0.0, 0.3, 1.0)]


def mixed(mix: Callable[[Tensor, Tensor, float], Tensor]) -> Function:
    def function(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        return {n: mix(t, end[n], share) if t.is_floating_point() else end[n].clone() for n, t in start.items()}

    return function


@exercise(
    inputs=draw_states,
    package=lora.interpolate,
    keeps_arguments=True,
    mistakes={
        "the two ends are exchanged: a share of 0 gives `start`": mixed(lambda a, b, s: s * a + (1 - s) * b),
        "the share is missing: this is the middle": mixed(lambda a, b, s: (a + b) / 2),
        "this is start + share · end: the start's own share is 1 − share": mixed(lambda a, b, s: a + s * b),
        "this is the step alone: add the start": mixed(lambda a, b, s: s * (b - a)),
        "this is the start, whatever the share": mixed(lambda a, b, s: a),
        "this is the end, whatever the share": mixed(lambda a, b, s: b),
    },
)
def interpolate(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    mixture = {}
    for name in start:
        if start[name].is_floating_point():
            mixture[name] = (1 - share) * start[name] + share * end[name]
        else:
            mixture[name] = end[name].clone()
    return mixture
