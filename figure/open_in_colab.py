"""Draws the badge that opens a lesson in Colab."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from style import EDGE, IMAGE, INK, PANEL, save

WIDTH, HEIGHT = 130, 26

figure = plt.figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="none")
ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
ax.set_axis_off()
ax.add_patch(FancyBboxPatch((3, 3), WIDTH - 6, HEIGHT - 6, "round,pad=2,rounding_size=5", fc=PANEL, ec=EDGE))
ax.fill([12, 12, 22], [8, 18, 13], color=IMAGE)
ax.text(31, HEIGHT / 2, "Open in Colab", fontsize=11, color=INK, va="center")
save(ax, __file__, "Open in Colab")
