"""Measures the course on a GPU in at most twenty minutes: `make gpu`, or `python -m tools.gpu build/gpu --dataset DATA`.

Each part writes its numbers as soon as it has them, and README.md in the same folder shows all of them. The same command,
given again, goes on with the parts that are not done.
"""

import argparse
import inspect
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from miniclip_utils import loop, train
from miniclip_utils.cli import run_command
from miniclip_utils.device import find_device
from miniclip_utils.errors import UserError
from miniclip_utils.files import read_json, write_json
from miniclip_utils.model import PRESETS

from .gpu_parts import Job, Sizes, lessons, precision, reference, scale
from .meter import Meter, Row

# Each part and the file of its numbers; the most valuable come first.
PARTS = {
    reference: "reference/summary.json",
    precision: "precision.json",
    scale: "scale.json",
    lessons: "lessons.json",
}


def measure_all(dataset: str, out: Path, device: torch.device, sizes: Sizes) -> None:
    """Runs all parts that no earlier call has done. One that fails does not keep the others from running.

    Raises:
        UserError: what is wrong with the data; or `out` has numbers of another dataset; or parts failed.
    """
    done = read_json(out / "parts.json") if (out / "parts.json").exists() else {}
    if any(ran["dataset"] != dataset for ran in done.values()):
        raise UserError(f"{str(out)!r} has the numbers of another dataset: choose another folder, or delete it")
    splits = train.load_splits(dataset, PRESETS[sizes.preset].image_size)
    train.check_batches(loop.RECIPES[sizes.preset], splits["train"], dataset)
    out.mkdir(parents=True, exist_ok=True)
    job = Job(out, dataset, splits, sizes, Meter(device))
    for part in PARTS:
        name = part.__name__
        if name not in done or done[name]["error"]:
            print(f"{name} …", flush=True)
            done[name] = {**run_part(part, job), "dataset": dataset, **job.meter.machine()}
            write_json(out / "parts.json", done)
            (out / "README.md").write_text(page(out, done), encoding="utf-8")
    failed = [name for name, ran in done.items() if ran["error"]]
    if failed:
        raise UserError(f"parts failed ({', '.join(failed)}): mend what is said above, and give the same command again")


def run_part(part: Any, job: Job) -> Row:
    """When a part started, how long it took, and the error that ended it, if any."""
    started, clock, error = time.strftime("%Y-%m-%d %H:%M:%S %z"), time.perf_counter(), None
    try:
        part(job)
    except Exception as caught:  # whatever it is, the time on the device is too dear to lose the other parts
        traceback.print_exc()
        error = f"{type(caught).__name__}: {caught}"
    return {"started": started, "seconds": time.perf_counter() - clock, "error": error}


def page(out: Path, done: Row) -> str:
    """All numbers on one page of Markdown."""
    text = "# mini-CLIP on a GPU\n\n" + table([{"part": name, **ran} for name, ran in done.items()])
    for part, file in PARTS.items():
        if (out / file).exists():
            text += f"\n## {part.__name__}\n\n{inspect.cleandoc(part.__doc__ or '')}\n"
            for name, numbers in read_json(out / file).items():
                text += f"\n{name}:\n\n" + table(numbers if isinstance(numbers, list) else [numbers])
    return text


def table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([show(row.get(column)) for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(value: Any) -> str:
    """A value as a cell of a table: three or four digits of a measurement."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    text = f"{value:,}" if isinstance(value, int) else str(value or "")
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description="Measure the course on a GPU.")
    parser.add_argument("out", type=Path, help="folder for the numbers")
    says = '"cifar10", or the path of an archive or folder of class folders (default: cifar10)'
    parser.add_argument("--dataset", default="cifar10", help=says)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError(
            "torch finds no GPU here: run this where it does, or measure the CPU of this machine by 'make bench'"
        )
    measure_all(options.dataset, options.out, find_device("cuda"), Sizes())
    print(f"All numbers are in {options.out / 'README.md'}.")


if __name__ == "__main__":
    run_command(main)
