"""Measures how many pictures it takes: `python -m tools.own_pictures` writes the log that lesson 14 plots."""

import argparse
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from miniclip_utils import ImageTextDataset, load_dataset, load_run, zero_shot_accuracy
from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.classroom.pictures import LOG, SIZES, STARTS, draw_folder, few_of_each, train_on
from miniclip_utils.cli import run_command

CURVE = [(k, 120) for k in SIZES]  # (pictures of each class, steps)
BUDGET = [(16, 60), (16, 240), (4, 60), (4, 240)]  # two points of it with half and with twice the steps


@cache
def drawings(seed: int) -> tuple[ImageTextDataset, ImageTextDataset]:
    """Pictures to train with and to test."""
    folder = Path(tempfile.mkdtemp())
    draw_folder(folder, seed)
    return load_dataset(folder, split="train"), load_dataset(folder, split="test")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.own_pictures", description="Measure how many pictures it takes.")
    parser.add_argument("--seeds", type=int, default=3, help="a row that the log has already is not measured again")
    seeds = parser.parse_args().seeds
    course = load_run("shapes")

    def measure(of_each: int, steps: int, start: str, seed: int) -> dict[str, float]:
        train, test = drawings(seed)
        indices = few_of_each(train.labels, of_each)
        few = replace(train, images=train.images[indices], labels=train.labels[indices])
        run = train_on(few, course, start != STARTS[0], steps, seed)
        return {"top1": round(zero_shot_accuracy(run, test), 4)}

    for points in (CURVE, BUDGET):
        keys = [
            {"of_each": of_each, "steps": steps, "start": start, "seed": seed}
            for seed in range(seeds)
            for of_each, steps in points
            for start in STARTS
        ]
        extend(LOG, keys, measure)


if __name__ == "__main__":
    run_command(main)
