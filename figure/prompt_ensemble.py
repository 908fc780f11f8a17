"""Draws prompt-ensemble.svg: one label in several sentences, each a vector, and their mean as the class vector.

Run it as `python figure/prompt_ensemble.py`.
"""

import numpy as np
from matplotlib.patches import Arc
from style import GRAY, LINE, MATCH, TEXT, arrow, box, canvas, panel, save, shade, text, tower, vector

TEMPLATES = ["a photo of a {}.", "this is a {}.", "an image of the {}."]
LABEL = "large red star"
ANGLES = np.radians([80, 14, 62])  # of the three vectors, in the plane of the drawing
ROWS = [98, 158, 218]  # middles of the sentences
X, Y, RADIUS = 560, 262, 190  # where the circle's centre is, and its radius


def sentences(ax):
    """Label → sentences → text encoder → one vector for each sentence."""
    panel(ax, 8, 8, 500, 288, 1, "One label, several sentences, a vector each")
    rng = np.random.default_rng(1)
    shared = rng.random(6)
    for y, template, number in zip(ROWS, TEMPLATES, "123", strict=True):
        box(ax, 28, y - 17, 232, 34, TEXT, template.replace("{}", LABEL))
        arrow(ax, (262, y), (286, y))
        arrow(ax, (362, y), (382, y))
        text(ax, 398, y, f"$T_{number}$", 14, shade(TEXT))
        vector(ax, 414, y - 8, 78, 16, np.clip(shared + 0.3 * rng.standard_normal(6), 0, 1), TEXT)
    tower(ax, 288, 72, 72, 172, TEXT, "text\nencoder")
    text(ax, 144, 270, "three wordings of one label", 12, GRAY)
    text(ax, 453, 270, "norm 1 each", 12, GRAY)


def at(angle, length=1.0):
    return X + RADIUS * length * np.cos(angle), Y - RADIUS * length * np.sin(angle)


def mean(ax):
    """The vectors end on the circle of radius 1; their mean lies inside it and is stretched back onto it."""
    panel(ax, 520, 8, 272, 288, 2, "Their mean, at norm 1 again")
    ax.add_patch(Arc((X, Y), 2 * RADIUS, 2 * RADIUS, theta1=-90, theta2=0, color=LINE, linewidth=1.2))
    for end in [(X + RADIUS + 16, Y), (X, Y - RADIUS - 16)]:
        ax.plot([X, end[0]], [Y, end[1]], color=LINE, linewidth=1)
    points = [np.array(at(angle)) for angle in ANGLES]
    middle = np.mean(points, axis=0)
    direction = np.arctan2(Y - middle[1], middle[0] - X)
    for point, angle, number in zip(points, ANGLES, "123", strict=True):
        arrow(ax, (X, Y), tuple(point), color=TEXT)
        text(ax, *at(angle, 1.09), f"$T_{number}$", 14, shade(TEXT))
    arrow(ax, (X, Y), at(direction), color=MATCH)
    ax.plot(*middle, "o", color=MATCH, markersize=7, markeredgecolor="white", zorder=5)
    text(ax, 656, 274, "dot: the mean, inside the circle", 12, GRAY)
    text(ax, 782, 62, "class vector", 12.5, shade(MATCH), ha="right", weight="bold")
    arrow(ax, (742, 72), (at(direction)[0] + 6, at(direction)[1] - 8), color=MATCH)


ax = canvas(304)
sentences(ax)
mean(ax)
save(ax, __file__, "From a label to sentences to one vector")
