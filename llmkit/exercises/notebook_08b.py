"""Notebook 08b, the key-value cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmkit.attention import attention, causal_attention, causal_mask
from llmkit.exercises.examining import Exercise
from llmkit.model import GPT, GPTConfig


class _Step:
    """`step` of the notebook, with a fault of its own. about: how it reads in a message."""

    def __init__(self, about: str, fault: str = ""):
        self.about, self.fault = about, fault

    def __repr__(self) -> str:
        return self.about

    @torch.no_grad()
    def __call__(self, gpt: Any, token: Tensor, kept: list[tuple[list[Any], list[Any]]]) -> Tensor:
        C, H, fault = gpt.config.n_embd, gpt.config.n_head, self.fault
        before = len(kept[0][0])
        x = gpt.wte(token) + gpt.wpe.weight[0 if fault == "position" else before]
        for i, (block, (keys, values)) in enumerate(zip(gpt.h, kept, strict=True)):
            q, k, v = block.attn.c_attn(block.ln_1(x)).view(3, H, 1, C // H)  # (H, 1, D) each
            K, W = torch.cat([*keys, k], dim=1), torch.cat([*values, v], dim=1)  # (H, S, D) each
            if fault == "late" and keys:
                K, W = K[:, :-1], W[:, :-1]
            if fault == "short":
                K, W = K[:, -4:], W[:, -4:]
            keys.append(k)
            values.append(k if fault == "values" else v)
            out, _ = attention(q, K, W)  # (H, 1, D)
            if fault == "first" and not before and i == len(gpt.h) - 1:
                out = torch.zeros_like(out)
            x = x + block.attn.c_proj(out.reshape(1, C))
            x = x + block.mlp(block.ln_2(x))
        scale = {"little": 1 + 1e-6, "rounding": 1 + 1e-13}.get(fault, 1.0)
        return gpt.lm_head(gpt.ln_f(x)) * scale


class _Small(GPT):
    """A GPT with weights so large that its scores depend on all that it read."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(GPTConfig(5, block_size=16, n_layer=2, n_head=2, n_embd=8))
            self.double().eval()
            with torch.no_grad():
                for weight in self.parameters():
                    weight.add_(torch.randn_like(weight), alpha=0.2)

    def __repr__(self) -> str:
        return "gpt"


def _is_exact(rows: slice, tolerance: float = 1e-9) -> Any:
    """Whether the scores agree in those rows, so nearly."""

    def cache_is_exact(step: Any, gpt: Any, ids: Tensor) -> bool:
        kept: list[Any] = [([], []) for _ in gpt.h]
        one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])
        return torch.allclose(one_by_one[rows], gpt(ids[None])[0, rows], tolerance, tolerance)

    return cache_is_exact


def _equal_choices(step: Any, gpt: Any, ids: Tensor) -> bool:
    kept: list[Any] = [([], []) for _ in gpt.h]
    one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])
    return torch.equal(one_by_one.argmax(-1), gpt(ids[None])[0].argmax(-1))


def _random(H: int, n: int, seen: int, D: int = 4) -> tuple[Any, ...]:
    """Queries, keys and values of n new positions, and a cache of so many seen."""
    draw = torch.Generator().manual_seed(10 * n + seen)
    q, k, v = torch.randn(3, H, n, D, generator=draw)
    old_k, old_v = torch.randn(2, H, seen, D, generator=draw)
    return q, k, v, {"k": old_k, "v": old_v}


def _layer(values: bool = True, rows: str = "last", grows: bool = True, own: bool = True) -> Any:
    """The layer with a cache, and faults of its own: keys kept for values, other rows of the mask,
    a cache that does not grow, new positions that do not see themselves."""

    def attend_with_cache(q: Tensor, k: Tensor, v: Tensor, cache: dict[str, Tensor]) -> Tensor:
        n, seen = q.size(1), cache["k"].size(1)
        all_k = torch.cat([cache["k"], k], dim=1)
        all_v = torch.cat([cache["v"], v if values else k], dim=1)
        if grows:
            cache["k"], cache["v"] = all_k, all_v
        if not own:
            return attention(q, all_k[:, :seen], all_v[:, :seen])[0]
        triangle = causal_mask(seen + n)
        mask = {"last": triangle[-n:], "first": triangle[:n], "none": None}[rows]
        return attention(q, all_k, all_v, mask)[0]

    return attend_with_cache


def _right_layer(q: Tensor, k: Tensor, v: Tensor, cache: dict[str, Tensor]) -> Tensor:
    cache["k"], cache["v"] = torch.cat([cache["k"], k], 1), torch.cat([cache["v"], v], 1)
    return causal_attention(q[None], cache["k"][None], cache["v"][None])[0]


def _with_the_cache(function: Any) -> Any:
    """Returns also what has become of the cache."""

    def both(q: Tensor, k: Tensor, v: Tensor, cache: dict[str, Tensor]) -> Any:
        result = function(q, k, v, cache)
        return None if result is None else (result, cache)

    return both


