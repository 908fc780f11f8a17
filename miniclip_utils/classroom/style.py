"""One look for every plot, widget and diagram: a palette for colour-blind readers, on white in dark mode too."""

import matplotlib.pyplot as plt
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure

PALETTE = sns.color_palette("colorblind")
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
        formatter.for_type(Figure, lambda figure: (draw(figure), {"alt": describe(figure)}))


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
