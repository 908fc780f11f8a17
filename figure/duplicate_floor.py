"""Draws duplicate-floor.svg, a batch in which captions repeat, and the least that its loss can be.

Run it as `python figure/duplicate_floor.py`.
"""

import math

from style import EDGE, GRAY, IMAGE, MATCH, OTHER, PANEL, TEXT, canvas, cell, picture, rounded, save, shade, text, tint

PAIRS = [("black ring", 1), ("black ring", 5), ("black ring", 8), ("blue moon", 4), ("blue moon", 2), ("green star", 0)]
SIDE, LEFT, TOP = 46, 150, 104
NAMES = [name for name, _ in PAIRS]
N = len(PAIRS)
RIGHT = LEFT + N * SIDE

ax = canvas(440)
rounded(ax, 8, 8, 784, 424, PANEL, EDGE, radius=10, linewidth=1, zorder=0)
for k, (name, seed) in enumerate(PAIRS):
    y = TOP + k * SIDE
    picture(ax, LEFT - 48, y + 3, 40, name, seed)
    text(ax, LEFT - 58, y + SIDE / 2, f"$I_{k + 1}$", 13, shade(IMAGE), ha="right", va="center")
    color, *shape = name.split()
    text(ax, LEFT + (k + 0.5) * SIDE, TOP - 36, color, 11.5, shade(TEXT))
    text(ax, LEFT + (k + 0.5) * SIDE, TOP - 20, " ".join(shape), 11.5, shade(TEXT))
    text(ax, LEFT + (k + 0.5) * SIDE, TOP - 58, f"$T_{k + 1}$", 13, shade(TEXT))
    for j, other in enumerate(NAMES):
        same = other == name
        fill = tint(MATCH, 0.75) if j == k else tint(MATCH, 0.3) if same else OTHER
        share = f"1/{NAMES.count(name)}" if same and NAMES.count(name) > 1 else "1" if same else "0"
        cell(ax, LEFT + j * SIDE, y, SIDE, SIDE, fill, share, size=13)
    copies = NAMES.count(name)
    cost = f"ln {copies} = {math.log(copies):.2f}"
    text(ax, RIGHT + 24, y + SIDE / 2, cost, 13, ha="left", va="center")
text(ax, RIGHT + 24, TOP - 28, "least cost of the row", 12, GRAY, ha="left")
floor = sum(math.log(NAMES.count(name)) for name in NAMES) / N
text(ax, RIGHT + 24, TOP + N * SIDE + 22, f"floor: mean = {floor:.2f}", 13, ha="left", weight="bold")
text(ax, LEFT + N * SIDE / 2, TOP + N * SIDE + 22, "probabilities of a perfect model", 12, GRAY)
for y, fill, words in [
    (190, tint(MATCH, 0.75), ["the diagonal: the pair", "that was drawn"]),
    (244, tint(MATCH, 0.3), ["off the diagonal, and", "just as true"]),
    (298, OTHER, ["not a pair"]),
]:
    cell(ax, 606, y - 8, 16, 16, fill)
    for line, part in enumerate(words):
        text(ax, 632, y + 17 * line, part, 12, ha="left")
save(ax, __file__, "Copies of a caption, and the floor of the loss")
