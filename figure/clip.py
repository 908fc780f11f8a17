"""Draws clip.svg, the whole of CLIP: pre-training on pairs, a classifier made from text, zero-shot prediction.

Run it as `python figure/clip.py`.
"""

from style import GRAY, IMAGE, MATCH, OTHER, TEXT, arrow, box, canvas, cell, panel, picture, save, shade, text, tint, tower

PAIRS = {"black ring": 1, "green star": 0, "blue moon": 4, "pink heart": 2}  # each with the seed of its scene
LABELS = ["black cross", "blue star", "cyan ring", "yellow moon"]
SIDE, GAP = 40, 18  # of a cell, and of the dots before the last one
OFFSETS = [0, SIDE, 2 * SIDE, 3 * SIDE + GAP]
LENGTH = OFFSETS[-1] + SIDE
DOTS = 3 * SIDE + GAP / 2
TOP, BOTTOM = 8, 440  # of the panels


def row(ax, x, y, labels, fills):
    """Cells side by side, with dots before the last one."""
    for offset, label, fill in zip(OFFSETS, labels, fills, strict=True):
        cell(ax, x + offset, y, SIDE, SIDE, fill, label)
    text(ax, x + DOTS, y + SIDE / 2, "⋯", color=GRAY)


def pre_training(ax, x):
    """Every image meets every caption; the pairs that belong together lie on the diagonal."""
    panel(ax, x, TOP, 362, BOTTOM - TOP, 1, "Contrastive pre-training")
    matrix, first_row = x + 172, 198
    names = ["1", "2", "3", "N"]

    for y, name in zip([60, 81, 102, 137], PAIRS, strict=True):
        text(ax, x + 14, y, f"a photo of a {name}.", 12, shade(TEXT), ha="left")
    text(ax, x + 80, 120, "⋮", color=GRAY)
    tower(ax, matrix, 50, 72, 92, TEXT, "text\nencoder")
    arrow(ax, (matrix + 73, 96), (matrix + 102, 96), (matrix + 102, 148))
    row(ax, matrix, first_row - 48, [f"$T_{name}$" for name in names], [tint(TEXT, 0.4)] * 4)

    for i, (offset, (name, seed)) in enumerate(zip(OFFSETS, PAIRS.items(), strict=True)):
        y = first_row + offset
        picture(ax, x + 14, y + 1, SIDE - 2, name, seed)
        cell(ax, matrix - 48, y, SIDE, SIDE, tint(IMAGE, 0.4), f"$I_{names[i]}$")
        products = [rf"$I_{names[i]}{{\cdot}}T_{column}$" for column in names]
        row(ax, matrix, y, products, [tint(MATCH, 0.6) if i == j else OTHER for j in range(4)])
    for column in [x + 14 - 1, matrix - 48, *(matrix + offset for offset in OFFSETS)]:
        text(ax, column + SIDE / 2, first_row + DOTS, "⋮", color=GRAY, va="center")
    text(ax, matrix + DOTS, first_row + DOTS, "⋱", color=GRAY, va="center")
    tower(ax, x + 64, first_row, 36, LENGTH, IMAGE, "image encoder")
    arrow(ax, (x + 101, first_row + LENGTH / 2), (x + 122, first_row + LENGTH / 2))

    for y, fill, words in [(398, tint(MATCH, 0.6), "true pairs: pulled together"), (419, OTHER, "all others: pushed apart")]:
        cell(ax, matrix - 2, y - 7, 14, 14, fill)
        text(ax, matrix + 20, y, words, 12, ha="left")


def classifier(ax, x):
    """The text encoder turns each label into one vector."""
    panel(ax, x, TOP, 204, BOTTOM - TOP, 2, "Classifier from text")
    middle = x + 102
    for i, label in enumerate(LABELS):
        box(ax, x + 12 + 93 * (i % 2), 52 + 30 * (i // 2), 87, 25, TEXT, label, 12)
    arrow(ax, (middle, 112), (middle, 132))
    box(ax, x + 12, 134, 180, 30, TEXT, "a photo of a {label}.", 12.5)
    arrow(ax, (middle, 166), (middle, 186))
    tower(ax, x + 13, 188, LENGTH, 40, TEXT, "text encoder", to="down")
    arrow(ax, (middle, 230), (middle, 264))
    row(ax, x + 13, 266, [f"$T_{name}$" for name in "123K"], [tint(TEXT, 0.4)] * 4)
    text(ax, middle, 338, "one vector for each label,\ncomputed once", 12, GRAY, linespacing=1.5)


def prediction(ax, x):
    """The label whose vector has the largest dot product with the image's is the answer."""
    panel(ax, x, TOP, 202, BOTTOM - TOP, 3, "Zero-shot prediction")
    middle = x + 101
    picture(ax, middle - 30, 50, 60, "blue star", 5)
    arrow(ax, (middle, 112), (middle, 132))
    tower(ax, x + 12, 134, LENGTH, 40, IMAGE, "image encoder", to="down")
    arrow(ax, (middle, 176), (middle, 194))
    cell(ax, middle - SIDE / 2, 196, SIDE, SIDE, tint(IMAGE, 0.4), "$I$")
    arrow(ax, (middle, 238), (middle, 264))
    products = [rf"$I{{\cdot}}T_{name}$" for name in "123K"]
    row(ax, x + 12, 266, products, [OTHER, tint(MATCH, 0.6), OTHER, OTHER])
    arrow(ax, (x - 22, 286), (x + 10, 286))
    arrow(ax, (x + 12 + 1.5 * SIDE, 308), (x + 12 + 1.5 * SIDE, 334))
    box(ax, x + 12, 336, LENGTH, 30, MATCH, "a photo of a blue star.")
    text(ax, middle, 398, "blue and star were never\ntogether in training", 12, GRAY, linespacing=1.5)


ax = canvas(448)
pre_training(ax, 8)
classifier(ax, 378)
prediction(ax, 590)
save(ax, __file__, "CLIP")
