"""Runs the whole course: `python -m miniclip_utils.classroom.course notebooks build/course`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from ..errors import UserError, run_command

CELL_TIMEOUT = 600  # seconds


def run_lesson(notebook: Path, out: Path) -> tuple[float, str]:
    """Executes a lesson from its first to its last cell, and writes it with its outputs to the folder `out`.

    Returns:
        seconds that it took, and the last figure that it reached, or "".

    Raises:
        UserError: a cell failed, hung or killed the kernel. What was executed until then is written all the same.
    """
    lesson = nbformat.read(notebook, as_version=4)
    code_cells = [index for index, cell in enumerate(lesson.cells) if cell.cell_type == "code"]

    def show_progress(cell_index: int, **_: Any) -> None:
        if sys.stderr.isatty() and cell_index in code_cells:
            print(
                f"\r{notebook.stem}: cell {code_cells.index(cell_index) + 1} of {len(code_cells)} ", end="", file=sys.stderr
            )

    client = NotebookClient(
        lesson,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_start=lambda cell, cell_index: show_progress(cell_index),
    )
    started = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise UserError(f"{notebook} stopped: {str(error).strip().splitlines()[-1]}. See {out / notebook.name}") from error
    finally:
        out.mkdir(parents=True, exist_ok=True)
        nbformat.write(lesson, out / notebook.name)
    outputs = [output for cell in lesson.cells for output in cell.get("outputs", [])]
    figures = [output.metadata["reached"] for output in outputs if "reached" in output.get("metadata", {})]
    return time.perf_counter() - started, figures[-1] if figures else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every lesson, and show what each reached.")
    parser.add_argument("notebooks", type=Path, help="folder of the lessons")
    parser.add_argument("out", type=Path, help="folder for the executed lessons")
    options = parser.parse_args()
    lessons = sorted(options.notebooks.glob("*.ipynb"))
    if not lessons:
        raise UserError(f"there are no lessons in {str(options.notebooks)!r}: start from the folder of the course")
    rows = []
    for lesson in lessons:
        seconds, figure = run_lesson(lesson, options.out)
        rows.append((lesson.stem, f"{seconds:.0f}", figure))
        print(f"\r{lesson.stem}: done in {seconds:.0f} s", flush=True)
    print(f"\n{'lesson':28} {'seconds':>7}  reached")
    for name, took, figure in rows:
        print(f"{name:28} {took:>7}  {figure}")
    print(f"\nThe executed lessons are in {options.out}.")


if __name__ == "__main__":
    run_command(main)
