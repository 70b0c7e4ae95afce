"""The training loop: batches in, a better model out, and a history of how it went.

`train` runs it, `TrainConfig` (in `train_config`) says how, `History` (in `run`, with what a step
is) is what it returns. Whatever else should happen along the way hangs on callbacks: `ProgressBar`
and `Checkpointer` are here, a live plot is in `widgets`.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from llmkit import checkpoint, distributed
from llmkit.evaluation import device_of
from llmkit.finetune.instructions import ExampleDataset
from llmkit.generation import generate
from llmkit.run import History, Run
from llmkit.train_config import TrainConfig

SAMPLE_TOKENS = 200  # the length of the samples taken while training


def train(
    model: nn.Module,
    train_ids: Tensor | ExampleDataset,
    val_ids: Tensor | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    *,
    tokenizer: Any = None,
    callbacks: Sequence[Callable[[Run], None]] = (),
    resume: dict[str, Any] | None = None,
) -> History:
    """Train a model in place and return what happened.

    Args:
        model: any module with ``loss(x, y)`` and ``config.block_size``, on the device to train on.
        train_ids, val_ids: (N,) token ids. Without val_ids nothing is measured on the way. Tasks
            with answers to train on come as an ``ExampleDataset`` in place of train_ids.
        config: see `TrainConfig`.
        tokenizer: turns samples into text, where config.sample_every asks for samples.
        callbacks: called with the `Run` after every step.
        resume: what ``checkpoint.load_state`` gives; with the weights of the same checkpoint in the
            model, the run goes on bit for bit as if it had never stopped.

    Started by torchrun, every process calls this. They share out each batch, and each measurement;
    weights and ``resume`` are those of rank 0, which alone takes samples and calls callbacks.

    Interrupted (Ctrl-C, a notebook's stop button), it finishes the step and returns; a second
    interrupt ends it at once. The global random state is left as it was.

    Raises:
        FloatingPointError: the loss is not a number any more; the weights are those before it.
        ValueError: the data are too short, or resume belongs to another run.
        distributed.PeerLost: another process has died; the callbacks have been called once more,
            with ``run.stop`` set, so that a `Checkpointer` has saved the last whole step.
    """
    if config.sample_every and tokenizer is None:
        raise ValueError("sample_every needs a tokenizer to turn samples into text: pass one")
    if config.sample_every and not isinstance(train_ids, Tensor):
        raise ValueError("sample_every continues a text, and these are rows: leave it out")
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        gradient_checkpointing(model, config.gradient_checkpointing),
        interruptible() as interrupted,
    ):
        run = Run(model, train_ids, config, interrupted)
        if resume := distributed.broadcast(resume):
            run.load_state_dict(resume)
            measure_if_due(run, val_ids)  # a process may have been lost over it
        model.train()
        try:
            while not run.done:
                run.update()
                measure_if_due(run, val_ids)
                if config.sample_every and run.is_due(config.sample_every) and run.rank == 0:
                    ids = generate(model, train_ids[:1], SAMPLE_TOKENS, seed=config.seed)
                    run.sample = tokenizer.decode(ids[1:])
                    run.history.samples.append((run.step, run.sample))
                call(callbacks, run)
                run.stop = distributed.broadcast(run.stop)
        except distributed.PeerLost as error:
            run.stop = str(error)
            call(callbacks if run.step else (), run)
            advice = "start all of them again, and resume from the last checkpoint"
            raise distributed.PeerLost(f"{error}, after step {run.step}: {advice}") from None
    run.history.stopped = run.stop
    if run.best is not None:
        model.load_state_dict(run.best)
    return run.history


def measure_if_due(run: Run, val_ids: Tensor | None) -> None:
    """The validation loss, at the steps that config.eval_every names."""
    every = run.config.eval_every or math.ceil(run.config.steps / 10)
    if val_ids is not None and run.is_due(every) and run.step not in run.history.eval_step:
        run.measure(val_ids)


def call(callbacks: Sequence[Callable[[Run], None]], run: Run) -> None:
    """Show the run to the callbacks of rank 0; they may do as if it were the only process."""
    if run.rank == 0:
        with distributed.alone():
            for callback in callbacks:
                callback(run)


@contextmanager
def gradient_checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside the ``with``, if wanted, the model computes each block again on the way back."""
    before = getattr(model, "gradient_checkpointing", None)
    if wanted and before is None:
        raise ValueError("this model cannot do gradient_checkpointing: leave it out of the config")
    if wanted:
        model.gradient_checkpointing = True
    try:
        yield
    finally:
        if wanted:
            model.gradient_checkpointing = before


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first interrupt into an event, which the loop heeds at the end of its step.

    torchrun ends processes by SIGTERM, also those that are left when one has died. Those may still
    save, and say what happened.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives interrupts
        return
    signals = [signal.SIGINT] + [signal.SIGTERM] * (distributed.world() > 1)
    before = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in signals:
        signal.signal(number, handle)
    try:
        yield event
    except distributed.PeerLost:
        before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number in signals:
            signal.signal(number, before[number])


class ProgressBar:
    """A callback: a bar with the losses so far, a widget in a notebook and a line in a terminal."""

    def __init__(self, **options: Any) -> None:
        self.options, self.bar = options, None

    def __call__(self, run: Run) -> None:
        if self.bar is None:
            self.bar = tqdm(total=run.config.steps, initial=run.step - 1, **self.options)
        self.bar.update(run.step - self.bar.n)
        if run.evaluated:
            self.bar.set_postfix_str(f"val loss {run.history.val_loss[-1]:.3f}", refresh=False)
        if run.done:
            self.bar.close()


class Checkpointer:
    """A callback: saves model, tokenizer and run to a folder every so many steps and at the end."""

    def __init__(self, folder: str | Path, tokenizer: Any = None, every: int = 500) -> None:
        self.folder, self.tokenizer, self.every = Path(folder), tokenizer, every

    def __call__(self, run: Run) -> None:
        if run.done or run.step % self.every == 0:
            checkpoint.save(self.folder, run.model, self.tokenizer, state=run.state_dict())
