"""What a small CLIP learns of order and binding, of number and of "not": the experiments of lesson 12 over seeds.

All trainings are short and alike, see `scenes.train`. What differs is the world that they show, what the captions say of
it, the towers, and the captions that the loss gets as wrong ones. Each experiment is a function of a point and a seed, and
returns what the log says of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..tokenizer import WordTokenizer
from . import over_seeds
from .ladder import CLIP
from .scenes import (
    BATCH_SIZE,
    COLORS,
    OBJECTS,
    SHAPES,
    World,
    count_caption,
    draw_equal,
    exchange_colors,
    exchange_sides,
    features,
    measure,
    new_model,
    scene_tokenizer,
    scenes_by_words,
    swap_accuracy,
    swap_colors,
    swap_objects,
    train,
    two_by_two,
)
from .sweeps import Sweep, draw_sweep

LOG = Path(__file__).parent / "logs" / "scenes.jsonl"  # written by tools/scenes.py


@dataclass(frozen=True)
class Parts:
    """What differs from the course's own parts; see `new_model` and `train`."""

    image_encoder: str = "mean"
    text_encoder: str = "transformer"
    swaps: tuple[Callable[[str], str | None], ...] = ()


def trained(world: World, seed: int, parts: Parts = Parts()) -> tuple[CLIP, WordTokenizer]:
    """A new model after its training."""
    tokenizer = scene_tokenizer()
    model = new_model(tokenizer, seed, parts.image_encoder, parts.text_encoder)
    train(model, tokenizer, world.batches(seed), parts.swaps)
    return model, tokenizer


@cache
def _row(world: World, seed: int, parts: Parts) -> dict[str, float]:
    """Trains and measures once; the same training is not done twice."""
    return measure(*trained(world, seed, parts))


def usual(point: float, seed: int = 0) -> dict[str, float]:
    """What if the words say what the scene is?"""
    return _row(World(usual=point), seed, Parts())


def said(point: float, seed: int = 0) -> dict[str, float]:
    """What if few captions say who is where?"""
    return _row(World(said=point), seed, Parts())


def wording(point: float, seed: int = 0) -> dict[str, float]:
    """What if "left of" and "right of" are equally frequent?"""
    return _row(World(left=point), seed, Parts())


def rivals(point: float, seed: int = 0) -> dict[str, float]:
    """Does it matter whether scenes with the same words meet in a batch?"""
    return _row(World(rivals=point), seed, Parts())


TOWERS = {
    "bag of words": Parts(text_encoder="bag"),
    "bag of halves": Parts(image_encoder="halves"),
    "mean": Parts(),
    "positions": Parts(image_encoder="positions"),
}


def towers(point: str, seed: int = 0) -> dict[str, float]:
    """Which tower can know the order?"""
    return _row(World(), seed, TOWERS[point])


SWAPS: dict[str, tuple[Callable[[str], str | None], ...]] = {
    "none": (),
    "objects": (swap_objects,),
    "colors": (swap_colors,),
}


def negatives(point: str, seed: int = 0) -> dict[str, float]:
    """What do swapped captions mend where nine tenths of the scenes are usual?"""
    return _row(World(usual=0.9), seed, Parts(swaps=SWAPS[point]))


def blind_negatives(point: str, seed: int = 0) -> dict[str, float]:
    """And where all of them are, so that a swapped caption is never right?"""
    return _row(World(usual=1.0), seed, Parts(swaps=SWAPS[point]))


