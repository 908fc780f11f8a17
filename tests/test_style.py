"""The look of figures and widgets: what is drawn, and what is written, stands out from its ground."""

import re

import matplotlib.pyplot as plt
import pytest
import torch

style = pytest.importorskip("miniclip_utils.classroom.style")
widgets = pytest.importorskip("miniclip_utils.classroom.widgets")


@pytest.mark.parametrize(
    "color, other, ratio",
    [("black", "white", 21), ("white", "white", 1), ("#777777", "white", 4.48), ("#ff0000", "#0000ff", 2.15)],
)
def test_contrast_is_that_of_wcag(color, other, ratio):
    """The third is the well-known grey that just fails as text."""
    assert style.contrast(color, other) == style.contrast(other, color) == pytest.approx(ratio, abs=0.005)


def test_the_palette_stands_out_from_white():
    assert min(map(style.contrast, style.PALETTE)) >= 3
    assert style.darkened("black", 3) == (0, 0, 0) and style.darkened((0, 0, 1), 3) == (0, 0, 1)


def test_words_in_the_colour_of_their_line_can_be_read_and_white_ones_stay():
    figure, axis = plt.subplots()
    words = [axis.text(0, k, "words", color=color) for k, color in enumerate([*style.PALETTE, "grey"])]
    axis.plot([0, 1], color=style.TEXT, label="a line")
    legend = axis.legend(labelcolor="linecolor").get_texts()
    white = axis.text(0, 0, "on something dark", color="white")
    assert style.readable(figure) is figure
    assert min(style.contrast(word.get_color()) for word in [*words, *legend]) >= 4.5
    assert white.get_color() == "white"
    plt.close(figure)


def test_numbers_in_the_cells_of_a_matrix_can_be_read():
    """Each on its own colour, from nothing to the strongest."""
    box = widgets.temperature_matrix(torch.linspace(-1, 1, 36).view(6, 6))
    for scale in (1, 100):
        box.children[0].value = scale
        cells = re.findall(r"color:(#\w+);background:rgba\((\d+), (\d+), (\d+), ([\d.]+)\)", box.children[1].value)
        assert len(cells) == 36
        for ink, *channels, opacity in cells:
            ground = [1 - float(opacity) * (1 - int(channel) / 255) for channel in channels]
            assert style.contrast(ink, ground) >= 4.5
