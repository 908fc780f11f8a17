"""The frame of the project: versions in one place, imports that only go down, an import that does not dawdle."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}  # where conda-forge calls a package otherwise
FLOORS = [
    {"distributed", "gradient_cache"},
    {"errors", "device", "shapes", "prompts", "tokenizer", "losses", "transformer", "image_files", "cifar10"}
    | {"files", "cli"},
    {"image_encoder", "text_encoder", "folders"},
    {"data", "model"},
    {"checkpoint", "optimizers"},
    {"evaluate", "explain", "openai"},
    {"train", "inference", "doctor"},
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
    pip_only = {"open-clip-torch", "playwright", "sphinx-revealjs"}
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
            same_floor_helpers = {"errors", "tokenizer", "transformer"}  # used from their own floor up
            assert imports_of(module) <= below | (same_floor_helpers - {module})
        below |= floor


def test_importing_the_package_does_not_import_what_only_some_parts_use():
    heavy = ["matplotlib", "seaborn", "sklearn", "ipywidgets", "IPython", "open_clip"]
    code = f"import sys, torch, torchvision, miniclip_utils; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
