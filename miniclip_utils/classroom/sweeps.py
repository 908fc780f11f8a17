"""Experiments that are too long for a lesson: one thing is varied, all else stays, and each point has several seeds.

All train the small model of lesson 07 by its recipe, once over 10,240 drawings. Only the batch is smaller: 32 pairs,
which makes 320 steps. So three experiments meet in one training: a quarter held out, batches of 32 whose pairs are all
compared, and a learned scale. Batches of another size have learning rates of their own, and so have those of 32 there.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from ..checkpoint import Run
from ..data import BatchLoader, ImageTextDataset
from ..device import has_fast_bfloat16
from ..evaluate import class_features, encode_images, modality_gap
from ..fit import new_config, prepare
from ..loop import Recipe, train_epoch
from ..losses import multi_positive_loss
from ..model import MiniCLIP
from ..optimizers import learning_rate_factor, set_learning_rates
from ..shapes import CLASS_NAMES, COLORS, SHAPES, SIZES, draw
from . import over_seeds
from .ladder import CPU
from .style import IMAGE, MATCH, TEXT

LOG = Path(__file__).parent / "logs" / "sweeps.jsonl"  # written by tools/sweeps.py
RECIPE = Recipe(epochs=1, batch_size=32)
DRAWINGS = {"train": 10_240, "validation": 500, "seen": 500, "never_seen": 1_000}

# For each batch size, what multiplies the recipe's learning rates: the best of `RATES_TRIED`, by the accuracy on the
# validation drawings with seed 0 (rows "rate" of the log).
RATES = {16: 0.25, 32: 0.5, 64: 0.25, 128: 0.5, 512: 0.25}
RATES_TRIED = (0.125, 0.25, 0.5, 1.0, 2.0)


def is_held_out(labels: Tensor, fraction: float) -> Tensor:
    """Whether a class is never trained, if this fraction of the 64 colour–shape pairs is held out.

    The fraction is in eighths. One more eighth is one more shape of each colour, and one more colour of each shape.
    A quarter holds out what `shapes.is_held_out` does.
    """
    _, color, shape = torch.unravel_index(labels, (len(SIZES), len(COLORS), len(SHAPES)))
    return 3 * (shape - color) % len(SHAPES) < round(fraction * len(SHAPES))


@cache
def drawings(held_out_fraction: float = 1 / 4) -> dict[str, ImageTextDataset]:
    """New drawings: "train", "validation" and "seen" of the trained classes, "never_seen" of the others."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(len(CLASS_NAMES))
    held_out = is_held_out(classes, held_out_fraction)
    splits = {}
    for split, number in DRAWINGS.items():
        choice = classes[held_out == (split == "never_seen")]
        labels = choice[torch.randint(len(choice), (number,), generator=generator)]
        images = torch.cat([draw(part, generator) for part in labels.split(100)])
        splits[split] = ImageTextDataset(images, labels, CLASS_NAMES)
    return splits


def grouped_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, labels: Tensor, group_size: int
) -> Tensor:
    """The mean of `multi_positive_loss` over groups of neighbours: each pair has group_size − 1 others to compare with."""
    groups = zip(*(part.split(group_size) for part in (image_features, text_features, labels)), strict=True)
    losses = [multi_positive_loss(images, texts, logit_scale, same) for images, texts, same in groups]
    return torch.stack(losses).mean()


def train_in_groups(
    model: MiniCLIP,
    loader: BatchLoader,
    optimizers: list[torch.optim.Optimizer],
    caption_tokens: Tensor,
    recipe: Recipe,
    group_size: int,
) -> Iterator[Tensor]:
    """One pass as `train_epoch` makes it, but with `grouped_loss`; yields the loss of each step."""
    model.train()
    warmup_steps = max(1, round(recipe.warmup * len(loader)))
    for step, (images, labels) in enumerate(loader):
        set_learning_rates(optimizers, learning_rate_factor(step, len(loader), warmup_steps))
        template = torch.randint(caption_tokens.shape[1], labels.shape)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(CPU)):  # as in `batch_loss`
            image_features = model.encode_image(images)
            text_features = model.encode_text(caption_tokens[labels, template])
        image_features = F.normalize(image_features.float(), dim=-1)
        text_features = F.normalize(text_features.float(), dim=-1)
        loss = grouped_loss(image_features, text_features, model.logit_scale.exp(), labels, group_size)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        model.clamp_logit_scale()
        yield loss.detach()


