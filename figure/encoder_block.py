"""Draws encoder-block.svg, the pre-LayerNorm block that both Transformer towers stack.

Run it as `python figure/encoder_block.py`.
"""

from matplotlib.patches import Circle
from style import GRAY, INK, LINE, TEXT, arrow, box, canvas, panel, save, text

MIDDLE, HIGH, SHORT = 150, 48, 78  # the row of boxes, their height, and how high the shortcut runs


def plus(ax, x):
    """The place where the shortcut is added."""
    ax.add_patch(Circle((x, MIDDLE), 13, facecolor="white", edgecolor=LINE, linewidth=1.6, zorder=3))
    text(ax, x, MIDDLE, "+", 16, va="center", zorder=4)


ax = canvas(262)
panel(ax, 84, 8, 312, 246, 1, "Tokens exchange information")
panel(ax, 404, 8, 312, 246, 2, "Each token by itself")

text(ax, 34, MIDDLE - 12, "x", 15, INK, style="italic")
text(ax, 34, MIDDLE + 14, "(N, L, w)", 11, GRAY)
for x, label in [(84, "multi-head\nattention"), (404, "MLP\nw → 4w → w")]:
    box(ax, x + 46, MIDDLE - HIGH / 2, 82, HIGH, TEXT, "LayerNorm", 12)
    box(ax, x + 148, MIDDLE - HIGH / 2, 100, HIGH, TEXT, label, 12, va="center", linespacing=1.3)
    arrow(ax, (x + 129, MIDDLE), (x + 147, MIDDLE))
    arrow(ax, (x + 249, MIDDLE), (x + 265, MIDDLE))
    arrow(ax, (x + 22, MIDDLE), (x + 22, SHORT), (x + 279, SHORT), (x + 279, MIDDLE - 14))
    text(ax, x + 150, SHORT - 13, "shortcut: x as it is", 11.5, GRAY)
    plus(ax, x + 279)
arrow(ax, (64, MIDDLE), (129, MIDDLE))
arrow(ax, (84 + 293, MIDDLE), (449, MIDDLE))
arrow(ax, (404 + 293, MIDDLE), (736, MIDDLE))
arrow(ax, (84 + 198, 218), (84 + 198, MIDDLE + HIGH / 2 + 2))
text(ax, 84 + 198, 231, "mask", 12, GRAY)
text(ax, 404 + 198, 206, "the same weights at every token,\nGELU between the two layers", 11.5, GRAY, linespacing=1.5)
text(ax, 766, MIDDLE - 12, "output", 12.5, INK)
text(ax, 766, MIDDLE + 14, "(N, L, w)", 11, GRAY)
save(ax, __file__, "The encoder block")
