"""Checks that name the mistake.

An exercise's check is declared once: the arguments of some calls, the right function, and a wrong function for each
typical mistake. `lesson_01` … hold the checks; this module compares an answer with them. In a lesson:

    from miniclip_utils.classroom.checks import lesson_05 as check

    clip_loss = check.clip_loss(my_clip_loss)

From there on `clip_loss` is the reader's own function if it is right, and the course's own if not.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Arguments = tuple[Any, ...]  # of one call
CHANGED = "the answer is right, but it changes its arguments, which other cells use: work on a copy"
SEEDS = (0, 1)  # the same inputs for every try, and two sets of them, so that no fixed answer is right


class NotSolved(Exception):
    """The stub still returns nothing."""


@dataclass(frozen=True)
class Check:
    """Looks at an answer to an exercise, says in one line what it found, and returns the function to go on with.

    Attributes:
        right: an independent solution.
        mistakes: message, or words of it → a function that makes this mistake.
        package: what the lesson uses until the answer is right.
        find_problem: an answer → what is wrong with it, or None. May raise `NotSolved`.
    """

    name: str
    right: Function
    mistakes: Mapping[str, Function]
    package: Function
    find_problem: Callable[[Function], str | None]

    def __call__(self, answer: Function) -> Function:
        verdict = self.verdict(answer)
        if verdict.startswith("✓"):
            print(f"{verdict}; from here on yours is used")
            return answer
        if verdict.startswith("…"):
            print(f"{verdict}; until then the course's own is used")
        else:
            print(f"{verdict} (until it is right, the course's own is used)")
        return self.package

    def verdict(self, answer: Function) -> str:
        """What the check says of an answer, in one line that starts with `…`, `✓` or `✗`.

        An error inside the answer is reported in that line too, so that a lesson always runs to its end.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                problem = self.find_problem(answer)
        except NotSolved:
            return f"… {self.name}: not solved yet"
        except Exception as error:  # whatever a learner's code may raise
            problem = _raised(error)
        return f"✗ {self.name}: {problem}" if problem else f"✓ {self.name}: right"


def exercise(
    *,
    inputs: Callable[[], Arguments | list[Arguments] | dict[str, Arguments]],
    mistakes: Mapping[str, Function],
    package: Function | None = None,
    outcome: Function = lambda function, *arguments: function(*arguments),
    tolerance: float = 1e-4,
    keeps_arguments: bool = False,
) -> Callable[[Function], Check]:
    """Makes a check of the right function.

    An answer is right if its outcomes are those of the right function in all calls. It makes a typical mistake if they
    are those of that mistake's function, an error with the same words included.

    Args:
        inputs: draws the arguments of one call, of several that are judged together, or of several that are judged in
            turn: words about each call, which its message begins with → its arguments.
        mistakes: message → a function that makes this mistake. The first one that fits is named.
        package: the package's function for the lesson to go on with; default: the right function.
        outcome: what is compared, of a function and the arguments of one call; default: what the call returns.
            Tensors, numbers, strings, and lists, tuples or dicts of them.
        tolerance: absolute and relative difference of numbers that still counts as equal.
        keeps_arguments: whether an answer that changes its arguments is refused, since the lesson uses them again.
    """

    def declare(right: Function) -> Check:
        def find_problem(answer: Function) -> str | None:
            for words, calls in _draw(inputs).items():
                if problem := judge(answer, calls):
                    return f"{words}, {problem}" if words else problem
            return None

        def judge(answer: Function, calls: list[Arguments]) -> str | None:
            changed = []

            def outcome_of(function: Function, arguments: Arguments) -> Any:
                given = copy.deepcopy(arguments)  # a copy: a call may change its arguments
                try:
                    return outcome(function, *given)
                except NotSolved:
                    raise
                except Exception as error:
                    return error
                finally:
                    changed.append(keeps_arguments and difference(given, arguments) is not None)

            got = [outcome_of(answer, arguments) for arguments in calls]
            is_changed = any(changed)
            if any(value is None or value is ... for value in got):
                raise NotSolved
            expected = [outcome(right, *copy.deepcopy(arguments)) for arguments in calls]
            differences = [difference(one, other, tolerance) for one, other in zip(got, expected, strict=True)]
            if not any(differences):
                return CHANGED if is_changed else None
            for message, mistake in mistakes.items():
                made = (outcome_of(mistake, arguments) for arguments in calls)
                if all(difference(one, other, tolerance) is None for one, other in zip(got, made, strict=True)):
                    return message
            return next(filter(None, differences))

        return Check(right.__name__, right, mistakes, package or right, find_problem)

    return declare


