"""Draws prediction.svg, zero-shot classification: label text becomes a classifier, which then names an image.

Run it as `python figure/prediction.py`.
"""

import numpy as np
from style import (
    GRAY,
    IMAGE,
    LINE,
    MATCH,
    OTHER,
    TEXT,
    arrow,
    box,
    canvas,
    cell,
    panel,
    picture,
    save,
    shade,
    text,
    tint,
    tower,
    vector,
)

LABELS = ["black cross", "cyan ring", "blue star", "yellow moon"]
TRUE = LABELS.index("blue star")
K, ROW = len(LABELS), 35
LABEL, TEMPLATE, ENCODER, VECTOR, LOGIT, BAR, ANSWER = 22, 132, 306, 418, 532, 602, 702  # left edges
ONCE, EACH = 52, 300  # top edges of the rows in the two panels
LONG = 72  # of a vector

# An example to draw: vectors of six numbers, the image's close to that of its label.
rng = np.random.default_rng(3)
weights = rng.random((K, 6))
image = np.clip(weights[TRUE] + 0.12 * rng.standard_normal(6), 0, 1)
directions = weights / np.linalg.norm(weights, axis=1, keepdims=True)
exponentials = np.exp(40 * directions @ image / np.linalg.norm(image))
probabilities = exponentials / exponentials.sum()


def note(ax, x, y, words):
    """What a part is called, in one line or more below it."""
    for i, line in enumerate(words.split("\n")):
        text(ax, x, y + 16 * i, line, 12, GRAY, va="baseline")


def classifier(ax):
    """Label set, template, text encoder: one vector for each label, kept for all images."""
    panel(ax, 8, 8, 784, 222, 1, "Once for a label set: write the classifier")
    height = K * ROW
    middle, below = ONCE + height / 2, ONCE + height + 22
    for i, label in enumerate(LABELS):
        y = ONCE + (i + 0.5) * ROW
        box(ax, LABEL, y - 13, 92, 26, TEXT, label, 12)
        text(ax, VECTOR - 16, y, f"$T_{i + 1}$", 14, shade(TEXT))
        vector(ax, VECTOR, y - 8, LONG, 16, weights[i], TEXT)
    box(ax, TEMPLATE, middle - 17, 156, 34, TEXT, "a photo of a {label}.", 12.5)
    tower(ax, ENCODER, ONCE, 70, height, TEXT, "text\nencoder")
    arrow(ax, (LABEL + 94, middle), (TEMPLATE - 2, middle))
    arrow(ax, (TEMPLATE + 158, middle), (ENCODER - 2, middle))
    arrow(ax, (ENCODER + 72, middle), (VECTOR - 28, middle))
    arrow(ax, (VECTOR + LONG + 3, middle), (LOGIT + 22, middle), (LOGIT + 22, EACH - 3))
    note(ax, LABEL + 46, below, "label set")
    note(ax, TEMPLATE + 78, below, "template")
    note(ax, VECTOR + LONG / 2, below, "one vector each")
    words = "the weights of a linear\nclassifier, computed once\nand kept for all images"
    text(ax, BAR - 12, middle, words, 12, ha="left", va="center", linespacing=1.5)


def prediction(ax):
    """Image encoder, dot products with the weights, softmax, and the most probable label."""
    panel(ax, 8, 242, 784, 246, 2, "For each image: apply it")
    height = K * ROW
    middle, below = EACH + height / 2, EACH + height + 22
    picture(ax, TEMPLATE + 34, middle - 44, 88, "blue star", 5)
    tower(ax, ENCODER, middle - 50, 70, 100, IMAGE, "image\nencoder")
    text(ax, VECTOR - 16, middle, "$I$", 14, shade(IMAGE))
    vector(ax, VECTOR, middle - 8, LONG, 16, image, IMAGE)
    arrow(ax, (TEMPLATE + 124, middle), (ENCODER - 2, middle))
    arrow(ax, (ENCODER + 72, middle), (VECTOR - 28, middle))
    arrow(ax, (VECTOR + LONG + 3, middle), (LOGIT - 3, middle))
    for i, probability in enumerate(probabilities):
        y = EACH + i * ROW
        cell(ax, LOGIT, y, 44, ROW, tint(MATCH, 0.6) if i == TRUE else OTHER, rf"$I{{\cdot}}T_{i + 1}$")
        cell(ax, BAR, y + 8, max(2, 74 * probability), ROW - 16, tint(MATCH, 0.6) if i == TRUE else LINE)
    y = EACH + (TRUE + 0.5) * ROW
    arrow(ax, (BAR + 74, y), (ANSWER - 2, y))
    box(ax, ANSWER, y - 15, 78, 30, MATCH, "blue star", 12.5)
    note(ax, LOGIT + 22, below, "dot\nproducts")
    note(ax, BAR + 33, below, "times exp($t$),\nsoftmax")
    note(ax, ANSWER + 39, below, "argmax")


ax = canvas(496)
classifier(ax)
prediction(ax)
save(ax, __file__, "Zero-shot prediction")
