"""Draws number-formats.svg, the bits of float32, bfloat16 and float16.

Run it as `python figure/number_formats.py`.
"""

from style import GRAY, IMAGE, MATCH, TEXT, canvas, cell, save, text, tint

BIT, LEFT = 12, 100
FORMATS = [  # name, bits of the exponent and of the fraction, what that means
    ("float32", 8, 23, "up to 3.4 · 10³⁸, steps of 1 in 8,388,608"),
    ("bfloat16", 8, 7, "up to 3.4 · 10³⁸, steps of 1 in 128"),
    ("float16", 5, 10, "up to 65,504, steps of 1 in 1,024"),
]

ax = canvas(150)
for row, (name, exponent, fraction, meaning) in enumerate(FORMATS):
    y = 42 + 35 * row
    text(ax, LEFT - 12, y + 11, name, 13, ha="right", weight="bold", va="center")
    for bit in range(1 + exponent + fraction):
        color = TEXT if bit == 0 else IMAGE if bit <= exponent else MATCH
        cell(ax, LEFT + bit * BIT, y, BIT, 22, tint(color, 0.5))
    text(ax, LEFT + 32 * BIT + 14, y + 11, meaning, 12, GRAY, ha="left", va="center")
text(ax, LEFT + BIT, 28, "sign", 11.5, ha="right")
text(ax, LEFT + 5.4 * BIT, 28, "exponent: range", 11.5)
text(ax, LEFT + 20.5 * BIT, 28, "fraction: precision", 11.5)
save(ax, __file__, "Number formats")
