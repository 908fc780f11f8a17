"""The look that all diagrams share: one font, the palette of the lessons, and the parts they are made of.

A canvas is 800 units wide and its y axis points down, as in SVG, so one unit is one pixel at the width at which
pages show the diagrams. The image side is blue, the text side orange, what belongs together green.
"""

import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path as Outline

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the scripts run without installing the package
from miniclip_utils.classroom.style import IMAGE, MATCH, OTHER, TEXT  # noqa: F401, the scripts take them from here
from miniclip_utils.shapes import CLASS_NAMES, draw

INK, GRAY, LINE, EDGE, PANEL = "#1f2328", "#57606a", "#8c959f", "#d0d7de", "#f6f8fa"
WIDTH = 800

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
        "mathtext.fontset": "stix",
        "svg.fonttype": "path",  # letters as outlines: the reader needs no font
        "svg.hashsalt": "mini-CLIP",  # the same names inside the file, and so the same bytes, each time
    }
)


def tint(color, strength: float = 0.18) -> tuple[float, ...]:
    """The colour on white paper, from 0, white, to 1, full."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))


def shade(color) -> tuple[float, ...]:
    """The colour, dark enough to read as text."""
    return tuple(0.6 * part for part in to_rgb(color))


def canvas(height: float) -> Axes:
    """A white page of 800 × height units."""
    figure = plt.figure(figsize=(WIDTH / 72, height / 72), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    return ax


def save(ax: Axes, script: str, title: str) -> None:
    """Writes the SVG beside its script: `pre_train.py` makes `pre-train.svg`."""
    path = Path(script).with_name(Path(script).stem.replace("_", "-") + ".svg")
    ax.figure.savefig(path, metadata={"Title": title, "Date": None, "Creator": None})


def text(ax: Axes, x: float, y: float, words: str, size: float = 12.5, color=INK, ha: str = "center", **style) -> None:
    ax.text(x, y, words, fontsize=size, color=color, ha=ha, va=style.pop("va", "center_baseline"), **style)


def rounded(ax: Axes, x: float, y: float, w: float, h: float, fill, edge="none", radius: float = 6, **style) -> None:
    shape = f"round,pad=0,rounding_size={radius}"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=shape, facecolor=fill, edgecolor=edge, **style))


def box(ax: Axes, x: float, y: float, w: float, h: float, color, label: str, size: float = 12.5, **style) -> None:
    """A rounded box with words in it."""
    rounded(ax, x, y, w, h, tint(color), color, linewidth=1.2)
    text(ax, x + w / 2, y + h / 2, label, size, **style)


def tower(ax: Axes, x: float, y: float, w: float, h: float, color, label: str, to: str = "right") -> None:
    """An encoder: it narrows from what comes in towards the vector that goes out, `to` the right or down."""
    cut = 0.1 * (h if to == "right" else w)
    if to == "right":
        corners = [(x, y), (x + w, y + cut), (x + w, y + h - cut), (x, y + h)]
    else:
        corners = [(x, y), (x + w, y), (x + w - cut, y + h), (x + cut, y + h)]
    ax.add_patch(Polygon(corners, facecolor=tint(color, 0.4), edgecolor=color, linewidth=1.4, joinstyle="round"))
    text(ax, x + w / 2, y + h / 2, label, rotation=90 if w < 50 else 0, va="center", weight="bold")


def arrow(ax: Axes, *points: tuple[float, float], color=LINE) -> None:
    """An arrow through the points, with rounded corners."""
    vertices, codes = [points[0]], [Outline.MOVETO]
    for corner, after in pairwise(points[1:]):
        before = vertices[-1]
        vertices += [towards(corner, before), corner, towards(corner, after)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    outline = Outline([*vertices, points[-1]], [*codes, Outline.LINETO])
    ax.add_patch(
        FancyArrowPatch(path=outline, arrowstyle="-|>", mutation_scale=11, color=color, linewidth=1.6, capstyle="butt")
    )


def towards(start: tuple[float, float], end: tuple[float, float], distance: float = 8) -> tuple[float, float]:
    step = np.subtract(end, start)
    return tuple(start + step / np.hypot(*step) * distance)


def picture(ax: Axes, x: float, y: float, size: float, name: str, seed: int) -> None:
    """A scene of the embedded data, such as a "red circle"."""
    label = torch.tensor([CLASS_NAMES.index(f"large {name}")])
    pixels = draw(label, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0).numpy()
    ax.imshow(pixels, extent=(x, x + size, y + size, y), interpolation="none", aspect="auto", zorder=1)
    ax.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=LINE, linewidth=1, zorder=2))
    ax.set(xlim=(0, WIDTH), ylim=ax.get_ylim())


def cell(ax: Axes, x: float, y: float, w: float, h: float, fill, label: str = "", edge="white", size=14, **style) -> None:
    """One cell of a vector or a matrix."""
    ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor=edge, linewidth=1.2))
    text(ax, x + w / 2, y + h / 2, label, size, va="center", **style)


def vector(ax: Axes, x: float, y: float, w: float, h: float, values, color) -> None:
    """A vector as a strip, one cell for each number in [0, 1]; it runs along its longer side."""
    steps = len(values)
    for i, value in enumerate(values):
        place = (x + i * w / steps, y, w / steps, h) if w > h else (x, y + i * h / steps, w, h / steps)
        cell(ax, *place, tint(color, 0.15 + 0.85 * value))
    ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=1.2))


def frame(ax: Axes, x: float, y: float, w: float, h: float, color) -> None:
    """An outline that singles out a row or a column."""
    ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=2.6, joinstyle="round", zorder=3))


def panel(ax: Axes, x: float, y: float, w: float, h: float, number: int, title: str) -> None:
    """A quiet background with a numbered heading."""
    rounded(ax, x, y, w, h, PANEL, EDGE, radius=10, linewidth=1, zorder=0)
    text(ax, x + 14, y + 22, f"{number}", 13, GRAY, ha="left", weight="bold")
    text(ax, x + 32, y + 22, title, 13, ha="left", weight="bold")
