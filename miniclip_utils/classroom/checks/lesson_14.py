"""Checks of lesson 14: balanced samples, splits that keep scenes together, and honest figures for both."""

import math

import torch
from torch import Tensor

from .. import pictures
from . import Function, difference, examined, exercise, solved


def first_of_each(labels: Tensor, k: int) -> Tensor:
    """True for the first k pictures of each class."""
    earlier = (labels[:, None] == labels).tril(-1).sum(dim=1)  # how many of its class stand before each picture
    return earlier < k


WITH_FRACTIONS = "these are floats: indices are whole numbers, int64"


def indices(function: Function, labels: Tensor, k: int) -> object:
    found = solved(function(labels, k))
    return WITH_FRACTIONS if isinstance(found, Tensor) and found.is_floating_point() else found


def draw_labels() -> list[tuple[Tensor, int]]:
    """Pictures of four classes, and of other five, one of which has fewer than k pictures."""
    some = torch.cat([torch.arange(4).repeat(3), torch.randint(4, (20,))])[torch.randperm(32)]
    others = torch.tensor([1, 2, 4, 5, 7]).repeat_interleave(torch.tensor([6, 7, 3, 9, 5]))[torch.randperm(30)]
    return [(some, 3), (others, 4)]


@exercise(
    package=pictures.few_of_each,
    inputs=draw_labels,
    outcome=indices,
    mistakes={
        "these are the first pictures of the folder, whatever they show: take k of each class": (
            lambda labels, k: torch.arange(len(labels.unique()) * k)
        ),
        "these are k pictures in all: take k of each class": lambda labels, k: torch.arange(k),
        "there is one too many of each class: k − 1 may stand before the last one": (
            lambda labels, k: torch.where(first_of_each(labels, k + 1))[0]
        ),
        "these are the last k of each class: take the first": (
            lambda labels, k: torch.where(first_of_each(labels.flip(0), k).flip(0))[0]
        ),
        "these are the right pictures class by class: sort the indices": (
            lambda labels, k: torch.cat([torch.where(labels == label)[0][:k] for label in labels.unique()])
        ),
        "only the classes 0 to 3 are there: take each that occurs, labels.unique()": (
            lambda labels, k: torch.where(first_of_each(labels, k) & (labels < 4))[0]
        ),
        "these are the labels of the right pictures: return their indices": lambda ls, k: ls[first_of_each(ls, k)],
        "this is a mask: return the indices where it is True": first_of_each,
        WITH_FRACTIONS: lambda labels, k: torch.where(first_of_each(labels, k))[0].float(),
    },
)
def few_of_each(labels: Tensor, k: int) -> Tensor:
    return torch.where(first_of_each(labels, k))[0]


def last_scenes(scenes: Tensor, fraction: float) -> Tensor:
    """True for the pictures of the last fraction of the scenes."""
    distinct = sorted(set(scenes.tolist()))
    return scenes >= distinct[-round(fraction * len(distinct))]


WRONG_SPLITS: dict[str, Function] = {
    "it splits the pictures, so that a scene stands on both sides: split the scenes": (
        lambda s, fraction: torch.arange(len(s)) >= (1 - fraction) * len(s)
    ),
    "it splits the sorted pictures, which still cuts one scene in two": (
        lambda s, fraction: s.argsort().argsort() >= (1 - fraction) * len(s)
    ),
    "this is the training side: True is for the test": lambda s, fraction: ~last_scenes(s, fraction),
    "these are the first scenes: the last ones are wanted": lambda s, fraction: ~last_scenes(s, 1 - fraction),
    "this is only the last scene: take a fraction of them": lambda s, fraction: s == s.max(),
    "the fraction is taken of the pictures: list each scene once, however many pictures it has": (
        lambda s, fraction: s >= s.double().quantile(1 - fraction)
    ),
    "the fraction is taken of the largest number, not of the scenes that there are": (
        lambda s, fraction: s >= (1 - fraction) * s.max()
    ),
    "the fraction is that of the test, and this side has the rest": lambda s, fraction: last_scenes(s, 1 - fraction),
    "these are indices: return a mask, True for the pictures of the test": (
        lambda s, fraction: last_scenes(s, fraction).nonzero().flatten()
    ),
    "these are the scenes of the test: return a mask over the pictures": (
        lambda s, fraction: s[last_scenes(s, fraction)].unique()
    ),
}
CUT = "a scene stands on both sides: all its pictures go to one"
NO_MASK = "these are numbers, 0 and 1, where ~ and a choice of pictures need True and False: return a bool tensor"


@examined(
    right=last_scenes,
    package=pictures.split_by_scene,
    mistakes={
        **WRONG_SPLITS,
        CUT: lambda s, fraction: torch.rand(len(s)) < fraction,
        NO_MASK: lambda s, fraction: last_scenes(s, fraction).long(),
        "these are always 2 scenes": lambda s, fraction: s >= s.unique()[-2],
    },
)
def split_by_scene(answer: Function) -> str | None:
    return scenes_apart(answer, 8, 0.25) or scenes_apart(answer, 10, 0.4)


