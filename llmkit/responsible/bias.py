"""Bias, measured in pairs of sentences: what a model finds likelier, and how sure one may be of it.

A pair of sentences differs in one word; a template is the sentence with a gap for it. The
difference of the two log-probabilities is a measurement, the template one of many ways to ask, so
intervals are made by drawing templates again (the bootstrap, Efron 1979). Which words and templates
to take is the caller's to decide, and to defend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.evaluation import IGNORE_INDEX, eval_mode, token_losses
from llmkit.runtime import seeded


@torch.no_grad()
def log_probabilities(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    batch_size: int = 64,
) -> Tensor:
    """log p(continuation | prefix) in nats, for each (prefix, continuation): (N,) float64.

    Raises ValueError for an empty prefix or continuation, for a pair that does not fit into the
    context, and where one token covers the end of the prefix and the start of the continuation
    (with GPT-2's tokenizer a continuation begins with its space: "The nurse said that", " she").
    """
    inputs, targets = [], []
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
        wanted = whole.clone()
        wanted[: len(before)] = IGNORE_INDEX  # the prefix is given
        inputs.append(whole[:-1])
        targets.append(wanted[1:])
    found = []
    with eval_mode(model):
        for start in range(0, len(inputs), batch_size):
            part = slice(start, start + batch_size)
            x = pad_sequence(inputs[part], batch_first=True)  # (B, T); nothing looks at the padding
            y = pad_sequence(targets[part], batch_first=True, padding_value=IGNORE_INDEX)  # (B, T)
            found.append(-token_losses(model, x, y).sum(dim=1).cpu())  # (B,)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def log_odds(
    model: LanguageModel, tokenizer: Tokenizer, templates: Sequence[str], first: str, second: str
) -> Tensor:
    """log p with `first` in the gap less log p with `second`, in nats, per template: (N,) float64.

    Each template has one gap, ``{}``, and something before it. What is before the gap is given, and
    what comes after it counts too: "The nurse said that {} was late". Exchanging the words turns
    the sign. ValueError for another number of gaps.
    """
    pairs = []
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"a template has one gap {{}}, this one has not: {template!r}")
        before, after = template.split("{}")
        prefix = before.rstrip(" ")
        space = before[len(prefix) :]  # belongs to the word: see `log_probabilities`
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
        """Each number after its own ≈, as the notebooks print what differs between machines."""
        mean, low, high = (format(x, spec) for x in (self.mean, self.low, self.high))
        return f"≈ {mean} [≈ {low}, ≈ {high}]"


def bootstrap_interval(
    values: Tensor | Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of values (N,) and its percentile bootstrap interval (Efron 1979).

    Draws N of the values with replacement, again and again, and takes the middle `level` of the
    means. It speaks of the unit that is resampled (templates, secrets), of nothing else; and for a
    dozen units it is somewhat too narrow. ValueError for fewer than two values, or a level that is
    not between 0 and 1.
    """
    values = torch.as_tensor(values).double().flatten().cpu()  # so is what is drawn
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread to resample: give two or more")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, as 0.95, not {level}")
    generator = seeded(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    means = values[drawn].mean(dim=1)  # (resamples,)
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(values.mean().item(), low, high)
