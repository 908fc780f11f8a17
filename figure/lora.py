"""Draws lora.svg, a frozen layer with a low-rank update beside it.

Run it as `python figure/lora.py`.
"""

from style import EDGE, GRAY, MATCH, PANEL, TEXT, arrow, box, canvas, rounded, save, shade, text

ax = canvas(300)
rounded(ax, 8, 8, 784, 284, PANEL, EDGE)
text(ax, 28, 34, "W x + b + (alpha / rank) · B A x", 13, ha="left", weight="bold")

text(ax, 60, 165, "x", 16)
text(ax, 60, 190, "width in", 11, GRAY)
arrow(ax, (84, 158), (190, 105))
arrow(ax, (84, 170), (170, 225))

box(ax, 200, 60, 240, 90, GRAY, "W, b\n(out, in), frozen", 13)
arrow(ax, (442, 105), (590, 152))

box(ax, 176, 205, 150, 44, TEXT, "A  (rank, in)", 12.5)
arrow(ax, (328, 227), (372, 227))
text(ax, 350, 262, "rank numbers", 11, GRAY)
box(ax, 376, 205, 150, 44, TEXT, "B  (out, rank)", 12.5)
arrow(ax, (528, 227), (590, 178))
text(ax, 250, 262, "begins at random", 11, shade(TEXT))
text(ax, 452, 262, "begins at zero", 11, shade(TEXT))

box(ax, 594, 140, 50, 50, MATCH, "+", 18)
arrow(ax, (646, 165), (716, 165))
text(ax, 748, 165, "output", 13)
text(ax, 748, 190, "width out", 11, GRAY)
save(ax, __file__, "A low-rank update beside a frozen layer")
