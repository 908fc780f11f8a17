"""Draws attention.svg, attention on three tokens with numbers that can be followed on paper.

Run it as `python figure/attention.py`.
"""

import numpy as np
from style import GRAY, MATCH, OTHER, TEXT, arrow, canvas, cell, frame, panel, save, shade, text, tint

# As in notebooks/03_attention_and_the_text_encoder.ipynb.
TOKENS = ["a", "red", "circle"]
QUERIES = np.array([[2, 0, 1, 0], [0, 1, 2, 0], [0, 2, 1, 2]])
KEYS = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
VALUES = np.array([[0, 0], [10, 0], [0, 10]])
SCORES = QUERIES @ KEYS.T / 2
WEIGHTS = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
SIDE, LEFT, TOP = 50, 78, 112  # of a cell; of a matrix in its panel


def matrix(ax, x, values, form):
    """Queries are rows, keys are columns; the row that the third panel goes on with is framed."""
    text(ax, x + LEFT + 1.5 * SIDE, TOP - 40, "keys: what is attended to", 12, GRAY)
    for j, token in enumerate(TOKENS):
        text(ax, x + LEFT + (j + 0.5) * SIDE, TOP - 14, token, 12.5, shade(TEXT))
        text(ax, x + LEFT - 10, TOP + (j + 0.5) * SIDE, token, 12.5, shade(TEXT), ha="right", va="center")
        for k in range(3):
            share = values[j, k] / values.max()
            cell(ax, x + LEFT + k * SIDE, TOP + j * SIDE, SIDE, SIDE, tint(TEXT, 0.06 + 0.6 * share), form % values[j, k])
    text(ax, x + 18, TOP + 1.5 * SIDE, "queries: what attends", 12, GRAY, rotation=90, va="center")
    frame(ax, x + LEFT, TOP + 2 * SIDE, 3 * SIDE, SIDE, MATCH)


ax = canvas(336)
for x, number, title in [(8, 1, "Scores: q · k / √4"), (274, 2, "Weights: softmax of rows"), (540, 3, "Output of “circle”")]:
    panel(ax, x, 8, 252, 320, number, title)

matrix(ax, 8, SCORES, "%d")
text(ax, 134, 290, "the query of “circle” fits\nthe key of “red”", 12, GRAY, linespacing=1.5)
matrix(ax, 274, WEIGHTS, "%.2f")
text(ax, 400, 290, "each row adds up to 1", 12, GRAY)
arrow(ax, (236, 237), (271, 237))
arrow(ax, (504, 237), (522, 237), (522, 150), (552, 150))

for k, (token, value) in enumerate(zip(TOKENS, VALUES, strict=True)):
    y = 66 + k * 46
    cell(ax, 560, y, SIDE, 34, tint(TEXT, 0.06 + 0.6 * WEIGHTS[2, k] / WEIGHTS.max()), f"{WEIGHTS[2, k]:.2f}")
    text(ax, 626, y + 17, "×", va="center")
    for i, part in enumerate(value):
        cell(ax, 642 + i * 46, y, 46, 34, OTHER, f"{part}")
    text(ax, 742, y + 17, token, 12.5, shade(TEXT), ha="left", va="center")
text(ax, 626, 228, "=", va="center")
for i, part in enumerate(WEIGHTS[2] @ VALUES):
    cell(ax, 642 + i * 46, 211, 46, 34, tint(MATCH, 0.6), f"{part:.1f}")
text(ax, 742, 228, "output", 12.5, va="center", ha="left")
text(ax, 666, 290, "the values of the three tokens,\nmixed by the weights", 12, GRAY, linespacing=1.5)
save(ax, __file__, "Attention on three tokens")
