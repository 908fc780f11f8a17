"""Two hundred photographs, to try a trained model on without a download."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data import ImageTextDataset

SHEET = Path(__file__).parent / "photos.png"  # made by tools/photo_sheet.py
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_photos() -> ImageTextDataset:
    """The first 20 test photographs of each class of CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features
    from Tiny Images"), 32 × 32 pixels, class by class: images uint8 (200, 3, 32, 32), labels int64 (200,)."""
    pixels = torch.from_numpy(np.array(Image.open(SHEET).convert("RGB")))  # (10 · 32, 20 · 32, 3), a row for each class
    images = pixels.view(10, 32, 20, 32, 3).permute(0, 2, 4, 1, 3).reshape(200, 3, 32, 32)
    return ImageTextDataset(images.contiguous(), torch.arange(10).repeat_interleave(20), CLASS_NAMES)
