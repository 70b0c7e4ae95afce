"""Code completed by a model: the rest of a line, or a block up to the dedent; and how much each
character of a text surprises it. How tokens are drawn: `generation`; the code itself:
`python_source`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.evaluation import eval_mode, fitting_batch, token_losses, windows
from llmkit.generation import generate
from llmkit.types import LanguageModel

FILE = "<|file|>"  # the special token before every file


def encode(texts: Iterable[str], tokenizer: BPETokenizer) -> Tensor:
    """Texts as ids (N,), before each the special token `FILE`; ValueError without that one."""
    if FILE not in tokenizer.special_tokens:
        raise ValueError(f"the tokenizer needs the special token {FILE!r}: train it with that")
    start = torch.tensor([tokenizer.special_tokens[FILE]])
    parts = [start[:0]]
    for text in texts:
        parts += [start, tokenizer.encode(text)]
    return torch.cat(parts)


def first_line(text: str) -> str:
    """What stands before the first line end."""
    return text.split("\n", 1)[0]


def first_block(text: str, indent: int) -> str:
    """The lines up to the first that is indented by `indent` spaces or less and not blank. A last
    line without its line end is left out: nobody knows how it would go on."""
    kept = []
    for line in re.split("(?<=\n)", text):
        if not line.endswith("\n") or (line.strip() and indentation(line) <= indent):
            break
        kept.append(line)
    block = "".join(kept).rstrip()
    return f"{block}\n" if block else ""


def indentation(line: str) -> int:
    """Of how many spaces and tabs a line begins with, a tab counted to the next multiple of 8."""
    line = line.expandtabs(8)
    return len(line) - len(line.lstrip(" "))


def continue_prompts(
    model: LanguageModel, prompts: Sequence[Tensor], max_new_tokens: int, **options: Any
) -> list[Tensor]:
    """What a model adds to each prompt (T,), T its own: (n,) each, n up to max_new_tokens.

    Greedy unless options (see ``generate``) say otherwise. Prompts of one length go through the
    model together, which is faster than one after the other.
    """
    options.setdefault("temperature", 0)
    places_by_length: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places_by_length[len(prompt)].append(place)
    added = [prompt[:0] for prompt in prompts]
    for length, places in places_by_length.items():
        together = torch.stack([prompts[place] for place in places])  # (B, T)
        rows = generate(model, together, max_new_tokens, **options)  # (B, T + n)
        for place, row in zip(places, rows, strict=True):
            added[place] = row[length:]
    return added


def complete(
    model: LanguageModel,
    tokenizer: BPETokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    until: str = "line",
    **options: Any,
) -> list[str]:
    """What a model adds to each prompt, greedy unless options (see ``generate``) say otherwise.

    until: "line", up to the line end, which is left out; "block", for prompts that end in a line
    such as ``def f():``, the lines after it that are indented more.

    White space belongs to the token after it, so let a prompt end after a word or sign; before a
    block it is left out here. The model reads as much of a prompt's end as leaves room for the new
    tokens, half its block_size at least.
    """
    if until not in ("line", "block"):
        raise ValueError(f"until must be 'line' or 'block', not {until!r}")
    if until == "line":
        line_ends = [i for i, token in enumerate(tokenizer.tokens) if b"\n" in token]
        options.setdefault("stop", line_ends)
    else:
        prompts = [prompt.rstrip() for prompt in prompts]
    block_size = model.config.block_size
    read = max(1, block_size - min(max_new_tokens, block_size // 2))
    ids = [tokenizer.encode(FILE + prompt, allowed_special=[FILE])[-read:] for prompt in prompts]
    added = map(tokenizer.decode, continue_prompts(model, ids, max_new_tokens, **options))
    if until == "line":
        return [first_line(text) for text in added]
    heads = [prompt.rsplit("\n", 1)[-1] for prompt in prompts]
    return [
        first_block(text.partition("\n")[2], indentation(head))
        for text, head in zip(added, heads, strict=True)
    ]


@torch.no_grad()
def surprise(model: LanguageModel, tokenizer: BPETokenizer, text: str) -> Tensor:
    """How many bits each character of a text costs, read as a file of its own: (len(text),).

    A token's bits are spread evenly over its bytes, so the sum is what the whole text costs.
    """
    ids = encode([text], tokenizer)  # (N,)
    block_size = model.config.block_size
    with eval_mode(model):
        nats = [
            token_losses(model, x, y).flatten().cpu()
            for x, y in windows(ids, block_size, block_size, fitting_batch(model.config))
        ]
    bits = torch.cat(nats) / math.log(2)  # (N - 1,), of each token but the first
    sizes = torch.tensor([len(tokenizer.tokens[i]) for i in ids[1:]])  # bytes
    of_bytes = (bits / sizes).repeat_interleave(sizes)
    owner = torch.arange(len(text)).repeat_interleave(
        torch.tensor([len(character.encode()) for character in text])
    )
    return of_bytes.new_zeros(len(text)).index_add_(0, owner, of_bytes)
