"""Saving and loading: a model, its tokenizer and the state of its training, in one folder.

    model.safetensors                every weight once, under its name in the model
    tokenizer.json                   as the tokenizer writes itself, if one was given
    state.json, state.safetensors    what training needs to go on, if it was given
    config.json                      the model's class and configuration; a checksum of each file

No pickle: loading never runs code that came with a checkpoint. A save fills a hidden folder beside
the old one and swaps the two by renaming: a run killed at any moment leaves one whole checkpoint,
the old or the new. When to save, and what a state holds, is decided in ``training``.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit import tokenizer as tokenizers

FORMAT = "llmkit checkpoint 1"
MODELS = {"GPT": "llmkit.model", "FastGPT": "llmkit.fast"}  # class, and the module it lives in
FILES = {"model.safetensors", "tokenizer.json", "state.json", "state.safetensors", "config.json"}


def save(folder: str | Path, model: nn.Module, tokenizer: Any = None, state: Any = None) -> Path:
    """Write a checkpoint, in place of the one that the folder may hold; returns the folder.

    A state nests dicts (keys str or int), lists and tuples of tensors, numbers, strings, bools
    and None. Raises TypeError for another model or another thing in the state, ValueError for a
    folder that holds other files (it is left alone), OSError where writing fails.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    if MODELS.get(type(model).__name__) != type(model).__module__:
        raise TypeError(f"the model must be llmkit's GPT or FastGPT, not {type(model)}")
    target = Path(folder).expanduser().resolve()
    _refuse_foreign(target)
    fresh = target.with_name(f".{target.name}.saving-{os.getpid()}")
    try:
        for leftover in [*target.parent.glob(f".{target.name}.saving-*")]:  # by saves killed here
            shutil.rmtree(leftover.rename(fresh))  # one that still runs can then only fail
        fresh.mkdir(parents=True)
        _write(fresh, model, tokenizer, state)
        _swap(fresh, target)
    except OSError as error:
        reason = f"no checkpoint could be saved in {folder} ({error.strerror or error})"
        raise OSError(f"{reason}: free some disk space or choose another folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(folder)


def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Any]:
    """The model, in eval mode and its own dtypes, and the tokenizer, None if none was saved.

    Raises FileNotFoundError for no folder, ValueError for a file in it that is not as it should be.
    """
    folder, header = _open(folder)
    model = _build(header["class"], header["config"])
    _fill(model, folder / "model.safetensors", header)
    has_tokenizer = "tokenizer.json" in header["files"]
    tokenizer = tokenizers.load(folder / "tokenizer.json") if has_tokenizer else None
    return model.to(device).eval(), tokenizer


def load_state(folder: str | Path) -> Any:
    """The state, its tensors on the CPU; None if none was saved. Errors as in ``load``."""
    folder, header = _open(folder)
    if "state.json" not in header["files"]:
        return None
    tensors = safetensors.load(_read(folder / "state.safetensors", header))
    return _decode(_read(folder / "state.json", header), tensors)


def _write(folder: Path, model: nn.Module, tokenizer: Any, state: Any) -> None:
    """All files of a checkpoint, and wait until the disk has them."""
    _write_tensors(folder / "model.safetensors", dict(model.named_parameters()))  # tied ones once
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    if state is not None:
        tensors: dict[str, Tensor] = {}
        (folder / "state.json").write_text(json.dumps(_encode(state, "state", tensors)))
        _write_tensors(folder / "state.safetensors", tensors)
    header = {"format": FORMAT, "class": type(model).__name__, "config": asdict(model.config)}
    header["files"] = {path.name: zlib.crc32(path.read_bytes()) for path in folder.iterdir()}
    (folder / "config.json").write_text(json.dumps(header, indent=1))
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A .safetensors file; it wants each tensor in order and in memory of its own."""
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    path.write_bytes(safetensors.save(own))


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON, which lacks tuples, int keys and tensors: these become {"kind", "content"}.
    The tensors themselves go into ``tensors``, named after the path that leads to them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [_encode(v, f"{path}[{i}]", tensors) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"kind": "tuple", "content": items}
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        items = [(k, _encode(v, f"{path}[{k!r}]", tensors)) for k, v in value.items()]
        return {"kind": "dict", "content": items}
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex():
        tensors[path] = value
        return {"kind": "tensor", "content": path}
    allowed = "dicts (keys str or int), lists, tuples, tensors, numbers, strings, bools and None"
    raise TypeError(f"{path} is a {type(value).__name__}, but a state may hold only {allowed}")


def _decode(text: bytes, tensors: dict[str, Tensor]) -> Any:
    """The state that ``_encode`` wrote, put together from the inside out."""
    make = {"tuple": tuple, "dict": dict, "tensor": tensors.__getitem__}
    return json.loads(text, object_hook=lambda node: make[node["kind"]](node["content"]))


def _refuse_foreign(target: Path) -> None:
    """ValueError if replacing the folder would lose anything but a checkpoint."""
    names = {path.name for path in target.glob("*")}
    if foreign := names - FILES:
        raise ValueError(f"{target} holds {min(foreign)}, no checkpoint: choose another folder")
    if names:
        _open(target)


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
    """Where the earlier checkpoint waits while a save renames."""
    return target.with_name(f".{target.name}.previous")


def _open(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """The folder to read, and the content of its config.json once that is known to be ours."""
    folder = Path(folder).expanduser().resolve()
    if not any(folder.glob("*")) and _previous(folder).exists():  # killed between the renames
        folder = _previous(folder)
    if not folder.exists():
        others = [path.parent.name for path in folder.parent.glob("*/config.json")]
        close = get_close_matches(folder.name, others, n=1)
        advice = f"did you mean {close[0]}?" if close else "save one there first"
        raise FileNotFoundError(f"there is no checkpoint in {folder}: {advice}")
    try:
        header = json.loads((folder / "config.json").read_bytes())
        if header["format"] == FORMAT and header["class"] in MODELS:
            return folder, header
        reason = "is from a newer llmkit: upgrade llmkit"
    except (OSError, LookupError, TypeError, ValueError):
        reason = "is missing, damaged or of another program: choose another folder"
    raise ValueError(f"{folder / 'config.json'} {reason}")


def _read(path: Path, header: dict[str, Any]) -> bytes:
    """The content of a file, which must be what was written."""
    content = path.read_bytes() if path.exists() else b""
    if zlib.crc32(content) != header["files"][path.name]:
        raise ValueError(f"{path} is missing or damaged: choose another folder")
    return content


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    """A new model; the caller's random state and default device stay out of it."""
    module = import_module(MODELS[name])
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return getattr(module, name)(getattr(module, f"{name}Config")(**config))


def _fill(model: nn.Module, path: Path, header: dict[str, Any]) -> None:
    """Give a model the weights of a file, dtypes and all."""
    tensors, weights = safetensors.load(_read(path, header)), dict(model.named_parameters())
    found, wanted = ({(n, tuple(t.shape)) for n, t in d.items()} for d in (tensors, weights))
    if found != wanted:
        raise ValueError(f"{path} does not fit its config.json: see {min(found ^ wanted)}")
    model.to(tensors["wte.weight"].dtype)  # buffers, which are not saved, follow the weights
    for name, weight in weights.items():
        weight.data = tensors[name]
