"""What the lessons promise, read out of the notebooks themselves."""

import ast
import importlib
import inspect
import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from miniclip_utils.classroom.checks import Check
from tools.course import read_lesson

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What an exercise may use without importing it in its own cell.
PRELUDE = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n"


def cells_of(lesson: Path) -> list:
    return read_lesson(lesson).cells


def tagged(prefix: str) -> list:
    """(lesson, index, tag) of the cells with a tag that starts so."""
    found = []
    for lesson in LESSONS:
        for index, cell in enumerate(cells_of(lesson)):
            tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith(prefix)]
            found += [pytest.param(lesson, index, tag, id=f"{lesson.stem[:2]}-{tag}-{index}") for tag in tags]
    return found


class Bare(ast.NodeTransformer):
    """Code without docstrings and type hints."""

    def visit(self, node):
        node = super().visit(node)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
            if isinstance(node, ast.FunctionDef):
                node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            return ast.Assign([node.target], node.value) if node.value else None
        return node


def definitions(source: str) -> dict[str, str]:
    tree = Bare().visit(ast.parse(source))
    return {node.name: ast.dump(node) for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def solution_of(lesson: Path, index: int) -> str:
    """The code of the first folded solution after a cell."""
    for cell in cells_of(lesson)[index + 1 :]:
        if cell.cell_type == "markdown" and (
            match := re.search(r"Solution</summary>.*?```python\n(.*?)```", cell.source, re.S)
        ):
            return match[1]
        if "exercise" in cell.metadata.get("tags", []):
            break
    raise AssertionError(f"the exercise in cell {index} of {lesson.name} has no folded solution")


@pytest.mark.parametrize("lesson, index, tag", tagged("package:"))
def test_what_a_lesson_builds_is_what_the_package_holds(lesson, index, tag):
    """A cell tagged `package:module` defines the same as that module, docstrings and type hints aside.

    So does the solution of an exercise with this tag, where `my_loss` and `MyBlock` stand for `loss` and `Block`.
    """
    module = (ROOT / "miniclip_utils" / f"{tag.removeprefix('package:')}.py").read_text()
    cell = cells_of(lesson)[index]
    source = solution_of(lesson, index) if "exercise" in cell.metadata.tags else cell.source
    built = definitions(re.sub(r"\bmy_(?=\w)|\bMy(?=[A-Z])", "", source))
    assert built
    for name, code in built.items():
        assert code == definitions(module)[name], f"{name} differs from the package"


CALL = re.compile(r"^(?:\w+ = )?check\.(\w+)\((\w+)\)")  # loss = check.loss(my_loss)


def check_calls(source: str) -> tuple[str, list[str]]:
    """An exercise's code apart from its check, and the lines that call the check."""
    lines = source.splitlines()
    calls = [line for line in lines if CALL.match(line)]
    return "\n".join(line for line in lines if line not in calls), calls


def run_exercise(lesson: Path, code: str, calls: list[str], capsys) -> str:
    """What the checks print about some code."""
    check = importlib.import_module(f"miniclip_utils.classroom.checks.lesson_{lesson.stem[:2]}")
    # What the exercises before it have returned: what one builds, another may use.
    returned = {name: found.package for name, found in vars(check).items() if isinstance(found, Check)}
    namespace = {"check": check, **returned}
    capsys.readouterr()
    exec(PRELUDE + code + "\n" + "\n".join(calls), namespace)
    return capsys.readouterr().out


EXERCISES = tagged("exercise")


@pytest.mark.parametrize("lesson, index, tag", EXERCISES)
def test_a_stub_is_not_solved_and_its_solution_is_right(lesson, index, tag, capsys):
    stub, calls = check_calls(cells_of(lesson)[index].source)
    assert calls
    for line in run_exercise(lesson, stub, calls, capsys).splitlines():
        assert line.startswith("… ") and line.partition(";")[0].endswith("not solved yet")
    solution = solution_of(lesson, index)
    lines = run_exercise(lesson, stub + "\n" + solution, calls, capsys).splitlines()
    assert lines and all(line.startswith("✓ ") for line in lines), lines


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_stored_lesson_is_clean(lesson):
    notebook = nbformat.read(lesson, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert lesson.stat().st_size < 1_500_000
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not executed from top to bottom"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    # A stored widget has no kernel behind it, and shows as an error.
    assert not [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_images_have_alt_text_and_links_lead_somewhere(lesson):
    for cell in cells_of(lesson):
        if cell.cell_type != "markdown":
            continue
        assert "<img" not in cell.source and "<a " not in cell.source
        for bang, text, target in re.findall(r"(!?)\[([^]]*)\]\(([^)]*)\)", cell.source):
            if bang:
                assert len(text) > 20 and not target.startswith("http"), target
            if not target.startswith("http"):
                path, _, anchor = target.partition("#")
                leads_to = lesson.parent / path if path else lesson
                assert leads_to.exists(), target
                if anchor:
                    names = [heading.replace(" ", "-") for _, heading in headings_of(leads_to)]
                    assert anchor in names, target


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_ends(lesson):
    """Its length, and no line of code that a window of 1,280 pixels cuts off; what `tools.address` writes apart."""
    cells = cells_of(lesson)
    assert len(cells) <= 60
    cells.remove(next(cell for cell in cells if cell.cell_type == "code"))
    assert sum(len(cell.source.split()) for cell in cells) <= 5_000
    assert max(len(line) for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()) <= 92
    assert sum("exercise" in cell.metadata.get("tags", []) for cell in cells) <= 5
    assert "**Study time:**" in cells[0].source and "**Run time:**" in cells[0].source


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_says_who_wrote_it_and_when(lesson):
    """In its first cell, for readers; and in its metadata, where nbconvert looks."""
    notebook = nbformat.read(lesson, as_version=4)
    (line,) = re.findall(r"\*By the mini-CLIP authors, (\w+ \d{4})\.\*", notebook.cells[0].source)
    assert notebook.metadata["authors"] == [{"name": "the mini-CLIP authors"}]
    assert f"{date.fromisoformat(notebook.metadata['date']):%B %Y}" == line
    assert "**On this page:**" in notebook.cells[0].source


def headings_of(lesson: Path) -> list[tuple[int, str]]:
    """Level and words of each heading, code blocks apart."""
    text = "\n\n".join(cell.source for cell in cells_of(lesson) if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return [(len(level), words) for level, words in re.findall(r"^(#+) +(.+?) *$", text, re.M)]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_headings_are_in_order(lesson):
    """One title at the top, and below no level is left out."""
    levels = [level for level, _ in headings_of(lesson)]
    assert cells_of(lesson)[0].source.startswith("# ") and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def holds(owner: object, name: str) -> bool:
    """Whether a module, class or function has a name, an attribute that its `__init__` sets included."""
    first, _, rest = name.partition(".")
    if not hasattr(owner, first):
        return not rest and inspect.isclass(owner) and f"self.{first} = " in inspect.getsource(owner)
    return not rest or holds(getattr(owner, first), rest)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_what_the_prose_says_is_in_the_package_is_there(lesson):
    """Tables "is in", modules, files, and commands with their options; in code font."""
    prose = "\n".join(cell.source for cell in cells_of(lesson) if cell.cell_type == "markdown")
    claims = re.findall(r"^\| *(`.*?) *\| *`miniclip_utils/([\w/]+)\.py` *\|", prose, re.M)
    assert claims, "no table of new names"
    for names, module in claims:
        for name in re.findall(r"`([\w.]+)`", names):
            name = name.removeprefix(f"{Path(module).name}.")
            assert holds(importlib.import_module(f"miniclip_utils.{module.replace('/', '.')}"), name), name
    for path in re.findall(r"miniclip_utils/[\w/]+\.py", prose):
        assert (ROOT / path).exists(), path
    for module, name in re.findall(r"`miniclip_utils\.([a-z_]\w*)((?:\.\w+)*)", prose):
        assert holds(importlib.import_module(f"miniclip_utils.{module}"), name.removeprefix(".") or "__name__"), name
    for module, options in re.findall(r"python -m miniclip_utils\.([\w.]+)([^`\n]*)", prose):
        source = (ROOT / "miniclip_utils" / f"{module.rstrip('.').replace('.', '/')}.py").read_text()
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}"' in source, f"{module} {option}"


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target
