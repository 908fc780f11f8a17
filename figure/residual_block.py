"""Draws residual-block.svg, the first block of a stage: two convolutions, and a shortcut around them.

Run it as `python figure/residual_block.py`.
"""

from matplotlib.patches import Circle
from style import GRAY, IMAGE, INK, LINE, MATCH, arrow, box, canvas, rounded, save, shade, text, tint

MAIN, SHORT, TOP = 92, 208, 66  # the two lanes, and the top edge of the boxes of the upper one
STEPS = [  # left edge, width, words and what has come out
    (104, 76, "conv_1\n3×3", "(32, 31, 31)"),
    (204, 76, "max-pool\n2×2", "(32, 15, 15)"),
    (304, 92, "BatchNorm\nReLU", "(32, 15, 15)"),
    (420, 76, "conv_2\n3×3", "(32, 15, 15)"),
    (520, 80, "BatchNorm", "(32, 15, 15)"),
]
PLUS, AFTER = 640, 676


def step(ax, x, y, w, words, optional=False):
    """One operation; a dashed edge marks what only some blocks have."""
    if optional:
        rounded(ax, x, y, w, 52, "white", IMAGE, linewidth=1.2, linestyle=(0, (4, 3)))
        text(ax, x + w / 2, y + 26, words, 12, va="center", linespacing=1.3)
    else:
        box(ax, x, y, w, 52, IMAGE, words, 12, linespacing=1.3)


def residual(ax):
    """The upper lane computes what is added."""
    text(ax, 350, 34, "residual: what the block adds", 12.5, shade(IMAGE), weight="bold")
    start = 76
    for x, w, words, shape in STEPS:
        arrow(ax, (start, MAIN), (x - 2, MAIN))
        step(ax, x, TOP, w, words, optional="pool" in words)
        text(ax, x + w / 2, TOP + 68, shape, 11.5, GRAY)
        start = x + w + 2
    arrow(ax, (start, MAIN), (PLUS - 17, MAIN))


def shortcut(ax):
    """The lower lane passes the input on, with no more than it needs to be added."""
    arrow(ax, (88, MAIN + 1), (88, SHORT), (202, SHORT))
    step(ax, 204, SHORT - 26, 76, "max-pool\n2×2", optional=True)
    arrow(ax, (282, SHORT), (302, SHORT))
    step(ax, 304, SHORT - 26, 92, "conv\n1×1", optional=True)
    arrow(ax, (398, SHORT), (PLUS, SHORT), (PLUS, MAIN + 17))
    text(ax, 242, SHORT + 42, "(16, 15, 15)", 11.5, GRAY)
    text(ax, 350, SHORT + 42, "(32, 15, 15)", 11.5, GRAY)
    text(ax, 516, SHORT - 14, "shortcut: x, in the new shape", 12.5, shade(MATCH), weight="bold")


def ends(ax):
    """What comes in, the sum, and what goes out."""
    text(ax, 46, MAIN - 9, "x", 15, weight="bold")
    text(ax, 46, MAIN + 11, "(16, 31, 31)", 11.5, GRAY)
    ax.add_patch(Circle((88, MAIN), 3, color=LINE))
    ax.add_patch(Circle((PLUS, MAIN), 15, facecolor=tint(MATCH, 0.5), edgecolor=MATCH, linewidth=1.4))
    text(ax, PLUS, MAIN, "+", 17, INK, va="center")
    arrow(ax, (PLUS + 17, MAIN), (AFTER - 2, MAIN))
    step(ax, AFTER, TOP, 48, "ReLU")
    arrow(ax, (AFTER + 50, MAIN), (AFTER + 70, MAIN))
    text(ax, 772, MAIN, "out", 14, weight="bold")
    text(ax, 754, TOP + 68, "(32, 15, 15)", 11.5, GRAY)


ax = canvas(290)
residual(ax)
shortcut(ax)
ends(ax)
text(
    ax,
    20,
    276,
    "dashed: max-pool only in the first block of a stage, 1×1 only where the channels change",
    11.5,
    GRAY,
    ha="left",
)
save(ax, __file__, "Residual block")
