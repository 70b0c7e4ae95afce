"""Probes: what a model finds likelier, asked in pairs, and how sure one may be of the answer.

A pair of sentences differs in one word; a template is the sentence with a gap for it. The
difference of the two log-probabilities is a measurement, the template one of many ways to ask, so
intervals are made by drawing templates anew (the bootstrap, Efron 1979). Which words and templates
to take is the caller's to decide, and to defend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.evaluation import device_of, eval_mode
from llmkit.runtime import fast_matmul

GAP = "{}"


@torch.no_grad()
def log_probabilities(
    model: nn.Module, tokenizer: Any, pairs: Sequence[tuple[str, str]], batch_size: int = 64
) -> Tensor:
    """log p(continuation | prefix) in nats, for each (prefix, continuation): (N,) float64.

    model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V).

    Raises ValueError for an empty prefix or continuation, for a pair that does not fit into the
    context, and where a token covers both sides of the seam (with GPT-2's tokenizer a continuation
    begins with its space: "The nurse said that", " she").
    """
    rows, starts = [], []
    for number, (prefix, continuation) in enumerate(pairs):
        before, whole = tokenizer.encode(prefix), tokenizer.encode(prefix + continuation)
        if not len(before) or not continuation:
            raise ValueError(f"pair {number}: prefix and continuation need one token each at least")
        if not torch.equal(whole[: len(before)], before):
            raise ValueError(
                f"pair {number}: a token covers the end of {prefix!r} and the start of "
                f"{continuation!r}; move the space to the continuation"
            )
        if len(whole) - 1 > model.config.block_size:
            raise ValueError(
                f"pair {number}: {len(whole)} tokens; this model reads {model.config.block_size} "
                "and predicts one more, so shorten it"
            )
        rows.append(whole)
        starts.append(len(before) - 1)  # of the row's targets, the first that counts
    found = []
    for i in range(0, len(rows), batch_size):
        part = rows[i : i + batch_size]
        ids = nn.utils.rnn.pad_sequence(part, batch_first=True)  # (B, T + 1); nobody sees the pad
        with eval_mode(model), fast_matmul(device_of(model)):
            logits = model(ids[:, :-1].to(device_of(model))).cpu().double()  # (B, T, V)
        log_p = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # (B, T)
        for row, whole, start in zip(log_p, part, starts[i : i + batch_size], strict=True):
            found.append(row[start : len(whole) - 1].sum())
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def paired(
    model: nn.Module, tokenizer: Any, templates: Sequence[str], first: str, second: str
) -> Tensor:
    """log p with `first` in the gap less log p with `second`, in nats, per template: (N,) float64.

    Each template has one gap, ``{}``, and something before it. What is before the gap is given, and
    what comes after it counts too: "The nurse said that {} was late". Swapping the words turns the
    sign. ValueError for another number of gaps.
    """
    pairs = []
    for template in templates:
        if template.count(GAP) != 1:
            raise ValueError(f"a template has one gap {GAP}, this one has not: {template!r}")
        before, after = template.split(GAP)
        prefix = before.rstrip(" ")
        space = before[len(prefix) :]
        pairs += [(prefix, space + word + after) for word in (first, second)]
    log_p = log_probabilities(model, tokenizer, pairs).view(-1, 2)  # (N, 2)
    return log_p[:, 0] - log_p[:, 1]


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval; ``0 in interval`` asks if it covers 0."""

    mean: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        """Each number behind its own ≈, as the notebooks print what differs between machines."""
        mean, low, high = (format(x, spec) for x in (self.mean, self.low, self.high))
        return f"≈ {mean} [≈ {low}, ≈ {high}]"


def bootstrap(
    values: Tensor | Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of values (N,) and its percentile bootstrap interval (Efron 1979).

    Draws N of the values with replacement, again and again, and takes the middle `level` of the
    means. It speaks of the unit that is resampled (templates, secrets), of nothing else; and for a
    dozen units it is somewhat too narrow. ValueError for fewer than two values, or a level that is
    not between 0 and 1.
    """
    values = torch.as_tensor(values).double().flatten()
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread to resample: give two or more")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, as 0.95, not {level}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    means = values[drawn].mean(dim=1)  # (resamples,)
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(values.mean().item(), low, high)
