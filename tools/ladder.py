"""Measures each rung of the ladder over several seeds: `python -m tools.ladder` writes the log that the lessons plot."""

import argparse

from miniclip_utils.classroom.ladder import LOG, RUNGS, climb
from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.cli import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.ladder", description="Measure each rung of the ladder.")
    parser.add_argument("--seeds", type=int, default=5, help="a row that the log has already is not measured again")
    seeds = parser.parse_args().seeds
    keys = [{"rung": name, "seed": seed} for seed in range(seeds) for name in RUNGS]
    extend(LOG, keys, lambda rung, seed: {"never_seen_top1": round(climb(RUNGS[rung], seed), 4)})


if __name__ == "__main__":
    run_command(main)
