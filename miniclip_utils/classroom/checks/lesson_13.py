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


def one_hook_for_each(embedding: nn.Embedding, rows: list[int]) -> None:
    for row in rows:
        hooked(lambda gradient, chosen: gradient * chosen)(embedding, [row])


def only_once(embedding: nn.Embedding, rows: list[int]) -> None:
    passes: list[int] = []

    def change(gradient: Tensor, chosen: Tensor) -> Tensor:
        passes.append(1)
        return gradient * chosen if len(passes) == 1 else gradient

    hooked(change)(embedding, rows)


@examined(
    right=hooked(lambda gradient, chosen: gradient.where(chosen, torch.zeros(()))),
    package=lora.train_rows,
    mistakes={
        "all rows have a gradient": lambda embedding, rows: embedding.requires_grad_(True),
        "no row has a gradient: hooks on one tensor act one after the other": one_hook_for_each,
        "some of the chosen rows have no gradient": lambda embedding, rows: hooked(
            lambda gradient, chosen: gradient * chosen
        )(embedding, rows[:-1]),
        "the second backward pass is not like the first": only_once,
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
    for index, gradient in enumerate(found["gradients"]):
        is_zero = (gradient == 0).all(dim=1)
        if index and not torch.equal(is_zero, ~chosen):
            return "the second backward pass is not like the first: a hook is called in each"
        if not is_zero.any():
            return "all rows have a gradient: a hook on the weight can change it, and must return the new one"
        if is_zero.all():
            return "no row has a gradient: hooks on one tensor act one after the other, so use one for all rows"
        if torch.equal(is_zero, chosen):
            return "the gradient is kept where it should be zero, and is zero where it should be kept"
        if is_zero[~chosen].all() and is_zero[chosen].any():
            return "some of the chosen rows have no gradient"
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


def output_of(answer: Function, wide: int, high: int, rank: int, alpha: float, x: Tensor) -> dict[str, Any]:
    """Of a layer whose B is no longer zero: what it computes, and which of A and B a gradient reaches."""
    torch.manual_seed(3)
    linear = nn.Linear(wide, high)
    layer = solved(answer(linear, rank, alpha))
    layer.A.data, layer.B.data = torch.randn(rank, wide), torch.randn(high, rank)
    output = solved(layer(x))
    if isinstance(output, Tensor) and output.requires_grad:
        output.sum().backward()
    return {"the output": output} | {f"a gradient for {name}": getattr(layer, name).grad is not None for name in "AB"}


def forward(compute: Callable[[Any, Tensor], Tensor]) -> type:
    class Answer(lora.LoRALinear):
        def forward(self, x: Tensor) -> Tensor:
            return compute(self, x)

    return Answer


def product(layer: Any, x: Tensor) -> Tensor:
    return torch.einsum("or,ri,...i->...o", layer.B, layer.A, x)


def without_gradient(names: str) -> type:
    def compute(layer: Any, x: Tensor) -> Tensor:
        a, b = (getattr(layer, name).detach() if name in names else getattr(layer, name) for name in "AB")
        return layer.linear(x) + layer.scale * x @ a.T @ b.T

    return forward(compute)


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
        "this is the frozen layer alone: add the product with A and B": forward(lambda s, x: s.linear(x)),
        "the scale divides the product: multiply by it": forward(lambda s, x: s.linear(x) + product(s, x) / s.scale),
        "no gradient reaches A and B: compute with the parameters themselves": without_gradient("AB"),
        "no gradient reaches A: compute with the parameter itself": without_gradient("A"),
        "no gradient reaches B: compute with the parameter itself": without_gradient("B"),
        "the update is subtracted": forward(lambda s, x: s.linear(x) - s.scale * product(s, x)),
        "the bias is left out: call the layer": (forward(lambda s, x: x @ s.linear.weight.T + s.scale * product(s, x))),
    },
)(Right)


def draw_layer() -> list[Arguments]:
    layers = [lora.LoRALinear(nn.Linear(wide, high), 3, alpha) for wide, high, alpha in ((7, 7, 6.0), (5, 15, 12.0))]
    for layer in layers:
        nn.init.normal_(layer.B)
    return [(layer,) for layer in layers]


def weight_and_layer(function: Function, layer: Any) -> Any:
    """What a function makes of a layer, or "changed", if it changes the layer."""
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    weight = solved(function(layer))
    kept = all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    return weight if kept else "changed"


def changed_in_place(layer: Any) -> Tensor:
    layer.linear.weight.data += layer.scale * layer.B.data @ layer.A.data
    return layer.linear.weight


@exercise(
    inputs=draw_layer,
    outcome=weight_and_layer,
    package=lora.merged_weight,
    tolerance=1e-5,
    mistakes={
        "this is still the broken one: with A.T B.T the update is transposed": (
            lambda layer: layer.linear.weight + layer.scale * layer.A.T @ layer.B.T
        ),
        "the layer itself is changed, and would add its update to that once more: return a new tensor": changed_in_place,
        "the update is subtracted": lambda layer: layer.linear.weight - layer.scale * layer.B @ layer.A,
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
        "this is `qkv` alone, B alone, or a square `qkv`: both layers have A and B, and `qkv` has 3 · width outputs": (
            lambda width, layers, rank: 4 * rank * width * layers
        ),
        "`qkv` is one layer with one A, (rank, width), for all its 3 · width outputs": (
            lambda width, layers, rank: 8 * rank * width * layers
        ),
        "this is the model with its frozen matrices: count what is trained": (
            lambda width, layers, rank: (6 * rank * width + 4 * width**2) * layers
        ),
        "these are both towers: count one": lambda width, layers, rank: 12 * rank * width * layers,
        "this is `out` alone, or A alone: `qkv` has an update too, and each has A and B": lambda width, layers, rank: (
            2 * rank * width * layers
        ),
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
        "a counter is mixed too: take the end's": lambda a, b, s: {n: (1 - s) * t + s * b[n] for n, t in a.items()},
        "`torch.lerp` knows no whole numbers: take the end's counter": (
            lambda a, b, s: {n: torch.lerp(t, b[n], s) for n, t in a.items()}
        ),
        "a counter is the start's: take the end's": (
            lambda a, b, s: {n: torch.lerp(t, b[n], s) if t.is_floating_point() else t for n, t in a.items()}
        ),
        "a counter is mixed and rounded: take the end's": (
            lambda a, b, s: {n: ((1 - s) * t + s * b[n]).to(t.dtype) for n, t in a.items()}
        ),
        "the two ends are exchanged, counters too: a share of 0 gives `start`": (
            lambda a, b, s: {n: torch.lerp(t, a[n], s) if t.is_floating_point() else a[n] for n, t in b.items()}
        ),
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
