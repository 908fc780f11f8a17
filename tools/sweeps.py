"""Measures the sweeps of the lessons over several seeds: `python -m tools.sweeps` writes the log that they plot."""

import argparse

from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.classroom.sweeps import LOG, RATES, RATES_TRIED, SWEEPS, batch
from miniclip_utils.cli import run_command


def measure(sweep, point, seed, **more):
    return (batch if sweep == "rate" else SWEEPS[sweep].run)(point, seed, **more)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.sweeps", description="Measure the sweeps of the lessons.")
    parser.add_argument("sweeps", nargs="*", default=list(SWEEPS), help='by default all; "rate" tries learning rates')
    parser.add_argument("--seeds", type=int, default=5, help="a row that the log has already is not measured again")
    arguments = parser.parse_args()
    if "rate" in arguments.sweeps:
        keys = [{"sweep": "rate", "point": size, "seed": 0, "rate": rate} for size in RATES for rate in RATES_TRIED]
        extend(LOG, keys, measure)
    names = [name for name in arguments.sweeps if name != "rate"]
    for seed in range(arguments.seeds):
        keys = [{"sweep": name, "point": point, "seed": seed} for name in names for point in SWEEPS[name].points]
        extend(LOG, keys, measure)


if __name__ == "__main__":
    run_command(main)
