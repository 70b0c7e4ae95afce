"""Texts with faults that were planted on purpose, so that an instrument can be tried on something
known: parts that stand there often, sentences with counted odds, lines with labelled data.

What is measured in them is in the other modules of this folder.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmkit.responsible.personal_data import Span

# Each has two gaps: {role}, and {} for the pronoun.
TEMPLATES = [
    "The {role} said that {} was late for the",
    "Nobody knew that the {role} had lost what {} hid in the",
    "When the {role} came back {} went to the",
    "As soon as the {role} was well {} asked for the",
    "The {role} laughed because {} had seen the",
    "If the {role} is right {} will pay for the",
    "The {role} was sure that {} would find the",
    "Long ago the {role} wrote that {} loved the",
    "We met the {role} when {} was at the",
    "Ask the {role} why {} sold the",
    "The {role} slept until {} heard the",
    "They say the {role} sings when {} thinks of the",
]
_ADJECTIVES = "old new red blue long short cold warm great little broken golden quiet last"
_THINGS = "boat bridge market tower garden river road mill bell lantern table letter basket ring"
_WHEN = "at noon, by night, in spring, in the rain, once more, too soon, in haste"
ENDINGS = _ADJECTIVES.split(), _THINGS.split(), _WHEN.split(", ")
# Personal data as {KIND:data}. Numbers and names of hosts are ones set aside for examples.
LABELLED = """
Write to {EMAIL:jan.marden@wend.example} by noon.
The dyers read {EMAIL:dye-house+orders@mail.wend.example}, I hear.
Ask jan at wend dot example, {EMAIL:jan AT wend DOT example} that is.
Call {PHONE:+44 20 7946 0958} or {PHONE:(0161) 496 0123}.
My number is {PHONE:020 7946 0018}, after six.
Ring {PHONE:555-0143} and ask for {NAME:Grizel}.
It was paid with {CARD:4111 1111 1111 1111} on Monday.
The card {CARD:5555-5555-5555-4444} was lost at the weir.
Order 4111 1111 1111 1112 is on its way.
Send it to {IBAN:GB29 NWBK 6016 1331 9268 19} today.
The salt office has {IBAN:DE89 3704 0044 0532 0130 00}.
Your reference is GB12 WEST 1234 5698 7654 32.
The server at {IP:192.0.2.44} is asleep.
We installed release 2.14.0.7 in spring.
There is no 300.1.2.3 in any network.
Room 0203 0405 0607 is behind the mill.
Our {NAME:Gudgeon} drums on Lantern Night.
{NAME:Collas Perrin} lives at {PLACE:the third door by the weir}.
She sold 1200 sacks for 350 crowns in 14 days.
The ferry leaves at six; ask for the one with the blue coat.
""".strip().splitlines()


def first_parts(parts: Sequence[str], characters: int) -> list[str]:
    """The first parts, as many as it takes to have so many characters (a blank line after each)."""
    taken: list[str] = []
    total = 0
    for part in parts:
        if total >= characters:
            break
        taken.append(part)
        total += len(part) + 2
    return taken


def scattered(parts: Sequence[str], extras: Sequence[str], seed: int = 7) -> list[str]:
    """The parts in their order, each extra one after a part that is drawn for it.

    ValueError for extras without a part to follow.
    """
    if extras and not parts:
        raise ValueError("there is no part that the extras could be scattered among")
    chance = random.Random(seed)
    following: list[list[str]] = [[] for _ in parts]
    for extra in extras:
        chance.choice(following).append(extra)
    return [one for part, more in zip(parts, following, strict=True) for one in [part, *more]]


@dataclass(frozen=True)
class Sentence:
    """A sentence on somebody at work, and who is in it."""

    role: str
    pronoun: str
    text: str


def work_sentences(she: Mapping[str, float], number: int, seed: int = 1) -> list[Sentence]:
    """So many sentences from `TEMPLATES`: role, template and ending drawn evenly, the pronoun
    "she" with the probability that `she` gives for the role, else "he"."""
    chance = random.Random(seed)
    sentences = []
    for _ in range(number):
        role = chance.choice(list(she))
        pronoun = "she" if chance.random() < she[role] else "he"
        start = chance.choice(TEMPLATES).format(pronoun, role=role)
        end = " ".join(chance.choice(words) for words in ENDINGS)
        sentences.append(Sentence(role, pronoun, f"{start} {end}."))
    return sentences


def labelled(marked: str) -> tuple[str, set[Span]]:
    """A line with its labels, as in "Ask {NAME:Jan}.": the plain text, and what they mark."""
    text, spans = "", set()
    for piece in re.split(r"(\{[A-Z]+:[^{}]*\})", marked):
        if match := re.fullmatch(r"\{([A-Z]+):([^{}]*)\}", piece):
            kind, piece = match.groups()
            spans.add(Span(len(text), len(text) + len(piece), kind))
        text += piece
    return text, spans
