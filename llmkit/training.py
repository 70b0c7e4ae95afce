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
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.arguments import check_each, check_type
from llmkit.data import Batches, as_tensor, check_ids, fingerprint
from llmkit.evaluation import IGNORE_INDEX, device_of, evaluate, vocab_size_of
from llmkit.model import gradient_checkpointing
from llmkit.optim import clip_gradient, configure_optimizers, set_learning_rate
from llmkit.runtime import ALONE, OneProcess, PeerLost, interruptible, read_later, seed_dropout
from llmkit.train_config import History, TrainConfig, describe, refuse_another_run


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
        resume: what ``checkpoint.load_state`` gives, or ``Trainer.state_dict``; with the weights of
            that moment in the model, the run goes on bit for bit as if it had never stopped.
        processes: what ``scale.distributed.join()`` gives, where torchrun has started several, each
            of which calls this. They share out each batch, and each measurement; weights and
            ``resume`` are those of rank 0, which alone calls callbacks.

    Interrupted (Ctrl-C, a notebook's stop button, SIGTERM), it finishes the step and returns; a
    second interrupt ends it at once. The global random state is left as it was, and no gradient
    stays in the model, however the run ends.

    Raises:
        FloatingPointError: a loss or a gradient is not a number any more; the weights are those
            before it.
        ValueError: the data are too short or not of the model's vocabulary, resume belongs to
            another run or model, or there is nothing to train. All this is checked before step 1.
        PeerLost: another process has died; the callbacks have been called once more, with ``stop``
            set, so that a `Checkpointer` has saved the last whole step.
    """
    processes.check()
    vocab_size_of(model)  # or it is no model
    check_type("config", config, TrainConfig)
    callbacks = check_each("callbacks", callbacks, Callable, wanted="functions")
    if val_ids is None and (config.keep_best or config.patience):
        raise ValueError("keep_best and patience go by val_ids: give some, or leave the two out")
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        gradient_checkpointing(model, config.gradient_checkpointing),
        interruptible() as interrupted,
    ):
        if val_ids is not None:
            val_ids = check_ids(val_ids, vocab_size_of(model), at_least=2, name="val_ids")
        trainer = Trainer(model, train_ids, config, processes, interrupted)
        resume = processes.broadcast(resume)
        if resume is not None:
            trainer.load_state_dict(resume)
            trainer.measure_if_due(val_ids)  # a process may have been lost over it
        model.train()  # dropout on: a model that was loaded comes with it off
        try:
            while not trainer.done:
                trainer.update()
                trainer.measure_if_due(val_ids)  # first: callbacks show it, and save it
                trainer.call(callbacks)
                # They were called in one process; a run that only some of them end would hang.
                trainer.stop = processes.broadcast(trainer.stop)
        except PeerLost as error:
            trainer.stop = str(error)
            trainer.call(callbacks if trainer.step else ())
            advice = "start all of them again, and resume from the last checkpoint"
            raise PeerLost(f"{error}, after step {trainer.step}: {advice}") from None
        finally:
            model.zero_grad()  # half an update's, where an error or an interrupt cut it short
    trainer.history.stopped = trainer.stop
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
        self.dtype = config.dtype_on(self.device)
        # A text gives windows of itself; whatever else is trained on knows its own batches.
        self.is_text = not hasattr(train_ids, "batches")
        self.data = as_tensor(train_ids, "train_ids") if self.is_text else train_ids.flat()
        ids = self.data if self.is_text else self.data[self.data != IGNORE_INDEX]
        check_ids(ids, vocab_size_of(model), name="train_ids")  # a GPU would only say that it broke
        make = partial(Batches, self.data) if self.is_text else train_ids.batches
        sizes = (model.config.block_size, config.batch_size)
        self.batches = make(*sizes, config.seed, self.device, processes.rank, processes.world)
        self.rows = config.batch_size * config.gradient_accumulation_steps * processes.world
        self.loss = processes.share(model)
        self.optimizers = configure_optimizers(
            model, config.optimizer, config.learning_rate, config.weight_decay, config.adamw_share
        )
        # float16 has no numbers below 6e-8: gradients are scaled up before, and down after.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
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
        """One step: gradients of a batch, clipped, and an update of the weights. Where a number in
        it is none, FloatingPointError, and the weights are as before."""
        started = time.perf_counter()
        lr = set_learning_rate(self.optimizers, self.config.lr_share(self.step))
        loss, interrupts = self.gradients()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)  # clipping has to see how long the gradient really is
        wrong = None if math.isfinite(loss) else f"loss became {loss}"
        wrong = wrong or clip_gradient(self.model, self.config.grad_clip)
        # float16 goes beyond its largest number now and then: the scaler leaves such a step out.
        if wrong and not (math.isfinite(loss) and self.scaler.get_scale() > 1):
            raise self.runaway(f"{wrong} at step {self.step + 1}")
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # plainly optimizer.step(), but for float16
            optimizer.zero_grad()  # a backward pass adds to what is there
        self.scaler.update()
        self.step += 1
        self.evaluated, self.sample = False, None
        self.stop = "interrupted" if interrupts else None
        self.history.add_step(self.step, self.tokens, loss, lr, time.perf_counter() - started)

    def gradients(self) -> tuple[float, float]:
        """Fill in the gradients of an update. Returns its loss, the mean over all processes, and
        how many of them were interrupted. If one is lost, the batches stay as they were."""
        before, losses = self.batches.state_dict(), []
        passes = self.config.gradient_accumulation_steps
        # Each process switches off other features: they work on different rows of one batch.
        seed_dropout(self.device, f"{self.config.seed} {self.step} {self.processes.rank}")
        try:
            # All parts first, because what each of them weighs depends on the others.
            parts = [next(self.batches) for _ in range(passes)]  # x and y, (B, T) each
            for number, share in enumerate(self.shares([y for _, y in parts])):
                with self.processes.accumulating(self.loss, last=number == passes - 1):
                    # Products of matrices in the shorter format, where time is won; weights, norms
                    # and the loss stay float32, which has digits enough for small changes.
                    with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
                        loss = self.loss(*parts[number]) * share
                    losses.append(read_later(loss))
                    self.scaler.scale(loss).backward()
            mean = sum(read() for read in losses) / self.processes.world
            # An interrupt of one process reaches all in the same step: one exchange for both.
            loss, interrupts = self.processes.sum(mean, self.interrupted.is_set())
            return loss, interrupts
        except PeerLost:
            self.batches.load_state_dict(before)
            raise

    def shares(self, targets: list[Tensor]) -> list[float]:
        """How much each part's loss weighs in the update: as many of all targets as it has, so that
        it makes no difference how an update is cut into parts. targets: (B, T) each."""
        if self.is_text:  # all of them count
            return [1 / len(targets)] * len(targets)
        counted = [int((y != IGNORE_INDEX).sum()) for y in targets]
        [total] = self.processes.sum(sum(counted))
        return [count * self.processes.world / total for count in counted]  # a mean over processes

    def runaway(self, what: str) -> FloatingPointError:
        peak = self.config.chosen("learning_rate")
        advice = f"lower the learning rate (its peak is {peak:g}), lengthen the warmup"
        return FloatingPointError(f"the {what}: {advice}, or check the data")

    def measure_if_due(self, val_ids: Tensor | None) -> None:
        """The validation loss, over all of val_ids; remembers the best, and stops early. A run that
        ends here by itself ends with its best weights, if it is to keep them."""
        config, history = self.config, self.history
        every = config.eval_every or math.ceil(config.steps / 10)
        # A run that is resumed where it was measured has this step in its history.
        if val_ids is None or not self.is_due(every) or self.step in history.eval_step:
            return
        loss = evaluate(self.model, val_ids, processes=self.processes).loss
        if not math.isfinite(loss):
            raise self.runaway(f"validation loss became {loss} after step {self.step}")
        self.evaluated = True
        if history.add_measurement(self.step, self.tokens, loss) and config.keep_best:
            # A copy: a state_dict holds the weights themselves, which training goes on to move.
            self.best = copy.deepcopy(self.model.state_dict())
        over = config.patience is not None and history.since_best >= config.patience
        if over:
            self.stop = f"no better validation loss in {history.since_best} measurements"
        if (over or self.step == config.steps) and self.best is not None:
            self.model.load_state_dict(self.best)
            self.best = None  # it is the model now

    def call(self, callbacks: Sequence[Callable[[Trainer], None]]) -> None:
        """Show the run to the callbacks, in the process of rank 0."""
        if self.processes.rank == 0:
            for callback in callbacks:
                callback(self)

    def identity(self) -> dict[str, Any]:
        """What must be alike for a run to go on."""
        about = {"model": describe(self.model), "text": fingerprint(self.data), "rows": self.rows}
        return {"config": asdict(self.config), **about}

    def state_dict(self) -> dict[str, Any]:
        """All that ``train`` needs to resume, besides the weights: numbers, strings and tensors. A
        copy, which the run does not change when it goes on."""
        state = {
            **self.identity(),
            "step": self.step,
            "history": asdict(self.history),
            "batches": self.batches.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "best": self.best,
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the run that gave ``state`` stood. ValueError where it was another run, or
        the model is not the one that it had, with the weights of that moment.

        The rows of an update may be shared out differently: over more passes, or processes.
        """
        refuse_another_run(state, self.identity())
        state = copy.deepcopy(state)  # what the run changes stays its own
        self.step = state["step"]
        self.history = History(**state["history"])
        self.history.stopped = None
        self.batches.load_state_dict(state["batches"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
