"""Chats: turns of a system, a user and an assistant, and the one form in which a model reads them.

A chat is a list of messages as transformers has them, {"role": ..., "content": ...}. What is
learned from it are the assistant's words and the mark that ends them; see ``instructions`` for rows
of such examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from llmkit.arguments import Tokenizer, check_choice, check_type
from llmkit.evaluation import IGNORE_INDEX
from llmkit.finetune.chatml import ROLES, check
from llmkit.finetune.instructions import Example

Message = Mapping[str, str]


@dataclass(frozen=True)
class ChatTemplate:
    """How turns are written: ``before`` with the role's name, the words, ``after``, ``between``.

    Attributes:
        before: what opens a turn; {role} stands for the role's name.
        after: the mark that ends a turn, which the model learns to say after its own.
        between: what follows the mark. Nobody learns it.
        names: what a role is called in ``before``, where it is not its own name.
    """

    before: str
    after: str
    between: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("before", "after", "between"):
            check_type(name, getattr(self, name), str)
        check_type("names", self.names, Mapping)
        for role, name in self.names.items():
            check_choice("a role in names", role, ROLES)
            check_type(f"the name of {role} in names", name, str)

    def opening(self, role: str) -> str:
        """What opens a turn of this role."""
        return self.before.replace("{role}", self.names.get(role, role))

    def text(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The whole chat; with add_generation_prompt, an assistant's turn is opened at its end.

        ValueError for a role that is unknown, no turn of the user's, a system's turn that is not
        the first, or words that hold a mark of the template's and would forge a turn.
        """
        check_type("add_generation_prompt", add_generation_prompt, bool)
        opened = self.opening("assistant") if add_generation_prompt else ""
        return "".join(text for text, _ in self._parts(messages)) + opened

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Example:
        """Ids and targets, (N,) each: targets[i] is the id that follows ids[i], or -100.

        What counts is what the assistant says, with the mark at its end. Each stretch that counts
        is encoded by itself: the model will meet its prompts so, cut where its turn is opened.
        """
        check_type("tokenizer", tokenizer, Tokenizer)
        ids, counted = [], []
        for text, counts in self._parts(messages):
            part = tokenizer.encode(text)
            ids.append(part)
            counted.append(torch.full_like(part, counts, dtype=torch.bool))
        whole, learned = torch.cat(ids), torch.cat(counted)
        return whole[:-1], whole[1:].where(learned[1:], IGNORE_INDEX)

    def jinja(self) -> str:
        """The template in Jinja, as transformers' ``tokenizer.chat_template`` takes it."""
        openings = json.dumps({role: self.opening(role) for role in ROLES})
        after, between = json.dumps(self.after), json.dumps(self.between)
        opened = json.dumps(self.opening("assistant"))
        said = "{{ message['content'] + " + after + " }}"
        return (
            "{% for message in messages %}{{ " + openings + "[message['role']] }}"
            "{% if message['role'] == 'assistant' %}{% generation %}" + said + "{% endgeneration %}"
            "{% else %}" + said + "{% endif %}{{ " + between + " }}{% endfor %}"
            "{% if add_generation_prompt %}{{ " + opened + " }}{% endif %}"
        )

    def _parts(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The chat in stretches, and whether each counts in the loss."""
        parts: list[tuple[str, bool]] = []
        held = ""  # what does not count, up to the next words of the assistant
        for role, words in self._checked(messages):
            held += self.opening(role)
            if role == "assistant":
                parts += [(held, False), (words + self.after, True)]
                held = self.between
            else:
                held += words + self.after + self.between
        return [*parts, (held, False)] if held else parts

    def _checked(self, messages: Sequence[Message]) -> list[tuple[str, str]]:
        """The role and the words of each turn."""
        check(messages)
        for number, message in enumerate(messages):
            if number and message["role"] == "system":
                raise ValueError(f"messages[{number}] is the system's, who speaks first: move it")
            if mark := next((mark for mark in self._marks() if mark in message["content"]), None):
                raise ValueError(
                    f"messages[{number}] holds {mark!r}, a mark of the template's, and would be "
                    "read as more turns than it is: take it out"
                )
        return [(message["role"], message["content"]) for message in messages]

    def _marks(self) -> list[str]:
        """What no turn's words may hold."""
        special = [self.before.partition("{role}")[0], self.after.strip()]
        return [mark for mark in special if mark] or ["\n" + self.opening(role) for role in ROLES]


# The form of notebook 13: one turn of each is `instructions.PROMPT_TEMPLATE` and its answer.
PLAIN = ChatTemplate("{role}: ", "\n", names={"system": "S", "user": "Q", "assistant": "A"})
# What Qwen and SmolLM2 read, as text; `finetune.chatml` writes it for their tokenizers. See https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md
CHATML = ChatTemplate("<|im_start|>{role}\n", "<|im_end|>", "\n")
