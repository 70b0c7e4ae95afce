"""The one door between files and llmkit: reading what may be damaged, replacing what must not be.

A loader reads with `read_bytes`, `read_text` or `read_json`, and does the rest inside ``with
reading(path):``. Then nothing but FileNotFoundError or ValueError comes out of it, one sentence
that names the file, whatever stands in there. Before it makes anything as large as a file says, it
compares: `make` the types of a configuration, `check_weights` the names and shapes of weights.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from llmkit.arguments import check_type, short

T = TypeVar("T")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
JSON_BYTES = 1 << 28  # a larger file is not read as JSON
SIGNS = {  # by which bytes that are not UTF-8 are told, the first that is found
    "utf-32": rb"^(\xff\xfe\0\0|\0\0\xfe\xff)",
    "utf-16": rb"^(\xff\xfe|\xfe\xff)",
    "utf-16-le": rb"^([^\0]\0){4}",
    "utf-16-be": rb"^(\0[^\0]){4}",
    "binary": rb"[\0-\x08\x0e-\x1a\x1c-\x1f]",  # control characters that no text has
    "ENCODING": rb"[\x80-\xff]{5}",  # letter upon letter of another alphabet than the Latin
    "cp1252": rb"[\x80-\x9f]",
    "latin-1": rb"",
}


@contextmanager
def reading(path: str | Path, advice: str = "choose another file") -> Iterator[None]:
    """Inside the ``with``, whatever goes wrong becomes a ValueError: one sentence on this file.

    A plain ValueError tells the reason itself. FileNotFoundError and ImportError (a package that a
    kind of file needs) stay as they are.
    """
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # what a library raises for a damaged file is a long list
        reason = f"is damaged or of another kind: {advice}"
        if isinstance(error, OSError):
            reason = f"cannot be read ({error.strerror or type(error).__name__}): {advice}"
        elif type(error) is ValueError:
            if str(path) in str(error):  # it names the file already
                raise
            reason = short(str(error), 300)
        raise ValueError(f"{path}: {reason}") from None


def as_path(path: Any, name: str = "path") -> Path:
    """A path as one, with its ~ filled in; TypeError for what is none."""
    check_type(name, path, str, os.PathLike, wanted="a path")
    return Path(path).expanduser()


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """The content of a regular file, of at most so many bytes; a pipe or device is never opened."""
    path = as_path(path)
    with reading(path):
        try:
            about = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"there is no file {short(str(path), 300)}") from None
        # To open a pipe is to wait for whoever writes to it, perhaps for ever.
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise ValueError(f"this is {kind}: name a file")
        if most is not None and about.st_size > most:
            raise ValueError(f"its {about.st_size:,} bytes are too many for a file of its kind")
        return path.read_bytes()


def read_text(path: str | Path) -> str:
    r"""The text of a file in UTF-8, without a byte-order mark; every line ends in "\n"."""
    return decode(read_bytes(path), path)


def decode(raw: bytes, where: str | Path) -> str:
    r"""UTF-8 as text, likewise; ValueError says in which other encoding it may be."""
    try:
        text = raw.decode("utf-8-sig")  # some editors begin a file with a mark that is no text
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            raise ValueError(
                f"{where} is cut short within its last character, or not UTF-8; copy it again"
            ) from None
        text = "\0"  # which no text has
    if "\0" not in text:
        # A carriage return would be one token more, and texts of one system unlike another's.
        return text.replace("\r\n", "\n").replace("\r", "\n")
    encoding = next(name for name, sign in SIGNS.items() if re.search(sign, raw))
    if encoding == "binary":
        raise ValueError(f"{where} is a binary file, where text in UTF-8 is needed")
    guess = f"but probably {encoding}; make"
    if encoding == "ENCODING":
        guess = "nor a Western encoding; find out which it is, and make"
    raise ValueError(
        f"{where} is not UTF-8 {guess} a copy that is, with Path(copy)"
        f".write_text(Path(file).read_text('{encoding}'), 'utf-8')"
    )


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content = read_bytes(path, JSON_BYTES)
    with reading(path):
        known = not json.detect_encoding(content).startswith("utf-8")  # JSON may be UTF-16 too
        return parse_json(content if known else decode(content, path))


def parse_json(content: str | bytes) -> dict[str, Any]:
    """The object that JSON spells; ValueError for anything else, NaN and endless nests too."""
    try:
        values = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError("this is no JSON object, or not a whole one")
    return values


def get(values: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field, whose value is of one of these types, exactly: True is no int here, but an int is a
    float; ValueError for any other."""
    if name not in values:
        raise ValueError(f"the field {name!r} is missing")
    value = values[name]
    number = float in kinds and type(value) in (int, float) and abs(value) < 2**53  # finite
    if number or (type(value) in kinds and type(value) is not float):
        return value
    wanted = " or ".join(kind.__name__.replace("NoneType", "null") for kind in kinds)
    raise ValueError(f"the field {name!r} must be {wanted}, not {short(repr(value))}")


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of a file's fields, each of the type that the class says."""
    types, known = get_type_hints(kind), fields(kind)  # type: ignore[arg-type]
    if unknown := values.keys() - {field.name for field in known}:
        raise ValueError(f"there is no field {short(repr(min(unknown)))} in {kind.__name__}")
    needed = [f.name for f in known if f.name in values or f.default is MISSING]
    return kind(**{name: get(values, name, types[name]) for name in needed})


def check_weights(
    found: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], int8: Container[str] = ()
) -> None:
    """ValueError unless the weights that were found are those of these shapes, finite, and floats
    but for the names in `int8`."""
    for name, shape in shapes.items():
        check_shape(found, name, shape)
        dtype = found[name].dtype
        if dtype not in ((torch.int8,) if name in int8 else FLOATS):
            kind = "int8" if name in int8 else "floats"
            raise ValueError(f"the weight {name} is {dtype}: llmkit takes {kind} there")
        if not found[name].isfinite().all():  # a single NaN may spread to every score
            raise ValueError(f"the weight {name} has numbers that are not finite")
    if unknown := sorted(found.keys() - shapes.keys()):
        raise ValueError(f"the configuration has no weight {unknown[0]}")


def check_shape(found: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> None:
    """ValueError for a weight that is missing or of another shape."""
    if name not in found:
        there = ", ".join(sorted(found)[:3]) or "none"
        raise ValueError(f"the weight {name} is missing; there are {there}")
    if (size := tuple(found[name].shape)) != tuple(shape):
        raise ValueError(f"the weight {name} is {size}, but the configuration wants {tuple(shape)}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write in the ``with``, which at its end takes the place of the one at `path`.

    Yields a temporary path in the same folder, which must exist. A program that is killed at any
    moment leaves the old file or the new one, each of them whole; so does an error, which also
    removes the temporary file. A link stays a link: the file that it leads to is replaced.
    """
    target = Path(path).expanduser().resolve()
    # With the process's number, so that two that write at once do not write into one file.
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        yield fresh
        with open(fresh, "rb+") as file:  # after a power cut the name must not lead to no content
            os.fsync(file.fileno())
        os.replace(fresh, target)
    finally:
        with suppress(OSError):  # a read-only disk refuses this too, and would hide the reason
            fresh.unlink(missing_ok=True)


def unwritable(what: str, error: OSError) -> OSError:
    """The error to raise where a file could not be written: what failed, why, and what helps."""
    advice = "choose another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some disk space or choose another folder"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "choose another folder, where you may write"
    return OSError(f"{what} ({error.strerror or error}): {advice}")


def _refuse(constant: str) -> None:
    raise ValueError(constant)
