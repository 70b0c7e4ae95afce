"""Text to integers and back: character level and word level.

A tokenizer is a list of distinct tokens; a token's place in the list is its id. Here live encoding,
decoding and the JSON file that keeps a tokenizer beside its model. Where text comes from: `data`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

BLOCK = 65_536  # characters looked up at a time: these stay in the processor's cache, 10 MB do not
PIECES = re.compile(r"\w+|\s|[^\w\s]")  # a word, a white space, or one of all else: nothing is lost


class _Tokenizer:
    """What both levels share: `tokens` (a list, in id order), `unknown` (one of them, or None)."""

    kind: str

    def __init__(self, tokens: Sequence[str], unknown: str | None):
        self.tokens, self.unknown = list(tokens), unknown
        if unknown is not None and unknown not in self.tokens:
            self.tokens.append(unknown)
        if not self.tokens or not all(isinstance(token, str) and token for token in self.tokens):
            raise ValueError("a tokenizer needs at least one token, each a str that is not empty")
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise ValueError(f"the token {twice!r} is listed twice; give each token once")
        self._other = self._ids.get(unknown, -1)  # the id of all that is not in the vocabulary

    @property
    def vocab_size(self) -> int:
        """How many ids there are, the unknown token's included."""
        return len(self.tokens)

    def decode(self, ids: torch.Tensor | Sequence[int] | int) -> str:
        """The text of `ids`, (N,) or a single id; the unknown token decodes to its own text.

        Raises ValueError for an id outside the vocabulary, TypeError for what is not integers.
        """
        ids = torch.as_tensor(ids)
        if ids.ndim > 1:
            raise ValueError(f"decode takes ids of shape (N,), not {tuple(ids.shape)}: row by row")
        if ids.numel() and (ids.is_floating_point() or ids.dtype == torch.bool):
            raise TypeError(f"decode takes integer ids, not {ids.dtype}")
        array = ids.detach().to("cpu", torch.int64).reshape(-1).numpy()
        if array.size and not 0 <= array.min() <= array.max() < self.vocab_size:
            wrong = next(i for i in array if not 0 <= i < self.vocab_size)
            raise ValueError(f"id {wrong} is not in the vocabulary of 0 to {self.vocab_size - 1}")
        return self._join(array)

    def _join(self, ids: np.ndarray) -> str:
        return "".join([self.tokens[i] for i in ids.tolist()])

    def save(self, path: str | Path) -> None:
        """Write a JSON file, from which `load` gives back the same tokenizer."""
        content = {"kind": self.kind, "unknown": self.unknown, "tokens": self.tokens}
        Path(path).write_text(json.dumps(content) + "\n", encoding="ascii")

    @classmethod
    def load(cls, path: str | Path):
        """The tokenizer that `save` wrote; ValueError where it is one of another class."""
        tokenizer = load(path)
        if not isinstance(tokenizer, cls):
            raise ValueError(f"{path} holds a {type(tokenizer).__name__}, not a {cls.__name__}")
        return tokenizer

    def _refuse(self, name: str, text: str, position: int) -> None:
        line = text.count("\n", 0, position) + 1
        raise ValueError(
            f"{name} at position {position} (line {line}) is not in the vocabulary; build the "
            "tokenizer from text that has it, or give it an unknown token, as in unknown='<unk>'"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, unknown={self.unknown!r})"


