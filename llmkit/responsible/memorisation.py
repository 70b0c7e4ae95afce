"""Memorisation: how much of its training text a model gives back, how exposed a secret in it is,
and the paragraphs that occur twice.

Verbatim shares follow Carlini et al. 2023 (arXiv:2202.07646), exposure Carlini et al. 2019
(arXiv:1802.08232), both counted and not estimated. Removing duplicates is exact, up to case and
punctuation; near duplicates of other kinds (MinHash, suffix arrays: Lee et al. 2022,
arXiv:2107.06499) are not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.data import check_ids
from llmkit.evaluation import device_of, eval_mode
from llmkit.generation import generate
from llmkit.runtime import fast_matmul


@dataclass(frozen=True)
class Continuation:
    """What a model said after a piece of a text, and what the text says there."""

    prompt: str
    said: str
    true: str


def continuations(
    model: nn.Module,
    tokenizer: Any,
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
            f"with {new_tokens} behind each: take a longer text, or shorter prompts (1 at least)"
        )
    starts = torch.linspace(0, last, count).long()
    pieces = ids.unfold(0, prompt_tokens + new_tokens, 1)[starts]  # (count, prompt + new)
    prompts = pieces[:, :prompt_tokens]
    rows = generate(model, prompts, new_tokens, temperature, seed=seed)[:, prompt_tokens:]
    return [
        Continuation(*(tokenizer.decode(part) for part in (prompt, said, piece[prompt_tokens:])))
        for prompt, said, piece in zip(prompts, rows, pieces, strict=True)
    ]


def verbatim_share(texts: Sequence[str], source: str, characters: int) -> float:
    """The share of texts whose first so many characters occur in the source, to the letter."""
    if characters < 1 or not texts or min(map(len, texts)) < characters:
        raise ValueError(f"give texts, each of at least {characters} characters (1 or more)")
    return sum(text[:characters] in source for text in texts) / len(texts)


@torch.no_grad()
def code_log_probabilities(
    model: nn.Module, tokenizer: Any, prefix: str, length: int = 4, alphabet: str = "0123456789"
) -> Tensor:
    """log p in nats of every code of `length` characters after the prefix: (A**length,) float64.

    In the order of counting: with digits, entry 4831 is the code 4831. Codes share their
    beginnings, so A**(length - 1) rows tell all; and those share the prefix, which a model with a
    cache (``new_cache``) reads once.

    Raises ValueError where the tokenizer has no token of its own for a character of the alphabet,
    or prefix and code do not fit into the context.
    """
    device = device_of(model)
    letters, before = tokenizer.encode(alphabet), tokenizer.encode(prefix)
    letters = check_ids(letters, math.inf, at_least=1, name="alphabet").to(device)
    if len(letters) != len(alphabet) or not len(before) or length < 1:
        raise ValueError(
            "codes need a token for each character of the alphabet, a prefix that is not empty, "
            "and a length of at least 1"
        )
    room = len(before) + length - 1
    if room > model.config.block_size:
        raise ValueError(f"{room} tokens do not fit into block_size {model.config.block_size}")
    choices = [torch.arange(len(alphabet), device=device)] * (length - 1)
    heads = torch.cartesian_prod(*choices).view(-1, length - 1) if choices else None  # (R, n - 1)
    rows = len(alphabet) ** (length - 1)
    with eval_mode(model), fast_matmul(device):
        prefix_ids = before[None].to(device)  # (1, P)
        if heads is None:
            logits = model(prefix_ids)[:, -1:]
        elif hasattr(model, "new_cache"):
            cache = model.new_cache()
            first = model(prefix_ids, cache)[:, -1:]  # (1, 1, V)
            rest = model(letters[heads], _repeated(cache, rows, room))  # (R, n - 1, V)
            logits = torch.cat([first.expand(rows, -1, -1), rest], dim=1)
        else:
            ids = torch.cat([prefix_ids.expand(rows, -1), letters[heads]], dim=1)
            logits = model(ids)[:, -length:]  # (R, n, V)
    log_p = logits.cpu().double().log_softmax(-1)[..., letters.cpu()]  # (R, n, A)
    total = log_p[:, -1]  # (R, A)
    for place in range(length - 1):
        total = total + log_p[:, place].gather(1, heads[:, place : place + 1].cpu())
    return total.flatten()


def _repeated(cache: Any, rows: int, room: int) -> Any:
    """A cache that holds one text, for as many rows, with room for so many positions."""
    for layer in getattr(cache, "layers", cache):
        layer.keys = layer.keys[:, :, :room].repeat(rows, 1, 1, 1)
        layer.values = layer.values[:, :, :room].repeat(rows, 1, 1, 1)
    if hasattr(cache, "last"):  # a FastGPT's last tokens
        cache.last = cache.last.repeat(rows, 1)
    return cache


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


def normal_form(text: str) -> str:
    """Lower case, letters and digits only, single spaces: what is left where writing varies."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def drop_duplicates(
    parts: Sequence[str], key: Callable[[str], Any] = normal_form
) -> tuple[list[str], list[str]]:
    """The parts without repetitions, in their order, and those dropped: two lists.

    Of parts with the same key the first stays. ``key=str`` takes only those that are equal to the
    letter. A part whose key is empty (nothing but punctuation) always stays.
    """
    seen, kept, dropped = set(), [], []
    for part in parts:
        form = key(part)
        (dropped if form and form in seen else kept).append(part)
        seen.add(form)
    return kept, dropped
