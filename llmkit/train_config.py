"""How to train, and what a training run leaves behind: `TrainConfig` goes in, `History` comes out.

What is done with the settings is told in `training`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from llmkit.optim import OPTIMIZERS


@dataclass(frozen=True)
class TrainConfig:
    """How to train; a setting that cannot work raises ValueError.

    Attributes:
        steps: updates of the weights.
        batch_size: sequences per forward pass; with several processes, of each of them.
        gradient_accumulation_steps: forward passes per update, whose gradients are averaged.
        optimizer: "adamw" or "muon", see ``optim.configure_optimizers``.
        learning_rate: its peak. adamw_share: with Muon, the learning rate of AdamW beside it, as a
            share of Muon's. schedule: how the rate falls, "cosine" or "linear". min_lr_ratio: where
            it ends, as a share of the peak. None: the optimizer's own default for each.
        warmup: steps until the peak is reached; None: a twentieth of all steps.
        weight_decay: pull of the matrices towards zero.
        grad_clip: longest gradient (its norm over all parameters); a longer one is shortened.
        gradient_checkpointing: keep little of the forward pass and compute the rest again on the
            way back: less memory, a third more time (Chen et al. 2016).
        dtype: "float32", "bfloat16" or "float16", in which the matrix products are computed; None:
            what suits the device (``runtime.default_dtype``).
        eval_every: steps between measurements on the validation split; None: ten in a run.
        patience: measurements without a new best after which to stop early; None: never.
        keep_best: end with the weights that measured best, not with the last ones.
        seed: of the batches and of dropout. The same seed gives the same run on the same machine.
    """

    steps: int = 500
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float | None = None
    adamw_share: float | None = None
    schedule: str | None = None
    min_lr_ratio: float | None = None
    warmup: int | None = None
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    gradient_checkpointing: bool = False
    dtype: str | None = None
    eval_every: int | None = None
    patience: int | None = None
    keep_best: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "optimizer": tuple(OPTIMIZERS),
            "schedule": ("cosine", "linear", None),
            "dtype": ("float32", "bfloat16", "float16", None),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {listed}, not {getattr(self, name)!r}")
        for name in ("steps", "batch_size", "gradient_accumulation_steps"):
            self._check(name, least=1)
        for name in ("eval_every", "patience"):
            self._check(name, least=1)
        for name in ("learning_rate", "adamw_share", "grad_clip"):
            self._check(name, least=1e-12)
        for name in ("warmup", "weight_decay"):
            self._check(name, least=0)
        self._check("min_lr_ratio", least=0, most=1)  # the end cannot lie above the peak

    def chosen(self, name: str) -> Any:
        """A setting of the optimizer's: as it was given, else the optimizer's own default."""
        value = getattr(self, name)
        return OPTIMIZERS[self.optimizer][name] if value is None else value

    def _check(self, name: str, least: float, most: float = math.inf) -> None:
        value = getattr(self, name)
        if value is not None and not least <= value <= most:
            wanted = f"from {least} to {most}" if most < math.inf else f"at least {least}"
            raise ValueError(f"{name} must be {wanted}, not {value}")


@dataclass
class History:
    """What happened in a run: one entry per step, one per measurement, one per sample.

    Attributes:
        step, tokens, loss, lr: after each step its number (from 1), the tokens seen so far, the
            training loss of its batch (nats per token) and the learning rate.
        eval_step, eval_tokens, val_loss: the same for each measurement of the validation loss.
        samples: (step, text) pairs, of a ``callbacks.Sampler``.
        seconds: time spent training, without measuring and callbacks.
        best_step, best_val_loss: the lowest validation loss and when it was measured.
        stopped: why the run ended before its last step; None if it did not.
    """

    step: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    eval_step: list[int] = field(default_factory=list)
    eval_tokens: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    samples: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    best_step: int | None = None
    best_val_loss: float = math.inf
    stopped: str | None = None
