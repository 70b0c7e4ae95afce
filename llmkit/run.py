"""A run of training: what happened so far, where it stands, and the next update of the weights.

`Run` makes one step, and one measurement, when asked; in which order is `training`'s to say, how an
optimizer moves the weights `optim`'s. One process or several (`distributed`): it reads the same.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmkit import distributed
from llmkit.data import Batches
from llmkit.evaluation import device_of, evaluate
from llmkit.finetune.instructions import ExampleDataset
from llmkit.optim import make_optimizers, schedule, set_learning_rate
from llmkit.runtime import default_dtype, fast_matmul
from llmkit.train_config import TrainConfig

FREE = ("batch_size", "accumulation", "gradient_checkpointing")  # may be others after a resume


@dataclass
class History:
    """What happened in a run: one entry per step, one per measurement, one per sample.

    Attributes:
        step, tokens, loss, lr: after each step its number (from 1), the tokens seen so far, the
            training loss of its batch (nats per token) and the learning rate.
        eval_step, eval_tokens, val_loss: the same for each measurement of the validation loss.
        samples: (step, text) pairs.
        seconds: time spent training, without measuring, sampling and callbacks.
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


class Run:
    """A run as it stands after a step: what callbacks see, what is saved, and how to go on.

    Callbacks read ``step``, ``config``, ``model``, ``history``, ``evaluated`` (was the validation
    loss measured after this step?), ``sample`` (the text drawn after this step, or None) and
    ``done``; setting ``stop`` to a reason ends the run. Once ``interrupted`` is set, in whichever
    process, the next step is the last.
    """

    def __init__(
        self,
        model: nn.Module,
        train_ids: Tensor | ExampleDataset,
        config: TrainConfig,
        interrupted: threading.Event | None = None,
    ) -> None:
        self.model, self.config = model, config
        self.interrupted = interrupted or threading.Event()
        self.device = device_of(model)
        self.dtype = getattr(torch, config.dtype) if config.dtype else default_dtype(self.device)
        self.rank, self.world = distributed.rank(), distributed.world()
        sizes = (model.config.block_size, config.batch_size)
        # A text gives windows of itself; what else is trained on (`ExampleDataset`), its batches.
        batches = getattr(train_ids, "batches", partial(Batches, train_ids))
        self.batches = batches(*sizes, config.seed, self.device, self.rank, self.world)
        self.rows = config.batch_size * config.accumulation * self.world  # in an update
        self.loss = distributed.shared_loss(model)
        self.optimizers = make_optimizers(
            model,
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            config.adamw_share,
        )
        # float16 has no numbers below 6e-8: gradients are scaled up before, and down after.
        half = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.history = History()
        self.step = 0
        self.best: dict[str, Tensor] | None = None
        self.data = fingerprint(train_ids if isinstance(train_ids, Tensor) else train_ids.flat())
        keep_memory()
        self.evaluated, self.sample, self.stop = False, None, None

    @property
    def done(self) -> bool:
        """Whether this was the last step."""
        return self.step >= self.config.steps or self.stop is not None

    @property
    def tokens(self) -> int:
        """How many tokens were seen so far, by all processes."""
        return self.step * self.rows * self.model.config.block_size

    def is_due(self, every: int) -> bool:
        """Whether what happens every so many steps, and after the last, happens now."""
        return self.step > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def update(self) -> None:
        """One step: gradients of a batch, clipped, and an update of the weights."""
        started = time.perf_counter()
        config, history = self.config, self.history
        warmup = config.steps // 20 if config.warmup is None else config.warmup
        share = schedule(self.step, config.steps, warmup, config.schedule, config.final_lr)
        lr = set_learning_rate(self.optimizers, share)
        with fast_matmul(self.device):
            loss, interrupts = self.gradients()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at step {self.step + 1}: lower the learning rate "
                f"(its peak is {lr / share:g}), lengthen the warmup, or check the data"
            )
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad()
        self.scaler.update()
        self.step += 1
        self.evaluated, self.sample = False, None
        self.stop = "interrupted" if interrupts else None
        history.step.append(self.step)
        history.tokens.append(self.tokens)
        history.loss.append(loss)
        history.lr.append(lr)
        history.seconds += time.perf_counter() - started

    def gradients(self) -> tuple[float, float]:
        """Fill in the gradients of an update. Returns its loss, the mean over all processes, and
        how many of them were interrupted. If one is lost, the batches stay as they were."""
        before, losses = self.batches.state_dict(), []
        seed_dropout(self.device, f"{self.config.seed} {self.step} {self.rank}")
        try:
            for left in reversed(range(self.config.accumulation)):
                x, y = next(self.batches)  # (B, T) each
                # Processes exchange gradients once an update: on the way back of its last pass.
                with self.loss.no_sync() if left and self.world > 1 else nullcontext():
                    with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
                        loss = self.loss(x, y) / self.config.accumulation
                    losses.append(read_later(loss))
                    with distributed.together():
                        self.scaler.scale(loss).backward()
            loss = sum(read() for read in losses) / self.world
            return distributed.total(loss, self.interrupted.is_set())
        except distributed.PeerLost:
            self.batches.load_state_dict(before)
            raise

    def measure(self, val_ids: Tensor) -> None:
        """The validation loss, over all of val_ids; remembers the best, and stops early."""
        history = self.history
        loss = evaluate(self.model, val_ids).loss
        history.eval_step.append(self.step)
        history.eval_tokens.append(self.tokens)
        history.val_loss.append(loss)
        self.evaluated = True
        if loss < history.best_val_loss:
            history.best_step, history.best_val_loss = self.step, loss
            if self.config.keep_best:
                self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
        since = sum(step > (history.best_step or 0) for step in history.eval_step)
        if self.config.patience is not None and since >= self.config.patience:
            self.stop = f"no better validation loss in {since} measurements"

    def state_dict(self) -> dict[str, Any]:
        """All that ``train`` needs to resume, besides the weights: numbers, strings and tensors."""
        return {
            "config": asdict(self.config),
            "rows": self.rows,
            "data": self.data,
            "step": self.step,
            "history": asdict(self.history),
            "batches": self.batches.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the run that gave ``state`` stood. ValueError where it was another run.

        The rows of an update may be shared out anew: over other batches, over more processes.
        """
        rows = "batch_size * accumulation * processes"
        was, now = {rows: state["rows"]}, {rows: self.rows}
        was, now = was | state["config"], now | asdict(self.config)
        for name in now:
            if was.get(name) != now[name] and name not in FREE:
                raise ValueError(
                    f"to resume, train as before: {name} was {was.get(name)!r}, now {now[name]!r}"
                )
        if state["data"] != self.data:
            raise ValueError("to resume, train on the same text as before: this is another one")
        self.step = state["step"]
        self.history = History(**state["history"])
        self.history.samples = [tuple(pair) for pair in self.history.samples]
        self.history.stopped = None
        self.batches.load_state_dict(state["batches"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]


def seed_dropout(device: torch.device, name: str) -> None:
    """Make what dropout draws on the device depend on the name of a step alone, not on what was
    drawn before: so a run can be resumed without a state of the random generators."""
    seed = zlib.crc32(name.encode())
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)  # a hundredth of the time of torch's own
    else:
        torch.manual_seed(seed)


def read_later(number: Tensor) -> Callable[[], float]:
    """Start copying a number to the CPU; calling the result waits until it is there. Meanwhile a
    GPU gets its next orders: asked for the number at once, it would run out of them."""
    copy = number.detach().to("cpu", non_blocking=number.is_cuda)
    if not number.is_cuda:
        return copy.item
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(number.device))
    return lambda: (copied.synchronize(), copy.item())[1]


def keep_memory() -> None:
    """Have Linux's C library keep the memory that a step frees for the next step.

    It would give most of it back to the system and fetch it anew, page by page: 15 % of a small
    model's step. It keeps twice the largest piece it has seen freed, if below 32 MB (mallopt(3)).
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)  # never written to: it takes no memory itself


def fingerprint(ids: Tensor) -> int:
    """A checksum of a text (N,): of all its ids up to a million, else of pieces here and there."""
    length, size, pieces = len(ids), 2**14, 2**6
    if length > size * pieces:
        starts = torch.linspace(0, length - size, pieces, dtype=torch.float64).long()
        ids = torch.cat([ids[start : start + size] for start in starts])
    return zlib.crc32(ids.cpu().to(torch.int64).contiguous().numpy(), length)
