"""Answers that a model draws, how likely it finds them, and how far two models are apart.

Shapes: B rows, a prompt with its answer each; T positions. A position counts where its target is a
token of the answer or its end; the others have the target -100, as in ``instructions``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from llmkit.arguments import LanguageModel, Tokenizer, check_each, check_number, check_type, shown
from llmkit.evaluation import IGNORE_INDEX, device_of, eval_mode, vocab_size_of
from llmkit.finetune.instructions import ANSWER_END, Example, ExampleDataset, Item, encode, pad
from llmkit.speed.decoding import continue_prompts, quick

# The ids and targets of an item with its answer. ``instructions.encode`` is one; a model with a
# template of its own has another.
Form = Callable[[Item, Tokenizer], Example]


def log_probs(model: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """ln of the probability of each target: x, y (B, T) -> (B, T) in nats, 0 where none counts."""
    logits = model(x).float()  # (B, T, V)
    return -F.cross_entropy(logits.mT, y, ignore_index=IGNORE_INDEX, reduction="none")


@torch.no_grad()
def divergence(model: LanguageModel, reference: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """How far a model is from a reference, in nats an answer: x, y (B, T) -> (B,).

    At each position that counts, KL(model || reference) over the whole vocabulary, summed over the
    answer. Where the model drew the answers itself, the mean over them estimates the KL divergence
    of its answers from the reference's, and without bias.
    """
    ours, theirs = model(x).float().log_softmax(-1), reference(x).float().log_softmax(-1)
    kl = (ours.exp() * (ours - theirs)).sum(-1)  # (B, T)
    return kl.where(y != IGNORE_INDEX, 0.0).sum(-1)


def draw(
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    count: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    form: Form = encode,
) -> list[list[Tensor]]:
    """So many answers to each item, drawn at random: ids (n,) each, the end included where it was
    said. Draws from PyTorch's global random state; items of one length are drawn together.

    form: how an item is written for the model, see `Form`.
    """
    vocab_size_of(model)  # or it is no model
    check_type("tokenizer", tokenizer, Tokenizer)
    items = check_each("items", items, Item)
    check_number("count", count, int, least=1)
    check_number("max_new_tokens", max_new_tokens, int, least=1)
    if not items:
        return []
    prompts, end = openings(items, tokenizer, form)
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if longest > model.config.block_size:
        raise ValueError(
            f"a prompt and max_new_tokens {max_new_tokens} are {longest} tokens long, more than "
            f"block_size {model.config.block_size}; shorten one of them"
        )
    repeated = [prompt for prompt in prompts for _ in range(count)]
    added = continue_prompts(
        quick(model), repeated, max_new_tokens, stop=end, temperature=temperature
    )
    cut = [ids[: (ids == end).long().cumsum(0).lt(1).sum() + 1] for ids in added]
    return [cut[i : i + count] for i in range(0, len(cut), count)]


def openings(
    items: Sequence[Item], tokenizer: Tokenizer, form: Form = encode
) -> tuple[list[Tensor], int]:
    """What a model reads before it answers each item, ids (T,), and the id that ends an answer:
    from what `form` makes of an item with an empty one."""
    if not callable(form):
        raise TypeError(f"form must be a function of item and tokenizer, not {shown(form)}")
    if not items:
        raise ValueError("items is empty, nothing to answer: give at least one Item")
    prompts = []
    for item in items:
        ids, targets = form(replace(item, answer=""), tokenizer)
        counted = (targets != IGNORE_INDEX).nonzero().flatten().tolist()
        if len(counted) != 1:
            raise ValueError(
                f"form counts {len(counted)} tokens of item {item.id} with an empty answer: it "
                "must count its end, one token"
            )
        prompts.append(ids[: counted[0] + 1])  # whose last token predicts the answer's first
    return prompts, int(targets[counted[0]])


def read(tokenizer: Tokenizer, ids: Tensor, end: int | None = None) -> str:
    """A drawn answer (n,) as text, without its end: the id `end`, or that of `ANSWER_END`."""
    end = int(tokenizer.encode(ANSWER_END)) if end is None else end
    return tokenizer.decode(ids[ids != end])


def as_rows(
    tokenizer: Tokenizer,
    items: Sequence[Item],
    answers: Sequence[Sequence[Tensor]],
    form: Form = encode,
) -> ExampleDataset:
    """Items with drawn answers in rows of equal width, in which the answers count."""
    examples = []
    prompts, _ = openings(items, tokenizer, form)
    for prompt, group in zip(prompts, answers, strict=True):
        for ids in group:
            whole = torch.cat([prompt, ids])
            targets = whole[1:].clone()
            targets[: len(prompt) - 1] = IGNORE_INDEX
            examples.append((whole[:-1], targets))
    return pad(examples, max(len(ids) for ids, _ in examples))


@torch.no_grad()
def kl_from(
    model: LanguageModel,
    reference: LanguageModel,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    max_new_tokens: int = 30,
    form: Form = encode,
) -> float:
    """KL(model || reference) in nats an answer, over one drawn answer to each item: see
    `divergence`."""
    drawn = draw(model, tokenizer, items, 1, max_new_tokens, form=form)
    rows, device = as_rows(tokenizer, items, drawn, form), device_of(model)
    at_once = max(1, 2**24 // model.config.vocab_size // rows.x.size(1))  # 64 MB of scores
    with eval_mode(model), eval_mode(reference):
        both = (part.to(device).split(at_once) for part in (rows.x, rows.y))
        parts = zip(*both, strict=True)
        return torch.cat([divergence(model, reference, x, y) for x, y in parts]).mean().item()
