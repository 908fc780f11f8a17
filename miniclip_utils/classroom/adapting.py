"""Ways to adapt a trained model to new words and a new style, from few examples: the experiments of lesson 13."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ..checkpoint import Run, load_run, new_run, start_from
from ..data import BatchLoader, ImageTextDataset, load_dataset
from ..evaluate import encode_images, linear_probe, zero_shot_accuracy
from ..loop import Recipe, tokenize_captions, train_epoch
from ..lora import add_lora, interpolate, train_rows
from ..optimizers import make_optimizers
from ..shapes import COLORS, SHAPES, Style, draw
from ..tokenizer import SPECIAL_TOKENS
from . import over_seeds
from .ladder import CPU
from .style import IMAGE, PALETTE

LOG = Path(__file__).parent / "logs" / "adapting.jsonl"  # written by tools/adapting.py
SHOTS = (1, 2, 4, 8, 16)  # examples of each class


def hexagon(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.maximum(x * math.cos(math.pi / 6) + y / 2, y) - 0.8


def arrow(x: Tensor, y: Tensor) -> Tensor:
    head = torch.maximum((x.abs() - y - 0.95) * math.sqrt(0.5), y)
    shaft = torch.maximum(x.abs() - 0.3, (y - 0.45).abs() - 0.5)
    return torch.minimum(head, shaft)


# Two colours and two shapes that the model has met, and two of each that it has not, drawn as it has seen nothing drawn.
OUTLINES = Style(
    sizes={"outlined": (8.0, 11.5)},
    colors={"purple": (106, 44, 160), "brown": (110, 64, 20), "green": COLORS["green"], "pink": COLORS["pink"]},
    shapes={"hexagon": hexagon, "arrow": arrow, "circle": SHAPES["circle"], "heart": SHAPES["heart"]},
    line=0.22,
)
NAMES = OUTLINES.class_names
NEW_WORDS = ("outlined", "purple", "brown", "hexagon", "arrow")
PROMPT = ("one", "two", "three", "four")  # words without a meaning: their vectors are a learned prompt
STEPS, BATCH_SIZE = 200, 32


@dataclass(frozen=True)
class Way:
    """A way to adapt a model.

    Attributes:
        choose: lets the weights that are trained have a gradient, and no others.
        rate: the peak learning rate; the log compares it with others, a third and three times as large (rows with a "rate").
        words: whose vectors are new.
        template: of the sentences.
        old_pairs: half of each batch are pairs of the first training.
    """

    choose: Callable[[Run], None]
    rate: float
    words: tuple[str, ...] = NEW_WORDS
    template: str = "a photo of a {}."
    old_pairs: bool = False


def train_words(run: Run, words: Sequence[str]) -> None:
    numbers = [len(SPECIAL_TOKENS) + run.tokenizer.vocabulary.index(word) for word in words]
    train_rows(run.model.text_encoder.token_embedding, numbers)


def only_words(*words: str) -> Callable[[Run], None]:
    def choose(run: Run) -> None:
        run.model.requires_grad_(False)
        train_words(run, words)

    return choose


def text_tower(run: Run) -> None:
    run.model.image_encoder.requires_grad_(False)
    run.model.image_projection.requires_grad_(False)


def low_rank(run: Run) -> None:
    add_lora(run.model, rank=4)
    train_words(run, NEW_WORDS)


def all_weights(run: Run) -> None:
    run.model.requires_grad_(True)


PROMPTED = " ".join(PROMPT) + " {}."
WAYS = {
    "learned prompt": Way(only_words(*PROMPT), 1e-2, PROMPT + NEW_WORDS, PROMPTED),
    "new words": Way(only_words(*NEW_WORDS), 1e-2),
    "prompt and words": Way(only_words(*PROMPT, *NEW_WORDS), 3e-3, PROMPT + NEW_WORDS, PROMPTED),
    "text tower": Way(text_tower, 3e-3),
    "LoRA": Way(low_rank, 1e-2),
    "all weights": Way(all_weights, 1e-3),
    "all, with old pairs": Way(all_weights, 1e-3, old_pairs=True),
}
ORDER = ("linear probe", *WAYS)
SHARES = tuple(tenth / 10 for tenth in range(11))  # of the fine-tuned weights in a mixture


@cache
def examples(split: str, of_each: int, seed: int = 0) -> ImageTextDataset:
    """Outlines, `of_each` of each class; "train" depends on the seed, "validation" and "test" do not."""
    number = ("validation", "test", "train").index(split)
    generator = torch.Generator().manual_seed(1_000 + number + (seed if split == "train" else 0))
    labels = torch.arange(len(NAMES)).repeat(of_each)
    return ImageTextDataset(draw(labels, generator, OUTLINES), labels, NAMES)


@cache
def old_drawings(split: str) -> ImageTextDataset:
    """Filled drawings, which the model was made for: 500 for "validation", 500 for "test", half of them never seen; 2,000
    for "train"."""
    parts = [load_dataset("shapes", name) for name in {"test": ("test", "held_out")}.get(split, (split,))]
    count = (2_000 if split == "train" else 500) // len(parts)
    images, labels = (torch.cat([getattr(part, name)[:count] for part in parts]) for name in ("images", "labels"))
    return replace(parts[0], images=images, labels=labels)


def with_new_words(run: Run, words: Sequence[str], seed: int = 0) -> Run:
    """The same model with a larger vocabulary. The vectors of the new words are random."""
    torch.manual_seed(seed)
    larger = new_run(replace(run.config, vocabulary=run.config.vocabulary + tuple(words)))
    start_from(larger, run)
    larger.model.eval()
    return larger


@cache
def shipped() -> Run:
    return load_run("shapes-vit")


def accuracy(run: Run, dataset: ImageTextDataset, template: str = "a photo of a {}.") -> float:
    """Fraction classified correctly, among the classes of the dataset."""
    return zero_shot_accuracy(run, dataset, [template])


def fine_tune(run: Run, way: Way, shots: ImageTextDataset, rate: float | None = None, seed: int = 0) -> None:
    """Trains by the course's loop, with as many steps for few examples as for many."""
    run.model.requires_grad_(True)
    way.choose(run)
    parts = [shots, old_drawings("train")] if way.old_pairs else [shots]
    count = STEPS * BATCH_SIZE // len(parts)
    index = [torch.arange(count) % len(part) for part in parts]  # the few come again and again
    images = torch.cat([part.images[i] for part, i in zip(parts, index, strict=True)])
    labels = [part.labels[i] for part, i in zip(parts, index, strict=True)]
    names = tuple(name for part in parts for name in part.class_names)
    pairs = ImageTextDataset(images, torch.cat([labels[0], *(of_old + len(NAMES) for of_old in labels[1:])]), names)
    recipe = Recipe(epochs=1, batch_size=BATCH_SIZE, flip=False)
    torch.manual_seed(seed)
    optimizers = make_optimizers(run.model, way.rate if rate is None else rate, 0.0, weight_decay=0.0)
    loader = BatchLoader(pairs, BATCH_SIZE, CPU, recipe.flip, recipe.shift)
    tokens = tokenize_captions(run.tokenizer, names, [way.template])
    for _ in train_epoch(run.model, loader, optimizers, tokens, recipe, epoch=0):
        pass
    run.model.eval()


