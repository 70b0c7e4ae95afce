"""Group relative policy optimisation, GRPO (Shao et al. 2024, https://arxiv.org/abs/2402.03300).

The model answers each prompt several times, each answer gets a reward, and what was better than its
group becomes likelier.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmkit.arguments import Tokenizer, check_choice, check_each, check_number, check_type, shown
from llmkit.evaluation import IGNORE_INDEX, device_of, eval_mode, vocab_size_of
from llmkit.finetune.instructions import Item, encode
from llmkit.optim import OPTIMIZERS, configure_optimizers
from llmkit.preferences.answers import Form, as_rows, draw, log_probs, openings, read
from llmkit.preferences.update import update
from llmkit.runtime import seeded
from llmkit.speed import cpu

Reward = Callable[[Item, str], float]


def advantages(rewards: Tensor) -> Tensor:
    """How much better each answer is than its group, in standard deviations: (P, G) -> (P, G).

    P prompts, G answers to each. A group whose answers are all alike gives zeros: it teaches
    nothing.
    """
    spread = rewards.std(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (spread + 1e-4)


def grpo_loss(
    new: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    counted: Tensor,
    beta: float = 0.0,
    clip: float = 0.2,
) -> Tensor:
    """The mean over answers of the mean over their tokens of -min(r A, clip(r) A) + β k.

    Args:
        new, old, reference: (B, T) log-probabilities of the tokens of B answers, under the model
            being trained, the model that drew them, and the one that training began with.
        advantages: (B,), A. counted: (B, T), True at the tokens of the answers.
        beta: the price of a nat away from the reference, k = e^d - d - 1 with d = reference - new.
        clip: r = e^(new - old) is held between 1 - clip and 1 + clip, so that answers drawn by an
            older model do not carry this one far away.
    """
    ratio = (new - old).exp()
    better = advantages[:, None]
    gain = torch.minimum(ratio * better, ratio.clamp(1 - clip, 1 + clip) * better)
    away = reference - new
    loss = beta * (away.exp() - away - 1) - gain  # (B, T)
    return ((loss * counted).sum(dim=1) / counted.sum(dim=1)).mean()


def score(reward: Reward, items: Sequence[Item], answers: Sequence[Sequence[str]]) -> Tensor:
    """The reward of each answer: P items, G answers to each -> (P, G).

    ValueError for a reward that is no finite number, with the function's name and the sample.
    """
    rows, name = [], getattr(reward, "__name__", type(reward).__name__)
    for item, group in zip(items, answers, strict=True):
        found = [reward(item, answer) for answer in group]
        for number, (value, answer) in enumerate(zip(found, group, strict=True)):
            if not isinstance(value, bool):  # True is 1
                what = f"the reward {name!r} of answer {number}, {shown(answer)}, to item {item.id}"
                check_number(what, value)
        rows.append([float(value) for value in found])
    return torch.tensor(rows)


@dataclass
class History:
    """What happened in each step: means over its answers.

    Attributes:
        reward: what the function gave. kl: nats an answer away from the reference.
        length: tokens an answer, its end included. taught: the share of the groups whose answers
            did not all have one reward.
    """

    reward: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    taught: list[float] = field(default_factory=list)


def train(
    model: Any,  # a module that is a LanguageModel
    tokenizer: Tokenizer,
    items: Sequence[Item],
    reward: Reward,
    steps: int,
    prompts: int = 16,
    answers: int = 8,
    max_new_tokens: int = 16,
    learning_rate: float = 0.004,
    optimizer: str = "muon",
    beta: float = 0.0,
    seed: int = 0,
    callback: Callable[[int], None] | None = None,
    form: Form = encode,
) -> History:
    """Train a model in place by what reward(item, answer) gives for its own answers.

    Each step draws `answers` answers to each of `prompts` items (of about one length, as those are
    drawn quickly), at temperature 1, and makes one update; so the clip of `grpo_loss` never bites.
    The reference is the model as it comes. The rate falls to a tenth, after a short warmup.

    Args, or a ValueError:
        reward: a finite number for each answer; see `score`.
        beta: the price of a nat away from the reference, a token.
        callback: called with the number of each step (from 1) after it.
        form: how an item is written for the model, see `answers.Form`.
    """
    vocab_size_of(model)  # or it is no model
    check_type("tokenizer", tokenizer, Tokenizer)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_number("steps", steps, int, least=1)
    check_number("prompts", prompts, int, least=1)
    check_number("answers", answers, int, least=2)  # one has nothing to be compared with
    check_number("beta", beta, least=0)
    if not callable(reward):
        raise TypeError(f"reward must be a function of item and answer, not {shown(reward)}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of the step, not {shown(callback)}")
    items = sorted(check_each("items", items, Item), key=lambda item: len(item.prompt))
    _, end = openings(items, tokenizer, form)
    reference, history, choose = copy.deepcopy(model).eval(), History(), seeded(seed)
    optimizers = configure_optimizers(model, optimizer, learning_rate, weight_decay=0.0)
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with cpu.tuned(model), eval_mode(model), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for step in range(steps):
            start = int(torch.randint(max(1, len(items) - prompts + 1), (), generator=choose))
            asked = items[start : start + prompts]
            drawn = draw(model, tokenizer, asked, answers, max_new_tokens, form=form)
            said = [[read(tokenizer, ids, end) for ids in group] for group in drawn]
            rewards = score(reward, asked, said)  # (P, G)
            rows = as_rows(tokenizer, asked, drawn, form)  # (P G, T)
            x, y = rows.x.to(device_of(model)), rows.y.to(device_of(model))
            with torch.no_grad():
                was = log_probs(reference, x, y)
            new, counted = log_probs(model, x, y), y != IGNORE_INDEX  # (P G, T) each
            better = advantages(rewards).flatten().to(new)
            loss = grpo_loss(new, new.detach(), was, better, counted, beta)
            update(model, optimizers, loss, step, steps)
            history.reward.append(rewards.mean().item())
            history.kl.append((new.detach() - was).sum(-1).mean().item())
            history.length.append(counted.sum(-1).float().mean().item())
            history.taught.append((rewards.std(dim=1) > 0).float().mean().item())
            if callback:
                callback(step + 1)
    return history
