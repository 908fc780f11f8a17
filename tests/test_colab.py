"""Colab: nothing that it has is replaced, and a lesson alone in an empty folder sets itself up there.

`colab-DATE.txt` lists what it has. Tests that need a package registry are skipped where none is reached. With
MINICLIP_CAMPAIGN=1 all lessons run among the versions of the list, which takes half an hour, 6 GB and its Python.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.address import INSTALL, read_project, stamp, stamp_all, write_address
from tools.course import read_lesson

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/mini-clip"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What the set-up cell asks for.
EXTRAS = re.findall(r"\w+", re.search(r"miniclip-utils\[(.*?)\]", INSTALL)[1])
WANTED = [*map(Requirement, sum((PROJECT["optional-dependencies"][extra] for extra in EXTRAS), PROJECT["dependencies"]))]
LIST = max(Path(__file__).parent.glob("colab-*.txt"))
PYTHON = "3.13"  # that of the list
COLAB = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^(\S+)==(\S+)$", LIST.read_text(encoding="utf-8"), re.M)
}
# What a lesson stands on: a change of one wants a new kernel, another front end or another driver.
KEPT = ["torch", "torchvision", "numpy", "matplotlib", "ipywidgets", "ipython", "ipykernel", "pillow", "scikit-learn"]
BUILDS = ("nvidia-", "cuda-", "triton")  # of torch, which Colab has as builds of its own
ADDED = {"open-clip-torch", "ftfy", "jedi"}  # Colab has taken jedi out, for which its IPython asks
EXPORT = {"onnx", "onnx-ir", "onnxruntime", "onnxscript"}  # added by the lesson that exports


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.name)
def test_no_bound_asks_for_more_than_colab_has(wanted):
    name = canonicalize_name(wanted.name)
    assert set(KEPT) < set(COLAB)
    assert name in ADDED or wanted.specifier.contains(COLAB[name])


def uv(*arguments: str | Path) -> str:
    """What uv prints; the test is skipped where it reaches no registry, and fails where it finds no solution."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    environment |= {"UV_HTTP_RETRIES": "0", "UV_PYTHON_DOWNLOADS": "never"}
    command = [sys.executable, "-m", "uv", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode and "error sending request" in result.stderr:
        pytest.skip("no package registry is reached: what an installation would change is not tried")
    assert result.returncode == 0, result.stderr
    return result.stdout


def resolved(folder: Path, *arguments: str | Path) -> dict[str, str]:
    """Name → version of all that the set-up cell installs or finds there."""
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(map(str, WANTED)))
    found = uv("pip", "compile", "--python-version", PYTHON, "--python-platform", "linux", *arguments, wanted)
    return dict(re.findall(r"^([\w.-]+)==(\S+)", found, re.M))


def test_nothing_that_colab_has_is_replaced(tmp_path):
    """With all that Colab has held where it is, the newest of the rest still fits."""
    there, newest = resolved(tmp_path, "--constraint", LIST), resolved(tmp_path)
    assert {name for name in there if name not in COLAB and not name.startswith(BUILDS)} == ADDED
    assert {name: there[name] for name in ADDED} == {name: newest[name] for name in ADDED}


def test_what_would_be_replaced_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "WANTED", [*WANTED, Requirement("ipywidgets>=8")])
    with pytest.raises(AssertionError, match="ipywidgets==7.7.1"):
        resolved(tmp_path, "--constraint", LIST)


def interpreter(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """The Python of an environment that has all packages of this one but the course's.

    They are links to those here, so that it costs no time and no disk; what pip installs does not come here.
    """
    if os.name == "nt":
        pytest.skip("links need rights on Windows: the set-up for Colab is not tried")
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (folder / "shared").mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(place).iterdir():
            link = folder / "shared" / package.name
            if "miniclip" not in package.name and not link.exists():
                link.symlink_to(package)
    python = interpreter(folder)
    packages = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(packages.strip()) / "shared.pth").write_text(f"{folder / 'shared'}\n")
    return python


def test_widgets_move_with_the_ipywidgets_of_colab(tmp_path):
    """This environment has ipywidgets 8; that of the list comes before it."""
    uv("pip", "install", "--target", tmp_path, "--no-deps", "--constraint", LIST, "ipywidgets", "ipython-genutils")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    code = "import ipywidgets, pytest, sys; print(ipywidgets.__version__); sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", "tests/test_widgets.py"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith(f"{COLAB['ipywidgets']}\n"), result.stdout
    assert " passed" in result.stdout and "skipped" not in result.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Iterator[Path]:
    """The course as somebody publishes it: with an address, in a repository, tagged."""
    if not shutil.which("git"):
        pytest.skip("git is not installed: the set-up for Colab is not tried")
    origin = tmp_path_factory.mktemp("published") / "origin"
    wanted = shutil.ignore_patterns(".*", "build", "runs", "__pycache__", "*.egg-info", "tests")
    shutil.copytree(ROOT, origin, ignore=wanted)
    write_address(origin, ADDRESS)
    stamp_all(origin)
    _, tag = read_project(origin)
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "published"], ["tag", tag]):
        subprocess.run([*git, *arguments], check=True)
    return origin


