"""Four questions to put to a language model of your own before a long training run: any module
with ``config.vocab_size``, ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V).

It is called with copies of its weights and buffers; they, its mode and the random state stay as
they were. Nothing is repaired here: a result says what was seen."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmkit.evaluation import device_of, eval_mode


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
    """Change every token after position t: do the logits up to t stay what they were? Tried with
    up to 32 random values of t, in up to 256 tokens."""
    trial = _Trial(model, rows=1, length=256, noise=True)
    T = trial.ids.size(1)
    cuts = sorted(torch.randperm(T - 1, generator=trial.generator)[:32].tolist())
    fault = "the model sees the future: its logits at position {t} change when only tokens after "
    later = {t: torch.arange(T) > t for t in cuts}  # (T,) each
    fault = trial.fault(later, fault + "position {changed} do")
    sound = f"later tokens change no logits, tried at {len(cuts)} of {T} positions"
    return CheckResult("leaks_future", not fault, fault or sound)


@torch.no_grad()
def mixes_batch(model: nn.Module) -> CheckResult:
    """Change one row of a batch, or its place: do the other rows' logits stay what they were?"""
    trial = _Trial(model, rows=3, length=32, noise=True)
    fault = "the rows of a batch are mixed: the logits of row {row}, first at position {t}, "
    rows = dict(enumerate(torch.eye(3, dtype=torch.bool)[..., None]))  # (B, 1) each
    fault = trial.fault(rows, fault + "change when only row {changed} does")
    alike = trial.logits(trial.ids[:1].expand(3, -1))  # the same row in each place
    t = _differ(alike, alike.roll(1, 0)).any(dim=0).nonzero()  # (places that differ, 1)
    if not fault and len(t):
        fault = f"a row's logits, first at position {t[0, 0]}, change with its place in the batch"
    sound = "no row of a batch changes the logits of another"
    return CheckResult("mixes_batch", not fault, fault or sound)


@torch.no_grad()
def starts_uniform(model: nn.Module) -> CheckResult:
    """Is a new model's loss on random tokens within 0.5 nats of ln V, that of an even guess?"""
    loss, V = _Trial(model, rows=8, length=64).loss().item(), model.config.vocab_size
    passed = abs(loss - math.log(V)) <= 0.5  # not so where the loss is NaN
    message = f"the first loss is ≈ {loss:.3f}, and an even guess costs ln {V} = {math.log(V):.3f}"
    advice = "" if passed else ": start with smaller weights in the output layer"
    return CheckResult("starts_uniform", passed, message + advice)


@torch.enable_grad()
def overfits_batch(model: nn.Module, steps: int = 60) -> CheckResult:
    """Can AdamW, at one of three learning rates and without dropout, bring the loss of one small
    random batch under half of ln V, and reach all weights that are not frozen on purpose?"""
    V, even = model.config.vocab_size, math.log(model.config.vocab_size)
    for lr in (1e-2, 1e-3, 1e-1):
        trial = _Trial(model, rows=4, length=16)
        optimizer = torch.optim.AdamW(trial.weights.values(), lr, weight_decay=0.0)
        losses = [trial.loss()]
        while losses[-1].requires_grad and losses[-1] >= even / 2 and len(losses) <= steps:
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
            losses.append(trial.loss())
        if learned := losses[-1].item() < even / 2:
            break
    unreached = [n for n, w in trial.weights.items() if w.requires_grad and w.grad is None]
    message = f"≈ {losses[0]:.3f} to ≈ {losses[-1]:.3f}, with ln {V} = {even:.3f}"
    message += "" if learned else ": something keeps the model from learning"
    message += f", but no gradient reaches {', '.join(unreached)}" if unreached else ""
    passed = learned and not unreached
    return CheckResult("overfits_batch", passed, f"one batch's loss went from {message}")


def run(model: nn.Module) -> list[CheckResult]:
    """All four checks, in the order in which their faults are best mended."""
    return [check(model) for check in (leaks_future, mixes_batch, starts_uniform, overfits_batch)]


class _Trial:
    """A model with a copy of its weights, noise added if wanted (zeros hide what is behind them),
    and two sets of random ids (B, T), on the CPU, that differ everywhere."""

    def __init__(self, model: nn.Module, rows: int, length: int, noise: bool = False):
        self.model, self.device, self.weights = model, device_of(model), {}
        self.generator = torch.Generator().manual_seed(0)
        V, shape = model.config.vocab_size, (rows, min(length, model.config.block_size))
        self.ids = torch.randint(V, shape, generator=self.generator)
        self.others = (self.ids + torch.randint(1, max(2, V), shape, generator=self.generator)) % V
        for name, p in model.named_parameters():
            size = noise / math.sqrt(p[0].numel()) if p.dim() > 1 else noise / 10  # as if trained
            weight = p.detach() + size * torch.randn(p.shape, generator=self.generator).to(p)
            self.weights[name] = weight.requires_grad_(p.requires_grad)

    def logits(self, ids: Tensor, training: bool = False) -> Tensor:
        """(B, T) -> (B, T, V), each time with the same dropout and from the same buffers."""
        state = self.weights | {name: b.clone() for name, b in self.model.named_buffers()}
        cudnn_off = torch.backends.cudnn.flags(enabled=False)  # its LSTM learns in training only
        with eval_mode(self.model), torch.random.fork_rng(), cudnn_off:
            torch.manual_seed(0)
            model = self.model.train(training)
            logits = torch.func.functional_call(model, state, (ids.to(self.device),))
        shape = (*ids.shape, self.model.config.vocab_size)
        if (got := tuple(getattr(logits, "shape", ())) or type(logits).__name__) != shape:
            raise ValueError(f"forward(ids) must return logits (B, T, V) = {shape}, not {got}")
        return logits.float().cpu()

    def loss(self) -> Tensor:
        """Mean cross-entropy, in nats, where the other ids are to be predicted from ids."""
        return nn.functional.cross_entropy(self.logits(self.ids).mT, self.others)

    def fault(self, changes: dict[int, Tensor], message: str) -> str:
        """Put other ids where a mask, one of ``changes``, is True. Where it is not, do logits
        change? Then the message, filled in, else ""."""
        for training in (False, True):  # batch statistics, for one, are used in training mode only
            before = self.logits(self.ids, training)
            if before.isnan().any():
                return "some logits are NaN, as after a softmax over nothing: none can be compared"
            for changed, mask in changes.items():
                after = self.logits(self.others.where(mask, self.ids), training)
                if (wrong := _differ(before, after) & ~mask).any():
                    row, t = wrong.nonzero()[0].tolist()
                    mode = " (in training mode)" if training else ""
                    return message.format(row=row, t=t, changed=changed) + mode
        return ""


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where (B, T) the logits a and b (B, T, V) differ by more than rounding."""
    rounding = 1e-5 * a.where(a.isfinite(), 0).abs().max().item()  # a token changes far more
    return ~a.isclose(b, rtol=0.0, atol=rounding).all(dim=-1)
