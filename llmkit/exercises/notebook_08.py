"""Notebook 08, generation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise
from llmkit.ngram import NeuralBigram


def _min_p(p: Tensor, m: float) -> Tensor:
    kept = [x if x >= m * max(p.tolist()) else 0.0 for x in p.tolist()]
    return torch.tensor([x / sum(kept) for x in kept])


def _temperature(p: Tensor, temperature: float) -> Tensor:
    powers = [x ** (1 / temperature) for x in p.tolist()]
    return torch.tensor([x / sum(powers) for x in powers], dtype=p.dtype)


def _penalty(
    negative: str = "times", each: bool = False, others: bool = False, spoils: bool = False
) -> Any:
    """The penalty with faults of its own: what it does to negative scores; whether it counts how
    often, lowers all the others, changes the scores that it was given."""

    def penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
        lowered = scores if spoils else scores.clone()
        used = set(range(len(scores))) - set(ids.tolist()) if others else set(ids.tolist())
        for i in ids.tolist() if each else used:
            divide = lowered[i] > 0 or negative == "divided"
            if divide or negative != "left":
                lowered[i] = lowered[i] / penalty if divide else lowered[i] * penalty
        return lowered

    return penalised


def _with_the_scores(function: Any) -> Any:
    """Returns also what has become of the scores that the function was given."""

    def both(scores: Tensor, ids: Tensor, penalty: float) -> Any:
        result = function(scores, ids, penalty)
        return None if result is None else (result, scores)

    return both


def _cut(p: Tensor, keep: Tensor) -> Tensor:
    kept = p * keep
    return kept / kept.sum()


def _draw(p: Tensor, u: float) -> int:
    dart, reached = u * p.cumsum(0)[-1].item(), 0.0
    for i, share in enumerate(p.tolist()):
        reached += share
        if dart < reached:
            return i
    raise AssertionError("u must be below 1")


def _probabilities(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64)


class _Table(NeuralBigram):
    """A model that sees all tokens: their sum, each times its position, chooses the table's row."""

    def __init__(self, rows: Any):
        super().__init__(len(rows))
        with torch.no_grad():
            self.table.weight.copy_(torch.as_tensor(rows))

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.size(-1)).clamp(min=1)
        return super().forward((ids * places).cumsum(-1) % len(self.table.weight))

    def __repr__(self) -> str:
        return f"a small model of {len(self.table.weight)} tokens"


def _random_table(V: int) -> _Table:
    draw = torch.Generator().manual_seed(V)
    return _Table(2 * torch.randn(V, V, generator=draw) + torch.randn(V, 1, generator=draw))


def _beam(
    width: int | None = None,
    summed: bool = True,
    normalised: bool = True,
    worst: bool = False,
    reads: int = 0,
) -> Any:
    """Beam search over lists, and what is often made of it."""

    def beam_search(model: Any, ids: Tensor, new: int, w: int) -> tuple[Tensor, float]:
        beams = [(0.0, ids.tolist())]
        for _ in range(new):
            ways = []
            for total, text in beams:
                scores = model(torch.tensor([text[-reads:]]))[0, -1].detach()  # (V,)
                costs = -(scores.log_softmax(-1) if normalised else scores)
                before = total if summed else 0.0
                ways += [(before + cost, [*text, i]) for i, cost in enumerate(costs.tolist())]
            beams = sorted(ways, reverse=worst)[: width or w]
        return torch.tensor(beams[0][1]), beams[0][0]

    return beam_search


BROKEN_DRAW = """
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    return int((heights < u).sum())
"""
BROKEN_PENALTY = """
def penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    '''Scores (V,), less for every token that occurs in ids (N,): (V,).'''
    used = ids.unique()
    scores[used] /= penalty
    return scores
"""
_TWO_WAYS = _Table(torch.tensor([[0.01, 0.59, 0.4], [0.3, 0.34, 0.36], [0.9, 0.04, 0.06]]).log())

