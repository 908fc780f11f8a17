"""What the package tests share: a fixed seed, few threads, and a dataset and model small enough for a second."""

import pytest
import torch
from PIL import Image

from miniclip_utils import ModelConfig

TINY = ModelConfig(
    embed_dim=16, image_size=16, resnet_widths=(8, 16), resnet_blocks=(1, 1), text_width=16, text_layers=1, text_num_heads=2
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def tiny(monkeypatch):
    """A preset "tiny" for training in about a second."""
    from miniclip_utils import loop, model

    monkeypatch.setitem(model.PRESETS, "tiny", TINY)
    monkeypatch.setitem(loop.RECIPES, "tiny", loop.Recipe(epochs=4, batch_size=16, shift=1))
    monkeypatch.setattr(loop, "MOST_EPOCHS", 1)  # else so few pictures would be shown a hundred times, and not four
    return "tiny"


@pytest.fixture
def color_folder(tmp_path):
    """Class-named folders of 24 noisy images each of two colours."""
    folder = tmp_path / "colors"
    for name, color in {"red": (200, 30, 30), "blue": (30, 30, 200)}.items():
        (folder / name).mkdir(parents=True)
        for index in range(24):
            image = Image.new("RGB", (16, 16), tuple(channel + index for channel in color))
            image.save(folder / name / f"{index:02}.png")
    return folder
