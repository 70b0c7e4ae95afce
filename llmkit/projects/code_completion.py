"""Code completed by a model: the rest of a line, or a block up to the dedent; and how much each
character of a text surprises it. How tokens are drawn: `generation`; the code itself: `pysource`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.evaluation import device_of, eval_mode, windows
from llmkit.generation import generate

FILE = "<|file|>"  # the special token before every file


def encode(texts: Iterable[str], tokenizer: Any) -> Tensor:
    """Texts as ids (N,), before each the special token `FILE`; ValueError without that one."""
    if FILE not in getattr(tokenizer, "special_tokens", ()):
        raise ValueError(f"the tokenizer needs the special token {FILE!r}: train it with that")
    start = torch.tensor([tokenizer.special_tokens[FILE]])
    parts = [part for text in texts for part in (start, tokenizer.encode(text))]
    return torch.cat(parts) if parts else start[:0]


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
    return "".join(kept).rstrip() + "\n" if "".join(kept).strip() else ""


def indentation(line: str) -> int:
    """Of how many spaces and tabs a line begins with, a tab counted to the next multiple of 8."""
    line = line.expandtabs(8)
    return len(line) - len(line.lstrip(" "))


def complete(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    until: str = "line",
    **options: Any,
) -> list[str]:
    """What a model adds to each prompt, greedy unless options (see ``generate``) say otherwise.

    until: "line", up to the line end, which is left out; "block", for prompts that end in a line
    such as ``def f():``, the lines after it that are indented more.

    White space belongs to the token after it, so let a prompt end behind a word or sign; before a
    block it is left out here. The model reads as much of a prompt's end as leaves room for the new
    tokens, half its block_size at least. Prompts of equally many tokens are completed together.
    """
    if until not in ("line", "block"):
        raise ValueError(f"until must be 'line' or 'block', not {until!r}")
    block_size = model.config.block_size
    read = max(1, block_size - min(max_new_tokens, block_size // 2))
    newline = [i for i, token in enumerate(tokenizer.tokens) if b"\n" in token]
    options = {"temperature": 0, "stop": newline if until == "line" else None} | options
    groups: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        prompt = prompt if until == "line" else prompt.rstrip()
        ids = tokenizer.encode(FILE + prompt, allowed_special=[FILE])[-read:]
        groups[len(ids)].append((place, ids))
    completions = [""] * len(prompts)
    for length, group in groups.items():
        rows = generate(model, torch.stack([ids for _, ids in group]), max_new_tokens, **options)
        for (place, _), row in zip(group, rows, strict=True):
            text = tokenizer.decode(row[length:])
            if until == "line":
                completions[place] = first_line(text)
            else:
                head = prompts[place].rstrip().rsplit("\n", 1)[-1]
                completions[place] = first_block(text.partition("\n")[2], indentation(head))
    return completions


@torch.no_grad()
def surprise(model: nn.Module, tokenizer: Any, text: str) -> Tensor:
    """How many bits each character of a text costs, read as a file of its own: (len(text),).

    A token's bits are spread evenly over its bytes, so the sum is what the whole text costs.
    """
    ids = encode([text], tokenizer)  # (N,)
    device, block_size, bits = device_of(model), model.config.block_size, []
    with eval_mode(model):
        for x, y in windows(ids, block_size, block_size, 16):
            logits = model(x.to(device)).flatten(0, 1).double()  # (B * T, V)
            loss = F.cross_entropy(logits, y.to(device).flatten(), reduction="none")
            bits.append(loss.cpu() / torch.tensor(2.0).log())
    sizes = torch.tensor([len(tokenizer.tokens[i]) for i in ids[1:]])  # bytes
    of_bytes = (torch.cat(bits) / sizes).repeat_interleave(sizes)
    owner = torch.arange(len(text)).repeat_interleave(
        torch.tensor([len(character.encode()) for character in text])
    )
    return of_bytes.new_zeros(len(text)).index_add_(0, owner, of_bytes)
