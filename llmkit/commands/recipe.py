"""What the command line trains: a `GPT` and a `TrainConfig` that fit a text, a machine and a time.

The numbers were found on a slice of the *training* split, so that the validation split measures
something the choice has not seen.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from typing import Any

import torch

from llmkit.arguments import check_number
from llmkit.checkpoint import build
from llmkit.model import GPTConfig
from llmkit.runtime import seeded
from llmkit.speed import cpu
from llmkit.train_config import TrainConfig
from llmkit.training import Trainer, train

SMALL = 400_000  # training tokens below which a text is short: its models differ
MODELS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(block_size=128, n_layer=3, n_head=4, n_embd=128),
    ("cpu", "large"): dict(block_size=128, n_layer=3, n_head=4, n_embd=128),
    ("gpu", "small"): dict(block_size=128, n_layer=4, n_head=4, n_embd=256),
    # Without biases it is no larger than nanoGPT's model.
    ("gpu", "large"): dict(block_size=256, n_layer=6, n_head=6, n_embd=384, bias=False),
}
RUNS: dict[tuple[str, str], dict[str, Any]] = {  # for about a minute
    ("cpu", "small"): dict(steps=600, batch_size=16, learning_rate=0.03),
    ("cpu", "large"): dict(steps=1_200, batch_size=16),
    ("gpu", "small"): dict(steps=500, batch_size=32),
    ("gpu", "large"): dict(steps=2_000, batch_size=64),
}
# What more time may teach, the smallest first: layers, heads, width. The last is nanoGPT's.
LADDER = ((2, 4, 128), (3, 4, 128), (4, 5, 160), (5, 6, 192), (6, 8, 256), (6, 6, 384))
TOKENS_PER_PARAMETER = 6  # what a model should read, or else
READINGS = 12  # the text so often
PROBE = 1.0  # seconds for which a size is tried


def recipe(
    tokens: int,
    vocab_size: int,
    device: torch.device | str = "cpu",
    steps: int | None = None,
    seed: int = 0,
    *,
    seconds: float | None = None,
) -> tuple[GPTConfig, TrainConfig]:
    """A model and a way to train it, for a training split of so many tokens.

    The more often a text is read, the more of it is learned by heart. Weights are therefore pulled
    to zero (`weight_decay`); and where there is much room to learn by heart, features are dropped
    (`dropout`).

    steps: another number of steps than the minute's.
    seconds: what this machine can do in so long, measured apart, in place of a number of steps: a
        model of another size (`dial`, which tries the machine for some seconds).
    """
    if steps is not None and seconds is not None:
        raise ValueError("give steps or seconds, not both")
    device = torch.device(device)
    kind = ("cpu" if device.type == "cpu" else "gpu", "small" if tokens < SMALL else "large")
    shape, run = dict(MODELS[kind]), dict(RUNS[kind])
    # A short text gets a shorter window: at least one batch must fit into it.
    shape["block_size"] = min(shape["block_size"], max(1, tokens // 2))
    if steps is not None:
        run["steps"] = steps
    model = GPTConfig(vocab_size, position="rotary", **shape)
    how = TrainConfig(
        optimizer="muon", keep_best=True, seed=seed, dtype=cpu.best_dtype(device), **run
    )
    if seconds is not None:
        check_number("seconds", seconds, above=0)
        model, steps = dial(tokens, model, how, device, seconds)
        how = replace(how, steps=steps)
    readings = how.steps * how.batch_size * model.block_size / tokens
    how = replace(how, warmup=min(20, how.steps // 10), weight_decay=weight_decay(readings))
    return replace(model, dropout=dropout(readings * matrices(model) / tokens)), how


def dial(
    tokens: int, shape: GPTConfig, config: TrainConfig, device: torch.device, seconds: float
) -> tuple[GPTConfig, int]:
    """The size of model, and the steps, that so many seconds pay for on this machine.

    Climb the `LADDER`. Each size is tried for a moment: its pace gives the steps that it would
    make, these the tokens that it would read. Stop before the size that would read fewer than
    `TOKENS_PER_PARAMETER` of its own, and the text fewer than `READINGS` times: the time would be
    over before it has learned what the smaller one knows.
    """
    chosen = shape, config.steps
    for rung, (layers, heads, width) in enumerate(LADDER):
        size = replace(shape, n_layer=layers, n_head=heads, n_embd=width)
        steps = max(1, round(seconds / pace(size, config, device)))
        read = steps * config.batch_size * size.block_size
        enough = min(TOKENS_PER_PARAMETER * matrices(size), READINGS * tokens)
        if rung > 0 and read < enough:
            break
        chosen = size, steps
    return chosen


def matrices(shape: GPTConfig) -> int:
    """The numbers in the matrices of all blocks: 12 C² each, the parameters that cost time."""
    return 12 * shape.n_layer * shape.n_embd**2


def weight_decay(readings: float) -> float:
    """AdamW's usual 0.1 for a text read up to four times; more in proportion, up to 0.5."""
    return round(0.1 * min(5, max(1, readings / 4)), 2)


def dropout(heart: float) -> float:
    """What to drop, by the readings times the parameters for each character: nothing up to 16, then
    0.05 with each doubling, up to 0.3."""
    return round(0.05 * min(6, max(0, math.log2(max(1, heart) / 16))), 2)


def pace(shape: GPTConfig, config: TrainConfig, device: torch.device) -> float:
    """Seconds that a step takes on this machine, now: the median of about a second's.

    The first half is left out: a processor's libraries choose their ways then.
    """
    spent: list[float] = []  # in all, after each step

    def clock(trainer: Trainer) -> None:
        spent.append(trainer.history.seconds)
        if len(spent) >= 6 and spent[-1] > PROBE:
            trainer.stop = "the time of a step is known"

    model = build(shape).to(device)
    ids = torch.randint(shape.vocab_size, (10 * shape.block_size,), generator=seeded(0))
    with cpu.tuned(model):
        train(model, ids, config=replace(config, keep_best=False), callbacks=[clock])
    later = spent[len(spent) // 2 - 1 :]
    return statistics.median(after - before for before, after in itertools.pairwise(later))
