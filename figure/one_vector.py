"""Draws one-vector.svg, three ways from many vectors to one: mean, class token, attention pooling.

Run it as `python figure/one_vector.py`.
"""

import numpy as np
from style import EDGE, GRAY, IMAGE, LINE, MATCH, PANEL, arrow, box, canvas, cell, rounded, save, shade, text, tint, vector

SIDE = 34  # of a position of the feature map
rng = np.random.default_rng(2)
STRENGTH = np.array([[0.06, 0.1, 0.06], [0.12, 0.75, 0.45], [0.06, 0.3, 0.12]])  # weight of each position


def way(ax, x, title, where):
    """A panel with its heading."""
    rounded(ax, x, 8, 252, 372, PANEL, EDGE, radius=10, linewidth=1, zorder=0)
    text(ax, x + 126, 32, title, 13, weight="bold")
    text(ax, x + 126, 54, where, 12, GRAY)


def feature_map(ax, x, y, strength):
    for row in range(3):
        for column in range(3):
            cell(ax, x + column * SIDE, y + row * SIDE, SIDE, SIDE, tint(IMAGE, strength[row, column]), edge=IMAGE)


def result(ax, x, words):
    """The one vector, at the foot of the panel."""
    vector(ax, x + 76, 316, 100, 20, rng.random(8), IMAGE)
    text(ax, x + 126, 356, words, 12, GRAY)


def mean(ax, x):
    """All positions count the same."""
    way(ax, x, "mean", "the course's ResNet")
    feature_map(ax, x + 75, 78, np.full((3, 3), 0.4))
    text(ax, x + 126, 194, "3×3 positions, $C$ channels", 12, GRAY)
    arrow(ax, (x + 126, 206), (x + 126, 236))
    box(ax, x + 61, 238, 130, 34, IMAGE, "sum / 9", 13)
    arrow(ax, (x + 126, 274), (x + 126, 312))
    result(ax, x, "all positions weigh the same")


def class_token(ax, x):
    """A token of its own gathers, block by block, what it needs."""
    way(ax, x, "class token", "Vision Transformers")
    for i in range(6):
        color = MATCH if i == 0 else IMAGE
        left = x + 24 + i * 36
        for y in (96, 192):
            cell(ax, left, y, 26, 26, tint(color, 0.6 if i == 0 else 0.4), edge=color)
        ax.plot([left + 13, x + 37], [124, 190], color=MATCH if i == 0 else LINE, linewidth=1.4, zorder=1)
    text(ax, x + 24, 82, "class", 12, shade(MATCH), ha="left")
    text(ax, x + 146, 82, "patches", 12, GRAY)
    text(ax, x + 190, 160, "attention,\nin each block", 12, GRAY, va="center", linespacing=1.4)
    arrow(ax, (x + 37, 220), (x + 37, 255), (x + 59, 255))
    box(ax, x + 61, 238, 130, 34, IMAGE, "LayerNorm", 13)
    arrow(ax, (x + 126, 274), (x + 126, 312))
    result(ax, x, "its attention is learned")


def attention_pooling(ax, x):
    """The mean is the query, the positions are keys and values."""
    way(ax, x, "attention pooling", "CLIP's ResNets")
    feature_map(ax, x + 130, 78, STRENGTH)
    text(ax, x + 181, 194, "keys and values", 12, GRAY)
    cell(ax, x + 36, 112, SIDE, SIDE, tint(MATCH, 0.6), edge=MATCH)
    text(ax, x + 53, 98, "mean", 12, shade(MATCH))
    text(ax, x + 53, 162, "query", 12, GRAY)
    for row in range(3):
        for column in range(3):
            end = (x + 130 + column * SIDE + SIDE / 2, 78 + row * SIDE + SIDE / 2)
            ax.plot(
                [x + 70, end[0]], [129, end[1]], color=MATCH, linewidth=0.4 + 5 * STRENGTH[row, column], alpha=0.55, zorder=3
            )
    arrow(ax, (x + 181, 206), (x + 181, 222), (x + 126, 222), (x + 126, 236))
    box(ax, x + 46, 238, 160, 34, IMAGE, "weighted sum", 13)
    arrow(ax, (x + 126, 274), (x + 126, 312))
    result(ax, x, "each image has its own weights")


ax = canvas(388)
mean(ax, 8)
class_token(ax, 274)
attention_pooling(ax, 540)
save(ax, __file__, "From many vectors to one")
