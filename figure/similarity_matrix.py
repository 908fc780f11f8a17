"""Draws similarity-matrix.svg, the loss of three pairs by hand: one softmax along the rows, another along the columns.

Run it as `python figure/similarity_matrix.py`.
"""

import numpy as np
from style import GRAY, IMAGE, MATCH, OTHER, TEXT, canvas, cell, frame, panel, save, shade, text, tint

WEIGHTS = np.array([[6, 1, 1], [2, 4, 2], [1, 1, 2]])  # exp(logits): small whole numbers, so that fractions stay readable
SIDE, TOP, WIDTH = 52, 92, 252  # of a cell; above the matrices; of a panel
PANELS = [8, 274, 540]  # left edges, in reading order
LENGTH = len(WEIGHTS) * SIDE


def matrix(ax, x, label):
    """Images as rows, captions as columns, true pairs in green; `label(i, j)` is what a cell says."""
    for i in range(3):
        text(ax, x - 14, TOP + (i + 0.5) * SIDE, f"$I_{i + 1}$", 14, shade(IMAGE), va="center")
        text(ax, x + (i + 0.5) * SIDE, TOP - 14, f"$T_{i + 1}$", 14, shade(TEXT))
        for j in range(3):
            cell(ax, x + j * SIDE, TOP + i * SIDE, SIDE, SIDE, tint(MATCH, 0.6) if i == j else OTHER, label(i, j))


ax = canvas(430)
rows, columns = WEIGHTS.sum(axis=1), WEIGHTS.sum(axis=0)
for number, (x, title) in enumerate(zip(PANELS, ["exp(logits)", "Image → text", "Text → image"], strict=True), start=1):
    panel(ax, x, 8, WIDTH, 350, number, title)
panel(ax, PANELS[0], 372, PANELS[2] + WIDTH - PANELS[0], 44, 4, "Loss: the mean of both directions")
lefts = [x + (WIDTH - LENGTH) / 2 + 8 for x in PANELS]  # 8 to the right: the row names stand on the left
matrix(ax, lefts[0], lambda i, j: f"{WEIGHTS[i, j]}")
matrix(ax, lefts[1], lambda i, j: f"{WEIGHTS[i, j]}/{rows[i]}")
matrix(ax, lefts[2], lambda i, j: f"{WEIGHTS[i, j]}/{columns[j]}")
frame(ax, lefts[1], TOP + SIDE, LENGTH, SIDE, IMAGE)
frame(ax, lefts[2] + SIDE, TOP, SIDE, LENGTH, TEXT)

bottom = TOP + LENGTH + 26
words = [("true pairs in green", GRAY), ("each row divided by its sum", shade(IMAGE))]
for left, (line, color) in zip(lefts, [*words, ("each column divided by its sum", shade(TEXT))], strict=True):
    text(ax, left + LENGTH / 2, bottom, line, 12, color)
costs = []
for x, sums in zip(PANELS[1:], [rows, columns], strict=True):
    costs.append(-np.log(np.diag(WEIGHTS) / sums).mean())
    terms = " + ".join(f"ln {own}/{whole}" for own, whole in zip(np.diag(WEIGHTS), sums, strict=True))
    text(ax, x + WIDTH / 2, bottom + 32, f"−({terms}) / 3", 12.5)
    text(ax, x + WIDTH / 2, bottom + 60, f"= {costs[-1]:.3f}", 14)
image_to_text, text_to_image = costs
words = f"({image_to_text:.3f} + {text_to_image:.3f}) / 2 = "
text(ax, PANELS[2], 394, words, 14, ha="right")
text(ax, PANELS[2], 394, f"{(image_to_text + text_to_image) / 2:.3f}", 14, ha="left", weight="bold")
save(ax, __file__, "The loss of three pairs, by rows and by columns")
