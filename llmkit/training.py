"""The training loop: batches in, a better model out, and a history of how it went.

`train` runs it, `TrainConfig` says how, `History` is what it returns. Whatever else should happen
along the way hangs on callbacks: `ProgressBar` and `Checkpointer` are here, a live plot is in
`widgets`. What an update is lives in `optim`, what a good model is in `evaluation`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from llmkit import checkpoint
from llmkit.data import Batches
from llmkit.evaluation import device_of, evaluate
from llmkit.generation import generate
from llmkit.optim import LEARNING_RATES, make_optimizers, schedule, set_learning_rate
from llmkit.runtime import default_dtype

SAMPLE_TOKENS = 200  # the length of the samples taken while training


@dataclass(frozen=True)
class TrainConfig:
    """How to train; a setting that cannot work raises ValueError.

    Attributes:
        steps: updates of the weights.
        batch_size: sequences per forward pass.
        accumulation: forward passes per update; their gradients are averaged, as if the batch had
            accumulation * batch_size rows.
        optimizer: "adamw" or "muon", see ``optim.make_optimizers``.
        learning_rate: its peak; None: the optimizer's own default.
        warmup: steps until the peak is reached; None: a twentieth of all steps.
        schedule: how it falls afterwards, "cosine" or "linear".
        final_lr: where it ends, as a share of the peak.
        weight_decay: pull of the matrices towards zero.
        grad_clip: longest gradient (its norm over all parameters); a longer one is shortened.
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
    warmup: int | None = None
    schedule: str = "cosine"
    final_lr: float = 0.1
    weight_decay: float = 0.1
    grad_clip: float = 1.0
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
        ranges |= dict.fromkeys(("learning_rate", "grad_clip"), (1e-12, math.inf))
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
    ``done``; setting ``stop`` to a reason ends the run.
    """

    def __init__(self, model: nn.Module, train_ids: Tensor, config: TrainConfig) -> None:
        self.model, self.config = model, config
        self.device = device_of(model)
        self.dtype = getattr(torch, config.dtype) if config.dtype else default_dtype(self.device)
        block_size = model.config.block_size
        self.batches = Batches(
            train_ids, block_size, config.batch_size, seed=config.seed, device=self.device
        )
        self.tokens_per_step = config.accumulation * config.batch_size * block_size
        self.optimizers = make_optimizers(
            model, config.optimizer, config.learning_rate, config.weight_decay
        )
        # float16 has no numbers below 6e-8: gradients are scaled up before, and down after.
        half = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.history = History()
        self.step = 0
        self.best: dict[str, Tensor] | None = None
        self.data = zlib.crc32(train_ids.cpu().contiguous().numpy())
        self.evaluated, self.sample, self.stop = False, None, None

    @property
    def done(self) -> bool:
        """Whether this was the last step."""
        return self.step >= self.config.steps or self.stop is not None

    def update(self) -> None:
        """One step: gradients of a batch, clipped, and an update of the weights."""
        started = time.perf_counter()
        config = self.config
        warmup = config.steps // 20 if config.warmup is None else config.warmup
        share = schedule(self.step, config.steps, warmup, config.schedule, config.final_lr)
        lr = set_learning_rate(self.optimizers, share)
        total = 0.0
        for _ in range(config.accumulation):
            x, y = next(self.batches)  # (B, T) each
            with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
                loss = self.model.loss(x, y) / config.accumulation
            self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss became {total} at step {self.step + 1}: lower the learning rate "
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
        history = self.history
        history.step.append(self.step)
        history.tokens.append(self.step * self.tokens_per_step)
        history.loss.append(total)
        history.lr.append(lr)
        history.seconds += time.perf_counter() - started

    def measure(self, val_ids: Tensor) -> None:
        """The validation loss, over all of val_ids; remembers the best, and stops early."""
        history = self.history
        loss = evaluate(self.model, val_ids).loss
        history.eval_step.append(self.step)
        history.eval_tokens.append(self.step * self.tokens_per_step)
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
        """All that `resume` needs besides the weights: numbers, strings and tensors only."""
        state = {
            "config": asdict(self.config),
            "data": self.data,
            "step": self.step,
            "history": asdict(self.history),
            "batches": self.batches.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the run that gave ``state`` stood. ValueError where it was another run."""
        was, now = state["config"], asdict(self.config)
        for name in now:
            if was.get(name) != now[name]:
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
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def train(
    model: nn.Module,
    train_ids: Tensor,
    val_ids: Tensor | None = None,
    config: TrainConfig = TrainConfig(),
    *,
    tokenizer: Any = None,
    callbacks: Sequence[Callable[[Run], None]] = (),
    resume: dict[str, Any] | None = None,
) -> History:
    """Train a model in place and return what happened.

    Args:
        model: any module with ``loss(x, y)`` and ``config.block_size``, on the device to train on.
        train_ids, val_ids: (N,) token ids. Without val_ids nothing is measured on the way.
        config: see `TrainConfig`.
        tokenizer: turns samples into text, where config.sample_every asks for samples.
        callbacks: called with the `Run` after every step.
        resume: what ``checkpoint.load_state`` gives; with the weights of the same checkpoint in the
            model, the run goes on bit for bit as if it had never stopped.

    Interrupted (Ctrl-C, a notebook's stop button), it finishes the step and returns; a second
    interrupt ends it at once. The global random state is left as it was.

    Raises:
        FloatingPointError: the loss is not a number any more; the weights are those before it.
        ValueError: the data are too short, or resume belongs to another run.
    """
    if config.sample_every and tokenizer is None:
        raise ValueError("sample_every needs a tokenizer to turn samples into text: pass one")
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with torch.random.fork_rng(devices), interruptible() as interrupted:
        torch.manual_seed(config.seed)
        run = Run(model, train_ids, config)
        if resume is not None:
            run.load_state_dict(resume)
        model.train()
        eval_every = config.eval_every or math.ceil(config.steps / 10)
        while not run.done:
            run.update()
            if val_ids is not None and is_due(run, eval_every):
                run.measure(val_ids)
            if config.sample_every and is_due(run, config.sample_every):
                ids = generate(model, train_ids[:1], SAMPLE_TOKENS, seed=config.seed)
                run.sample = tokenizer.decode(ids[1:])
                run.history.samples.append((run.step, run.sample))
            if interrupted.is_set():
                run.stop = "interrupted"
            for callback in callbacks:
                callback(run)
    run.history.stopped = run.stop
    if run.best is not None:
        model.load_state_dict(run.best)
    return run.history


def is_due(run: Run, every: int) -> bool:
    """Whether something that happens every so many steps, and after the last, happens now."""
    return run.step % every == 0 or run.step == run.config.steps


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first interrupt into an event, which the loop heeds at the end of its step."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives interrupts
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


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
