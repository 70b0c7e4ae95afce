"""How good a model is, in one number, measured on all of a text: loss, perplexity, bits per
character. The losses that training watches on its way live in ``training``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.ngram import check_ids


def perplexity(loss: float) -> float:
    """e^loss, loss in nats per token: as unsure as between that many equally likely tokens."""
    return math.inf if loss > 709 else math.exp(loss)  # e^710 is more than a float can hold


@dataclass(frozen=True)
class Report:
    """What ``evaluate`` found: ``loss`` in nats per token, how many ``tokens`` were predicted, and
    ``bits_per_char``, which compares models with different tokens (None: characters not given)."""

    loss: float
    tokens: int
    bits_per_char: float | None = None

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    def __repr__(self) -> str:
        bits = "" if self.bits_per_char is None else f" · bits/character ≈ {self.bits_per_char:.3f}"
        numbers = f"loss ≈ {self.loss:.4f} nats · perplexity ≈ {self.perplexity:.3f}{bits}"
        return f"{numbers} · {self.tokens:,} tokens"


@torch.no_grad()
def evaluate(
    model: nn.Module,
    ids: Tensor,
    stride: int | None = None,
    characters: int | None = None,
    batch_size: int = 32,
) -> Report:
    """The mean loss over a whole text: every token but the first is predicted exactly once.

    The text is read in windows of up to ``model.config.block_size`` tokens, each ``stride`` further
    on than the last, that count only what no window before them has predicted. A smaller stride
    gives tokens more context, and takes longer.

    Args:
        model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V);
            it is run in eval mode and left in its own.
        ids: the text, (N,), N of at least 2; on any device.
        stride: 1 to block_size tokens. None: block_size, windows that do not overlap.
        characters: how many characters the N - 1 predicted tokens stand for.
        batch_size: windows at a time, as memory allows; the result is the same.

    Raises ValueError where ids are not so, or another argument is out of its range.
    """
    block_size = model.config.block_size
    stride = block_size if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride must be from 1 to block_size {block_size}, not {stride}")
    for name, number in {"characters": characters, "batch_size": batch_size}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
    ids = check_ids(ids, getattr(model.config, "vocab_size", None), at_least=2)
    device = device_of(model)
    total = torch.zeros((), dtype=torch.float64, device=device)
    with eval_mode(model):
        for i, (x, y) in enumerate(windows(ids, block_size, stride, batch_size)):
            rows = zip(model(x.to(device)), y.to(device), strict=True)  # (T, V), (T,) each
            # Row by row: all of (B, T, V) in float64 would need twice the memory of the logits.
            loss = [F.cross_entropy(row.double(), y, reduction="none") for row, y in rows]
            loss = torch.stack(loss)  # (B, T)
            # The head of every window but the very first was predicted by the one before it.
            loss[int(i == 0) :, : block_size - stride] = 0
            total += loss.sum()
    tokens = len(ids) - 1
    bits = None if characters is None else total.item() / (characters * math.log(2))
    return Report(total.item() / tokens, tokens, bits)


def windows(
    ids: Tensor, block_size: int, stride: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (up to batch_size, block_size) each, of windows stride tokens apart. The
    last comes alone, and shorter, where the text ends in mid-window."""
    x, y = ids[:-1], ids[1:]  # (N - 1,): y[t] follows x[t]
    T = min(block_size, len(x))
    whole_x, whole_y = x.unfold(0, T, stride), y.unfold(0, T, stride)  # (windows, T), not copied
    yield from zip(whole_x.split(batch_size), whole_y.split(batch_size), strict=True)
    start = len(whole_x) * stride
    if start - stride + T < len(x):  # where the whole windows end
        yield x[None, start:], y[None, start:]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout and the like off inside the ``with``; after it, each module is in its mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where the model's numbers are; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
