"""Notebook 03, bigrams."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise


def _ids(text: str) -> Tensor:
    """The ids of a text of small letters: a is 0."""
    return torch.tensor([ord(c) - ord("a") for c in text])


def _doubt(counts: Tensor) -> Tensor:
    """-Σ p ln p of each row, (V,)."""
    p = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(p).sum(1)


def _surest(doubt: Callable[[Tensor], Tensor] = _doubt, all_rows: bool = False) -> Any:
    """The rows of the least and the most doubt, however it is measured."""

    def surest(counts: Tensor, least: int) -> tuple[int, int]:
        left = (counts.sum(1) >= (0 if all_rows else least)).nonzero()[:, 0]
        order = doubt(counts)[left].argsort(stable=True)
        return int(left[order[0]]), int(left[order[-1]])

    return surest


def _nats(*faults: str) -> Any:
    """The loss of a table, with some of the faults of the broken one."""

    def nats(table: Tensor, ids: Tensor) -> float:
        pairs = list(itertools.pairwise(ids.tolist()))
        p = [float(table[(j, i) if "reversed" in faults else (i, j)]) for i, j in pairs]
        surprise = [-math.log(sum(p) / len(p))] if "mean" in faults else [-math.log(x) for x in p]
        loss = sum(surprise) / len(surprise)
        return loss / math.log(2) if "bits" in faults else loss

    return nats


FAULTS = {
    "reversed": "the table is read the wrong way round: first character, then second",
    "mean": "the logarithm comes after the mean: take it of each probability, then the mean",
    "bits": "log2 gives bits: nats come from the natural logarithm, log",
}


def _entropy(items: list[Any]) -> float:
    counts = Counter(items).values()
    return -sum(n / len(items) * math.log(n / len(items)) for n in counts)


def _backwards(given: str = "second") -> Any:
    """The surprise of a pair less the surprise of what is known of it."""

    def backwards_loss(ids: Tensor, V: int) -> float:
        pairs = list(itertools.pairwise(ids.tolist()))
        first, second = zip(*pairs, strict=True)
        known = {"second": second, "first": first, "nothing": ()}[given]
        return _entropy(pairs) - _entropy(list(known))

    return backwards_loss


def _single(ids: Tensor, V: int) -> float:
    return _entropy(ids[:-1].tolist())


def _two(
    measured: str = "ids", added: float = 0.1, total: str = "V", seen: int = 2, order: int = 1
) -> Any:
    """What a table of triples pays for a text, and how many it has never seen."""

    def two_characters(train_ids: Tensor, ids: Tensor, V: int) -> tuple[float, float]:
        def read(ids: Tensor) -> list[tuple[tuple[int, ...], int]]:
            row = ids.tolist()
            return [(tuple(row[i - seen : i]), row[i]) for i in range(2, len(row))]

        counts = Counter(read(train_ids))
        rows = Counter(before for before, _ in read(train_ids))
        asked = read(train_ids if measured == "train" else ids)
        size = {"V": V, "V * V": V * V, "1": 1}[total]
        loss = unseen = 0.0
        for before, after in asked:
            unseen += counts[before, after] == 0
            read_at = before[::order]
            p = (counts[read_at, after] + added) / (rows[read_at] + added * size)
            loss -= math.log(p)
        return loss / len(asked), unseen / len(asked)

    return two_characters


def _distinct_unseen(train_ids: Tensor, ids: Tensor, V: int) -> tuple[float, float]:
    kinds = [
        {tuple(row[i : i + 3].tolist()) for i in range(len(row) - 2)} for row in (train_ids, ids)
    ]
    return _two()(train_ids, ids, V)[0], len(kinds[1] - kinds[0]) / len(kinds[1])


def _formula(factor: float = 1.0, share: bool = True) -> Any:
    """The slope by the formula of the notebook, times a factor."""

    def slope(logits: Tensor, ids: Tensor, i: int, j: int, epsilon: float = 1e-4) -> float:
        after = ids[1:][ids[:-1] == i]  # all that followed i
        counted = (after == j).double().sum() / max(len(after), 1)
        by_row = float(logits[i].softmax(0)[j] - counted)
        return factor * by_row * (len(after) / (len(ids) - 1) if share else 1)

    return slope


def _one_sided(logits: Tensor, ids: Tensor, i: int, j: int, epsilon: float = 1e-4) -> float:
    def loss(logits: Tensor) -> Tensor:
        return -logits.log_softmax(1)[ids[:-1], ids[1:]].mean()

    moved = logits.clone()
    moved[i, j] += epsilon
    return float(loss(moved) - loss(logits)) / epsilon


def _logits(V: int) -> Tensor:
    draw = torch.Generator().manual_seed(V)
    return 2 * torch.randn(V, V, generator=draw, dtype=torch.float64)


def _table(V: int) -> Tensor:
    return _logits(V).softmax(1)


BROKEN = """
def repaired(table: torch.Tensor, ids: torch.Tensor) -> float:
    p = table[ids[1:], ids[:-1]]
    return -p.mean().log2().item()