@cache
def _row(
    held_out_fraction: float = 1 / 4, seed: int = 0, recipe: Recipe = RECIPE, scale: float | None = None, group_size: int = 0
) -> dict[str, float]:
    """Trains once over the drawings, on the CPU, and measures; the same training is not done twice.

    Args:
        scale: of the logits, fixed; by default learned.
        group_size: see `grouped_loss`; by default the whole batch, with the course's own loop.
    """
    splits = drawings(held_out_fraction)
    started = time.perf_counter()
    config = new_config("shapes", "small", seed, recipe, splits["train"])
    run, loader, optimizers, caption_tokens = prepare(config, splits["train"], CPU)
    if scale is not None:
        run.model.logit_scale.requires_grad_(False).fill_(scale).log_()
    if group_size in (0, recipe.batch_size):
        steps: Iterator[Any] = train_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch=0)
    else:
        steps = train_in_groups(run.model, loader, optimizers, caption_tokens, recipe, group_size)
    for _ in steps:
        pass
    trained = ~is_held_out(torch.arange(len(CLASS_NAMES)), held_out_fraction)
    return measure(run, splits, trained) | {"seconds": round(time.perf_counter() - started, 1)}


def measure(run: Run, splits: Mapping[str, ImageTextDataset], trained: Tensor) -> dict[str, float]:
    """What a row of the log says of a model. Accuracies are in [0, 1], each among all 128 captions.

    Args:
        trained: bool (128,), whether the model was trained on this class.

    Returns:
        validation_top1, seen_top1, never_seen_top1: fraction classified correctly. A memoriser, which answers with
            captions that it was trained on, has 0 of the never-seen ones.
        never_seen_color, never_seen_shape: the same of this part of the caption alone.
        answered_seen: how often the answer to a never-seen combination is a trained one.
        gap: `modality_gap` between the images of "seen" and their captions.
        cosine, other_cosine: its mean over these pairs, and over the images with the other trained captions.
        logit_scale: at the end.
    """
    texts = class_features(run.model, run.tokenizer, CLASS_NAMES, run.config.templates[:1])
    row = {}
    for split in ("validation", "seen", "never_seen"):
        labels = splits[split].labels
        features = encode_images(run.model, splits[split].images)
        cosines = features @ texts.T
        predicted = cosines.argmax(dim=1)
        row[f"{split}_top1"] = (predicted == labels).float().mean().item()
        if split == "seen":
            own = cosines.gather(1, labels[:, None])
            others = cosines[:, trained].sum() - own.sum()
            row["gap"] = modality_gap(features, texts[labels])
            row["cosine"] = own.mean().item()
            row["other_cosine"] = (others / (len(labels) * (trained.sum() - 1))).item()
    shape = (len(SIZES), len(COLORS), len(SHAPES))
    _, colors, shapes = (
        (one == other).float().mean().item()
        for one, other in zip(torch.unravel_index(predicted, shape), torch.unravel_index(labels, shape), strict=True)
    )
    row |= {"never_seen_color": colors, "never_seen_shape": shapes}
    row["answered_seen"] = trained[predicted].float().mean().item()
    row["logit_scale"] = run.model.logit_scale.exp().item()
    return {name: round(value, 4) for name, value in row.items()}


def composition(held_out_fraction: float, seed: int = 0) -> dict[str, Any]:
    """How many of the 64 colour–shape pairs can be held out? In eighths; steps and drawings stay as many."""
    return {"point": held_out_fraction} | _row(held_out_fraction, seed)


def batch(batch_size: int, seed: int = 0, rate: float | None = None) -> dict[str, Any]:
    """Does a bigger batch help? All see as many pairs, a bigger one in fewer steps; `rate` instead of that in `RATES`."""
    rate = RATES[batch_size] if rate is None else rate
    rates = {name: rate * getattr(RECIPE, name) for name in ("learning_rate", "convolution_learning_rate")}
    return {"point": batch_size} | _row(seed=seed, recipe=replace(RECIPE, batch_size=batch_size, **rates))


def negatives(group_size: int, seed: int = 0) -> dict[str, Any]:
    """Do more negatives help? In batches of 32, each pair is compared within a group of `group_size` alone."""
    return {"point": group_size} | _row(seed=seed, group_size=group_size)


def gap(scale: float | None, seed: int = 0) -> dict[str, Any]:
    """Does the scale of the logits make the modality gap? It is learned (None), or fixed."""
    return {"point": scale} | _row(seed=seed, scale=scale)