class CharTokenizer(_Tokenizer):
    """One id for each character.

    characters: distinct single characters, in id order. unknown: with None, `encode` refuses any
    other character; with a token such as "<unk>" or "?" they all get its id (the last one, where
    `characters` lacks that token). `.characters` is the vocabulary as one str.
    """

    kind = "character"

    def __init__(self, characters: str | Sequence[str], unknown: str | None = None):
        super().__init__(characters, unknown)
        self.characters = "".join(token for token in self.tokens if len(token) == 1)
        longer = [token for token in self.tokens if len(token) > 1 and token != unknown]
        if longer:
            raise ValueError(f"{longer[0]!r} is not one character; WordTokenizer takes words")
        # Two tables: id -> code point, and code point -> id. The last entry of the second belongs
        # to no character, and every code point beyond the table is clipped to it.
        self._code_points = np.array([ord(t) if len(t) == 1 else 0 for t in self.tokens], "<u4")
        self._table = np.full(int(self._code_points.max()) + 2, self._other, np.int64)
        for character in self.characters:
            self._table[ord(character)] = self._ids[character]

    @classmethod
    def from_text(cls, text: str, unknown: str | None = None) -> CharTokenizer:
        """A tokenizer of the distinct characters of `text`, sorted by code point."""
        return cls(sorted(set(text)), unknown)

    def encode(self, text: str) -> torch.Tensor:
        """The ids of `text`: a LongTensor (N,), one id for each character.

        Raises ValueError for a character outside the vocabulary if there is no `unknown` token.
        """
        ids = np.empty(len(_checked(text)), np.int64)
        for start in range(0, len(text), BLOCK):
            block, out = text[start : start + BLOCK], ids[start : start + BLOCK]
            if block.isascii():
                codes = np.frombuffer(block.encode("ascii"), np.uint8)
            else:  # surrogatepass: a str may hold half a surrogate pair, and it too is a character
                codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), "<i4")
            np.take(self._table, codes, out=out, mode="clip")
            if out.min() < 0:
                position = start + int(out.argmin())
                name = f"character {text[position]!r} (U+{ord(text[position]):04X})"
                self._refuse(name, text, position)
        return torch.from_numpy(ids)

    def _join(self, ids: np.ndarray) -> str:
        if len(self.unknown or "") > 1 and (ids == self._other).any():
            return super()._join(ids)  # a token of several characters has no code point
        blocks = [ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK)]
        codes = map(self._code_points.take, blocks)
        return "".join([str(block, "utf-32-le", "surrogatepass") for block in codes])


class WordTokenizer(_Tokenizer):
    """One id for each word, white space and punctuation mark, so that known text comes back whole.

    tokens: distinct, in id order. unknown: the token of all others (the last one, where `tokens`
    lacks it); with None, `encode` refuses them.
    """

    kind = "word"

    def __init__(self, tokens: Sequence[str], unknown: str | None = "<unk>"):
        super().__init__(tokens, unknown)

    @classmethod
    def from_text(cls, text: str, max_vocab: int | None = None, unknown: str | None = "<unk>"):
        """A tokenizer of the tokens of `text`, most frequent first, ties by code point.

        max_vocab: the most ids to have, the unknown token's included; the rarest tokens fall out.
        """
        counts = Counter(PIECES.findall(text))
        tokens = sorted(counts, key=lambda token: (-counts[token], token))
        room = len(tokens) if max_vocab is None else max_vocab - (unknown is not None)
        if min(room, len(tokens)) < 1:
            raise ValueError(
                f"no room for a token: {len(tokens)} in the text, max_vocab {max_vocab}"
            )
        return cls(tokens[:room], unknown)

    def encode(self, text: str) -> torch.Tensor:
        """The ids of `text`: a LongTensor (N,), one id for each word, white space or other mark.

        Raises ValueError for a token outside the vocabulary if there is no `unknown` token.
        """
        ids = [self._ids.get(piece, self._other) for piece in PIECES.findall(_checked(text))]
        if -1 in ids:
            piece = next(p for p in PIECES.finditer(text) if p.group() not in self._ids)
            self._refuse(f"token {piece.group()!r}", text, piece.start())
        return torch.tensor(ids, dtype=torch.int64)


def load(path: str | Path) -> CharTokenizer | WordTokenizer:
    """The tokenizer in a file that `save` wrote, of whichever class.

    Raises FileNotFoundError for no file, ValueError for one cut short or of another program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no tokenizer file {path}; tokenizer.save writes one")
    try:
        content = json.loads(Path(path).read_bytes())
        classes = {cls.kind: cls for cls in (CharTokenizer, WordTokenizer)}
        return classes[content["kind"]](content["tokens"], content["unknown"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a whole tokenizer file; save the tokenizer again"
        ) from None


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"encode takes a str, not {type(text).__name__}")
    return text
