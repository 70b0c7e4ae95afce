"""A conversation as the text that a model reads: ChatML, the template of SmolLM2, Qwen and others.

    <|im_start|>user
    What is the capital of France?<|im_end|>
    <|im_start|>assistant
    Paris.<|im_end|>

A turn is a mapping with a role (one of `ROLES`) and its content, as OpenAI's clients write it. The
markers are special tokens; what people write is read as the characters that it is, so that nobody
can end his turn and begin another's by writing a marker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from llmkit.arguments import Tokenizer, check_each, check_type, shown
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import as_path, read_json, read_text

ROLES = ("system", "user", "assistant")
START, END = "<|im_start|>", "<|im_end|>"
Turn = Mapping[str, Any]


def render(messages: Sequence[Turn], system: str | None = None, answer: bool = True) -> str:
    """The text of a conversation, with its markers.

    system: the first turn, where the conversation has none of the system's. answer: whether it ends
    with the beginning of the assistant's next turn, for the model to go on.

    Raises ValueError for a conversation without a turn of the user's, for an unknown role and for
    content that is no text; TypeError for what is no list of mappings.
    """
    check_type("answer", answer, bool)
    written = (f"{START}{head}{content}{END}\n" for head, content in _parts(messages, system))
    return "".join(written) + (f"{START}{_head('assistant')}" if answer else "")


def encode(
    messages: Sequence[Turn], tokenizer: Tokenizer, system: str | None = None, answer: bool = True
) -> tuple[Tensor, Tensor]:
    """The ids of `render` (N,), and which of them count in the loss (N,) bool: the assistant's
    words, and the marker that ends each of its turns.

    Raises what `render` raises; ValueError for a tokenizer without the markers, `can_chat`.
    """
    check_type("tokenizer", tokenizer, Tokenizer)
    if not can_chat(tokenizer):
        raise ValueError(f"the tokenizer has no tokens {START} and {END}: it is of no chat model")
    check_type("answer", answer, bool)
    start, end = (torch.tensor([tokenizer.special_tokens[mark]]) for mark in (START, END))
    pieces: list[tuple[Tensor, Tensor]] = []  # ids, and whether each counts
    for head, content in _parts(messages, system):
        ids = tokenizer.encode(head + content)  # together: a token may have a part of both
        ends = torch.tensor([len(tokenizer.tokens[i]) for i in ids.tolist()]).cumsum(0)
        answers = head == _head("assistant")
        said = ends > len(head)  # tokens with something of the content
        none = torch.tensor([False])
        pieces += [(start, none), (ids, said & answers), (end, none | answers)]
        pieces += [(line := tokenizer.encode("\n"), torch.zeros_like(line, dtype=torch.bool))]
    if answer:
        ids = tokenizer.encode(_head("assistant"))
        pieces += [(start, torch.tensor([False])), (ids, torch.zeros_like(ids, dtype=torch.bool))]
    return torch.cat([ids for ids, _ in pieces]), torch.cat([counts for _, counts in pieces])


def can_chat(tokenizer: Any) -> TypeGuard[BPETokenizer]:
    """Whether a tokenizer has the markers."""
    return isinstance(tokenizer, BPETokenizer) and {START, END} <= tokenizer.special_tokens.keys()


def default_system(folder: str | Path) -> str | None:
    """The system's turn that the template in a folder of transformers' (Jinja) puts before a
    conversation that has none; None where it puts none, or there is no template."""
    folder = as_path(folder, "folder")
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.exists():
        template = read_text(file)
    else:
        template = str(read_json(config).get("chat_template")) if config.exists() else ""
    mark, end = re.escape(f"{START}system"), re.escape(END)
    found = re.search(rf"{mark}(?:\\n|\n)([^{{}}'\"]+?){end}", template)
    return found[1] if found else None


def check(messages: Sequence[Turn]) -> None:
    """ValueError, TypeError for what is no conversation: see `render`."""
    for number, turn in enumerate(check_each("messages", messages, Mapping)):
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise ValueError(f"messages[{number}] has the role {shown(role)}: there are {known}")
        if not isinstance(content, str):
            raise ValueError(
                f"messages[{number}] must have a text as content, not {shown(content)}"
            )
    if not any(turn["role"] == "user" for turn in messages):
        raise ValueError("messages has no turn of the user's, to be answered: give one")


def _parts(messages: Sequence[Turn], system: str | None) -> list[tuple[str, str]]:
    """Each turn's first line and its content."""
    check(messages)
    check_type("system", system, str, optional=True)
    found = [(_head(turn["role"]), turn["content"]) for turn in messages]
    if system is not None and messages[0]["role"] != "system":
        found.insert(0, (_head("system"), system))
    return found


def _head(role: str) -> str:
    return f"{role}\n"
