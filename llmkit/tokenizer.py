"""Text to integers and back: character level and word level. Subwords are in the folder `bpe`.

A tokenizer is a list of distinct tokens; a token's place in the list is its id. Here live encoding,
decoding and the JSON file that keeps a tokenizer beside its model. Where text comes from: `data`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import torch

from llmkit import files
from llmkit.arguments import Tokenizer, check_number, check_type, shown
from llmkit.data import as_tensor

BLOCK = 65_536  # characters looked up at a time: these stay in the processor's cache, 10 MB do not
WORDS = re.compile(r"\w+|\s|[^\w\s]")  # a word, a white space, or one of all else: nothing is lost

# Which class reads a file of which kind. By name, because a file of the core never imports a
# folder: `bpe` is imported when a file of its kind is read, and not before.
CLASSES = {
    "character": ("llmkit.tokenizer", "CharTokenizer"),
    "word": ("llmkit.tokenizer", "WordTokenizer"),
    "bpe": ("llmkit.bpe", "BPETokenizer"),
}
Self = TypeVar("Self", bound="BaseTokenizer")


class BaseTokenizer:
    """What all levels share, subwords too: ids back to text, and the file.

    A class has to bring `encode`, `join` (the text of an array of ids, (N,) int64), `to_json` and
    `from_fields`, which makes a tokenizer of what `to_json` wrote.
    """

    kind: ClassVar[str]  # under which `CLASSES` knows the class
    # A pattern of the places, between two characters, at which a text may be cut in two: the tokens
    # of the first part and then of the second are those of the whole. Here: before white space that
    # follows something else. (No rule that we know of joins the two, GPT-2's neither.)
    cut: ClassVar[str] = r"(?<=\S)(?=[ \t\r\n])"
    tokens: Sequence[str] | Sequence[bytes]  # distinct, in id order

    @property
    def vocab_size(self) -> int:
        """How many ids there are, the unknown token's included."""
        return len(self.tokens)

    def decode(self, ids: torch.Tensor | Sequence[int] | int) -> str:
        """The text of `ids`, (N,) or a single id; ValueError for what is not an id."""
        ids = as_tensor(ids).cpu().long()
        if ids.ndim > 1:
            raise ValueError(f"ids must be a single id or (N,), not {shown(ids)}")
        ids = ids.reshape(-1)
        wrong = ids[(ids < 0) | (ids >= self.vocab_size)]
        if len(wrong):
            raise ValueError(f"id {wrong[0]} is not one of the ids 0 to {self.vocab_size - 1}")
        return self.join(ids.numpy())

    def save(self, path: str | Path) -> None:
        """Write a JSON file, from which `load` gives back the same tokenizer."""
        files.as_path(path).write_text(self.to_json() + "\n", encoding="ascii")

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """The tokenizer that `save` wrote; ValueError where it is one of another class."""
        tokenizer = load(path)
        if not isinstance(tokenizer, cls):
            raise ValueError(f"{path} holds a {type(tokenizer).__name__}, not a {cls.__name__}")
        return tokenizer

    def join(self, ids: np.ndarray) -> str:
        raise NotImplementedError

    def to_json(self) -> str:
        """What `save` writes, in ASCII; `from_json` reads it."""
        raise NotImplementedError


class VocabularyTokenizer(BaseTokenizer):
    """A tokenizer that knows the tokens of its list, and nothing else.

    tokens: distinct, in id order. unknown: the token whose id `encode` gives to all that is not in
    the vocabulary, added at the end where `tokens` lacks it; with None, `encode` refuses it.
    """

    tokens: list[str]

    def __init__(self, tokens: Sequence[str], unknown: str | None = None):
        if unknown == "" or not isinstance(unknown, (str, type(None))):
            raise ValueError(f"unknown must be a token or None, not {shown(unknown)}")
        strings = isinstance(tokens, Sequence) and all(isinstance(t, str) and t for t in tokens)
        if not strings or not tokens or len(set(tokens)) < len(tokens):
            what = "tokens (of a CharTokenizer: characters) must be one or more str"
            raise ValueError(f"{what}, distinct and none empty, not {shown(tokens)}")
        self.tokens, self.unknown = list(tokens), unknown
        if unknown is not None and unknown not in self.tokens:
            self.tokens.append(unknown)
        # A list would be searched from its start for every token of a text.
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        self._other = -1 if unknown is None else self._ids[unknown]  # all that is not in the list

    def join(self, ids: np.ndarray) -> str:
        return "".join([self.tokens[i] for i in ids.tolist()])

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, "unknown": self.unknown, "tokens": self.tokens})

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> VocabularyTokenizer:
        unknown = files.get(fields, "unknown", str, type(None))
        return cls(files.get(fields, "tokens", list), unknown)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, unknown={self.unknown!r})"

    def _refuse(self, name: str, text: str, position: int) -> NoReturn:
        line = text.count("\n", 0, position) + 1
        raise ValueError(
            f"{name} at position {position} (line {line}) is not in the vocabulary; build the "
            "tokenizer from text that has it, or give it an unknown token, as in unknown='<unk>'"
        )


