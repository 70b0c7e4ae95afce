"""Notebook 16, bias, privacy, filters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise
from llmkit.responsible.personal_data import passes_iban

LN10 = math.log(10)
Spans = Sequence[tuple[int, int]]


def _whole_words(text: str, words: Sequence[str]) -> bool:
    """By splitting, with no pattern: what is no letter or digit parts words."""
    spaced = "".join(c if c.isalnum() else " " for c in text.casefold())
    return any(word in spaced.split() for word in words)


def _filter(test: Callable[[str, str], bool], fold: bool = True) -> Any:
    def blocks(text: str, words: Sequence[str]) -> bool:
        return any(test(text.casefold() if fold else text, word) for word in words)

    return blocks


def _found_by_trying(country: str, rest: str) -> str:
    """The two digits with which the account passes."""
    return next(d for n in range(2, 99) if passes_iban(country + (d := f"{n:02d}") + rest))


def _digits(less: int = 98, spec: str = "02d", moved: bool = True, base: int = 10) -> Any:
    def check_digits(country: str, rest: str) -> str:
        whole = rest + country + "00" if moved else country + "00" + rest
        letters = "".join(c if c.isdigit() else str(ord(c) - 65 + base) for c in whole)
        return format(less - int(letters) % 97, spec)

    return check_digits


def _covered(spans: Spans, length: int) -> list[int]:
    return [int(any(start <= i < stop for start, stop in spans)) for i in range(length)]


def _scores(swapped: bool = False, whole: bool = False, twice: bool = False) -> Any:
    def precision_recall(found: Spans, wanted: Spans) -> tuple[float, float]:
        length = max((stop for _, stop in [*found, *wanted]), default=0)
        one, two = _covered(found, length), _covered(wanted, length)
        both: float = sum(a * b for a, b in zip(one, two, strict=True))
        sizes = [sum(one), sum(two)]
        if whole:
            both, sizes = len(set(found) & set(wanted)), [len(found), len(wanted)]
        if twice:
            sizes = [sum(stop - start for start, stop in spans) for spans in (found, wanted)]
        ends = [both / size if size else 1.0 for size in sizes]
        return (ends[1], ends[0]) if swapped else (ends[0], ends[1])

    return precision_recall


def _flips(two_sided: bool = True, equal: bool = True) -> Any:
    def sign_flip_p(gaps: Tensor) -> float:
        values = gaps.tolist()
        seen = sum(values) if not two_sided else abs(sum(values))
        far = 0
        for signs in itertools.product((1, -1), repeat=len(values)):
            total = sum(s * v for s, v in zip(signs, values, strict=True))
            total = abs(total) if two_sided else total
            far += total > seen - 1e-6 if equal else total > seen + 1e-6
        return far / 2 ** len(values)

    return sign_flip_p


def _paired_gap(odds: Tensor) -> float:
    pairs = [(a, b) for a, b in odds.T.tolist() if a == a and b == b]
    return sum(a - b for a, b in pairs) / len(pairs) if pairs else math.nan


BROKEN = """
def repaired(text, words):
    return any(word in text for word in words)
