"""Code completed by a model: the rest of a line, or a block up to the dedent; and how much each
character of a text surprises it. How tokens are drawn: `generation`; the code itself:
`python_source`.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmkit.arguments import LanguageModel
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.evaluation import eval_mode, fitting_batch, token_losses, windows
from llmkit.projects import python_source
from llmkit.speed.decoding import continue_prompts

FILE = "<|file|>"  # the special token before every file
FILLING = ("<|prefix|>", "<|suffix|>", "<|middle|>", "<|end|>")  # see `rearranged`
PIECE = 100  # tokens around a gap, with it


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


def last_ids(prompt: str, tokenizer: BPETokenizer, most: int) -> Tensor:
    """The last ids of a file that begins with the prompt, `most` at most: (n,).

    Of a long prompt only the end is encoded, from the start of a line: after its first words the
    tokens are those of the whole.
    """
    end = prompt[-20 * most :].partition("\n")[2]
    if len(end) < len(prompt):
        ids = tokenizer.encode(end, allowed_special=[FILE])
        if len(ids) > 2 * most:
            return ids[-most:]
    return tokenizer.encode(FILE + prompt, allowed_special=[FILE])[-most:]


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
    ids = [last_ids(prompt, tokenizer, read) for prompt in prompts]
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


@dataclass
class Cost:
    """What the parts of one kind cost in all: how many there are, their characters, their bits."""

    number: int = 0
    characters: int = 0
    bits: float = 0.0


def cost_by_kind(
    model: LanguageModel, tokenizer: BPETokenizer, texts: Iterable[str]
) -> dict[str, Cost]:
    """What each kind of word and sign (`python_source.parts`) in Python texts costs a model."""
    costs: dict[str, Cost] = defaultdict(Cost)
    for text in texts:
        bits = surprise(model, tokenizer, text)
        up_to = torch.cat([bits.new_zeros(1), bits.cumsum(0)]).tolist()  # of the text before each
        for kind, start, end in python_source.parts(text):
            cost = costs[kind]
            cost.number += 1
            cost.characters += end - start
            cost.bits += up_to[end] - up_to[start]
    return dict(costs)


Gap = tuple[Tensor, int, int]  # ids (N,), of which ids[start:end] is to be filled in


def gaps(texts: Iterable[str], tokenizer: BPETokenizer, count: int, seed: int) -> list[Gap]:
    """So many pieces of `PIECE` tokens, drawn at random from texts at least as long, each with a
    gap of 6 to 20 tokens in its middle. ValueError where no text is long enough."""
    files = [ids for ids in map(tokenizer.encode, texts) if len(ids) >= PIECE]
    if not files:
        raise ValueError(f"no text has {PIECE} tokens: give longer ones")
    draw, found = random.Random(seed), []
    for _ in range(count):
        ids = draw.choice(files)
        first = draw.randint(0, len(ids) - PIECE)
        start = draw.randint(30, 60)
        found.append((ids[first : first + PIECE], start, start + draw.randint(6, 20)))
    return found


def rearranged(ids: Tensor, start: int, end: int, tokenizer: BPETokenizer) -> Tensor:
    """ids (N,) with the gap ids[start:end] moved to the end, as a model learns to fill it in: the
    four tokens of `FILLING`, after the first what stands before the gap, after the second what
    stands after it, after the third the gap: (N + 4,).

    ValueError where the tokenizer lacks one of `FILLING`, or the gap does not lie within ids.
    """
    if not 0 <= start <= end <= len(ids):
        raise ValueError(f"a gap from {start} to {end} does not lie within {len(ids)} tokens")
    if missing := [text for text in FILLING if text not in tokenizer.special_tokens]:
        raise ValueError(f"the tokenizer needs the special token {missing[0]!r}: train it so")
    prefix, suffix, middle, over = (ids.new_tensor([tokenizer.special_tokens[t]]) for t in FILLING)
    before, gap, after = ids[:start], ids[start:end], ids[end:]
    return torch.cat([prefix, before, suffix, after, middle, gap, over])


@torch.no_grad()
def gap_bits(
    model: LanguageModel, tokenizer: BPETokenizer, pieces: Sequence[Gap], rearrange: bool = True
) -> float:
    """What the gaps cost the model: bits per character of all gaps together. Each is read as
    `rearranged` gives it, or, without that, after what stands before it alone."""
    bits, characters = 0.0, 0
    with eval_mode(model):
        for ids, start, end in pieces:
            row = rearranged(ids, start, end, tokenizer)[:-1] if rearrange else ids[:end]
            losses = token_losses(model, row[None, :-1], row[None, 1:])[0]  # (N + 2,)
            bits += losses[len(losses) - (end - start) :].sum().item() / math.log(2)
            characters += len(tokenizer.decode(ids[start:end]))
    return bits / characters
