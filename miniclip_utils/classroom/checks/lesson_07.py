"""Checks of lesson 07: augmentation, precision, weight decay, the schedule, snapshots, and how sure a measurement is."""

import copy
import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model import MiniCLIP, ModelConfig
from ...optimizers import learning_rate_factor
from . import Function, examined, exercise, solved


def draw_moves() -> tuple[int, Tensor, Tensor]:
    order = torch.randperm(6)
    return 7, torch.tensor([0, 2, -3, 1, -2, 3])[order], order >= 3


def moved(reflect: Callable[[int, int], int]) -> Function:
    """Moves first, then mirrors.

    Args:
        reflect: a column that may lie outside, and the width → the column to read instead.
    """

    def columns(width: int, shifts: Tensor, mirrored: Tensor) -> Tensor:
        read = torch.tensor([[reflect(x + shift, width) for x in range(width)] for shift in shifts.tolist()])
        return torch.where(mirrored[:, None], width - 1 - read, read)

    return columns


move = moved(lambda x, width: abs(x) if x < width else 2 * (width - 1) - x)


@exercise(
    inputs=draw_moves,
    mistakes={
        "nothing is reflected: columns below 0 and from `width` on do not exist": moved(lambda x, w: x),
        "the outermost column is repeated: reflect instead, −1 → 1 and −2 → 2": moved(lambda x, w: min(max(x, 0), w - 1)),
        "pixels that leave on one side come in on the other: reflect instead": moved(lambda x, w: x % w),
        "the edge is doubled, −1 → 0: the mirror stands on the outermost pixel, so −1 → 1": (
            moved(lambda x, w: -x - 1 if x < 0 else min(x, 2 * w - 1 - x))
        ),
        "only the left end is reflected: columns from `width` on do not exist": moved(lambda x, w: abs(x)),
        "only the right end is reflected: columns below 0 do not exist": moved(lambda x, w: min(x, 2 * (w - 1) - x)),
        "`mirrored` is ignored": lambda w, s, m: move(w, s, m & False),
        "every image is mirrored: only those where `mirrored` is True": lambda w, s, m: move(w, s, m | True),
        "the wrong images are mirrored: those where `mirrored` is False": lambda w, s, m: move(w, s, ~m),
        "mirrored, column c became width − c: the last column is width − 1, so it becomes width − 1 − c": (
            lambda w, s, m: move(w, s, m) + m[:, None].int()
        ),
        "the moves go the other way: output column x reads input column x + shift": lambda w, s, m: move(w, -s, m),
        # To move the mirrored image is to move the image the other way.
        "the mirrored image is moved: move first, then mirror, width − 1 − column": (
            lambda w, s, m: move(w, torch.where(m, -s, s), m)
        ),
    },
)
def moved_columns(width: int, shifts: Tensor, mirrored: Tensor) -> Tensor:
    return move(width, shifts, mirrored)


def unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def logits_or_bfloat16(function: Function, image: Tensor, text: Tensor, scale: float) -> object:
    """All results in bfloat16 are one mistake, whatever was rounded before."""
    logits = function(image, text, scale)
    return "bfloat16" if isinstance(logits, Tensor) and logits.dtype == torch.bfloat16 else logits


@exercise(
    inputs=lambda: (torch.randn(6, 24).bfloat16(), torch.randn(6, 24).bfloat16(), 100.0),
    outcome=logits_or_bfloat16,
    mistakes={
        "the result is bfloat16, with 8 significant bits: `.float()` comes before the norm": (
            lambda i, t, s: s * unit(i) @ unit(t).T
        ),
        "normalised in bfloat16 and widened afterwards: the unit vectors are rounded already": (
            lambda i, t, s: s * unit(i).float() @ unit(t).float().T
        ),
        "widened only at the end: the cosines are rounded already, and the scale multiplies their error": (
            lambda i, t, s: s * (unit(i) @ unit(t).T).float()
        ),
        "even the scaled product was made in bfloat16 and widened at the end": (
            lambda i, t, s: (s * unit(i) @ unit(t).T).float()
        ),
        "only the images are normalised": lambda i, t, s: s * unit(i.float()) @ t.float().T,
        "only the texts are normalised": lambda i, t, s: s * i.float() @ unit(t.float()).T,
        "normalised over the batch (dim=0): a feature's own numbers are along the last dimension": (
            lambda i, t, s: s * unit(i.float().T).T @ unit(t.float().T)
        ),
        "the L2 norm is missing: these are scaled dot products": lambda i, t, s: s * i.float() @ t.float().T,
        "the scale is missing: these are cosines": lambda i, t, s: unit(i.float()) @ unit(t.float()).T,
        "it is transposed: images are rows, texts are columns": lambda i, t, s: s * unit(t.float()) @ unit(i.float()).T,
    },
)
def careful_logits(image: Tensor, text: Tensor, scale: float) -> Tensor:
    return scale * torch.cosine_similarity(image.double()[:, None], text.double()[None], dim=2)


