"""Saving and loading: a model, its tokenizer and the state of its training, in one folder.

    config.json          the kind of folder, the model's configuration; a checksum of each file
    model.safetensors    every weight once, under its name in the model
    tokenizer.json       as the tokenizer writes itself, if one was given
    state.pt             what training needs to go on, if it was given

A folder is written as a whole or not at all: a save fills a hidden folder beside the old one and
swaps the two by renaming, so that a run killed at any moment leaves one whole folder, the old or
the new. Loading never runs code that came with a checkpoint. When to save, and what a state holds,
is decided in `callbacks` and `training`; other kinds of folder are `deploy.export`'s.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit import files
from llmkit import tokenizer as tokenizers
from llmkit.arguments import Tokenizer, check_type
from llmkit.evaluation import unwrapped
from llmkit.model import GPT, GPTConfig
from llmkit.runtime import find_device

CHECKPOINT, ONNX, INT8 = "llmkit checkpoint 3", "llmkit onnx 3", "llmkit int8 3"
WEB = "llmkit web 1"
MOST_POSITIONS = 1 << 20  # where they are computed, and no weight says how many there are
Loader = TypeVar("Loader", bound=Callable[..., Any])
# Kinds of model folder: what each is called, and the files that may be in it.
KINDS = {
    CHECKPOINT: ("checkpoint", {"model.safetensors", "tokenizer.json", "state.pt"}),
    ONNX: ("ONNX export", {"model.onnx", "model.onnx.data", "tokenizer.json"}),
    INT8: ("int8 export", {"model.safetensors", "tokenizer.json"}),
    WEB: (
        "page of a model",
        {"model.onnx", "tokenizer.json", "about.json", "index.html", "page.css", "page.js"}
        | {"model.js", "tokenizer.js", "ort.js", "ort.wasm"},
    ),
}


def save(
    folder: str | Path,
    model: nn.Module,
    tokenizer: Tokenizer | None = None,
    state: Any = None,
) -> Path:
    """Write a checkpoint, in place of the one that the folder may hold; returns the folder.

    A state nests dicts, lists and tuples of tensors, numbers, strings, bools and None. Raises
    TypeError for another model or another thing in the state; ValueError for weights that are not
    a GPT's own or not finite, and for a folder that holds other files; OSError where writing fails.
    After each of these the folder is as before.
    """
    model = plain(model)
    check_type("tokenizer", tokenizer, Tokenizer, optional=True)
    if any(hasattr(weight, "qdata") for weight in model.parameters()):
        raise TypeError("the model is quantized: save it with llmkit.deploy.export.save_int8")
    weights = dict(model.named_parameters())  # tied ones once
    try:  # or a good checkpoint would be lost to one that cannot be loaded
        check(model.config, weights)
    except ValueError as error:
        raise ValueError(
            f"this model would not load again: {error} (a LoRA adapter is saved by lora.save, or "
            "becomes part of the weights by lora.merge and lora.remove)"
        ) from None
    stored = _storable(state, "state")

    def fill(place: Path) -> None:
        write_tensors(place / "model.safetensors", weights)
        if tokenizer is not None:
            tokenizer.save(place / "tokenizer.json")
        if stored is not None:
            content = BytesIO()  # torch's own writer would hide why a full disk refuses
            torch.save(stored, content)
            (place / "state.pt").write_bytes(content.getbuffer())

    return write_folder(folder, CHECKPOINT, model.config, fill)


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
                if _stamp(place) == before:
                    raise

    return again  # type: ignore[return-value]


@steady
def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[GPT, Any]:
    """The model, in eval mode and its own dtypes, and the tokenizer, None if none was saved.

    Raises FileNotFoundError for no folder, ValueError for a file in it that is not as it should be.
    """
    folder, header = read_header(folder, CHECKPOINT)
    device = find_device(device)
    path = folder / "model.safetensors"
    with files.reading(path, "choose another folder"):
        tensors = safetensors.load(read_file(path, header))
        check(header["config"], tensors)
    model = build(header["config"])
    weights = dict(model.named_parameters())
    model.to(tensors["wte.weight"].dtype)  # buffers, which are not saved, follow the weights
    for name, weight in weights.items():
        weight.data = tensors[name]
    return model.to(device).eval(), load_tokenizer(folder, header)


@steady
def load_state(folder: str | Path) -> Any:
    """The state, its tensors on the CPU; None if none was saved. Errors as in ``load``."""
    folder, header = read_header(folder, CHECKPOINT)
    if "state.pt" not in header["files"]:
        return None
    path = folder / "state.pt"
    with files.reading(path, "choose another folder"):
        return torch.load(BytesIO(read_file(path, header)), weights_only=True)  # runs no code


def plain(model: nn.Module) -> GPT:
    """The model without what torch.compile wrapped around it; TypeError for one not llmkit's."""
    model = unwrapped(model)
    if type(model) is not GPT:
        raise TypeError(f"the model must be llmkit's GPT, not {type(model).__name__}")
    return model


