"""The address of the repository: one place says it, and one command brings it into all lessons."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from miniclip_utils import UserError
from tools.address import read_project, stamp_all, uses_device, write_address
from tools.course import read_lesson

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


def test_lessons_that_compute_on_the_device_of_their_set_up_are_told_from_others():
    cells = ["from miniclip_utils.classroom import setup\n\ndevice = setup.start()", "%matplotlib inline\nx.to(device)"]
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    assert uses_device(lesson)
    lesson.cells[1].source = 'torch.ones(2, device=tokens.device).to(torch.device("cpu"))  # not on device'
    assert not uses_device(lesson)


def test_published_pictures_are_whole_addresses_and_the_tools_take_those_in_the_folder(course):
    write_address(course, ADDRESS)
    stamp_all(course)
    _, tag = read_project(course)
    places = set()
    for name in LESSONS:
        stored = (course / "notebooks" / name).read_text(encoding="utf-8")
        assert "](../figure/" not in stored
        places |= set(re.findall(r"\]\((https://raw[^)]+)\)", stored))
        here = [
            re.findall(r"\]\(\.\./(figure/[^)]+)\)", cell.source) for cell in read_lesson(course / "notebooks" / name).cells
        ]
        assert len(sum(here, [])) == stored.count("](https://raw.githubusercontent.com/")
    start = f"https://raw.githubusercontent.com/someone/mini-clip/{tag}/"
    assert len(places) > 20 and all(place.startswith(f"{start}figure/") for place in places)
    assert all((ROOT / place.removeprefix(start)).is_file() for place in places)


def test_published_training_lessons_ask_for_a_gpu(course):
    write_address(course, ADDRESS)
    stamp_all(course)
    asks = {name: read_lesson(course / "notebooks" / name).metadata.get("accelerator") for name in LESSONS}
    assert asks["07_the_training_run.ipynb"] == "GPU" and asks["A1_drawing_the_shapes.ipynb"] is None


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
