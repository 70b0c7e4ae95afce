"""Notebook 10b, what scale costs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.exercises.examining import Exercise
from llmkit.model import GPTConfig

A100 = 312e12


def _flops(config: GPTConfig) -> int:
    from llmkit.scale import cost

    return cost.flops_per_token(config)


def _utilisation(
    attention: bool = True, factor: int = 6, embeddings: bool = False, gpus: bool = True
) -> Any:
    """The share of the peak, by a right count of operations or by another."""

    def utilisation_of(config: GPTConfig, tokens_per_second: float, n: int, peak: float) -> float:
        L, C = config.n_layer, config.n_embd
        N = 12 * L * C**2 + config.vocab_size * C
        if embeddings:
            N += config.block_size * C + config.vocab_size * C
        flops = factor * N + 2 * factor * attention * L * config.block_size * C
        return tokens_per_second * flops / peak / (n if gpus else 1)

    return utilisation_of


def _memory(name: str, batch_size: int, checkpointing: bool) -> int:
    from llmkit.scale import cost

    how: Any = {"dtype": "float16", "gradient_checkpointing": checkpointing}
    return sum(cost.training_memory(GPTConfig.gpt2(name), batch_size, **how).values())


def _fits(name: str, gigabytes: float, checkpointing: bool) -> int:
    """The largest batch, found by trying, with the steps between tries halved."""
    low, high = 0, 1024
    while high - low > 1:
        middle = (low + high) // 2
        if _memory(name, middle, checkpointing) <= (gigabytes - 1) * 1e9:
            low = middle
        else:
            high = middle
    return low


def _largest(free: float = 1.0, each_alone: bool = True, least: int | None = 0, up: int = 0) -> Any:
    """The largest batch by division, and what is often made of it."""

    def largest_batch(name: str, gigabytes: float, checkpointing: bool) -> int:
        one, two = (_memory(name, n, checkpointing) for n in (1, 2))
        each, fixed = (two - one, 2 * one - two) if each_alone else (one, 0)
        batch = int(((gigabytes - free) * 1e9 - fixed) // each) + up
        return batch if least is None else max(least, batch)

    return largest_batch


def _edge(name: str, batch_size: int, by: float) -> float:
    """The gigabytes that so many windows fill to the byte, and `by` bytes more."""
    return 1 + (_memory(name, batch_size, False) + by) / 1e9


class Bigram:
    """A table of scores with the loss of a model: enough to accumulate over."""

    def __init__(self) -> None:
        self.scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy over the targets that are not -100."""
        return F.cross_entropy(self.scores[x].flatten(0, 1), y.flatten())

    def __repr__(self) -> str:
        return "model"


def _parts(*rows: tuple[int, int]) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
    """Parts of a batch in windows of 4; for each, how many windows and how many targets each."""
    draw, parts = torch.Generator().manual_seed(1), []
    for windows, targets in rows:
        x, y = torch.randint(5, (2, windows, 4), generator=draw)
        y[:, targets:] = -100
        parts.append((x, y))
    return Bigram(), parts


