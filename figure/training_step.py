"""Draws training-step.svg, one step of training from bytes to new weights.

Run it as `python figure/training_step.py`.
"""

from style import GRAY, IMAGE, MATCH, TEXT, arrow, box, canvas, picture, rounded, save, shade, text, tint, tower

FAST, EXACT = "#f3f0fa", "#f6f8fa"  # where numbers are bfloat16, and where they are float32


def images(ax):
    """Bytes become floats only in the batch."""
    for i, (name, seed) in enumerate([("black ring", 1), ("green star", 0), ("pink heart", 2)]):
        picture(ax, 16 + 14 * i, 56 + 14 * i, 46, name, seed)
    text(ax, 57, 150, "bytes on the device\nuint8 (B, 3, H, W)", 11, GRAY, linespacing=1.4)
    arrow(ax, (92, 94), (126, 94))
    box(ax, 128, 76, 82, 36, IMAGE, "augment", 12)
    arrow(ax, (211, 94), (235, 94))
    box(ax, 237, 76, 86, 36, IMAGE, "normalize", 12)
    arrow(ax, (324, 94), (360, 94))
    tower(ax, 362, 58, 104, 72, IMAGE, "image\nencoder")
    arrow(ax, (467, 94), (528, 94))


def captions(ax):
    """Each distinct caption passes the tower once."""
    box(ax, 16, 214, 84, 36, TEXT, "labels", 12)
    text(ax, 58, 266, "int64 (B,)", 11, GRAY)
    arrow(ax, (101, 232), (126, 232))
    box(ax, 128, 214, 82, 36, TEXT, "a wording\nfor each", 11)
    arrow(ax, (211, 232), (235, 232))
    box(ax, 237, 214, 86, 36, TEXT, "distinct\ncaptions", 11)
    arrow(ax, (324, 232), (360, 232))
    tower(ax, 362, 196, 84, 72, TEXT, "text\nencoder")
    arrow(ax, (447, 232), (460, 232))
    box(ax, 462, 214, 46, 36, TEXT, "one per\nimage", 11)
    arrow(ax, (509, 232), (528, 232))
    text(ax, 280, 266, "K ≤ B of them", 11, GRAY)


def loss(ax):
    """What must be exact: norm, cosines, loss."""
    box(ax, 530, 76, 92, 36, IMAGE, "L2 norm", 12)
    box(ax, 530, 214, 92, 36, TEXT, "L2 norm", 12)
    box(ax, 530, 144, 92, 40, MATCH, "cosines ×\nscale (B, B)", 11)
    arrow(ax, (576, 113), (576, 142))
    arrow(ax, (576, 213), (576, 186))
    arrow(ax, (623, 164), (658, 164))
    box(ax, 660, 144, 112, 40, MATCH, "loss", 13, weight="bold")


def update(ax):
    """The way back, and what it changes."""
    arrow(ax, (716, 186), (716, 344), (690, 344))
    text(ax, 724, 262, "backward", 12, ha="left")
    box(ax, 502, 322, 186, 44, MATCH, "AdamW: matrices with decay,\nthe rest without", 11)
    arrow(ax, (501, 344), (482, 344))
    box(ax, 316, 322, 164, 44, IMAGE, "Muon: convolutions,\northogonal steps", 11)
    arrow(ax, (315, 344), (296, 344))
    box(ax, 178, 322, 116, 44, MATCH, "clamp the scale\nto 100", 11)
    arrow(ax, (177, 344), (158, 344))
    text(ax, 152, 344, "next batch", 12, ha="right")
    text(ax, 502, 384, "the learning rate of both follows the schedule", 11, GRAY)


ax = canvas(400)
rounded(ax, 344, 20, 172, 280, FAST, "none", radius=10, zorder=0)
rounded(ax, 520, 20, 264, 280, EXACT, "none", radius=10, zorder=0)
text(ax, 430, 38, "bfloat16 where it is fast", 11.5, shade("#8a63d2"))
text(ax, 652, 38, "float32", 11.5, GRAY)
ax.plot([16, 784], [310, 310], color=tint(GRAY, 0.4), linewidth=1)
images(ax)
captions(ax)
loss(ax)
update(ax)
save(ax, __file__, "One training step")
