"""One look for every figure: a palette that colour-blind readers can tell apart, on white in dark mode too."""

import matplotlib.pyplot as plt
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure

PALETTE = sns.color_palette("colorblind")
IMAGE_COLOR, TEXT_COLOR, MATCH_COLOR = PALETTE[0], PALETTE[1], PALETTE[2]  # as in the diagrams of figure/


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