def adapt(name: str, of_each: int, seed: int = 0, rate: float | None = None) -> tuple[Run, dict[str, float]]:
    """Adapts the shipped model in one of `WAYS` to `of_each` examples of each class.

    Returns:
        the adapted run, and of it: `new_top1` among the 16 new classes, and `old_top1` among the 128 old ones, both on
        test drawings; `validation_top1` of new ones; `changed`, how many numbers differ from the shipped model's and
        must be saved; `seconds` of one processor core, for training and measuring.
    """
    way, shots = WAYS[name], examples("train", of_each, seed)
    run = with_new_words(shipped(), way.words, seed)
    before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    started = time.process_time()
    fine_tune(run, way, shots, rate, seed)
    row = {
        "new_top1": accuracy(run, examples("test", 20), way.template),
        "old_top1": accuracy(run, old_drawings("test")),
        "validation_top1": accuracy(run, examples("validation", 10), way.template),
    }
    return run, row | {"changed": changed(run.model, before), "seconds": round(time.process_time() - started, 1)}


def changed(model: nn.Module, before: Mapping[str, Tensor]) -> int:
    """How many numbers of a model differ from a state dict's, or are not in it."""
    count = 0
    for name, tensor in model.state_dict().items():
        old = before.get(name.replace(".linear.", "."))  # the frozen layer in a `LoRALinear`
        count += tensor.numel() if old is None else int((tensor != old).sum())
    return count


def probe(of_each: int, seed: int = 0) -> dict[str, float]:
    """A logistic regression on the shipped model's image features; its strength is chosen on validation."""
    shots, model = examples("train", of_each, seed), shipped().model
    started = time.process_time()
    features = encode_images(model, shots.images)
    top1 = {}
    for split, count in (("validation", 10), ("test", 20)):
        data = examples(split, count)
        encoded = encode_images(model, data.images)
        top1[split] = [linear_probe(features, shots.labels, encoded, data.labels, c) for c in (1, 10, 100, 1_000)]
    best = max(range(4), key=top1["validation"].__getitem__)
    return {
        "new_top1": top1["test"][best],
        "old_top1": accuracy(shipped(), old_drawings("test")),
        "validation_top1": top1["validation"][best],
        "changed": len(NAMES) * (features.shape[1] + 1),
        "seconds": round(time.process_time() - started, 1),
    }


