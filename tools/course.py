"""Runs the whole course: `python -m tools.course notebooks build/course`.

Two lessons run at once, of one thread each: so two cores need two thirds of the time that lessons of two threads take one
after another. On one core they run one after another.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError

CELL_TIMEOUT = 600  # seconds
PUBLISHED_FIGURE = re.compile(r"\]\(https://raw\.githubusercontent\.com/[^)\s]+/figure/")  # as `tools.address` writes it
LESSON_LINK = re.compile(r"\]\(((?:\d|A)\d_\w+)\.ipynb")  # in the Markdown of a lesson, to another one


class LessonRun(NamedTuple):
    """Time and memory of an executed lesson, and what it reached.

    Attributes:
        seconds: from the start of its kernel to its last cell.
        megabytes: most memory that the kernel held at one moment; None where the system does not tell (only Linux does).
        figure: the last one that the lesson reached, or "".
    """

    seconds: float
    megabytes: float | None
    figure: str


def lessons_in(folder: Path) -> list[Path]:
    """The lessons of a folder, in their order.

    Raises:
        UserError: there are none.
    """
    lessons = sorted(folder.glob("*.ipynb"))
    if not lessons:
        raise UserError(f"there are no lessons in {str(folder)!r}: start from the folder of the course")
    return lessons


def read_lesson(path: Path) -> NotebookNode:
    """A lesson as nbformat holds it, with its pictures in the folder beside it, also where they are published.

    So nothing that is made of a lesson here fetches them.

    Raises:
        UserError: the file is no notebook, as after a merge that left its marks in it.
    """
    try:
        lesson = nbformat.read(path, as_version=4)
    except (ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0][:80]
        raise UserError(f"{str(path)!r} is not a whole notebook ({reason}): mend or restore it") from error
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            cell.source = PUBLISHED_FIGURE.sub("](../figure/", cell.source)
    return lesson


def peak_megabytes(pid: int) -> float | None:
    """Most memory that a process has held so far."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def run_lesson(notebook: Path, out: Path) -> LessonRun:
    """Executes a lesson from its first to its last cell, and writes it with its outputs to the folder `out`.

    Raises:
        UserError: a cell failed, hung or killed the kernel. What was executed until then is written all the same.
    """
    lesson = read_lesson(notebook)
    peaks: list[float | None] = []

    def note_memory(**_: Any) -> None:
        kernel: Any = client.km
        peaks.append(peak_megabytes(kernel.provisioner.pid))

    client: NotebookClient = NotebookClient(
        lesson,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # else each kernel warns of its unencrypted line within this machine
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_executed=note_memory,
    )
    started = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        reason = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines()[-1]  # without the colours of a terminal
        raise UserError(f"{notebook} stopped: {reason}. See {out / notebook.name}") from error
    finally:
        out.mkdir(parents=True, exist_ok=True)
        nbformat.write(lesson, out / notebook.name)
    outputs = [output for cell in lesson.cells for output in cell.get("outputs", [])]
    figures = [output.metadata["reached"] for output in outputs if "reached" in output.get("metadata", {})]
    return LessonRun(time.perf_counter() - started, peaks[-1], figures[-1] if figures else "")


def lessons_at_once() -> int:
    """Two, but one where this process may use only one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2, cores)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.course", description="Run every lesson, and show what each reached."
    )
    parser.add_argument("notebooks", type=Path, help="folder of the lessons")
    parser.add_argument("out", type=Path, help="folder for the executed lessons")
    options = parser.parse_args()
    lessons = lessons_in(options.notebooks)
    if options.out.resolve() == options.notebooks.resolve():
        raise UserError(f"{str(options.out)!r} holds the lessons themselves: choose another folder for the executed ones")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each kernel
    rows = []
    with ThreadPoolExecutor(lessons_at_once()) as pool:
        try:
            for lesson, ran in zip(lessons, pool.map(run_lesson, lessons, repeat(options.out)), strict=True):
                memory = f"{ran.megabytes:.0f}" if ran.megabytes else "?"
                rows.append((lesson.stem, f"{ran.seconds:.0f}", memory, ran.figure))
                print(f"{lesson.stem}: done in {ran.seconds:.0f} s", flush=True)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            os._exit(130)  # to leave the pool would wait for its lessons; a kernel ends when its parent is gone
    print(f"\n{'lesson':28} {'seconds':>7} {'MB':>5}  reached")
    for name, took, memory, figure in rows:
        print(f"{name:28} {took:>7} {memory:>5}  {figure}")
    print(f"\nThe executed lessons are in {options.out}.")


if __name__ == "__main__":
    run_command(main)
