"""Model folders: written as a whole or not at all, and known again when they are read.

    config.json       the kind of folder, the model's configuration; a checksum of each other file
    tokenizer.json    as the tokenizer writes itself, if one was given
    ...               the model, in the files that its kind has

A save fills a hidden folder beside the old one and swaps the two by renaming, so that a run killed
at any moment leaves one whole folder, the old or the new. Which kinds there are is told where each
is written: `checkpoint` has the one to train on from, `deploy` those to hand out.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from safetensors import torch as safetensors
from torch import Tensor

from llmkit import files
from llmkit import tokenizer as tokenizers
from llmkit.arguments import Tokenizer, check_type
from llmkit.model import GPTConfig

Loader = TypeVar("Loader", bound=Callable[..., Any])


@dataclass(frozen=True)
class Kind:
    """A kind of model folder.

    format: what its config.json says: llmkit, a name, and a version that changes when an older
    llmkit could not read it. title: what people call it. files: what may be in it, besides
    config.json.
    """

    format: str
    title: str
    files: Set[str]

    @property
    def name(self) -> str:
        return self.format.split()[1]


def write_folder(
    folder: str | Path,
    kind: Kind,
    config: GPTConfig,
    tokenizer: Tokenizer | None,
    fill: Callable[[Path], object],
) -> Path:
    """Let ``fill`` write the model's files, in place of those that the folder may hold; returns the
    folder. The tokenizer and config.json, with the checksums of all other files, are added here.

    Raises TypeError for another tokenizer; ValueError for a folder that holds other files or
    another kind of model (it is left alone); OSError where writing fails. After each of these the
    folder is as before.
    """
    check_type("tokenizer", tokenizer, Tokenizer, optional=True)
    target = files.as_path(folder, "folder").resolve()  # a link stays; where it leads is written
    _refuse_foreign(target, kind)
    # Beside the old one, because only on one disk is a rename a single step.
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        killed = f".{glob.escape(target.name)}.saving-*"
        for leftover in list(target.parent.glob(killed)):
            shutil.rmtree(leftover.rename(fresh))  # one that still runs can then only fail
        fresh.mkdir(parents=True)
        fill(fresh)
        if tokenizer is not None:
            tokenizer.save(fresh / "tokenizer.json")
        # By these a reader notices a file that was cut short, or is of another save.
        sums = {path.name: zlib.crc32(path.read_bytes()) for path in fresh.iterdir()}
        header: dict[str, Any] = {"format": kind.format, "config": asdict(config), "files": sums}
        header["checksum"] = _checksum(header)
        (fresh / "config.json").write_text(json.dumps(header, indent=1))
        for path in fresh.iterdir():  # wait until the disk has all of it
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        _swap(fresh, target)
    except OSError as error:
        raise files.unwritable(f"no {kind.title} could be saved in {folder}", error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(folder)


def steady(load: Loader) -> Loader:
    """A loader that begins again where the folder was replaced while it read: by a save, say."""

    @wraps(load)
    def again(folder: str | Path, *arguments: Any, **options: Any) -> Any:
        place = files.as_path(folder, "folder")
        while True:
            before = _stamp(place)
            try:
                return load(place, *arguments, **options)
            except (FileNotFoundError, ValueError):
                if _stamp(place) == before:  # nobody replaced it: it is damaged
                    raise

    return again  # type: ignore[return-value]


def read_header(folder: str | Path, *kinds: Kind) -> tuple[Path, dict[str, Any]]:
    """The folder to read, and the content of its config.json once that is known to be of one of
    these kinds. FileNotFoundError for no folder, ValueError for any other."""
    folder = files.as_path(folder, "folder").resolve()
    if not any(folder.glob("*")) and previous(folder).exists():  # killed between the renames
        folder = previous(folder)
    if not folder.exists():
        others = [path.parent.name for path in folder.parent.glob("*/config.json")]
        close = get_close_matches(folder.name, others, n=1)
        advice = f"did you mean {close[0]}?" if close else "save one there first"
        raise FileNotFoundError(f"there is no {kinds[0].title} in {folder}: {advice}")
    try:
        header = files.read_json(folder / "config.json")
        for kind in kinds:
            if header["format"] == kind.format:
                known = header["files"].keys() <= kind.files  # a name becomes a path that is read
                if header["checksum"] != _checksum(header) or not known:
                    raise ValueError
                header["config"] = files.make(GPTConfig, header["config"])
                return folder, header
        program, name, _version = header["format"].split()
        if program != "llmkit":
            raise ValueError
        wanted = " or ".join(kind.title for kind in kinds)
        reason = f"says {name}, not {wanted}: choose another folder"
        if name in [kind.name for kind in kinds]:
            reason = "is from another version of llmkit: use that one"
    # A file that is damaged, or another program's, may hold a list or a number in any place.
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        reason = "is missing, damaged or of another program: choose another folder"
    raise ValueError(f"{folder / 'config.json'} {reason}")


def read_file(path: Path, header: dict[str, Any]) -> bytes:
    """The content of a file, which must be what was written; else a ValueError."""
    content = files.read_bytes(path) if path.exists() else b""
    if zlib.crc32(content) != header["files"].get(path.name):
        raise ValueError(f"{path} is missing or damaged: choose another folder")
    return content


def load_tokenizer(folder: Path, header: dict[str, Any]) -> Any:
    """The tokenizer of a folder with this header, None if none was saved."""
    if "tokenizer.json" not in header["files"]:
        return None
    path = folder / "tokenizer.json"
    with files.reading(path, "choose another folder"):
        return tokenizers.from_json(read_file(path, header))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A .safetensors file; it wants each tensor in order and in memory of its own."""
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    path.write_bytes(safetensors.save(own))


def previous(target: Path) -> Path:
    """Where the earlier folder waits while a save renames."""
    return target.with_name(f".{target.name}.previous")


def _refuse_foreign(target: Path, kind: Kind) -> None:
    """ValueError if replacing the folder would lose anything but what is being replaced."""
    names = {path.name for path in target.glob("*")}
    if other := names - kind.files - {"config.json"}:
        raise ValueError(f"{target} holds {min(other)}, no {kind.title}: choose another folder")
    if names:
        read_header(target, kind)


def _swap(fresh: Path, target: Path) -> None:
    """Put ``fresh`` in the place of ``target``. Every rename is to a free name, as Windows asks."""
    if any(target.glob("*")):
        shutil.rmtree(previous(target), ignore_errors=True)
        target.rename(previous(target))
    elif target.exists():
        target.rmdir()
    fresh.rename(target)
    shutil.rmtree(previous(target), ignore_errors=True)


def _stamp(folder: Path) -> dict[Path, tuple[int, int]]:
    """What changes when a folder is replaced. Amid the renames it is gone, and the earlier one that
    waits tells which save that was."""
    stamps = {}
    for place in (folder, previous(folder)):
        with suppress(OSError):
            about = (place / "config.json").stat()
            stamps[place] = about.st_ino, about.st_mtime_ns  # a new file may get an old number
    return stamps


def _checksum(header: dict[str, Any]) -> int:
    """Of all that a config.json says but its own checksum."""
    said = {name: value for name, value in header.items() if name != "checksum"}
    return zlib.crc32(json.dumps(said, sort_keys=True).encode())