RUN_LESSON = """
import sys
import nbformat
from nbclient import NotebookClient

assert "miniclip" not in str(sys.path)
lesson = nbformat.read(sys.argv[1], as_version=4)
lesson.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
lesson.cells.append(nbformat.v4.new_code_cell("import miniclip_utils\\nprint(miniclip_utils.__file__)"))
client = NotebookClient(lesson, timeout=900)
try:
    client.execute()
finally:
    nbformat.write(lesson, sys.argv[1])
"""


def run_alone(python: Path, lesson: Path, published: Path, content: Path, **settings: str) -> tuple[str, set[str]]:
    """Runs a lesson as the only file of a folder, in an environment without the course.

    git takes the copy for the published repository, and pip has no settings of this machine but those given.

    Returns:
        What went wrong, "" if nothing did, and the names of the packages that are new. None may be another than before.
    """
    shutil.copy(lesson, content)
    here = ("PYTHON", "VIRTUAL_ENV", "COV", "PIP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(here)}
    environment |= {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "PIP_CONFIG_FILE": os.devnull,
        **settings,
    }

    def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess:
        return subprocess.run([python, *command], cwd=content, env=environment, capture_output=True, text=True, check=check)

    run("-m", "pip", "uninstall", "--yes", "miniclip-utils")
    before = set(run("-m", "pip", "freeze").stdout.splitlines())
    result = run("-c", RUN_LESSON, lesson.name, check=False)
    after = {line for line in run("-m", "pip", "freeze").stdout.splitlines() if "miniclip" not in line}
    assert "torch" in {line.partition("==")[0] for line in before} and before <= after
    return result.stderr if result.returncode else "", {line.partition("==")[0] for line in after - before}


OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # the latter is pip's way of saying yes


def test_a_lesson_alone_in_an_empty_folder_sets_itself_up(colab, published, tmp_path):
    """As in Colab: torch and Jupyter are there, the package is not, and the lesson is the only file."""
    lesson = published / "notebooks" / LESSONS[0].name
    assert run_alone(colab, lesson, published, tmp_path, **OFFLINE) == ("", set())
    *_, last = nbformat.read(tmp_path / lesson.name, as_version=4).cells
    assert Path(last.outputs[0].text.strip()).is_relative_to(colab.parent.parent)
    assert [path.name for path in tmp_path.iterdir()] == [lesson.name]


def test_an_uploaded_lesson_without_an_address_says_what_to_do_and_that_helps(colab, published, tmp_path):
    lesson, content = read_lesson(LESSONS[0]), tmp_path / "content"
    stamp(lesson, LESSONS[0].name, None, "")
    first = next(index for index, cell in enumerate(lesson.cells) if cell.cell_type == "code")
    lesson.cells = lesson.cells[: first + 1]  # the rest is tried above
    uploaded = tmp_path / LESSONS[0].name
    nbformat.write(lesson, uploaded)
    content.mkdir()
    run_alone(colab, uploaded, published, content, **OFFLINE)
    ran = nbformat.read(content / uploaded.name, as_version=4)
    (said,) = [output for cell in ran.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    command = re.search(r"first run, in a cell of its own, (%pip install .*?), with", said.evalue)
    assert command and said.ename == "SystemExit" and "Traceback" not in "".join(said.traceback)
    archive = shutil.make_archive(str(content / "course"), "zip", published.parent, published.name)
    lesson.cells.insert(1, nbformat.v4.new_code_cell(command[1].replace("PATH", f"./{Path(archive).name}")))
    nbformat.write(lesson, uploaded)
    assert run_alone(colab, uploaded, published, content, **OFFLINE) == ("", set())


@pytest.fixture(scope="module")
def colab_itself(tmp_path_factory) -> Path:
    """The Python of an environment with what the lessons use of Colab, in the versions that Colab has."""
    if not os.environ.get("MINICLIP_CAMPAIGN"):
        pytest.skip("takes half an hour: MINICLIP_CAMPAIGN=1 runs it")
    folder = tmp_path_factory.mktemp("colab_itself")
    there = [name for name in resolved(folder, "--constraint", LIST) if name in COLAB]
    uv("venv", "--python", PYTHON, folder / "venv")
    python = interpreter(folder / "venv")
    uv("pip", "install", "--python", python, "--constraint", LIST, *there, "ipykernel", "nbclient", "pip")
    return python


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_runs_among_the_versions_of_colab(colab_itself, published, tmp_path, lesson):
    uv("pip", "uninstall", "--python", colab_itself, *ADDED)
    wrong, added = run_alone(colab_itself, published / "notebooks" / lesson.name, published, tmp_path)
    assert not wrong, wrong
    assert {canonicalize_name(name) for name in added} - EXPORT - COLAB.keys() == ADDED
    ran = nbformat.read(tmp_path / lesson.name, as_version=4)
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
