"""Deletes or neutralises each statement of the training code in turn: does a test of behaviour notice?

`python -m tests.mutants` runs the tests of a module against each mutant, prints those that survive, and fails if one
of them is not explained in `EQUIVALENT`. `MINICLIP_CAMPAIGN=1` runs it among the tests. It needs a system that can fork.
"""

import ast
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "miniclip_utils"

# Each module with the tests that know how it should behave. None compares it with a lesson.
TESTS = {
    "loop": ["tests/test_loop.py", "tests/test_train.py::test_a_recipe_chooses_batches_rates_and_augmentation"],
    "losses": ["tests/test_losses.py", "tests/test_distributed.py::test_one_process_is_the_whole_world"],
    "optimizers": ["tests/test_optimizers.py", "tests/test_loop.py"],
    "evaluate": ["tests/test_evaluate.py"],
}
# Words of changes that change nothing that anybody could see, each with the reason.
EQUIVALENT = {
    "-1 -> 1": "the last dimension of two is dimension 1",
    ".to(model.logit_scale.device) ->": "the tests run on the CPU, where all tensors are",
    "predicted.cpu() ->": "the tests run on the CPU",
    "_features.cpu() ->": "the tests run on the CPU",
    "_labels.cpu() ->": "the tests run on the CPU",
    ".cpu().numpy() ->": "scikit-learn takes tensors too, if they are on the CPU",
    "float(probe.score(": "a float of numpy is a float",
    "(candidate_labels[order] == query_labels[:, None]).float() ->": "truth values count as 0 and 1",
    "(labels[:, None] == labels[None, :]).float() ->": "truth values count as 0 and 1",
    "(of_scaled * image_features).sum() ->": "autograd sums a gradient to the shape of its scalar",
}
MODULES = {"F", "math", "torch", "torch.special"}  # no values, which could stand in the place of a call
SECONDS = 120  # a mutant that runs longer hangs, and that is noticed too


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source): statements deleted; in the others one operation at a time left out."""
    tree = ast.parse(source)
    places = [(node, field, index) for node in ast.walk(tree) for field, index in _statements(node)]
    for parent, field, index in places:
        statement = getattr(parent, field)[index]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) or _is_docstring(statement):
            continue
        getattr(parent, field)[index] = ast.copy_location(ast.Pass(), statement)
        yield f"line {statement.lineno}: delete {_first_line(statement)}", ast.unparse(tree)
        getattr(parent, field)[index] = statement
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for node in [node for statement in function.body for node in ast.walk(statement)]:
            for name, value in list(ast.iter_fields(node)):
                for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    for simpler in _neutral(child):
                        _put(node, name, at, simpler)
                        change = f"{ast.unparse(child)} -> {ast.unparse(simpler)}"
                        yield f"line {child.lineno}: {change}", ast.unparse(tree)
                        _put(node, name, at, child)


def _statements(node: ast.AST) -> Iterator[tuple[str, int]]:
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(node, field, None)
        if isinstance(statements, list):
            yield from ((field, index) for index in range(len(statements)))


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]


def _put(node: ast.AST, name: str, at: int | None, child: ast.AST) -> None:
    if at is None:
        setattr(node, name, child)
    else:
        getattr(node, name)[at] = child


def _neutral(node: object) -> list[ast.expr]:
    """An expression with its outermost operation left out: x + y becomes x and y, f(x) and x.f() become x, not x x."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.Compare):
        return [ast.copy_location(ast.Constant(value), node) for value in (True, False)]
    if isinstance(node, ast.Call):
        owner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return [*(value for value in owner if ast.unparse(value) not in MODULES), *node.args[:1]]
    return []


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from changed source."""

    def __init__(self, module: str, source: str):
        self.name, self.source = f"miniclip_utils.{module}", source

    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self, origin=f"{name} (a mutant)") if name == self.name else None

    def get_filename(self, name):
        return str(PACKAGE / f"{name.rpartition('.')[2]}.py")

    def get_data(self, path):
        return self.source.encode()


def is_noticed(module: str, source: str) -> bool:
    """Whether a test of the module fails with this source, in a process of its own."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, _Mutated(module, source))
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *TESTS[module]]))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return True


def main() -> None:
    import hypothesis  # noqa: F401  what the tests need, once for all processes
    import open_clip  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    unexplained = 0
    for module in sys.argv[1:] or TESTS:
        source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        if is_noticed(module, source):
            sys.exit(f"the tests of {module} fail without any change")
        changes = dict(mutants(source))
        survivors = [change for change, mutant in changes.items() if not is_noticed(module, mutant)]
        for change in survivors:
            reason = next((why for part, why in EQUIVALENT.items() if part in change), None)
            print(f"  survives: {change}{f' ({reason})' if reason else ''}", flush=True)
            unexplained += reason is None
        print(f"{module}: {len(changes)} mutants, {len(changes) - len(survivors)} noticed", flush=True)
    sys.exit(f"{unexplained} mutants survive without a reason" if unexplained else 0)


if __name__ == "__main__":
    main()
