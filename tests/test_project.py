"""The frame of the project: versions in one place, imports that only go down, what is installed, and the map."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}  # where conda-forge calls a package otherwise
# Each module imports only from the floors below its own.
FLOORS = [
    {"errors", "shapes", "transformer", "gradient_cache"},
    {"device", "prompts", "tokenizer", "distributed", "files", "cli", "image_files", "cifar10", "image_encoder", "lora"},
    {"losses", "text_encoder", "folders"},
    {"data", "model"},
    {"checkpoint", "optimizers", "explain"},
    {"loop", "evaluate", "openai", "doctor"},
    {"fit", "inference", "export"},
    {"train"},
]


def bounds(requirements: list[str]) -> dict[str, str]:
    parsed = (re.match(r"([\w.-]+)(.*)", requirement).groups() for requirement in requirements)
    return {name.lower().replace("_", "-"): bound for name, bound in parsed}


def test_conda_and_pip_ask_for_the_same_versions():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    conda = bounds([line.split("- ")[1] for line in lines if re.match(r"  - [\w-]+[><=]", line)])
    assert conda.pop("python") == PROJECT["requires-python"]
    extras = PROJECT["optional-dependencies"]
    extra = [line for lines in extras.values() for line in lines if "[" not in line]
    wanted = bounds(PROJECT["dependencies"] + extra)
    pip_only = {"open-clip-torch", "playwright", "sphinx-revealjs", "uv"}
    assert conda == {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items() if name not in pip_only}


def imports_of(module: str) -> set[str]:
    tree = ast.parse((ROOT / "miniclip_utils" / f"{module}.py").read_text())
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module}


def test_every_module_has_a_floor():
    modules = {path.stem for path in (ROOT / "miniclip_utils").glob("*.py")} - {"__init__"}
    assert modules == set().union(*FLOORS)


@pytest.mark.parametrize("module", sorted(set().union(*FLOORS)))
def test_imports_only_go_down(module):
    below: set[str] = set()
    for floor in FLOORS:
        if module in floor:
            assert imports_of(module) <= below
        below |= floor


def test_importing_the_package_does_not_import_what_only_some_parts_use():
    heavy = ["matplotlib", "seaborn", "sklearn", "ipywidgets", "IPython", "open_clip", "onnx"]
    code = f"import sys, torch, torchvision, miniclip_utils; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_tools_stay_in_the_folder_of_the_course(tmp_path):
    """What is installed, also in Colab, is the package and nothing else."""
    course = tmp_path / "course"
    shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(".*", "build", "runs", "__pycache__", "*.egg-info"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    result = subprocess.run([sys.executable, "-c", code], cwd=course, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        installed = {name for name in packed.namelist() if name.endswith(".py")}
    assert (course / "tools/course.py").exists()
    assert installed == {path.relative_to(ROOT).as_posix() for path in (ROOT / "miniclip_utils").rglob("*.py")}


def test_neither_lessons_nor_package_need_the_tools():
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "miniclip_utils").rglob("*.py")]:
        assert not re.search(r"\b(from|import) tools\b", path.read_text(encoding="utf-8")), path


# A row of the README's map: the file, what it holds, its tests.
MAP = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (.+?) \|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
MAPPED = [path for path, *_ in MAP if path.endswith(".py")]


def test_the_map_has_one_row_for_each_file():
    files = [
        path for folder in ("miniclip_utils", "miniclip_utils/classroom", "tools") for path in ROOT.glob(f"{folder}/*.py")
    ]
    wanted = {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"}
    assert wanted <= set(MAPPED) and len(MAPPED) == len(set(MAPPED))
    tests = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/test_*.py")}
    assert tests == set(re.findall(r"\]\((tests/\w+\.py)\)", "".join(covered for *_, covered in MAP)))


@pytest.mark.parametrize("path, holds", [row[:2] for row in MAP if row[0].endswith(".py")], ids=MAPPED)
def test_what_the_map_says_is_in_a_file_is_there(path, holds):
    """Names in code font; commands, paths and patterns apart."""
    code = (ROOT / path).read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+)`", holds):
        assert re.search(rf"^ *(def|class) {name}\b|^{name}\b.* = ", code, re.M), name
