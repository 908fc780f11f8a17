"""Each statement of the training code is held by a test of behaviour; `MINICLIP_CAMPAIGN=1` tries them all."""

import os
import subprocess
import sys

import pytest

from .mutants import PACKAGE, TESTS, mutants

CODE = '''
def area(width, height=2):
    """Of a rectangle."""
    if width < 0:
        width = abs(width)
    return -width * height
'''


def test_statements_are_deleted_and_operations_left_out():
    changes = dict(mutants(CODE))
    assert list(changes) == [
        "line 4: delete if width < 0:",
        "line 6: delete return -width * height",
        "line 5: delete width = abs(width)",
        "line 4: width < 0 -> True",
        "line 4: width < 0 -> False",
        "line 5: abs(width) -> width",
        "line 6: -width * height -> -width",
        "line 6: -width * height -> height",
        "line 6: -width -> width",
    ]
    assert "return width * height" in changes["line 6: -width -> width"]
    assert "if width < 0" not in changes["line 4: delete if width < 0:"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_mutant_is_noticed_and_the_module_itself_passes(tmp_path):
    """In a process of its own, since the modules under test must not be imported yet."""
    script = """
from tests.mutants import PACKAGE, TESTS, is_noticed
TESTS["model"] = ["tests/test_model.py"]
source = (PACKAGE / "model.py").read_text(encoding="utf-8")
assert not is_noticed("model", source)
assert is_noticed("model", source.replace("self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)", "pass"))
"""
    subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, check=True)


@pytest.mark.skipif(not os.environ.get("MINICLIP_CAMPAIGN"), reason="takes half an hour: MINICLIP_CAMPAIGN=1 runs it")
@pytest.mark.parametrize("module", TESTS)
def test_every_mutant_is_noticed(module):
    subprocess.run([sys.executable, "-m", "tests.mutants", module], cwd=PACKAGE.parent, check=True)
