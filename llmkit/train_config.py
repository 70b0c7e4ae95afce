"""How to train: the settings of a run, checked when they are made. `run` follows them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmkit.optim import LEARNING_RATES


@dataclass(frozen=True)
class TrainConfig:
    """How to train; a setting that cannot work raises ValueError.

    Attributes:
        steps: updates of the weights.
        batch_size: sequences per forward pass; with several processes, of each of them.
        accumulation: forward passes per update; their gradients are averaged, as if the batch had
            accumulation * batch_size rows (times the number of processes).
        optimizer: "adamw" or "muon", see ``optim.make_optimizers``.
        learning_rate: its peak; None: the optimizer's own default.
        adamw_share: with Muon, the learning rate of AdamW beside it, as a share of Muon's.
        warmup: steps until the peak is reached; None: a twentieth of all steps.
        schedule: how it falls afterwards, "cosine" or "linear".
        final_lr: where it ends, as a share of the peak.
        weight_decay: pull of the matrices towards zero.
        grad_clip: longest gradient (its norm over all parameters); a longer one is shortened.
        gradient_checkpointing: keep little of the forward pass and compute the rest again on the
            way back: less memory, a third more time (Chen et al. 2016).
        dtype: "float32", "bfloat16" or "float16", in which the matrix products are computed; None:
            what suits the device (``runtime.default_dtype``).
        eval_every: steps between measurements on the validation split; None: ten in a run.
        sample_every: steps between samples, which need a tokenizer; None: no samples.
        patience: measurements without a new best after which to stop early; None: never.
        keep_best: end with the weights that measured best, not with the last ones.
        seed: of the batches and of dropout. The same seed gives the same run on the same machine.
    """

    steps: int = 500
    batch_size: int = 32
    accumulation: int = 1
    optimizer: str = "adamw"
    learning_rate: float | None = None
    adamw_share: float = 1.0
    warmup: int | None = None
    schedule: str = "cosine"
    final_lr: float = 0.1
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    gradient_checkpointing: bool = False
    dtype: str | None = None
    eval_every: int | None = None
    sample_every: int | None = None
    patience: int | None = None
    keep_best: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = dict.fromkeys(("steps", "batch_size", "accumulation"), (1, math.inf))
        ranges |= dict.fromkeys(("eval_every", "sample_every", "patience"), (1, math.inf))
        ranges |= dict.fromkeys(("warmup", "weight_decay"), (0, math.inf))
        ranges |= dict.fromkeys(("learning_rate", "adamw_share", "grad_clip"), (1e-12, math.inf))
        ranges |= {"final_lr": (0, 1)}  # a share of the peak: the end cannot lie above it
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                wanted = f"from {low} to {high}" if high < math.inf else f"at least {low}"
                raise ValueError(f"{name} must be {wanted}, not {value}")
        choices = {
            "optimizer": tuple(LEARNING_RATES),
            "schedule": ("cosine", "linear"),
            "dtype": (None, "float32", "bfloat16", "float16"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {listed}, not {getattr(self, name)!r}")
