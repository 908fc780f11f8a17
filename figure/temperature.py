"""Draws temperature.svg, what the scale exp(t) does to the softmax over four cosines.

Run it as `python figure/temperature.py`.
"""

import numpy as np
from matplotlib.patches import Rectangle
from style import GRAY, LINE, MATCH, OTHER, canvas, panel, save, text, tint

COSINES = np.array([0.60, 0.55, 0.40, -0.10])
SCALES = [
    (1, "exp(t) = 1", "nearly equal"),
    (1 / 0.07, "exp(t) = 14.3, the start", "the two closest dominate"),
    (100, "exp(t) = 100, the cap", "only the best remains"),
]
WIDTH, BASE, HEIGHT = 252, 262, 180  # of a panel; of the bars: their foot, and 100%

ax = canvas(340)
for number, (scale, title, words) in enumerate(SCALES, start=1):
    x = 8 + (number - 1) * (WIDTH + 14)
    panel(ax, x, 8, WIDTH, 324, number, title)
    weights = np.exp(scale * (COSINES - COSINES.max()))
    for k, (cosine, share) in enumerate(zip(COSINES, weights / weights.sum(), strict=True)):
        left = x + 22 + k * 55
        fill = tint(MATCH, 0.6) if k == 0 else OTHER
        ax.add_patch(Rectangle((left, BASE), 42, -max(share * HEIGHT, 1), facecolor=fill, edgecolor=LINE, linewidth=1))
        text(ax, left + 21, BASE - share * HEIGHT - 12, f"{share:.0%}" if share >= 0.005 else "≈ 0", 12)
        text(ax, left + 21, BASE + 16, f"{cosine:.2f}".replace("-", "−"), 12)
    text(ax, x + WIDTH / 2, BASE + 37, "cosine", 11.5, GRAY)
    text(ax, x + WIDTH / 2, BASE + 58, words, 12.5)
save(ax, __file__, "What the temperature does to the softmax")
