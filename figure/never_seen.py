"""Draws never-seen.svg: pairs of colour and shape that are held out, and two models that meet one of them.

Run it as `python figure/never_seen.py`.
"""

from style import GRAY, INK, LINE, MATCH, TEXT, arrow, box, canvas, frame, panel, picture, save, shade, text

from miniclip_utils.shapes import COLORS, SHAPES

X, Y, CELL = 72, 62, 34  # corner of the grid, and the side of a picture
RED, HEART = list(COLORS).index("red"), list(SHAPES).index("heart")


def grid(ax):
    """Eight colours, eight shapes; the held-out pairs lie on two diagonals that run on at the other side."""
    panel(ax, 8, 8, 392, 352, 1, "64 pairs, 16 of them held out")
    for row, color in enumerate(COLORS):
        for column, shape in enumerate(SHAPES):
            picture(ax, X + CELL * column, Y + CELL * row, CELL, f"{color} {shape}", 8 * row + column)
    for row in range(8):
        for column in range(8):
            if (column - row) % 8 in (0, 3):
                frame(ax, X + CELL * column + 1, Y + CELL * row + 1, CELL - 2, CELL - 2, INK)
    frame(ax, X - 2, Y + CELL * RED - 1, 8 * CELL + 4, CELL + 2, TEXT)
    frame(ax, X + CELL * HEART - 1, Y - 2, CELL + 2, 8 * CELL + 4, TEXT)
    frame(ax, X + CELL * HEART, Y + CELL * RED, CELL, CELL, MATCH)
    text(ax, X - 10, Y + CELL * (RED + 0.5), "red", 13, shade(TEXT), ha="right", weight="bold")
    text(ax, X + CELL * (HEART + 0.5), Y - 14, "heart", 13, shade(TEXT), weight="bold")
    text(ax, X + 4 * CELL, Y + 8 * CELL + 15, "black frames: never trained", 12, GRAY)


def models(ax):
    """The same picture to a model that knows words, and to one that knows pairs."""
    panel(ax, 412, 8, 380, 352, 2, "A pair that was never trained")
    picture(ax, 430, 156, 66, "red heart", 2)
    arrow(ax, (500, 176), (524, 176), (524, 103), (546, 103))
    arrow(ax, (500, 202), (524, 202), (524, 275), (546, 275))
    text(ax, 548, 66, "knows the words", 12.5, ha="left", weight="bold")
    for x, word in ((550, "red"), (616, "heart")):
        box(ax, x, 88, 58 if word == "heart" else 50, 30, TEXT, word)
    text(ax, 608, 103, "+", 13)
    arrow(ax, (677, 103), (694, 103))
    box(ax, 697, 88, 84, 30, MATCH, "red heart")
    text(ax, 550, 138, "its row and its column were trained", 12, GRAY, ha="left")
    text(ax, 548, 238, "knows 48 pairs by heart", 12.5, ha="left", weight="bold")
    box(ax, 550, 260, 84, 30, LINE, "red star")
    text(ax, 644, 275, "or", 12.5)
    box(ax, 656, 260, 92, 30, LINE, "pink heart")
    text(ax, 550, 310, "the right answer is not among them", 12, GRAY, ha="left")


ax = canvas(368)
grid(ax)
models(ax)
save(ax, __file__, "Never-seen combinations")
