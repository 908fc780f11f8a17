"""Measurements that are repeated over seeds: the rows of a log, one for each point and seed."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def read(log: Path) -> list[dict[str, Any]]:
    """The rows of a log, in the order in which they were measured; none, if there is no log yet."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def extend(log: Path, keys: Iterable[dict[str, Any]], measure: Callable[..., dict[str, Any]]) -> None:
    """Measures what the log lacks. Each row is written when it is measured, so a run that is cut off can go on.

    Args:
        keys: what tells one row from another, the seed included.
        measure: gets a key as its arguments; returns the rest of its row, perhaps with "seconds" of its own.
    """
    rows = read(log)
    for key in keys:
        if any(key.items() <= row.items() for row in rows):
            continue
        started = time.perf_counter()
        row = key | measure(**key)
        row = {"seconds": round(time.perf_counter() - started, 1)} | row
        row = key | row | {"threads": torch.get_num_threads(), "torch": torch.__version__}
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
