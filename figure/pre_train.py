"""Draws pre-train.svg, one batch of contrastive pre-training from the pairs to the loss, in the paper's symbols.

Run it as `python figure/pre_train.py`.
"""

import numpy as np
from style import (
    EDGE,
    GRAY,
    IMAGE,
    MATCH,
    OTHER,
    PANEL,
    TEXT,
    arrow,
    box,
    canvas,
    cell,
    frame,
    picture,
    rounded,
    save,
    shade,
    text,
    tint,
    tower,
    vector,
)

PAIRS = {"black ring": 1, "green star": 0, "blue moon": 4, "pink heart": 2}  # each with the seed of its scene
N, SIDE = len(PAIRS), 44  # pairs, and the side of a cell of the matrix
INPUT, ENCODER, FEATURE, LINEAR, NORM, EMBEDDING, MATRIX = 20, 174, 258, 322, 384, 438, 492  # left edges
CAPTIONS, ROWS = 66, 262  # top edges of the two lanes
LANE = 25  # height of a caption's row
RIGHT, BOTTOM = MATRIX + N * SIDE, ROWS + N * SIDE  # of the matrix
rng = np.random.default_rng(0)


def headings(ax):
    """The page, and the steps from left to right."""
    rounded(ax, 8, 8, 784, 548, PANEL, EDGE, radius=10, linewidth=1, zorder=0)
    for x, words in [(INPUT + 74, "N pairs"), (ENCODER + 34, "encode"), (LINEAR + 18, "project"), (NORM + 18, "normalise")]:
        text(ax, x, 28, words, 12, GRAY)
    text(ax, MATRIX + N * SIDE / 2, 28, "compare", 12, GRAY)


def stations(ax, y, h, color, letter, words):
    """What both lanes do: encode, project linearly, normalise."""
    middle, side = y + h / 2, letter.lower()
    tower(ax, ENCODER, y, 68, h, color, words)
    box(ax, LINEAR, middle - 22, 36, 44, color, f"$W_{side}$", 15)
    box(ax, NORM, middle - 22, 36, 44, color, "$L_2$", 15)
    for start, end in [(ENCODER + 68, FEATURE), (FEATURE + 50, LINEAR), (LINEAR + 36, NORM)]:
        arrow(ax, (start + 2, middle), (end - 2, middle))
    text(ax, FEATURE + 25, y - 12, f"${letter}_f$", 15, shade(color))
    text(ax, FEATURE + 25, y + h + 12, rf"$N{{\times}}d_{side}$", 13, GRAY)
    text(ax, LINEAR + 18, middle + 36, rf"$d_{side}{{\times}}d_e$", 13, GRAY)


def text_lane(ax):
    """Captions become the columns of the matrix."""
    middle, column = CAPTIONS + N * LANE / 2, MATRIX + N * SIDE / 2
    for i, name in enumerate(PAIRS):
        y = CAPTIONS + i * LANE
        text(ax, INPUT, y + LANE / 2, f"a photo of a {name}.", 12, shade(TEXT), ha="left")
        vector(ax, FEATURE, y + 6, 50, 13, rng.random(8), TEXT)
        vector(ax, MATRIX + i * SIDE + 15, ROWS - 60, 14, 52, rng.random(6), TEXT)
    stations(ax, CAPTIONS, N * LANE, TEXT, "T", "text\nencoder")
    arrow(ax, (NORM + 38, middle), (column, middle), (column, ROWS - 64))
    text(ax, MATRIX - 8, ROWS - 42, r"$T_e^{\top}$", 15, shade(TEXT), ha="right")


def image_lane(ax):
    """Images become the rows of the matrix."""
    middle = ROWS + N * SIDE / 2
    for i, (name, seed) in enumerate(PAIRS.items()):
        y = ROWS + i * SIDE
        picture(ax, INPUT + 54, y + 2, 40, name, seed)
        vector(ax, FEATURE, y + 15, 50, 14, rng.random(8), IMAGE)
        vector(ax, EMBEDDING, y + 15, 46, 14, rng.random(6), IMAGE)
    arrow(ax, (INPUT + 100, middle), (ENCODER - 2, middle))
    stations(ax, ROWS, N * SIDE, IMAGE, "I", "image\nencoder")
    arrow(ax, (NORM + 38, middle), (EMBEDDING - 2, middle))
    text(ax, EMBEDDING + 23, ROWS - 12, "$I_e$", 15, shade(IMAGE))
    text(ax, EMBEDDING + 23, BOTTOM + 12, r"$N{\times}d_e$", 13, GRAY)


def matrix(ax):
    """The logits: a row for each image, a column for each caption, true pairs on the diagonal."""
    for i in range(N):
        for j in range(N):
            cell(ax, MATRIX + j * SIDE, ROWS + i * SIDE, SIDE, SIDE, tint(MATCH, 0.6) if i == j else OTHER)
    cell(ax, RIGHT + 16, ROWS - 44, 14, 14, tint(MATCH, 0.6))
    text(ax, RIGHT + 38, ROWS - 37, "true pairs", 12, ha="left")


def equations(ax):
    """The same in symbols."""
    rounded(ax, INPUT, 468, 456, 76, "white", EDGE, radius=10, linewidth=1)
    text(ax, INPUT + 18, 492, r"$I_e = L_2(I_f\, W_i)$", 16, ha="left")
    text(ax, INPUT + 18, 521, r"$T_e = L_2(T_f\, W_t)$", 16, ha="left")
    text(ax, INPUT + 180, 492, r"$\mathrm{logits} = \exp(t)\;I_e\, T_e^{\top}$", 16, ha="left")
    text(ax, INPUT + 180, 521, "cosines times a learned scale, exp($t$)", 12, GRAY, ha="left")


def losses(ax):
    """A softmax along each row, another along each column; the loss is the mean of both."""
    row, column, corner = ROWS + 1.5 * SIDE, MATRIX + 2.5 * SIDE, 726
    frame(ax, MATRIX, row - SIDE / 2, N * SIDE, SIDE, IMAGE)
    frame(ax, column - SIDE / 2, ROWS, SIDE, N * SIDE, TEXT)
    arrow(ax, (RIGHT + 3, row), (RIGHT + 15, row))
    arrow(ax, (column, BOTTOM + 3), (column, BOTTOM + 22))
    text(ax, corner, row, "softmax of\neach row:\nimage → text", 12, shade(IMAGE), linespacing=1.4, va="center")
    text(ax, column, 488, "softmax of\neach column:\ntext → image", 12, shade(TEXT), linespacing=1.4, va="center")
    box(ax, corner - 52, 456, 104, 64, MATCH, "loss: mean of\nboth cross-\nentropies", linespacing=1.3)
    arrow(ax, (corner, row + 30), (corner, 454))
    arrow(ax, (column + 47, 488), (corner - 54, 488))


ax = canvas(564)
headings(ax)
text_lane(ax)
image_lane(ax)
matrix(ax)
equations(ax)
losses(ax)
save(ax, __file__, "Contrastive pre-training")
