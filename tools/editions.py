"""The lessons for a class: `python -m tools.editions notebooks build/editions`.

    student/    without solutions and outputs
    solution/   each stub replaced by its solution; executed, with every check passing
    nbgrader/   a course for nbgrader: an assignment for each lesson, points for each check

All three are made of the lessons alone. A file that somebody changed since is never written over.
"""

import argparse
import ast
import copy
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError
from miniclip_utils.files import read_json

from .course import LESSON_LINK, lessons_in, read_lesson, run_lesson

SOLUTION = re.compile(r"<details><summary>Solution</summary>(.*?)</details>", re.S)
FIGURE = re.compile(r"\]\(\.\./(figure/[^)]+)\)")
WRITTEN = ".written.json"  # path → hash of what stands there if nobody changed it

NBGRADER_CONFIG = """\
c = get_config()  # noqa: F821, nbgrader defines it
c.CourseDirectory.course_id = "mini-clip"
c.ClearSolutions.code_stub = {"python": "..."}  # so that a check says "not solved yet"
c.Execute.timeout = 600  # seconds for one cell
"""


def is_exercise(cell: NotebookNode) -> bool:
    return "exercise" in cell.metadata.get("tags", [])


def checks_of(cell: NotebookNode) -> list[tuple[str, str]]:
    """The checks that an exercise calls, and what they check.

    Both `clip_loss = check.clip_loss(my_clip_loss)` and the call alone give
    [("clip_loss", "my_clip_loss")].
    """
    return re.findall(r"^(?:\w+ = )?check\.(\w+)\((\w+)\)", cell.source, re.M)


def solution_after(lesson: NotebookNode, index: int) -> str:
    """The code of the folded solution of the exercise in a cell.

    Raises:
        UserError: it has none.
    """
    for cell in lesson.cells[index + 1 :]:
        if is_exercise(cell):
            break
        folded = SOLUTION.search(cell.source) if cell.cell_type == "markdown" else None
        if folded and (code := re.search(r"```python\n(.*?)```", folded[1], re.S)):
            return code[1]
    raise UserError(f"the exercise in cell {index} ({lesson.cells[index].id}) has no folded solution: add one below it")


