"""Draws gradient-cache.svg, the three steps in which a big batch passes in the memory of a small one.

Run it as `python figure/gradient_cache.py`.
"""

from style import EDGE, GRAY, IMAGE, MATCH, arrow, box, canvas, panel, rounded, save, text, tint, tower, vector

CHUNKS, GAP = 4, 52
FEATURES = [[0.5, 0.8, 0.2], [0.3, 0.6, 0.9], [0.7, 0.2, 0.4], [0.9, 0.5, 0.6]]


def chunks(ax, x: float, now: int) -> None:
    """The batch in chunks, the one that is computed now in full colour."""
    for i in range(CHUNKS):
        rounded(ax, x, 78 + GAP * i, 44, 36, tint(IMAGE, 0.6 if i == now else 0.15), IMAGE, linewidth=1.2)
    text(ax, x + 22, 300, "chunks", 11, GRAY)


ax = canvas(352)
panel(ax, 8, 8, 256, 336, 1, "features, nothing else kept")
panel(ax, 272, 8, 256, 336, 2, "the loss of the whole batch")
panel(ax, 536, 8, 256, 336, 3, "chunk by chunk, once more")

chunks(ax, 28, 1)
arrow(ax, (74, 148), (96, 148))
tower(ax, 98, 104, 76, 88, IMAGE, "encoder")
arrow(ax, (175, 148), (200, 148))
for i, values in enumerate(FEATURES):
    vector(ax, 206, 80 + GAP * i, 36, 32, values if i < 2 else [0.03] * 3, IMAGE)
text(ax, 224, 300, "features", 11, GRAY)
text(ax, 136, 326, "no activations (no_grad)", 11.5)

for i, values in enumerate(FEATURES):
    vector(ax, 292, 80 + GAP * i, 36, 32, values, IMAGE)
    vector(ax, 472, 80 + GAP * i, 36, 32, values[::-1], MATCH)
arrow(ax, (334, 174), (358, 174))
box(ax, 360, 152, 78, 44, MATCH, "loss\nN × N", 12)
arrow(ax, (439, 174), (466, 174))
text(ax, 310, 300, "features", 11, GRAY)
text(ax, 490, 300, "gradients", 11, GRAY)
text(ax, 400, 326, "one gradient for each feature", 11.5)

chunks(ax, 556, 1)
arrow(ax, (602, 140), (624, 140))
tower(ax, 626, 104, 76, 88, IMAGE, "encoder")
for i, values in enumerate(FEATURES):
    vector(ax, 736, 80 + GAP * i, 36, 32, values[::-1], MATCH if i == 1 else EDGE)
arrow(ax, (732, 148), (706, 148), color=MATCH)
arrow(ax, (664, 196), (664, 232), color=MATCH)
box(ax, 622, 234, 84, 44, MATCH, "gradients\nadd up", 11)
text(ax, 754, 300, "gradients", 11, GRAY)
text(ax, 664, 326, "activations of one chunk only", 11.5)
save(ax, __file__, "The gradient cache")
