"""Which exercise is meant, and what is said of an answer to it: `check` and `hint`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from llmkit.exercises.examining import Exercise, Result, examine

_hints_given: dict[str, int] = {}


def check(name: str, answer: Any, **given: Any) -> Result:
    """Whether the answer to an exercise is right. It never raises, never hangs, and leaves the
    global random state as it was.

    name: the notebook's number and the exercise's name, "04.fading_weights". given: what of the
    notebook the exercise is about, where it names it (a text, a model).
    """
    try:
        exercise = find(name)
    except LookupError as error:
        return Result(name, "wrong", str(error))
    return examine(exercise, answer, given)


def hint(name: str) -> Result:
    """A hint, and with each further call one step more."""
    try:
        hints = find(name).hints
    except LookupError as error:
        return Result(name, "hint", str(error))
    number = min(_hints_given.get(name, 0), len(hints) - 1)
    _hints_given[name] = number + 1
    return Result(name, f"hint {number + 1} of {len(hints)}", hints[number])


def find(name: str) -> Exercise:
    """The exercise of that name; LookupError, which tells the nearest, where there is none."""
    known: dict[str, Exercise] = {}
    for number in numbers():
        if not name.startswith(tuple("0123456789")) or name.startswith(number):
            module = import_module(f"llmkit.exercises.notebook_{number}")
            known |= {exercise.name: exercise for exercise in module.EXERCISES}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise LookupError(f"there is no exercise {name!r}; there are {', '.join(near)}")


def numbers() -> list[str]:
    """The notebooks whose exercises are known: "04" ..."""
    files = Path(__file__).parent.glob("notebook_*.py")
    return sorted(file.stem.removeprefix("notebook_") for file in files)
