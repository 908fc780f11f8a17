"""Draws gather.svg, two processes that compare their pairs with those of both.

Run it as `python figure/gather.py`.
"""

from style import GRAY, IMAGE, MATCH, OTHER, TEXT, arrow, canvas, cell, panel, rounded, save, shade, text, tint, tower

B, CELL = 3, 26


def process(ax, y: float, rank: int) -> None:
    """One process: its share of the batch, its towers, the features of all, its rows of the matrix."""
    panel(ax, 8, y, 784, 190, rank, f"process {rank}: B pairs of its own, the same weights")
    tower(ax, 64, y + 46, 92, 52, IMAGE, "image\nencoder")
    tower(ax, 64, y + 118, 92, 52, TEXT, "text\nencoder")
    for side, (color, name) in enumerate([(IMAGE, "I"), (TEXT, "T")]):
        top = y + 58 + 72 * side
        arrow(ax, (22, top + 14), (62, top + 14))
        arrow(ax, (157, top + 14), (180, top + 14))
        for i in range(B):
            cell(ax, 184 + CELL * i, top, CELL, 28, tint(color, 0.55), f"${name}_{{{rank * B + i + 1}}}$", size=11)
        arrow(ax, (266, top + 14), (330, top + 14))
        for i in range(2 * B):
            strength = 0.55 if i // B == rank else 0.2
            cell(ax, 334 + CELL * i, top, CELL, 28, tint(color, strength), f"${name}_{{{i + 1}}}$", size=11)
    text(ax, 298, y + 52, "gather", 11.5, shade(MATCH), weight="bold")
    text(ax, 412, y + 176, "the features of all processes", 11, GRAY)
    arrow(ax, (496, y + 108), (528, y + 108))
    for i in range(2 * B):
        for j in range(2 * B):
            own = i // B == rank
            fill = tint(MATCH, 0.7) if i == j and own else OTHER if own else "white"
            cell(ax, 560 + 22 * j, y + 42 + 22 * i, 22, 22, fill, edge=tint(GRAY, 0.35))
    text(ax, 748, y + 108, "its rows\nof the\nmatrix", 11, GRAY, va="center", linespacing=1.4)


ax = canvas(440)
process(ax, 8, 0)
process(ax, 242, 1)
for x in (170, 630):
    ax.annotate("", (x, 244), (x, 196), arrowprops={"arrowstyle": "<->", "color": MATCH, "linewidth": 2.2})
rounded(ax, 190, 205, 420, 30, "white", MATCH, linewidth=1.2)
text(ax, 400, 220, "features one way, their gradients back, and summed", 12, va="center")
save(ax, __file__, "Features gathered from two processes")
