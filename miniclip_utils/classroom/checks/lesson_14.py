"""Checks of lesson 14: balanced samples, splits that keep scenes together, and accuracy when classes differ in size."""

import torch
from torch import Tensor

from . import Function, difference, examined, exercise, solved


def first_of_each(labels: Tensor, k: int) -> Tensor:
    """True for the first k pictures of each class."""
    earlier = (labels[:, None] == labels).tril(-1).sum(dim=1)  # how many of its class stand before each picture
    return earlier < k


@exercise(
    inputs=lambda: (torch.cat([torch.arange(4).repeat(3), torch.randint(4, (20,))])[torch.randperm(32)], 3),
    mistakes={
        "these are the first pictures of the folder, whatever they show: take k of each class": (
            lambda labels, k: torch.arange(4 * k)
        ),
        "these are k pictures in all: take k of each class": lambda labels, k: torch.arange(k),
        "there is one too many of each class: k − 1 may stand before the last one": (
            lambda labels, k: torch.where(first_of_each(labels, k + 1))[0]
        ),
        "these are the last k of each class: take the first": (
            lambda labels, k: torch.where(first_of_each(labels.flip(0), k).flip(0))[0]
        ),
        "these are the right pictures class by class: sort the places": (
            lambda labels, k: torch.cat([torch.where(labels == label)[0][:k] for label in range(4)])
        ),
        "these are the labels of the right pictures: return their places": lambda ls, k: ls[first_of_each(ls, k)],
        "this is a mask: return the places where it is True": first_of_each,
    },
)
def few_of_each(labels: Tensor, k: int) -> Tensor:
    return torch.where(first_of_each(labels, k))[0]


def last_scenes(scenes: Tensor, share: float) -> Tensor:
    """True for the pictures of the last share of the scenes."""
    distinct = sorted(set(scenes.tolist()))
    return scenes >= distinct[-round(share * len(distinct))]


WRONG_SPLITS: dict[str, Function] = {
    "it splits the pictures, so that a scene stands on both sides: split the scenes": (
        lambda s, share: torch.arange(len(s)) >= (1 - share) * len(s)
    ),
    "it splits the sorted pictures, which still cuts one scene in two": (
        lambda s, share: s.argsort().argsort() >= (1 - share) * len(s)
    ),
    "this is the training side: True is for the test": lambda s, share: ~last_scenes(s, share),
    "these are the first scenes: the last ones are wanted": lambda s, share: ~last_scenes(s, 1 - share),
    "this is only the last scene: take a share of them": lambda s, share: s == s.max(),
    "the share is taken of the largest number, not of the scenes that there are": (
        lambda s, share: s >= (1 - share) * s.max()
    ),
    "the share is that of the test, and this side has the rest": lambda s, share: last_scenes(s, 1 - share),
    "these are places: return a mask, True for the pictures of the test": (
        lambda s, share: last_scenes(s, share).nonzero().flatten()
    ),
    "these are the scenes of the test: return a mask over the pictures": (
        lambda s, share: s[last_scenes(s, share)].unique()
    ),
}
CUT = "a scene stands on both sides: all its pictures go to one"


@examined(right=last_scenes, mistakes={**WRONG_SPLITS, CUT: lambda s, share: torch.rand(len(s)) < share})
def split_by_scene(answer: Function) -> str | None:
    distinct = torch.randperm(50)[:8]
    scenes = distinct[torch.cat([torch.arange(8), torch.randint(8, (24,))])[torch.randperm(32)]]
    got = solved(answer(scenes.clone(), 0.25))
    for message, mistake in WRONG_SPLITS.items():
        if difference(got, mistake(scenes, 0.25)) is None:
            return message
    mask = isinstance(got, Tensor) and got.dtype == torch.bool and got.shape == scenes.shape
    cut = mask and any(len(got[scenes == scene].unique()) > 1 for scene in distinct)
    return CUT if cut else difference(got, last_scenes(scenes, 0.25))


def draw_answers() -> tuple[Tensor, Tensor]:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate((40, 10, 5))])
    predicted = torch.where(torch.rand(len(labels)) < 0.4, torch.randint(3, labels.shape), labels)
    predicted[:3] = torch.arange(3)  # each class is answered at least once
    return predicted, labels


def shares(predicted: Tensor, labels: Tensor) -> Tensor:
    """The share of right answers for each class."""
    return torch.stack([(predicted[labels == label] == label).double().mean() for label in labels.unique()])


@exercise(
    inputs=draw_answers,
    mistakes={
        "this is the share of all pictures: the large class decides: take the mean of the classes": (
            lambda p, q: (p == q).double().mean().item()
        ),
        "it is divided by how often a class is *answered* (precision), not by how often it is there": (
            lambda p, q: shares(q, p).mean().item()
        ),
        "the classes are added up: take their mean": lambda p, q: shares(p, q).sum().item(),
        "these are the classes one by one: take their mean": shares,
        "this is the worst class alone: take the mean": lambda p, q: shares(p, q).min().item(),
    },
)
def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    return shares(predicted, labels).mean().item()