def pairs(point: float, seed: int = 0) -> dict[str, float]:
    """Are objects bound that were never trained? "new": both objects of a scene were held out; "seen": neither.

    Trained with swapped objects, which bind the trained ones well.
    """
    world = World(held_out=point)
    model, tokenizer = trained(world, seed, Parts(swaps=(swap_objects,)))
    scenes = scenes_by_words().flatten(0, 1)
    out = world.is_held_out(scenes)
    row = {}
    for name, chosen in (("new", scenes[out.all(dim=1)]), ("seen", scenes[~out.any(dim=1)])):
        chosen = chosen.repeat(-(-225 // len(chosen)), 1)
        for test, exchange in (("order", exchange_sides), ("binding", exchange_colors)):
            cosines = two_by_two(model, tokenizer, chosen, exchange, ("left of", "right of"))
            row[f"{name}_{test}"] = round(swap_accuracy(cosines[:, 0, 0], cosines[:, 0, 1]), 4)
    return row


def counting(point: float, seed: int = 0) -> dict[str, float]:
    """What if few captions say how many? Of stars, hearts and crosses none ever does ("new")."""
    tokenizer = scene_tokenizer()
    model = new_model(tokenizer, seed)

    def batches() -> Iterator[tuple[Tensor, list[str]]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(OBJECTS), (BATCH_SIZE,), generator=generator)
            numbers = torch.randint(1, 5, (BATCH_SIZE,), generator=generator)
            says = (torch.rand(BATCH_SIZE, generator=generator) < point) & (index % len(SHAPES) < 3)
            spoken = zip(index.tolist(), (numbers * says).tolist(), strict=True)
            yield draw_equal(index, numbers, generator), [count_caption(*one) for one in spoken]

    train(model, tokenizer, batches())
    return measure_counting(model, tokenizer)


@torch.no_grad()
def measure_counting(model: CLIP, tokenizer: WordTokenizer) -> dict[str, float]:
    """Fraction of pictures with the right number among "one" to "four", for shapes that were counted and for the others."""
    index = torch.arange(len(OBJECTS)).repeat_interleave(16)
    numbers = torch.arange(1, 5).repeat(len(index) // 4)
    images = draw_equal(index, numbers, torch.Generator().manual_seed(2023))
    texts = [count_caption(one, number) for one in range(len(OBJECTS)) for number in (1, 2, 3, 4)]
    image_features, text_features = features(model, tokenizer, images, texts)
    cosines = (image_features @ text_features.T).view(len(index), len(OBJECTS), 4)
    right = cosines[torch.arange(len(index)), index].argmax(dim=1) + 1 == numbers
    counted = index % len(SHAPES) < 3
    return {
        "seen_number": round(right[counted].float().mean().item(), 4),
        "new_number": round(right[~counted].float().mean().item(), 4),
    }


def negation(point: float, seed: int = 0) -> dict[str, float]:
    """What if few captions say what is not there? Of blue, red and pink none ever does ("new")."""
    tokenizer = scene_tokenizer()
    model = new_model(tokenizer, seed)

    def batches() -> Iterator[tuple[Tensor, list[str]]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(OBJECTS), (BATCH_SIZE,), generator=generator)
            negated = (torch.rand(BATCH_SIZE, generator=generator) < point).tolist()
            others = torch.randint(3, (BATCH_SIZE,), generator=generator).tolist()  # black, green or yellow
            texts = []
            for one, negate, other in zip(index.tolist(), negated, others, strict=True):
                color, shape = divmod(one, len(SHAPES))
                other = other if other != color else (other + 1) % 3
                texts.append(f"a {SHAPES[shape]} that is not {COLORS[other]}" if negate else f"a {OBJECTS[one]}")
            images = draw_equal(index, torch.ones_like(index), generator)
            yield images, texts

    train(model, tokenizer, batches())
    return measure_negation(model, tokenizer)


@torch.no_grad()
def measure_negation(model: CLIP, tokenizer: WordTokenizer) -> dict[str, float]:
    """How often "a circle that is not green" is nearer to a red circle than "a circle that is not red", which is false.

    Both colours are ones that were negated in training ("seen"), or none of them ("new"). And how often the false one
    is farther than "a red circle" ("affirmed").
    """
    index = torch.arange(len(OBJECTS)).repeat_interleave(8)
    images = draw_equal(index, torch.ones_like(index), torch.Generator().manual_seed(2023))
    negated = [f"a {shape} that is not {color}" for color in COLORS for shape in SHAPES]
    image_features, text_features = features(model, tokenizer, images, negated + [f"a {name}" for name in OBJECTS])
    cosines = image_features @ text_features.T  # (N, 72)
    color, shape = index // len(SHAPES), index % len(SHAPES)
    row, rows = {}, torch.arange(len(index))
    false, affirmed = cosines[rows, index], cosines[rows, len(OBJECTS) + index]
    for name, group in (("seen", 0), ("new", 3)):
        chosen = (color >= group) & (color < group + 3)
        accuracies = []
        for step in (1, 2):
            other = group + (color - group + step) % 3
            true = cosines[rows, len(SHAPES) * other.clamp(0, 5) + shape]
            accuracies.append(swap_accuracy(true[chosen], false[chosen]))
        row[f"{name}_not"] = round(sum(accuracies) / 2, 4)
    row["affirmed"] = round(swap_accuracy(affirmed, false), 4)
    return row


PERCENT = "right, in %"
SWEEPS = {
    "usual": Sweep(
        usual,
        {0.25: "25", 0.75: "75", 0.9: "90", 1.0: "100"},
        "scenes that are usual, in %",
        {
            PERCENT: {
                "retrieval": "retrieval among 64",
                "order_usual": "objects swapped, usual",
                "order_unusual": "objects swapped, unusual",
            }
        },
    ),
    "said": Sweep(
        said,
        {0.0: "0", 0.25: "25", 0.5: "50", 1.0: "100"},
        "captions that say who is where, in %",
        {PERCENT: {"retrieval": "retrieval among 64", "order": "objects swapped", "and_binding": "colours swapped, “and”"}},
    ),
    "wording": Sweep(
        wording,
        {0.5: "50", 0.7: "70"},
        "captions that say “left of”; the others say “right of”; in %",
        {PERCENT: {"retrieval": "retrieval among 64", "order": "objects swapped"}},
    ),
    "rivals": Sweep(
        rivals,
        {0.0: "0", 1.0: "100"},
        "batch made of scenes with the same words, in %",
        {PERCENT: {"retrieval": "retrieval among 64", "order": "objects swapped"}},
    ),
    "towers": Sweep(
        towers,
        {name: name for name in TOWERS},
        "towers",
        {PERCENT: {"retrieval": "retrieval among 64", "order": "objects swapped", "binding": "colours swapped"}},
    ),
    "negatives": Sweep(
        negatives,
        {"none": "none", "objects": "objects", "colors": "colours"},
        "captions swapped in training, 90% usual",
        {
            PERCENT: {
                "retrieval": "retrieval among 64",
                "order_unusual": "objects swapped, unusual",
                "binding_unusual": "colours swapped, unusual",
            }
        },
    ),
    "blind_negatives": Sweep(
        blind_negatives,
        {name: name for name in ("none", "objects")},
        "captions swapped in training, 100% usual",
        {
            PERCENT: {
                "retrieval_unusual": "retrieval, unusual",
                "order_usual": "objects swapped, usual",
                "order_unusual": "objects swapped, unusual",
            }
        },
    ),
    "pairs": Sweep(
        pairs,
        {sixths / 6: str(6 * sixths) for sixths in (1, 2, 3)},
        "colour–shape pairs held out, of 36",
        {PERCENT: {"seen_binding": "colours swapped, trained objects", "new_binding": "colours swapped, new objects"}},
    ),
    "counting": Sweep(
        counting,
        {0.0: "0", 0.2: "20", 1.0: "100"},
        "captions of these shapes that say how many, in %",
        {PERCENT: {"seen_number": "shapes that were counted", "new_number": "the other shapes"}},
    ),
    "negation": Sweep(
        negation,
        {0.0: "0", 0.1: "10", 0.5: "50"},
        "captions that say “not”, in %",
        {PERCENT: {"seen_not": "colours that were negated", "new_not": "the other colours"}},
    ),
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of one experiment in the log, by point and seed, with all that was measured."""
    order = list(SWEEPS[name].points)
    found = [row for row in over_seeds.read(LOG) if row["sweep"] == name]
    return sorted(found, key=lambda row: (order.index(row["point"]), row["seed"]))


def plot(name: str, yours: Mapping[str, Any] | None = None) -> Sequence[Axes]:
    """An experiment from its log, see `draw_sweep`."""
    return draw_sweep(SWEEPS[name], rows(name), yours)
