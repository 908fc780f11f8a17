"""mini-CLIP: CLIP in parts small enough to read, for the course in `notebooks/`."""

from .checkpoint import Run, load_run
from .data import ImageTextDataset, load_dataset
from .errors import UserError
from .evaluate import zero_shot_accuracy
from .losses import clip_loss
from .model import MiniCLIP, ModelConfig

__all__ = [
    "ImageTextDataset",
    "MiniCLIP",
    "ModelConfig",
    "Run",
    "UserError",
    "clip_loss",
    "load_dataset",
    "load_run",
    "zero_shot_accuracy",
]
