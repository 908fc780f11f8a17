"""Draws the sheet of 200 photographs for the lessons: `python -m tools.photo_sheet cifar10_jpeg.tar.xz`."""

import argparse

import torch
from PIL import Image

from miniclip_utils.classroom.photos import CLASS_NAMES, SHEET
from miniclip_utils.cli import run_command
from miniclip_utils.data import load_dataset


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.photo_sheet", description="Draw the sheet of test photographs.")
    parser.add_argument("dataset", help='"cifar10", or the path of an archive or folder of its class folders')
    test = load_dataset(parser.parse_args().dataset, "test")
    rows = [test.images[test.labels == test.class_names.index(name)][:20] for name in CLASS_NAMES]  # each (20, 3, 32, 32)
    pixels = torch.stack(rows).permute(0, 3, 1, 4, 2).reshape(10 * 32, 20 * 32, 3)
    Image.fromarray(pixels.numpy()).save(SHEET, optimize=True)


if __name__ == "__main__":
    run_command(main)
