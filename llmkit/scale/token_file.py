"""Corpora larger than memory: `write` tokenizes one into a file, `load` maps that file.

The text passes through memory in parts of some 8 MB. `datasets.Dataset.map` tokenizes a part, in
several processes if you like, and keeps its ids on the disk under a hash of the part and the
tokenizer. So the same call, after an interruption, tokenizes only the parts that were not finished
or have changed.

The file is a .safetensors file with one tensor "ids", uint16 or uint32, and the tokenizer in its
metadata: a single file comes into its place at once, and cannot lose its tokenizer. The header (a
length, then JSON) is written here, because the library wants all ids in memory. `data` cuts batches
from the ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from operator import length_hint
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from llmkit import bpe  # noqa: F401 - so that from_json knows its tokenizers too
from llmkit.arguments import Tokenizer
from llmkit.files import reading
from llmkit.tokenizer import from_json

FORMAT = "llmkit tokens 2"
DTYPES = {"U16": "uint16", "U32": "uint32"}  # by safetensors' names
PIECE = 1 << 16  # characters that are tokenized at a time
PART = 1 << 23  # characters, for each process, that are tokenized before their ids are kept
SOURCES = "the path of a text file, a dataset or an iterable of str"


class Cuttable(Tokenizer, Protocol):
    """Each of llmkit's tokenizers: it goes into JSON, and says where a text may be cut."""

    cut: str

    def to_json(self) -> str: ...


class Row(NamedTuple):
    """A piece of a document: that one's number, and the characters and lines before the piece."""

    text: str
    document: int
    position: int
    line: int


def write(
    path: str | Path,
    source: Any,
    tokenizer: Cuttable,
    *,
    num_proc: int | None = None,
    column: str = "text",
    separator: str = "\n\n",
) -> Path:
    r"""Tokenize a corpus of any size into a token file, and return the file's path.

    Args:
        path: of the file to make, such as "corpus.safetensors". One that is there already stays as
            it is until the new one is whole.
        source: the path of a text file in UTF-8 (its line ends become "\n"), or documents: a
            `datasets.Dataset` or `IterableDataset`, or any iterable of str.
        tokenizer: one of llmkit's. A file gets the ids of its whole text; of documents, each is
            tokenized by itself, and so is the separator between any two.
        num_proc: how many processes `Dataset.map` starts, again for each part; None: none. It pays
            for subwords; characters are looked up faster than processes start.
        column: where in a dataset the documents are.
        separator: a text that goes between documents.

    The work takes about 100 MB of memory, more for each process, and twice the room of the file on
    the disk. What an interrupted call has finished waits in the folder ".NAME.parts" for the next.

    Raises FileNotFoundError, TypeError or ValueError for a source that is missing, empty, not text,
    or has what the tokenizer does not know (and where); OSError where the file cannot be written.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file in it")
    source, name = _check_source(source, column)
    vocabulary, n = tokenizer.to_json(), 0
    checksum = zlib.crc32(vocabulary.encode())
    _tokenizer(vocabulary)  # for the processes that will be forked from this one
    kind = "U16" if tokenizer.vocab_size <= 1 << 16 else "U32"
    settings = {"separator": separator, "tokenizer": vocabulary, "dtype": DTYPES[kind]}
    total = os.path.getsize(name) if name else length_hint(source) or None
    with _unfinished(target) as unfinished, _one_bar(total, "B" if name else " documents") as bar:
        with _writing(target):
            unfinished.write_bytes(_header(kind, 0, vocabulary, 0))
        rows = _rows(source, name, re.compile(tokenizer.cut))
        for part in _parts(rows, PART * (num_proc or 1)):
            with _writing(target), open(unfinished, "ab") as file:
                ids = _tokenize(part, name, settings, unfinished.parent, num_proc)
                for batch in ids.with_format("arrow").iter(PIECE):
                    file.write(written := batch["ids"].to_numpy().tobytes())
                    checksum = zlib.crc32(written, checksum)
            n += len(ids)
            size = sum(len(row.text.encode()) for row in part)
            bar.update(size if name else part[-1].document + 1 - bar.n)
        if not n:
            raise ValueError(f"{name or 'the source'} is empty; write takes a text")
        with _writing(target):
            with open(unfinished, "r+b") as file:
                file.write(_header(kind, n, vocabulary, checksum))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        bar.total = bar.n  # a file has more bytes than its text, where lines end in CRLF
    return target


def load(path: str | Path, *, verify: bool = True) -> tuple[Tensor, Cuttable]:
    """The ids (N,), uint16 or uint32, and the tokenizer of a token file.

    The ids are mapped: what is used of them is read then, and forgotten where memory is short. They
    are to be read only.

    verify: compare all of it with its checksum first, which reads the file once from end to end, at
        about a gigabyte a second.

    Raises FileNotFoundError for no file, ValueError for one cut short, changed or of another
    program.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no token file {path}; write makes one, or finishes it")
    try:
        with safe_open(path, "np") as file:  # which compares the file's length with its header
            metadata, ids = file.metadata() or {}, file.get_slice("ids")
            dtype, shape = np.dtype(DTYPES[ids.get_dtype()]), tuple(ids.get_shape())
    except (SafetensorError, KeyError):
        metadata = {}
    if metadata.get("format") != FORMAT or len(shape) != 1:
        raise ValueError(f"{path} is not a whole token file of this llmkit; write it again")
    start = path.stat().st_size - shape[0] * dtype.itemsize  # the ids are the last in the file
    if verify and metadata.get("crc32") != _checksum(path, start, metadata.get("tokenizer", "")):
        raise ValueError(f"{path} was changed since it was written; write it again")
    with reading(path, "write it again"):
        tokenizer: Any = from_json(metadata["tokenizer"])
    try:
        mapped = np.memmap(path, dtype, "c", start, shape)  # a changed id changes no file
    except OSError:  # a file larger than memory may not be mapped so, for all of it may be changed
        mapped = np.memmap(path, dtype, "r", start, shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(mapped), tokenizer


def _checksum(path: Path, start: int, tokenizer: str) -> str:
    """Of the tokenizer and of the file's bytes from `start` on, which are not kept in memory."""
    checksum = zlib.crc32(tokenizer.encode())
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(PART):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def _check_source(source: Any, column: str) -> tuple[Any, str | None]:
    """A file and its path; or documents, and None. Of a dataset, the column of the texts."""
    if isinstance(source, (str, os.PathLike)):
        file = Path(source).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {str(file)[:80]!r}; write takes {SOURCES}")
        return file, str(file)
    if isinstance(source, Mapping):
        raise ValueError(f"write takes one of the parts {list(source)}, as in source['train']")
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Iterable):
        raise TypeError(f"write takes {SOURCES}, not {type(source).__name__}")
    documents: Any = source
    if hasattr(documents, "select_columns"):
        names = documents.column_names or list(next(iter(documents), {}))  # a stream may lack them
        if names and column not in names:
            raise ValueError(f"there is no column {column!r} in {names}; name the one with text")
        documents = documents.select_columns([column]).with_format(None)
    return documents, None