"""
NAN = math.nan

EXERCISES = [
    Exercise(
        "16.blank_odds",
        reference=(-LN10, -2 * LN10, 0.0),
        checked="each character more costs ln 10, whoever is meant; between two roles nothing is "
        "left",
        mistakes={
            "a model that knows nothing is not one without a preference: each character more is a "
            "factor of 1/10": (0.0, 0.0, 0.0),
            "the longer word is the less likely: turn the sign": (LN10, 2 * LN10, 0.0),
            "in nats, so ln 10, not log10": (-1.0, -2.0, 0.0),
            "nurse less smith: both have the same -ln 10, and the difference is 0": (
                -LN10,
                -2 * LN10,
                -LN10,
            ),
        },
        hints=(
            "The probability of a text of n characters is (1/10) to the n.",
            "'she' has one character more than 'he', 'they' two. What is ln (1/10)?",
        ),
        tolerance=0.002,
    ),
    Exercise(
        "16.repaired",
        reference=_whole_words,
        checked="whole words, in capitals too, whatever stands beside them",
        cases=[
            ("hell", ["hell"]),
            ("", ["hell"]),
            ("Go to HELL!", ["damn", "hell"]),
            ("HELL it is", ["hell"]),
            ("Hello, you", ["hell"]),
            ("A shell", ["hell"]),
            ('"Damn," he said.', ["damn"]),
            ("A grassy place, and an ass", ["ass"]),
            ("hellish eggs, or an egg", ["hell", "e.g"]),
            ("nothing here", []),
        ],
        mistakes={
            "it still stops longer words, as Hello has hell in it": _filter(lambda t, w: w in t),
            "capitals get past it: casefold the text": _filter(lambda t, w: w in t, fold=False),
            "split() leaves the comma and the exclamation mark on the word": _filter(
                lambda t, w: w in t.split()
            ),
            "split() leaves the comma on the word, and capitals get past": _filter(
                lambda t, w: w in t.split(), fold=False
            ),
            "that asks for the start of a word only: Hello begins with hell": _filter(
                lambda t, w: any(part.strip('"').startswith(w) for part in t.split())
            ),
        },
        hints=(
            r"In a regular expression \b is the place between a letter and what is none.",
            r"re.search(rf'\b{re.escape(word)}\b', text, re.IGNORECASE)",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "16.check_digits",
        reference=_found_by_trying,
        checked="the account passes; digits below ten keep their zero",
        cases=[
            ("GB", "NWBK60161331926819"),
            ("DE", "370400440532013000"),
            ("NO", "86011117947"),
            ("CZ", "08000000192000145399"),
            ("GB", "WEST00000000000026"),
            ("GB", "WEST00000000000011"),
        ],
        mistakes={
            "98 less the remainder, not 97: the whole leaves 1, not 0": _digits(less=97),
            "always two digits: f'{n:02d}'": _digits(spec="d"),
            "country and 00 go behind the rest before the division": _digits(moved=False),
            "A is 10, not 1": _digits(base=1),
            "A is 10, not 0": _digits(base=0),
        },
        hints=(
            "int('A', 36) is 10, int('Z', 36) is 35, int('7', 36) is 7.",
            "rest + country + '00', each character as a number, all joined into one long number.",
        ),
    ),
    Exercise(
        "16.precision_recall",
        reference=_scores(),
        checked="by characters, each counted once, and 1.0 where there is nothing",
        cases=[
            ([(0, 4)], [(0, 4)]),
            ([(0, 4)], [(2, 10)]),
            ([(0, 4), (2, 6), (8, 9)], [(3, 9), (12, 14)]),
            ([], [(0, 3)]),
            ([(0, 3)], []),
            ([], []),
        ],
        mistakes={
            "turned around: precision is divided by what was found": _scores(swapped=True),
            "whole spans are counted: half a number found is half found": _scores(whole=True),
            "where spans overlap, characters are counted twice: take sets of places": _scores(
                twice=True
            ),
        },
        hints=(
            "Make a set of the places that are covered: i for each start <= i < stop.",
            "The hits are the intersection of the two sets; divide it by the size of each.",
        ),
    ),
    Exercise(
        "16.sign_flip_p",
        reference=_flips(),
        checked="two-sided, the observed signs among them: twelve gaps give 2 / 4096 at the least",
        cases=[
            (torch.tensor([1.0, 2.0]),),
            (torch.tensor([-1.0, -0.5, -2.0]),),
            (torch.tensor([1.0, -0.5, 0.25, 2.0, 0.75]),),
            (torch.arange(1, 9) / 4,),
        ],
        mistakes={
            "one-sided: as far on the other side counts too": _flips(two_sided=False),
            "'at least as far' counts the signs that we have: >=, or p could be 0": _flips(
                equal=False
            ),
            "one-sided, and the signs that we have do not count": _flips(False, False),
            "the p-value has no resampling in it: all ways of flipping, each once": lambda gaps: (
                1 / 2 ** len(gaps)
            ),
        },
        hints=(
            "itertools.product((1, -1), repeat=len(gaps)) goes through all ways.",
            "abs(mean of the flipped) >= abs(mean) - 1e-9: the small number is for rounding.",
            "If all gaps have one sign, two ways are as far: as they are, and all flipped.",
        ),
    ),
    Exercise(
        "16.paired_gap",
        reference=_paired_gap,
        checked="only templates that were asked of both, compared each with itself",
        cases=[
            (torch.tensor([[2.0], [0.5]]),),
            (torch.tensor([[2.0, 9.0, NAN], [1.0, NAN, -9.0]]),),
            (torch.tensor([[1.0, -2.0, 4.0, NAN], [0.0, 5.0, NAN, 3.0]]),),
            (torch.tensor([[1.0, NAN], [NAN, 2.0]]),),
        ],
        mistakes={
            "each role's mean is over templates of its own: that compares templates too": (
                lambda odds: float(odds[0].nanmean() - odds[1].nanmean())
            ),
            "turned around: row 0 less row 1": lambda odds: -_paired_gap(odds),
            "what was not asked is no 0": lambda odds: float(
                (odds[0].nan_to_num() - odds[1].nan_to_num()).mean()
            ),
            "a NaN makes the mean NaN: leave those templates out": lambda odds: float(
                (odds[0] - odds[1]).mean()
            ),
        },
        hints=(
            "A number less NaN is NaN: the difference knows which templates to leave out.",
            "differences[~differences.isnan()]",
        ),
    ),
]
