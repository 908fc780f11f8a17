"""The first cell of every lesson."""

import tempfile
from pathlib import Path

import torch
import torchvision
from IPython.display import Markdown, display

from ..device import device_name, fastest_device
from .style import use_style


def start(seed: int = 0) -> torch.device:
    """Sets the figure style and the seed, says what the lesson runs on, and returns the fastest device."""
    use_style()
    torch.manual_seed(seed)
    device = torch.device(fastest_device())
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, on {device_name(device)}")
    return device


def new_folder(name: str) -> Path:
    """An empty folder that stays until the machine clears its temporary files. A lesson run twice gets another one."""
    return Path(tempfile.mkdtemp(prefix=f"miniclip-{name}-"))


def reached(name: str, value: float) -> None:
    """Shows the figure that a lesson reached, and leaves it where the table of `make course` finds it."""
    display(Markdown(f"**Reached: {name} {value:.1%}**"), metadata={"reached": f"{name} {value:.1%}"})
