"""Notebook 04, attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.attention import CausalSelfAttention, attention, causal_mask
from llmkit.exercises.examining import Exercise
from llmkit.model import GPTConfig


def _fading(base: float = 0.5, masked: bool = True, backwards: bool = False, dim: int = 1) -> Any:
    """Weights that are multiplied by base with each step back; and what else comes of it."""

    def fading_weights(T: int) -> Tensor:
        place = torch.arange(T)
        steps = (place[:, None] - place).float()  # (T, T): how far back
        scores = math.log(base) * (-steps if backwards else steps)
        if masked:
            scores = scores.masked_fill(~causal_mask(T), -torch.inf)
        return scores.softmax(dim=dim)

    return fading_weights


def _layer(ahead: int, past: bool = True) -> type[CausalSelfAttention]:
    """An attention layer that may look so many positions ahead, or only there."""

    class Layer(CausalSelfAttention):
        def forward(self, x: Tensor, cache: Any = None) -> Tensor:
            B, T, C = x.shape
            q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
            seen = torch.ones(T, T, dtype=torch.bool).tril(ahead)
            if not past:
                seen &= ~torch.ones(T, T, dtype=torch.bool).tril(-1)
            out, _ = attention(q, k, v, mask=seen)
            return self.c_proj(out.transpose(1, 2).reshape(B, T, C))

    return Layer


def _outputs(kind: Any) -> Any:
    """What a layer of that kind makes of a text, from weights that are the same for all."""

    def forward(T: int) -> Tensor:
        torch.manual_seed(0)
        layer = kind(GPTConfig(vocab_size=5, block_size=8, n_head=2, n_embd=8))
        with torch.no_grad():
            return layer(torch.randn(1, T, 8))

    return forward


def _heads_without_transpose(x: Tensor, n_head: int) -> Tensor:
    B, T, C = x.shape
    return torch.stack([part.reshape(n_head, T, C // n_head) for part in x.reshape(B, -1)])


def _heads(x: Tensor, n_head: int) -> Tensor:
    return torch.stack(x.chunk(n_head, dim=2), dim=1)


def _one_query(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q[None], k, v)[0][0]


def _case(T: int, scale: float = 1.0) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(*size, generator=draw) for size in ((4,), (T, 4), (T, 2)))
    return q, k * scale, v


def _batch(*shape: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(len(shape))
    return tuple(torch.randn(*shape, generator=draw) for _ in "qkv")


def _attend(divisor: str = "D", dim: int = -1, late: bool = False, future: int = 1) -> Any:
    """Attention, and what is often made of it."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T, D = q.shape[-2:]
        scores = q @ k.mT / math.sqrt({"D": D, "T": T, "none": 1}[divisor])
        mask = torch.ones(T, T, dtype=torch.bool).triu(future)
        if late:
            return scores.softmax(dim).masked_fill(mask, 0.0) @ v
        return scores.masked_fill(mask, -torch.inf).softmax(dim).nan_to_num() @ v

    return attend


BROKEN = """
def repaired(q, k, v):
    T = q.size(-2)
    scores = q @ k.transpose(-2, -1) / math.sqrt(T)
    weights = scores.softmax(dim=-1)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    return weights.masked_fill(future, 0.0) @ v
"""
FADING = """
def fading_weights(T: int) -> torch.Tensor:
    scores = torch.zeros(T, T)
    return scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)
"""
OFF_BY_ONE = """
class OffByOne(llmkit.CausalSelfAttention):
    def forward(self, x, cache=None):
        return super().forward(x)
"""
HEADS = """
def split_heads_wrongly(x, n_head):
    return split_heads(x, n_head)
"""
ONE_BY_ONE = '''
def attend_in_one_pass(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q (D,), k (T, D), v (T, Dv) -> (Dv,)"""
    return v[0]
'''

