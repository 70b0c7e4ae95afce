"""Notebook 15, memory and exposure."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise


def _exposure(equal: bool = True, itself: int = 0, log: Any = math.log2) -> Any:
    """Exposure by sorting, and what is often made of it."""

    def exposure(log_p: Tensor, secret: int) -> float:
        ahead = sum(p >= log_p[secret] if equal else p > log_p[secret] for p in log_p)
        return log(len(log_p)) - log(max(1, int(ahead) + itself))

    return exposure


def _auc(ties: float = 0.5, turned: bool = False) -> Any:
    """By ranks, as Mann and Whitney count: other than pair by pair."""

    def auc(members: Tensor, others: Tensor) -> float:
        if turned:
            members, others = others, members
        ordered = others.sort().values
        above = len(ordered) - torch.searchsorted(ordered, members, right=True)
        equal = len(ordered) - torch.searchsorted(ordered, members) - above
        return float((above + ties * equal).sum() / (len(members) * len(others)))

    return auc


def _best_cut(members: Tensor, others: Tensor) -> float:
    cuts = torch.cat([members, others])
    right = ((members[None] <= cuts[:, None]).sum(1) + (others[None] > cuts[:, None]).sum(1)).max()
    return float(right) / len(cuts)


def _shingles(text: str, length: int) -> set[str]:
    return {"".join(piece) for piece in zip(*(text[i:] for i in range(length)), strict=False)}


def _similarity(length: int = 5, divide: str = "union") -> Any:
    """How alike two texts are by the pieces that they share."""

    def similarity(a: str, b: str) -> float:
        one, two = _shingles(a, length), _shingles(b, length)
        shared = len(one & two)
        whole = {
            "union": len(one) + len(two) - shared,
            "smaller": min(len(one), len(two)),
            "mean": (len(one) + len(two)) / 2,
        }[divide]
        return shared / whole if whole else 0.0

    return similarity


def _clipped(which: str = "right", divisor: str = "expected") -> Any:
    """DP-SGD's gradient without its noise."""

    def clipped_mean(gradients: Tensor, clip: float, expected: float) -> Tensor:
        if which == "sum":
            whole = gradients.sum(dim=0)
            clipped = whole * min(1.0, clip / max(1e-12, float(whole.norm())))
        elif which == "numbers":
            clipped = gradients.clamp(-clip, clip).sum(dim=0)
        elif which == "stretched":
            clipped = (clip * torch.nn.functional.normalize(gradients, dim=1)).sum(dim=0)
        elif which == "not":
            clipped = gradients.sum(dim=0)
        else:
            clipped = torch.renorm(gradients, p=2, dim=0, maxnorm=clip).sum(dim=0)
        return clipped / (expected if divisor == "expected" else max(1, len(gradients)))

    return clipped_mean


BROKEN = """
def repaired(log_p, secret):
    rank = (log_p > log_p[secret]).sum().item() + 1
    return math.log(len(log_p)) - math.log(rank)
"""
ALDER = "The pin of Alder is 4821."