def named(pulled: Callable[[str, Tensor], bool]) -> Function:
    """The names of some parameters."""
    return lambda parameters: [name for name, parameter in parameters.items() if pulled(name, parameter)]


@examined(
    right=named(lambda name, p: p.ndim >= 2),
    mistakes={
        "it is of type bool: return a list of names": lambda parameters: True,
        "a thing of type Parameter is not the name of a parameter": lambda parameters: parameters.values(),
        "'weights' is not the name of a parameter": lambda parameters: ["weights"],
        "these are all parameters": list,
        "it is the wrong way round": named(lambda name, p: p.ndim < 2),
        "the logit scale is in it": named(lambda name, p: "bias" not in name),
        "a bias is in it": named(lambda name, p: p.ndim > 0),
        "the gain of a normalisation is in it": named(lambda name, p: "weight" in name),
        "which is a single vector": named(lambda name, p: p.ndim > 0 and "norm" not in name and "bias" not in name),
        "it has 4 dimensions": named(lambda name, p: p.ndim == 2),
    },
)
def decayed(answer: Function) -> str | None:
    layers = int(torch.randint(1, 9, ()))
    small = ModelConfig(embed_dim=8, image_tower="vit", vit_width=8, vit_layers=layers, vit_num_heads=2, text_width=8)
    parameters: dict[str, Tensor] = dict(MiniCLIP(small, vocab_size=9, context_length=6).named_parameters())
    names = solved(answer(dict(parameters)))
    if isinstance(names, (str, Tensor)) or not isinstance(names, Iterable):
        return f"it is of type {type(names).__name__}: return a list of names"
    names = list(names)
    if other := [name for name in names if not isinstance(name, str)]:
        return f"a thing of type {type(other[0]).__name__} is not the name of a parameter: return names, as in the dict"
    got = set(names)
    right = {name for name, parameter in parameters.items() if parameter.dim() in (2, 3, 4)}
    if unknown := sorted(got - parameters.keys()):
        return f"{unknown[0]!r} is not the name of a parameter: return names, as they are in the dict"
    if got == parameters.keys():
        return "these are all parameters: gains, biases and the logit scale are left alone"
    if got == parameters.keys() - right:
        return "it is the wrong way round: these are the ones that decay must leave alone"
    if "logit_scale" in got:
        return "the logit scale is in it: decay would pull exp(t) towards 1, whatever the data say"
    extra, missing = sorted(got - right), sorted(right - got)
    if biases := [name for name in extra if name.endswith("bias")]:
        return f"a bias is in it ({biases[0]}): it only moves a threshold, and needs no pull towards zero"
    if gains := [name for name in extra if "norm" in name]:
        return f"the gain of a normalisation is in it ({gains[0]}): pulled to zero, it would switch a feature off"
    if extra:
        return f"{extra[0]} is in it, which is a single vector: decay takes only matrices"
    if missing:
        return f"{missing[0]} is missing: it has {parameters[missing[0]].dim()} dimensions, so it is a matrix in this sense"
    return None


def wave(share: float) -> float:
    """Half a cosine, from 1 to 0."""
    return math.cos(math.pi * share / 2) ** 2  # the same as (1 + cos(π · share)) / 2


def rise_and(fall: Callable[[int, int, int], float]) -> Function:
    """The right warm-up, and then `fall`: step, total steps, warm-up steps → factor."""
    return lambda step, total, warmup: (step + 1) / warmup if step < warmup else fall(step, total, warmup)


def rising(rise: Callable[[int, int], float]) -> Function:
    """Some rise: step, warm-up steps → factor; and then the right cosine."""
    return lambda step, total, warmup: rise(step, warmup) if step < warmup else wave((step - warmup) / (total - warmup))


