"""Checks of lesson 00: choosing the most similar sentence."""

from collections.abc import Callable

import torch
from torch import Tensor

from .before import diagnose, exercise, number


@exercise
def best_match(answer: Callable[[Tensor], int]) -> str | None:
    rows = torch.tensor([[0.1, 0.7, -0.9, 0.2], [0.3, -0.2, 0.0, 0.9], [-0.5, -0.8, -0.4, -0.7]])
    places = []
    for row in rows:
        place = answer(row.clone())
        if isinstance(place, tuple) and hasattr(place, "indices"):
            return "these are the value and its place, both: choose with .indices"
        places.append(number(place))
    return diagnose(
        torch.tensor(places),
        torch.tensor([1, 3, 2]),
        {
            "this is the similarity itself: return its place in the row": rows.max(dim=1).values,
            "this is the place of the smallest one: the *most* similar sentence is wanted": rows.argmin(dim=1),
            "the sign is ignored (absolute value): −0.9 means that they point apart": rows.abs().argmax(dim=1),
            "it counts from 1: the first sentence has place 0": torch.tensor([2, 4, 3]),
        },
    )


@exercise
def nearest_text(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    lengths = torch.linspace(0.2, 5, 30)[torch.randperm(30), None]
    image, text = torch.randn(30, 6), lengths * torch.randn(30, 6)
    cosines = torch.cosine_similarity(image[:, None], text[None], dim=2)
    across = (image / image.norm(dim=0)) @ (text / text.norm(dim=0)).T
    return diagnose(
        answer(image, text),
        cosines.argmax(dim=1),
        {
            "the texts have no unit length, so the longest ones win": (image @ text.T).argmax(dim=1),
            "this is the best picture for each text: each *picture* chooses a text here": cosines.argmax(dim=0),
            "this is the least similar text": cosines.argmin(dim=1),
            "these are the cosines: return the place of the largest in each row": cosines,
            "these are the largest cosines: return their places": cosines.max(dim=1).values,
            "the norm is taken over the pictures (dim=0): each row, one vector, needs length 1": across.argmax(dim=1),
        },
    )
