"""Notebook 17, code completion."""

from __future__ import annotations

import zlib
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise


def _pass_at_k(n: int, c: int, k: int) -> float:
    """By trying out which k of the n could be drawn; the first c are right."""
    draws = list(combinations(range(n), k))
    return sum(min(draw) < c for draw in draws) / len(draws)


def _replaced(n: int, c: int, k: int) -> float:
    return 1 - (1 - c / n) ** k


def _by_package(part: Any = lambda name: name.split("/")[0], swapped: bool = False) -> Any:
    """Names on two sides, by the checksum of a part of each."""

    def by_package(names: list[str], val_fraction: float) -> tuple[list[str], list[str]]:
        held = {n for n in names if zlib.crc32(part(n).encode()) / 2**32 < val_fraction}
        train = [name for name in names if name not in held]
        val = [name for name in names if name in held]
        return (val, train) if swapped else (train, val)

    return by_package


NAMES = [
    "abc.py", "json/__init__.py", "json/decoder.py", "json/encoder.py", "xml/dom/minidom.py",
    "xml/etree/ElementTree.py", "xml/sax/handler.py", "ast.py", "asyncio/events.py",
    "asyncio/tasks.py", "email/mime/text.py", "email/message.py", "json.py", "wsgiref/util.py",
    "tkinter/ttk.py", "unittest/case.py", "unittest/mock.py", "urllib/parse.py", "zipfile/_path.py",
]  # fmt: skip


def _filled_in(ids: list[int], prefix: int, suffix: int, middle: int, end: int) -> list[int]:
    """One token after the other, into the part that is open."""
    parts: dict[int, list[int]] = {prefix: [], suffix: [], middle: []}
    now = prefix
    for token in ids:
        if token == end:
            break
        if token in parts:
            now = token
        else:
            parts[now].append(token)
    return parts[prefix] + parts[middle] + parts[suffix]


def _as_it_stands(ids: list[int], prefix: int, suffix: int, middle: int, end: int) -> list[int]:
    ids = ids[: ids.index(end)] if end in ids else ids
    return [token for token in ids if token not in (prefix, suffix, middle)]


def _without_the_last(ids: list[int], *special: int) -> list[int]:
    return _filled_in(ids if special[-1] in ids else ids[:-1], *special)


def _with_what_follows(ids: list[int], *special: int) -> list[int]:
    return _filled_in([token for token in ids if token != special[-1]], *special)


def _with_the_end(ids: list[int], prefix: int, suffix: int, middle: int, end: int) -> list[int]:
    return _filled_in(ids, prefix, suffix, middle, -1)


def _gap(*parts: list[int], after_end: tuple[int, ...] | None = ()) -> tuple[Any, ...]:
    """A case: 90 to 93 are the special tokens. after_end: what follows the end; None: no end."""
    before, after, gap = parts
    last = [] if after_end is None else [93, *after_end]
    return [90, *before, 91, *after, 92, *gap, *last], 90, 91, 92, 93


def _shown_and_right(doubts: Tensor, right: Tensor) -> Tensor:
    """Each k by itself."""
    ranked = sorted(range(len(doubts)), key=lambda n: float(doubts[n]))
    shares = [sum(float(right[n]) for n in ranked[:k]) / k for k in range(1, len(ranked) + 1)]
    return torch.tensor(shares)