EXERCISES = [
    Exercise(
        "08.by_hand",
        reference=([2 / 3, 1 / 6, 1 / 6], [2 / 3, 1 / 3, 0.0]),
        checked="τ = 1/2 squares the ratios; top-p keeps the fewest that have enough",
        mistakes={
            "that is temperature 2: τ = 1/2 squares each probability": (
                [0.4142, 0.2929, 0.2929],
                [2 / 3, 1 / 3, 0.0],
            ),
            "the squares must sum to one again: divide them by their sum": (
                [1 / 4, 1 / 16, 1 / 16],
                [2 / 3, 1 / 3, 0.0],
            ),
            "scores are divided by τ, not probabilities: p / τ, made to sum to one, is p": (
                [1 / 2, 1 / 4, 1 / 4],
                [2 / 3, 1 / 3, 0.0],
            ),
            "the first has 1/2, which is less than 0.6: the next one is needed too": (
                [2 / 3, 1 / 6, 1 / 6],
                [1.0, 0.0, 0.0],
            ),
            "what is kept must sum to one again: divide it by its sum": (
                [2 / 3, 1 / 6, 1 / 6],
                [1 / 2, 1 / 4, 0.0],
            ),
            "the first two have 3/4, which is enough: the third goes, though it equals the "
            "second": ([2 / 3, 1 / 6, 1 / 6], [1 / 2, 1 / 4, 1 / 4]),
        },
        hints=(
            "The ratio of the first two is 2 : 1. τ = 1/2 squares it.",
            "Three numbers in the ratio 4 : 1 : 1 that sum to one.",
            "Top-p goes from the likeliest down, and stops as soon as it has 0.6; then divide "
            "by what it has.",
        ),
        tolerance=0.004,  # 0.67 is 2/3
    ),
    Exercise(
        "08.change_temperature",
        reference=_temperature,
        checked="every ratio becomes its 1/temperature-th power, and the sum stays one",
        cases=[
            (_probabilities(0.5, 0.3, 0.2), 0.5),
            (_probabilities(0.75, 0.25), 1.0),
            (_probabilities(0.64, 0.16, 0.2), 2.0),
            (_probabilities(0.5, 0.0, 0.5), 0.25),
        ],
        mistakes={
            "p / temperature, made to sum to one, is p again: divide the scores, of which ln p is "
            "one": lambda p, temperature: p / temperature / (p / temperature).sum(),
            "softmax wants scores, and p is none: ln p is": (
                lambda p, temperature: (p / temperature).softmax(-1)
            ),
            "the power is 1 / temperature: at 1/2 the ratios are squared": (
                lambda p, temperature: _cut(p**temperature, p > 0)
            ),
            "the powers must sum to one again: divide by their sum": (
                lambda p, temperature: p ** (1 / temperature)
            ),
        },
        hints=(
            "The scores differ from ln p by the same number for all tokens. Does softmax see that?",
            "Softmax of ln p / temperature; or powers of p, divided by their sum.",
        ),
    ),
    Exercise(
        "08.min_p",
        reference=_min_p,
        checked="keeps what has a share m of the likeliest, equal ones too, and sums to one",
        cases=[
            (torch.tensor([0.75, 0.25]), 0.5),
            (torch.tensor([0.5, 0.25, 0.25]), 0.5),
            (torch.tensor([1.0, 2.5, 1.5, 0.5, -1.0]).softmax(-1), 0.2),
            (torch.tensor([0.125, 0.125, 0.25, 0.5]), 0.0),
            (torch.tensor([0.125, 0.125, 0.25, 0.5]), 1.0),
        ],
        mistakes={
            "what is kept must sum to one again": lambda p, m: p * (p >= m * p.max()),
            "m is a share of the likeliest one's probability, not a probability": (
                lambda p, m: _cut(p, p >= m).nan_to_num()
            ),
            "one that has exactly the share stays: at least means >=": (
                lambda p, m: _cut(p, p > m * p.max()).nan_to_num()
            ),
            "compare with the largest probability, not with the mean": lambda p, m: _cut(
                p, p >= m * p.mean()
            ),
            "that keeps the unlikely ones": lambda p, m: _cut(p, p < m * p.max()).nan_to_num(),
            "dividing by the sum keeps the ratios, another softmax does not": lambda p, m: (
                p.masked_fill(p < m * p.max(), -math.inf).softmax(-1)
            ),
        },
        hints=(
            "p.max() is the likeliest one's probability. Which p are at least m times that?",
            "p.where(condition, 0) keeps some; then divide by the sum, as top_k does.",
        ),
    ),
    Exercise(
        "08.draw",
        reference=_draw,
        checked="every id as often as its p says; none of p = 0, none beyond the last",
        cases=[
            (_probabilities(1.0), 0.0),
            (_probabilities(0.0, 1.0), 0.0),
            (_probabilities(0.5, 0.5), 0.5),
            (_probabilities(0.5, 0.5), 0.4),
            (_probabilities(0.25, 0.5, 0.0, 0.25), 0.75),
            (_probabilities(0.25, 0.5, 0.0, 0.25), 0.2),
            (_probabilities(0.5, 0.25, 0.25 - 1e-7), 1 - 1e-9),
            (_probabilities(0.5, 0.25, 0.25 - 1e-7, 0.0), 1 - 1e-9),
        ],
        mistakes={
            "with u = 0 it draws an id of probability 0: a height equal to the dart is passed, "
            "so <=": lambda p, u: int((p.cumsum(-1) < u * p.sum()).sum()),
            "p sums to one only up to rounding, and u may lie above the last height: then that "
            "is no id of the vocabulary": lambda p, u: int((p.cumsum(-1) <= u).sum()),
            "the last id may have probability 0: throw the dart at u times the last height": (
                lambda p, u: min(int((p.cumsum(-1) <= u).sum()), len(p) - 1)
            ),
            "one too many: the number of heights below the dart is the id": (
                lambda p, u: int((p.cumsum(-1) <= u * p.sum()).sum()) + 1
            ),
            "that is greedy: u has no part in it": lambda p, u: int(p.argmax()),
            "that is the id whose p is nearest to u: ask in which stretch of the cumulative "
            "sum u falls": lambda p, u: int((p - u).abs().argmin()),
        },
        hints=(
            "Try draw(torch.tensor([0.0, 1.0]), 0.0): may that id be drawn?",
            "Rounding may leave heights[-1] at 0.9999999. What comes of u = 0.99999995?",
            "Stretch u: the dart u * heights[-1] lies below the last height. Count the heights "
            "that are not above the dart.",
        ),
        stub=BROKEN_DRAW,
    ),
    Exercise(
        "08.penalised",
        reference=_penalty(),
        checked="whatever was used has a lower score, once, and the caller's scores are as before",
        cases=[
            (torch.tensor([2.0, 1.0]), torch.tensor([0]), 2.0),
            (torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1]), 2.0),
            (torch.tensor([2.4, -1.2, 0.0, -3.0]), torch.tensor([0, 1, 0, 2, 0]), 1.2),
            (torch.tensor([-1.0, -2.0, 1.0]), torch.tensor([0, 1, 2, 1]), 1.0),
        ],
        mistakes={
            "a negative score that is divided comes nearer to 0, and so rises: multiply it": (
                _penalty("divided")
            ),
            "a negative score that is divided comes nearer to 0, and so rises; and the scores that "
            "were given are changed: work on a copy": _penalty("divided", spoils=True),
            "the scores are right, but those that were given are changed: work on a copy": (
                _penalty(spoils=True)
            ),
            "once, however often a token was used": _penalty(each=True),
            "a negative score is to be lowered too: multiply it": _penalty("left"),
            "those that were used are to lose, not the others": _penalty(others=True),
        },
        hints=(
            "What is -1 / 1.2? Is the token more or less likely than with -1?",
            "Divide where the score is positive, multiply where it is negative; in both cases that "
            "is the smaller of the two.",
            "scores[used] = ... changes the tensor that the caller holds. scores.clone() is yours.",
        ),
        stub=BROKEN_PENALTY,
        prepare=_with_the_scores,
    ),
    Exercise(
        "08.beam_search",
        reference=_beam(),
        checked="the likeliest of the texts it kept, and its surprise, for every width",
        cases=[
            (_TWO_WAYS, torch.tensor([0]), 1, 1),
            (_TWO_WAYS, torch.tensor([0]), 2, 1),
            (_TWO_WAYS, torch.tensor([0]), 2, 2),
            (_random_table(3), torch.tensor([1, 2]), 4, 9),
            (_random_table(5), torch.tensor([4, 0, 2]), 6, 3),
            (_random_table(8), torch.tensor([7]), 10, 4),
        ],
        mistakes={
            "that is greedy: keep `width` texts, and let each go on": _beam(width=1),
            "a text's surprise is the sum over its characters, not that of the last": _beam(
                summed=False
            ),
            "scores are no logarithms of probabilities yet: log_softmax": _beam(normalised=False),
            "that keeps the least likely: topk takes the largest unless told otherwise": _beam(
                worst=True
            ),
            "width 2 is not for every call: use `width`": _beam(width=2),
            "the model is asked about the last token alone: give it the whole text": _beam(reads=1),
        },
        hints=(
            "Keep beams (B, T), which start as ids[None], and their surprise so far, (B,).",
            "totals[:, None] - log_softmax is (B, V): what each way to go on would cost.",
            "flatten() it and take topk with largest=False; of an index i there, i // V is the "
            "beam and i % V the token.",
        ),
    ),
]
