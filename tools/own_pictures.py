"""Measures how many pictures it takes: `python -m tools.own_pictures` writes the log that lesson 14 plots."""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from miniclip_utils import ImageTextDataset, load_dataset, load_run, zero_shot_accuracy
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
    rows = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    done = {(row["of_each"], row["steps"], row["start"], row["seed"]) for row in rows}
    course = load_run("shapes")
    for seed, (k, steps), start in [
        (seed, point, start) for points in (CURVE, BUDGET) for seed in range(seeds) for point in points for start in STARTS
    ]:
        if (k, steps, start, seed) in done:
            continue
        started = time.perf_counter()
        train, test = drawings(seed)
        indices = few_of_each(train.labels, k)
        few = replace(train, images=train.images[indices], labels=train.labels[indices])
        run = train_on(few, course, start != STARTS[0], steps, seed)
        row = {"of_each": k, "steps": steps, "start": start, "seed": seed, "top1": round(zero_shot_accuracy(run, test), 4)}
        row |= {"seconds": round(time.perf_counter() - started, 1), "threads": torch.get_num_threads()}
        with LOG.open("a") as log:
            log.write(json.dumps(row | {"torch": torch.__version__}) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    run_command(main)
