"""The editions for a class, made of every lesson; one goes through nbgrader itself."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from miniclip_utils import UserError
from miniclip_utils.classroom.checks import Check, lesson_05, mark
from tools import course, editions

from .test_lessons import LESSONS, ROOT, check_calls, run_exercise

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


def read(lesson: Path):
    return nbformat.read(lesson, as_version=4)


def exercises(notebook) -> list:
    return [cell for cell in notebook.cells if editions.is_exercise(cell)]


@each_lesson
def test_student_edition_has_stubs_and_no_solutions(lesson):
    student = editions.student_edition(read(lesson))
    nbformat.validate(student)
    assert exercises(student) and [c.source for c in exercises(student)] == [c.source for c in exercises(read(lesson))]
    assert not [cell for cell in student.cells if cell.get("outputs") or cell.get("execution_count")]
    text = "\n".join(cell.source for cell in student.cells if cell.cell_type == "markdown")
    assert "Solution</summary>" not in text and "Hint 1" in text
    for cell in exercises(editions.solution_edition(read(lesson))):
        body = [line for line in cell.source.splitlines() if line.startswith("    return ") and "..." not in line]
        assert not [line for line in body if line in text]


@each_lesson
def test_solution_edition_passes_every_check(lesson, capsys):
    solved = editions.solution_edition(read(lesson))
    nbformat.validate(solved)
    for cell in exercises(solved):
        code, calls = check_calls(cell.source)
        assert "..." not in [line.strip() for line in code.splitlines()]
        lines = run_exercise(lesson, code, calls, capsys).splitlines()
        assert len(lines) == len(calls) and all(line.startswith("✓ ") for line in lines), lines


@each_lesson
def test_nbgrader_accepts_the_metadata_and_gives_back_the_stubs(lesson, capsys):
    nbgraderformat = pytest.importorskip("nbgrader.nbgraderformat")
    from nbgrader.preprocessors import ClearSolutions

    source = editions.nbgrader_edition(read(lesson), lesson.stem[:2])
    nbformat.validate(source)
    nbgraderformat.MetadataValidator().validate_nb(source)
    marks = [cell for cell in source.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert len(marks) == sum(len(editions.checks_of(cell)) for cell in exercises(source)) > 0
    assert all(cell.metadata.nbgrader.points in (1, 2, 3) for cell in marks)
    release, _ = ClearSolutions(code_stub={"python": "..."}).preprocess(source, {})
    for cell in exercises(release):
        for line in run_exercise(lesson, *check_calls(cell.source), capsys).splitlines():
            assert line.partition(";")[0].endswith("not solved yet")


@pytest.mark.parametrize("assigned", ["", "clip_loss = "], ids=["call alone", "assigned"])
def test_an_exercise_that_keeps_what_its_check_returns_is_marked_by_the_same_check(assigned):
    stub = "def my_clip_loss(images, texts):\n    ...\n\n\n"
    exercise = new_code_cell(f"{stub}{assigned}check.clip_loss(my_clip_loss)", metadata={"tags": ["exercise"]})
    title = new_markdown_cell("### Exercise 5.2 · The loss ●●○")
    answer = "def my_clip_loss(images, texts):\n    return images @ texts.T\n"
    folded = new_markdown_cell(f"<details><summary>Solution</summary>\n\n```python\n{answer}```\n\n</details>")
    assert editions.checks_of(exercise) == [("clip_loss", "my_clip_loss")]
    _, solved, mark, _ = editions.nbgrader_edition(new_notebook(cells=[title, exercise, folded]), "05").cells
    assert solved.source.endswith(f"\n{assigned}check.clip_loss(my_clip_loss)")
    assert mark.source.endswith("\n\nmark(lesson_05.clip_loss, my_clip_loss, points=2)")


def test_a_mark_is_all_points_or_none(capsys):
    def right(n, scale):
        warnings.warn("nbgrader would take this for an error", stacklevel=1)
        return math.log1p((n - 1) * math.exp(-scale * n / (n - 1)))

    answers = {right: 2, lambda n, scale: math.log(n): 0, lambda n, scale: ...: 0, lambda: None: 0}
    assert [mark(lesson_05.least_loss, answer, points=2) for answer in answers] == list(answers.values())
    captured = capsys.readouterr()
    assert captured.err == "" and [line[0] for line in captured.out.splitlines()] == ["✓", "✗", "…", "✗"]


def test_a_lesson_is_made_from_first_to_last_and_a_changed_file_is_kept(tmp_path):
    """Executes lesson 00, so it takes as long as that lesson."""
    notebooks, out = tmp_path / "course/notebooks", tmp_path / "editions"
    shutil.copytree(ROOT / "figure", tmp_path / "course/figure")
    notebooks.mkdir()
    before = Path(shutil.copy(LESSONS[0], notebooks)).read_bytes()
    name = LESSONS[0].name
    assert editions.make_editions(notebooks / name, out) == []
    assert [path.name for path in notebooks.iterdir()] == [name] and (notebooks / name).read_bytes() == before

    solution = read(out / "solution/notebooks" / name)
    for cell in exercises(solution):
        assert cell.outputs[0].text.startswith("✓ ")
    for edition in ("student/notebooks", "solution/notebooks", f"nbgrader/source/{LESSONS[0].stem}"):
        made = out / edition / name
        figures = [figure for cell in read(made).cells for figure in editions.FIGURE.findall(cell.source)]
        assert all((made.parent.parent / figure).is_file() for figure in figures)
    assert (out / f"nbgrader/source/{LESSONS[0].stem}/figure/clip.svg").is_file()


def test_files_that_somebody_changed_are_not_written_over(tmp_path):
    assert editions.write_unless_edited({"a.ipynb": b"1", "b/b.ipynb": b"1"}, tmp_path) == []
    (tmp_path / "a.ipynb").write_bytes(b"a learner's work")
    assert editions.write_unless_edited({"a.ipynb": b"2", "b/b.ipynb": b"2"}, tmp_path) == ["a.ipynb"]
    assert (tmp_path / "a.ipynb").read_bytes() == b"a learner's work"
    assert (tmp_path / "b/b.ipynb").read_bytes() == b"2"
    (tmp_path / "own.ipynb").write_bytes(b"never ours")
    assert editions.write_unless_edited({"own.ipynb": b"3"}, tmp_path) == ["own.ipynb"]
    with pytest.raises(UserError, match="not a folder for editions"):
        editions.write_unless_edited({"a": b""}, LESSONS[0].parent)


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / editions.WRITTEN).write_text("{half")
    with pytest.raises(UserError, match=f"{editions.WRITTEN}' cannot be read as JSON"):
        editions.write_unless_edited({"a": b""}, tmp_path)


def test_the_lessons_are_never_written_over_by_executed_ones(tmp_path, monkeypatch):
    lesson = Path(shutil.copy(LESSONS[0], tmp_path))
    before = lesson.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["course", str(tmp_path), "."])
    with pytest.raises(UserError, match="holds the lessons themselves"):
        course.main()
    assert lesson.read_bytes() == before


def test_the_course_shows_what_each_lesson_reached_and_nothing_else(tmp_path):
    cells = [new_code_cell("from miniclip_utils.classroom import setup\nsetup.reached('half of it', 0.5)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "99_x.ipynb")
    command = [sys.executable, "-m", "tools.course", str(tmp_path), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "half of it" in result.stdout and "50.0%" in result.stdout
    assert result.stderr == ""
    assert (tmp_path / "out/99_x.ipynb").exists()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores a process may use")
@pytest.mark.parametrize("cores, lessons", [({3}, 1), ({0, 1}, 2), (set(range(64)), 2)])
def test_lessons_at_once(monkeypatch, cores, lessons):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    assert course.lessons_at_once() == lessons


def test_lessons_run_at_once_and_are_told_in_their_order(tmp_path):
    """The first lesson waits until the second one has run; each kernel has one thread."""
    wait = (
        "import os, time\nfrom pathlib import Path\nassert os.environ['OMP_NUM_THREADS'] == '1'\n"
        "while not Path('second').exists(): time.sleep(0.1)"
    )
    for name, source in (("1_a", wait), ("2_b", "open('second', 'w').close()"), ("3_c", "1 / 0"), ("4_d", "1")):
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / f"{name}.ipynb")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    two_cores = (
        "import os, runpy; os.sched_getaffinity = lambda pid: {0, 1}; runpy.run_module('tools.course', run_name='__main__')"
    )
    command = [sys.executable, "-c", two_cores, str(tmp_path), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["1_a", "2_b"]
    assert result.returncode != 0 and len(result.stderr.splitlines()) == 1
    assert "3_c.ipynb stopped: ZeroDivisionError" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise there")
def test_the_course_stops_at_once_and_its_kernels_with_it(tmp_path):
    source = "import os, time\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(100)"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "1_a.ipynb")
    command = [sys.executable, "-m", "tools.course", str(tmp_path), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        pid = tmp_path / "pid"
        wait_for(lambda: pid.exists() and pid.read_text())
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "stopped\n")
    wait_for(lambda: not psutil.pid_exists(int(pid.read_text())))


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("this has not come true within a minute")


def test_a_lesson_that_stops_can_be_looked_at(tmp_path):
    lesson = new_notebook(cells=[new_code_cell("print('so far')"), new_code_cell("1 / 0")])
    with pytest.raises(UserError, match="99_x.ipynb stopped: ZeroDivisionError: division by zero. See") as error:
        editions.execute(lesson, "99_x")
    stopped = Path(str(error.value).partition(" See ")[2])
    assert "so far" in stopped.read_text()
    shutil.rmtree(stopped.parent.parent)


def test_a_missing_or_failing_solution_is_named(tmp_path):
    lesson = read(LESSONS[0])
    index = next(index for index, cell in enumerate(lesson.cells) if editions.is_exercise(cell))
    with pytest.raises(UserError, match="does not define my_best_match"):
        editions.solve(lesson.cells[index].source, "def other():\n    return 1\n")
    lesson.cells = lesson.cells[: index + 1]
    with pytest.raises(UserError, match="no folded solution"):
        editions.solution_edition(lesson)


# How the answers of a class of three score: by nbgrader, on all exercises of lesson 05 without the rest of the lesson.
CLASS = ("right", "mistake-0", "mistake-1")
CHECKS = sum(isinstance(check, Check) for check in vars(lesson_05).values())


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """student → check → points, as nbgrader recorded them."""
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook

    course = tmp_path_factory.mktemp("course")
    name = "05_similarity_and_loss"
    lesson = read(ROOT / f"notebooks/{name}.ipynb")
    kept = [editions.is_exercise(cell) or "as check" in cell.source or cell.cell_type == "markdown" for cell in lesson.cells]
    lesson.cells = [cell for cell, keep in zip(lesson.cells, kept, strict=True) if keep]
    source = editions.nbgrader_edition(lesson, "05")
    files = {f"source/{name}/{name}.ipynb": nbformat.writes(source).encode()}
    editions.write_unless_edited({**files, "nbgrader_config.py": editions.NBGRADER_CONFIG.encode()}, course)

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader calls alembic by its name

    def nbgrader(*command):
        command = [sys.executable, "-m", "nbgrader", *command]
        result = subprocess.run(command, cwd=course, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    nbgrader("generate_assignment", name)
    for student in CLASS:
        handed_in = read(course / f"release/{name}/{name}.ipynb")
        for cell in exercises(handed_in):
            (check, answer), *_ = editions.checks_of(cell)
            if student == "right":
                cell.source = next(c.source for c in exercises(source) if f"check.{check}(" in c.source)
            else:
                cell.source += f"\n{answer} = list(check.{check}.mistakes.values())[{student[-1]}]"
        submitted = {f"submitted/{student}/{name}/{name}.ipynb": nbformat.writes(handed_in).encode()}
        editions.write_unless_edited(submitted, course)
    nbgrader("autograde", name)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        yield {
            student: {grade.name: (grade.auto_score, grade.max_score) for grade in notebook.grades}
            for student in CLASS
            for notebook in [book.find_submission_notebook(name, name, student)]
        }


def test_right_answers_score_full_marks(graded):
    assert len(graded["right"]) == CHECKS
    assert all(points == most > 0 for points, most in graded["right"].values())


@pytest.mark.parametrize("student", CLASS[1:])
def test_typical_mistakes_lose_theirs(graded, student):
    assert len(graded[student]) == CHECKS
    assert all(points == 0 for points, _ in graded[student].values())
