"""The test of the test: what is planted into a small notebook must be caught by the very options that run the lessons."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
IGNORED = "nbval-ignore-output"
PLANTED = [  # code of a cell, its stored output, its tags, words of the report, "" for none
    ("print(6 * 7)", "42\n", [], ""),
    ("print('took 3.2 s')", "took 1.0 s\n", [], ""),
    ("print('wrong', 6 * 7)", "wrong 41\n", [], "Cell outputs differ"),
    ("print('new')", "", [], "Cell outputs differ"),
    ("1 / 0", "", [IGNORED], "ZeroDivisionError"),
    ("accuracy = 0.3\nassert accuracy > 0.9", "", [IGNORED], "AssertionError"),
    ("import warnings\nwarnings.warn('old')", "", [], "Cell outputs differ"),
    ("import warnings\nwarnings.warn('hidden')", "", [IGNORED], "Cell writes to stderr"),
    ("input()", "", [IGNORED], "StdinNotImplementedError"),
    ("import time\ntime.sleep(1000)", "", [], "Timeout of 10 seconds exceeded"),
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[str]:
    """What nbval says about each cell."""
    folder = tmp_path_factory.mktemp("planted")
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    for number, (code, stored, tags, _) in enumerate(PLANTED, start=1):
        outputs = [new_output("stream", text=stored)] if stored else []
        notebook.cells.append(new_code_cell(code, execution_count=number, outputs=outputs, metadata={"tags": tags}))
    nbformat.write(notebook, folder / "planted.ipynb")
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "--nbval-cell-timeout=10"]
    files = [f"--junitxml={folder / 'report.xml'}", str(folder / "planted.ipynb")]
    result = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    return ["".join(case.itertext()) for case in ElementTree.parse(folder / "report.xml").iter("testcase")]


@pytest.mark.parametrize("index", range(len(PLANTED)), ids=[code.splitlines()[-1] for code, *_ in PLANTED])
def test_what_is_planted_is_caught(reports, index):
    code, _, _, words = PLANTED[index]
    assert len(reports) == len(PLANTED)
    assert code in reports[index] and words in reports[index] if words else not reports[index].strip()


def test_every_cell_has_a_time_limit(pytestconfig):
    """nbval's own limit is over half an hour, and its dead kernels hang until then."""
    assert pytestconfig.getoption("nbval_cell_timeout") <= 300