def _accept(p: list[float], g: list[float]) -> list[float]:
    return [min(1.0, a / b) if b else 1.0 for a, b in zip(p, g, strict=True)]


def _speculate(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    left = [max(0.0, a - b) for a, b in zip(p.tolist(), g.tolist(), strict=True)]
    whole = torch.tensor(left, dtype=p.dtype) / sum(left) if sum(left) else p
    return torch.tensor(_accept(p.tolist(), g.tolist()), dtype=p.dtype), whole


def _other_rest(rest: Any) -> Any:
    """The chances are right, what is drawn from otherwise is not."""
    return lambda p, g: (_speculate(p, g)[0], rest(p, g))


def _p(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64)


BROKEN = """
def attend_with_cache(q: Tensor, k: Tensor, v: Tensor, cache: dict) -> Tensor:
    '''q, k, v (H, n, D) of n new positions; cache: {"k": (H, S, D), "v": (H, S, D)} -> (H, n, D)'''
    cache["k"] = torch.cat([cache["k"], k], dim=1)  # (H, S + n, D)
    cache["v"] = torch.cat([cache["v"], k], dim=1)
    n, total = q.size(1), cache["k"].size(1)
    mask = llmkit.causal_mask(total)[:n]  # (n, S + n)
    return llmkit.attention(q, cache["k"], cache["v"], mask)[0]
"""
_GPT2_CACHE = 2 * 12 * 1024 * 768 * 2
_GPT = _Small()
_IDS = torch.tensor([0, 3, 1, 1, 4, 2, 0, 4])

EXERCISES = [
    Exercise(
        "08b.tokens_read",
        reference=(sum(range(10, 15)), 14),
        checked="60 without: 10 to 14; 14 with: the prompt once, then one at a time",
        mistakes={
            "the prompt is read, too: ten tokens, once": (60, 4),
            "the last token written is read by nobody: four of the five are": (60, 15),
            "five readings without a cache, of 10 to 14 tokens": (75, 14),
            "the first reading sees the ten tokens of the prompt": (65, 14),
            "the other way round: without a cache comes first": (14, 60),
            "without a cache each reading is one token longer than the one before": (50, 14),
        },
        hints=(
            "Five tokens are written, so the model is asked five times.",
            "Without: it reads 10, then 11 ... With: it reads 10, then 1, then 1 ...",
        ),
    ),
    Exercise(
        "08b.cache_size",
        reference=(_GPT2_CACHE, (16 * 10**9 - 2 * 124_000_000) // _GPT2_CACHE),
        checked="36 MiB a text, 417 texts beside the weights",
        mistakes={
            "values are kept as well as keys: twice that": (_GPT2_CACHE // 2, 834),
            "each layer keeps its own: twelve times that": (_GPT2_CACHE // 12, 5007),
            "a number has two bytes here, not four": (2 * _GPT2_CACHE, 208),
            "count bytes, not numbers: two for each": (_GPT2_CACHE // 2, 417),
            "the size is right; the weights are on the GPU too: 124 million of two bytes": (
                _GPT2_CACHE,
                423,
            ),
            "the size is right; a weight has two bytes too": (_GPT2_CACHE, 420),
            "the size is right; 417 whole texts fit": (_GPT2_CACHE, 417.286),
        },
        hints=(
            "What does one position leave in one layer? A key and a value, C numbers each.",
            "Times layers, times positions, times two bytes.",
            "Take the bytes of the weights from 16 · 10⁹, divide by the bytes of a text, and "
            "round down.",
        ),
    ),
    Exercise(
        "08b.kv_bytes",
        reference=lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: sum(
            torch.zeros(tokens, n_kv_head, head_size, device="meta").numel() * bytes_each
            for _ in range(n_layer)
            for _part in ("key", "value")
        ),
        checked="36 MiB for GPT-2, 1 GiB for Llama 3 8B",
        cases=[
            (1, 1, 1, 1, 1, 4),
            (2, 4, 2, 3, 5, 2),
            (12, 12, 12, 64, 1024, 2),
            (32, 32, 8, 128, 8192, 2),
        ],
        mistakes={
            "values are kept as well as keys: twice that": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    n_layer * n_kv_head * head_size * tokens * bytes_each
                )
            ),
            "queries are used once and not kept: count the heads of keys and values": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    2 * n_layer * n_head * head_size * tokens * bytes_each
                )
            ),
            "queries are not kept, keys and values are, both with n_kv_head heads": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    n_layer * (n_head + 2 * n_kv_head) * head_size * tokens * bytes_each
                )
            ),
            "those are four bytes a number: use bytes_each": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    2 * n_layer * n_kv_head * head_size * tokens * 4
                )
            ),
            "count bytes, not numbers: bytes_each for each": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    2 * n_layer * n_kv_head * head_size * tokens
                )
            ),
            "each layer keeps its own": (
                lambda n_layer, n_head, n_kv_head, head_size, tokens, bytes_each: (
                    2 * n_kv_head * head_size * tokens * bytes_each
                )
            ),
        },
        hints=(
            "What does one token leave in one layer? A key and a value for each head of theirs.",
            "How many query heads there are plays no part.",
        ),
    ),
    Exercise(
        "08b.cache_is_exact",
        reference=lambda step, gpt, ids: step.fault in ("", "rounding"),
        checked="accepts the right steps, and finds the fault in all the others",
        cases=[
            (_Step(about, fault), _GPT, _IDS)
            for about, fault in (
                ("a right step", ""),
                ("a right step that rounds otherwise", "rounding"),
                ("a step that puts each token at position 0", "position"),
                ("a step that keeps the key in place of the value", "values"),
                ("a step that looks back before it keeps its own", "late"),
                ("a step that sees four tokens only", "short"),
                ("a step that is wrong for the first token only", "first"),
                ("a step that is wrong by a millionth", "little"),
            )
        ],
        mistakes={
            "that rejects every step: rounding differs, so ask for near scores, not for equal "
            "ones; and each layer needs lists of its own ([...] * n repeats the same)": (
                lambda step, gpt, ids: False
            ),
            "compare the scores after every token, not only after the last": _is_exact(
                slice(-1, None)
            ),
            "compare the scores after every token: the first ones do not show what is "
            "forgotten": _is_exact(slice(4)),
            "the likeliest token may be right where the scores are wrong, and the last scores "
            "where the first are wrong: compare all scores, and closely": _equal_choices,
            "64-bit numbers agree far more nearly than that: make the tolerance smaller "
            "(torch.allclose forgives 1e-5 of each number unless told otherwise: rtol=0)": (
                _is_exact(slice(None), 1e-5)
            ),
            "that accepts everything": lambda step, gpt, ids: True,
        },
        hints=(
            "The cell that proved `step` has all that you need: what did it compare?",
            "An empty cache has two empty lists for each layer: [([], []) for _ in gpt.h].",
            "torch.allclose(one_by_one, at_once, rtol=0, atol=1e-10), over all positions.",
        ),
    ),
    Exercise(
        "08b.attend_with_cache",
        reference=_right_layer,
        checked="equal to reading all at once, and the cache has grown by keys and values",
        cases=[_random(1, 1, 0), _random(1, 1, 2), _random(2, 3, 2), _random(2, 4, 0)],
        mistakes={
            "the keys are kept in place of the values": _layer(values=False),
            "the new positions are the last ones: the last n rows of the mask, not the first": (
                _layer(rows="first")
            ),
            "both faults are there: keys in place of values, and the first rows of the mask": (
                _layer(values=False, rows="first")
            ),
            "without a mask, new positions look at those after them": _layer(rows="none"),
            "the result is right, but the cache has not grown": _layer(grows=False),
        },
        hints=(
            "What goes into the cache's values?",
            "Three new positions after two old ones are rows 2, 3 and 4 of the triangle.",
        ),
        stub=BROKEN,
        prepare=_with_the_cache,
    ),
    Exercise(
        "08b.speculate",
        reference=_speculate,
        checked="accepted or drawn from what is left, the token has the probabilities p",
        cases=[
            (_p(0.5, 0.5), _p(0.25, 0.75)),
            (_p(0.5, 0.3, 0.2), _p(0.2, 0.7, 0.1)),
            (_p(0.5, 0.5), _p(0.5, 0.5)),
            (_p(1.0, 0.0, 0.0), _p(0.0, 1.0, 0.0)),
            (_p(0.1, 0.2, 0.3, 0.4), _p(0.4, 0.3, 0.2, 0.1)),
        ],
        mistakes={
            "a chance is at most 1: min(1, p / g)": (
                lambda p, g: ((p / g).nan_to_num(1.0, posinf=9.0), _speculate(p, g)[1])
            ),
            "that is g / p: the large model accepts what it finds likely itself, so p / g": (
                lambda p, g: ((g / p).nan_to_num(1.0).clamp(max=1.0), _speculate(p, g)[1])
            ),
            "drawing from p again would give too much to what g guesses rarely: only what g "
            "leaves over": _other_rest(lambda p, g: p),
            "what is left over must sum to one: divide it by its sum": (
                _other_rest(lambda p, g: (p - g).clamp(min=0) if (p != g).any() else p)
            ),
            "where g is larger than p nothing is left over: not |p - g|": _other_rest(
                lambda p, g: (p - g).abs() / (p - g).abs().sum() if (p != g).any() else p
            ),
            "that is what g has too much of: p - g, not g - p": _other_rest(
                lambda p, g: _speculate(g, p)[1] if (p != g).any() else p
            ),
            "where p = g nothing is left over, and 0 / 0 is nan: return p there": _other_rest(
                lambda p, g: (p - g).clamp(min=0) / (p - g).clamp(min=0).sum()
            ),
        },
        hints=(
            "p / g has infinities and, where both are 0, nan: nan_to_num and clamp mend them.",
            "Left over is max(0, p - g), divided by its sum, if that is not 0.",
            "Token i comes out with g[i] · accept[i] + (the chance of no acceptance) · left[i].",
        ),
    ),
]
