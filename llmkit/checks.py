"""Four questions to put to a language model of your own before a long training run: any module
with ``config.vocab_size``, ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V).

It is called with copies of its weights and buffers; they, its mode and the random state stay as
they were. Nothing is repaired here: a result says what was seen."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from llmkit.arguments import LanguageModel, check_number
from llmkit.evaluation import device_of, eval_mode, vocab_size_of


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
def leaks_future(model: LanguageModel) -> CheckResult:
    """Change every token after position t: do the logits up to t stay what they were? Tried with
    up to 32 random values of t, in up to 256 tokens."""
    trial = _Trial(model, rows=1, length=256, noise=1.0)
    T = trial.ids.size(1)
    # The same positions each time: a fault must not come and go with the reader's random state.
    tried = sorted(random.Random(0).sample(range(T - 1), min(32, T - 1)))
    later = {t: torch.arange(T) > t for t in tried}  # (T,) each
    fault = "the model sees the future: its logits at position {t} change when only tokens after "
    fault = trial.fault(later, fault + "position {changed} do")
    sound = f"later tokens change no logits, tried at {len(tried)} of {T} positions"
    return CheckResult("leaks_future", not fault, fault or sound)


@torch.no_grad()
def mixes_batch(model: LanguageModel) -> CheckResult:
    """Change one row of a batch, or its place: do the other rows' logits stay what they were?"""
    trial = _Trial(model, rows=3, length=32, noise=1.0)
    rows = dict(enumerate(torch.eye(3, dtype=torch.bool)[..., None]))  # (B, 1) each
    fault = "the rows of a batch are mixed: the logits of row {row}, first at position {t}, "
    fault = trial.fault(rows, fault + "change when only row {changed} does")
    # What is added along the batch by mistake shows where the same row stands in every place.
    alike = trial.logits(trial.ids[:1].expand(3, -1))  # (B, T, V)
    t = _differ(alike, alike.roll(1, 0)).any(dim=0).nonzero()  # (positions that differ, 1)
    if not fault and len(t):
        fault = f"a row's logits, first at position {t[0, 0]}, change with its place in the batch"
    message = fault or "no row of a batch changes the logits of another"
    return CheckResult("mixes_batch", not fault, message)


@torch.no_grad()
def starts_uniform(model: LanguageModel) -> CheckResult:
    """Is a new model's loss on random tokens within 0.5 nats of ln V, that of an even guess?"""
    loss, V = _Trial(model, rows=8, length=64).loss().item(), model.config.vocab_size
    passed = abs(loss - math.log(V)) <= 0.5  # not so where the loss is NaN
    message = f"the first loss is ≈ {loss:.3f}, and an even guess costs ln {V} = {math.log(V):.3f}"
    advice = "" if passed else ": start with smaller weights in the output layer"
    return CheckResult("starts_uniform", passed, message + advice)


@torch.enable_grad()  # whoever asks inside a no_grad wants an answer all the same
def overfits_batch(model: LanguageModel, steps: int = 60) -> CheckResult:
    """Can AdamW, at one of three learning rates and without dropout, bring the loss of one small
    random batch under half of ln V, and reach all weights that are not frozen on purpose?"""
    check_number("steps", steps, int, least=1)
    V = vocab_size_of(model)
    even = math.log(V)
    for lr in (1e-2, 1e-3, 1e-1):  # a model is not at fault for the rate that suits it
        trial = _Trial(model, rows=4, length=16)
        # No decay: to learn by heart is what is asked here.
        optimizer = torch.optim.AdamW(trial.weights.values(), lr, weight_decay=0.0)
        loss = first = trial.loss()
        for _ in range(steps):
            if loss < even / 2 or not loss.requires_grad:  # enough, or nothing to learn with
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss = trial.loss()
        learned = bool(loss < even / 2)
        if learned:
            break
    message = f"one batch's loss went from ≈ {first:.3f} to ≈ {loss:.3f}, with ln {V} = {even:.3f}"
    unreached = [n for n, w in trial.weights.items() if w.requires_grad and w.grad is None]
    if not learned:
        message += ": something keeps the model from learning"
    if unreached:
        message += f", but no gradient reaches {', '.join(unreached)}"
    return CheckResult("overfits_batch", learned and not unreached, message)


def run(model: LanguageModel) -> list[CheckResult]:
    """All four checks, in the order in which their faults are best mended."""
    return [check(model) for check in (leaks_future, mixes_batch, starts_uniform, overfits_batch)]


class _Trial:
    """A model, a copy of its weights, with noise where zeros would hide what is behind them, and
    two sets of random ids (B, T), on the CPU, that differ everywhere."""

    def __init__(self, model: LanguageModel, rows: int, length: int, noise: float = 0.0):
        self.V = int(vocab_size_of(model))
        self.model = cast(nn.Module, model)
        generator = torch.Generator().manual_seed(0)
        shape = (rows, min(length, model.config.block_size))
        self.ids = torch.randint(self.V, shape, generator=generator)
        step = torch.randint(1, max(2, self.V), shape, generator=generator)
        self.others = (self.ids + step) % self.V
        self.weights: dict[str, Tensor] = {}
        for name, weight in model.named_parameters():
            size = 1 / math.sqrt(weight[0].numel()) if weight.dim() > 1 else 0.1  # as if trained
            normal = torch.randn(weight.shape, generator=generator).to(weight)
            copy = weight.detach() + noise * size * normal
            self.weights[name] = copy.requires_grad_(weight.requires_grad)

    def logits(self, ids: Tensor, training: bool = False) -> Tensor:
        """(B, T) -> (B, T, V), each time with the same dropout and from the same buffers."""
        # The model may change its buffers while it runs: each call gets new copies of them.
        state = self.weights | {name: b.clone() for name, b in self.model.named_buffers()}
        with eval_mode(self.model), torch.random.fork_rng(), _without_cudnn():
            torch.manual_seed(0)
            self.model.train(training)
            ids = ids.to(device_of(self.model))
            logits = torch.func.functional_call(self.model, state, (ids,))
        shape = (*ids.shape, self.V)
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if got != shape:
            raise ValueError(f"forward(ids) must return logits (B, T, V) = {shape}, not {got}")
        return logits.float().cpu()

    def loss(self) -> Tensor:
        """Mean cross-entropy, in nats, where the other ids are to be predicted from ids."""
        return nn.functional.cross_entropy(self.logits(self.ids).mT, self.others)

    def fault(self, masks: dict[int, Tensor], message: str) -> str:
        """Put the other ids where one of the masks is True: do logits change where it is False?
        Then the message, with {changed} (the mask's key), {row} and {t} filled in; else ""."""
        for training in (False, True):  # batch statistics, for one, are used in training mode only
            before = self.logits(self.ids, training)
            if before.isnan().any():
                return "some logits are NaN, as after a softmax over nothing: none can be compared"
            for changed, mask in masks.items():
                after = self.logits(self.others.where(mask, self.ids), training)
                wrong = (_differ(before, after) & ~mask).nonzero()
                if len(wrong):
                    row, t = wrong[0].tolist()
                    mode = " (in training mode)" if training else ""
                    return message.format(row=row, t=t, changed=changed) + mode
        return ""


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where (B, T) the logits a and b (B, T, V) differ by more than rounding."""
    rounding = 1e-5 * a.where(a.isfinite(), 0).abs().max().item()  # a token changes far more
    return ~a.isclose(b, rtol=0.0, atol=rounding).all(dim=-1)


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Its LSTM learns in training only. (PyTorch's own `cudnn.flags` warns in version 2.9.)"""
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled
