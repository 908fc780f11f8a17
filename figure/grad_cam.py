"""Draws grad-cam.svg: maps of a stage, a weight for each from the gradient, their sum over the picture.

Run it as `python figure/grad_cam.py`.
"""

import numpy as np
from style import GRAY, IMAGE, LINE, MATCH, TEXT, arrow, box, canvas, cell, panel, picture, save, shade, text, tint, tower

SIDE = 22  # of a cell
WEIGHTS = [0.8, 0.5, -0.6]
# An example: maps that answer to the shape on the left, to its colour, and to paper.
MAPS = np.array(
    [
        [[0.0, 0.1, 0.0], [0.9, 0.7, 0.1], [0.5, 0.6, 0.1]],
        [[0.1, 0.0, 0.1], [0.8, 0.6, 0.0], [0.4, 0.5, 0.0]],
        [[0.9, 0.8, 1.0], [0.1, 0.3, 0.9], [0.6, 0.5, 0.9]],
    ]
)
SUM = np.tensordot(WEIGHTS, MAPS, 1)


def grid(ax, x, y, values, color):
    """A map of 3 × 3 positions: the colour for what is positive, grey for what is negative."""
    for row in range(3):
        for column in range(3):
            value = values[row, column]
            fill = tint(color, min(1.0, value)) if value > 0 else tint(LINE, min(1.0, -value))
            cell(ax, x + SIDE * column, y + SIDE * row, SIDE, SIDE, fill, edge=LINE)


ax = canvas(316)
panel(ax, 8, 8, 316, 300, 1, "Forward: maps of positions")
picture(ax, 24, 130, 66, "red heart", 3)
tower(ax, 112, 108, 66, 110, IMAGE, "ResNet,\nto its\nlast\nstage")
arrow(ax, (93, 163), (110, 163))
arrow(ax, (180, 163), (202, 163))
tops = [50, 130, 210]
for k, top in enumerate(tops):
    text(ax, 222, top + 33, f"$A_{k + 1}$", 14, shade(IMAGE))
    grid(ax, 240, top, MAPS[k], IMAGE)
text(ax, 145, 290, "one map for each channel", 12, GRAY)

panel(ax, 332, 8, 208, 300, 2, "Backward: weights")
for k, (top, weight) in enumerate(zip(tops, WEIGHTS, strict=True)):
    arrow(ax, (310, top + 33), (350, top + 33))
    box(ax, 352, top + 16, 104, 34, TEXT if weight > 0 else LINE, f"$w_{k + 1}$ = {weight:+.1f}".replace("-", "−"), 13)
    arrow(ax, (458, top + 33), (496, top + 33), (496, 163), (552, 163)) if k != 1 else arrow(ax, (458, 163), (552, 163))
text(ax, 436, 290, "mean gradient of the cosine", 12, GRAY)

panel(ax, 548, 8, 244, 300, 3, "Sum, ReLU, enlarge")
grid(ax, 556, 130, SUM, MATCH)
text(ax, 589, 214, "sum of $w_k A_k$", 12, GRAY)
arrow(ax, (626, 163), (650, 163))
text(ax, 638, 148, "ReLU", 11, GRAY)
picture(ax, 656, 100, 126, "red heart", 3)
places = np.maximum(SUM, 0) / SUM.max()
steps = (np.arange(48) + 0.5) / 16 - 0.5
rows = np.array([np.interp(steps, range(3), line) for line in places])
smooth = np.array([np.interp(steps, range(3), line) for line in rows.T]).T
ax.imshow(smooth, cmap="magma", alpha=0.55, extent=(656, 782, 226, 100), aspect="auto", zorder=2, vmin=0, vmax=1)
ax.set(xlim=(0, 800), ylim=(316, 0))
text(ax, 719, 246, "the map, enlarged", 12, GRAY)
save(ax, __file__, "Grad-CAM")
