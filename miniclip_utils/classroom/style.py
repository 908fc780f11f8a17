"""One look for every plot, widget and diagram: a palette for colour-blind readers, on white in dark mode too.

What is drawn stands out from white by 3 : 1, and words by 4.5 : 1, as WCAG 2.2 asks for (§1.4.11 and §1.4.3).
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.typing import ColorType


def contrast(color: ColorType, other: ColorType = "white") -> float:
    """How far two colours stand out from each other, from 1 to 21: WCAG's ratio of their relative luminances."""
    channels = np.array([to_rgb(color), to_rgb(other)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return float((light + 0.05) / (dark + 0.05))


def darkened(color: ColorType, least: float) -> tuple[float, float, float]:
    """The colour, or the lightest shade of it that stands out from white that far."""
    red, green, blue = to_rgb(color)
    while contrast((red, green, blue)) < least:
        red, green, blue = 0.99 * red, 0.99 * green, 0.99 * blue
    return red, green, blue


PALETTE = [darkened(color, 3) for color in sns.color_palette("colorblind")]
IMAGE, TEXT, MATCH = PALETTE[:3]  # blue: the image side, orange: the text side, green: what belongs together
OTHER = "#e7ebef"  # light grey: cells of a matrix that stand for no pair


def use_style() -> None:
    """Sets the figure style for the whole notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.rcParams.update(
        {
            "figure.figsize": (7, 4),
            "figure.dpi": 80,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
        }
    )
    if shell := get_ipython():
        plt.switch_backend(plt.get_backend())  # which brings the notebook's own way of drawing, replaced here
        formatter = shell.display_formatter.formatters["image/png"]
        draw = formatter.lookup_by_type(Figure)
        formatter.for_type(Figure, lambda figure: (draw(readable(figure)), {"alt": describe(figure)}))


def readable(figure: Figure) -> Figure:
    """Darkens words in the colour of their line, which may be lighter than words on white can be.

    Words that are lighter than any line, such as white ones, stand on something dark, and stay.
    """
    for words in figure.findobj(Text):
        if contrast(words.get_color()) > 2:
            words.set_color(darkened(words.get_color(), 4.5))
    return figure


def describe(figure: Figure) -> str:
    """The alt text of a figure, in its own words: titles, what is plotted against what, and legends."""
    parts = [figure.get_suptitle()]
    for axis in figure.axes:
        labels = " against ".join(filter(None, (axis.get_ylabel(), axis.get_xlabel())))
        legend = axis.get_legend()
        lines = ", ".join(text.get_text() for text in legend.get_texts()) if legend else ""
        if not lines and not axis.images:  # the rows of a matrix, or the names of bars
            ticks = [text.get_text() for text in (*axis.get_yticklabels(), *axis.get_xticklabels())]
            lines = ", ".join(dict.fromkeys(name for name in ticks if any(map(str.isalpha, name)) and "$" not in name))
        parts.append(": ".join(filter(None, (axis.get_title(), labels, lines))))
    words = list(dict.fromkeys(" ".join(part.split()) for part in parts if part))
    pictures = sum(bool(axis.images) for axis in figure.axes)
    kind = f"{pictures} {'picture' if pictures == 1 else 'pictures'}" if pictures else "Plot"
    more = f"; and {len(words) - 12} more kinds" if len(words) > 12 else ""
    return ": ".join(filter(None, (kind, "; ".join(words[:12]) + more)))
