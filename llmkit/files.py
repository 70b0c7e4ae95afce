"""The one door between files and llmkit: reading what may be damaged, replacing what must not be.

A loader reads with `read_bytes`, `read_text` or `read_json`, and does the rest inside ``with
reading(path):``. Then nothing but FileNotFoundError or ValueError comes out of it, one sentence
that names the file, whatever stands in there. Before it makes anything as large as a file says, it
compares: `make` the types of a configuration, `check_tensors` the names and shapes of weights.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from torch import Tensor

T = TypeVar("T")
JSON_BYTES = 1 << 28  # a larger file is not read as JSON
SIGNS = {  # by which bytes that are not UTF-8 are told, the first that is found
    "utf-16": rb"^(\xff\xfe|\xfe\xff)",
    "binary": rb"[\0-\x08\x0e-\x1a\x1c-\x1f]",  # control characters that no text has
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
            if str(path) in str(error):
                raise
            reason = _short(str(error), 300)
        raise ValueError(f"{path}: {reason}") from None


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """The content of a regular file, of at most so many bytes; a pipe or device is never opened."""
    path = Path(path).expanduser()
    with reading(path):
        try:
            about = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"there is no file {_short(str(path), 300)}") from None
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
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"  # which no text has
    if "\0" not in text:
        return text.replace("\r\n", "\n").replace("\r", "\n")
    encoding = next(name for name, sign in SIGNS.items() if re.search(sign, raw))
    if encoding == "binary":
        raise ValueError(f"{where} is a binary file, where text in UTF-8 is needed")
    raise ValueError(
        f"{where} is not UTF-8 but probably {encoding}; make a copy that is, with Path(copy)"
        f".write_text(Path(file).read_text('{encoding}'), 'utf-8')"
    )


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content = read_bytes(path, JSON_BYTES)
    with reading(path):
        return parse_json(content)


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
    raise ValueError(f"the field {name!r} must be {wanted}, not {_short(repr(value))}")


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of a file's fields, each of the type that the class says."""
    types, known = get_type_hints(kind), fields(kind)  # type: ignore[arg-type]
    if unknown := values.keys() - {field.name for field in known}:
        raise ValueError(f"there is no field {_short(repr(min(unknown)))} in {kind.__name__}")
    needed = [f.name for f in known if f.name in values or f.default is MISSING]
    return kind(**{name: get(values, name, types[name]) for name in needed})


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]]) -> None:
    """ValueError unless these are floats of the wanted names and shapes, all of them finite."""
    shapes = {(name, tuple(tensor.shape)) for name, tensor in found.items()}
    if wrong := shapes ^ {(name, tuple(shape)) for name, shape in wanted.items()}:
        raise ValueError(f"its weights do not fit its configuration: see {_short(min(wrong)[0])}")
    check_finite(found)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """ValueError for a tensor that is not of floats, or has NaN or infinity among them."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{_short(name)} is of {tensor.dtype}, not of floats")
        if tensor.numel() and not all(end.isfinite() for end in tensor.detach().aminmax()):
            raise ValueError(f"{_short(name)} is not finite: it holds NaN or infinity")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write in the ``with``, which at its end takes the place of the one at `path`.

    Yields a temporary path in the same folder, which must exist. A program that is killed at any
    moment leaves the old file or the new one, each of them whole; so does an error, which also
    removes the temporary file. A link stays a link: the file that it leads to is replaced.
    """
    target = Path(path).expanduser().resolve()
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        yield fresh
        with open(fresh, "rb+") as file:  # after a power cut the name must not lead to no content
            os.fsync(file.fileno())
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _short(text: str, most: int = 80) -> str:
    """One line of so many characters."""
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else text[: most - 3] + "..."
