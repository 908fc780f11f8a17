"""Draws hard-negatives.svg, the matrix of CLIP's loss with swapped captions as further columns.

Run it as `python figure/hard_negatives.py`.
"""

from style import GRAY, IMAGE, MATCH, OTHER, TEXT, canvas, cell, frame, save, text, tint

CAPTIONS = ["red ● left of blue ■", "pink ★ right of green ▲", "black ▲ left of pink ●"]
SWAPPED = ["blue ■ left of red ●", "green ▲ right of pink ★", "pink ● left of black ▲"]
LEFT, TOP, W, H = 128, 112, 104, 44

ax = canvas(300)
for column, words in enumerate(CAPTIONS + SWAPPED):
    x = LEFT + column * W + (18 if column > 2 else 0)
    side, second = words.split()[2], words.rpartition(" of ")[2]
    text(ax, x + W / 2, TOP - 54, " ".join(words.split()[:2]), 11)
    text(ax, x + W / 2, TOP - 36, f"{side} of", 11, GRAY)
    text(ax, x + W / 2, TOP - 18, second, 11)
    for row in range(3):
        fill = tint(MATCH, 0.5) if column == row else tint(TEXT, 0.3) if column == row + 3 else OTHER
        label = "right" if column == row else "swapped" if column == row + 3 else ""
        cell(ax, x, TOP + row * H, W, H, fill, label, size=11)
for row, words in enumerate(["red ●   blue ■", "green ▲   pink ★", "black ▲   pink ●"]):
    text(ax, LEFT - 64, TOP + (row + 0.5) * H, words, 11)
frame(ax, LEFT, TOP + H, 6 * W + 18, H, IMAGE)
frame(ax, LEFT + 2 * W, TOP, W, 3 * H, TEXT)
text(ax, LEFT + 1.5 * W, 22, "N captions", 13, weight="bold")
text(ax, LEFT + 4.5 * W + 18, 22, "M swapped captions: no picture fits", 13, weight="bold")
text(ax, LEFT - 64, TOP - 18, "pictures", 13, weight="bold")
text(ax, LEFT, TOP + 3 * H + 24, "image → text: a picture chooses among N + M captions, along a row", 12, ha="left")
text(
    ax,
    LEFT,
    TOP + 3 * H + 46,
    "text → image: a caption chooses among N pictures, along a column of the first N",
    12,
    ha="left",
)
save(ax, __file__, "Hard negatives")
