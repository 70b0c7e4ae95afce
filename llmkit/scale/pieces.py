"""A text of any size in pieces that can be tokenized apart: a file's, or a collection's documents.

`pieces`, which runs in one process, cuts them small; `encode`, which runs in many, makes them ids.
With each piece comes the state from which another call of `pieces` goes on behind it. What becomes
of the ids is decided in `tokenfile`.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llmkit.data import SIGNS

PIECE = 1 << 20  # bytes of a file, or characters of documents
WINDOW = 4096  # bytes in which a place to cut is looked for at first
SOURCES = "the path of a text file, a dataset or an iterable of str"


class Refused(ValueError):
    """The text, or the tokenizer, must change before the one can be tokenized by the other."""


class Changed(Exception):
    """This is not the text to which a state belongs."""


class Pieces:
    """What both kinds of text share: tokenizing a str, a stretch at a time.

    tokenizer: one of llmkit's; dtype: of the ids.
    """

    name = "the source"
    total: int | None = None  # in what the states count as done

    def __init__(self, tokenizer: Any, dtype: np.dtype):
        self.tokenizer, self.dtype = tokenizer, dtype
        # Not within "\r\n", nor after a byte that is no character, for which a surrogate stands.
        self.cut = re.compile(r"(?<=[^\r\ud800-\udfff])" + tokenizer.cut)

    def tokenize(self, text: str) -> bytes:
        """The ids of a text; there are never int64 ids of all of it."""
        ids, start = [], 0
        while start < len(text):
            cut = self.cut.search(text, start + 2 * PIECE)
            end = cut.start() if cut else len(text)
            try:
                ids.append(self.tokenizer.encode(text[start:end]).numpy().astype(self.dtype))
            except ValueError as error:
                raise Refused(shift(str(error), start, text.count("\n", 0, start))) from None
            start = end
        return b"".join(ids)


class TextFile(Pieces):
    """A file of text in UTF-8; a piece is (first byte, byte behind the last). Done: bytes."""

    def __init__(self, path: Path, tokenizer: Any, dtype: np.dtype):
        super().__init__(tokenizer, dtype)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"there is no file {str(path)[:80]!r}; write takes {SOURCES}")
        self.name = self.path = path
        self.total = path.stat().st_size
        self.identity = {"bytes": self.total, "modified": path.stat().st_mtime_ns}

    def pieces(self, state: dict) -> Iterator[tuple[dict, tuple[int, int]]]:
        """Each piece, and the state behind it."""
        with open(self.path, "rb") as file:
            start = state["done"] or 3 * (file.read(3) == b"\xef\xbb\xbf")  # a byte-order mark
            while start < self.total:
                end = self._cut_after(start + PIECE, file)
                yield {"done": end}, (start, end)
                start = end

    def _cut_after(self, start: int, file: BinaryIO) -> int:
        """The first byte at which the tokenizer lets the file be cut; if there is none, its end."""
        size = WINDOW
        while start + size < self.total:
            file.seek(start)
            text = file.read(size).decode("utf-8", "surrogateescape")
            if cut := self.cut.search(text):
                return start + len(text[: cut.start()].encode("utf-8", "surrogateescape"))
            size *= 4
        return self.total

    def encode(self, piece: tuple[int, int]) -> tuple[bytes, dict[str, int]]:
        """The ids of a piece, and its length. Raises Refused for what is no text or has no ids."""
        start, end = piece
        with open(self.path, "rb") as file:
            file.seek(start)
            raw = file.read(end - start)
        if len(raw) < end - start:
            raise Refused(f"{self.path} became shorter while it was read; call write again")
        try:
            text, wrong = raw.decode(), raw.find(b"\0")  # which no text has
        except UnicodeDecodeError as error:
            wrong = error.start
        if wrong >= 0:
            likely = next(name for name, sign in SIGNS.items() if re.search(sign, raw))
            raise Refused(
                f"{self.path} is not UTF-8 but perhaps {likely}, as byte {start + wrong} (from 0) "
                f"is 0x{raw[wrong]:02x}; write takes text in UTF-8"
            )
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self.tokenize(text), {"characters": len(text), "lines": text.count("\n")}


class Documents(Pieces):
    """Many str, with a separator between them, tokenized each by itself; a piece is (number of its
    first document, the documents). Done: documents.

    source: an iterable of str, or a `datasets` dataset with such a column.
    """

    def __init__(self, source: Any, column: str, separator: str, tokenizer: Any, dtype: np.dtype):
        super().__init__(tokenizer, dtype)
        self.source = choose_column(source, column)
        self.separator, self.identity = separator, {"separator": separator}
        with suppress(TypeError):  # a stream has no length
            self.total = len(source)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"source": None}  # which those who encode need not have

    @cached_property
    def between(self) -> bytes:
        """The ids of the separator."""
        try:
            return self.tokenize(self.separator)
        except Refused as error:
            raise Refused(f"separator {self.separator!r}: {error}, or choose another") from None

    def texts(self) -> Iterator[str]:
        """The documents, from the first on."""
        if not hasattr(self.source, "select_columns"):
            yield from self.source
            return
        for batch in self.source.iter(batch_size=100):  # far faster than row by row
            yield from next(iter(batch.values()))

    def numbered(self) -> Iterator[tuple[int, str, int]]:
        """Each document, counted from 1, and a checksum of all up to it."""
        crc = 0
        for n, text in enumerate(self.texts(), 1):
            if not isinstance(text, str):
                raise Refused(f"document {n - 1} (from 0) is a {type(text).__name__}, not a str")
            crc = zlib.crc32(text.encode("utf-8", "surrogatepass") + b"\xff", crc)
            yield n, text, crc

    def pieces(self, state: dict) -> Iterator[tuple[dict, tuple[int, list[str]]]]:
        """Each piece, and the state behind it; Changed if other documents led to `state`."""
        numbered = self.numbered()
        if state["done"]:
            *_, crc = next(islice(numbered, state["done"] - 1, None), (None,))
            if crc != state["crc"]:
                raise Changed
        documents, size = [], 0
        for n, text, crc in numbered:
            documents.append(text)
            size += len(text) + len(self.separator) + 1
            if size >= PIECE:
                yield {"done": n, "crc": crc}, (n - len(documents), documents)
                documents, size = [], 0
        if documents:
            yield {"done": n, "crc": crc}, (n - len(documents), documents)

    def encode(self, piece: tuple[int, list[str]]) -> tuple[bytes, dict[str, int]]:
        """The ids of a piece; its length is no matter. Raises Refused for what has no ids."""
        first, documents = piece
        if not self.tokenizer.cut:  # together they have the ids that they have apart
            with suppress(Refused):
                lead = self.separator if first else ""
                return self.tokenize(lead + self.separator.join(documents)), {}
        ids = []
        for n, text in enumerate(documents, first):
            if n:
                ids.append(self.between)
            try:
                ids.append(self.tokenize(text))
            except Refused as error:
                raise Refused(f"document {n} (from 0): {error}") from None
        return b"".join(ids), {}


def choose_column(source: Any, column: str) -> Any:
    """A dataset with one column; another iterable as it is."""
    if isinstance(source, Mapping):
        raise ValueError(f"write takes one of the parts {list(source)}, as in source['train']")
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Iterable):
        raise TypeError(f"write takes {SOURCES}, not {type(source).__name__}")
    if not hasattr(source, "select_columns"):
        return source
    names = source.column_names or list(next(iter(source), {}))  # a stream may not know them
    if names and column not in names:
        raise ValueError(f"there is no column {column!r} in {names}; name the one with the text")
    return source.select_columns([column]).with_format(None)


def shift(message: str, characters: int, lines: int) -> str:
    """What a tokenizer says of a piece, with the place as it is in the whole text."""

    def place(match: re.Match) -> str:
        return f"position {int(match[1]) + characters} (line {int(match[2]) + lines})"

    return re.sub(r"position (\d+) \(line (\d+)\)", place, message)
