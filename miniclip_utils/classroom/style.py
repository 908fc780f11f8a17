"""One look for every figure: a palette that colour-blind readers can tell apart, on white in dark mode too."""

import matplotlib.pyplot as plt
import seaborn as sns

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
