"""What the command line trains: a `FastGPT` and a `TrainConfig` that fit a text and a machine.

The numbers were found on slices of the *training* split, so that the validation split measures
something the choice has not seen. They say how to train, not what: that is `fast` and `training`.
"""

from __future__ import annotations

from typing import Any

import torch

from llmkit.speed.fast_gpt import FastGPTConfig
from llmkit.training import TrainConfig

SMALL = 400_000  # training tokens below which a model learns the text by heart within a minute

MODELS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(
        block_size=128, n_layer=3, n_head=4, n_embd=128, dropout=0.3, ngram_rows=(8_192, 16_384)
    ),
    ("cpu", "large"): dict(block_size=128, n_layer=3, n_head=4, n_embd=128, dropout=0.1),
    ("gpu", "small"): dict(
        block_size=128, n_layer=4, n_head=4, n_embd=256, dropout=0.4, ngram_rows=(8_192, 16_384)
    ),
    # Pairs alone, each with its row: with more tables it would be larger than nanoGPT's model.
    ("gpu", "large"): dict(
        block_size=256, n_layer=5, n_head=6, n_embd=384, dropout=0.2, ngram_rows=(4_356,)
    ),
}
RUNS: dict[tuple[str, str], dict[str, Any]] = {
    ("cpu", "small"): dict(steps=700, batch_size=16),
    ("cpu", "large"): dict(steps=1_200, batch_size=16),
    ("gpu", "small"): dict(steps=500, batch_size=32),
    ("gpu", "large"): dict(steps=2_000, batch_size=64),
}
SPRINT: dict[str, Any] = dict(
    steps=60, batch_size=32, learning_rate=0.08, adamw_share=1.0, warmup=2, keep_best=False
)
COMMON: dict[str, Any] = dict(
    optimizer="muon", adamw_share=0.5, schedule="linear", final_lr=0.0, keep_best=True
)


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
    run = COMMON | RUNS[kind] | {"seed": seed, "dtype": cpu_dtype(device)}
    if steps is not None:
        run["steps"] = steps
    run["warmup"] = min(20, run["steps"] // 10)
    return FastGPTConfig(**model), TrainConfig(**run)


def sprint(
    vocab_size: int, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[FastGPTConfig, TrainConfig]:
    """A tiny model and a way to train it in about a second on a CPU.

    On Tiny Shakespeare it passes what nanoGPT's recipe for a CPU reaches (about 1.89 nats per
    character, see benchmarks/time_to_loss.py). The n-gram tables carry most of it.
    """
    dtype = cpu_dtype(torch.device(device))
    return (
        FastGPTConfig(vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=64),
        TrainConfig(**COMMON | SPRINT | {"seed": seed, "dtype": dtype}),
    )


def cpu_dtype(device: torch.device) -> str | None:
    """bfloat16 on processors that multiply in it, twice as fast; else what suits the device."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
    native = device.type == "cpu" and capabilities.get("avx512_bf16")
    return "bfloat16" if native else None
