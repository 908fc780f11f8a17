"""Draws pair-and-batch.svg: one picture with its caption, and a batch of such pairs as the loader keeps it.

Run it as `python figure/pair_and_batch.py`.
"""

from style import CLASS_NAMES, GRAY, IMAGE, MATCH, TEXT, arrow, box, canvas, cell, panel, picture, save, shade, text

PAIRS = {  # name → seed of its scene, template
    "black ring": (1, "a photo of a {}."),
    "green star": (0, "this is a {}."),
    "blue moon": (4, "an image of the {}."),
    "pink heart": (2, "a photo of a {}."),
}
TOP, HEIGHT = 8, 352
ROWS = [76, 140, 204, 286]  # top edges of a batch's pictures
SIDE = 52
IMAGES, LABELS, CAPTIONS = 348, 444, 520  # left edges of the columns


def link(ax, x1, x2, y):
    """What belongs together."""
    ax.plot([x1, x2], [y, y], color=MATCH, linewidth=3, solid_capstyle="round", zorder=0.5)


def pair(ax):
    """From a number to a name to a sentence."""
    panel(ax, 8, TOP, 304, HEIGHT, 1, "A pair")
    picture(ax, 112, 48, 96, "green star", 0)
    label = CLASS_NAMES.index("large green star")
    for y, kind, words in [(182, "label", f"{label}"), (238, "name", "large green star")]:
        text(ax, 28, y, kind, 12, GRAY, ha="left")
        box(ax, 86, y - 16, 202, 32, TEXT, words)
    text(ax, 28, 302, "caption", 12, GRAY, ha="left")
    box(ax, 86, 284, 202, 36, TEXT, "this is a large green star.", weight="bold")
    arrow(ax, (187, 200), (187, 220))
    arrow(ax, (187, 256), (187, 282))
    text(ax, 198, 270, "template", 12, GRAY, ha="left")
    text(ax, 187, 342, "what CLIP reads", 12, shade(TEXT))


def batch(ax):
    """Row i of the images and row i of the captions belong together."""
    panel(ax, 324, TOP, 468, HEIGHT, 2, "A batch of N pairs")
    for x, words in [(IMAGES + SIDE / 2, "images"), (LABELS + 20, "labels")]:
        text(ax, x, 60, words, 12, shade(IMAGE) if words == "images" else GRAY)
    text(ax, CAPTIONS, 60, "captions", 12, shade(TEXT), ha="left")
    for y, (name, (seed, template)) in zip(ROWS, PAIRS.items(), strict=True):
        middle = y + SIDE / 2
        link(ax, IMAGES + SIDE, CAPTIONS, middle)
        picture(ax, IMAGES, y, SIDE, name, seed)
        cell(ax, LABELS, middle - 14, 40, 28, "white", f"{CLASS_NAMES.index(f'large {name}')}", GRAY, 12.5)
        box(ax, CAPTIONS, middle - 16, 256, 32, TEXT, template.replace("{}", f"large {name}"))
    for x in (IMAGES + SIDE / 2, LABELS + 20, CAPTIONS + 128):
        text(ax, x, 271, "⋮", color=GRAY)


ax = canvas(368)
pair(ax)
batch(ax)
save(ax, __file__, "A pair and a batch")
