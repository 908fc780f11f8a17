"""Checks of lesson 01: which pairs are held out, what a cap does, prompt ensembles, normalised pixels, a ±."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from ... import data, evaluate, shapes
from ...data import MEAN, STD
from ...errors import UserError
from ...tokenizer import WordTokenizer
from . import Function, examined, exercise, solved

HELD_OUT = {
    "black": ("circle", "triangle"),
    "orange": ("ring", "cross"),
    "cyan": ("square", "star"),
    "green": ("triangle", "heart"),
    "yellow": ("cross", "moon"),
    "blue": ("star", "circle"),
    "red": ("heart", "ring"),
    "pink": ("moon", "square"),
}


def by_numbers(rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """A rule of size, colour and shape, numbers (N,) each → an answer."""
    return lambda label: rule(label // 64, label // 8 % 8, label % 8)


WRONG_RULES: dict[str, Function] = {
    "True must mark the pairs that are held out, not those that are trained": by_numbers(
        lambda z, c, s: ((s - c) % 8 != 0) & ((s - c) % 8 != 3)
    ),
    "this holds out the first diagonal alone: there are two framed shapes in each row": by_numbers(lambda z, c, s: s == c),
    "this holds out the second diagonal alone: there are two framed shapes in each row": by_numbers(
        lambda z, c, s: (s - c) % 8 == 3
    ),
    "your diagonals stop at the edge of the table: with % 8 they run on at the other side": by_numbers(
        lambda z, c, s: (s == c) | (s - c == 3)
    ),
    "you counted from shape to colour: the framed shapes lie to the right of the first diagonal, so take shape − colour": (
        by_numbers(lambda z, c, s: ((c - s) % 8 == 0) | ((c - s) % 8 == 3))
    ),
    "the label is not split into its numbers: colour and shape come out of it first": lambda n: (n % 8 == 0) | (n % 8 == 3),
    "the difference lies between 0 and 3 in yours, both 1 and 2 included: it must be 0 or 3": by_numbers(
        lambda z, c, s: (s - c) % 8 <= 3
    ),
    "small pictures are never held out by yours: both sizes of a pair are": by_numbers(
        lambda z, c, s: (z == 1) & (((s - c) % 8 == 0) | ((s - c) % 8 == 3))
    ),
    "large pictures are never held out by yours: both sizes of a pair are": by_numbers(
        lambda z, c, s: (z == 0) & (((s - c) % 8 == 0) | ((s - c) % 8 == 3))
    ),
}


def named(labels: Tensor) -> Tensor:
    words = (shapes.CLASS_NAMES[label].split() for label in labels.flatten().tolist())
    return torch.tensor([shape in HELD_OUT[color] for _, color, shape in words]).view(labels.shape)


@examined(
    right=named,
    package=shapes.is_held_out,
    mistakes={
        **WRONG_RULES,
        "return a tensor": lambda labels: named(labels).tolist(),
        "return booleans": lambda labels: named(labels).int(),
        "one answer for each label": lambda labels: named(labels)[None],
        "by yours, and should be the other way round": by_numbers(lambda z, c, s: (s + c) % 8 < 2),
    },
)
def is_held_out(answer: Function) -> str | None:
    labels = torch.randperm(len(shapes.CLASS_NAMES))[:120]
    got, expected = solved(answer(labels.clone())), named(labels)
    if not isinstance(got, Tensor):
        return f"it is of type {type(got).__name__}: return a tensor, which can pick classes out of a tensor"
    if got.dtype != torch.bool:
        return f"its dtype is {got.dtype}: return booleans, such as == gives, or picking classes with it fails"
    if got.shape != expected.shape:
        return f"its shape is {tuple(got.shape)} for labels of shape {tuple(labels.shape)}: one answer for each label"
    if torch.equal(got, expected):
        return None
    for message, wrong in WRONG_RULES.items():
        if torch.equal(got, wrong(labels)):
            return message
    where = int((got != expected).nonzero()[0])
    name = shapes.CLASS_NAMES[labels[where]]
    return f"{name!r} is {'held out' if got[where] else 'trained'} by yours, and should be the other way round"


def standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (x - x.mean(dim=dims, keepdim=True)) / x.std(dim=dims, keepdim=True)


mean, std = (torch.tensor(channels).view(3, 1, 1) for channels in (MEAN, STD))


def single_precision(function: Function, images: Tensor) -> Tensor | str:
    values = solved(function(images))
    return "float64" if isinstance(values, Tensor) and values.dtype == torch.float64 else values


@exercise(
    # Pictures of different brightness, so that their own mean and deviation differ.
    inputs=lambda: ((torch.randint(256, (4, 3, 5, 6)) * torch.linspace(0.3, 1, 4)[:, None, None, None]).to(torch.uint8),),
    outcome=single_precision,
    package=data.normalize,
    mistakes={
        "mean and deviation still come from the picture itself: every picture needs the same six numbers, MEAN and STD": (
            lambda x: standardised(x / 255, (2, 3))
        ),
        "mean and deviation come from the picture, over all channels: take the six numbers MEAN and STD": (
            lambda x: standardised(x / 255, (1, 2, 3))
        ),
        "mean and deviation come from the batch: a picture would change with its neighbours": (
            lambda x: standardised(x / 255, (0, 2, 3))
        ),
        "MEAN and STD belong to values from 0 to 1: divide the bytes by 255 first": lambda x: (x - mean) / std,
        "the mean is missing": lambda x: x / 255 / std,
        "the deviation is missing": lambda x: x / 255 - mean,
        "mean and deviation are exchanged": lambda x: (x / 255 - std) / mean,
        "the steps are in the wrong order: subtract the mean, then divide": lambda x: x / 255 / std - mean,
        "this is the way back, from normalised values to those from 0 to 1": lambda x: x / 255 * std + mean,
        "mean and deviation are still missing: these are the bytes, divided by 255": lambda x: x / 255,
        "the channels are in the wrong order: red is the first": lambda x: (x / 255 - mean.flip(0)) / std.flip(0),
        "the values are float64, and the model computes in float32": lambda x: ((x / 255 - mean) / std).double(),
    },
)
def normalize(images: Tensor) -> Tensor:
    return TF.normalize(images.float() / 255, MEAN, STD)


@exercise(
    # Entries above the cap, their matches, the other matches, and the cap.
    inputs=lambda: [
        (
            int(torch.randint(5_000, 20_000, ())),
            4.0e9 + 1e9 * torch.rand(()).item(),
            3e8 + 1e8 * torch.rand(()).item(),
            20_000,
        ),
        (40, 90_000.0, 3_000.0, int(torch.randint(50, 200, ()))),
    ],
    mistakes={
        "this is the fraction before the cap: a head entry keeps `cap` of its matches": lambda e, h, t, cap: h / (h + t),
        "the denominator still holds what the cap removed: divide by the matches that are kept": (
            lambda e, h, t, cap: e * cap / (h + t)
        ),
        "this compares head with tail: divide by the sum of both": lambda e, h, t, cap: e * cap / t,
        "this is the fraction of the tail": lambda e, h, t, cap: t / (e * cap + t),
        "this is a number of matches: divide it by all that are kept": lambda e, h, t, cap: e * cap,
        "this is a number of matches, tail included: which fraction of it does the head have?": lambda e, h, t, cap: (
            e * cap + t
        ),
        "this is in percent: return a fraction, from 0 to 1": lambda e, h, t, cap: 100 * e * cap / (e * cap + t),
        "all head entries together keep `cap` matches in yours: each of them does": lambda e, h, t, cap: cap / (cap + t),
        "this is the fraction of its matches that the head keeps: what fraction of all kept matches is that?": (
            lambda e, h, t, cap: e * cap / h
        ),
    },
    tolerance=1e-4,
)
def head_fraction(head_entries: int, head_matches: float, tail_matches: float, cap: int) -> float:
    tail_per_head = tail_matches / head_entries / cap
    return 1 / (1 + tail_per_head)


class Texts(nn.Module):
    """A text tower whose vectors differ in norm by their words, and are others in training mode."""

    def __init__(self, words: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(words, 6) * torch.logspace(-1, 1, words)[torch.randperm(words)][:, None])
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.noise = torch.randn(6)

    def encode_text(self, tokens: Tensor) -> Tensor:
        features = self.vectors[tokens].sum(dim=1)
        return features + 5 * self.noise if self.training else features


NAMES = ("cat", "small dog", "ship")
TEMPLATES = ("a photo of a {}.", "here is the {}.", "{}, seen from afar.", "the {}")


def draw_classes() -> dict[str, tuple]:
    captions = [template.replace("{}", name) for template in TEMPLATES for name in NAMES]
    tokenizer = WordTokenizer.from_captions(captions)
    model = Texts(len(tokenizer)).train()
    return {"": (model, tokenizer, NAMES, TEMPLATES), "with the template 'the cat'": (model, tokenizer, NAMES, ["the cat"])}


def look_at_classes(answer: Function, model: Texts, *arguments: object) -> list:
    try:
        features = solved(answer(model, *arguments))
    except UserError:
        return ["refused"]
    if not model.training:
        return ["left in evaluation mode"]
    if isinstance(features, Tensor) and features.requires_grad:
        return ["gradient"]
    return [features]


def features_of(
    before: bool = True,
    after: bool = True,
    combine: Function = lambda vectors: vectors.mean(dim=0),
    evaluating: bool = True,
    refuse: bool = True,
    restore: bool = True,
    by_name: bool = False,
    gradient: bool = False,
) -> Function:
    """An answer with or without each step; `combine` takes the templates' features (templates, classes, D)."""

    def answer(model: Texts, tokenizer: WordTokenizer, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        if refuse and any("{}" not in template for template in templates):
            raise UserError("no place for the label")
        mode = model.training
        model.train(mode and not evaluating)
        captions = [template.replace("{}", name) for template in templates for name in class_names]
        if by_name:
            captions = [template.replace("{}", name) for name in class_names for template in templates]
        features = model.encode_text(tokenizer(captions))
        if restore:
            model.train(mode)
        features = F.normalize(features, dim=-1) if before else features
        features = combine(features.view(len(templates), len(class_names), -1))
        features = F.normalize(features, dim=-1) if after else features
        return features if gradient else features.detach()

    return answer


@exercise(
    inputs=draw_classes,
    outcome=look_at_classes,
    package=evaluate.class_features,
    mistakes={
        "the mean of unit vectors is shorter than 1: normalise it again": features_of(after=False),
        "long vectors outvote short ones: normalise each caption's vector before the mean": features_of(before=False),
        "nothing is normalised: each caption's vector before the mean, and the mean after it": features_of(False, False),
        "captions and view do not agree: with view(templates, classes, -1), all names of the first template come first": (
            features_of(by_name=True)
        ),
        "this uses the first template alone: average over all of them": features_of(combine=lambda v: v[0]),
        "this uses the last template alone: a loop must keep the features of each": features_of(combine=lambda v: v[-1]),
        "you averaged over the classes: the templates are dimension 0": features_of(combine=lambda v: v.mean(dim=1)),
        "this is one vector for each caption: average over the templates": features_of(combine=lambda v: v.flatten(0, 1)),
        "this is one vector for each template and class: average over the templates, dimension 0": features_of(
            combine=lambda v: v
        ),
        "a template without {} was not refused: call check_templates first": features_of(refuse=False),
        "the model is left in evaluation mode: `with evaluating(model):` puts it back": features_of(restore=False),
        "the model is in training mode: `with evaluating(model):` around what it computes": features_of(evaluating=False),
        "it carries a gradient: a classifier needs none, so keep @torch.inference_mode() above": features_of(gradient=True),
    },
)
def class_features(model: Texts, tokenizer: WordTokenizer, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    if any("{}" not in template for template in templates):
        raise UserError("no place for the label")
    classes = []
    for name in class_names:
        total = torch.zeros(6)
        for template in templates:
            vector = model.vectors[tokenizer([template.replace("{}", name)])[0]].sum(dim=0).detach()
            total += vector / vector.norm()
        classes.append(total / total.norm())
    return torch.stack(classes)


def draw_right() -> list[tuple[Tensor, Tensor]]:
    """Two wordings on the same 4,000 pictures: 6% are right in one of them alone."""
    one, other = torch.rand(4_000) < 0.8, torch.rand(4_000)
    pair = one, torch.where(one, other > 0.025, other < 0.2)
    return [pair, pair[::-1]]


def per_thousand(function: Function, one: Tensor, other: Tensor) -> dict[str, float] | str:
    answer = solved(function(one, other))
    if getattr(answer, "shape", None) == (2,):  # a tensor or an array
        answer = tuple(answer)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        return "not two numbers"
    return {name: 1_000 * solved(number) for name, number in zip(("difference · 1000", "± · 1000"), answer, strict=True)}


def unpaired(one: Tensor, other: Tensor) -> tuple[float, float]:
    p, q = one.double().mean().item(), other.double().mean().item()
    return p - q, ((p * (1 - p) + q * (1 - q)) / len(one)) ** 0.5


def changed(one: Tensor, other: Tensor) -> Tensor:
    return one.double() - other.double()


@exercise(
    inputs=draw_right,
    outcome=per_thousand,
    tolerance=4e-3,  # so that N and N − 1 are both right, and the discordant pairs counted by hand too
    mistakes={
        "the sign is the other way round: the first minus the second": (
            lambda a, b: (-changed(a, b).mean(), changed(a, b).std() / len(a) ** 0.5)
        ),
        "this ± treats the two as independent: both looked at the same pictures, so take the deviation of the differences": (
            unpaired
        ),
        "this is the deviation of one picture's difference: the mean of N varies √N times less": (
            lambda a, b: (changed(a, b).mean(), changed(a, b).std())
        ),
        "you divided by N instead of √N": lambda a, b: (changed(a, b).mean(), changed(a, b).std() / len(a)),
        "this is a variance: take the square root": lambda a, b: (changed(a, b).mean(), changed(a, b).var() / len(a)),
        "these are percentage points: return fractions": (
            lambda a, b: (100 * changed(a, b).mean(), 100 * changed(a, b).std() / len(a) ** 0.5)
        ),
        "return two numbers, the difference and its standard error": lambda a, b: changed(a, b).mean(),
        "this ± is the first accuracy's own, and not that of the difference": (
            lambda a, b: (changed(a, b).mean(), a.double().std() / len(a) ** 0.5)
        ),
    },
)
def paired_difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    n = len(one)
    gained, lost = int((one & ~other).sum()), int((~one & other).sum())
    mean = (gained - lost) / n
    return mean, (((gained + lost) / n - mean**2) / n) ** 0.5
