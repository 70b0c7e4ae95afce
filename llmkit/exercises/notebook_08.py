"""Notebook 08, generation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.attention import attention
from llmkit.exercises.examining import Exercise
from llmkit.model import GPT, GPTConfig
from llmkit.ngram import NeuralBigram


def _min_p(p: Tensor, m: float) -> Tensor:
    kept = [x if x >= m * max(p.tolist()) else 0.0 for x in p.tolist()]
    return torch.tensor([x / sum(kept) for x in kept])


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
        scale = {"little": 1.001, "rounding": 1 + 1e-13}.get(fault, 1.0)
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


def _is_exact(rows: slice, tolerance: float = 1e-8) -> Any:
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


class _Table(NeuralBigram):
    """A model that sees one token: row i of the table scores what follows it."""

    def __init__(self, rows: Any):
        super().__init__(len(rows))
        with torch.no_grad():
            self.table.weight.copy_(torch.as_tensor(rows))

    def __repr__(self) -> str:
        return f"a bigram of {len(self.table.weight)} tokens"


def _random_table(V: int) -> _Table:
    draw = torch.Generator().manual_seed(V)
    return _Table(2 * torch.randn(V, V, generator=draw) + torch.randn(V, 1, generator=draw))


def _beam(
    width: int | None = None, summed: bool = True, normalised: bool = True, worst: bool = False
) -> Any:
    """Beam search over lists, and what is often made of it."""

    def beam_search(model: Any, ids: Tensor, new: int, w: int) -> tuple[Tensor, float]:
        beams = [(0.0, ids.tolist())]
        for _ in range(new):
            ways = []
            for total, text in beams:
                scores = model(torch.tensor([text]))[0, -1].detach()  # (V,)
                costs = -(scores.log_softmax(-1) if normalised else scores)
                before = total if summed else 0.0
                ways += [(before + cost, [*text, i]) for i, cost in enumerate(costs.tolist())]
            beams = sorted(ways, reverse=worst)[: width or w]
        return torch.tensor(beams[0][1]), beams[0][0]

    return beam_search


BROKEN = """
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    return int((heights < u).sum())
"""
_GPT2_CACHE = 2 * 12 * 1024 * 768 * 2
_GPT = _Small()
_IDS = torch.tensor([0, 3, 1, 1, 4, 2, 0, 4])
_TWO_WAYS = _Table(torch.tensor([[0.01, 0.59, 0.4], [0.3, 0.34, 0.36], [0.9, 0.04, 0.06]]).log())

EXERCISES = [
    Exercise(
        "08.by_hand",
        reference=([2 / 3, 1 / 6, 1 / 6], [2 / 3, 1 / 3, 0.0]),
        checked="T = 1/2 squares the ratios; top-p keeps the fewest that have enough",
        mistakes={
            "that is temperature 2: T = 1/2 squares each probability": (
                [0.4142, 0.2929, 0.2929],
                [2 / 3, 1 / 3, 0.0],
            ),
            "the squares must sum to one again: divide them by their sum": (
                [1 / 4, 1 / 16, 1 / 16],
                [2 / 3, 1 / 3, 0.0],
            ),
            "scores are divided by T, not probabilities: p / T, made to sum to one, is p": (
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
            "The ratio of the first two is 2 : 1. T = 1/2 squares it.",
            "Three numbers in the ratio 4 : 1 : 1 that sum to one.",
            "Top-p goes from the likeliest down, and stops as soon as it has 0.6; then divide "
            "by what it has.",
        ),
        tolerance=0.004,  # 0.67 is 2/3
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
        stub=BROKEN,
    ),
    Exercise(
        "08.cache_size",
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
        "08.cache_is_exact",
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
                ("a step that is wrong by a thousandth", "little"),
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
            "the likeliest token may be right where the scores are wrong: compare scores": (
                _equal_choices
            ),
            "64-bit numbers agree far more nearly than that: make the tolerance smaller": (
                _is_exact(slice(None), 1e-2)
            ),
            "that accepts everything": lambda step, gpt, ids: True,
        },
        hints=(
            "The cell that proved `step` has all that you need: what did it compare?",
            "An empty cache has two empty lists for each layer: [([], []) for _ in gpt.h].",
            "torch.allclose(one_by_one, at_once, atol=1e-10), over all positions.",
        ),
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
        },
        hints=(
            "Keep beams (B, T), which start as ids[None], and their surprise so far, (B,).",
            "totals[:, None] - log_softmax is (B, V): what each way to go on would cost.",
            "flatten() it and take topk with largest=False; of an index i there, i // V is the "
            "beam and i % V the token.",
        ),
    ),
]
