"""Four questions to put to a language model of your own before a long training run.

They take any ``nn.Module`` with ``config.vocab_size``, ``config.block_size`` and a ``forward(ids)``
that turns ids (B, T) into logits (B, T, V). They work on a deep copy and leave the model, its mode
and the random state as they were. Nothing is repaired here: a result says what was seen.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-5  # of the largest logit: above rounding, far below what a token really changes
START_TOLERANCE = 0.5  # nats: how far from ln V still counts as an even start


@dataclass(frozen=True)
class CheckResult:
    """What one check found: ``passed`` is True where all is well, ``message`` says it in words."""

    name: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {self.message}"

    def __bool__(self) -> bool:  # would `if leaks_future(model)` mean that it leaks, or that not?
        raise TypeError("a CheckResult is neither true nor false: ask for its .passed")


@torch.no_grad()
def leaks_future(model: nn.Module) -> CheckResult:
    """Change every token after position t: do the logits up to t stay what they were?

    At most 256 tokens are looked at, and at most 32 values of t, drawn at random.
    """
    trial = _Trial(model, rows=1, length=min(256, model.config.block_size), perturb=True)
    T = trial.ids.size(1)
    cuts = sorted(torch.randperm(T - 1, generator=trial.generator)[:32].tolist())
    for training in (False, True):  # batch statistics, for one, work in training mode only
        for t in cuts:
            changed = trial.changed_logits(slice(None), slice(t + 1, None), training)[0, : t + 1]
            if changed.any():
                message = (
                    f"the model sees the future: its logits at position {int(changed.nonzero()[0])}"
                    f" change when only tokens after position {t} change{_in_mode(training)}"
                )
                return CheckResult("leaks_future", False, message)
    message = f"later tokens change no logits, tried at {len(cuts)} of {T} positions"
    return CheckResult("leaks_future", True, message)


@torch.no_grad()
def mixes_batch(model: nn.Module) -> CheckResult:
    """Change one row of a batch, or its place: do the other rows' logits stay what they were?"""
    trial = _Trial(model, rows=3, length=min(32, model.config.block_size), perturb=True)
    for training in (False, True):
        for row in range(3):
            changed = trial.changed_logits(row, slice(None), training)  # (B, T)
            changed[row] = False
            if changed.any():
                other, t = changed.nonzero()[0].tolist()
                message = (
                    f"the rows of a batch are mixed: logits of row {other}, first at position {t}, "
                    f"change when only row {row} changes{_in_mode(training)}"
                )
                return CheckResult("mixes_batch", False, message)
    moved = _differ(trial.logits(trial.ids).roll(1, 0), trial.logits(trial.ids.roll(1, 0)))
    if moved.any():
        t = int(moved.any(dim=0).nonzero()[0])
        message = f"a row's logits, first at position {t}, change with its place in the batch"
        return CheckResult("mixes_batch", False, message)
    return CheckResult("mixes_batch", True, "no row of a batch changes the logits of another")


@torch.no_grad()
def starts_uniform(model: nn.Module) -> CheckResult:
    """Is the loss on random tokens within 0.5 nats of ln V, the loss of an even guess?

    The model is taken as it is, so this is a question for a new one: a trained one prefers tokens.
    """
    trial = _Trial(model, rows=8, length=1 + min(64, model.config.block_size))
    V, loss = model.config.vocab_size, trial.loss().item()
    passed = abs(loss - math.log(V)) <= START_TOLERANCE  # not so for NaN either
    message = f"the first loss is ≈ {loss:.3f}; an even guess costs ln {V} = {math.log(V):.3f}"
    advice = "" if passed else ": start with a smaller output layer"
    return CheckResult("starts_uniform", passed, message + advice)


@torch.enable_grad()
def overfits_batch(model: nn.Module, steps: int = 60) -> CheckResult:
    """Can AdamW bring the loss of one small random batch under half of ln V, moving all weights?

    Learning rates 0.001, 0.01 and 0.1 have ``steps`` steps each, with dropout off. Weights frozen
    on purpose (``requires_grad=False``) are not asked to move.
    """
    V, name = model.config.vocab_size, "overfits_batch"
    goal = math.log(V) / 2
    for lr in (1e-3, 1e-2, 1e-1):
        trial = _Trial(model, rows=4, length=1 + min(16, model.config.block_size))
        loss = first = trial.loss()
        if not loss.requires_grad:
            return CheckResult(name, False, "nothing can learn: the loss depends on no weight")
        weights = {n: p for n, p in trial.model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(weights.values(), lr=lr, weight_decay=0.0)
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.backends.cudnn.flags(enabled=False):  # its LSTM only learns with dropout on
                loss.backward()
            optimizer.step()
            loss = trial.loss()
            if loss < goal:
                break
        if loss < goal:
            break
    message = f"one batch's loss went from ≈ {first:.3f} to ≈ {loss:.3f} (ln {V} = {2 * goal:.3f})"
    if not loss < goal:
        return CheckResult(name, False, f"{message}: something keeps the model from learning")
    still = [n for n, p in weights.items() if p.grad is None]
    if still:
        return CheckResult(name, False, f"{message}, but no gradient reaches {', '.join(still)}")
    return CheckResult(name, True, message)


def run(model: nn.Module) -> list[CheckResult]:
    """All four checks, in the order in which their faults are best mended."""
    return [check(model) for check in (leaks_future, mixes_batch, starts_uniform, overfits_batch)]


class _Trial:
    """A copy of a model and random ids (rows, length) to try it on."""

    def __init__(self, model: nn.Module, rows: int, length: int, perturb: bool = False):
        # deepcopy refuses tensors that are results, such as attention weights kept for a picture.
        kept = [value for module in model.modules() for value in vars(module).values()]
        kept = [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]
        self.model = copy.deepcopy(model, {id(value): value.detach().clone() for value in kept})
        self.generator = torch.Generator().manual_seed(0)
        self.V = model.config.vocab_size
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.ids = torch.randint(self.V, (rows, length), generator=self.generator).to(device)
        if perturb:  # zeros hide everything behind them, so noise is added as a usual start has it
            for p in self.model.parameters():
                size = 1 / math.sqrt(p[0].numel()) if p.dim() > 1 else 0.1
                noise = torch.randn(p.shape, generator=self.generator)
                p.data.add_(size * noise.to(p))

    def logits(self, ids: Tensor, training: bool = False) -> Tensor:
        """(B, T) -> (B, T, V), the same dropout and other chance each time."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            logits = self.model.train(training)(ids)
        shape = (*ids.shape, self.V)
        if not isinstance(logits, Tensor) or logits.shape != shape:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"forward(ids) must return logits (B, T, V) = {shape}, not {got}")
        return logits

    def loss(self) -> Tensor:
        logits = self.logits(self.ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), self.ids[:, 1:].flatten())

    def changed_logits(self, rows: int | slice, times: slice, training: bool) -> Tensor:
        """Where (B, T) the logits change when the ids at [rows, times] do."""
        ids = self.ids.clone()
        shift = torch.randint(1, max(2, self.V), ids.shape, generator=self.generator).to(ids.device)
        ids[rows, times] = ((ids + shift) % self.V)[rows, times]  # each becomes another one
        return _differ(self.logits(self.ids, training), self.logits(ids, training))


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where (B, T) two logits (B, T, V) differ by more than rounding."""
    largest = a[a.isfinite()].abs().max() if a.isfinite().any() else 0.0
    return ((a != b) & ~((a - b).abs() <= TOLERANCE * largest)).any(dim=-1)


def _in_mode(training: bool) -> str:
    return " (in training mode)" if training else ""
