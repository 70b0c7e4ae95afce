"""Corpora larger than memory: `write` tokenizes one into a file, in parallel; `load` maps the file.

It is a .safetensors file with one tensor "ids", uint16 or uint32, and the tokenizer in its
metadata. How a text is cut lives in `pieces`, how cores share the work in `parallel`, how the file
survives a crash in `resumable`; `data` cuts batches from the ids.
"""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmkit import tokenizer as tokenizers
from llmkit.scale.parallel import in_order
from llmkit.scale.pieces import Changed, Documents, Pieces, Refused, TextFile, shift
from llmkit.scale.resumable import ResumableFile

FORMAT = "llmkit tokens 1"
DTYPES = {"U16": np.dtype("<u2"), "U32": np.dtype("<u4")}  # as safetensors names them


def write(
    path: str | Path,
    source: Any,
    tokenizer: Any,
    *,
    workers: int | None = None,
    column: str = "text",
    separator: str = "\n\n",
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    r"""Tokenize a corpus of any size into a token file, and return the file's path.

    Args:
        path: of the file to make, such as "corpus.safetensors". One that is there already stays as
            it is until the new one is whole.
        source: the path of a text file in UTF-8 (its line ends become "\n"), or documents: a
            `datasets.Dataset` or `IterableDataset`, or any iterable of str.
        tokenizer: one of llmkit's. A file gets the ids of its whole text; of documents, each is
            tokenized by itself, and so is the separator between any two.
        workers: processes. None: one for each core, if the work takes more than a second.
        column: where in a dataset the documents are.
        separator: a text that goes between documents.
        progress: called as progress(done, total), in bytes of a file or in documents, of which the
            total may be None, unknown.

    After an interrupt, a kill or a full disk, the same call goes on where it stood, and its file is
    to the byte that of an uninterrupted one. A text file must not have changed (size and time);
    documents are read again up to that place, and compared.

    Raises FileNotFoundError, TypeError or ValueError for a source that is missing, empty, not text,
    or has what the tokenizer does not know (and where); ValueError if it was another source or
    tokenizer that was interrupted; RuntimeError for a worker that is killed, or another process
    that writes the same file; OSError where writing fails.
    """
    header, dtype = _header(tokenizer, 0), DTYPES[_kind(tokenizer)]
    if isinstance(source, (str, os.PathLike)):
        corpus = TextFile(Path(source).expanduser(), tokenizer, dtype)
    else:
        corpus = Documents(source, column, separator, tokenizer, dtype)
    target = Path(path).expanduser()
    with ResumableFile(target, {"source": corpus.identity, "header": zlib.crc32(header)}) as file:
        if file.state is None:
            file.store(target, header, 0)
            file.advance(len(header), {"done": 0, "characters": 0, "lines": 0})
        try:
            pieces = corpus.pieces(file.state)
            with closing(in_order(_Job(corpus, target), pieces, workers, file.size)) as replies:
                for state, size, length in replies:
                    counts = {k: file.state[k] + length.get(k, 0) for k in ("characters", "lines")}
                    file.advance(size, state | counts)
                    if progress:
                        progress(state["done"], corpus.total)
            if file.size == len(header):
                raise Refused(f"{corpus.name} is empty; write takes a text")
            file.finish(_header(tokenizer, (file.size - len(header)) // dtype.itemsize))
        except Changed:
            raise file.other() from None
        except Refused as refused:  # the same call can never go on
            file.discard()
            message = shift(str(refused), file.state["characters"], file.state["lines"])
            raise ValueError(message) from None
    return target


@dataclass
class _Job:
    """What `in_order` does with every piece."""

    corpus: Pieces
    target: Path

    def make(self, piece: Any) -> tuple[bytes, dict[str, int]]:
        return self.corpus.encode(piece)

    def store(self, data: bytes, place: int) -> None:
        ResumableFile.store(self.target, data, place)


def load(path: str | Path) -> tuple[Tensor, Any]:
    """The ids (N,), uint16 or uint32, and the tokenizer of a token file.

    The ids are mapped: what is used of them is read then, and forgotten where memory is short. They
    are to be read only.

    Raises FileNotFoundError for no file, ValueError for one cut short or of another program.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        begun = ResumableFile.unfinished(path).exists()
        advice = "the call of write that makes it was interrupted" if begun else "write makes one"
        raise FileNotFoundError(f"there is no token file {path}; {advice}")
    fields, start = _read_header(path)
    dtype, (n,) = DTYPES[fields["ids"]["dtype"]], fields["ids"]["shape"]
    if path.stat().st_size != start + n * dtype.itemsize:
        raise ValueError(f"{path} is not as long as it was when written; copy or write it again")
    try:
        ids = np.memmap(path, dtype, "c", start, (n,))  # who changes an id changes it for himself
    except OSError:  # a file larger than memory may not be mapped so, for all of it may be changed
        ids = np.memmap(path, dtype, "r", start, (n,))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(ids), tokenizers.from_json(fields["__metadata__"]["tokenizer"])


def _kind(tokenizer: Any) -> str:
    return "U16" if tokenizer.vocab_size <= 1 << 16 else "U32"


def _header(tokenizer: Any, n: int) -> bytes:
    """How a file of n ids starts, at the same length for every n: eight bytes that tell the length
    of the rest, JSON, and spaces (https://github.com/huggingface/safetensors#format)."""
    kind = _kind(tokenizer)

    def fields(n: int) -> bytes:
        offsets = [0, n * DTYPES[kind].itemsize]
        metadata = {"format": FORMAT, "tokenizer": tokenizer.to_json()}
        tensor = {"dtype": kind, "shape": [n], "data_offsets": offsets}
        return json.dumps({"__metadata__": metadata, "ids": tensor}).encode()

    room = 56 + -(-len(fields(1 << 60)) // 64) * 64  # the ids start at a multiple of 64 bytes
    return struct.pack("<Q", room) + fields(n).ljust(room)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """What the header of a token file says, and where the ids start."""
    reason = "is not a token file, as write makes them"
    with open(path, "rb") as file, suppress(ValueError, LookupError, TypeError, struct.error):
        (room,) = struct.unpack("<Q", file.read(8))
        fields = json.loads(file.read(min(room, 100_000_000)))  # the most that safetensors allows
        if fields["__metadata__"]["format"] == FORMAT:
            return fields, 8 + room
        if fields["__metadata__"]["format"].startswith("llmkit tokens"):
            reason = "is from a newer llmkit: upgrade llmkit"
    raise ValueError(f"{path} {reason}")
