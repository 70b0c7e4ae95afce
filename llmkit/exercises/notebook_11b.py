"""Notebook 11b, a modern model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.attention import attention, causal_attention, causal_mask
from llmkit.exercises.examining import Exercise


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _heads(B: int, H: int, G: int, T: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, and fewer heads of keys and values."""
    return _draw(B, H, T, D), _draw(B, G, T, D, seed=1), _draw(B, G, T, D, seed=2)


def _layers(distance: int, window: int) -> int:
    """Found layer by layer, as far as each one reaches."""
    reached = layers = 0
    while reached < distance:
        if window == 1:
            return -1
        reached, layers = reached + window - 1, layers + 1
    return layers


def _needed(less: int = 1, up: bool = True, never: int = -1, first: int = 0) -> Any:
    """Layers by division, and what is often made of it."""

    def layers_needed(distance: int, window: int) -> int:
        step = window - less
        if distance == 0:
            return first
        if step == 0 or window == 1:
            return never
        return -(-distance // step) if up else distance // step

    return layers_needed


def _shared(order: str = "neighbours", causal: bool = True) -> Any:
    """Attention with keys and values copied for the heads that share them."""

    def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        times = q.size(1) // k.size(1)
        if order == "neighbours":
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        elif order == "keys alone":
            k, v = k.repeat_interleave(times, 1), v.repeat(1, times, 1, 1)
        elif order == "first":
            k, v = (part[:, :1].expand(-1, q.size(1), -1, -1) for part in (k, v))
        else:
            k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
        return attention(q, k, v, causal_mask(q.size(2)) if causal else None)[0]

    return shared_heads


def _base(turn: float = math.pi, slowest: int = 2) -> Any:
    def base_for(T: int, D: int) -> float:
        return (T / turn) ** (D / (D - slowest))

    return base_for


def _balance(times: str = "E", hard: str = "counts", mean: bool = True) -> Any:
    """The balance loss, and what is often made of it."""

    def balance_loss(scores: Tensor, K: int) -> Tensor:
        N, E = scores.shape
        p = scores.softmax(dim=-1)
        f = torch.zeros_like(p).scatter(1, p.topk(K).indices, 1.0).mean(dim=0)
        if hard == "first":
            f = torch.zeros_like(p).scatter(1, p.topk(1).indices, 1.0).mean(dim=0)
        if hard == "scores":
            return E * (f * scores.mean(dim=0)).sum()
        if hard == "none":
            f = p.mean(dim=0)
        if not mean:
            f = f * N
        return {"E": E, "1": 1, "E/K": E / K}[times] * (f * p.mean(dim=0)).sum()

    return balance_loss


SHARED = '''
def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, T, D), k and v (B, G, T, D) -> (B, H, T, D): head h of q uses head h // (H / G)."""
    times = q.size(1) // k.size(1)
    k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
    return llmkit.attention(q, k, v, llmkit.causal_mask(q.size(2)))[0]
'''

EXERCISES = [
    Exercise(
        "11b.smaller_cache",
        reference=[4, 6],
        checked="fewer heads of keys and values, and fewer positions; the others change neither",
        mistakes={
            "a window forgets keys and values, too": [4],
            "fewer heads of keys and values are less to keep, too": [6],
            "experts are feed-forward parts: they have no keys and values": [4, 6, 7],
            "a key that is normed is as long as before": [4, 5, 6],
            "a key that is turned is as long as before": [1, 4, 6],
        },
        hints=(
            "The cache has a key and a value for each token, layer and head of keys.",
            "Which change makes the heads of keys fewer? Which one makes the tokens fewer?",
        ),
    ),
    Exercise(
        "11b.billions_met",
        reference=12.88,
        checked="46.7 less 32 layers × 6 experts × 176 million is 12.9 billion",
        mistakes={
            "a quarter of all: but attention and embeddings are met by every token": 46.7 / 4,
            "two experts of seven billion: only the feed-forward parts are there eight times": 14.0,
            "that is without six experts in one layer: there are 32 layers": 46.7 - 6 * 0.176,
            "an expert has three matrices": 46.7 - 32 * 6 * 4096 * 14336 / 1e9,
            "in billions, please": 12.88e9,
        },
        hints=(
            "An expert has 3 × 4,096 × 14,336 numbers, about 176 million.",
            "In each of 32 layers a token passes six of them by: subtract those from 46.7.",
        ),
        tolerance=0.03,
    ),
    Exercise(
        "11b.layers_needed",
        reference=_layers,
        checked="each layer brings what stands window - 1 positions further back",
        cases=[(0, 1), (0, 4), (1, 2), (1, 1), (3, 4), (4, 4), (7, 4), (9, 2), (131_040, 4096)],
        mistakes={
            "the window holds the position itself: it reaches window - 1 back": _needed(less=0),
            "round up: a layer that is needed in part is needed": _needed(up=False),
            "the position itself needs no layer": _needed(first=1),
            "a window of 1 sees nothing else: the answer is -1": _needed(never=0),
        },
        hints=(
            "How far back does one layer see, if the position itself is one of the window?",
            "Each further layer adds as much: divide by window - 1, and round up.",
            "-(-a // b) is a / b rounded up.",
        ),
    ),
    Exercise(
        "11b.shared_heads",
        reference=causal_attention,
        checked="equal to PyTorch's: neighbouring heads of queries share a head of keys and values",
        cases=[_heads(1, 2, 1, 2, 2), _heads(1, 4, 2, 3, 4), _heads(2, 6, 3, 5, 4)],
        mistakes={
            "heads 0, 1, 2, 3 still take 0, 1, 0, 1: neighbours should share": _shared("tiled"),
            "the values must be copied in the same order as the keys": _shared("keys alone"),
            "all heads share the first now": _shared("first"),
            "a position sees what comes after it": _shared(causal=False),
        },
        hints=(
            "Print torch.tensor([0, 1]).repeat(2): which head of keys does head 1 of q get?",
            "It should be 0 0 1 1, not 0 1 0 1: repeat_interleave does that.",
        ),
        stub=SHARED,
    ),
    Exercise(
        "11b.base_for",
        reference=lambda T, D: math.exp(D / (D - 2) * math.log(T / math.pi)),
        checked="(T / π) to the power of D / (D - 2)",
        cases=[(16, 4), (64, 16), (2048, 64), (40_960, 128)],
        mistakes={
            "that is a whole turn, 2π": _base(turn=2 * math.pi),
            "the slowest pair is number D/2 - 1, not D/2: the exponent is (D - 2)/D": _base(
                slowest=0
            ),
            "that is one radian: half a turn is π": _base(turn=1.0),
            "upside down: to the power of D / (D - 2)": lambda T, D: (T / math.pi) ** ((D - 2) / D),
        },
        hints=(
            "Over T positions it turns by T · base^(-(D - 2)/D). Let that be π.",
            "So base^((D - 2)/D) = T / π. Take both sides to the power of D / (D - 2).",
        ),
    ),
    Exercise(
        "11b.balance_loss",
        reference=_balance(),
        checked="equal to that of transformers: K where all is even, more where few do the work",
        cases=[
            (_draw(1, 2), 1),
            (_draw(3, 4), 1),
            (_draw(5, 4), 2),
            (_draw(6, 5) + torch.tensor([4.0, 3.0, 0.0, 0.0, 0.0]), 2),
            (3 * _draw(7, 8), 3),
        ],
        mistakes={
            "it is not multiplied by the number of experts": _balance(times="1"),
            "all K choices of a token count, not its first alone": _balance(hard="first"),
            "P is the mean of probabilities, not of scores: softmax first": _balance(hard="scores"),
            "f counts choices: it is no mean of probabilities": _balance(hard="none"),
            "f is a mean over tokens: divide the counts by N": _balance(mean=False),
            "f sums to K: it is not divided by K as well": _balance(times="E/K"),
        },
        hints=(
            "scores.softmax(dim=-1) are the router's probabilities; their mean over tokens is P.",
            ".topk(K).indices are the choices, (N, K). torch.bincount counts them by expert.",
            "f is the counts divided by N, and sums to K. E · (f · P).sum() is the loss.",
        ),
    ),
]
