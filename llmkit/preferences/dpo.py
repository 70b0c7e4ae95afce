"""Direct preference optimisation, DPO (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).

Of two answers to one prompt the chosen one becomes likelier, the rejected one less likely, both
compared with the model as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.arguments import (
    LanguageModel,
    Tokenizer,
    check_choice,
    check_each,
    check_number,
    check_type,
    shown,
)
from llmkit.evaluation import device_of, eval_mode, vocab_size_of
from llmkit.finetune.instructions import ExampleDataset, Item, encode, pad
from llmkit.optim import OPTIMIZERS, configure_optimizers
from llmkit.preferences.answers import Form, log_probs
from llmkit.preferences.update import update
from llmkit.runtime import seeded
from llmkit.speed import cpu


@dataclass(frozen=True)
class Pair:
    """Two answers to an item, of which one is preferred. ValueError where they are the same."""

    item: Item
    chosen: str
    rejected: str

    def __post_init__(self) -> None:
        check_type("item", self.item, Item)
        for name in ("chosen", "rejected"):
            check_type(name, getattr(self, name), str)
        if self.chosen == self.rejected:
            raise ValueError(
                f"item {self.item.id}: chosen and rejected are both {shown(self.chosen)}; a pair "
                "needs two different answers"
            )


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float = 0.1
) -> Tensor:
    """-ln σ(β [(chosen - ref_chosen) - (rejected - ref_rejected)]), the mean over pairs, in nats.

    chosen, rejected (B,): log-probabilities of whole answers under the model; ref_...: under the
    reference. beta: how much a gain over the reference weighs; the larger it is, the sooner a pair
    is learned, and the nearer the model stays to where it was.
    """
    gain = (chosen - ref_chosen) - (rejected - ref_rejected)  # (B,)
    return -F.logsigmoid(beta * gain).mean()


def train(
    model: Any,  # a module that is a LanguageModel
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 0.002,
    optimizer: str = "muon",
    beta: float = 0.1,
    seed: int = 0,
    form: Form = encode,
) -> list[float]:
    """Train a model in place on pairs, and return each step's loss; the reference is the model as
    it comes. The rate falls to a tenth, after a short warmup.

    form: how an item with its answer is written for the model, see `answers.Form`.
    """
    vocab_size_of(model)  # or it is no model
    check_type("tokenizer", tokenizer, Tokenizer)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    pairs = check_each("pairs", pairs, Pair)
    if not pairs:
        raise ValueError("pairs is empty, nothing to prefer: give at least one Pair")
    check_number("steps", steps, int, least=1)
    check_number("batch_size", batch_size, int, least=1)
    check_number("beta", beta, above=0)
    if not callable(form):
        raise TypeError(f"form must be a function of item and tokenizer, not {shown(form)}")
    chosen, rejected = (
        _rows(model, tokenizer, pairs, name, form) for name in ("chosen", "rejected")
    )
    reference, losses, draws = copy.deepcopy(model).eval(), [], seeded(seed)
    optimizers = configure_optimizers(model, optimizer, learning_rate, weight_decay=0.0)
    with cpu.tuned(model), eval_mode(model):  # no dropout: the reference has none either
        with torch.no_grad():
            both = [_every_answer(reference, rows, batch_size) for rows in (chosen, rejected)]
            before = torch.stack(both)  # (2, N)
        for step in range(steps):
            mine = torch.randint(len(pairs), (batch_size,), generator=draws).to(before.device)
            likely = _answers(model, chosen, mine), _answers(model, rejected, mine)  # (B,) each
            loss = dpo_loss(*likely, before[0, mine], before[1, mine], beta)
            update(model, optimizers, loss, step, steps)
            losses.append(loss.item())
    return losses


def _rows(
    model: LanguageModel, tokenizer: Tokenizer, pairs: list[Pair], of: str, form: Form
) -> ExampleDataset:
    """The answers of one kind in rows, on the model's device."""
    examples = [form(replace(pair.item, answer=getattr(pair, of)), tokenizer) for pair in pairs]
    rows = pad(examples, max(len(ids) for ids, _ in examples))
    if rows.x.size(1) > model.config.block_size:
        raise ValueError(
            f"a pair is {rows.x.size(1)} tokens long, more than block_size "
            f"{model.config.block_size}; leave it out or enlarge the context"
        )
    device = device_of(model)
    return ExampleDataset(rows.x.to(device), rows.y.to(device))


def _answers(model: LanguageModel, rows: ExampleDataset, mine: Tensor) -> Tensor:
    """The log-probability of each whole answer of the rows `mine`: (B,) each."""
    return log_probs(model, rows.x[mine], rows.y[mine]).sum(-1)


def _every_answer(model: LanguageModel, rows: ExampleDataset, at_once: int) -> Tensor:
    """The log-probability of each whole answer, of so many rows at a time: (N,)."""
    parts = torch.arange(len(rows.x), device=rows.x.device).split(at_once)
    return torch.cat([_answers(model, rows, part) for part in parts])
