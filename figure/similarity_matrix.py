"""Draws similarity-matrix.svg, the loss of three pairs by hand: one softmax along the rows, another along the columns.

Run it as `python figure/similarity_matrix.py`.
"""

import numpy as np
from style import GRAY, IMAGE, MATCH, OTHER, TEXT, arrow, canvas, cell, frame, panel, save, shade, text, tint

WEIGHTS = np.array([[6, 1, 1], [2, 4, 2], [1, 1, 2]])  # exp(logits): small whole numbers, so that fractions stay readable
SIDE, TOP = 52, 92
LEFT, MIDDLE, RIGHT = 62, 322, 582  # left edges of the three matrices
LENGTH = len(WEIGHTS) * SIDE


def matrix(ax, x, label):
    """Images as rows, captions as columns, true pairs in green; `label(i, j)` is what a cell says."""
    for i in range(3):
        text(ax, x - 14, TOP + (i + 0.5) * SIDE, f"$I_{i + 1}$", 14, shade(IMAGE), va="center")
        text(ax, x + (i + 0.5) * SIDE, TOP - 14, f"$T_{i + 1}$", 14, shade(TEXT))
        for j in range(3):
            cell(ax, x + j * SIDE, TOP + i * SIDE, SIDE, SIDE, tint(MATCH, 0.6) if i == j else OTHER, label(i, j))


def cross_entropy(axis):
    return -np.log(np.diag(WEIGHTS / WEIGHTS.sum(axis=axis, keepdims=True))).mean()


ax = canvas(372)
rows, columns = WEIGHTS.sum(axis=1), WEIGHTS.sum(axis=0)
for number, (x, title) in enumerate([(8, "Image → text"), (276, "exp(logits)"), (536, "Text → image")], start=1):
    panel(ax, x, 8, 252 if number != 2 else 248, 356, {1: 2, 2: 1, 3: 3}[number], title)
matrix(ax, MIDDLE, lambda i, j: f"{WEIGHTS[i, j]}")
matrix(ax, LEFT, lambda i, j: f"{WEIGHTS[i, j]}/{rows[i]}")
matrix(ax, RIGHT, lambda i, j: f"{WEIGHTS[i, j]}/{columns[j]}")
frame(ax, LEFT, TOP + SIDE, LENGTH, SIDE, IMAGE)
frame(ax, RIGHT + SIDE, TOP, SIDE, LENGTH, TEXT)
middle = TOP + LENGTH / 2
arrow(ax, (MIDDLE - 34, middle), (LEFT + LENGTH + 6, middle))
arrow(ax, (MIDDLE + LENGTH + 6, middle), (RIGHT - 34, middle))
bottom = TOP + LENGTH + 26
text(ax, LEFT + LENGTH / 2, bottom, "each row divided by its sum", 12, shade(IMAGE))
text(ax, MIDDLE + LENGTH / 2, bottom, "true pairs in green", 12, GRAY)
text(ax, RIGHT + LENGTH / 2, bottom, "each column divided by its sum", 12, shade(TEXT))
diagonal = "−(ln %d/%d + ln %d/%d + ln %d/%d) / 3"
for x, sums in [(LEFT, rows), (RIGHT, columns)]:
    numbers = [number for i in range(3) for number in (WEIGHTS[i, i], sums[i])]
    text(ax, x + LENGTH / 2, bottom + 38, diagonal % tuple(numbers), 12.5)
for x, value in [(LEFT, cross_entropy(1)), (RIGHT, cross_entropy(0))]:
    text(ax, x + LENGTH / 2, bottom + 72, f"= {value:.3f}", 14)
text(ax, MIDDLE + LENGTH / 2, bottom + 38, "loss: mean of both", 12.5)
loss = (cross_entropy(1) + cross_entropy(0)) / 2
text(ax, MIDDLE + LENGTH / 2, bottom + 72, f"{loss:.3f}", 14, weight="bold")
save(ax, __file__, "The loss of three pairs, by rows and by columns")
