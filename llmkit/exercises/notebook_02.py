"""Notebook 02, character tokenizer."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

import torch
from torch import Tensor

from llmkit.exercises.examining import Exercise

LATE = "The Tide: Ebb and Flood.\n"


def _caesar(sign: int = 1, size: int = 0, less: int = 0) -> Any:
    """Each character moved on in the list of characters, around its end."""

    def caesar(string: str, n: int, characters: str) -> str:
        around = (size or len(characters)) - less
        places = [(characters.index(c) + sign * n) % around for c in string]
        return "".join(characters[place % len(characters)] for place in places)

    return caesar


def _by_code_point(string: str, n: int, characters: str) -> str:
    return "".join(chr(ord(c) + n) for c in string)


def _without_capitals(saved: str = "ids", lost: str = "occurrences") -> Any:
    """What small letters save and lose, counted in these ways."""

    def without_capitals(text: str) -> tuple[int, float]:
        distinct = set(text)
        capitals = [c for c in text if c != c.lower()]
        gone = {
            "ids": {c for c in distinct if c != c.lower() and c.lower() in distinct},
            "capitals": set(capitals),
        }
        letters = [c for c in text if c.isalpha()]
        share = {
            "occurrences": (capitals, text),
            "distinct": (list(set(capitals)), list(distinct)),
            "of letters": (capitals, letters),
            "kept": ([c for c in text if c == c.lower()], text),
        }[lost]
        return len(gone[saved]), len(share[0]) / (len(share[1]) or 1)

    return without_capitals


def _encode(unknown: str = "refused", limit: int = 0x110000) -> Any:
    """Ids by looking each character up, and what becomes of those that have none."""

    def encode(string: str, characters: str) -> Tensor:
        ids: list[int] = []
        instead = {"-1": [-1], "last": [len(characters) - 1], "first": [0], "left out": []}
        for character in string:
            place = characters.find(character) if ord(character) < limit else -1
            if place < 0 and unknown == "refused":
                raise ValueError(f"{character!r} is not in the vocabulary")
            ids += [place] if place >= 0 else instead[unknown]
        return torch.tensor(ids, dtype=torch.int64)

    return encode


def _refusing(encode: Any) -> Any:
    """What it makes of a string, where it refuses it too."""

    def encoded(string: str, characters: str) -> Any:
        try:
            return encode(string, characters)
        except ValueError:
            return "(refused with a ValueError)"

    return encoded


def _bytes(codec: str = "utf-8") -> Any:
    """A tokenizer of the bytes of an encoding."""

    class Bytes:
        vocab_size = 256

        def encode(self, string: str) -> Tensor:
            return torch.tensor([*string.encode(codec, "replace")], dtype=torch.int64)

        def decode(self, ids: Tensor) -> str:
            return bytearray(ids.tolist()).decode(codec)

    return Bytes


def _code_points(modulo: int) -> Any:
    """The mistake of taking code points for bytes."""

    class CodePoints:
        vocab_size = 256

        def encode(self, string: str) -> Tensor:
            return torch.tensor([ord(c) % modulo for c in string], dtype=torch.int64)

        def decode(self, ids: Tensor) -> str:
            return "".join(map(chr, ids.tolist()))

    return CodePoints


def _there_and_back(kind: Any) -> Any:
    """What a tokenizer without a vocabulary makes of a string."""

    def trip(string: str) -> dict[str, Any]:
        tokenizer = kind()
        ids = tokenizer.encode(string)
        plain = torch.tensor([*b"Et tu?"])
        return {
            "vocab_size": tokenizer.vocab_size,
            "encode": ids,
            "decode(encode)": tokenizer.decode(ids),
            "decode of 'Et tu?'": tokenizer.decode(plain),
        }

    return trip


def _decode(ids: Tensor, characters: str) -> str:
    return "".join(characters[i] for i in ids.tolist())


CAESAR = """
def caesar(string: str, n: int, characters: str) -> str:
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode(tokenizer.encode(string))
"""
BROKEN = """
def repaired(string: str, characters: str) -> torch.Tensor:
    table = torch.full((128,), -1)
    table[[ord(character) for character in characters]] = torch.arange(len(characters))
    code_points = torch.frombuffer(bytearray(string, "utf-32-le"), dtype=torch.int32)
    return table[code_points]
"""
BYTES = """
class ByteTokenizer:
    vocab_size = 256

    def encode(self, string: str) -> torch.Tensor:  # (N,)
        return torch.zeros(0, dtype=torch.int64)

    def decode(self, ids: torch.Tensor) -> str:
        return ""
"""
DECODE = """
def decode_by_table(ids: torch.Tensor, characters: str) -> str:
    return ""
