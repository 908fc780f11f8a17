"""Draws class-aware.svg: which cells of a retrieval matrix count as right, by index and by class.

Run it as `python figure/class_aware.py`.
"""

from style import GRAY, MATCH, OTHER, TEXT, box, canvas, cell, panel, picture, save, shade, text, tint

CAPTIONS = ["pink star", "blue ring", "pink star"]
SIDE, TOP = 62, 92  # of a cell, and the top edge of the matrix


def matrix(ax, left, number, title, by_class, note):
    """Captions as columns, pictures as rows."""
    panel(ax, left, 8, 388, 324, number, title)
    x = left + 108
    for i, caption in enumerate(CAPTIONS):
        picture(ax, x - SIDE + 2, TOP + SIDE * i + 6, SIDE - 12, caption, 3 * i + 1)
        box(ax, x + (SIDE + 22) * i + 3, TOP - 34, SIDE + 16, 26, TEXT, caption, 12)
        for j, other in enumerate(CAPTIONS):
            same = caption == other
            right = same if by_class else i == j
            fill = tint(MATCH, 0.6) if right else tint(TEXT, 0.25) if same else OTHER
            mark = "right" if right else "“wrong”" if same else ""
            cell(ax, x + (SIDE + 22) * j, TOP + SIDE * i, SIDE + 22, SIDE, fill, mark, size=13)
    color = shade(MATCH) if by_class else GRAY
    text(ax, left + 194, TOP + 3 * SIDE + 26, note, 12.5, color)


ax = canvas(340)
matrix(ax, 8, 1, "By index: only the diagonal", False, "a pink star for “pink star” is called wrong")
matrix(ax, 404, 2, "By class: what the caption says", True, "every picture that fits is right")
save(ax, __file__, "Retrieval by index and by class")
