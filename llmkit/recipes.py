"""What the command line trains: a `FastGPT` and a `TrainConfig` that fit a text and a machine.

The numbers were found on slices of the *training* split, so that the validation split measures
something the choice has not seen. They say how to train, not what: that is `fast` and `training`.
"""

from __future__ import annotations

from typing import Any

import torch

from llmkit.fast import FastGPTConfig
from llmkit.training import TrainConfig

SMALL = 400_000  # training tokens below which a model learns the text by heart within a minute

MODELS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.25),
    ("cpu", "large"): dict(block_size=64, n_layer=4, n_head=4, n_embd=128),
    ("gpu", "small"): dict(block_size=128, n_layer=4, n_head=4, n_embd=256, dropout=0.4),
    ("gpu", "large"): dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2),
}
RUNS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(steps=450, batch_size=32),
    ("cpu", "large"): dict(steps=550, batch_size=32),
    ("gpu", "small"): dict(steps=500, batch_size=32),
    ("gpu", "large"): dict(steps=2_000, batch_size=64),
}
COMMON = dict(optimizer="muon", schedule="linear", final_lr=0.0, weight_decay=0.1, keep_best=True)


def recipe(
    tokens: int,
    vocab_size: int,
    device: torch.device | str = "cpu",
    steps: int | None = None,
    seed: int = 0,
) -> tuple[FastGPTConfig, TrainConfig]:
    """A model and a way to train it, for a training split of so many tokens.

    steps: another number of steps than the recipe's; the schedule stretches with it.
    """
    device = torch.device(device)
    kind = ("cpu" if device.type == "cpu" else "gpu", "small" if tokens < SMALL else "large")
    model = MODELS[kind] | {"vocab_size": vocab_size}
    # A short text gets a shorter window: at least one batch must fit into it.
    model["block_size"] = min(model["block_size"], max(1, tokens // 2))
    run = COMMON | RUNS[kind] | {"seed": seed}
    if steps is not None:
        run["steps"] = steps
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
    if device.type == "cpu" and capabilities.get("avx512_bf16"):
        run["dtype"] = "bfloat16"  # twice as fast where the processor multiplies in it
    return FastGPTConfig(**model), TrainConfig(**run)
