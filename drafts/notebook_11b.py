"""Notebook 11b, a modern model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.attention import causal_attention, causal_mask
from llmkit.exercises.examining import Exercise


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _rms(mean: bool = True, off: bool = False, root: bool = True, gain: bool = True) -> Any:
    """RMSNorm, and what is often made of it."""

    def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
        x = x - x.mean(dim=-1, keepdim=True) if off else x
        square = x.pow(2).mean(-1, keepdim=True) if mean else x.pow(2).sum(-1, keepdim=True)
        scale = (square + 1e-5).sqrt() if root else square + 1e-5
        return x / scale * (weight if gain else 1)

    return rms_norm


def _swiglu(act: Any = F.silu, swapped: bool = False, added: bool = False) -> Any:
    def swiglu(x: Tensor, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
        gate, up = (W2, W1) if swapped else (W1, W2)
        gate, up = act(x @ gate.T), x @ up.T
        return (gate + up if added else gate * up) @ W3.T

    return swiglu


def _cache(both: int = 2, heads: str = "kv", layers: bool = True, width: int = 2) -> Any:
    def cache_bytes(T: int, n_layer: int, n_head: int, n_kv_head: int, head_size: int) -> int:
        return both * (n_layer if layers else 1) * T * head_size * width * (
            n_kv_head if heads == "kv" else n_head
        )

    return cache_bytes


def _grouped(tiled: bool = False, scale: bool = True, causal: bool = True) -> Any:
    def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        times = q.size(1) // k.size(1)
        if tiled:
            k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
        else:
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        scores = q @ k.mT / (q.size(-1) ** 0.5 if scale else 1)
        if causal:
            scores = scores.masked_fill(~causal_mask(q.size(2)), -torch.inf)
        return scores.softmax(-1) @ v

    return grouped


def _window(extra: int = 0, causal: bool = True) -> Any:
    def window_mask(T: int, window: int) -> Tensor:
        near = torch.ones(T, T, dtype=torch.bool).triu(1 - window - extra)
        return near & causal_mask(T) if causal else near

    return window_mask


def _route(renormal: bool = True, first: bool = False, lowest: bool = False) -> Any:
    """Shares and experts of each token."""

    def route(scores: Tensor, n_active: int) -> tuple[Tensor, Tensor]:
        if first:  # softmax after the choice is the same as before it and divided by the sum
            best, chosen = scores.topk(n_active)
            return best.softmax(-1), chosen
        p, chosen = scores.softmax(-1).topk(n_active, largest=not lowest)
        return (p / p.sum(-1, keepdim=True) if renormal else p), chosen

    return route


EXERCISES = [
    Exercise(
        "11b.rms_norm",
        reference=_rms(),
        checked="equal to PyTorch's RMSNorm, for vectors in any number of dimensions",
        cases=[(_draw(4), torch.ones(4)), (_draw(2, 3), _draw(3)), (9 * _draw(2, 3, 8) + 2, _draw(8))],
        mistakes={
            "that is a layer norm: the mean stays where it is": _rms(off=True),
            "the squares are summed: take their mean": _rms(mean=False),
            "it is divided by the mean square: take the root": _rms(root=False),
            "the gain is missing": _rms(gain=False),
        },
        hints=(
            "x.pow(2).mean(dim=-1, keepdim=True) is the mean square of each vector.",
            "Add 1e-5 to it, take the root, divide x by that, and multiply by the gain.",
        ),
    ),
    Exercise(
        "11b.swiglu",
        reference=_swiglu(),
        checked="silu(x W₁ᵀ) gates x W₂ᵀ, and W₃ᵀ brings it back",
        cases=[(_draw(3, 4), _draw(6, 4), _draw(6, 4) + 1, _draw(4, 6)),
               (_draw(2, 3, 4), _draw(5, 4), _draw(5, 4) - 1, _draw(4, 5))],
        mistakes={
            "the gate is the wrong one of the two: silu is for W₁": _swiglu(swapped=True),
            "gate and up are added: a gate multiplies": _swiglu(added=True),
            "that is the gate of the plain GLU: silu(z) is z · sigmoid(z)": _swiglu(torch.sigmoid),
            "that is GEGLU: Llama's gate is silu": _swiglu(F.gelu),
        },
        hints=(
            "Three products: x @ W1.T, x @ W2.T, and what comes of them @ W3.T.",
            "torch.nn.functional.silu(z) is z * sigmoid(z). It is for the first product alone.",
        ),
    ),
    Exercise(
        "11b.cache_bytes",
        reference=_cache(),
        checked="a key and a value for each position, layer and head of keys, two bytes a number",
        cases=[(1, 1, 1, 1, 1), (10, 2, 6, 2, 4), (32_768, 32, 32, 8, 128)],
        mistakes={
            "a key and a value: twice as much": _cache(both=1),
            "only the heads of keys and values are kept": _cache(heads="q"),
            "each layer has a cache of its own": _cache(layers=False),
            "16 bits are two bytes": _cache(width=4),
        },
        hints=(
            "How many numbers has the key of one position, in one head? And its value?",
            "2 (key, value) · layers · heads of keys · positions · head size · 2 bytes.",
        ),
    ),
    Exercise(
        "11b.grouped",
        reference=causal_attention,
        checked="equal to llmkit's: neighbouring heads of queries share a head of keys and values",
        cases=[(_draw(1, 2, 3, 4), _draw(1, 1, 3, 4), _draw(1, 1, 3, 4) + 1),
               (_draw(2, 6, 5, 4), _draw(2, 2, 5, 4) + 1, _draw(2, 2, 5, 4) - 1)],
        mistakes={
            "the wrong heads share: heads 0, 1, 2 of six belong to head 0 of two": _grouped(tiled=True),
            "the scores are to be divided by √D": _grouped(scale=False),
            "a position sees what comes after it": _grouped(causal=False),
        },
        hints=(
            "k.repeat_interleave(n, dim=1) copies each head n times, side by side.",
            "With as many heads as q has, it is the attention of notebook 04.",
        ),
    ),
    Exercise(
        "11b.window_mask",
        reference=_window(),
        checked="each position sees itself and those before it, `window` in all",
        cases=[(1, 1), (4, 1), (5, 2), (6, 4), (3, 9)],
        mistakes={
            "the window is one too wide: the position itself is one of them": _window(1),
            "the window is one too narrow: it sees itself as well": _window(-1),
            "positions see what comes after them": _window(causal=False),
        },
        hints=(
            "causal_mask(T) is True on and below the diagonal. What is to go, lies far below it.",
            "A tensor's .triu(-n) keeps n diagonals below the main one.",
        ),
    ),
    Exercise(
        "11b.route",
        reference=_route(),
        checked="the likeliest experts of each token, with shares that sum to 1",
        cases=[(_draw(3, 4), 1), (_draw(3, 4), 2), (2 * _draw(5, 8), 3)],
        mistakes={
            "the shares of those chosen do not sum to 1: divide them by their sum": _route(False),
            "these are the least likely experts": _route(lowest=True),
            "each token has shares, none has experts: return both": lambda s, n: (
                s.softmax(-1).topk(n)[0]
            ),
        },
        hints=(
            "scores.softmax(dim=-1) are probabilities; .topk(n) gives values and places.",
            "Divide the values by their sum along the last dimension, kept as a dimension.",
        ),
    ),
]