"""

EXERCISES = [
    Exercise(
        "02.small_vocabulary",
        reference=(7, [1, 4, 6], "robe"),
        checked="the list is ␣ b e n o r t, and its places begin at 0",
        mistakes={
            "places in a list are counted from 0": (7, [2, 5, 7], "on b"),
            "the list is sorted, not in the order of the text": (7, [3, 1, 0], "reo "),
            "the space is a character too, and the first in the list": (6, [0, 3, 5], "tren"),
            "a character has one id, however often it occurs": (18, [1, 4, 6], "robe"),
        },
        hints=(
            "Write down each character once, the space among them, and sort: ␣ comes first.",
            "There are seven: ␣ b e n o r t. The space has the id 0, b the id 1, and so on.",
        ),
    ),
    Exercise(
        "02.caesar",
        reference=_caesar(),
        checked="every character moves on by n, around the end of the list, and back with -n",
        cases=[
            ("a", 0, "ab"),
            ("b", 1, "ab"),
            ("cab", 1, "abc"),
            ("abc", -1, "abc"),
            ("cab", 7, "abc"),
            ("to be", 3, " abeot"),
            ("zebra", 3, ascii_lowercase),
        ],
        mistakes={
            "it moves the other way: n is added": _caesar(-1),
            "that moves code points: add n to the ids": _by_code_point,
            "the last of the list is never reached: % len(characters)": _caesar(less=1),
            "the alphabet has 26 letters; this list has its own length": _caesar(size=26),
            "nothing has moved: n is not used": lambda string, n, characters: string,
        },
        hints=(
            "tokenizer.encode(string) + n moves every id at one stroke.",
            "The id after the last should be 0 again: % tokenizer.vocab_size.",
        ),
        stub=CAESAR,
    ),
    Exercise(
        "02.without_capitals",
        reference=_without_capitals(),
        checked="an id is saved where both letters occur; every capital in the text is lost",
        cases=[("a",), ("Aa",), ("A",), ("Ab, a!",), (LATE,), (LATE.upper() + LATE,)],
        mistakes={
            "not every capital saves an id: its small letter may be new": _without_capitals(
                "capitals"
            ),
            "each time that a capital stands in the text counts": _without_capitals(
                lost="distinct"
            ),
            "the share is of all characters, not of the letters alone": _without_capitals(
                lost="of letters"
            ),
            "that is the share that is kept": _without_capitals(lost="kept"),
        },
        hints=(
            "Compare len(set(text)) with len(set(text.lower())).",
            "A character is lost where text and text.lower() differ: go through both with zip.",
        ),
    ),
    Exercise(
        "02.repaired",
        reference=_encode(),
        checked="any list, any string: the ids, or a ValueError",
        cases=[
            ("a", "a"),
            ("", "ab"),
            ("b\ta", "ab"),
            ("ë", "aë"),
            ("c", "ab"),
            ("aë", "ab"),
            ("a好", "ab"),
            ("a\U0010ffff", "a"),
            ("好ba\U0001f600", "ab好\U0001f600"),
        ],
        mistakes={
            "-1 goes out still: raise a ValueError for it": _encode("-1"),
            "what is unknown has become the last of the list: refuse it": _encode("last"),
            "what is unknown has become the first of the list: refuse it": _encode("first"),
            "what is unknown is left out: refuse it": _encode("left out"),
            "a list may hold characters beyond 127: make the table larger": _encode(limit=128),
        },
        hints=(
            'Try repaired("a\\tb", "ab"), then a list with an ë in it, then an empty string.',
            "The table needs a place for each code point of the list and of the string: "
            "sys.maxunicode + 1 are enough for all.",
            "torch.frombuffer does not take an empty buffer; if any id is -1, raise ValueError.",
        ),
        stub=BROKEN,
        prepare=_refusing,
    ),
    Exercise(
        "02.ByteTokenizer",
        reference=_bytes(),
        checked="256 ids are enough for every string, and each comes back whole",
        cases=[("a",), ("",), ("é",), ("好",), ("To be\n",), ("naïve 好 \U0001f600",)],
        mistakes={
            "those are code points, and they do not end at 255": _code_points(0x110000),
            "code points % 256 lose text: 好 does not come back": _code_points(256),
            "latin-1 has 256 characters and no more: take UTF-8": _bytes("latin-1"),
            "ASCII has 128 characters and no more: take UTF-8": _bytes("ascii"),
            "those are the bytes of UTF-16: take UTF-8": _bytes("utf-16-le"),
        },
        hints=(
            'list("好".encode("utf-8")) is a list of bytes, as int.',
            "An empty list makes a tensor of floats, unless dtype says otherwise.",
            'bytes(ids.tolist()).decode("utf-8") goes back.',
        ),
        stub=BYTES,
        prepare=_there_and_back,
    ),
    Exercise(
        "02.decode_by_table",
        reference=_decode,
        checked="any ids, any characters, also none",
        cases=[
            (torch.tensor([0]), "a"),
            (torch.tensor([1, 0, 1]), "ab"),
            (torch.zeros(0, dtype=torch.int64), "ab"),
            (torch.tensor([2, 0, 1, 2]), "aë好"),
            (torch.tensor([1, 2, 0]), "\n \U0001f600"),
        ],
        mistakes={
            "the table is int64, and UTF-32 has 4 bytes for each character: int32": (
                lambda ids, characters: "".join(c + "\0" for c in _decode(ids, characters))
            ),
            "that is the text of the table: look the ids up in it first": (
                lambda ids, characters: characters
            ),
            "the ids were taken for code points: look them up in the table": (
                lambda ids, characters: "".join(map(chr, ids.tolist()))
            ),
            "the order of the ids is lost": lambda ids, characters: "".join(
                sorted(_decode(ids, characters))
            ),
        },
        hints=(
            "The table has at the place of each id its code point: ord of each character.",
            "table[ids] has the code points of the text. UTF-32 wants them as int32.",
            'table[ids].numpy().tobytes().decode("utf-32-le")',
        ),
        stub=DECODE,
    ),
]
