"""Draws real-clip.svg, the parts of MiniCLIP with their names in the course and in OpenAI's files.

Run it as `python figure/real_clip.py`.
"""

from style import GRAY, IMAGE, MATCH, TEXT, arrow, box, canvas, panel, save, shade, text

# (the course's name, OpenAI's name, what it is) from the input to the shared space
PICTURE = [
    ("patch_embedding", "visual.conv1", "49 patches → 49 tokens"),
    ("class_token", "visual.class_embedding", "one more, in front"),
    ("positional_embedding", "visual.positional_embedding", "a vector for each position"),
    ("norm_in", "visual.ln_pre", "LayerNorm"),
    ("blocks", "visual.transformer.resblocks", "12 blocks, width 768"),
    ("norm_out", "visual.ln_post", "LayerNorm, at the class token"),
    ("image_projection", "visual.proj", "768 → 512"),
]
SENTENCE = [
    ("token_embedding", "token_embedding", "77 numbers → 77 tokens"),
    ("positional_embedding", "positional_embedding", "a vector for each position"),
    ("blocks", "transformer.resblocks", "12 causal blocks, width 512"),
    ("norm", "ln_final", "LayerNorm, read at [EOS]"),
    ("text_projection", "text_projection", "512 → 512"),
]
TOP, HEIGHT, BOTTOM = 66, 46, 440  # of the first part; of a part; of the last part
WIDTH, BOX = 146, 489  # of a part; the middle of the box in which both meet


def tower(ax, x, number, title, color, parts):
    """A column of parts; beside each its name in OpenAI's files, and below that what it is."""
    panel(ax, x, 8, 385, BOTTOM + 10, number, title)
    step = (BOTTOM - TOP - HEIGHT) / (len(parts) - 1)
    for i, (ours, theirs, what) in enumerate(parts):
        y = TOP + i * step
        box(ax, x + 16, y, WIDTH, HEIGHT - 10, color, ours, 11.5)
        text(ax, x + WIDTH + 28, y + 9, theirs, 12, shade(color), ha="left", weight="bold")
        text(ax, x + WIDTH + 28, y + 27, what, 11.5, GRAY, ha="left")
        if i + 1 < len(parts):
            arrow(ax, (x + 16 + WIDTH / 2, y + HEIGHT - 9), (x + 16 + WIDTH / 2, y + step - 1))
    arrow(ax, (x + 16 + WIDTH / 2, BOTTOM - 9), (x + 16 + WIDTH / 2, BOX), (442 if x > 200 else 258, BOX))


ax = canvas(516)
tower(ax, 8, 1, "Image tower of ViT-B/32", IMAGE, PICTURE)
tower(ax, 407, 2, "Text tower", TEXT, SENTENCE)
box(ax, 260, BOX - 19, 180, 38, MATCH, "cosines × logit_scale.exp()", 12)
save(ax, __file__, "The course's names and OpenAI's")
