"""Notebook 12, LoRA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.exercises.examining import Exercise

C, LAYERS, RANK = 768, 12, 8  # GPT-2's width and depth
SIDES = ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C))  # in and out of a block's linear layers


def _merged(scale: str = "α/r", order: str = "BA") -> Any:
    def merged(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
        r = A.size(0)
        by = {"α/r": alpha / r, "1": 1.0, "α": alpha, "α/in": alpha / A.size(1)}[scale]
        update = torch.einsum("or,ri->oi", B, A)
        if order == "turned":
            update = update.reshape(W.size(1), W.size(0)).T
        return W + by * update

    return merged


def _pairs(power: int = 2, more: int = 0, over: bool = True) -> Any:
    """How many singular values hold a share; and what else one may count."""

    def pairs_needed(change: Tensor, share: float) -> int:
        held = torch.linalg.svdvals(change.double()) ** power
        wanted, reached = share * held.sum().item() - 1e-9, 0.0
        for number, one in enumerate(held.tolist(), 1):
            reached += one
            if reached >= wanted:
                return number + more if over else number - 1
        return len(held)

    return pairs_needed


def _adapted(scale_all: bool = False, by: str = "r", swap: bool = False) -> Any:
    def repaired(x: Tensor, W: Tensor, b: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
        scale = alpha / {"r": A.size(0), "in": A.size(1)}[by]
        low = F.linear(F.linear(x, A), B)
        if scale_all:
            return (F.linear(x, W, b) + low) * scale
        return F.linear(x, W, b) + low * (scale if not swap else 1 / scale)

    return repaired


def _both(share: float = 0.5, apart: bool = True, halves: int = 1) -> Any:
    """Half the sum of two updates as one adapter; apart=False: A and B averaged by themselves."""

    def both(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> tuple[Tensor, Tensor]:
        if not apart:
            return (A1 + A2) / 2, (B1 + B2) / 2
        return torch.cat([A1, A2]) * (share if halves == 2 else 1), torch.cat([B1, B2], 1) * share

    return both


def _product(both: Any) -> Any:
    """What an adapter adds, whichever A and B it is made of."""

    def update(*matrices: Tensor) -> Any:
        found = both(*matrices)
        if found is None:
            return None
        A, B = found
        return B @ A

    return update


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(len(shapes) + shapes[0][0])
    return tuple(torch.randn(*shape, generator=draw) for shape in shapes)


BROKEN = """
def repaired(x, W, b, A, B, alpha):
    scale = alpha / A.size(1)
    return (x @ W.T + b + x @ A.T @ B.T) * scale
"""

EXERCISES = [
    Exercise(
        "12.adapter_parameters",
        reference=LAYERS * sum(RANK * (i + o) for i, o in SIDES),
        checked="r (in + out) for each layer: less than one percent of GPT-2",
        mistakes={
            "that is c_attn alone: there are four linear layers in a block": LAYERS * RANK * 4 * C,
            "that is one block: there are twelve": sum(RANK * (i + o) for i, o in SIDES),
            "those are the layers' own weights: A and B are r × in and out × r": LAYERS
            * sum(i * o for i, o in SIDES),
        },
        hints=(
            "A has r × in numbers, B out × r: r (in + out) together.",
            "The four layers of a block lead from 768 to 2304, 768 to 768, 768 to 3072 and back.",
        ),
    ),
    Exercise(
        "12.alive",
        reference=("B", "A", "", "AB"),
        checked="each matrix's gradient is a product with the other one: at zero, that kills it",
        mistakes={
            "the other way round: where B is zero it is A whose gradient is zero": (
                "A",
                "B",
                "",
                "AB",
            ),
            "a gradient that passes through a zero matrix is zero": ("AB", "AB", "AB", "AB"),
            "with both at zero nothing ever moves": ("B", "A", "AB", "AB"),
        },
        hints=(
            "y = W x + B (A x). The gradient of B is made of A x and the loss's gradient; A's "
            "of x and the loss's gradient, sent back through B.",
            "With A random and B zero, A x is something, so B moves; what comes back through B is "
            "zero, so A does not (in the first step).",
        ),
    ),
    Exercise(
        "12.merged",
        reference=_merged(),
        cases=[
            (*_random((2, 2), (1, 2), (2, 1)), 2.0),
            (*_random((6, 4), (2, 4), (6, 2)), 8.0),
            (*_random((4, 6), (3, 6), (4, 3)), 3.0),
        ],
        checked="one matrix of the shape of W, and no detour any more",
        mistakes={
            "the factor α/r is missing": _merged("1"),
            "divide α by the rank": _merged("α"),
            "the rank is A's first size, not its second": _merged("α/in"),
        },
        hints=(
            "What does the layer add to W x? Take x out.",
            "B (out × r) times A (r × in) is out × in, as W is. The rank is A.size(0).",
        ),
    ),
    Exercise(
        "12.pairs_needed",
        reference=_pairs(),
        cases=[
            (torch.tensor([[2.0]]), 1.0),
            (torch.diag(torch.tensor([3.0, 1.0])), 0.85),
            (torch.diag(torch.tensor([3.0, 1.0])), 0.95),
            (torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])), 0.8),
            (*_random((6, 5)), 0.5),
        ],
        checked="the squares of the singular values add up to the sum of all squared numbers",
        mistakes={
            "it is the squares of the singular values that are to be added": _pairs(power=1),
            "one too many": _pairs(more=1),
            "one too few: the last pair is needed to reach the share": _pairs(over=False),
        },
        hints=(
            "torch.linalg.svdvals(change) gives the singular values, the largest first.",
            "cumsum of their squares, divided by the sum: at which number does it reach the share?",
        ),
    ),
    Exercise(
        "12.repaired",
        reference=_adapted(),
        cases=[
            (*_random((1, 2), (2, 2), (2,), (1, 2), (2, 1)), 1.0),
            (*_random((3, 4), (6, 4), (6,), (2, 4), (6, 2)), 8.0),
        ],
        checked="the factor is α over the rank, and multiplies the detour alone",
        mistakes={
            "W x + b is multiplied too": _adapted(scale_all=True),
            "α is still divided by the width of x, not by the rank": _adapted(by="in"),
            "W x + b is multiplied, and by the wrong factor: nothing is repaired yet": _adapted(
                scale_all=True, by="in"
            ),
            "α is to be divided by the rank, not the rank by α": _adapted(swap=True),
        },
        hints=(
            "With B at zero the layer must give what it gave before. Does it?",
            "A is (r, in). Which of its sizes is the rank?",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "12.both",
        reference=_both(),
        prepare=_product,
        cases=[
            _random((1, 2), (2, 1), (1, 2), (2, 1)),
            _random((2, 5), (3, 2), (2, 5), (3, 2)),
        ],
        checked="rank 2r holds both: side by side they do not disturb each other",
        mistakes={
            "averaged A times averaged B has cross terms, A₁ with B₂": _both(apart=False),
            "that is the whole sum: take half of each": _both(share=1.0),
            "halved twice, in A and in B: that is a quarter": _both(halves=2),
        },
        hints=(
            "B₁A₁ + B₂A₂ is one product of larger matrices: which stand side by side, and which "
            "one below the other?",
            "A = torch.cat([A1, A2]) is (2r, in). B must be (out, 2r), and half as large.",
        ),
    ),
]
