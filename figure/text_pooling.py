"""Draws text-pooling.svg, [CLS] in a bidirectional tower beside [EOS] in a causal one, each with its mask.

Run it as `python figure/text_pooling.py`.
"""

from style import GRAY, MATCH, OTHER, TEXT, arrow, box, canvas, cell, frame, panel, save, shade, text, tint

WORDS = ["[SOS]", "a", "red", "star", "[EOS]", "[PAD]"]
SIDE, TOP = 34, 148


def tower(ax, x, number, title, tokens, sees, read, words):
    """A mask as a picture, its queries as rows; the row that becomes the feature is framed."""
    panel(ax, x, 8, 385, 446, number, title)
    left = x + 82
    text(ax, left + len(tokens) * SIDE / 2, 68, "keys: what is attended to", 12, GRAY)
    for i, token in enumerate(tokens):
        color = GRAY if token == "[PAD]" else shade(TEXT)
        weight = "bold" if i == read else "normal"
        text(ax, left - 8, TOP + (i + 0.5) * SIDE, token, 12, color, ha="right", va="center", weight=weight)
        text(ax, left + (i + 0.5) * SIDE, TOP - 8, token, 12, color, rotation=60, va="bottom", weight=weight)
        for j in range(len(tokens)):
            fill = (tint(MATCH, 0.6) if i == read else tint(TEXT, 0.5)) if sees(i, j) else OTHER
            cell(ax, left + j * SIDE, TOP + i * SIDE, SIDE, SIDE, fill)
    y, right = TOP + (read + 0.5) * SIDE, left + len(tokens) * SIDE
    frame(ax, left, TOP + read * SIDE, right - left, SIDE, MATCH)
    arrow(ax, (right + 3, y), (x + 328, y))
    box(ax, x + 330, y - 14, 48, 28, MATCH, "$T_f$", 13)
    text(ax, x + 192, 418, words, 12, GRAY, linespacing=1.5)


ax = canvas(462)
with_cls = ["[CLS]", *WORDS]
tower(
    ax,
    8,
    1,
    "This course: [CLS] + bidirectional",
    with_cls,
    lambda i, j: with_cls[j] != "[PAD]",
    0,
    "A trainable vector in front sees every word.\nThe mask hides only the padding.",
)
tower(
    ax,
    407,
    2,
    "CLIP: [EOS] + causal",
    WORDS,
    lambda i, j: j <= i,
    WORDS.index("[EOS]"),
    "A token sees itself and what stands before it.\nOnly [EOS] and what follows it see all words.",
)
save(ax, __file__, "[CLS] and bidirectional beside [EOS] and causal")
