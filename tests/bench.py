"""Measures what the course promises: `make bench`. Prints a table and writes build/bench.json.

With MINICLIP_BENCH_ARCHIVE=path/of/cifar10_jpeg.tar.xz it also trains on those photos, which takes 20 minutes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from miniclip_utils.shapes import make_shapes
from miniclip_utils.train import train

Row = dict[str, str | float]


def row(name: str, value: float, unit: str, goal: str) -> Row:
    print(f"{name:58} {value:10.3f} {unit:8} {goal}", flush=True)
    return {"name": name, "value": value, "unit": unit, "goal": goal}


def import_seconds() -> list[Row]:
    """The package's import on top of torch's and torchvision's, the median of five processes."""
    code = "import time, torch, torchvision; t = time.perf_counter(); import miniclip_utils; print(time.perf_counter() - t)"
    runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    return [row("import miniclip_utils after torch and torchvision", statistics.median(runs), "s", "<= 0.5")]


def shapes_seconds() -> list[Row]:
    started = time.perf_counter()
    make_shapes("train")
    return [row("draw 20,000 shapes", time.perf_counter() - started, "s", "<= 5")]


def shapes_training(out: Path) -> list[Row]:
    """The default run on the shapes, the mean of three seeds."""
    runs = [train("shapes", out / f"shapes-{seed}", seed=seed, device="cpu").metrics or {} for seed in range(3)]

    def mean(key: str) -> float:
        return statistics.mean(run[key] for run in runs)

    return [
        row("shapes: top-1 of trained combinations among 128", mean("top1"), "", ">= 0.97"),
        row("shapes: top-1 of never-seen combinations among 128", mean("held_out_top1"), "", ">= 0.95"),
        row("shapes: training time", mean("train_seconds"), "s", "<= 90"),
    ]


def photo_training(archive: str, out: Path) -> list[Row]:
    metrics = train(archive, out / "photos", device="cpu").metrics or {}
    return [
        row("photos: top-1 on the test images", metrics["top1"], "", ">= 0.90"),
        row("photos: training time", metrics["train_seconds"], "s", "<= 1200"),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = import_seconds() + shapes_seconds() + shapes_training(Path(folder))
        if archive := os.environ.get("MINICLIP_BENCH_ARCHIVE"):
            rows += photo_training(archive, Path(folder))
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
