"""How good a model is, in one number, measured on all of a text: loss, perplexity, bits per
character. The losses that training watches on its way live in ``training``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from numbers import Real
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.arguments import LanguageModel, ModelConfig, check_number, check_type, shown
from llmkit.data import check_ids
from llmkit.runtime import ALONE, OneProcess

IGNORE_INDEX = -100  # the target that costs nothing, PyTorch's own choice
Model = TypeVar("Model")
SCORES = 2**24  # how many of a model's scores are held at a time, unless a single window has more
PIECE = 2**21  # of how many of them the losses are computed together, in float64


def perplexity(loss: float) -> float:
    """e^loss, loss in nats per token: as unsure as between that many equally likely tokens."""
    check_type("loss", loss, Real, wanted="a number")
    return math.inf if loss > 709 else math.exp(loss)  # e^710 is more than a float can hold


@dataclass(frozen=True)
class Report:
    """What ``evaluate`` found."""

    loss: float  # nats per token
    tokens: int  # how many were predicted
    bits_per_char: float | None = None  # to compare models with different tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    def __repr__(self) -> str:
        bits = "" if self.bits_per_char is None else f" · bits/character ≈ {self.bits_per_char:.3f}"
        numbers = f"loss ≈ {self.loss:.4f} nats · perplexity ≈ {self.perplexity:.3f}{bits}"
        return f"{numbers} · {self.tokens:,} tokens"


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    ids: Tensor,
    stride: int | None = None,
    characters: int | None = None,
    batch_size: int | None = None,
    processes: OneProcess = ALONE,
) -> Report:
    """The mean loss over a whole text: every token but the first is predicted exactly once.

    Args, or a ValueError where they are not so:
        model: any module with ``config.block_size`` and forward(ids (B, T)) -> logits (B, T, V);
            it is run in eval mode and left in its own.
        ids: the text, (N,), N of at least 2; read in windows of up to block_size tokens, of which
            each counts only what none before it has predicted.
        stride: from one window to the next, 1 to block_size tokens. None: block_size, no overlap;
            less gives tokens more context, and takes longer.
        characters: how many characters the N - 1 predicted tokens stand for.
        batch_size: windows at a time; the result is the same. None: as `fitting_batch` says.
        processes: as in ``train``: each of them calls this, reads its share of the windows, and
            gets the same result.

    FloatingPointError where the loss is not a number.
    """
    ids = check_ids(ids, vocab_size_of(model), at_least=2)
    block_size = model.config.block_size
    stride = block_size if stride is None else stride
    check_number("stride", stride, int, least=1, most=block_size)
    check_number("characters", characters, int, optional=True, least=1)
    check_number("batch_size", batch_size, int, optional=True, least=1)
    total = torch.zeros((), dtype=torch.float64)  # in float32 a sum of millions loses its digits
    with eval_mode(model):
        at_a_time = batch_size or fitting_batch(model.config)
        batches = enumerate(windows(ids, block_size, stride, at_a_time))
        for i, (x, y) in islice(batches, processes.rank, None, processes.world):
            losses = token_losses(model, x, y)  # (B, T)
            # The head of every window but the very first was predicted by the one before it.
            losses[int(i == 0) :, : block_size - stride] = 0
            total = total.to(losses.device) + losses.sum()  # a GPU need not be waited for
    [nats] = processes.sum(total.item())
    if math.isnan(nats):
        raise FloatingPointError(
            "the loss over the text is nan: the model's weights or scores are no numbers any more, "
            "so take an earlier checkpoint, or train anew with a lower learning rate"
        )
    bits = None if characters is None else nats / (characters * math.log(2))
    return Report(nats / (len(ids) - 1), len(ids) - 1, bits)


def token_losses(model: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """What each target costs, -log p in nats: inputs x and targets y (B, T) -> (B, T), float64, on
    the model's device. A target of IGNORE_INDEX costs nothing.

    The model is called as it is: put it in `eval_mode`, and switch gradients off, around this.
    """
    device = device_of(model)
    logits = model(x.to(device, torch.int64))  # (B, T, V)
    # In pieces: all of (B, T, V) in float64 would need twice the memory of the logits.
    rows = max(1, PIECE // logits.size(-1))
    targets = y.to(device, torch.int64).flatten().split(rows)
    pieces = zip(logits.flatten(0, 1).split(rows), targets, strict=True)  # (rows, V), (rows,)
    losses = [F.cross_entropy(piece.double(), t, reduction="none") for piece, t in pieces]
    return torch.cat(losses).view(y.shape)


def fitting_batch(config: ModelConfig) -> int:
    """Windows to read at a time: 32, or as many fewer as keep their scores within `SCORES`."""
    window = config.block_size * getattr(config, "vocab_size", 1)
    return min(32, max(1, SCORES // window))


def windows(
    ids: Tensor, block_size: int, stride: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (up to batch_size, block_size) each, of windows stride tokens apart. The
    last comes alone, and shorter, where the text ends in mid-window."""
    size = min(block_size + 1, len(ids))  # a token more than is read: the last one's target
    whole = ids.unfold(0, size, stride).split(batch_size)  # (B, T + 1) each, not copied
    start = sum(map(len, whole)) * stride  # of the last, if the whole ones leave something
    rest = [ids[None, start:]] if start - stride + size < len(ids) else []
    yield from ((rows[:, :-1], rows[:, 1:]) for rows in [*whole, *rest])


@contextmanager
def eval_mode(model: LanguageModel) -> Iterator[None]:
    """Dropout and the like off inside the ``with``; after it, each module is in its mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def device_of(model: LanguageModel) -> torch.device:
    """Where the model's numbers are; the CPU for a model without any."""
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device


def vocab_size_of(model: LanguageModel) -> float:
    """How many ids the model knows; infinitely many where it does not say. TypeError for what is
    no model."""
    if not callable(model) or not hasattr(getattr(model, "config", None), "block_size"):
        what = "a module with config.block_size, such as GPT"
        raise TypeError(f"model must be {what}, not {shown(model)}")
    return getattr(model.config, "vocab_size", math.inf)


def unwrapped(model: Model) -> Model:
    """The model without what torch.compile wrapped around it; TypeError for what is no model."""
    check_type("model", model, nn.Module)
    return getattr(model, "_orig_mod", model)
