"""The training loop: batches in, a better model out, and a history of how it went.

`train` runs it; a `Trainer` is a run as it stands between two steps, and makes the next one. How to
train is told by a `TrainConfig` (`train_config`), how weights are moved by `optim`. Whatever else
should happen along the way hangs on `callbacks`.

Shapes: B batch, T time.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.data import Batches, check_ids, fingerprint
from llmkit.evaluation import device_of, evaluate
from llmkit.model import gradient_checkpointing
from llmkit.optim import configure_optimizers, lr_schedule, set_learning_rate
from llmkit.runtime import (
    ALONE,
    OneProcess,
    PeerLost,
    default_dtype,
    interruptible,
    read_later,
    seed_dropout,
)
from llmkit.train_config import History, TrainConfig

# How the rows of an update are shared out may change when a run is resumed.
MAY_CHANGE = ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing")


def train(
    model: nn.Module,
    train_ids: Any,
    val_ids: Tensor | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    *,
    callbacks: Sequence[Callable[[Trainer], None]] = (),
    resume: dict[str, Any] | None = None,
    processes: OneProcess = ALONE,
) -> History:
    """Train a model in place and return what happened.

    Args:
        model: any module with ``loss(x, y)`` and ``config.block_size``, on the device to train on.
        train_ids, val_ids: (N,) token ids. Without val_ids nothing is measured on the way. Other
            data than a text come as an object with ``batches`` and ``flat``, in place of train_ids:
            see ``finetune.instructions``.
        config: see `TrainConfig`.
        callbacks: called with the `Trainer` after every step.
        resume: what ``checkpoint.load_state`` gives; with the weights of the same checkpoint in the
            model, the run goes on bit for bit as if it had never stopped.
        processes: what ``scale.distributed.join()`` gives, where torchrun has started several, each
            of which calls this. They share out each batch, and each measurement; weights and
            ``resume`` are those of rank 0, which alone calls callbacks.

    Interrupted (Ctrl-C, a notebook's stop button, SIGTERM), it finishes the step and returns; a
    second interrupt ends it at once. The global random state is left as it was.

    Raises:
        FloatingPointError: the loss is not a number any more; the weights are those before it.
        ValueError: the data are too short or not of the model's vocabulary, or resume belongs to
            another run.
        PeerLost: another process has died; the callbacks have been called once more, with ``stop``
            set, so that a `Checkpointer` has saved the last whole step.
    """
    processes.check()
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        gradient_checkpointing(model, config.gradient_checkpointing),
        interruptible() as interrupted,
    ):
        trainer = Trainer(model, train_ids, config, processes, interrupted)
        if resume := processes.broadcast(resume):
            trainer.load_state_dict(resume)
            trainer.measure_if_due(val_ids)  # a process may have been lost over it
        model.train()
        try:
            while not trainer.done:
                trainer.update()
                trainer.measure_if_due(val_ids)
                trainer.call(callbacks)
                trainer.stop = processes.broadcast(trainer.stop)
        except PeerLost as error:
            trainer.stop = str(error)
            trainer.call(callbacks if trainer.step else ())
            advice = "start all of them again, and resume from the last checkpoint"
            raise PeerLost(f"{error}, after step {trainer.step}: {advice}") from None
    trainer.history.stopped = trainer.stop
    if trainer.best is not None:
        model.load_state_dict(trainer.best)
    return trainer.history


class Trainer:
    """A run as it stands after a step: what callbacks see, what is saved, and how to go on.

    Callbacks read ``step``, ``config``, ``model``, ``history``, ``evaluated`` (was the validation
    loss measured after this step?), ``sample`` (the text that a `Sampler` drew after this step, or
    None) and ``done``; setting ``stop`` to a reason ends the run. Once ``interrupted`` is set, in
    whichever process, the next step is the last.
    """

    def __init__(
        self,
        model: Any,  # a module, see `train`
        train_ids: Any,
        config: TrainConfig,
        processes: OneProcess = ALONE,
        interrupted: threading.Event | None = None,
    ) -> None:
        self.model, self.config, self.processes = model, config, processes
        self.interrupted = interrupted or threading.Event()
        self.device = device_of(model)
        self.dtype = getattr(torch, config.dtype) if config.dtype else default_dtype(self.device)
        # A text gives windows of itself; whatever else is trained on knows its own batches.
        make = getattr(train_ids, "batches", None) or (lambda *how: Batches(train_ids, *how))
        sizes = (model.config.block_size, config.batch_size)
        self.batches = make(*sizes, config.seed, self.device, processes.rank, processes.world)
        vocab_size = getattr(model.config, "vocab_size", math.inf)
        if isinstance(train_ids, Tensor) and train_ids.dtype == torch.int64:
            check_ids(train_ids, vocab_size, name="train_ids")  # a GPU would only say that it broke
        self.rows = config.batch_size * config.gradient_accumulation_steps * processes.world
        self.loss = processes.share(model)
        self.optimizers = configure_optimizers(
            model,
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            config.adamw_share,
        )
        # float16 has no numbers below 6e-8: gradients are scaled up before, and down after.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.data = fingerprint(train_ids if isinstance(train_ids, Tensor) else train_ids.flat())
        self.history, self.step = History(), 0
        self.best: dict[str, Tensor] | None = None
        self.evaluated = False
        self.sample: str | None = None
        self.stop: str | None = None
        model.zero_grad()  # what an earlier backward pass left would enter the first update

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
        kind, floor = config.chosen("schedule"), config.chosen("min_lr_ratio")
        share = lr_schedule(self.step, config.steps, warmup, kind, floor)
        lr = set_learning_rate(self.optimizers, share)
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
            self.scaler.step(optimizer)  # plainly optimizer.step(), but for float16
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
        passes = self.config.gradient_accumulation_steps
        seed_dropout(self.device, f"{self.config.seed} {self.step} {self.processes.rank}")
        try:
            for number in range(1, passes + 1):
                x, y = next(self.batches)  # (B, T) each
                with self.processes.accumulating(self.loss, last=number == passes):
                    with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
                        loss = self.loss(x, y) / passes
                    losses.append(read_later(loss))
                    self.scaler.scale(loss).backward()
            mean = sum(read() for read in losses) / self.processes.world
            loss, interrupts = self.processes.sum(mean, self.interrupted.is_set())
            return loss, interrupts
        except PeerLost:
            self.batches.load_state_dict(before)
            raise

    def measure_if_due(self, val_ids: Tensor | None) -> None:
        """The validation loss, over all of val_ids; remembers the best, and stops early."""
        config, history = self.config, self.history
        every = config.eval_every or math.ceil(config.steps / 10)
        if val_ids is None or not self.is_due(every) or self.step in history.eval_step:
            return
        loss = evaluate(self.model, val_ids, processes=self.processes).loss
        history.eval_step.append(self.step)
        history.eval_tokens.append(self.tokens)
        history.val_loss.append(loss)
        self.evaluated = True
        if loss < history.best_val_loss:
            history.best_step, history.best_val_loss = self.step, loss
            if config.keep_best:
                self.best = copy.deepcopy(self.model.state_dict())
        since = sum(step > (history.best_step or 0) for step in history.eval_step)
        if config.patience is not None and since >= config.patience:
            self.stop = f"no better validation loss in {since} measurements"

    def call(self, callbacks: Sequence[Callable[[Trainer], None]]) -> None:
        """Show the run to the callbacks, in the process of rank 0."""
        if self.processes.rank == 0:
            for callback in callbacks:
                callback(self)

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

        The rows of an update may be shared out differently: over more passes, or processes.
        """
        product = "batch_size * gradient_accumulation_steps * processes"
        was = {product: state["rows"], **state["config"]}
        now = {product: self.rows, **asdict(self.config)}
        for name in now:
            if was.get(name) != now[name] and name not in MAY_CHANGE:
                raise ValueError(
                    f"to resume, train as before: {name} was {was.get(name)!r}, now {now[name]!r}"
                )
        if state["data"] != self.data:
            raise ValueError("to resume, train on the same text as before: this is another one")
        self.step = state["step"]
        self.history = History(**copy.deepcopy(state["history"]))
        self.history.stopped = None
        self.batches.load_state_dict(state["batches"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
