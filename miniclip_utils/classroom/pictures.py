"""Drawn photographs to practise on, and the learning curve of lesson 14."""

import colorsys
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image, ImageDraw
from torch import Tensor

from ..checkpoint import Run
from ..data import ImageTextDataset
from ..fit import new_config, prepare
from ..loop import Recipe, train_epoch
from . import over_seeds
from .style import PALETTE

LOG = Path(__file__).parent / "logs" / "own_pictures.jsonl"  # written by tools/own_pictures.py
SIZES = (1, 2, 4, 8, 16, 32, 64)
STARTS = ("from nothing", "from the course's weights")

# Each thing in a square of side 1: what Pillow draws, and its points x, y, x, y, …
PARTS: dict[str, list[tuple[str, tuple[float, ...]]]] = {
    "boat": [
        ("polygon", (0.1, 0.65, 0.9, 0.65, 0.75, 0.9, 0.25, 0.9)),
        ("polygon", (0.45, 0.05, 0.45, 0.6, 0.9, 0.6)),
    ],
    "cup": [("ellipse", (0.5, 0.35, 0.95, 0.75)), ("rectangle", (0.15, 0.2, 0.7, 0.9))],
    "house": [("rectangle", (0.2, 0.45, 0.8, 0.95)), ("polygon", (0.05, 0.45, 0.95, 0.45, 0.5, 0.05))],
    "tree": [("rectangle", (0.42, 0.55, 0.58, 0.95)), ("ellipse", (0.15, 0.05, 0.85, 0.65))],
}


def some_color(numbers: random.Random, lightness: float) -> tuple[int, ...]:
    """A random colour of about that lightness, in bytes."""
    lightness += numbers.uniform(-0.12, 0.12)
    return tuple(int(255 * c) for c in colorsys.hls_to_rgb(numbers.random(), lightness, numbers.uniform(0.2, 0.8)))


def take_photo(name: str, scene: int, shot: int = 0) -> Image.Image:
    """A picture of 64 × 64 pixels of one of `PARTS`, on two-coloured ground among three blots.

    The scene fixes colours, size and place; each shot of it moves and lights it a little, as when you press the button
    several times.
    """
    world, hand = random.Random(f"{name} {scene}"), random.Random(f"{name} {scene} {shot}")
    photo = Image.new("RGB", (88, 88), some_color(world, 0.8))  # 12 pixels more on each side, cut off after turning
    pen = ImageDraw.Draw(photo)
    pen.rectangle((0, 12 + world.randrange(20, 60), 88, 88), fill=some_color(world, 0.7))  # the ground
    for _ in range(3):  # blots
        x, y, r = world.randrange(12, 76), world.randrange(12, 76), world.randrange(3, 12)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=some_color(world, 0.65))
    size = world.uniform(34, 56)
    corner = [12 + world.uniform(0, 64 - size) + hand.uniform(-1, 1) for _ in "xy"]
    for kind, points in PARTS[name]:
        place = [corner[i % 2] + size * point for i, point in enumerate(points)]
        getattr(pen, kind)(place, fill=some_color(world, 0.35))
    angle = world.uniform(-15, 15) + hand.uniform(-2, 2)
    photo = photo.rotate(angle, Image.Resampling.BICUBIC).crop((12, 12, 76, 76))
    grain = np.random.default_rng(hand.randrange(2**32)).normal(0, 5, (64, 64, 3))
    return Image.fromarray((np.asarray(photo) * hand.uniform(0.9, 1.1) + grain).clip(0, 255).astype(np.uint8))


def draw_folder(folder: Path, seed: int = 0) -> None:
    """Fills `folder` with drawings as JPEG files: 68 of each thing to train with, of scenes that `seed` fixes, and 100
    to test, always the same, of other scenes."""
    for split, scenes in (("train", range(100 * seed, 100 * seed + 68)), ("test", range(10_000, 10_100))):
        for name in PARTS:
            (folder / split / name).mkdir(parents=True)
            for scene in scenes:
                take_photo(name, scene).save(folder / split / name / f"{scene:05}.jpg", quality=92)


