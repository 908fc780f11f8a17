"""Draws training-run.svg, what a run does with each split, and what it leaves on disk.

Run it as `python figure/training_run.py`.
"""

from style import GRAY, IMAGE, LINE, MATCH, TEXT, arrow, box, canvas, rounded, save, text, tint

EPOCHS = ["epoch 1", "epoch 2", "…", "last epoch"]

ax = canvas(300)
rounded(ax, 10, 12, 780, 52, tint(IMAGE, 0.08), "none", radius=8, zorder=0)
text(ax, 24, 38, "training\nsplit", 12, ha="left", va="center", linespacing=1.3)
rounded(ax, 10, 84, 780, 52, tint(TEXT, 0.08), "none", radius=8, zorder=0)
text(ax, 24, 110, "validation\nsplit", 12, ha="left", va="center", linespacing=1.3)
rounded(ax, 10, 156, 780, 52, tint(MATCH, 0.08), "none", radius=8, zorder=0)
text(ax, 24, 182, "test\nsplit", 12, ha="left", va="center", linespacing=1.3)
text(ax, 24, 254, "on disk", 12, ha="left", va="center")

for i, name in enumerate(EPOCHS):
    x = 112 + 138 * i
    if i:
        arrow(ax, (x - 27, 38), (x - 2, 38))
    if name == "…":
        text(ax, x + 54, 38, "⋯", 16, GRAY, va="center")
        text(ax, x + 54, 110, "⋯", 16, GRAY, va="center")
        continue
    box(ax, x, 22, 108, 32, IMAGE, name)
    arrow(ax, (x + 54, 55), (x + 54, 92))
    box(ax, x, 94, 108, 32, TEXT, "accuracy")
    arrow(ax, (x + 54, 127), (x + 54, 232))
    box(ax, x, 234, 108, 40, LINE, "checkpoint" if name != "last epoch" else "weights\nand metrics", 11.5)
text(ax, 243, 289, "each replaces the one before, in one step", 11, GRAY)
arrow(ax, (640, 38), (716, 38), (716, 164))
box(ax, 662, 166, 108, 32, MATCH, "accuracy, once", 11.5)
arrow(ax, (716, 199), (716, 254), (636, 254))
save(ax, __file__, "A training run")
