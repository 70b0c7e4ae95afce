"""How an answer is run and compared: apart from the notebook, for a while, against a reference.

An `Exercise` has a reference (a function or a value), the cases to try it in, and answers that are
known to be wrong. `examine` runs the answer in each case, in a thread that it can end, and compares
what comes out with what the reference gives, shapes before numbers.
"""

from __future__ import annotations

import ast
import ctypes
import html
import inspect
import math
import random
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

SECONDS = 5.0  # that an answer may take in one case, the processor's where others keep it busy,
PATIENCE = 6  # but of the clock's no more than so many times as many
COLOURS = {"passed": "#1a7f37", "wrong": "#cf222e"}  # readable on white and on black


@dataclass(frozen=True)
class Result:
    """What a check or a hint says. Its text begins with the state."""

    name: str
    state: str  # "not tried yet", "passed", "wrong", "not checked", "hint 1 of 3"
    about: str

    def __repr__(self) -> str:
        return f"{self.state}: {self.about}" if self.about else self.state

    def _repr_html_(self) -> str:
        colour = COLOURS.get(self.state, "#6e7781")
        state, about = html.escape(self.state), html.escape(self.about)
        style = f"border-left: 4px solid {colour}; padding-left: 8px; white-space: pre-wrap"
        return f'<pre style="{style}"><b style="color: {colour}">{state}</b> {about}</pre>'


@dataclass(frozen=True)
class Exercise:
    """An exercise, and all that is known of its answers.

    name: as `check` is given it. reference: a right answer: a function, or a value. cases: the
    arguments to try a function with, the smallest first; a case may be a function of what the
    notebook gives. checked: what passing means. mistakes: for each known wrong answer, what to say
    of it. hints: each one step more. stub: the source of the stub, where it is more than a value of
    None or a function that returns nothing. prepare: makes a comparable function of an answer that
    is none (a class, say).
    """

    name: str
    reference: Any
    checked: str
    cases: Sequence[Any] = ((),)
    mistakes: dict[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    stub: str | None = None
    prepare: Callable[[Any], Any] | None = None
    tolerance: float = 1e-4


class _Failed(Exception):
    """What an answer did instead of giving a result."""


def examine(exercise: Exercise, answer: Any, given: dict[str, Any]) -> Result:
    """Compare an answer with the reference in all cases; see `check`."""
    name = exercise.name
    if _untouched(exercise, answer):
        return Result(name, "not tried yet", "")
    wanted = exercise.reference
    is_function = callable(wanted) and not given
    if is_function and not callable(answer):
        kind = "class" if isinstance(wanted, type) else "function"
        about = f"the answer is {_kind(answer)}; a {kind} is wanted: give it without calling it"
        return Result(name, "wrong", about)
    for number, case in enumerate(exercise.cases):
        case = case(**given) if callable(case) else case
        try:
            expected = _run(exercise, wanted, case, given)
        except _Failed as failure:  # on a machine that is too busy, say
            return Result(name, "not checked", f"the right answer failed here: {failure}")
        try:
            got = _run(exercise, answer, case, given)
        except _Failed as failure:
            return Result(name, "wrong", f"{_call(exercise, answer, case)}{failure}")
        if got is None and is_function and number == 0:
            return Result(name, "not tried yet", "")
        if difference := compare(got, expected, exercise.tolerance):
            lines = [f"{_call(exercise, answer, case)}{difference}"]
            lines += [f"expected {show(expected)}", f"got      {show(got)}"]
            lines += _mistakes(exercise, answer, given)
            return Result(name, "wrong", "\n".join(lines))
    return Result(name, "passed", exercise.checked)


def compare(got: Any, expected: Any, tolerance: float = 1e-4) -> str | None:
    """How two results differ, in a sentence; None where they do not."""
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor):
            return f"a tensor is wanted, not {_kind(got)}"
        if got.device != expected.device:
            return f"the tensor is on the device {got.device}, not on {expected.device}"
        if got.shape != expected.shape:
            return f"the shape is {tuple(got.shape)}, not {tuple(expected.shape)}"
        if got.is_floating_point() != expected.is_floating_point():
            return f"the numbers are {got.dtype}, not {expected.dtype}"
        alike = torch.allclose(got.double(), expected.double(), tolerance, tolerance, True)
        return None if alike else "the shape is right, the numbers are not"
    if isinstance(expected, (bool, str, bytes)) or expected is None:
        right = type(got) is type(expected) and got == expected
        return None if right else "another result is wanted"
    if isinstance(expected, Real):
        if isinstance(got, Tensor | np.generic) and np.ndim(got) == 0:
            got = got.item()
        if not isinstance(got, Real):
            return f"a number is wanted, not {_kind(got)}"
        if isinstance(expected, Integral):
            return None if got == expected else "another number is wanted"
        try:
            both = float(got), float(expected)
        except OverflowError:  # an integer beyond what a float can hold
            return "another number is wanted"
        near = math.isclose(*both, rel_tol=tolerance, abs_tol=tolerance)
        return None if near or all(map(math.isnan, both)) else "another number is wanted"
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"a dict is wanted, not {_kind(got)}"
        if got.keys() != expected.keys():
            return f"the keys are {sorted(map(str, got))}, not {sorted(map(str, expected))}"
        pairs = [(got[key], expected[key], f"at {key!r}: ") for key in expected]
    else:
        if not isinstance(got, list | tuple):
            return f"a {type(expected).__name__} is wanted, not {_kind(got)}"
        if len(got) != len(expected):
            return f"there are {len(got)} items, not {len(expected)}"
        places = [f"item {i}: " for i in range(len(expected))]
        pairs = list(zip(got, expected, places, strict=True))
    found = ((place, compare(g, e, tolerance)) for g, e, place in pairs)
    return next((f"{place}{difference}" for place, difference in found if difference), None)


