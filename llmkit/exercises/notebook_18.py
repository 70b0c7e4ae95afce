"""Notebook 18, several languages."""

from __future__ import annotations

import math
from typing import Any

from llmkit.exercises.examining import Exercise


def _units(end: bool = True, bits: bool = True, in_bytes: bool = True) -> Any:
    def three_units(nats: float, sentence: str) -> tuple[float, float, float]:
        whole = sentence + ("\n" if end else "")
        total = nats / math.log(2) if bits else nats
        size = len(whole.encode()) if in_bytes else len(whole)
        return total, total / len(whole), total / size

    return three_units


def _posterior(sign: int = 1, prior: str = "times", sums: bool = True) -> Any:
    def posterior(losses: list[float], priors: list[float]) -> list[float]:
        likely = [math.exp(-sign * loss) for loss in losses]
        if prior == "times":
            likely = [p * q for p, q in zip(likely, priors, strict=True)]
        elif prior == "plus":
            likely = [p + q for p, q in zip(likely, priors, strict=True)]
        return [p / (sum(likely) if sums else 1.0) for p in likely]

    return posterior


def _shares(kind: str = "power") -> Any:
    def shares(counts: list[int], alpha: float) -> list[float]:
        weights = {
            "power": [n**alpha for n in counts],
            "softmax": [math.exp(alpha * n / max(counts)) for n in counts],
            "times": [alpha * n for n in counts],
            "root": [n ** (1 / alpha) for n in counts],
            "raw": [n**alpha for n in counts],
        }[kind]
        return [w / (1.0 if kind == "raw" else sum(weights)) for w in weights]

    return shares


def _mixed(kind: str = "probabilities", bits: bool = True) -> Any:
    def mixed(one: list[float], other: list[float]) -> float:
        total = 0.0
        for a, b in zip(one, other, strict=True):
            p, q = math.exp(-a), math.exp(-b)
            total += {
                "probabilities": -math.log((p + q) / 2),
                "losses": (a + b) / 2,
                "best": min(a, b),
                "sum": -math.log(p + q),
            }[kind]
        return total / len(one) / (math.log(2) if bits else 1.0)

    return mixed


BROKEN = """
def mixed(one, other):
    losses = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
    return sum(losses) / len(losses) / math.log(2)
"""

EXERCISES = [
    Exercise(
        "18.bytes_each",
        reference=(6, 4, 2, 3),
        checked="Latin letters take one byte, accents and Cyrillic two, € three",
        mistakes={
            "those are characters": (3, 4, 1, 1),
            "a Cyrillic letter takes two bytes": (3, 4, 2, 3),
            "€ (U+20AC) is beyond what two bytes hold": (6, 4, 2, 2),
        },
        hints=(
            "UTF-8 writes the 128 characters of ASCII in one byte, those below U+0800 in two.",
            "Cyrillic begins at U+0400, Ü is U+00DC, € is U+20AC.",
        ),
    ),
    Exercise(
        "18.three_units",
        reference=_units(),
        cases=[(math.log(2), "a"), (10.0, "Das Öl"), (30.0, "Привет, мир")],
        checked="the end of a sentence is predicted too, so it counts in each unit",
        mistakes={
            "the line end is predicted too: count it": _units(end=False),
            "those are nats: a bit is ln 2 of them": _units(bits=False),
            "the third unit is per byte: sentence.encode() has the bytes": _units(in_bytes=False),
        },
        hints=(
            "Bits are nats / ln 2. The line end is one more character, and one more byte.",
            "len(sentence) + 1 characters, len(sentence.encode()) + 1 bytes.",
        ),
    ),
    Exercise(
        "18.posterior",
        reference=_posterior(),
        cases=[
            ([0.0, 0.0], [0.5, 0.5]),
            ([1.0, 2.0], [0.5, 0.5]),
            ([2.0, 2.0, 2.0], [0.7, 0.2, 0.1]),
            ([1.0, 3.0, 2.0], [0.1, 0.6, 0.3]),
        ],
        checked="prior times likelihood, over the sum of all",
        mistakes={
            "the prior is left out": _posterior(prior="none"),
            "multiply by the prior, do not add it": _posterior(prior="plus"),
            "a larger loss makes a language less likely: mind the sign": _posterior(sign=-1),
            "divide by the sum, so that they add up to 1": _posterior(sums=False),
        },
        hints=(
            "A loss of L nats is a probability of e^-L for what was read, if that is the language.",
            "Multiply each with its prior, then divide by the sum.",
        ),
    ),
    Exercise(
        "18.shares",
        reference=_shares(),
        cases=[([1, 1], 0.5), ([9, 1], 0.5), ([900, 90, 10], 0.3), ([8, 2], 1.0)],
        checked="α = 1 keeps the sizes, α = 0 makes all alike",
        mistakes={
            "that is a softmax; the counts themselves are raised to the power α": _shares(
                "softmax"
            ),
            "α times all counts changes no share": _shares("times"),
            "the power is α, not 1/α: that makes the large ones larger": _shares("root"),
            "divide by the sum: shares add up to 1": _shares("raw"),
        },
        hints=(
            "With α = ½ a language with 9 times the text gets √9 = 3 times the share.",
            "n ** alpha for each, divided by the sum of them.",
        ),
    ),
    Exercise(
        "18.mixed",
        reference=_mixed(),
        cases=[([1.0], [1.0]), ([0.1], [3.0]), ([0.1, 2.0, 0.7], [3.0, 0.2, 0.7])],
        checked="the mean of the probabilities: where one is right, half of its share is left",
        mistakes={
            "the mean of the losses is the geometric mean of the probabilities": _mixed("losses"),
            "nobody tells which of the two is better at each character": _mixed("best"),
            "half of each: the probabilities must add up to 1": _mixed("sum"),
            "those are nats": _mixed(bits=False),
        },
        hints=(
            "Losses are logarithms. What is to be averaged is what they are logarithms of.",
            "p = (e^-a + e^-b) / 2 for each character; then -ln p, the mean, and bits.",
        ),
        stub=BROKEN,
    ),
]