def few_of_each(labels: Tensor, k: int) -> Tensor:
    """int64 labels (N,) → int64 indices of the first k of each class, ascending."""
    indices = [torch.where(labels == label)[0][:k] for label in labels.unique()]
    return torch.cat(indices).sort().values


def split_by_scene(scenes: Tensor, fraction: float) -> Tensor:
    """int64 scenes (N,) → bool (N,), True for the test: all pictures of the last `fraction` of the distinct scenes."""
    distinct = scenes.unique()  # sorted
    return torch.isin(scenes, distinct[-round(fraction * len(distinct)) :])


def train_on(few: ImageTextDataset, like: Run, warm: bool, steps: int = 120, seed: int = 0) -> Run:
    """Trains a run for a number of steps that does not depend on how many pictures there are.

    Args:
        few: equally many pictures of each class.
        like: a run that gives the sizes of the towers.
        warm: start the image tower from the weights of `like`; otherwise from random ones behind a whitened stem.
    """
    classes = len(few.class_names)
    grouped = few.labels.argsort(stable=True).view(classes, -1)  # (classes, k)
    chosen = grouped[:, torch.arange(64) % grouped.shape[1]].flatten()  # 64 of each class, repeated
    pairs = replace(few, images=few.images[chosen], labels=few.labels[chosen])
    # 64 of each class are 2 · classes batches of 32.
    recipe = Recipe(max(1, steps // (2 * classes)), batch_size=32, shift=3)
    config = new_config("my pictures", "small", seed, recipe, pairs)
    config = replace(config, model=like.config.model)
    run, loader, optimizers, caption_tokens = prepare(config, pairs, torch.device("cpu"))
    if warm:
        run.model.image_encoder.load_state_dict(like.model.image_encoder.state_dict())
    for epoch in range(recipe.epochs):
        for _ in train_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch):
            pass
    run.model.eval()
    return run


def rows() -> list[dict[str, Any]]:
    """The measured runs, each with `of_each`, `steps`, `start`, `seed`, and `top1` on 400 drawings of new scenes."""
    return over_seeds.read(LOG)


def plot(yours: Mapping[str, Mapping[int, float]] | None = None, steps: int = 120) -> Axes:
    """Accuracy against pictures of each class, from the log: mean ± standard deviation over the seeds.

    Args:
        yours: one of `STARTS` → pictures of each class → the accuracy of a run of the reader's own, in [0, 1].
    """
    axis = plt.subplots(figsize=(7, 4))[1]
    for start, color in zip(STARTS, PALETTE, strict=False):
        found = [
            [100 * row["top1"] for row in rows() if (row["start"], row["of_each"], row["steps"]) == (start, k, steps)]
            for k in SIZES
        ]
        means, deviations = [statistics.mean(f) for f in found], [statistics.stdev(f) for f in found]
        axis.errorbar(SIZES, means, yerr=deviations, marker="o", color=color, capsize=3)
        place, align = ((8.8, means[3] - 10), "left") if start == STARTS[0] else ((2.5, means[1] + 22), "right")
        axis.annotate(start.replace("course's ", "course's\n"), place, color=color, ha=align)
        for k, accuracy in (yours or {}).get(start, {}).items():
            axis.plot(k, 100 * accuracy, "*", color=color, markeredgecolor="black", markersize=14, zorder=3)
    axis.axhline(100 / len(PARTS), color="grey", linestyle=":")
    axis.annotate("guessing", (64, 100 / len(PARTS) - 5), color="grey", ha="right")
    axis.set(xscale="log", xlabel="pictures of each class", ylim=(0, 103))
    axis.set_xticks(SIZES, [str(k) for k in SIZES])
    axis.minorticks_off()
    axis.set_ylabel("test pictures classified correctly, in %\n(mean ± standard deviation)")
    return axis