def examined(
    *, right: Function, mistakes: Mapping[str, Function], package: Function | None = None
) -> Callable[[Callable[[Function], str | None]], Check]:
    """Makes a check of a function that examines an answer and returns what is wrong with it, or None.

    For an exercise with more than one right answer, or with messages that hold parts of the answer.

    Args:
        right: a right answer.
        mistakes: words of each message → an answer that gets it, for the tests.
        package: the package's function for the lesson to go on with; default: the right answer.
    """

    def declare(examine: Callable[[Function], str | None]) -> Check:
        def find_problem(answer: Function) -> str | None:
            problem = None
            for seed in SEEDS:
                torch.manual_seed(seed)
                problem = problem or examine(answer)
            return problem

        return Check(examine.__name__, right, mistakes, package or right, find_problem)

    return declare


def mark(check: Check, answer: Function, points: int) -> int:
    """Prints what a check says of an answer, and returns its points: all of them if it is right, else 0.

    nbgrader reads the points from the output of the cell. It takes a warning for an error, so none is shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = check.verdict(answer)
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


def difference(got: Any, expected: Any, tolerance: float = 1e-4) -> str | None:
    """How one outcome differs from another, or None if they are equal."""
    if isinstance(got, Exception) or isinstance(expected, Exception):
        return None if repr(got) == repr(expected) else _raised(got)
    if isinstance(got, tuple) and hasattr(got, "indices") and not isinstance(expected, tuple):  # max, min, sort, topk
        return "these are values and indices, both: choose with .values or .indices"
    if isinstance(expected, Real) and isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    for kind, name in _KINDS.items():
        if isinstance(expected, kind) and not isinstance(got, kind):
            shape = f" and shape {tuple(got.shape)}" if isinstance(got, Tensor) else ""
            return f"it is of type {type(got).__name__}{shape}: return {name}"
    if isinstance(expected, dict):
        for key in [*expected, *got]:
            if (key in got) != (key in expected):
                return f"{key!r} is missing" if key in expected else f"{key!r} does not belong there"
            if problem := difference(got[key], expected[key], tolerance):
                return f"{key!r}: {problem}"
        return None
    if isinstance(expected, (list, tuple)):
        if len(got) != len(expected):
            return f"its length is {len(got)}, and should be {len(expected)}"
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            if problem := difference(one, other, tolerance):
                return f"entry {index}: {problem}"
        return None
    if isinstance(expected, (Tensor, Real)):
        return _numbers_differ(_as_tensor(got), _as_tensor(expected), tolerance)
    return None if got == expected else f"it is {got!r}, and should be {expected!r}"


_KINDS: dict[Any, str] = {
    Tensor: "a tensor",
    Real: "a number",
    str: "a string",
    dict: "a dict",
    (list, tuple): "a list",
}


def _as_tensor(number: Any) -> Tensor:
    return number.detach().double() if isinstance(number, Tensor) else torch.tensor(float(number), dtype=torch.float64)


def _numbers_differ(got: Tensor, expected: Tensor, tolerance: float) -> str | None:
    if got.shape != expected.shape:
        return f"its shape is {tuple(got.shape)}, and should be {tuple(expected.shape)}"
    if torch.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        return None
    where = (got - expected).abs().flatten().argmax()
    one, other = got.flatten()[where].item(), expected.flatten()[where].item()
    digits = 4 if f"{one:.4g}" != f"{other:.4g}" else 8
    return f"one number is {one:.{digits}g}, and should be {other:.{digits}g}"


def _draw(inputs: Callable[[], Arguments | list[Arguments] | dict[str, Arguments]]) -> dict[str, list[Arguments]]:
    """The calls to judge together, from all seeds, by the words about them."""
    calls: dict[str, list[Arguments]] = {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        drawn = inputs()
        if isinstance(drawn, dict):
            for words, arguments in drawn.items():
                calls.setdefault(words, []).append(arguments)
        else:
            calls.setdefault("", []).extend(drawn if isinstance(drawn, list) else [drawn])
    return calls


def _raised(error: Exception) -> str:
    return f"your code raised {type(error).__name__}: {error}"