EXERCISES = [
    Exercise(
        "04.mask_rows",
        reference=(1, 5, 15),
        checked="row 0 sees itself alone, row 4 five positions, and together they see 15",
        mistakes={
            "a position does see itself: count the diagonal too": (0, 4, 10),
            "that is every pair, without a mask": (5, 5, 25),
            "rows are counted from 0: the last of five is row 4": (1, 4, 10),
        },
        hints=(
            "Row t of the mask has True where position t may look: at 0, 1, ..., t.",
            "So row t has t + 1 of them. What is 1 + 2 + 3 + 4 + 5?",
        ),
    ),
    Exercise(
        "04.fading_weights",
        reference=_fading(),
        checked="each step back halves the weight, rows sum to one, nothing ahead is seen",
        cases=[(T,) for T in (1, 2, 3, 12)],
        mistakes={
            "the weights of a row are all alike: its scores must differ": _fading(1.0),
            "the oldest position gets the most: turn the sign of the scores": _fading(
                backwards=True
            ),
            "each step back divides by e, not by 2: scores that differ by ln 2 do": _fading(
                1 / math.e
            ),
            "positions ahead are seen: mask before softmax": _fading(masked=False),
            "softmax goes down the columns: each row must sum to one, so dim=1": _fading(dim=0),
        },
        hints=(
            "Softmax turns a difference of scores into a ratio of weights: e^(a - b).",
            "For a ratio of 1/2, the score must fall by ln 2 with each step back.",
            "torch.arange(T)[:, None] - torch.arange(T) is how far back each position lies.",
        ),
        stub=FADING,
    ),
    Exercise(
        "04.off_by_one",
        reference=_layer(1),
        checked="each position sees one position ahead of itself, and no further",
        cases=[(1,), (2,), (3,), (8,)],
        mistakes={
            "this layer does not look ahead: the mask must let position t see t + 1": _layer(0),
            "it sees two positions ahead: diagonal=2 of triu leaves one": _layer(2),
            "it sees all of the future": _layer(8),
            "it sees the present and the next position, but not the past": _layer(1, False),
        },
        hints=(
            "triu(diagonal=2) hides t + 2 and all after it. What is left of the future?",
            "Take `Unmasked`, with a mask that is True where a position may look.",
            "torch.ones(T, T, dtype=torch.bool).tril(diagonal=1) is that mask.",
        ),
        stub=OFF_BY_ONE,
        prepare=_outputs,
    ),
    Exercise(
        "04.split_heads_wrongly",
        reference=_heads_without_transpose,
        checked="(B, H, T, D) in shape; each head holds a stretch of the text, cut into rows",
        cases=[
            (torch.arange(4).view(1, 2, 2), 2),
            (torch.arange(24).view(1, 3, 8), 2),
            (torch.arange(48).view(2, 3, 8), 4),
        ],
        mistakes={
            "these are the right heads: leave the transpose out": _heads,
            "the shape is (B, T, H, D): name the heads before the positions": lambda x, n: (
                x.reshape(*x.shape[:2], n, -1)
            ),
            "the transpose comes too late, and mixes D and T": lambda x, n: x.reshape(
                x.size(0), n, -1, x.size(1)
            ).transpose(2, 3),
        },
        hints=(
            "`view` does not move numbers: it reads them in the order in which they lie.",
            "x.view(B, n_head, T, C // n_head), and nothing else.",
        ),
        stub=HEADS,
    ),
    Exercise(
        "04.repaired",
        reference=_attend(),
        checked="equal to llmkit.attention for one head and for several",
        cases=[_batch(1, 2), _batch(3, 4), _batch(2, 8, 4)],
        mistakes={
            "divided by √T still: the scores are sums of D products, so √D": _attend("T"),
            "not divided at all: by √D, or large D make sharp choices": _attend("none"),
            "masked after softmax: the rows no longer sum to one": _attend(late=True),
            "both faults are there: the divisor, and the mask after softmax": _attend(
                "T", late=True
            ),
            "softmax goes over the queries: each row must sum to one, so dim=-1": _attend(dim=-2),
            "a position does not see itself: diagonal=1 is the first to hide": _attend(future=0),
        },
        hints=(
            "Add up a row of `weights` after the mask. Is it 1?",
            "Which number says how many products a score is the sum of: T, or D?",
            "Mask the scores with -inf before softmax, and divide by the root of D.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "04.attend_in_one_pass",
        reference=_one_query,
        checked="equal to llmkit.attention, also where scores are in the hundreds",
        cases=[_case(1), _case(2), _case(3), _case(20), _case(20, 500.0)],
        mistakes={
            "every position weighs the same: use its score": lambda q, k, v: v.mean(0),
            "the scores are not divided by √D": lambda q, k, v: (k @ q).softmax(0) @ v,
            "only the largest score counts: sum over all positions": lambda q, k, v: v[
                (k @ q).argmax()
            ],
            "the sum of weights is missing: divide by it at the end": lambda q, k, v: (
                (k @ q / math.sqrt(len(q)) - (k @ q / math.sqrt(len(q))).max()).exp() @ v
            ),
        },
        hints=(
            "Start with largest = -inf, total = 0 and out = zeros; go over keys and values.",
            "When a larger score comes, both sums were taken relative to the old one: multiply "
            "them by e^(old - new).",
            "total = total * mend + w; out = out * mend + w * value; at the end out / total.",
        ),
        stub=ONE_BY_ONE,
    ),
]
