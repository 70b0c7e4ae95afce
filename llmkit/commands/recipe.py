"""What the command line trains: a `GPT` and a `TrainConfig` that fit a text and a machine.

The numbers were found on a slice of the *training* split, so that the validation split measures
something the choice has not seen.
"""

from __future__ import annotations

from typing import Any

import torch

from llmkit.model import GPTConfig
from llmkit.speed.cpu import best_dtype
from llmkit.train_config import TrainConfig

SMALL = 400_000  # training tokens below which a model learns the text by heart within a minute

MODELS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(block_size=128, n_layer=3, n_head=4, n_embd=128, dropout=0.05),
    ("cpu", "large"): dict(block_size=128, n_layer=3, n_head=4, n_embd=128, dropout=0.0),
    ("gpu", "small"): dict(block_size=128, n_layer=4, n_head=4, n_embd=256, dropout=0.3),
    # Without biases it is no larger than nanoGPT's model.
    ("gpu", "large"): dict(
        block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2, bias=False
    ),
}
RUNS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(steps=600, batch_size=16, learning_rate=0.03),
    ("cpu", "large"): dict(steps=1_200, batch_size=16),
    ("gpu", "small"): dict(steps=500, batch_size=32),
    ("gpu", "large"): dict(steps=2_000, batch_size=64),
}


def recipe(
    tokens: int,
    vocab_size: int,
    device: torch.device | str = "cpu",
    steps: int | None = None,
    seed: int = 0,
) -> tuple[GPTConfig, TrainConfig]:
    """A model and a way to train it, for a training split of so many tokens.

    steps: another number of steps than the recipe's; the schedule stretches with it.
    """
    device = torch.device(device)
    kind = ("cpu" if device.type == "cpu" else "gpu", "small" if tokens < SMALL else "large")
    shape, run = dict(MODELS[kind]), dict(RUNS[kind])
    # A short text gets a shorter window: at least one batch must fit into it.
    shape["block_size"] = min(shape["block_size"], max(1, tokens // 2))
    if steps is not None:
        run["steps"] = steps
    run["warmup"] = min(20, run["steps"] // 10)
    model = GPTConfig(vocab_size, position="rotary", **shape)
    how = TrainConfig(optimizer="muon", keep_best=True, seed=seed, dtype=best_dtype(device), **run)
    return model, how