def show(value: Any, most: int = 400) -> str:
    """A result in few words: of a tensor, its shape first."""
    try:
        text = repr(_rounded(value))
    except Exception:  # numbers that are not there (device "meta"), an object that cannot be shown
        text = _kind(value)
    if isinstance(value, Tensor):
        text = f"{tuple(value.shape)} {text}"
    return text if len(text) <= most else text[: most - 4] + " ..."


def _rounded(value: Any) -> Any:
    """Numbers with four digits after the point, in lists, tuples, dicts and tensors too."""
    if isinstance(value, Tensor):
        return _rounded(value.tolist())
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_rounded, value))
    return round(value, 4) if isinstance(value, float) else value


def _untouched(exercise: Exercise, answer: Any) -> bool:
    """Whether an answer is the stub still."""
    if answer is None or answer is Ellipsis:
        return True
    if exercise.stub is None:
        return False
    parts = vars(answer).values() if isinstance(answer, type) else [answer]
    try:  # a class in a notebook has no source that Python could find, but its methods have
        sources = [inspect.getsource(part) for part in parts if inspect.isfunction(part)]
        return bool(sources) and _functions("".join(sources)) == _functions(exercise.stub)
    except (OSError, SyntaxError):  # functions that were not typed in
        return False


def _functions(source: str) -> list[str]:
    """The functions in a piece of Python, as trees: comments and spaces are nothing in them."""
    nodes = ast.walk(ast.parse(textwrap.dedent(source)))
    return [ast.dump(node) for node in nodes if isinstance(node, ast.FunctionDef)]


def _run(exercise: Exercise, answer: Any, case: Any, given: dict[str, Any]) -> Any:
    """What an answer gives in a case, or _Failed, which says what it did instead. It runs in a
    thread, on copies, from a random state of its own."""
    if not callable(answer):
        return answer
    outcome: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            function = answer if exercise.prepare is None else exercise.prepare(answer)
            outcome.append((True, function(*deepcopy(case), **given)))
        except BaseException as error:  # sys.exit() too
            outcome.append((False, error))

    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - answers may draw from it
    with torch.random.fork_rng():
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        thread = threading.Thread(target=work, daemon=True)
        began, spent = time.monotonic(), time.process_time()
        thread.start()
        thread.join(SECONDS)
        while thread.is_alive() and time.process_time() - spent < SECONDS:
            if time.monotonic() - began > PATIENCE * SECONDS:
                break
            thread.join(SECONDS / 10)
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    if not outcome:
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
        stop(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        raise _Failed(f"it did not end within {SECONDS:g} seconds: does a loop have no end?")
    done, value = outcome[0]
    if not done:
        raise _Failed(_raised(value))
    if inspect.isgenerator(value):
        raise _Failed("it gave a generator: use return, not yield")
    return value


def _raised(error: BaseException) -> str:
    """What was raised, on one line and not a long one."""
    try:
        message = textwrap.shorten(str(error), 300, placeholder=" ...")
    except Exception:  # an error of the reader's own that cannot be shown
        message = ""
    return f"it raised {type(error).__name__}" + (f": {message}" if message else "")


def _mistakes(exercise: Exercise, answer: Any, given: dict[str, Any]) -> list[str]:
    """What is known of a wrong answer: the first mistake that gives the same in every case."""
    for about, mistake in exercise.mistakes.items():
        if all(_alike(exercise, answer, mistake, case, given) for case in exercise.cases):
            return [about]
    return []


def _alike(exercise: Exercise, one: Any, other: Any, case: Any, given: dict[str, Any]) -> bool:
    case = case(**given) if callable(case) else case
    try:
        first, second = (_run(exercise, answer, case, given) for answer in (one, other))
    except _Failed:
        return False
    return compare(first, second, exercise.tolerance) is None


def _call(exercise: Exercise, answer: Any, case: Any) -> str:
    """The call in which an answer failed, as one would write it."""
    if not callable(answer) or not case:
        return ""
    arguments = ", ".join(show(argument, 120) for argument in case)
    return f"{exercise.name.partition('.')[2]}({arguments}): "


def _kind(value: Any) -> str:
    """What a value is, with its article."""
    if value is None:
        return "None (is a return missing?)"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
