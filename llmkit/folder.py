"""A folder of a model: written as a whole or not at all, and checked when it is read.

Its config.json names the kind of folder, the model's class and its configuration, and has a
checksum of every other file. A save fills a hidden folder beside the old one and swaps the two by
renaming: a run killed at any moment leaves one whole folder, the old or the new. What the other
files hold is decided in ``checkpoint`` and ``export``.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

CHECKPOINT, ONNX, INT8 = "llmkit checkpoint 1", "llmkit onnx 1", "llmkit int8 1"
KINDS = {CHECKPOINT: "checkpoint", ONNX: "ONNX export", INT8: "int8 export"}
FILES = {
    CHECKPOINT: {"model.safetensors", "tokenizer.json", "state.json", "state.safetensors"},
    ONNX: {"model.onnx", "model.onnx.data", "tokenizer.json"},
    INT8: {"model.safetensors", "tokenizer.json"},
}
MODELS = {
    "GPT": "llmkit.model",
    "FastGPT": "llmkit.speed.fast_gpt",
}  # class, and the module it lives in


def write(folder: str | Path, header: dict[str, Any], fill: Callable[[Path], None]) -> Path:
    """Let ``fill`` write the files, in place of those that the folder may hold; returns the folder.

    header: what config.json is to hold: format, class, config; the checksums are added here.

    Raises ValueError for a folder that holds other files or another kind of model folder (it is
    left alone), OSError where writing fails.
    """
    target = Path(folder).expanduser().resolve()
    kind = KINDS[header["format"]]
    _refuse_foreign(target, header["format"])
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        for leftover in [*target.parent.glob(f".{target.name}.saving-*")]:  # by saves killed here
            shutil.rmtree(leftover.rename(fresh))  # one that still runs can then only fail
        fresh.mkdir(parents=True)
        fill(fresh)
        _seal(fresh, header)
        _swap(fresh, target)
    except OSError as error:
        reason = f"no {kind} could be saved in {folder} ({error.strerror or error})"
        raise OSError(f"{reason}: free some disk space or choose another folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(folder)


def read_header(folder: str | Path, *formats: str) -> tuple[Path, dict[str, Any]]:
    """The folder to read, and the content of its config.json once that is known to be of one of
    these formats. FileNotFoundError for no folder, ValueError for any other."""
    folder = Path(folder).expanduser().resolve()
    if not any(folder.glob("*")) and _previous(folder).exists():  # killed between the renames
        folder = _previous(folder)
    if not folder.exists():
        others = [path.parent.name for path in folder.parent.glob("*/config.json")]
        close = get_close_matches(folder.name, others, n=1)
        advice = f"did you mean {close[0]}?" if close else "save one there first"
        raise FileNotFoundError(f"there is no {KINDS[formats[0]]} in {folder}: {advice}")
    try:
        header = json.loads((folder / "config.json").read_bytes())
        if header["class"] in MODELS and header["format"] in formats:
            return folder, header
        reason = "is from a newer llmkit: upgrade llmkit"
        if header["class"] in MODELS and header["format"] in KINDS:
            wanted = " or ".join(KINDS[each] for each in formats)
            reason = f"says {KINDS[header['format']]}, not {wanted}: choose another folder"
    except (OSError, LookupError, TypeError, ValueError):
        reason = "is missing, damaged or of another program: choose another folder"
    raise ValueError(f"{folder / 'config.json'} {reason}")


def read(path: Path, header: dict[str, Any]) -> bytes:
    """The content of a file, which must be what was written; else a ValueError."""
    content = path.read_bytes() if path.exists() else b""
    if zlib.crc32(content) != header["files"][path.name]:
        raise ValueError(f"{path} is missing or damaged: choose another folder")
    return content


def _seal(folder: Path, header: dict[str, Any]) -> None:
    """Write config.json with the checksums, and wait until the disk has all files."""
    files = {path.name: zlib.crc32(path.read_bytes()) for path in folder.iterdir()}
    (folder / "config.json").write_text(json.dumps(header | {"files": files}, indent=1))
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _refuse_foreign(target: Path, format: str) -> None:
    """ValueError if replacing the folder would lose anything but what is being replaced."""
    names = {path.name for path in target.glob("*")}
    if foreign := names - FILES[format] - {"config.json"}:
        kind = KINDS[format]
        raise ValueError(f"{target} holds {min(foreign)}, no {kind}: choose another folder")
    if names:
        read_header(target, format)


def _swap(fresh: Path, target: Path) -> None:
    """Put ``fresh`` in the place of ``target``. Every rename is to a free name, as Windows asks."""
    if any(target.glob("*")):
        shutil.rmtree(_previous(target), ignore_errors=True)
        target.rename(_previous(target))
    elif target.exists():
        target.rmdir()
    fresh.rename(target)
    shutil.rmtree(_previous(target), ignore_errors=True)


def _previous(target: Path) -> Path:
    """Where the earlier folder waits while a save renames."""
    return target.with_name(f".{target.name}.previous")