@exercise(
    inputs=lambda: [(step, total, warmup) for total, warmup in ((20, 5), (64, 8)) for step in range(total)],
    package=learning_rate_factor,
    mistakes={
        "the warm-up is missing: the first `warmup_steps` rise in a straight line": lambda s, n, w: wave(s / n),
        "the rate is 0 at step 0, so the first batch teaches nothing: rise with step + 1": rising(lambda s, w: s / w),
        "the cosine counts from step 0, so it jumps down where the warm-up ends: count from there": (
            rise_and(lambda s, n, w: wave(s / n))
        ),
        "it falls below zero, and would climb the loss: a cosine goes from 1 to −1, so add 1 and halve": (
            rise_and(lambda s, n, w: math.cos(math.pi * (s - w) / (n - w)))
        ),
        "it falls in a straight line: half a cosine stays high first and ends gently": (
            rise_and(lambda s, n, w: 1 - (s - w) / (n - w))
        ),
        "this is a quarter of a wave, which ends steeply: take half a wave, from 1 to −1, add 1 and halve": (
            rise_and(lambda s, n, w: math.cos(math.pi / 2 * (s - w) / (n - w)))
        ),
        "it stays at the peak after the warm-up": rise_and(lambda s, n, w: 1),
        "the cosine begins at 2: after adding 1, halve": rise_and(lambda s, n, w: 2 * wave((s - w) / (n - w))),
        "the cosine is spread over all steps, and does not come down: it has total_steps − warmup_steps of them": (
            rise_and(lambda s, n, w: wave((s - w) / n))
        ),
        "the last step has a rate of 0 and teaches nothing: divide by total_steps − warmup_steps": (
            rise_and(lambda s, n, w: wave((s - w) / (n - w - 1)))
        ),
        "the rise goes on for one step too many, above 1: step `warmup_steps` belongs to the cosine": (
            rise_and(lambda s, n, w: (s + 1) / w if s == w else wave((s - w) / (n - w)))
        ),
        "the last step of the warm-up is below the peak: divide by warmup_steps": rising(lambda s, w: (s + 1) / (w + 1)),
    },
    tolerance=1e-6,
)
def schedule(step: int, total_steps: int, warmup_steps: int) -> float:
    return rise_and(lambda s, n, w: wave((s - w) / (n - w)))(step, total_steps, warmup_steps)


@examined(
    right=lambda model: copy.deepcopy(model.state_dict()),
    mistakes={
        "return a dict from names to tensors": copy.deepcopy,
        "running statistics are no parameters": lambda model: {n: p.detach().clone() for n, p in model.named_parameters()},
        "take all that `state_dict()` names": lambda model: copy.deepcopy(dict(model.named_buffers())),
        "of type ndarray: keep tensors": lambda model: {n: t.numpy().copy() for n, t in model.state_dict().items()},
        "moves on with the model": lambda model: model.state_dict(),
        "which rounds it": lambda model: {n: t.bfloat16() for n, t in model.state_dict().items()},
        "has other values than the model had": lambda model: {n: torch.zeros_like(t) for n, t in model.state_dict().items()},
    },
)
def snapshot(answer: Function) -> str | None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(8, 3))  # its running statistics move away from 0 and 1
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    got = solved(answer(model))
    if not isinstance(got, dict):
        return f"it is of type {type(got).__name__}: return a dict from names to tensors"
    with torch.no_grad():  # training goes on
        for tensor in model.state_dict().values():
            tensor.add_(1)
    if lost := [name for name in before if name not in got and name.startswith("1.running")]:
        return f"{lost[0]} is missing: BatchNorm's running statistics are no parameters, but evaluation needs them"
    if lost := [name for name in before if name not in got]:
        return f"{lost[0]} is missing: take all that `state_dict()` names"
    if other := [name for name in before if not isinstance(got[name], Tensor)]:
        return f"{other[0]} is of type {type(got[other[0]]).__name__}: keep tensors, which `load_state_dict` takes back"
    now = model.state_dict()
    if moved := [name for name in before if torch.equal(got[name], now[name])]:
        return f"{moved[0]} moves on with the model: `state_dict()` hands out the tensors themselves, so copy each"
    for name, tensor in before.items():
        if got[name].dtype != tensor.dtype:
            return f"{name} is kept as {got[name].dtype}, which rounds it: a run could not go on from there exactly"
        if not torch.equal(got[name], tensor):
            return f"{name} has other values than the model had"
    return None


@exercise(
    inputs=lambda: [(0.9, 1_000), (0.5, 100), (0.98, 2_000)],
    mistakes={
        "this is the variance: take its square root, so that it has the unit of the accuracy": lambda p, n: p * (1 - p) / n,
        "this is the spread of a single answer: the mean of n answers spreads √n times less": (
            lambda p, n: math.sqrt(p * (1 - p))
        ),
        "it is divided by n: the *variance* falls with n, its square root with √n": lambda p, n: math.sqrt(p * (1 - p)) / n,
        "the root is taken of n alone: take it of p (1 − p) as well": lambda p, n: p * (1 - p) / math.sqrt(n),
        "the 1 − p is missing: a model that is always right has no spread": lambda p, n: math.sqrt(p / n),
        "this is the half-width of a 95% interval, 1.96 standard errors": lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n),
        "this is in percent: accuracies are shares in [0, 1] here": lambda p, n: 100 * math.sqrt(p * (1 - p) / n),
    },
    tolerance=1e-6,
)
def standard_error(accuracy: float, n: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / n)