@dataclass(frozen=True)
class Sweep:
    """An experiment over the points of one quantity.

    Attributes:
        run: of a point and a seed; returns what the log says of them.
        points: and what the plot calls them, in the order of its axis.
        label: of this axis.
        panels: a plot each: the label of its other axis → the measures drawn there, and how each is called.
    """

    run: Callable[..., dict[str, Any]]
    points: Mapping[Any, str]
    label: str
    panels: Mapping[str, Mapping[str, str]]


ACCURACY = {
    "classified correctly, in %": {"seen_top1": "trained combinations", "never_seen_top1": "never-seen combinations"}
}
DISTANCES = {"distance, or cosine": {"cosine": "cosine of true pairs", "gap": "modality gap"}}

SWEEPS = {
    "composition": Sweep(
        composition,
        {eighths / 8: str(8 * eighths) for eighths in (2, 4, 6, 7)},
        "colour–shape pairs held out, of 64",
        ACCURACY,
    ),
    "batch": Sweep(batch, {size: f"{size:,}" for size in RATES}, "batch size N, at equal pairs seen", ACCURACY),
    "negatives": Sweep(
        negatives, {size: str(size) for size in (2, 4, 8, 16, 32)}, "pairs compared with each other, of 32", ACCURACY
    ),
    "gap": Sweep(
        gap,
        {5.0: "5", None: "learned", 50.0: "50", 100.0: "100"},
        "logit scale",
        DISTANCES | ACCURACY,
    ),
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of one sweep in the log, by point and seed. Each holds "sweep", "point", "seed" and what `measure` says."""
    order = list(SWEEPS[name].points)
    found = [row for row in over_seeds.read(LOG) if row["sweep"] == name]
    return sorted(found, key=lambda row: (order.index(row["point"]), row["seed"]))


def draw_sweep(sweep: Sweep, found: Sequence[Mapping[str, Any]], yours: Mapping[str, Any] | None = None) -> Sequence[Axes]:
    """A sweep from its rows: mean ± standard deviation over the seeds, one panel or more.

    Points that are words have no order: no line joins them, and measures with equal values stand side by side.

    Args:
        found: its rows in the log.
        yours: what the reader's own run of one point returned, drawn as stars.
    """
    order = list(sweep.points)
    are_words = all(isinstance(point, str) for point in order)
    figure, (axes,) = plt.subplots(1, len(sweep.panels), figsize=(6.5 * len(sweep.panels), 3.8), squeeze=False)
    for axis, (label, measures) in zip(axes, sweep.panels.items(), strict=True):
        factor = 100 if "%" in label else 1
        ends = []
        for number, (key, words) in enumerate(measures.items()):
            color, shift = (IMAGE, TEXT, MATCH)[number], 0.1 * (number - (len(measures) - 1) / 2) if are_words else 0
            values = [[factor * row[key] for row in found if row["point"] == point] for point in order]
            means = [statistics.mean(of_point) for of_point in values]
            deviations = [statistics.stdev(of_point) if len(of_point) > 1 else 0 for of_point in values]
            places = [place + shift for place in range(len(order))]
            axis.errorbar(places, means, yerr=deviations, fmt="o" if are_words else "o-", color=color, capsize=3)
            ends.append((means[-1], words, color))
            if yours is not None:
                star = places[order.index(yours["point"])]
                axis.plot(star, factor * yours[key], "*", color="black", markersize=10, zorder=3)
        axis.set(xticks=range(len(order)), xticklabels=sweep.points.values(), ylabel=label)
        axis.set(xlabel=f"{sweep.label}\n(mean ± standard deviation of {len({row['seed'] for row in found})} seeds)")
        axis.set_ylim(0, 100 * 1.04 if factor == 100 else None)
        height = -math.inf
        for end, words, color in sorted(ends, key=lambda end: end[0]):  # from below, so that no label covers another one
            height = max(end, height + 0.065 * axis.get_ylim()[1])
            place, style = (places[-1], height), {"va": "center", "fontsize": 9, "annotation_clip": False}
            axis.annotate(words, place, (14, 0), textcoords="offset points", color=color, **style)
    return axes


def plot(name: str, yours: Mapping[str, Any] | None = None) -> Sequence[Axes]:
    """One of `SWEEPS` from its log, see `draw_sweep`."""
    return draw_sweep(SWEEPS[name], rows(name), yours)