def functions_of(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of some code, and the methods of its classes as "Class.method", in their order."""
    found: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        owner, body = (f"{node.name}.", node.body) if isinstance(node, ast.ClassDef) else ("", [node])
        found |= {owner + one.name: one for one in body if isinstance(one, ast.FunctionDef)}
    return found


def is_open(function: ast.FunctionDef) -> bool:
    """Whether a function ends in `...` or `return ...`."""
    last = function.body[-1]
    return isinstance(last, (ast.Expr, ast.Return)) and isinstance(last.value, ast.Constant) and last.value.value is ...


def solve(stub: str, solution: str, before: str = "", after: str = "") -> str:
    """An exercise's code with the bodies of its solution in place of each `...`, or `return ...`.

    Args:
        before, after: lines that enclose each body.

    Raises:
        UserError: the solution leaves something of the stub open.
    """
    lines, solved = stub.splitlines(), solution.splitlines()
    answers = functions_of(ast.parse(solution))
    imports = [line for line in solved if line.startswith(("import ", "from ")) and line not in lines]
    for name, function in reversed(functions_of(ast.parse(stub)).items()):
        if not is_open(function):
            continue
        if name not in answers:
            raise UserError(f"the solution does not define {name}, which its exercise asks for")
        found = answers[name]
        start = found.body[0].lineno - 1
        while solved[start - 1].lstrip().startswith("#"):
            start -= 1
        opening = ([before] if before else []) + (imports + [""] if imports else [])
        indent = " " * function.body[-1].col_offset
        body = [line and indent + line for line in opening] + solved[start : found.end_lineno]
        place = function.body[-1]
        lines[place.lineno - 1 : place.end_lineno] = body + ([indent + after] if after else [])
    return "\n".join(lines)


def student_edition(lesson: NotebookNode) -> NotebookNode:
    """A lesson without its solutions and outputs."""
    lesson = copy.deepcopy(lesson)
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("*Its solution is in the solution edition.*", cell.source)
        else:
            cell.outputs, cell.execution_count = [], None
    return lesson


def solution_edition(lesson: NotebookNode) -> NotebookNode:
    """A lesson with its stubs replaced by their solutions, not yet executed."""
    solved = student_edition(lesson)
    for index, cell in enumerate(solved.cells):
        if is_exercise(cell):
            cell.source = solve(cell.source, solution_after(lesson, index))
        elif cell.cell_type == "markdown":
            cell.source = lesson.cells[index].source  # what a solution says beside its code
    return solved


def nbgrader_edition(lesson: NotebookNode, number: str) -> NotebookNode:
    """A lesson as nbgrader's source: solutions between its marks, and after each exercise a cell that gives its points.

    An exercise gives as many points as its title has full dots.

    Args:
        number: of the lesson, "05".
    """
    source = student_edition(lesson)
    cells, points = [], 0
    for index, cell in enumerate(source.cells):
        cells.append(cell)
        if title := re.search(r"### Exercise .*?(●+)", cell.source):
            points = len(title[1])
        cell.source = LESSON_LINK.sub(r"](../\1/\1.ipynb", FIGURE.sub(r"](\1)", cell.source))
        if not is_exercise(cell):
            continue
        cell.source = solve(cell.source, solution_after(lesson, index), "### BEGIN SOLUTION", "### END SOLUTION")
        names = [name for name, _ in checks_of(cell)]
        cell.metadata["nbgrader"] = _nbgrader_metadata("-".join(names), solution=True)
        for name, answer in checks_of(cell):
            code = f"from miniclip_utils.classroom.checks import lesson_{number}, mark\n\n"
            code += f"mark(lesson_{number}.{name}, {answer}, points={points})"
            metadata = {"nbgrader": _nbgrader_metadata(f"mark-{name}", grade=True, locked=True, points=points)}
            cells.append(new_code_cell(code, id=f"{cell.id}-{name}"[:64], metadata=metadata))
    source.cells = cells
    return source


def _nbgrader_metadata(grade_id: str, **settings: bool | int) -> dict[str, object]:
    base = {"schema_version": 3, "cell_type": "code", "task": False, "grade": False, "locked": False, "solution": False}
    return {**base, "grade_id": grade_id, **settings}


def execute(lesson: NotebookNode, name: str) -> NotebookNode:
    """Runs a lesson from its first cell to its last.

    Raises:
        UserError: a cell failed, or a check did not say that its exercise is right.
    """
    folder = Path(tempfile.mkdtemp(prefix="miniclip-editions-"))
    notebook = folder / f"{name}.ipynb"
    nbformat.write(lesson, notebook)
    run_lesson(notebook, folder / "done")
    lesson = read_lesson(folder / "done" / notebook.name)
    shutil.rmtree(folder)  # after an error it stays, since that says to look there
    for cell in filter(is_exercise, lesson.cells):
        said = "".join(output.get("text", "") for output in cell.outputs).splitlines()
        if len(said) != len(checks_of(cell)) or not all(line.startswith("✓ ") for line in said):
            raise UserError(f"{name}: the solution in cell {cell.id} does not pass its check, which says {said}")
    return lesson


def write_unless_edited(files: Mapping[str, bytes], out: Path) -> list[str]:
    """Writes files below a folder, except over those that somebody changed, and returns the paths of these.

    Raises:
        UserError: the folder holds notebooks already that are no editions, or its record is damaged.
    """
    record = out / WRITTEN
    if not record.exists() and any(out.glob("*.ipynb")):
        raise UserError(f"{str(out)!r} holds notebooks, so it is not a folder for editions: choose another")
    written = read_json(record) if record.exists() else {}
    kept = []
    for path, content in files.items():
        target = out / path
        if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != written.get(path):
            kept.append(path)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written[path] = hashlib.sha256(content).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(written, indent=1))
    return kept


def make_editions(notebook: Path, out: Path) -> list[str]:
    """Writes the three editions of one lesson, and returns the paths that it left as somebody changed them.

    Raises:
        UserError: an exercise without a solution, or with one that does not pass its check.
    """
    lesson, name = read_lesson(notebook), notebook.stem
    assignment = f"nbgrader/source/{name}"
    notebooks = {
        f"student/notebooks/{name}.ipynb": student_edition(lesson),
        f"solution/notebooks/{name}.ipynb": execute(solution_edition(lesson), name),
        f"{assignment}/{name}.ipynb": nbgrader_edition(lesson, name[:2]),
    }
    files = {path: nbformat.writes(edition).encode() for path, edition in notebooks.items()}
    files["nbgrader/nbgrader_config.py"] = NBGRADER_CONFIG.encode()
    for figure in sorted({figure for cell in lesson.cells for figure in FIGURE.findall(cell.source)}):
        for folder in ("student", "solution", assignment):
            files[f"{folder}/{figure}"] = (notebook.parent.parent / figure).read_bytes()
    return write_unless_edited(files, out)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.editions",
        description="Make the student, solution and nbgrader editions of every lesson.",
    )
    parser.add_argument("notebooks", type=Path, help="folder of the lessons")
    parser.add_argument("out", type=Path, help="folder for the editions")
    options = parser.parse_args()
    lessons = lessons_in(options.notebooks)
    for lesson in lessons:
        kept = make_editions(lesson, options.out)
        print(f"\r{lesson.stem}: done", flush=True)
        for path in kept:
            print(f"  kept {options.out / path}: it was changed. Move it away to get a new one")


if __name__ == "__main__":
    run_command(main)
