"""Measures the ways to adapt a model over several seeds: `python -m tools.adapting` writes the log that lesson 13 plots."""

import argparse

from miniclip_utils.classroom.adapting import LOG, NEW_WORDS, SHOTS, WAYS, adapt, mixtures, probe, shipped, with_new_words
from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.cli import run_command


def measure(way, shots, seed, rate=None):
    return probe(shots, seed) if way == "linear probe" else adapt(way, shots, seed, rate)[1]


def mix(way, shots, seed, mixtures_of):
    run, _ = adapt(way, shots, seed)
    return {"mixtures": mixtures(run, with_new_words(shipped(), NEW_WORDS, seed))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.adapting", description="Measure the ways to adapt a model.")
    parser.add_argument("--seeds", type=int, default=5, help="a row that the log has already is not measured again")
    arguments = parser.parse_args()
    rates = [(name, factor * way.rate) for name, way in WAYS.items() for factor in (1 / 3, 1, 3)]
    extend(LOG, [{"way": name, "shots": 8, "seed": 0, "rate": rate} for name, rate in rates], measure)
    for seed in range(arguments.seeds):
        ways = ["linear probe", *WAYS]
        extend(LOG, [{"way": way, "shots": shots, "seed": seed} for way in ways for shots in SHOTS], measure)
        extend(LOG, [{"way": "all weights", "shots": 8, "seed": seed, "mixtures_of": "start"}], mix)


if __name__ == "__main__":
    run_command(main)
