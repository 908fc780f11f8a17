"""Checks that name the mistake.

An exercise's check knows the right answer and what typical mistakes lead to. `lesson_01` … hold the checks; this
module holds what they share. In a lesson:

    from miniclip_utils.classroom.checks import lesson_04 as check

    check.cosine_matrix(my_cosine_matrix)
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class NotSolved(Exception):
    """The stub still returns nothing."""


class NotANumber(Exception):
    """Where a number is asked for, something else came back."""


def exercise(check: Callable[[Any], str | None]) -> Callable[[Any], None]:
    """Makes a check of a function that looks at an answer and returns what is wrong with it, or None.

    The check prints one line: not solved yet, right, or what is wrong. An error inside the answer is reported in one
    line too, so that a lesson always runs to its end.
    """

    @functools.wraps(check)
    def run(answer: Any) -> None:
        print(_verdict(check, answer))

    return run


def _verdict(check: Callable[[Any], str | None], answer: Any) -> str:
    """What a check says of an answer, in one line that starts with `…`, `✓` or `✗`."""
    try:
        problem = None
        with torch.random.fork_rng(devices=[]):
            for seed in (0, 1):  # the same numbers for every try, and two sets, so that no fixed answer is right
                torch.manual_seed(seed)
                problem = problem or check(answer)
    except NotSolved:
        return f"… {check.__name__}: not solved yet"
    except NotANumber as error:
        return f"✗ {check.__name__}: {error}"
    except Exception as error:  # whatever a learner's code may raise
        return f"✗ {check.__name__}: your code raised {type(error).__name__}: {error}"
    return f"✗ {check.__name__}: {problem}" if problem else f"✓ {check.__name__}: right"


def mark(check: Callable[[Any], None], answer: Any, points: int) -> int:
    """Prints what a check says of an answer, and returns its points: all of them if it is right, else 0.

    nbgrader reads the points from the output of the cell. It takes a warning for an error, so none is shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = _verdict(inspect.unwrap(check), answer)
    print(verdict)
    return points if verdict.startswith("✓") else 0


def solved(value: Any) -> Any:
    """The value itself, unless a stub left it empty.

    Raises:
        NotSolved: the value is None or `...`.
    """
    if value is None or value is ...:
        raise NotSolved
    return value


def number(value: Any) -> float:
    """The number that an answer returned, plain or in a tensor.

    Raises:
        NotSolved: the value is None or `...`.
        NotANumber: it is something else.
    """
    value = solved(value)
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    shape = f" and shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    raise NotANumber(f"it is of type {type(value).__name__}{shape}: return a number")


def diagnose(got: Any, expected: Tensor | float, mistakes: Mapping[str, Any], tolerance: float = 1e-4) -> str | None:
    """Compares an answer with the right one, then with what each typical mistake gives.

    Args:
        got: what the learner's code returned.
        expected: the right value, from an independent computation.
        mistakes: message → the value that this mistake leads to.
        tolerance: absolute and relative difference that still counts as equal.

    Returns:
        None if right, the message of the mistake, or what differs if it is none of them.
    """
    expected = torch.as_tensor(expected)
    got = solved(got)
    if isinstance(got, tuple) and hasattr(got, "indices"):  # what max, min, sort and topk give
        return "these are values and indices, both: choose with .values or .indices"
    if not isinstance(got, (Tensor, int, float)):
        return f"it is of type {type(got).__name__}: return a tensor"
    got = torch.as_tensor(got).detach()

    def equal(value: Tensor) -> bool:
        close = functools.partial(torch.allclose, rtol=tolerance, atol=tolerance, equal_nan=True)
        return got.shape == value.shape and close(got.double(), value.double())

    if equal(expected):
        return None
    for message, value in mistakes.items():
        if equal(torch.as_tensor(value).detach()):
            return message
    if got.shape != expected.shape:
        return f"its shape is {tuple(got.shape)}, and should be {tuple(expected.shape)}"
    where = (got.double() - expected.double()).abs().flatten().argmax()
    one, other = got.flatten()[where].item(), expected.flatten()[where].item()
    digits = 4 if f"{one:.4g}" != f"{other:.4g}" else 8
    return f"one number is {one:.{digits}g}, and should be {other:.{digits}g}"
