"""A description of the installation for bug reports: `python -m miniclip_utils.doctor`. It is printed, and sent nowhere."""

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .checkpoint import bundled_runs, load_run
from .cifar10 import data_folder
from .cli import run_command
from .device import device_name, find_device, has_fast_bfloat16
from .errors import UserError

PACKAGES = ("miniclip-utils", "torch", "torchvision", "numpy", "pillow", "matplotlib", "jupyterlab", "ipywidgets", "nbval")


def report() -> list[tuple[str, str]]:
    """(topic, finding) pairs."""
    device = find_device()
    place = "in a virtual environment" if sys.prefix != sys.base_prefix else "system"
    archive = data_folder() / "cifar-10-binary.tar.gz"
    return [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", f"{platform.python_version()}, {place}"),
        *((package, package_version(package)) for package in PACKAGES),
        ("device", device_name(device)),
        ("mixed precision", "bfloat16" if has_fast_bfloat16(device) else "off: this hardware gains nothing by it"),
        ("CIFAR-10", str(archive) if os.path.exists(archive) else f"not downloaded; it would go to {archive.parent}"),
        ("free disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB"),
        *((f"weights {name!r}", weights_finding(name)) for name in bundled_runs()),
    ]


def weights_finding(name: str) -> str:
    """The accuracy of weights that come with the course, or what is wrong with them."""
    try:
        return f"top-1 {(load_run(name).metrics or {}).get('top1', float('nan')):.3f}"
    except UserError as error:
        return str(error)


def package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    says = "Print what to paste into a bug report, and send nothing anywhere."
    argparse.ArgumentParser(prog="python -m miniclip_utils.doctor", description=says).parse_args()
    for topic, finding in report():
        print(f"{topic:18} {finding}")


if __name__ == "__main__":
    run_command(main)