def _whole(model: Any, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    xs, ys = zip(*parts, strict=True)
    return model.loss(torch.cat(xs), torch.cat(ys))


def _accumulated(weight: Any, skips: bool = True, divided: bool = True) -> Any:
    """A mean of the parts' losses with weights of some kind."""

    def accumulated(model: Any, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        kept = [(x, y) for x, y in parts if not skips or bool((y != -100).any())]
        weights = [weight(y) for _, y in kept]
        total = torch.stack([model.loss(x, y) * w for (x, y), w in zip(kept, weights, strict=True)])
        return total.sum() / (sum(weights) if divided else 1)

    return accumulated


def _stretch(L: int, a: int, b: int) -> int:
    """Of all k the best, found by going through the blocks."""
    held = {}
    for k in range(1, L + 1):
        stretches = [range(L)[i : i + k] for i in range(0, L, k)]
        held[k] = a * len(stretches) + b * max(map(len, stretches))
    return min(held, key=held.__getitem__)


FITS = """
def largest_batch(name: str, gigabytes: float, checkpointing: bool) -> int:
    shape = llmkit.GPTConfig.gpt2(name)
    one = cost.training_memory(shape, 1, dtype="float16", gradient_checkpointing=checkpointing)
    return int(gigabytes * 1e9 // sum(one.values()))  # does each window bring all of that?
"""
MEANS = '''
def accumulated(model, parts: list) -> torch.Tensor:
    """The loss of a batch that comes in parts [(x, y), ...]: should equal that of the whole."""
    return sum(model.loss(x, y) for x, y in parts) / len(parts)
'''
STRETCH = """
def best_stretch(L: int, a: int, b: int) -> int:
    return 1  # keeps every input
"""

EXERCISES = [
    Exercise(
        "10b.parameters",
        reference=10_770_816,
        checked="embeddings 123,264, six layers of 1,774,464, a last norm of 768",
        mistakes={
            "the output layer shares the token embeddings: it has no parameters of its own": (
                10_795_776
            ),
            "the positions are missing: T rows of C": 10_672_512,
            "the biases are missing: 9 C of the four matrices in each layer": 10_750_080,
            "the biases of matrices and norms are missing": 10_745_088,
            "a last norm stands before the output layer: 2 C more": 10_770_048,
        },
        hints=(
            "Token embeddings 65 × 384, positions 256 × 384; then six layers and a last norm.",
            "A layer has matrices of 3 C², C², 4 C² and 4 C², and biases of 3 C, C, 4 C and C.",
            "A norm has 2 C; two in each layer. Or call gpt2_parameters(65, 256, 6, 384).",
        ),
    ),
    Exercise(
        "10b.tokens_per_second",
        reference=8 * 0.4 * A100 / (6 * 7e9),
        checked="8 × 0.4 × 312e12 / (6 × 7e9) is 23,771",
        mistakes={
            "too many: a token costs 6 N, and only 40 % of the peak arrive": 65_000.0,
            "eight GPUs work on it, not one": 0.4 * A100 / (6 * 7e9),
            "TFLOP/s are 10¹² a second, not 10⁹": 8 * 0.4 * 312e9 / (6 * 7e9),
            "upside down: that is seconds a token": (6 * 7e9) / (8 * 0.4 * A100),
        },
        hints=(
            "FLOP/s that arrive, divided by FLOPs a token.",
            "8 × 0.4 × 312e12 is about 10¹⁵; 6 × 7e9 is about 4 × 10¹⁰.",
        ),
        tolerance=0.5,  # within a factor of 2
    ),
    Exercise(
        "10b.utilisation_of",
        reference=lambda config, rate, gpus, peak: rate * _flops(config) / gpus / peak,
        checked="6 N + 12 L T C for a token, over all GPUs",
        cases=[
            (GPTConfig(5, block_size=2, n_layer=1, n_head=1, n_embd=2), 1e3, 1, 1e6),
            (GPTConfig(65, block_size=64, n_layer=4, n_head=4, n_embd=128), 2e4, 1, 2e11),
            (GPTConfig(65, block_size=256, n_layer=6, n_head=6, n_embd=384), 5e6, 8, A100),
        ],
        mistakes={
            "attention's 12 L T C is missing": _utilisation(attention=False),
            "that is the forward pass alone: 6 N with the backward pass": _utilisation(factor=2),
            "look-ups multiply nothing: only the output layer's V C counts": _utilisation(
                embeddings=True
            ),
            "divide by the number of GPUs": _utilisation(gpus=False),
            "upside down: what is reached, divided by the peak": lambda c, rate, n, peak: (
                n * peak / (rate * _utilisation()(c, 1, 1, 1))
            ),
        },
        hints=(
            "N = 12 L C² + V C: the blocks' matrices, and the output layer.",
            "A token costs 6 N + 12 L T C, with T the block_size.",
            "Tokens a second times that is FLOP/s; divide by gpus × peak.",
        ),
    ),
    Exercise(
        "10b.largest_batch",
        reference=_fits,
        checked="what is there whatever the batch comes off first; where nothing fits it is 0",
        cases=[
            ("gpt2", 16, False),
            ("gpt2", 16, True),
            ("gpt2", 2.5, False),
            lambda: ("gpt2", _edge("gpt2", 40, 0.5), False),
            lambda: ("gpt2", _edge("gpt2", 40, -0.5), False),
        ],
        mistakes={
            "1 GB is to be left free": _largest(free=0),
            "parameters, gradients and averages are there once, not once a window": _largest(
                each_alone=False
            ),
            "that is one window too many: the last must fit whole": _largest(up=1),
            "where nothing fits, the batch is 0": _largest(least=None),
        },
        hints=(
            "Ask for the memory of one window and of two: what does a window add?",
            "The rest, one minus that, is there whatever the batch.",
            "((gigabytes - 1) * 1e9 - rest) // each, and not below 0.",
        ),
        stub=FITS,
    ),
    Exercise(
        "10b.accumulated",
        reference=_whole,
        checked="equal to the loss of the whole, also where a part has no target",
        cases=[
            _parts((1, 4)),
            _parts((1, 4), (1, 1)),
            _parts((1, 4), (3, 4)),
            _parts((2, 3), (1, 2), (3, 1)),
            _parts((1, 2), (1, 0), (2, 4)),
        ],
        mistakes={
            "the mean of the means still, without the parts that have no target": _accumulated(
                lambda y: 1
            ),
            "weighed by all places: only targets that are not -100 count": _accumulated(
                lambda y: y.numel()
            ),
            "a part without targets has no mean: leave it out": _accumulated(
                lambda y: int((y != -100).sum()), skips=False
            ),
            "a sum over all targets: divide by their number": _accumulated(
                lambda y: int((y != -100).sum()), divided=False
            ),
        },
        hints=(
            "model.loss is a mean. Times the number of targets, it is a sum.",
            "(y != -100).sum() is the number of targets of a part.",
            "Add up loss × targets over the parts that have any, and divide by all targets.",
        ),
        stub=MEANS,
    ),
    Exercise(
        "10b.best_stretch",
        reference=_stretch,
        checked="about the root of L a / b, and never more than L",
        cases=[(1, 1, 1), (2, 1, 1), (4, 1, 1), (6, 5, 1), (7, 2, 1), (12, 1, 4), (48, 3, 10)],
        mistakes={
            "every input is kept: a longer stretch may need less": lambda L, a, b: 1,
            "no input but the first is kept: that is all activations again": lambda L, a, b: L,
            "the root of L is right only where a = b": lambda L, a, b: round(L**0.5),
            "a and b are exchanged: more is saved the larger an input is": lambda L, a, b: _stretch(
                L, b, a
            ),
        },
        hints=(
            "With every k-th input kept there are ceil(L / k) of them.",
            "What is held: ceil(L / k) * a + k * b. Try all k from 1 to L.",
            "min(range(1, L + 1), key=held) takes the first of several.",
        ),
        stub=STRETCH,
    ),
]