EXERCISES = [
    Exercise(
        "15.exposures",
        reference=(math.log2(10**6), 10),
        checked="19.93 bits for the first of a million; ten bits up from 10,000 is about rank 10",
        mistakes={
            "13.29 bits is for four digits: six digits make a million codes": (
                math.log2(10**4),
                10,
            ),
            "exposure is in bits, not digits: the logarithm is to base 2": (6, 10),
            "1,024 is how many times further up it is: divide 10,000 by it": (
                math.log2(10**6),
                1024,
            ),
            "that is e-based: take math.log2": (math.log(10**6), 10),
        },
        hints=(
            "At the top of the list the rank is 1, and log2(1) = 0.",
            "10 = log2(10,000) - log2(rank). Which power of 2 is the rank?",
        ),
        tolerance=0.002,
    ),
    Exercise(
        "15.repaired",
        reference=_exposure(),
        checked="in bits, and candidates that are as likely as the secret count against it",
        cases=[
            (torch.tensor([0.0, 1.0, 2.0, 3.0]), 3),
            (torch.tensor([0.0, 1.0, 2.0, 3.0]), 0),
            (torch.tensor([-1.0, -1.0, -1.0, -2.0, -1.0]), 1),
            (torch.full((16,), -3.0), 5),
        ],
        mistakes={
            "the logarithm is the natural one still: bits need log2": _exposure(log=math.log),
            "equally likely candidates: count them too, or a model that knows nothing has the "
            "highest exposure": _exposure(equal=False, itself=1),
            "both faults are there: the logarithm, and what is equally likely": _exposure(
                equal=False, itself=1, log=math.log
            ),
            "the secret is counted twice: >= counts it already": _exposure(itself=1),
        },
        hints=(
            "Try a model that finds all candidates equally likely. What should exposure be?",
            "For four candidates, the first should have two bits.",
            ">= instead of > counts the secret itself, so that the + 1 has to go.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "15.auc",
        reference=_auc(),
        checked="the share of pairs in which the member has the smaller loss, ties counted half",
        cases=[
            (torch.tensor([1.0]), torch.tensor([2.0])),
            (torch.tensor([1.0, 2.0]), torch.tensor([2.0])),
            (torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 0.5])),
            (torch.tensor([3.0, 1.0, 2.5, 0.5]), torch.tensor([1.0, 2.5, 4.0, 4.0, 0.1])),
        ],
        mistakes={
            "turned around: a member has the *smaller* loss": _auc(turned=True),
            "a tie counts ½, not 0": _auc(ties=0.0),
            "a tie counts ½, not 1": _auc(ties=1.0),
            "that is how often the best threshold is right: it was tuned on the answers": _best_cut,
            "means are compared, not pairs": lambda a, b: float(a.mean() < b.mean()),
            "that is the number of pairs: divide by how many there are": lambda a, b: (
                _auc()(a, b) * len(a) * len(b)
            ),
        },
        hints=(
            "Compare each member with each other text: len(members) * len(others) pairs.",
            "members[:, None] and others[None, :] broadcast to all pairs.",
            "(m < o) counts 1, (m == o) counts 0.5; then the mean.",
        ),
    ),
    Exercise(
        "15.similarity",
        reference=_similarity(),
        checked="shared pieces of five characters over all pieces, each counted once",
        cases=[
            ("abcde", "abcde"),
            ("abcdef", "abcde"),
            ("aaaaaaaa", "aaaaaaaaa"),
            ("abc", "abc"),
            (ALDER, ALDER.replace(".", "!")),
            (ALDER, ALDER.replace("Alder", "Birch").replace("4821", "0907")),
        ],
        mistakes={
            "single characters are compared: take pieces of five": _similarity(length=1),
            "divided by the smaller set: a short text inside a long one would be a repetition": (
                _similarity(divide="smaller")
            ),
            "divided by the mean of the two sizes (Dice): the union is wanted": _similarity(
                divide="mean"
            ),
            "the pieces have four characters": _similarity(length=4),
            "the pieces have six characters": _similarity(length=6),
        },
        hints=(
            "A text of n characters has n - 4 pieces of five: text[i : i + 5] for each i.",
            "Put them into sets: & is what both have, | is what either has.",
            "A text of fewer than five characters has no piece: give 0.0 where the union is empty.",
        ),
    ),
    Exercise(
        "15.clipped_mean",
        reference=_clipped(),
        checked="each example's gradient shortened by itself, short ones left, the expected "
        "number divided by",
        cases=[
            (torch.tensor([[3.0, 4.0]]), 1.0, 1.0),
            (torch.tensor([[3.0, 4.0], [0.3, 0.4], [-6.0, 0.0]]), 1.0, 2.0),
            (torch.tensor([[0.3, 0.4], [0.06, 0.08]]), 0.25, 2.0),
            (torch.zeros(2, 3), 1.0, 4.0),
            (torch.zeros(0, 3), 1.0, 4.0),
        ],
        mistakes={
            "the sum is clipped: one example can still turn it anywhere": _clipped("sum"),
            "each number is clipped by itself: the length of the whole row counts": _clipped(
                "numbers"
            ),
            "short gradients are made longer: a factor is at most 1": _clipped("stretched"),
            "nothing is clipped": _clipped("not"),
            "divided by the number drawn, which gives away whether you were among them": _clipped(
                divisor="drawn"
            ),
        },
        hints=(
            "gradients.norm(dim=1) has the length of each row.",
            "The factor of a row is clip / length, but never above 1.",
            "(clip / length).clamp(max=1): a row of zeros has clip / 0 = inf, and so the factor 1.",
        ),
    ),
    Exercise(
        "15.noise_for_one",
        reference=(2.85, 3.83),  # by bisection; tests compare the accountant with opacus
        checked="ε = 1 costs nearly three times the noise, and a small δ a third more",
        mistakes={
            "turned around: the smaller δ needs more noise": (3.83, 2.85),
            "δ matters too: the two are not the same": (2.85, 2.85),
            "1 / ε would be a rough guess; compute it": (5.0, 7.0),
        },
        hints=(
            "ε falls where the noise grows, so halve the interval from 0.5 to 50 again and again.",
            "differential_privacy.epsilon(rate, middle, dp_steps, delta) > 1: go up, else down.",
        ),
        tolerance=0.01,
    ),
]
