"""Memorisation: how much of its training text a model gives back, how exposed a secret in it is,
whether a text can be told to have been in it, and the paragraphs that occur twice.

Verbatim shares follow Carlini et al. 2023 (arXiv:2202.07646), exposure Carlini et al. 2019
(arXiv:1802.08232), both counted and not estimated. Removing duplicates is exact, up to case and
punctuation; near duplicates of other kinds (MinHash, suffix arrays: Lee et al. 2022,
arXiv:2107.06499) are not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.evaluation import device_of, eval_mode
from llmkit.generation import generate
from llmkit.model import GPT


@dataclass(frozen=True)
class Continuation:
    """What a model said after a piece of a text, and what the text says there."""

    prompt: str
    said: str
    true: str


def continuations(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    count: int = 100,
    prompt_tokens: int = 32,
    new_tokens: int = 50,
    temperature: float = 0.0,
    seed: int | None = 0,
) -> list[Continuation]:
    """The model's continuations of `count` pieces of the text, cut at equal distances.

    temperature 0 is greedy. ValueError for a text with no room for a single piece.
    """
    ids = tokenizer.encode(text)  # (N,)
    last = len(ids) - prompt_tokens - new_tokens
    if last < 0 or count < 1 or prompt_tokens < 1:
        raise ValueError(
            f"a text of {len(ids)} tokens does not hold {count} prompts of {prompt_tokens} tokens "
            f"with {new_tokens} after each: take a longer text, or shorter prompts (1 at least)"
        )
    starts = torch.linspace(0, last, count).long()
    pieces = ids.unfold(0, prompt_tokens + new_tokens, 1)[starts]  # (count, prompt + new)
    prompts = pieces[:, :prompt_tokens]
    rows = generate(model, prompts, new_tokens, temperature, seed=seed)[:, prompt_tokens:]
    texts = zip(
        map(tokenizer.decode, prompts),
        map(tokenizer.decode, rows),
        map(tokenizer.decode, pieces[:, prompt_tokens:]),
        strict=True,
    )
    return [Continuation(prompt, said, true) for prompt, said, true in texts]


def verbatim_share(texts: Sequence[str], source: str, characters: int) -> float:
    """The share of texts whose first so many characters occur in the source, to the letter."""
    if characters < 1 or not texts or min(map(len, texts)) < characters:
        raise ValueError(f"give texts, each of at least {characters} characters (1 or more)")
    return sum(text[:characters] in source for text in texts) / len(texts)


@torch.no_grad()
def code_log_probabilities(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prefix: str,
    length: int = 4,
    alphabet: str = "0123456789",
) -> Tensor:
    """log p in nats of every code of `length` characters after the prefix: (A**length,) float64.

    In the order of counting: with digits, entry 4831 is the code 4831. Codes share their
    beginnings, so A**(length - 1) rows tell all; and those share the prefix, which a `GPT` reads
    once.

    Raises ValueError where the tokenizer has no token of its own for a character of the alphabet,
    or prefix and code do not fit into the context.
    """
    device = device_of(model)
    letters, before = tokenizer.encode(alphabet), tokenizer.encode(prefix)
    if len(letters) != len(alphabet) or not alphabet or not len(before) or length < 1:
        raise ValueError(
            "codes need an alphabet, a token for each of its characters, a prefix that is not "
            "empty, and a length of at least 1"
        )
    room = len(before) + length - 1
    if room > model.config.block_size:
        raise ValueError(f"{room} tokens do not fit into block_size {model.config.block_size}")
    places = [torch.arange(len(alphabet))] * (length - 1)
    heads = torch.cartesian_prod(torch.arange(1), *places).view(-1, length)[:, 1:]  # (R, length-1)
    ids = torch.cat([before.expand(len(heads), -1), letters[heads]], dim=1).to(device)  # (R, room)
    with eval_mode(model):
        if isinstance(model, GPT) and len(before) > 1:
            shared = len(before) - 1
            cache = model.new_cache()
            model(ids[:1, :shared], cache)
            for layer in cache:  # every row goes on from the one prefix
                layer.keys = layer.keys[:, :, :room].repeat(len(ids), 1, 1, 1)
                layer.values = layer.values[:, :, :room].repeat(len(ids), 1, 1, 1)
            logits = model(ids[:, shared:], cache)  # (R, length, V)
        else:
            logits = model(ids)[:, -length:]  # (R, length, V)
    log_p = logits.cpu().double().log_softmax(-1)[..., letters]  # (R, length, A)
    of_heads = log_p[:, :-1].gather(2, heads[..., None]).sum(dim=1)  # (R, 1)
    return (of_heads + log_p[:, -1]).flatten()


def exposure(log_probabilities: Tensor, secret: int) -> float:
    """log2 of the number of candidates (R,) less log2 of the secret's rank, in bits.

    The rank counts the candidates that are at least as likely, itself among them (Carlini et al.
    2019, definition 5). A secret that the model knows nothing of has a random rank, and so 1 / ln 2
    = 1.44 bits on average; log2 R means: the likeliest of all. ValueError where it is no candidate.
    """
    R = len(log_probabilities)
    if not 0 <= secret < R:
        raise ValueError(f"candidate {secret} does not exist: there are {R}, from 0 on")
    rank = int((log_probabilities >= log_probabilities[secret]).sum())
    return math.log2(R) - math.log2(rank)


def auc(members: Tensor, others: Tensor) -> float:
    """The probability that of a member and another text, both drawn, the member has the smaller
    loss; equal ones count half. members (M,), others (N,): losses. 0.5: no better than a coin.

    The area under the curve of true against false positives. ValueError for an empty side.
    """
    if not members.numel() or not others.numel():
        raise ValueError("give at least one loss of a member, and one of another text")
    ahead = others[None, :] - members[:, None]  # (M, N)
    return ((ahead > 0).double() + 0.5 * (ahead == 0).double()).mean().item()


def normal_form(text: str) -> str:
    """Lower case, letters and digits only, single spaces: what is left where writing varies."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def drop_duplicates(
    parts: Sequence[str], key: Callable[[str], Hashable] = normal_form
) -> tuple[list[str], list[str]]:
    """The parts without repetitions, in their order, and those dropped: two lists.

    Of parts with the same key the first stays. ``key=str`` takes only those that are equal to the
    letter. A part whose key is empty (nothing but punctuation) always stays.
    """
    seen: set[Hashable] = set()
    kept: list[str] = []
    dropped: list[str] = []
    for part in parts:
        form = key(part)
        if form and form in seen:
            dropped.append(part)
        else:
            kept.append(part)
        seen.add(form)
    return kept, dropped
