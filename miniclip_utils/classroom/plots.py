"""The plots that lessons share."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


def show_images(images: Tensor, titles: Sequence[str] | None = None, columns: int = 8, size: float = 1.35) -> Figure:
    """A grid of uint8 images (N, 3, H, W), each in a cell of `size` inches. Titles that are too wide are broken."""
    rows = -(-len(images) // columns)
    letters = int(15 * size)  # of font size 8, side by side above one image
    broken = ["\n".join(textwrap.fill(line, letters) for line in title.split("\n")) for title in titles or []]
    lines = [1 + title.count("\n") for title in broken]
    heights = [size + 0.14 * max(lines[columns * row : columns * (row + 1)], default=0) for row in range(rows)]
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, sum(heights)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image.permute(1, 2, 0).cpu(), interpolation="nearest")
    for axis, title in zip(axes.flat, broken, strict=False):
        axis.set_title(title, fontsize=8)
    return figure


def plot_matrix(
    matrix: Tensor, rows: Sequence[str], columns: Sequence[str], label: str, axis: Axes | None = None, bar: bool = True
) -> Axes:
    """A heatmap of a matrix (len(rows), len(columns)); `label` says what its colours measure, beside their `bar`."""
    axis = axis or plt.gca()
    names = {"xticklabels": list(columns), "yticklabels": list(rows)}
    sns.heatmap(matrix.cpu(), **names, cmap="viridis", cbar=bar, cbar_kws={"label": label} if bar else None, ax=axis)
    if max(map(len, columns)) > 2:
        plt.setp(axis.get_xticklabels(), rotation=60, ha="right", rotation_mode="anchor")
    else:
        axis.tick_params(axis="x", rotation=0)
    axis.tick_params(axis="y", rotation=0)
    return axis


def plot_logs(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss above its floor and validation accuracy of one or more runs, epoch by epoch.

    Args:
        logs: name of a run → the lines of its log.jsonl.
    """
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(10, 3.6))
    for name, log in logs.items():
        epochs = [line["epoch"] for line in log]
        # The first is drawn wide, so that it shows below another one that repeats it.
        style = {"marker": "o", "label": name, "linewidth": 5 if name == next(iter(logs)) else 2}
        loss.plot(epochs, [line["loss_above_floor"] for line in log], **style)
        accuracy.plot(epochs, [line["validation_top1"] for line in log], **style)
    loss.set(xlabel="epoch", ylabel="loss above its floor (nats)", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="validation top-1", ylim=(0, 1))
    accuracy.legend()
    return figure