def _completions(N: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(N)
    doubts = torch.rand(N, generator=draw) * 20
    return doubts, (torch.rand(N, generator=draw) * 20 > doubts).float()


class _Scores:
    """Scores (V,) that depend on the last token alone."""

    def __init__(self, V: int, seed: int) -> None:
        self.table = torch.randn(V, V, generator=torch.Generator().manual_seed(seed)).tolist()

    def __call__(self, ids: list[int]) -> list[float]:
        return self.table[ids[-1] if ids else 0]

    def __repr__(self) -> str:
        return "scores"


def _healed(back: int = 1, allow: str = "begins", before: bool = True) -> Any:
    """Token healing, and what is often made of it."""

    def healed(ids: list[int], tokens: list[str], scores: Any) -> tuple[list[int], int]:
        kept, taken = ids[: len(ids) - back], tokens[ids[-1]]
        found = scores(kept if before else ids)
        fits = {
            "begins": lambda text: text[: len(taken)] == taken,
            "longer": lambda text: text[: len(taken)] == taken and text != taken,
            "within": lambda text: taken[: len(text)] == text,
            "all": lambda text: True,
        }[allow]
        best = None
        for i, text in enumerate(tokens):
            if fits(text) and (best is None or found[i] > found[best]):
                best = i
        return kept, ids[-1] if best is None else best

    return healed


def _not_back(ids: list[int], tokens: list[str], scores: Any) -> tuple[list[int], int]:
    found = scores(ids)
    return ids, max(range(len(tokens)), key=lambda i: found[i])


WORDS = [" ", " No", " None", " n", "x", "=", "\n", "\n    ", " not", "\n  ", "N", "o"]


def _prompt(seed: int, *ids: int) -> tuple[Any, ...]:
    return list(ids), WORDS, _Scores(len(WORDS), seed)


BROKEN = '''
def pass_at_k(n: int, c: int, k: int) -> float:
    """n tries, c of them right, k drawn"""
    all_wrong = 1.0
    for _ in range(1, k):
        all_wrong *= (n - c) / n
    return 1 - all_wrong
'''

EXERCISES = [
    Exercise(
        "17.tries_of_ten",
        reference=(0.3, 1 - 7 / 10 * 6 / 9, 1.0),
        checked="0.3, then 1 - 7/10 · 6/9 = 0.533, and 1: there are only seven wrong ones",
        tolerance=0.005,
        mistakes={
            "none is drawn twice: after a wrong one, six of nine are wrong": (0.3, 0.51, 0.942),
            "the chances do not add up: two right ones are counted twice": (0.3, 0.6, 2.4),
            "they do not add up, and only seven are wrong: of eight, one is right": (0.3, 0.6, 1.0),
            "the other way round: that is the probability that all are wrong": (0.7, 0.467, 0.0),
        },
        hints=(
            "It is easier to ask for the opposite: that all that are drawn are wrong.",
            "The first is wrong with 7/10; then 9 are left, 6 of them wrong.",
            "How many wrong ones are there, and how many do you draw in the third case?",
        ),
    ),
    Exercise(
        "17.pass_at_k",
        reference=_pass_at_k,
        checked="pass@5 of 10 tries with 3 right is 0.9167, as counting all draws gives",
        cases=[(1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 1, 2), (10, 3, 1), (10, 3, 5), (10, 9, 5)],
        mistakes={
            "both faults are there: one draw too few, and put back": lambda n, c, k: (
                1 - (1 - c / n) ** (k - 1)
            ),
            "a try is drawn once at most: each draw leaves one fewer": _replaced,
            "one draw too few: range(1, k) has k - 1 numbers": lambda n, c, k: (
                _pass_at_k(n, c, k - 1) if k > 1 else 0.0
            ),
            "that is pass@1, whatever k is": lambda n, c, k: c / n,
            "chances do not add up": lambda n, c, k: k * c / n,
        },
        hints=(
            "How often does the loop run for k = 1?",
            "Before draw number i (from 0), n - i tries are left, n - c - i of them wrong.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "17.by_package",
        reference=_by_package(),
        checked="each package is on one side, and names keep their order",
        cases=[([], 0.5), (NAMES[:1], 1.0), (NAMES[:4], 0.5), (NAMES, 0.2), (NAMES, 0.6)],
        mistakes={
            "files of one package are on both sides: take the checksum of the package": _by_package(
                lambda name: name
            ),
            "that is the whole folder: xml/dom and xml/sax are one package, xml": _by_package(
                lambda name: name.rpartition("/")[0] or name
            ),
            "the sides are swapped: those to learn from come first": _by_package(swapped=True),
            "that is the file's own name: the package stands before the first /": _by_package(
                lambda name: name.split("/")[-1]
            ),
        },
        hints=(
            'name.split("/")[0] is the package, and the name itself where there is no /.',
            "zlib.crc32(package.encode()) is a whole number below 2**32.",
        ),
    ),
    Exercise(
        "17.filled_in",
        reference=_filled_in,
        checked="the file in its own order, also where a part is empty or the end is missing",
        cases=[
            _gap([1], [2], [3]),
            _gap([1, 2], [], [3]),
            _gap([], [1, 2], [3, 4]),
            _gap([1], [2], []),
            _gap([1, 2], [3, 4], [5, 6], after_end=None),
            _gap([1, 2], [3, 4], [5, 6], after_end=(7, 93, 8)),
        ],
        mistakes={
            "the gap belongs between the two: before, gap, after": _as_it_stands,
            "where the end is missing, the last token is part of the gap": _without_the_last,
            "what follows the end is no part of the file": _with_what_follows,
            "the end is no part of the file": _with_the_end,
        },
        hints=(
            "ids.index(suffix) is where the first part is over; ids[0] is the prefix token.",
            "The gap is what follows the middle token, up to the end token if there is one.",
            "before + gap + after, without any of the four special tokens.",
        ),
    ),
    Exercise(
        "17.shown_and_right",
        reference=_shown_and_right,
        checked="for each k, the share that is right among the k least doubtful",
        cases=[_completions(N) for N in (1, 2, 3, 10, 60)],
        mistakes={
            "the completions are in the order in which they came: sort by doubt": lambda d, r: (
                r.cumsum(0) / torch.arange(1, len(r) + 1)
            ),
            "the most doubtful are shown first: sort from low to high": lambda d, r: (
                r[d.argsort(descending=True)].cumsum(0) / torch.arange(1, len(r) + 1)
            ),
            "a share of those shown: divide by k, not by N": lambda d, r: (
                r[d.argsort()].cumsum(0) / len(r)
            ),
            "that is how many are right, not which share": lambda d, r: r[d.argsort()].cumsum(0),
        },
        hints=(
            "doubts.argsort() gives the places from the least doubtful to the most.",
            "right[order].cumsum(0) counts how many of the first k are right, for every k.",
            "Divide by torch.arange(1, N + 1).",
        ),
    ),
    Exercise(
        "17.healed",
        reference=_healed(),
        checked="one token back, and the likeliest that begins with what was taken",
        cases=[
            _prompt(1, 4, 0),
            _prompt(2, 5, 6),
            _prompt(3, 4, 5, 0),
            _prompt(4, 4, 5, 1),
            _prompt(5, 0, 4, 5, 10),
            _prompt(6, 4, 5, 9),
            _prompt(7, 4, 5, 0),
            _prompt(8, 5, 4, 4),
        ],
        mistakes={
            "no token was taken back": _not_back,
            "what was taken back must come again: the new token begins with it": _healed(
                allow="all"
            ),
            "that took two tokens back": _healed(back=2),
            "the scores are those after the whole prompt: ask after what is kept": _healed(
                before=False
            ),
            "the token that was taken back may come again": _healed(allow="longer"),
            "the other way round: the new token begins with the old text": _healed(allow="within"),
        },
        hints=(
            "kept = ids[:-1], and tokens[ids[-1]] is the text that was taken back.",
            "Go over all tokens whose text starts with it; the old token is one of them.",
            "Among those, the one with the highest of scores(kept).",
        ),
    ),
]