class CharTokenizer(VocabularyTokenizer):
    """One id for each character; `.characters` is the vocabulary as one str.

    characters: distinct, in id order. unknown: a character such as "?" or a token such as "<unk>".
    """

    kind = "character"
    cut = ""  # anywhere

    def __init__(self, characters: str | Sequence[str], unknown: str | None = None):
        super().__init__(characters, unknown)
        if longer := [token for token in self.tokens if len(token) > 1 and token != unknown]:
            raise ValueError(f"{longer[0]!r} is not one character; WordTokenizer takes words")
        self.characters = "".join(token for token in self.tokens if len(token) == 1)
        # Two tables: id -> code point, and code point -> id. The last entry of the second belongs
        # to no character, and every code point beyond the table is clipped to it.
        self._codes = np.array([ord(t) if len(t) == 1 else 0 for t in self.tokens], "<u4")
        self._table = np.full(int(self._codes.max()) + 2, self._other, np.int64)
        self._table[list(map(ord, self.characters))] = [self._ids[c] for c in self.characters]

    @classmethod
    def from_text(cls, text: str, unknown: str | None = None) -> CharTokenizer:
        """A tokenizer of the distinct characters of `text`, sorted by code point."""
        check_type("text", text, str)
        # Sorted, because a set has another order in each run: the ids would not fit a saved model.
        return cls(sorted(set(text)), unknown)

    def encode(self, text: str) -> torch.Tensor:
        """The ids of `text`, a LongTensor (N,); ValueError for an unknown character."""
        check_type("text", text, str)
        ids = np.empty(len(text), np.int64)
        for start in range(0, len(text), BLOCK):
            block, out = text[start : start + BLOCK], ids[start : start + BLOCK]
            # surrogatepass: a str may hold half a surrogate pair, and it too is a character
            codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), "<i4")
            np.take(self._table, codes, out=out, mode="clip")
            if out.min() < 0:
                wrong = block[out.argmin()]
                self._refuse(f"character {wrong!r} (U+{ord(wrong):04X})", text, text.index(wrong))
        return torch.from_numpy(ids)

    def join(self, ids: np.ndarray) -> str:
        if len(self.unknown or "") > 1 and (ids == self._other).any():
            return super().join(ids)  # a token of several characters has no code point
        return self._codes.take(ids).tobytes().decode("utf-32-le", "surrogatepass")


class WordTokenizer(VocabularyTokenizer):
    """One id for each word, white space and punctuation mark: known text comes back whole."""

    kind = "word"

    @classmethod
    def from_text(
        cls, text: str, max_vocab: int | None = None, unknown: str | None = "<unk>"
    ) -> WordTokenizer:
        """A tokenizer of the tokens of `text`, most frequent first, ties as they first occur.

        max_vocab: the most ids to have, the unknown token's included; the rarest tokens fall out.
        """
        check_type("text", text, str)
        check_number("max_vocab", max_vocab, int, optional=True, least=1 + (unknown is not None))
        room = max_vocab if max_vocab is None or unknown is None else max_vocab - 1
        return cls([token for token, _ in Counter(WORDS.findall(text)).most_common(room)], unknown)

    def encode(self, text: str) -> torch.Tensor:
        """The ids of `text`, a LongTensor (N,); ValueError for an unknown token."""
        check_type("text", text, str)
        ids = [self._ids.get(word, self._other) for word in WORDS.findall(text)]
        if -1 in ids:
            word = next(word for word in WORDS.finditer(text) if word.group() not in self._ids)
            self._refuse(f"token {word.group()!r}", text, word.start())
        return torch.tensor(ids, dtype=torch.int64)


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a file that `save` wrote, of whichever class.

    Raises FileNotFoundError for no file, ValueError for one cut short or of another program.
    """
    content = files.read_bytes(path)
    try:
        return from_json(content)
    except ValueError:
        raise ValueError(f"{path} is not a whole tokenizer file; save it again") from None


def from_json(content: str | bytes) -> Tokenizer:
    """The tokenizer whose `to_json` gave the content; ValueError for anything else."""
    try:
        fields = files.parse_json(content)
        module, name = CLASSES[fields["kind"]]
        return getattr(import_module(module), name).from_fields(fields)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError("this is not a tokenizer's JSON; make it with to_json") from None
