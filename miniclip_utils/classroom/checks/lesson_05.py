"""Checks of lesson 05: augmentation, precision, weight decay, the schedule, snapshots, and how sure a measurement is."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model import MiniCLIP, ModelConfig
from . import diagnose, exercise, number, solved


@exercise
def moved_columns(answer: Callable[[int, Tensor, Tensor], Tensor]) -> str | None:
    width, order = 7, torch.randperm(6).tolist()
    shifts = [(0, 2, -3, 1, -2, 3)[i] for i in order]
    mirrored = [i >= 3 for i in order]

    def columns(reflect: Callable[[int], int], sign: int = 1, flips: list[bool] = mirrored, early: bool = False) -> Tensor:
        rows = []
        for shift, flip in zip(shifts, flips, strict=True):
            row = []
            for x in range(width):
                if early and flip:
                    row.append(reflect(width - 1 - x + sign * shift))
                else:
                    read = reflect(x + sign * shift)
                    row.append(width - 1 - read if flip else read)
            rows.append(row)
        return torch.tensor(rows)

    def mirror(x: int) -> int:
        return -x if x < 0 else 2 * (width - 1) - x if x >= width else x

    def mirror_edge(x: int) -> int:
        return -x - 1 if x < 0 else 2 * width - 1 - x if x >= width else x

    return diagnose(
        answer(width, torch.tensor(shifts), torch.tensor(mirrored)),
        columns(mirror),
        {
            "nothing is reflected: columns below 0 and from `width` on do not exist": columns(lambda x: x),
            "the outermost column is repeated: reflect instead, −1 → 1 and −2 → 2": columns(
                lambda x: min(max(x, 0), width - 1)
            ),
            "pixels that leave on one side come in on the other: reflect instead": columns(lambda x: x % width),
            "the edge is doubled, −1 → 0: the mirror stands on the outermost pixel, so −1 → 1": columns(mirror_edge),
            "only the left end is reflected: columns from `width` on do not exist": columns(abs),
            "only the right end is reflected: columns below 0 do not exist": columns(lambda x: min(x, 2 * (width - 1) - x)),
            "`mirrored` is ignored": columns(mirror, flips=[False] * len(shifts)),
            "every image is mirrored: only those where `mirrored` is True": columns(mirror, flips=[True] * len(shifts)),
            "the wrong images are mirrored: those where `mirrored` is False": columns(
                mirror, flips=[not m for m in mirrored]
            ),
            "mirrored, column c became width − c: the last column is width − 1, so it becomes width − 1 − c": columns(mirror)
            + torch.tensor(mirrored)[:, None],
            "the moves go the other way: output column x reads input column x + shift": columns(mirror, sign=-1),
            "the mirrored image is moved: move first, then mirror, width − 1 − column": columns(mirror, early=True),
        },
    )


@exercise
def careful_logits(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str | None:
    image, text, scale = torch.randn(6, 24).bfloat16(), torch.randn(6, 24).bfloat16(), 100.0
    got = solved(answer(image, text, scale))
    i, t = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (image, text))
    if isinstance(got, Tensor) and got.dtype == torch.bfloat16:
        return "the result is bfloat16, with 8 significant bits: `.float()` comes before the norm"
    rounded_i, rounded_t = F.normalize(image, dim=1), F.normalize(text, dim=1)
    return diagnose(
        got,
        scale * i @ t.T,
        {
            "normalised in bfloat16 and widened afterwards: the unit vectors are rounded already": (
                scale * rounded_i.float() @ rounded_t.float().T
            ),
            "widened only at the end: the cosines are rounded already, and the scale multiplies their error": (
                scale * (rounded_i @ rounded_t.T).float()
            ),
            "even the scaled product was made in bfloat16 and widened at the end": (scale * rounded_i @ rounded_t.T).float(),
            "only the images are normalised": scale * i @ text.double().T,
            "only the texts are normalised": scale * image.double() @ t.T,
            "normalised over the batch (dim=0): a feature's own numbers are along the last dimension": scale
            * F.normalize(image.double(), dim=0)
            @ F.normalize(text.double(), dim=0).T,
            "the L2 norm is missing: these are scaled dot products": scale * image.double() @ text.double().T,
            "the scale is missing: these are cosines": i @ t.T,
            "it is transposed: images are rows, texts are columns": scale * t @ i.T,
        },
    )


@exercise
def decayed(answer: Callable[[dict[str, Tensor]], list[str]]) -> str | None:
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


@exercise
def schedule(answer: Callable[[int, int, int], float]) -> str | None:
    runs = [(step, total, warmup) for total, warmup in ((20, 5), (64, 8)) for step in range(total)]
    got = torch.tensor([number(answer(*run)) for run in runs], dtype=torch.float64)

    def by(rise: Callable[[int, int], float], fall: Callable[[int, int, int], float]) -> Tensor:
        return torch.tensor([rise(s, w) if s < w else fall(s, n, w) for s, n, w in runs], dtype=torch.float64)

    def ramp(s: int, w: int) -> float:
        return (s + 1) / w

    def wave(share: float) -> float:
        return math.cos(math.pi * share / 2) ** 2  # the same as (1 + cos(π · share)) / 2

    def cosine(s: int, n: int, w: int) -> float:
        return wave((s - w) / (n - w))

    return diagnose(
        got,
        by(ramp, cosine),
        {
            "the warm-up is missing: the first `warmup_steps` rise in a straight line": torch.tensor(
                [wave(s / n) for s, n, _ in runs], dtype=torch.float64
            ),
            "the rate is 0 at step 0, so the first batch teaches nothing: rise with step + 1": by(
                lambda s, w: s / w, cosine
            ),
            "the cosine counts from step 0, so it jumps down where the warm-up ends: count from there": by(
                ramp, lambda s, n, w: wave(s / n)
            ),
            "it falls below zero, and would climb the loss: a cosine goes from 1 to −1, so add 1 and halve": by(
                ramp, lambda s, n, w: math.cos(math.pi * (s - w) / (n - w))
            ),
            "it falls in a straight line: half a cosine stays high first and ends gently": by(
                ramp, lambda s, n, w: 1 - (s - w) / (n - w)
            ),
            "this is a quarter of a wave, which ends steeply: take half a wave, from 1 to −1, add 1 and halve": by(
                ramp, lambda s, n, w: math.cos(math.pi / 2 * (s - w) / (n - w))
            ),
            "it stays at the peak after the warm-up": by(ramp, lambda s, n, w: 1.0),
            "the cosine begins at 2: after adding 1, halve": by(ramp, lambda s, n, w: 2 * cosine(s, n, w)),
            "the cosine is spread over all steps, and does not come down: it has total_steps − warmup_steps of them": by(
                ramp, lambda s, n, w: wave((s - w) / n)
            ),
            "the last step has a rate of 0 and teaches nothing: divide by total_steps − warmup_steps": by(
                ramp, lambda s, n, w: wave((s - w) / (n - w - 1))
            ),
            "the rise goes on for one step too many, above 1: step `warmup_steps` belongs to the cosine": by(
                ramp, lambda s, n, w: (s + 1) / w if s == w else cosine(s, n, w)
            ),
            "the last step of the warm-up is below the peak: divide by warmup_steps": by(
                lambda s, w: (s + 1) / (w + 1), cosine
            ),
        },
        tolerance=1e-6,
    )


@exercise
def snapshot(answer: Callable[[nn.Module], dict[str, Tensor]]) -> str | None:
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


@exercise
def standard_error(answer: Callable[[float, int], float]) -> str | None:
    cases = [(0.9, 1_000), (0.5, 100), (0.98, 2_000)]
    got = torch.tensor([number(answer(p, n)) for p, n in cases], dtype=torch.float64)

    def of(formula: Callable[[float, int], float]) -> Tensor:
        return torch.tensor([formula(p, n) for p, n in cases], dtype=torch.float64)

    return diagnose(
        got,
        of(lambda p, n: math.sqrt(p * (1 - p) / n)),
        {
            "this is the variance: take its square root, so that it has the unit of the accuracy": of(
                lambda p, n: p * (1 - p) / n
            ),
            "this is the spread of a single answer: the mean of n answers spreads √n times less": of(
                lambda p, n: math.sqrt(p * (1 - p))
            ),
            "it is divided by n: the *variance* falls with n, its square root with √n": of(
                lambda p, n: math.sqrt(p * (1 - p)) / n
            ),
            "the root is taken of n alone: take it of p (1 − p) as well": of(lambda p, n: p * (1 - p) / math.sqrt(n)),
            "the 1 − p is missing: a model that is always right has no spread": of(lambda p, n: math.sqrt(p / n)),
            "this is the half-width of a 95% interval, 1.96 standard errors": of(
                lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n)
            ),
            "this is in percent: accuracies are shares in [0, 1] here": of(lambda p, n: 100 * math.sqrt(p * (1 - p) / n)),
        },
        tolerance=1e-6,
    )
