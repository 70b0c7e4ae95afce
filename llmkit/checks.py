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
NAN = "some logits are NaN, as after a softmax over nothing, so that there is nothing to compare"


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
    for training in (False, True):  # batch statistics, for one, are used in training mode only
        before = trial.logits(trial.ids, training)
        if before.isnan().any():
            return CheckResult("leaks_future", False, NAN)
        for t in cuts:
            ids = torch.cat([trial.ids[:, : t + 1], trial.other_ids[:, t + 1 :]], dim=1)
            changed = _differ(before, trial.logits(ids, training))[0, : t + 1]
            if changed.any():
                seen = f"its logits at position {int(changed.nonzero()[0])} change when only tokens"
                message = f"the model sees the future: {seen} after position {t} do"
                return CheckResult("leaks_future", False, message + _in_mode(training))
    message = f"later tokens change no logits, tried at {len(cuts)} of {T} positions"
    return CheckResult("leaks_future", True, message)


@torch.no_grad()
def mixes_batch(model: nn.Module) -> CheckResult:
    """Change one row of a batch, or its place: do the other rows' logits stay what they were?"""
    trial = _Trial(model, rows=3, length=min(32, model.config.block_size), perturb=True)
    for training in (False, True):
        before = trial.logits(trial.ids, training)
        if before.isnan().any():
            return CheckResult("mixes_batch", False, NAN)
        for row in range(3):
            ids = trial.ids.clone()
            ids[row] = trial.other_ids[row]
            changed = _differ(before, trial.logits(ids, training))  # (B, T)
            changed[row] = False
            if changed.any():
                other, t = changed.nonzero()[0].tolist()
                seen = f"the logits of row {other}, first at position {t}, change when only row"
                message = f"the rows of a batch are mixed: {seen} {row} does" + _in_mode(training)
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
    loss = _Trial(model, rows=8, length=1 + min(64, model.config.block_size)).loss().item()
    V, even = model.config.vocab_size, math.log(model.config.vocab_size)
    passed = abs(loss - even) <= START_TOLERANCE  # not so where the loss is NaN
    message = f"the first loss is ≈ {loss:.3f}, and an even guess costs ln {V} = {even:.3f}"
    advice = "" if passed else ": start with smaller weights in the output layer"
    return CheckResult("starts_uniform", passed, message + advice)


@torch.enable_grad()
def overfits_batch(model: nn.Module, steps: int = 60) -> CheckResult:
    """Can AdamW bring the loss of one small random batch under half of ln V, and reach all weights?

    Learning rates 0.001, 0.01 and 0.1 are tried for ``steps`` steps each, with dropout off. Weights
    frozen on purpose (``requires_grad=False``) need not be reached.
    """
    V, even = model.config.vocab_size, math.log(model.config.vocab_size)
    for lr in (1e-3, 1e-2, 1e-1):
        trial = _Trial(model, rows=4, length=1 + min(16, model.config.block_size))
        weights = {name: p for name, p in trial.model.named_parameters() if p.requires_grad}
        loss = first = trial.loss()
        if not loss.requires_grad:
            message = "nothing can learn: the loss depends on no weight that may change"
            return CheckResult("overfits_batch", False, message)
        optimizer = torch.optim.AdamW(weights.values(), lr=lr, weight_decay=0.0)
        for _ in range(steps):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss = trial.loss()
            if passed := loss.item() < even / 2:
                break
        if passed:
            break
    message = f"one batch's loss went from ≈ {first:.3f} to ≈ {loss:.3f}, with ln {V} = {even:.3f}"
    unreached = [name for name, p in weights.items() if p.grad is None]
    if not passed:
        message += ": something keeps the model from learning"
    elif unreached:
        message += f", but no gradient reaches {', '.join(unreached)}"
    return CheckResult("overfits_batch", passed and not unreached, message)


def run(model: nn.Module) -> list[CheckResult]:
    """All four checks, in the order in which their faults are best mended."""
    return [check(model) for check in (leaks_future, mixes_batch, starts_uniform, overfits_batch)]


class _Trial:
    """A copy of a model, and two sets of random ids (rows, length) that differ everywhere."""

    def __init__(self, model: nn.Module, rows: int, length: int, perturb: bool = False):
        # deepcopy refuses tensors with a history, such as attention weights kept for a picture.
        kept = [value for module in model.modules() for value in vars(module).values()]
        kept = [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]
        self.model = copy.deepcopy(model, {id(value): value.detach().clone() for value in kept})
        self.V = model.config.vocab_size
        self.generator = torch.Generator().manual_seed(0)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        ids = torch.randint(self.V, (rows, length), generator=self.generator)
        shift = torch.randint(1, max(2, self.V), (rows, length), generator=self.generator)
        self.ids, self.other_ids = ids.to(device), ((ids + shift) % self.V).to(device)
        if perturb:  # zeros hide all that stands behind them: add noise as large as usual weights
            for p in self.model.parameters():
                size = 1 / math.sqrt(p[0].numel()) if p.dim() > 1 else 0.1
                p.data += size * torch.randn(p.shape, generator=self.generator).to(p)

    def logits(self, ids: Tensor, training: bool = False) -> Tensor:
        """(B, T) -> (B, T, V), each time with the same dropout and from the same state."""
        memo = {id(p): p for p in self.model.parameters()}  # weights are shared, all else is copied
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            with torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTM learns in training only
                logits = copy.deepcopy(self.model, memo).train(training)(ids)
        shape = (*ids.shape, self.V)
        if not isinstance(logits, Tensor) or logits.shape != shape:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"forward(ids) must return logits (B, T, V) = {shape}, not {got}")
        return logits

    def loss(self) -> Tensor:
        """The mean cross-entropy of each of the ids but the first, in nats."""
        logits = self.logits(self.ids[:, :-1]).float()
        return F.cross_entropy(logits.flatten(0, 1), self.ids[:, 1:].flatten())


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where (B, T) the logits a and b (B, T, V) differ by more than rounding."""
    largest = a.where(a.isfinite(), 0).abs().max()
    return ((a != b) & ~((a - b).abs() <= TOLERANCE * largest)).any(dim=-1)


def _in_mode(training: bool) -> str:
    return " (in training mode)" if training else ""