def build(config: GPTConfig) -> GPT:
    """A new model on the CPU; the caller's random state and default device stay out of it."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return GPT(config)


def check(config: GPTConfig, found: Mapping[str, Tensor]) -> None:
    """ValueError unless these are the weights of a GPT of this configuration, and finite."""
    expected = outline(config, found).named_parameters()
    files.check_weights(found, {name: weight.shape for name, weight in expected})


def outline(config: GPTConfig, found: Mapping[str, Tensor]) -> GPT:
    """A GPT of names and shapes, without memory for weights; ValueError for a configuration of
    another size than the weights that were found. It is compared with these before anything is
    built, because it may ask for more layers than there is time or memory for."""
    files.check_shape(found, "wte.weight", (config.vocab_size, config.n_embd))
    if config.position == "learned":
        files.check_shape(found, "wpe.weight", (config.block_size, config.n_embd))
    elif config.block_size > MOST_POSITIONS:
        raise ValueError(f"block_size {config.block_size} is more than {MOST_POSITIONS:,}")
    layers = len({name.split(".")[1] for name in found if name.startswith("h.")})
    if layers != config.n_layer:
        wanted = f"the configuration wants n_layer {config.n_layer}"
        raise ValueError(f"{wanted}, but there are {layers} layers of weights")
    with torch.device("meta"):
        return GPT(config)


def load_tokenizer(folder: Path, header: dict[str, Any]) -> Any:
    """The tokenizer of a folder with this header, None if none was saved."""
    if "tokenizer.json" not in header["files"]:
        return None
    path = folder / "tokenizer.json"
    with files.reading(path, "choose another folder"):
        return tokenizers.from_json(read_file(path, header))


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """A .safetensors file; it wants each tensor in order and in memory of its own."""
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    path.write_bytes(safetensors.save(own))


def write_folder(
    folder: str | Path, kind: str, config: GPTConfig, fill: Callable[[Path], None]
) -> Path:
    """Let ``fill`` write the files, in place of those that the folder may hold; returns the folder.

    kind: one of KINDS. config.json, with the checksums of all other files, is added here.

    Raises ValueError for a folder that holds other files or another kind of model folder (it is
    left alone), OSError where writing fails.
    """
    target = files.as_path(folder, "folder").resolve()
    _refuse_foreign(target, kind)
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        killed = f".{glob.escape(target.name)}.saving-*"
        for leftover in list(target.parent.glob(killed)):
            shutil.rmtree(leftover.rename(fresh))  # one that still runs can then only fail
        fresh.mkdir(parents=True)
        fill(fresh)
        sums = {path.name: zlib.crc32(path.read_bytes()) for path in fresh.iterdir()}
        header: dict[str, Any] = {"format": kind, "config": asdict(config), "files": sums}
        header["checksum"] = _checksum(header)
        (fresh / "config.json").write_text(json.dumps(header, indent=1))
        for path in fresh.iterdir():  # wait until the disk has all of it
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        _swap(fresh, target)
    except OSError as error:
        what = f"no {KINDS[kind][0]} could be saved in {folder}"
        raise files.unwritable(what, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(folder)


def read_header(folder: str | Path, *kinds: str) -> tuple[Path, dict[str, Any]]:
    """The folder to read, and the content of its config.json once that is known to be of one of
    these kinds. FileNotFoundError for no folder, ValueError for any other."""
    folder = files.as_path(folder, "folder").resolve()
    if not any(folder.glob("*")) and previous(folder).exists():  # killed between the renames
        folder = previous(folder)
    if not folder.exists():
        others = [path.parent.name for path in folder.parent.glob("*/config.json")]
        close = get_close_matches(folder.name, others, n=1)
        advice = f"did you mean {close[0]}?" if close else "save one there first"
        raise FileNotFoundError(f"there is no {KINDS[kinds[0]][0]} in {folder}: {advice}")
    try:
        header = files.read_json(folder / "config.json")
        kind = header["format"]
        if kind in kinds:
            known = header["files"].keys() <= KINDS[kind][1]
            if header["checksum"] != _checksum(header) or not known:
                raise ValueError
            header["config"] = files.make(GPTConfig, header["config"])
            return folder, header
        reason = "is from another version of llmkit: use that one"
        if kind in KINDS:
            wanted = " or ".join(KINDS[each][0] for each in kinds)
            reason = f"says {KINDS[kind][0]}, not {wanted}: choose another folder"
        elif not kind.startswith("llmkit"):
            raise ValueError
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        reason = "is missing, damaged or of another program: choose another folder"
    raise ValueError(f"{folder / 'config.json'} {reason}")


def read_file(path: Path, header: dict[str, Any]) -> bytes:
    """The content of a file, which must be what was written; else a ValueError."""
    content = files.read_bytes(path) if path.exists() else b""
    if zlib.crc32(content) != header["files"].get(path.name):
        raise ValueError(f"{path} is missing or damaged: choose another folder")
    return content


def _checksum(header: dict[str, Any]) -> int:
    """Of all that a config.json says but its own checksum."""
    said = {name: value for name, value in header.items() if name != "checksum"}
    return zlib.crc32(json.dumps(said, sort_keys=True).encode())


def _storable(value: Any, path: str) -> Any:
    """A state whose tensors are copies on the CPU (a view would drag along all of its memory);
    TypeError, with the place, for what torch.load would refuse to read without running code."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _storable(item, f"{path}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_storable(item, f"{path}[{i}]") for i, item in enumerate(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    allowed = "dicts, lists, tuples, tensors, numbers, strings, bools and None"
    raise TypeError(f"{path} is a {type(value).__name__}, but a state may hold only {allowed}")


def _refuse_foreign(target: Path, kind: str) -> None:
    """ValueError if replacing the folder would lose anything but what is being replaced."""
    name, known = KINDS[kind]
    names = {path.name for path in target.glob("*")}
    if foreign := names - known - {"config.json"}:
        raise ValueError(f"{target} holds {min(foreign)}, no {name}: choose another folder")
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


def _stamp(folder: Path) -> tuple[int, int] | None:
    """What changes when a folder is replaced."""
    try:
        about = (folder / "config.json").stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def previous(target: Path) -> Path:
    """Where the earlier folder waits while a save renames."""
    return target.with_name(f".{target.name}.previous")
