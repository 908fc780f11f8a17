"""Checks of lesson 09: balanced samples, splits that keep scenes together, and accuracy when classes differ in size."""

from collections.abc import Callable

import torch
from torch import Tensor

from .before import diagnose, exercise, solved


@exercise
def few_of_each(answer: Callable[[Tensor, int], Tensor]) -> str | None:
    k = 3
    labels = torch.cat([torch.arange(4).repeat(k), torch.randint(4, (20,))])[torch.randperm(4 * k + 20)]
    seen = [labels[:i].tolist().count(label) for i, label in enumerate(labels.tolist())]  # of its class, before it
    left = [labels[i + 1 :].tolist().count(label) for i, label in enumerate(labels.tolist())]
    places = torch.tensor([i for i, before in enumerate(seen) if before < k])
    return diagnose(
        answer(labels.clone(), k),
        places,
        {
            "these are the first pictures of the folder, whatever they show: take k of each class": torch.arange(4 * k),
            "these are k pictures in all: take k of each class": torch.arange(k),
            "there is one too many of each class: k − 1 may stand before the last one": torch.tensor(
                [i for i, before in enumerate(seen) if before <= k]
            ),
            "these are the last k of each class: take the first": torch.tensor(
                [i for i, after in enumerate(left) if after < k]
            ),
            "these are the right pictures class by class: sort the places": torch.cat(
                [places[labels[places] == label] for label in range(4)]
            ),
            "these are the labels of the right pictures: return their places": labels[places],
            "this is a mask: return the places where it is True": torch.tensor([before < k for before in seen]),
        },
    )


@exercise
def split_by_scene(answer: Callable[[Tensor, float], Tensor]) -> str | None:
    distinct = torch.randperm(50)[:8].sort().values
    scenes = distinct[torch.cat([torch.arange(8), torch.randint(8, (24,))])[torch.randperm(32)]]
    test = torch.isin(scenes, distinct[6:])
    places = torch.arange(len(scenes))
    got = solved(answer(scenes.clone(), 0.25))
    problem = diagnose(
        got,
        test,
        {
            "it splits the pictures, so that a scene stands on both sides: split the scenes": places >= 24,
            "it splits the sorted pictures, which still cuts one scene in two": torch.isin(places, scenes.argsort()[24:]),
            "this is the training side: True is for the test": ~test,
            "these are the first scenes: the last ones are wanted": torch.isin(scenes, distinct[:2]),
            "this is only the last scene: take a share of them": scenes == distinct[-1],
            "the share is taken of the largest number, not of the scenes that there are": scenes >= 0.75 * distinct[-1],
            "the share is that of the test, and this side has the rest": torch.isin(scenes, distinct[2:]),
            "these are places: return a mask, True for the pictures of the test": torch.where(test)[0],
            "these are the scenes of the test: return a mask over the pictures": distinct[6:],
        },
    )
    mask = isinstance(got, Tensor) and got.dtype == torch.bool and got.shape == test.shape
    if problem and problem.startswith("one number") and mask and any(len(got[scenes == s].unique()) > 1 for s in distinct):
        return "a scene stands on both sides: all its pictures go to one"
    return problem


@exercise
def balanced_accuracy(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate((40, 10, 5))])
    predicted = torch.where(torch.rand(len(labels)) < 0.4, torch.randint(3, labels.shape), labels)
    predicted[:3] = torch.arange(3)
    right = (predicted == labels).double()
    recalls = torch.stack([right[labels == label].mean() for label in range(3)])
    precisions = torch.stack([right[predicted == label].mean() for label in range(3)])
    return diagnose(
        answer(predicted.clone(), labels.clone()),
        recalls.mean(),
        {
            "this is the share of all pictures: the large class decides: take the mean of the classes": right.mean(),
            "it is divided by how often a class is *answered* (precision), not by how often it is there": precisions.mean(),
            "the classes are added up: take their mean": recalls.sum(),
            "these are the classes one by one: take their mean": recalls,
            "this is the worst class alone: take the mean": recalls.min(),
        },
    )
