"""Measures each rung of the ladder over several seeds: `python -m tools.ladder` writes the log that the lessons plot."""

import argparse
import json
import time

import torch

from miniclip_utils.classroom.ladder import LOG, RUNGS, climb
from miniclip_utils.cli import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.ladder", description="Measure each rung of the ladder.")
    parser.add_argument("--seeds", type=int, default=5, help="a row that the log has already is not measured again")
    seeds = parser.parse_args().seeds
    rows = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    done = {(row["rung"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for name, rung in RUNGS.items():
            if (name, seed) in done:
                continue
            started = time.perf_counter()
            row = {"rung": name, "seed": seed, "never_seen_top1": round(climb(rung, seed), 4)}
            row |= {"seconds": round(time.perf_counter() - started, 1), "threads": torch.get_num_threads()}
            with LOG.open("a") as log:
                log.write(json.dumps(row | {"torch": torch.__version__}) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    run_command(main)