def mixtures(run: Run, start: Run) -> list[dict[str, float]]:
    """What mixtures of a fine-tuned run with its start reach, by the fraction of the fine-tuned weights."""
    ends = [{key: tensor.clone() for key, tensor in one.model.state_dict().items()} for one in (start, run)]
    mixed = with_new_words(shipped(), NEW_WORDS)
    found = []
    for share in SHARES:
        mixed.model.load_state_dict(interpolate(ends[0], ends[1], share))
        row: dict[str, float] = {"share": share}
        for split, count in (("validation", 10), ("test", 20)):
            row[f"new_{split}"] = accuracy(mixed, examples(split, count))
            row[f"old_{split}"] = accuracy(mixed, old_drawings(split))
        found.append(row)
    return found


def rows() -> list[dict[str, Any]]:
    """The rows of the log: "way", "shots", "seed" and what `adapt` says; some with a "rate", some with "mixtures"."""
    return over_seeds.read(LOG)


def measured(way: str, shots: int, measure: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds, from the log. A trial of the rate that was chosen is one of the seeds."""
    rate = WAYS[way].rate if way in WAYS else None
    found = [
        row[measure]
        for row in rows()
        if (row["way"], row["shots"], row.get("rate", rate)) == (way, shots, rate) and "mixtures" not in row
    ]
    return statistics.mean(found), statistics.stdev(found)


def plot() -> Sequence[Axes]:
    """Accuracy on the new and on the old classes against examples of each class, from the log."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
    for axis, measure in zip(panels, ("new_top1", "old_top1"), strict=True):
        for way, color, line in zip(ORDER, (*PALETTE[:6], "black", "0.45"), ("-", "--") * 4, strict=False):
            means, deviations = zip(*(measured(way, shots, measure) for shots in SHOTS), strict=True)
            percent = [100 * mean for mean in means]
            axis.errorbar(SHOTS, percent, [100 * d for d in deviations], fmt=f"o{line}", color=color, capsize=3, label=way)
        axis.set_xscale("log", base=2)
        axis.set_xticks(SHOTS, [str(shots) for shots in SHOTS])
        axis.set(xlabel="examples of each class", ylim=(0, 100))
    panels[0].set(title="16 new classes", ylabel="classified correctly, in %\n(mean ± standard deviation of 5 seeds)")
    panels[1].set(title="128 old classes")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return panels


def table(shots: int) -> None:
    """What the log says of each way for so many examples of each class."""
    print(f"{shots} of each class       new, in %   old, in %   numbers changed   processor seconds")
    for way in ORDER:
        (new, new_dev), (old, old_dev) = (measured(way, shots, key) for key in ("new_top1", "old_top1"))
        changed, seconds = (measured(way, shots, key)[0] for key in ("changed", "seconds"))
        accuracies = f"{100 * new:5.0f} ± {100 * new_dev:2.0f} {100 * old:8.0f} ± {100 * old_dev:2.0f}"
        print(f"{way:20} {accuracies} {changed:17,.0f} {seconds:19.1f}")


def logged_mixtures() -> list[list[dict[str, float]]]:
    """For each seed, what mixtures of the start and the fine-tuned model reach, by their share."""
    return [row["mixtures"] for row in rows() if "mixtures" in row]


def choose_mixture(mixtures: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The mixture with the best mean of the new and the old accuracy on validation."""
    return max(mixtures, key=lambda row: row["new_validation"] + row["old_validation"])


def plot_mixtures(yours: Sequence[tuple[float, float]] = ()) -> Axes:
    """New against old accuracy along the way from the start to the fine-tuned model: each seed of the log, and its mean.

    Args:
        yours: new and old accuracies in [0, 1] of mixtures of the reader's own, drawn as stars.
    """
    axis = plt.subplots(figsize=(6, 4.6))[1]
    every = [[[100 * row[key] for row in seed] for key in ("old_test", "new_test")] for seed in logged_mixtures()]
    for old, new in every:
        axis.plot(old, new, color=IMAGE, alpha=0.3)
    mean_old, mean_new = (
        [statistics.mean(values) for values in zip(*side, strict=True)] for side in zip(*every, strict=True)
    )
    axis.plot(mean_old, mean_new, "o-", color=IMAGE)
    axis.plot(mean_old[:: len(SHARES) - 1], mean_new[:: len(SHARES) - 1], ":", color="grey")
    for place, words in ((0, "start"), (len(SHARES) // 2, "half"), (-1, "fine-tuned")):
        axis.annotate(words, (mean_old[place], mean_new[place]), (6, 6), textcoords="offset points", fontsize=9)
    for my_new, my_old in yours:
        axis.plot(100 * my_old, 100 * my_new, "*", color="black", markersize=10, zorder=3)
    axis.set(xlabel="old classes, classified correctly, in %", ylabel="new classes, classified correctly, in %")
    axis.set(xlim=(0, 100), ylim=(0, 100))
    return axis