"""

EXERCISES = [
    Exercise(
        "03.smoothed",
        reference=(0.3, 0.2, 0.1),
        checked="(2 + 1) / (3 + 7), (1 + 1) / (3 + 7), and 1 / (3 + 7) for what was never seen",
        mistakes={
            "that is without smoothing: add one to each count": (2 / 3, 1 / 3, 0.0),
            "the row sums to more than one: its seven counts have each grown by one": (
                1.0,
                2 / 3,
                1 / 3,
            ),
            "the sum has grown by seven, not by one: each of seven counts by one": (
                3 / 4,
                2 / 4,
                1 / 4,
            ),
            "pairs never seen get one too, so the sum grows by seven": (3 / 5, 2 / 5, 0.0),
            "this line has 7 different characters, not 65": (3 / 68, 2 / 68, 1 / 68),
        },
        hints=(
            "The row of t: o twice, the space once, and five others never. Add one to each.",
            "Now its counts are 3, 2, 1, 1, 1, 1, 1. Divide by their sum.",
        ),
    ),
    Exercise(
        "03.surest",
        reference=_surest(),
        checked="the rows of least and most doubt, among those that are frequent enough",
        cases=[
            (torch.tensor([[4, 0], [2, 2]]), 1),
            (torch.tensor([[5, 5, 0], [1, 0, 0], [9, 1, 0]]), 10),
            (
                torch.tensor([[12, 2, 2, 2, 2], [5, 5, 0, 0, 0], [3, 3, 2, 2, 0]] + 2 * [5 * [0]]),
                9,
            ),
            (torch.tensor([[50, 50, 0], [9, 1, 0], [4, 3, 3]]), 10),
        ],
        mistakes={
            "a row of few counts only seems sure: leave it out": _surest(all_rows=True),
            "the largest probability is not the whole row: take -Σ p ln p": _surest(
                lambda counts: 1 - (counts / counts.sum(1, keepdim=True).clamp(min=1)).amax(1)
            ),
            "p are probabilities: divide each row by its sum first": _surest(
                lambda counts: -torch.xlogy(counts, counts.double()).sum(1)
            ),
            "the surest comes first: is the minus of -Σ p ln p there?": lambda counts, least: (
                _surest()(counts, least)[::-1]
            ),
        },
        hints=(
            "rows_to_probabilities(counts.double()) has the p.",
            "-torch.xlogy(p, p).sum(dim=1) is the doubt of each row.",
            "rows = [i for i in range(len(counts)) if counts[i].sum() >= least], and the min "
            "of these, with key=lambda i: doubt[i].",
        ),
    ),
    Exercise(
        "03.repaired",
        reference=_nats(),
        checked="the average of -ln p, over what came after each character",
        cases=[
            (torch.tensor([[0.5, 0.5], [0.25, 0.75]]), _ids("ab")),
            (torch.tensor([[0.5, 0.5], [0.25, 0.75]]), _ids("abba")),
            (_table(5), _ids("abcdeedcbaace")),
        ],
        mistakes={
            "; and ".join(FAULTS[fault] for fault in left): _nats(*left)
            for left in [*((fault,) for fault in FAULTS), *itertools.combinations(FAULTS, 2)]
        }
        | {
            "the sign is missing: a loss is positive": lambda table, ids: -_nats()(table, ids),
            "that is the sum: divide by the number of pairs": lambda table, ids: (
                (len(ids) - 1) * _nats()(table, ids)
            ),
        },
        hints=(
            "Compute it by hand for two characters: which entry of the table is asked for?",
            "What is the mean of -ln p for p = 1/2 and p = 1/4? And -ln of their mean?",
            "Rows are first characters, so ids[:-1] comes first; and a nat is made by log.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "03.backwards_loss",
        reference=_backwards(),
        checked="the loss of the table that knows the second character of a pair, in nats",
        cases=[
            (_ids("aba"), 2),
            (_ids("abac"), 3),
            (_ids("abbacab"), 4),
            (_ids("thequickbrownfoxjumpsoverthelazydogandthecat"), 26),
        ],
        mistakes={
            "that is the loss forwards: turn the counts, and only then divide the rows": (
                _backwards("first")
            ),
            "that is the loss of whole pairs: divide each row by its own sum": _backwards(
                "nothing"
            ),
            "that is the loss of single characters: use what comes after": _single,
            "that is in bits: take log, not log2": lambda ids, V: (
                _backwards()(ids, V) / math.log(2)
            ),
        },
        hints=(
            "Count the pairs as above. What does counts.T have in its rows?",
            "Read backwards, a text is ids.flip(0), and the character before comes next.",
            "table_loss(rows_to_probabilities(counts.double().T), ids.flip(0))",
        ),
    ),
    Exercise(
        "03.two_characters",
        reference=_two(),
        checked="the loss in nats, and the share of triples that are new",
        # In the cases, each row of few characters is in use: rows_to_probabilities divides by 1
        # at least, which a row of 0.1s alone may not reach.
        cases=[
            (_ids("aba"), _ids("aba"), 2),
            (_ids("abaab"), _ids("abb"), 2),
            (_ids("abcabcacbabb"), _ids("acacacabcb"), 3),
            (_ids("thecatandthedogandthecow"), _ids("thecowandthecat"), 26),
        ],
        mistakes={
            "it sees one character: the row is that of a pair": _two(seen=1),
            "the two characters have changed places: number them as they were counted": _two(
                order=-1
            ),
            "the rows no longer sum to one: each has V counts that grew by 0.1": _two(total="1"),
            "each row has V counts, not V * V": _two(total="V * V"),
            "1 was added to each count, not 0.1": _two(added=1.0),
            "it is measured on the training text: use `ids`": _two("train"),
            "each time that a new triple stands in the text counts": _distinct_unseen,
        },
        hints=(
            "A pair can be one number, first * V + second. And a triple?",
            "torch.bincount(triples, minlength=V**3).reshape(V * V, V): a row for each pair.",
            "Of `ids`, the row is ids[:-2] * V + ids[1:-1], and the column ids[2:].",
        ),
    ),
    Exercise(
        "03.slope",
        reference=_formula(),
        checked="the slope of the loss, as the formula gives it, to six digits",
        cases=[
            (torch.zeros(2, 2, dtype=torch.float64), _ids("ab"), 0, 0),
            (_logits(2), _ids("abba"), 0, 1),
            (_logits(3), _ids("abcacbba"), 1, 2),
            (_logits(3), _ids("abcacbba"), 2, 2),
            (_logits(4), _ids("abcabca"), 3, 1),
        ],
        mistakes={
            "it is twice as large: the two points are 2ε apart": _formula(2.0),
            "it is half as large: each move must begin at the same logits, so clone them": (
                lambda *given: _one_sided(*given) / 2
            ),
            "the sign is wrong: the loss at +ε less the loss at -ε": _formula(-1.0),
            "that is one side only, and off by about ε: move in both directions": _one_sided,
            "the share of the row is missing: the loss is a mean over all pairs": _formula(
                share=False
            ),
            "the two losses are the same: has the move reached the loss?": _formula(0.0),
        },
        hints=(
            "The loss of logits is table_loss(logits.softmax(dim=1), ids).",
            "moved = logits.clone(); moved[i, j] += epsilon; and another one with -epsilon.",
            "The slope is the difference of the two losses, divided by 2 * epsilon.",
        ),
        tolerance=1e-6,
    ),
]
