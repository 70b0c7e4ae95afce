"""Notebook 07, perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.evaluation import evaluate
from llmkit.exercises.examining import Exercise
from llmkit.ngram import NGram


def _mean(values: Iterable[float], counts: Sequence[int]) -> float:
    return sum(value * n for value, n in zip(values, counts, strict=True)) / sum(counts)


def _mixture(a: Tensor, b: Tensor, m: float) -> float:
    least = torch.minimum(a, b)  # the larger p of the two becomes 1, so that nothing underflows
    p = (1 - m) * (least - a).exp() + m * (least - b).exp()
    return (least - p.log()).mean().item()


def _mixture_by_p(a: Tensor, b: Tensor, m: float) -> float:
    return -((1 - m) * (-a).exp() + m * (-b).exp()).log().mean().item()


def _mixture_case(n: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n)
    a, b = 5 * torch.rand(2, n, dtype=torch.float64, generator=draw)
    return a, b


def _gains(
    order: int = 5, last: bool = False, on_train: bool = False, sign: int = 1, total: bool = False
) -> Any:
    """By how much a counter's loss falls with each doubling, and what else comes of it."""

    def gains(train_ids: Tensor, val_ids: Tensor, V: int) -> tuple[float, float]:
        N, losses = len(train_ids), []
        for n in (N // 4, N // 2, N):
            some = train_ids[-n:] if last else train_ids[:n]
            text = some if on_train else val_ids
            log_p = NGram(some, order, V)(text[None, :-1])[0]  # (N - 1, V)
            losses.append(F.cross_entropy(log_p, text[1:]).item())
        return sign * (losses[0] - losses[1]), sign * (losses[not total] - losses[2])

    return gains


def _text(n: int, V: int, seed: int) -> Tensor:
    """Ids of which each mostly follows from the four before it, (n,)."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (n,), generator=draw)
    for i in range(4, n):
        if torch.rand((), generator=draw) < 0.8:
            ids[i] = (ids[i - 4] + 2 * ids[i - 1]) % V
    return ids


class _Counter(NGram):
    """Counted `abracadabra`, and looks at windows of T letters."""

    def __init__(self, T: int):
        super().__init__(_letters(11), order=4, vocab_size=5)
        self.config = replace(self.config, block_size=T)

    def forward(self, ids: Tensor, last_only: bool = False) -> Tensor:
        if ids.numel() == 0:  # which a GPT refuses too
            raise ValueError("the window is empty")
        return super().forward(ids, last_only)

    def __repr__(self) -> str:
        return f"a model with windows of {self.config.block_size}"


def _letters(n: int) -> Tensor:
    return torch.tensor(["abcdr".index(letter) for letter in ("abracadabra" * n)[:n]])


def _strided(
    twice: bool = False, last: bool = True, first: bool = True, by_counted: bool = False
) -> Any:
    """The measurement with some of its faults: overlaps counted twice, the last windows left out,
    the head of the very first left out; divided by what was counted, or by all."""

    def strided_loss(model: Any, ids: Tensor, stride: int) -> float:
        T, N = model.config.block_size, len(ids)
        losses, reached = [], 0
        for start in range(0, N - 1 if last else N - T, stride):
            window = ids[start : start + T + 1]
            found = F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="none")
            skipped = 0 if twice else reached - start
            losses.append(found[max(skipped, 0 if first or start else T - stride) :])
            reached = max(reached, start + len(found))
        each = torch.cat(losses)
        return each.sum().item() / (len(each) if by_counted else N - 1)

    return strided_loss


BROKEN = """
def strided_loss(model, ids: torch.Tensor, stride: int) -> float:
    T, total = model.config.block_size, 0.0
    for start in range(0, len(ids) - T, stride):
        window = ids[start : start + T + 1].to(device_of(model))  # (T + 1,)
        logits = model(window[None, :-1])[0]  # (T, V)
        total += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / (len(ids) - 1)
"""
_DIE = [0.5] + 5 * [0.1]

EXERCISES = [
    Exercise(
        "07.loaded_die",
        reference=(math.prod(p**-p for p in _DIE), 6.0),
        checked="who knows the die chooses between 4.47 faces, who believes it fair between 6",
        mistakes={
            "that is the mean of 1/p, which is 6 for every die of six faces: take the mean of "
            "-ln p first, and the exponential last": (6.0, 6.0),
            "the loss was taken in nats, so its perplexity is e^loss, not 2^loss": (
                2**1.49787,
                2 ** math.log(6),
            ),
            "the six comes half of the time: weigh each face's -ln p by how often it comes": (
                7.6472,
                6.0,
            ),
            "that is the loss in nats: perplexity is e^loss": (1.49787, math.log(6)),
            "the other way round: who knows comes first, and is surprised less": (6.0, 4.4721),
        },
        hints=(
            "Whatever one believes, the six comes half of the time: that is what to weigh by.",
            "Who knows pays ln 2 for a six and ln 10 for each other face. Who believes it fair "
            "pays ln 6 always.",
            "e^(ln 2 / 2 + ln 10 / 2) is the root of 2 · 10.",
        ),
        tolerance=0.003,  # 4.47 and 4.5 are not the same, 4.47 and 4.472 are
    ),
    Exercise(
        "07.combine",
        reference=lambda losses, counts: math.prod(
            math.exp(loss) ** (n / sum(counts)) for loss, n in zip(losses, counts, strict=True)
        ),
        checked="each character weighs the same, and the exponential comes last",
        cases=[
            ([2.0], [3]),
            ([2.0, 4.0], [100, 1]),
            ([1.0, 3.0], [5, 5]),
            ([0.5, 2.5, 1.0], [10, 0, 30]),
        ],
        mistakes={
            "the pieces weigh the same: a piece of one character should count as one": (
                lambda losses, counts: math.exp(sum(losses) / len(losses))
            ),
            "that is the mean of the perplexities: average the losses, and take the "
            "exponential last": lambda losses, counts: sum(map(math.exp, losses)) / len(losses),
            "each piece is weighed rightly, but its perplexity was: weigh its loss, and take "
            "the exponential last": lambda losses, counts: _mean(map(math.exp, losses), counts),
            "that is the mean loss: perplexity is e^loss": _mean,
            "that is e^(the sum): divide the sum by the number of characters first": (
                lambda losses, counts: math.exp(_mean(losses, counts) * sum(counts))
            ),
        },
        hints=(
            "A piece of n characters with mean loss 2 has cost 2 n nats in all.",
            "Add up the nats and the characters of all pieces; divide; then e^.",
        ),
    ),
    Exercise(
        "07.bits_per_character",
        reference=lambda loss, tokens, characters: math.log2(math.exp(loss)) / characters * tokens,
        checked="the total in bits, shared among the characters",
        cases=[(1.0, 10, 10), (1.0, 10, 20), (3.2, 1000, 2700)],
        mistakes={
            "that is in nats: one nat is 1 / ln 2 bits, as log2 x = ln x / ln 2": (
                lambda loss, tokens, characters: loss * tokens / characters
            ),
            "the other way round: a nat is more than a bit, so divide by ln 2": (
                lambda loss, tokens, characters: loss * math.log(2) * tokens / characters
            ),
            "that is per token: share the total among the characters": (
                lambda loss, tokens, characters: loss / math.log(2)
            ),
            "a token of several characters costs each of them less, not more: multiply by the "
            "tokens, divide by the characters": (
                lambda loss, tokens, characters: loss / math.log(2) * characters / tokens
            ),
            "that is the total of the text: divide it by the characters": (
                lambda loss, tokens, characters: loss / math.log(2) * tokens
            ),
        },
        hints=(
            "The whole text costs loss · tokens nats. Whose number does not depend on how it "
            "was cut into tokens?",
            "ln 2 nats are one bit.",
        ),
    ),
    Exercise(
        "07.gains",
        reference=_gains(),
        checked="the fall from a quarter to a half, and from a half to all, on held-out text",
        cases=[
            (_text(24, 2, 0), _text(6, 2, 1), 2),
            (_text(200, 3, 2), _text(50, 3, 3), 3),
            (_text(401, 4, 4), _text(100, 4, 5), 4),
        ],
        mistakes={
            "the loss falls, so it should be the smaller text's loss minus the larger's": (
                _gains(sign=-1)
            ),
            "take the first quarter and the first half, not the last": _gains(last=True),
            "measured on the text that was counted: give `loss` the held-out ids": _gains(
                on_train=True
            ),
            "that is order 4, which sees three characters: order 5 sees four": _gains(4),
            "that is order 6, which sees five characters: order 5 sees four": _gains(6),
            "that is the fall from a quarter both times: the second is from a half to all": (
                _gains(total=True)
            ),
        },
        hints=(
            "llmkit.NGram(train_ids[:n], 5, V) has counted the first n characters.",
            "Three losses on val_ids make two differences.",
        ),
    ),
    Exercise(
        "07.strided_loss",
        reference=lambda model, ids, stride: evaluate(model, ids, stride=stride).loss,
        checked="equal to llmkit.evaluate: every character but the first counts exactly once",
        cases=[
            (_Counter(2), _letters(3), 2),
            (_Counter(2), _letters(4), 2),
            (_Counter(2), _letters(5), 1),
            (_Counter(4), _letters(12), 3),
            (_Counter(4), _letters(13), 4),
            (_Counter(6), _letters(40), 1),
        ],
        mistakes={
            "characters in two windows count twice: leave out what a window before has "
            "predicted": _strided(twice=True),
            "characters in two windows count twice, in the sum and in the number by which it "
            "is divided": _strided(twice=True, by_counted=True),
            "the last characters are not predicted: a shorter window must follow": _strided(
                last=False
            ),
            "the last characters are not predicted, and are missing in the number too": (
                _strided(last=False, by_counted=True)
            ),
            "the first window has nothing before it, so all of its predictions count": _strided(
                first=False
            ),
            "the first window counts whole: its head is missing, in the number too": _strided(
                first=False, by_counted=True
            ),
            "both faults are there: the overlaps, and the last window": _strided(
                twice=True, last=False, by_counted=True
            ),
        },
        hints=(
            "Take six characters, windows of four and a stride of one, and write down which "
            "characters each window predicts.",
            'With reduction="none" each prediction has its own loss: (T,). Which were new?',
            "Keep in mind how many characters are predicted so far: a window that begins at "
            "`start` repeats `counted - start` of them.",
        ),
        stub=BROKEN,
    ),
    Exercise(
        "07.mixture_loss",
        reference=_mixture,
        checked="the mean of -ln of the mixed probability, also where e^-loss is too small",
        cases=[
            (torch.tensor([1.0]), torch.tensor([1.0]), 0.5),
            (torch.tensor([1.0]), torch.tensor([2.0]), 0.5),
            (*_mixture_case(3), 0.1),
            (*_mixture_case(20), 0.0),
            (*_mixture_case(20), 1.0),
            (torch.tensor([1000.0, 2.0]), torch.tensor([1001.0, 1.0]), 0.25),
        ],
        mistakes={
            "that mixes the losses: mix the probabilities, and take the logarithm after": (
                lambda a, b, m: ((1 - m) * a + m * b).mean().item()
            ),
            "e^-1000 is 0 for a computer, and its logarithm is -inf: stay with logarithms, as "
            "`torch.logsumexp` does": _mixture_by_p,
            "the other way round: m is the share of the second model": (
                lambda a, b, m: _mixture(b, a, m)
            ),
            "the mean comes too early: take -ln p of each character, and then their mean": (
                lambda a, b, m: -((1 - m) * (-a).exp() + m * (-b).exp()).mean().log().item()
            ),
            "the better of the two in each place is what nobody can choose beforehand: mix": (
                lambda a, b, m: torch.minimum(a, b).mean().item()
            ),
        },
        hints=(
            "p = e^-loss. With that, (1 - m) · p_a + m · p_b, and -ln of it, is right for all "
            "cases but the last.",
            "ln((1 - m) e^-a + m e^-b) = ln(e^(ln(1 - m) - a) + e^(ln m - b)).",
            "torch.logsumexp(x, dim=0) is ln of the sum of e^x, and nothing in it underflows.",
        ),
    ),
]
