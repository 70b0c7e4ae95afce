"""Notebook 14, deployment."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise
from llmkit.generation import generate
from llmkit.model import GPT, GPTConfig


def _four_bits(
    group: int | None = 32,
    low: int = -8,
    high: int = 7,
    steps: float = 7.5,
    share: float = 0.5,
    half: bool = True,
    guarded: bool = True,
) -> Any:
    """Group after group, as one would do it by hand; group None: one for each row."""

    def four_bits(weight: Tensor) -> tuple[Tensor, float]:
        back, size = torch.empty_like(weight), group or weight.size(1)
        for row, out in zip(weight, back, strict=True):
            for start in range(0, len(row), size):
                part = row[start : start + size]
                scale = part.abs().max() / steps
                scale = scale.half().float() if half else scale
                if scale > 0 or not guarded:
                    part = (part / scale).round().clamp(low, high) * scale
                out[start : start + size] = part
        return back, 4 + share

    return four_bits


def _weights(rows: int, columns: int) -> Tensor:
    return 3 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


def _with_zeros() -> Tensor:
    weight = _weights(2, 96)
    weight[0, 32:64] = 0
    return weight


def _answers_needed(p: float, sure: float) -> int:
    return math.ceil(math.log(1 - sure) / math.log(p) - 1e-9)


class _Model(GPT):
    """A small one whose weights are far from their first values, so that its texts vary."""

    def __init__(self) -> None:
        super().__init__(GPTConfig(11, 32, n_layer=1, n_head=2, n_embd=16, tie_weights=False))
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in self.parameters():
                if weight.dim() == 2:
                    weight.copy_(0.6 * torch.randn(weight.shape, generator=draw))
        self.eval()

    def __repr__(self) -> str:
        return "model"


def _one_by_one(model: GPT, prompts: list[Tensor], n: int, stop: int) -> list[Tensor]:
    return [
        generate(model, prompt, n, temperature=0, stop=stop, use_cache=False)[len(prompt) :]
        for prompt in prompts
    ]


def _together(fault: str) -> Any:
    """Several prompts in one batch, and what is often made of it."""

    def in_one_batch(model: GPT, prompts: list[Tensor], n: int, stop: int) -> list[Tensor]:
        B, most = len(prompts), max(map(len, prompts))
        ids = torch.zeros(B, most, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            place = slice(most - len(prompt), most) if fault == "left" else slice(len(prompt))
            row[place] = prompt
        new: list[list[int]] = [[] for _ in prompts]
        for _ in range(n):
            with torch.no_grad():
                scores = model(ids)  # (B, T, V)
            ids = torch.cat([ids, ids.new_zeros(B, 1)], dim=1)
            for b, prompt in enumerate(prompts):
                end = ids.size(1) - 1 if fault in ("left", "last") else len(prompt) + len(new[b])
                token = int(scores[b, end - 1].argmax())
                ids[b, end] = token
                if stop not in new[b] or fault == "on":
                    new[b].append(token)
            if fault == "any" and any(stop in row for row in new):
                break
        if fault == "without":
            new = [[token for token in row if token != stop] for row in new]
        rows = [torch.tensor(row, dtype=torch.long) for row in new]
        if fault == "prompt":
            rows = [torch.cat(pair) for pair in zip(prompts, rows, strict=True)]
        return rows

    return in_one_batch


def _prompts(*lengths: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(11, (length,), generator=draw) for length in lengths]


def _limiter(
    cap: bool = True, shared: bool = False, floored: bool = False, first: float | None = None
) -> type:
    """A token bucket, and what is often made of it. first: what is in it at the start."""

    class Limiter:
        def __init__(self, rate: float, size: float, clock: Any) -> None:
            self.rate, self.size, self.clock = rate, size, clock
            self.buckets: dict[str, tuple[float, float]] = {}

        def allow(self, key: str) -> bool:
            key, now = "" if shared else key, self.clock()
            full = self.size if first is None else first
            tokens, last = self.buckets.get(key, (full, now))
            gained = (now - last) * self.rate
            tokens += math.floor(gained) if floored else gained
            tokens = min(tokens, self.size) if cap else tokens
            allowed = tokens >= 1
            self.buckets[key] = (tokens - allowed, now)
            return allowed

    return Limiter


def _asked(kind: Any) -> Any:
    """What a limiter answers to requests at these times, (seconds, key) each."""

    def allow(rate: float, size: float, requests: list[tuple[float, str]]) -> list[bool]:
        now = [0.0]
        limiter, answers = kind(rate, size, lambda: now[0]), []
        for now[0], key in requests:
            answers.append(limiter.allow(key))
        return answers

    return allow


def _at(*times: float, key: str = "a") -> list[tuple[float, str]]:
    return [(time, key) for time in times]


def _until_stop(pieces: list[str], stop: str) -> tuple[str, int]:
    for read in range(1, len(pieces) + 1):
        before, found, _ = "".join(pieces[:read]).partition(stop)
        if found:
            return before, read
    return "".join(pieces), len(pieces)


def _in_one_piece(pieces: list[str], stop: str, keep: bool) -> tuple[str, int]:
    """Looks for the stop string in each piece alone; keep: what stands before it in its piece."""
    text = ""
    for read, piece in enumerate(pieces, 1):
        if stop in piece:
            return text + (piece.split(stop)[0] if keep else ""), read
        text += piece
    return text, len(pieces)


def _loses_the_last(pieces: list[str], stop: str) -> tuple[str, int]:
    _, read = _until_stop(pieces, stop)
    found = stop in "".join(pieces)
    return "".join(pieces[: read - found]), read


def _with_the_stop(pieces: list[str], stop: str) -> tuple[str, int]:
    text, read = _until_stop(pieces, stop)
    return text + stop * (stop in "".join(pieces)), read


LIMITER = '''
class Limiter:
    def __init__(self, rate: float, size: float, clock):
        self.rate, self.size, self.clock = rate, size, clock

    def allow(self, key: str) -> bool:
        """Whether this key may ask now; if so, one of its tokens is gone."""
'''
BROKEN = """
def until_stop(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        if stop in piece:
            break
        text += piece
    return text, read
"""

EXERCISES = [
    Exercise(
        "14.memory",
        reference=(14.0, 2 * 32 * 4096 * 4096 * 2 / 1e9),
        checked="14 GB of weights, and 2.15 GB of keys and values for one text",
        tolerance=0.01,
        mistakes={
            "the cache keeps a key and a value: twice as much": (14.0, 1.074),
            "each of the 32 layers has its own keys and values": (14.0, 0.0671),
            "that is at four bytes a number; at two it is half": (28.0, 4.295),
            "keys and values are 4,096 numbers wide, at every token": (14.0, 0.000524),
        },
        hints=(
            "The weights: how many there are, times the bytes of each.",
            "The cache: for each of 4,096 tokens, in each of 32 layers, two rows of 4,096 numbers.",
            "2 · 32 · 4096 · 4096 numbers, at two bytes each; a GB is 1e9 bytes.",
        ),
    ),
    Exercise(
        "14.four_bits",
        reference=_four_bits(),
        checked="rounded group by group, with 4.5 bits for each weight",
        cases=[(_weights(1, 32),), (_weights(2, 64),), (_with_zeros(),)],
        mistakes={
            "the scale costs something too: 16 bits, shared by 32 weights": _four_bits(share=0),
            "the scale has 16 bits, not 32: half a bit for each weight": _four_bits(share=1),
            "8 is no number of four bits: clamp to -8 and 7": _four_bits(high=8, low=-8, steps=7.5),
            "-8 is not used: the largest weight is 7.5 steps, not 7": _four_bits(low=-7, steps=7),
            "one scale for a whole row: each 32 neighbours have their own": _four_bits(None),
            "the scale is not rounded to 16 bits: use scale.half()": _four_bits(half=False),
            "a group of zeros became NaN: its scale is 0": _four_bits(guarded=False),
        },
        hints=(
            "weight.reshape(-1, 32) makes a row of each group.",
            "The scale of a group is its largest |weight| / 7.5; round it with .half().float().",
            "A weight costs 4 bits and a 32nd of the scale's 16.",
        ),
    ),
    Exercise(
        "14.answers_needed",
        reference=_answers_needed,
        checked="299 answers for p99; for the median, 5",
        cases=[(0.5, 0.5), (0.5, 0.75), (0.5, 0.95), (0.9, 0.95), (0.99, 0.5), (0.99, 0.95)],
        mistakes={
            "that many hold one on average; with luck alone, it may be missing": lambda p, sure: (
                round(1 / (1 - p))
            ),
            "the percentile does not come in": lambda p, sure: round(1 / (1 - sure)),
            "the chances of many answers do not add up": lambda p, sure: math.ceil(sure / (1 - p)),
            "one too few: round up, not down": lambda p, sure: max(1, _answers_needed(p, sure) - 1),
            "the probability that all are *within* p must fall to 1 - sure": lambda p, sure: (
                math.ceil(math.log(sure) / math.log(p))
            ),
        },
        hints=(
            "What is the probability that one answer lies within p99? That two do? That n do?",
            "p to the power n; one is beyond it with probability 1 - p^n.",
            "Count n up until 1 - p**n is at least `sure`.",
        ),
    ),
    Exercise(
        "14.in_one_batch",
        reference=_one_by_one,
        checked="each row is what it would be alone",
        cases=[
            (_Model(), _prompts(2), 1, 10),
            (_Model(), _prompts(3, 3), 4, 10),
            (_Model(), _prompts(1, 4), 5, 10),
            (_Model(), _prompts(2, 5, 3, 7, 1, 4, 6, 2), 12, 6),
        ],
        mistakes={
            "the shorter rows read from padding: each has its own last place": _together("last"),
            "padded on the left, a row sees the padding and counts wrong places": _together("left"),
            "the prompt is no part of what is new": _together("prompt"),
            "one row's stop ended all": _together("any"),
            "a row went on after its stop": _together("on"),
            "the stop token is part of the answer": _together("without"),
        },
        hints=(
            "Keep the length of each text so far. Its scores are at length - 1, not at -1.",
            "Write the new token of row b to ids[b, length of b], over the padding.",
            "Keep a Boolean for each row: whether it still runs. Only those grow.",
        ),
    ),
    Exercise(
        "14.limiter",
        reference=_limiter(),
        checked="bursts up to `size`, then `rate` a second, for each key its own",
        cases=[
            (1.0, 1.0, _at(0)),
            (1.0, 2.0, _at(0, 0, 0, 1, 1)),
            (1.0, 2.0, _at(0, 0, 0.5, 0.75, 1, 1)),
            (1.0, 2.0, _at(0, 10, 10, 10)),
            (1.0, 1.0, [(0, "a"), (0, "b"), (0, "a"), (1, "b"), (1, "a")]),
            (0.25, 3.0, _at(5, 5, 5, 5, 6, 8, 9, 9, 13)),
        ],
        mistakes={
            "a bucket holds no more than `size`, however long nobody asked": _limiter(cap=False),
            "one bucket for all: each key has its own": _limiter(shared=True),
            "fractions count: half a second brings half a token": _limiter(floored=True),
            "a bucket is full at the start, not empty": _limiter(first=0.0),
            "a bucket starts with `size`, not with one token": _limiter(first=1.0),
        },
        hints=(
            "Keep for each key how many tokens it had, and when that was.",
            "At each call add rate · (now - then), and cut what exceeds size.",
            "Take one if there is at least one; store the rest with the time, also when refused.",
        ),
        stub=LIMITER,
        prepare=_asked,
    ),
    Exercise(
        "14.until_stop",
        reference=_until_stop,
        checked="the text before the stop string, wherever the pieces were cut",
        cases=[
            (["a"], "x"),
            ([], "x"),
            (["so.", " Yes"], "."),
            (["a", "b\n", "\nc"], "\n\n"),
            (["on", "e. tw", "o. three."], "."),
            (["a", "bc", "d", "e"], "abcd"),
        ],
        mistakes={
            "both faults are there: across pieces, and within one": lambda pieces, stop: (
                _in_one_piece(pieces, stop, keep=False)
            ),
            "a stop string that lies across two pieces is not seen": lambda pieces, stop: (
                _in_one_piece(pieces, stop, keep=True)
            ),
            "what stands before the stop string in its piece is lost": _loses_the_last,
            "the stop string is no part of the text": _with_the_stop,
            "it reads on after the stop": lambda pieces, stop: (
                "".join(pieces).split(stop)[0],
                len(pieces),
            ),
        },
        hints=(
            "Print text and piece in the loop, for both of the cases.",
            "Look for the stop string in the text so far, once the piece has been added.",
            "At the end, return what stands before it: text.split(stop)[0].",
        ),
        stub=BROKEN,
    ),
]
