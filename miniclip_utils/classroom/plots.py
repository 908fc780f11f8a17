"""The plots that lessons share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


def show_images(images: Tensor, titles: Sequence[str] | None = None, columns: int = 8, size: float = 1.2) -> Figure:
    """A grid of uint8 images (N, 3, H, W), each with a title above."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * size * (1.25 if titles else 1)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(image.permute(1, 2, 0).cpu())
        if titles:
            axis.set_title(titles[index], fontsize=8)
    return figure


def plot_matrix(matrix: Tensor, rows: Sequence[str], columns: Sequence[str], label: str, axis: Axes | None = None) -> Axes:
    """A heatmap of a matrix (len(rows), len(columns)); `label` says what its colours measure."""
    axis = axis or plt.gca()
    sns.heatmap(
        matrix.cpu(), xticklabels=list(columns), yticklabels=list(rows), cmap="viridis", cbar_kws={"label": label}, ax=axis
    )
    axis.tick_params(axis="x", rotation=60)
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
        loss.plot(epochs, [line["loss_above_floor"] for line in log], marker="o", label=name)
        accuracy.plot(epochs, [line["validation_top1"] for line in log], marker="o", label=name)
    loss.set(xlabel="epoch", ylabel="loss above its floor (nats)", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="validation top-1", ylim=(0, 1))
    accuracy.legend()
    return figure