def scenes_apart(answer: Function, count: int, fraction: float) -> str | None:
    """What is wrong with a split of some scenes, of which those with small numbers have most pictures."""
    distinct = 40 + torch.randperm(50)[:count].sort().values
    more = (count * torch.rand(4 * count) ** 2).long()
    scenes = distinct[torch.cat([torch.arange(count), more])[torch.randperm(5 * count)]]
    got, expected = solved(answer(scenes.clone(), fraction)), last_scenes(scenes, fraction)
    if difference(got, expected) is None:
        return None if got.dtype == torch.bool else NO_MASK
    for message, mistake in WRONG_SPLITS.items():
        if difference(got, mistake(scenes, fraction)) is None:
            return message
    if difference(got, scenes >= scenes.unique()[-2]) is None:
        return f"these are always 2 scenes: take round({fraction} * {count}) of {count}"
    mask = isinstance(got, Tensor) and got.dtype == torch.bool and got.shape == scenes.shape
    cut = mask and any(len(got[scenes == scene].unique()) > 1 for scene in distinct)
    return CUT if cut else difference(got, expected)


def draw_answers() -> tuple[Tensor, Tensor]:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate((40, 10, 5))])
    predicted = torch.where(torch.rand(len(labels)) < 0.4, torch.randint(3, labels.shape), labels)
    predicted[:3] = torch.arange(3)  # each class is predicted at least once
    return predicted, labels


def always_the_first() -> tuple[Tensor, Tensor]:
    _, labels = draw_answers()
    return torch.zeros_like(labels), labels


def fractions(predicted: Tensor, labels: Tensor) -> Tensor:
    """The fraction of correct predictions for each class that occurs among the labels."""
    return torch.stack([(predicted[labels == label] == label).double().mean() for label in labels.unique()])


@exercise(
    inputs=lambda: [draw_answers(), always_the_first()],
    mistakes={
        "this is the fraction of all pictures: the large class decides: take the mean of the classes": (
            lambda p, q: (p == q).double().mean().item()
        ),
        "it is divided by how often a class is *predicted* (precision), not by how often it is there": (
            lambda p, q: fractions(q, p).mean().item()
        ),
        "a class that is never predicted gives NaN: group the pictures by their true class": (
            lambda p, q: torch.stack([(q[p == c] == c).double().mean() for c in q.unique()]).mean().item()
        ),
        "the right pictures are grouped, but the mean is over the classes that were predicted: one that never was "
        "counts 0": (lambda p, q: torch.stack([(p[q == c] == c).double().mean() for c in p.unique()]).mean().item()),
        "the classes are added up: take their mean": lambda p, q: fractions(p, q).sum().item(),
        "these are the classes one by one: take their mean": fractions,
        "this is the worst class alone: take the mean": lambda p, q: fractions(p, q).min().item(),
        "this is the middle class (median): take the mean": lambda p, q: fractions(p, q).median().item(),
    },
)
def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    return fractions(predicted, labels).mean().item()


def draw_scenes() -> tuple[Tensor, Tensor]:
    """12 scenes of 5 shots, in any order; the shots of a scene are right together more often than not."""
    scenes = (7 * torch.randperm(30)[:12]).repeat(5)[torch.randperm(60)]
    easy = torch.rand(210) < 0.6
    right = torch.where(torch.rand(60) < 0.8, easy[scenes], ~easy[scenes])
    return right, scenes


def of_scenes(right: Tensor, scenes: Tensor) -> list[float]:
    """The accuracy in each scene."""
    return [right[scenes == scene].double().mean().item() for scene in scenes.unique()]


def deviation(numbers: list[float], freedom: int = 1) -> float:
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((number - mean) ** 2 for number in numbers) / (len(numbers) - freedom))


@exercise(
    inputs=draw_scenes,
    tolerance=1e-5,
    mistakes={
        "this is √(p(1 − p)/N), of N independent pictures: the shots of a scene are not independent": (
            lambda r, s: math.sqrt(r.double().mean().item() * (1 - r.double().mean().item()) / len(r))
        ),
        "this is the standard error of N independent pictures: first take the accuracy of each scene": (
            lambda r, s: deviation(r.double().tolist()) / math.sqrt(len(r))
        ),
        "this is the standard deviation of the scenes: the mean of n of them varies less": (
            lambda r, s: deviation(of_scenes(r, s))
        ),
        "it is divided by the root of the pictures: divide by the root of the scenes": (
            lambda r, s: deviation(of_scenes(r, s)) / math.sqrt(len(r))
        ),
        "it is divided by the scenes: divide by their root": lambda r, s: deviation(of_scenes(r, s)) / len(s.unique()),
        "this is the variance: take its root": lambda r, s: deviation(of_scenes(r, s)) ** 2 / len(s.unique()),
        "the deviation divides by n: with few scenes divide by n − 1, as .std() does": (
            lambda r, s: deviation(of_scenes(r, s), 0) / math.sqrt(len(s.unique()))
        ),
        "this is √(p(1 − p)/n) with n scenes, as if all shots of a scene were right or wrong together": (
            lambda r, s: math.sqrt(r.double().mean().item() * (1 - r.double().mean().item()) / len(s.unique()))
        ),
        "these are the scenes one by one: return one number": lambda r, s: torch.tensor(of_scenes(r, s)),
    },
)
def error_by_scene(right: Tensor, scenes: Tensor) -> float:
    numbers = of_scenes(right, scenes)
    return deviation(numbers) / math.sqrt(len(numbers))
