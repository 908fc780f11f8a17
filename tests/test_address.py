"""The address of the repository: one place says it, one command brings it into all lessons, and Colab needs no more."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest

from miniclip_utils import UserError
from tools.address import read_project, stamp_all, write_address

ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/mini-clip"


@pytest.fixture
def course(tmp_path):
    """A copy of what the command reads and writes."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def first_cells(folder: Path) -> dict[str, tuple[str, str]]:
    """Name of a lesson → its title cell and its set-up cell."""
    lessons = {path.name: nbformat.read(path, as_version=4).cells for path in (folder / "notebooks").glob("*.ipynb")}
    return {
        name: (cells[0].source, next(cell.source for cell in cells if cell.cell_type == "code"))
        for name, cells in lessons.items()
    }


def test_every_lesson_agrees_with_the_project(course):
    assert stamp_all(course) == []


def test_every_set_up_cell_starts_the_lesson():
    for _, setup in first_cells(ROOT).values():
        assert re.search(
            r"^from miniclip_utils\.classroom import (plots, )?setup\n\ndevice = setup\.start\(\)$", setup, re.M
        )


def test_an_address_is_stamped_changed_and_taken_out(course):
    project, lessons = (course / "pyproject.toml").read_text(), first_cells(course)
    address, tag = read_project(course)
    write_address(course, ADDRESS + ".git")
    assert read_project(course) == (ADDRESS, tag)
    assert address == ADDRESS or stamp_all(course) == LESSONS
    assert stamp_all(course) == []
    for name, (title, setup) in first_cells(course).items():
        place = f"(https://colab.research.google.com/github/someone/mini-clip/blob/{tag}/notebooks/{name})"
        assert title.count(place) == 1 and setup.count(f"git+{ADDRESS}@{tag}") == 1
    subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "notebooks"], cwd=course, check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "--check", "notebooks"], cwd=course, check=True)

    drifted = course / "notebooks" / LESSONS[0]
    drifted.write_text(drifted.read_text().replace("someone/mini-clip/blob", "someone-else/mini-clip/blob"))
    assert stamp_all(course) == [LESSONS[0]]

    write_address(course, "https://github.com/another/course")
    assert stamp_all(course) == LESSONS
    assert "someone" not in (course / "pyproject.toml").read_text() + str(first_cells(course))

    (course / "pyproject.toml").write_text(project)
    assert stamp_all(course) == ([] if address == "https://github.com/another/course" else LESSONS)
    assert first_cells(course) == lessons


@pytest.mark.parametrize("address", ["someone/mini-clip", "http://github.com/a/b", 'https://github.com/a/b"\nx = "', ""])
def test_what_is_no_address_is_refused(course, address):
    project = (course / "pyproject.toml").read_text()
    with pytest.raises(UserError, match="is not like https://github.com/NAME/REPOSITORY"):
        write_address(course, address)
    assert (course / "pyproject.toml").read_text() == project


def test_a_folder_without_a_project_is_named(tmp_path):
    with pytest.raises(UserError, match="no pyproject.toml"):
        stamp_all(tmp_path)


@pytest.mark.parametrize("project", ['[project.urls]\nHomepage = "x"\n\n[project.optional-dependencies]\n', ""])
def test_an_address_without_a_place_of_its_own_is_refused_and_nothing_is_changed(tmp_path, project):
    project = f'[project]\nversion = "1"\n{project}'
    (tmp_path / "pyproject.toml").write_text(project)
    with pytest.raises(UserError, match="write Repository = .* there yourself"):
        write_address(tmp_path, ADDRESS)
    assert (tmp_path / "pyproject.toml").read_text() == project


@pytest.mark.parametrize("content, message", [("<<<<<<< HEAD", "not a whole notebook"), ("", "a set-up cell")])
def test_a_lesson_that_cannot_be_stamped_is_named(course, content, message):
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A")])
    (course / "notebooks" / "99_x.ipynb").write_text(content or nbformat.writes(empty))
    with pytest.raises(UserError, match=f"99_x.ipynb.*{message}"):
        stamp_all(course)


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """The Python of an environment that has all packages of this one but the course's.

    They are links to those here, so that it costs no time and no disk; what pip installs does not come here.
    """
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (folder / "shared").mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(place).iterdir():
            link = folder / "shared" / package.name
            if "miniclip" not in package.name and not link.exists():
                link.symlink_to(package)
    python = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
    packages = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(packages.strip()) / "shared.pth").write_text(f"{folder / 'shared'}\n")
    return python


RUN_LESSON = """
import sys
from importlib.metadata import version
import nbformat
from nbclient import NotebookClient

assert "miniclip" not in str(sys.path)
lesson = nbformat.read(sys.argv[1], as_version=4)
lesson.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
lesson.cells.append(nbformat.v4.new_code_cell("import miniclip_utils, torch, numpy\\nprint(miniclip_utils.__file__)"))
NotebookClient(lesson, timeout=300).execute()
print(lesson.cells[-1].outputs[0].text)
"""


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed: the set-up for Colab is not tried")
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows: the set-up for Colab is not tried")
def test_a_lesson_alone_in_an_empty_folder_sets_itself_up(colab, tmp_path):
    """As in Colab: torch and Jupyter are there, the package is not, and the lesson is the only file."""
    origin, content = tmp_path / "origin", tmp_path / "content"
    wanted = shutil.ignore_patterns(".*", "build", "runs", "__pycache__", "*.egg-info", "tests")
    shutil.copytree(ROOT, origin, ignore=wanted)
    write_address(origin, ADDRESS)
    stamp_all(origin)
    _, tag = read_project(origin)
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "published"], ["tag", tag]):
        subprocess.run([*git, *arguments], check=True)
    content.mkdir()
    shutil.copy(origin / "notebooks" / LESSONS[0], content)
    here = ("PYTHON", "VIRTUAL_ENV", "COV", "PIP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(here)}
    environment |= {
        "PATH": f"{colab.parent}{os.pathsep}{os.environ['PATH']}",
        # git takes the copy for the published repository, and pip finds all other packages here or fails, whatever
        # constraints this machine has set for it.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is pip's way of saying yes
    }
    before = subprocess.check_output([colab, "-m", "pip", "freeze"], env=environment, text=True)
    assert "torch==" in before and "numpy==" in before and "miniclip" not in before
    command = [colab, "-c", RUN_LESSON, LESSONS[0]]
    result = subprocess.run(command, cwd=content, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(colab.parent.parent)
    after = subprocess.check_output([colab, "-m", "pip", "freeze"], env=environment, text=True)
    assert [line for line in after.splitlines() if "miniclip" not in line] == before.splitlines()
    assert [path.name for path in content.iterdir()] == [LESSONS[0]]
