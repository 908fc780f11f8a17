"""Checks of lesson 00: choosing the most similar sentence."""

import torch
from torch import Tensor

from . import Function, exercise, solved


@exercise(
    inputs=lambda: [(torch.tensor(row),) for row in ([0.1, 0.7, -0.9, 0.2], [0.3, -0.2, 0, 0.9], [-0.5, -0.8, -0.4, -0.7])],
    mistakes={
        "these are the value and its place, both: choose with .indices": lambda row: row.max(dim=0),
        "this is the similarity itself: return its place in the row": lambda row: row.max().item(),
        "this is the place of the smallest one: the *most* similar sentence is wanted": lambda row: row.argmin().item(),
        "the sign is ignored (absolute value): −0.9 means that they point apart": lambda row: row.abs().argmax().item(),
        "it counts from 1: the first sentence has place 0": lambda row: row.argmax().item() + 1,
    },
)
def best_match(similarities: Tensor) -> int:
    numbers = similarities.tolist()
    return numbers.index(max(numbers))


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    return torch.cosine_similarity(images[:, None], texts, dim=2)


def whole_numbers(function: Function, images: Tensor, texts: Tensor) -> Tensor | str:
    places = solved(function(images, texts))
    fractions = isinstance(places, Tensor) and places.shape == images.shape[:1] and places.is_floating_point()
    return "floats" if fractions and places.equal(places.round()) else places


@exercise(
    # The lengths of the texts are very different.
    inputs=lambda: (torch.randn(30, 6), torch.randn(30, 6) * torch.linspace(0.2, 5, 30)[torch.randperm(30), None]),
    outcome=whole_numbers,
    mistakes={
        "these are floats: a place is a whole number, int64": lambda i, t: cosines(i, t).argmax(1).float(),
        "the texts have no unit length, so the longest ones win": lambda i, t: (i @ t.T).argmax(1),
        "this is the best picture for each text: each *picture* chooses a text here": lambda i, t: cosines(i, t).argmax(0),
        "this is the least similar text": lambda i, t: cosines(i, t).argmin(1),
        "these are the cosines: return the place of the largest in each row": cosines,
        "these are the largest cosines: return their places": lambda i, t: cosines(i, t).amax(1),
        "the norm is taken over the pictures (dim=0): each row, one vector, needs length 1": (
            lambda i, t: ((i / i.norm(dim=0)) @ (t / t.norm(dim=0)).T).argmax(1)
        ),
    },
)
def nearest_text(image_features: Tensor, text_features: Tensor) -> Tensor:
    return cosines(image_features, text_features).argmax(1)
