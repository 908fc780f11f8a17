"""Measures the experiments with scenes over several seeds: `python -m tools.scenes` writes the log that lesson 12 plots."""

import argparse

from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.classroom.scene_sweeps import LOG, SWEEPS
from miniclip_utils.cli import run_command


def measure(sweep, point, seed):
    return SWEEPS[sweep].run(point, seed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.scenes", description="Measure the experiments with scenes.")
    parser.add_argument("sweeps", nargs="*", default=list(SWEEPS), help="by default all")
    parser.add_argument("--seeds", type=int, default=5, help="a row that the log has already is not measured again")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        keys = [{"sweep": name, "point": point, "seed": seed} for name in arguments.sweeps for point in SWEEPS[name].points]
        extend(LOG, keys, measure)


if __name__ == "__main__":
    run_command(main)
