"""Puts the repository's address into the lessons: `python -m tools.address https://github.com/…`.

`pyproject.toml` holds the address. With one, each lesson gets a badge that opens it in Colab, its set-up cell installs
the package where it is missing, pinned to the tag of its version, and its pictures are named in full, so that a copy in
somebody's Drive shows them. Without one, no lesson names any place to install from, so that nobody else can take that
place; the set-up cell then says what to do.
"""

import argparse
import ast
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError

from .course import read_lesson

GITHUB = r"https://github\.com/[\w-]+/[\w.-]+"  # where Colab opens notebooks from
SETUP = """\
import importlib.util

if importlib.util.find_spec("miniclip_utils") is None:{missing}

"""
INSTALL = """  # as in Colab
    %pip install --quiet "miniclip-utils[real] @ git+{address}@{tag}\""""
SAY_WHAT_TO_DO = """
    raise SystemExit(
        "A lesson needs the package of its course: first run, in a cell of its own, "
        '%pip install "PATH[real]", with the folder of the course, or its .zip, as PATH.'
    )"""


def read_project(root: Path) -> tuple[str | None, str]:
    """The repository's address, None without one, and the tag of the version, from `pyproject.toml` in a folder."""
    try:
        project = (root / "pyproject.toml").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"there is no pyproject.toml in {str(root)!r}: start from the folder of the course") from error
    address = re.search(r'^Repository = "(.*)"$', project, re.M)
    version = re.search(r'^version = "(.*)"$', project, re.M)
    if not version:
        raise UserError(f"{str(root / 'pyproject.toml')!r} has no version: give it one")
    return address and address[1], f"v{version[1]}"


def write_address(root: Path, address: str) -> None:
    """Makes an address the one in `pyproject.toml`.

    Raises:
        UserError: it is not that of a GitHub repository, or the file has no place for it.
    """
    address = address.removesuffix("/").removesuffix(".git")
    if not re.fullmatch(GITHUB, address):
        raise UserError(f"{address!r} is not like https://github.com/NAME/REPOSITORY: Colab opens lessons from there")
    path = root / "pyproject.toml"
    project = path.read_text(encoding="utf-8")
    project = re.sub(r'\n\[project\.urls\]\nRepository = ".*"\n', "", project)
    urls = f'[project.urls]\nRepository = "{address}"\n\n'
    project = project.replace("[project.optional-dependencies]", urls + "[project.optional-dependencies]", 1)
    if project.count("[project.urls]") != 1:
        raise UserError(f"{str(path)!r} has links of its own, or no extras: write Repository = {address!r} there yourself")
    path.write_text(project, encoding="utf-8")


def uses_device(lesson: nbformat.NotebookNode) -> bool:
    """Whether a lesson computes on the device that its set-up returns, and not on the CPU alone."""
    _, *rest = [cell.source for cell in lesson.cells if cell.cell_type == "code"]  # the first one is the set-up
    trees = [ast.parse(TransformerManager().transform_cell(source)) for source in rest]  # it knows % and ! at a line's start
    return any(isinstance(node, ast.Name) and node.id == "device" for tree in trees for node in ast.walk(tree))


def stamp(lesson: nbformat.NotebookNode, name: str, address: str | None, tag: str) -> None:
    """Brings badge, pictures, set-up cell and wish for a GPU of a lesson in line with the address.

    Args:
        lesson: as `read_lesson` gives it; changed in place.
        name: of its file.
        address: None takes out what an address brings.
        tag: of the version that the badge opens and the set-up cell installs.

    Raises:
        UserError: the lesson has no set-up cell.
    """
    top = lesson.cells[0]
    setup = next((cell for cell in lesson.cells if cell.cell_type == "code"), None)
    if setup is None or "from miniclip_utils" not in setup.source:
        raise UserError(f"{name!r} does not begin its code with 'from miniclip_utils': give it a set-up cell")
    title, _, rest = top.source.partition("\n\n")
    rest = rest.partition("\n\n")[2] if rest.startswith("[![") else rest
    lesson.metadata.pop("accelerator", None)
    missing = SAY_WHAT_TO_DO
    if address:
        opens = f"{address.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/{tag}/notebooks/{name}"
        rest = f"[![Open this lesson in Google Colab](../figure/open-in-colab.svg)]({opens})\n\n{rest}"
        missing = INSTALL.format(address=address, tag=tag)
        if uses_device(lesson):
            lesson.metadata["accelerator"] = "GPU"  # else Colab starts it on a CPU
    start = setup.source[setup.source.index("from miniclip_utils") :]
    top.source, setup.source = f"{title}\n\n{rest}", SETUP.format(missing=missing) + start
    if address:
        figures = f"{address.replace('https://github.com', 'https://raw.githubusercontent.com')}/{tag}/figure/"
        for cell in lesson.cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace("](../figure/", f"]({figures}")


def stamp_all(root: Path) -> list[str]:
    """Brings all lessons of a course in line with its `pyproject.toml`, and returns the names of those that were not."""
    address, tag = read_project(root)
    changed = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        lesson = read_lesson(path)
        stamp(lesson, path.name, address, tag)
        if lesson != nbformat.read(path, as_version=4):
            nbformat.write(lesson, path)
            changed.append(path.name)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.address", description="Say in all lessons where the course is published."
    )
    parser.add_argument("address", nargs="?", help="https://github.com/NAME/REPOSITORY (default: that in pyproject.toml)")
    options = parser.parse_args()
    if options.address:
        read_project(Path.cwd())
        write_address(Path.cwd(), options.address)
    changed = stamp_all(Path.cwd())
    address, tag = read_project(Path.cwd())
    print(f"{len(changed)} lessons changed. They now name {address or 'no address'}.")
    if address:
        print(f"Commit this, tag it {tag}, and push both: badges and set-up cells ask for that tag.")


if __name__ == "__main__":
    run_command(main)
