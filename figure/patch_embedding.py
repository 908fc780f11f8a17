"""Draws patch-embedding.svg, how a Vision Transformer reads an image: as a sequence of patches.

Run it as `python figure/patch_embedding.py`.
"""

import numpy as np
from style import GRAY, IMAGE, LINE, MATCH, arrow, box, canvas, cell, frame, picture, save, shade, text, tint, vector

SIDE, GRID = 184, 8  # of the picture, and patches along its side
LEFT, TOP = 20, 82
NUMBERS, MATRIX, TOKENS, PLACES, SUM = 242, 404, 480, 582, 684  # left edges
PATCHES = {"1": 0, "2": 1, "3": 2, "64": 63}
ROWS = [96, 136, 176, 244]
CLASS_ROW = 46
rng = np.random.default_rng(1)


def image(ax):
    """The picture, cut along a grid."""
    picture(ax, LEFT, TOP, SIDE, "red heart", 3)
    step = SIDE / GRID
    for i in range(1, GRID):
        ax.plot([LEFT + i * step] * 2, [TOP, TOP + SIDE], color="white", linewidth=1, zorder=2)
        ax.plot([LEFT, LEFT + SIDE], [TOP + i * step] * 2, color="white", linewidth=1, zorder=2)
    for index in PATCHES.values():
        frame(ax, LEFT + index % GRID * step, TOP + index // GRID * step, step, step, IMAGE)
    text(ax, LEFT + SIDE / 2, TOP + SIDE + 18, "32×32 pixels, cut into 64 patches", 12, GRAY)


def tokens(ax):
    """Each patch is flattened, multiplied by one matrix, and given a positional embedding."""
    for x, width, words in [
        (NUMBERS, 136, "flattened"),
        (TOKENS, 76, "tokens"),
        (PLACES, 76, "positions"),
        (SUM, 96, "into the blocks"),
    ]:
        text(ax, x + width / 2, 18, words, 12, GRAY)
    for (name, _), y in zip(PATCHES.items(), ROWS, strict=True):
        text(ax, NUMBERS - 8, y + 9, name, 12, ha="right")
        vector(ax, NUMBERS, y, 136, 18, rng.random(16), IMAGE)
        token(ax, y, IMAGE)
    token(ax, CLASS_ROW, MATCH)
    text(ax, TOKENS - 12, CLASS_ROW + 9, "trainable class token", 12, shade(MATCH), ha="right")
    for x in (NUMBERS + 68, TOKENS + 38, PLACES + 38, SUM + 48):
        text(ax, x, 219, "⋮", 15, GRAY, va="center")
    text(ax, NUMBERS + 68, 284, "3·4·4 = 48 numbers", 12, GRAY)
    text(ax, TOKENS + 38, 284, "width $D$", 12, GRAY)
    text(ax, PLACES + 38, 284, "trainable", 12, GRAY)
    text(ax, SUM + 48, 284, "65 × $D$", 12, GRAY)
    arrow(ax, (NUMBERS + 138, 179), (MATRIX - 2, 179))
    box(ax, MATRIX, 128, 46, 102, IMAGE, "48\n×\n$D$", 13, linespacing=1.3)
    arrow(ax, (MATRIX + 48, 179), (TOKENS - 4, 179))


def token(ax, y, color):
    """One row: the token, its positional embedding, their sum."""
    vector(ax, TOKENS, y, 76, 18, rng.random(8), color)
    text(ax, (TOKENS + 76 + PLACES) / 2, y + 9, "+", 15, va="center")
    vector(ax, PLACES, y, 76, 18, rng.random(8), LINE)
    text(ax, (PLACES + 76 + SUM) / 2, y + 9, "=", 15, va="center")
    cell(ax, SUM, y, 96, 18, tint(color, 0.5), edge=color)


ax = canvas(302)
image(ax)
tokens(ax)
save(ax, __file__, "Patch embedding")