def _files(source: Any, name: str | None) -> Iterator[TextIO]:
    """Each document, to be read as a file. For a byte that is not UTF-8 stands a surrogate."""
    if name:
        with open(name, encoding="utf-8-sig", errors="surrogateescape") as file:
            yield file
        return
    if hasattr(source, "select_columns"):  # batches are far faster than rows
        source = (text for batch in source.iter(100) for text in next(iter(batch.values())))
    for number, text in enumerate(source):
        if not isinstance(text, str):
            raise ValueError(f"document {number} (from 0) is a {type(text).__name__}, not a str")
        yield io.StringIO(text, newline="")


def _rows(source: Any, name: str | None, cut: re.Pattern[str]) -> Iterator[Row]:
    """A source in pieces, cut where the tokens stay those of the whole."""
    for number, file in enumerate(_files(source, name)):
        position, line, text = 0, 0, file.read(PIECE)
        while more := file.read(PIECE):
            text += more
            if found := cut.search(text, (len(text) + 1) // 2):
                yield Row(text[: found.start()], number, position, line)
                position += found.start()
                line += text.count("\n", 0, found.start())
                text = text[found.start() :]
        yield Row(text, number, position, line)


def _parts(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows of so many characters together."""
    part, left = [], size
    for row in rows:
        part.append(row)
        left -= len(row.text) + 100  # what Python needs for the row itself
        if left <= 0:
            yield part
            part, left = [], size
    if part:
        yield part


def _tokenize(
    part: list[Row], name: str | None, settings: dict[str, str], folder: Path, num_proc: int | None
) -> Any:
    """A dataset of a part's ids, one a row: made now, or found in the folder."""
    import datasets

    digest = hashlib.sha256(json.dumps(settings).encode())
    for row in part:
        text = _encode_utf8(row, name)
        digest.update(f"{row.document} {row.position} {len(text)} ".encode() + text)
    key = digest.hexdigest()[:32]
    columns = dict(zip(Row._fields, map(list, zip(*part, strict=True)), strict=True))
    rows = datasets.Dataset(datasets.table.InMemoryTable.from_pydict(columns), fingerprint=key)
    try:
        return rows.map(
            _encode,
            batched=True,
            batch_size=len(rows) // 32 + 1,
            fn_kwargs={"name": name, **settings},
            features=datasets.Features(ids=datasets.Value(settings["dtype"])),
            remove_columns=rows.column_names,
            num_proc=num_proc and min(num_proc, len(rows)),
            writer_batch_size=PIECE,
            new_fingerprint=key,
            cache_file_name=str(folder / f"{key}.arrow"),
            load_from_cache_file=True,
        )
    except ValueError as error:
        raise ValueError(str(error)) from None  # without the traceback of another process


def _encode(
    rows: dict[str, list], name: str | None, separator: str, tokenizer: str, dtype: str
) -> Any:
    """A table of the ids of a few rows. `Dataset.map` calls it in whichever process."""
    import pyarrow

    encode, ids = _tokenizer(tokenizer).encode, []
    try:
        between = encode(separator if any(rows["document"]) else "").numpy()
    except ValueError as error:
        raise ValueError(f"separator {separator!r}: {error}, or choose another") from None
    for row in map(Row, *rows.values()):
        if row.document and not row.position:
            ids.append(between)
        try:
            ids.append(encode(row.text).numpy())
        except ValueError as error:
            raise _error(str(error), row, name) from None
    # By NumPy: in a process that is a fork of one that has trained, PyTorch's threads may hang.
    return pyarrow.table({"ids": np.concatenate(ids, dtype=dtype, casting="unsafe")})


@lru_cache(1)
def _tokenizer(content: str) -> Any:
    """Made once in a process, and not at all in one that is forked from it."""
    return from_json(content)


def _encode_utf8(row: Row, name: str | None) -> bytes:
    """The text of a row; ValueError where it has surrogates, which is how `_files` marks bytes."""
    try:
        return row.text.encode()
    except UnicodeEncodeError as error:
        wrong, line = row.text[error.start], row.text.count("\n", 0, error.start) + 1
        what = f"byte 0x{ord(wrong) & 0xFF:02x}" if name else f"character {wrong!r}"
        place = f"position {error.start} (line {line})"
        message = f"{what} at {place} is not UTF-8; write takes text in UTF-8"
        raise _error(message, row, name) from None


def _error(message: str, row: Row, name: str | None) -> ValueError:
    """What is wrong with a row, and its place in the whole document."""

    def place(match: re.Match[str]) -> str:
        return f"position {int(match[1]) + row.position} (line {int(match[2]) + row.line})"

    message = re.sub(r"position (\d+) \(line (\d+)\)", place, message)
    return ValueError(f"{name or f'document {row.document} (from 0)'}: {message}")


def _header(kind: str, n: int, tokenizer: str, checksum: int) -> bytes:
    """How a file of n ids starts, at the same length for every n: the length of the rest, JSON, and
    spaces (https://github.com/huggingface/safetensors#format)."""
    metadata = {"format": FORMAT, "tokenizer": tokenizer, "crc32": f"{checksum:08x}"}
    offsets = [0, n * np.dtype(DTYPES[kind]).itemsize]
    tensor = {"dtype": kind, "shape": [n], "data_offsets": offsets}
    fields = json.dumps({"__metadata__": metadata, "ids": tensor}).encode()
    # At most 150 bytes more than the metadata; the ids start at a multiple of 64 bytes.
    room = 64 * (len(json.dumps(metadata)) // 64 + 4) - 8
    return struct.pack("<Q", room) + fields.ljust(room)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A file to write first, in a folder for parts. After an error those stay, if there are any."""
    folder, done = target.with_name(f".{target.name}.parts"), False
    file = folder / uuid4().hex  # another process may be writing the same
    with _writing(target):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield file
        done = True
    finally:
        file.unlink(missing_ok=True)
        if done or not any(folder.glob("*.arrow")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say of which file it is that the system cannot write, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{target} cannot be written ({error.strerror or error}); free some space or choose "
            "another folder, then call again to go on"
        ) from None


@contextmanager
def _one_bar(total: int | None, unit: str) -> Iterator[tqdm]:
    """One progress bar for all parts, not one for each; hidden where `datasets` hides its own."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tqdm(total=total, unit=unit, unit_scale=True, disable=hidden) as bar:
            yield bar
    finally:
        if not hidden:
            datasets.enable_progress_bars()
