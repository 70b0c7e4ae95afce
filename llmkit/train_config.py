"""How to train, and what a training run leaves behind: `TrainConfig` goes in, `History` comes out.

What is done with the settings is told in `training`. Here too is what must be alike for a run to be
resumed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from llmkit.arguments import check_choice, check_number, check_type
from llmkit.evaluation import unwrapped
from llmkit.optim import OPTIMIZERS, lr_schedule
from llmkit.runtime import default_dtype

# How the rows of an update are shared out may change when a run is resumed.
MAY_CHANGE = ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing")


# Frozen: what a run was asked for cannot change on its way, and is saved with it as it was.
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
        keep_best: a run that ends by itself, after its last step or by patience, ends with the
            weights that measured best: in the model, in what callbacks see and save. One that was
            stopped (an interrupt, a callback, an error) has the last ones, to go on from.
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
        # Here, and not where a setting is used, which may be an hour into the run.
        choices = {
            "optimizer": tuple(OPTIMIZERS),
            "schedule": ("cosine", "linear", None),
            "dtype": ("float32", "bfloat16", "float16", None),
        }
        for name, known in choices.items():
            check_choice(name, getattr(self, name), known)
        for name in ("gradient_checkpointing", "keep_best"):
            check_type(name, getattr(self, name), bool)
        counts = ("steps", "batch_size", "gradient_accumulation_steps", "eval_every", "patience")
        bounds: dict[str, dict[str, Any]] = {
            **{name: {"kind": int, "least": 1} for name in counts},
            "warmup": {"kind": int, "least": 0, "most": self.steps},  # or no peak is reached
            "seed": {"kind": int, "least": 0, "below": 2**62},  # `generate` adds a row's number
            **{name: {"least": 1e-12} for name in ("learning_rate", "adamw_share", "grad_clip")},
            "weight_decay": {"least": 0},
            "min_lr_ratio": {"least": 0, "most": 1},  # the end cannot lie above the peak
        }
        for name, limits in bounds.items():
            open_ = getattr(TrainConfig, name) is None  # by default
            check_number(name, getattr(self, name), optional=open_, **limits)

    def chosen(self, name: str) -> Any:
        """A setting of the optimizer's: as it was given, else the optimizer's own default."""
        value = getattr(self, name)
        return OPTIMIZERS[self.optimizer][name] if value is None else value

    def lr_share(self, step: int) -> float:
        """The share of its peak that the learning rate has at a step (counted from 0)."""
        # A share of the run, not a number of steps: 20 of 400, but 1,000 of 20,000.
        warmup = self.steps // 20 if self.warmup is None else self.warmup
        kind, floor = self.chosen("schedule"), self.chosen("min_lr_ratio")
        return lr_schedule(step, self.steps, warmup, kind, floor)

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """What the matrix products are computed in on this device."""
        return getattr(torch, self.dtype) if self.dtype else default_dtype(device)


# Lists of plain numbers and strings, because a history is saved with the run that it is of.
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

    def add_step(self, step: int, tokens: int, loss: float, lr: float, seconds: float) -> None:
        """Note a step, and how long it took."""
        self.step.append(step)
        self.tokens.append(tokens)
        self.loss.append(loss)
        self.lr.append(lr)
        self.seconds += seconds

    def add_measurement(self, step: int, tokens: int, val_loss: float) -> bool:
        """Note a validation loss; returns whether it is the lowest so far."""
        self.eval_step.append(step)
        self.eval_tokens.append(tokens)
        self.val_loss.append(val_loss)
        lowest = val_loss < self.best_val_loss
        if lowest:
            self.best_step, self.best_val_loss = step, val_loss
        return lowest

    @property
    def since_best(self) -> int:
        """How many measurements came after the best one."""
        return sum(step > (self.best_step or 0) for step in self.eval_step)


def describe(model: nn.Module) -> dict[str, Any]:
    """What must be alike for a run to go on with a model: its class, its configuration, the shapes
    of its parameters, and their numbers (a checksum)."""
    model = unwrapped(model)
    weights = dict(model.named_parameters())
    checksum = 0
    for weight in weights.values():
        # As bytes, because NumPy has no bfloat16.
        numbers = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        checksum = zlib.crc32(numbers.numpy().data, checksum)
    settings = getattr(getattr(model, "config", None), "__dict__", {})
    return {
        "the model's class": type(model).__name__,
        # As strings, in which any setting can be saved, compared and shown.
        **{f"the model's {name}": repr(value) for name, value in settings.items()},
        **{f"the shape of {name}": str(tuple(weight.shape)) for name, weight in weights.items()},
        "the checksum of the weights": checksum,
    }


def refuse_another_run(was: dict[str, Any], now: dict[str, Any]) -> None:
    """ValueError where a saved state is of another run, or no state of a run at all.

    was, now: "config", "rows" (of an update), "model" (as `describe` gives it) and "text".
    """
    if not now.keys() <= was.keys():
        raise ValueError("resume takes what checkpoint.load_state gives: this is another thing")
    # The batches go on where the generator stands: in another text they would be other batches.
    if was["text"] != now["text"]:
        raise ValueError("to resume, train on the same text as before: this is another one")
    product = "batch_size * gradient_accumulation_steps * processes"
    old, new = ({product: d["rows"], **d["config"], **d["model"]} for d in (was, now))
    for name in {**new, **old}:
        if old.get(name) != new.get(name) and name not in MAY_CHANGE:
            raise ValueError(
                "to resume, train as before, the same model from the weights of the same "
                f"checkpoint: {name} was {old.get(name)}, now {new.get(name)}"
            )
