"""Saving and loading: a model, its tokenizer and the state of its training, in one folder.

    model.safetensors                every weight once, under its name in the model
    tokenizer.json                   as the tokenizer writes itself, if one was given
    state.json, state.safetensors    what training wants back, if it was given
    config.json                      the model's class and configuration; which files belong here

No pickle: loading never runs code that came with a checkpoint. A save fills a hidden folder beside
the old one and swaps the two by renaming: a run killed at any moment leaves one whole checkpoint,
the old or the new. When to save, and what a state holds, is decided in ``training``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections import OrderedDict
from dataclasses import asdict
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from llmkit import tokenizer as tokenizers

FORMAT, VERSION = "llmkit checkpoint", 1
MODELS = {"GPT": "llmkit.model", "FastGPT": "llmkit.fast"}  # class, and the module it lives in
FILES = {"model.safetensors", "tokenizer.json", "state.json", "state.safetensors", "config.json"}


def save(folder: str | Path, model: nn.Module, tokenizer: Any = None, state: Any = None) -> Path:
    """Write a checkpoint, in place of the one that the folder may hold; returns the folder.

    A state nests dicts (keys str or int), lists and tuples of tensors, numbers, strings, bools
    and None. Tensors keep their dtype, not their device.

    Raises TypeError for another model or another thing in the state, ValueError for a folder that
    holds other files (it is left alone), OSError where writing fails, as on a full disk.
    """
    target = Path(folder).expanduser().resolve()
    _refuse_foreign(target)
    contents = _contents(getattr(model, "_orig_mod", model), tokenizer, state)  # torch.compile's
    prefix = f".{target.name}.saving-"
    fresh = target.with_name(prefix + secrets.token_hex(4))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in [*target.parent.glob(".*")]:
            if re.fullmatch(re.escape(prefix) + "[0-9a-f]{8}", path.name):  # a run was killed here
                shutil.rmtree(path.rename(fresh))
        fresh.mkdir()
        for name, content in contents.items():
            if content is tokenizer:
                tokenizer.save(fresh / name)
            else:
                (fresh / name).write_bytes(content)
            with open(fresh / name, "rb+") as file:
                os.fsync(file.fileno())
        _swap(fresh, target)
    except OSError as error:
        raise OSError(
            f"no checkpoint could be saved in {folder} ({error.strerror or error}): free some disk "
            "space or choose another folder; an earlier checkpoint there is unharmed"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(folder)


def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Any]:
    """The model, in eval mode and its own dtypes, and the tokenizer, None if none was saved.

    Raises FileNotFoundError or ValueError, which name the file that is missing, damaged or foreign.
    """
    folder, header = _open(folder)
    name, path = header["class"], folder / "model.safetensors"
    module = import_module(MODELS[name])
    try:
        config = getattr(module, f"{name}Config")(**header.get("config"))
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # the caller's seed stays
            model = getattr(module, name)(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / 'config.json'} makes no {name}: {error}") from None
    tensors = _read(path)
    _compare(_weights(model), tensors, f"{path} does not fit its config.json")
    model.to(tensors["wte.weight"].dtype)  # buffers that are not saved follow the weights
    for key, weight in _weights(model).items():
        weight.data = tensors[key]
    has_tokenizer = "tokenizer.json" in header["files"]
    tokenizer = tokenizers.load(folder / "tokenizer.json") if has_tokenizer else None
    return model.to(device).eval(), tokenizer


def load_state(folder: str | Path) -> Any:
    """The state, its tensors on the CPU and independent of each other; None if none was saved.

    An OrderedDict comes back as a dict, an nn.Parameter as a tensor. Errors as in ``load``.
    """
    folder, header = _open(folder)
    if "state.json" not in header["files"]:
        return None
    tree, tensors = _read(folder / "state.json"), _read(folder / "state.safetensors")
    try:
        return _decode(tree, tensors)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        raise ValueError(f"{folder / 'state.json'} is damaged: choose another folder") from None


def _contents(model: nn.Module, tokenizer: Any, state: Any) -> dict[str, Any]:
    """What goes into which file; a wrong argument is found here, before anything is written."""
    name = type(model).__name__
    if MODELS.get(name) != type(model).__module__:
        raise TypeError(f"the model must be llmkit's GPT or FastGPT, not {type(model)}")
    with torch.device("meta"):  # shapes without numbers
        expected = _weights(type(model)(model.config))
    weights = _weights(model)
    _compare(expected, weights, "the model is not what its config describes")
    contents = {"model.safetensors": as_bytes({key: _copy(w) for key, w in weights.items()})}
    if tokenizer is not None:
        contents["tokenizer.json"] = tokenizer
    if state is not None:
        tensors: dict[str, Tensor] = {}
        contents["state.json"] = json.dumps(_encode(state, "state", tensors)).encode()
        contents["state.safetensors"] = as_bytes(tensors)
    header = {"format": FORMAT, "version": VERSION, "class": name, "config": asdict(model.config)}
    header["files"] = list(contents)
    return {**contents, "config.json": json.dumps(header, indent=1).encode()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; tied ones, being one tensor, under their first name only."""
    named = reversed(model.state_dict(keep_vars=True).items())
    return dict({id(tensor): (name, tensor) for name, tensor in named}.values())


def _compare(expected: dict[str, Tensor], found: dict[str, Tensor], complaint: str) -> None:
    """ValueError for the first tensor that is missing, unknown, or of another shape or kind."""

    def describe(t: Tensor | None) -> str:
        return "absent" if t is None else f"{'float' * t.is_floating_point()}{tuple(t.shape)}"

    for name in sorted(expected.keys() | found.keys()):
        want, got = describe(expected.get(name)), describe(found.get(name))
        if want != got:
            raise ValueError(f"{complaint}: {name} should be {want}, not {got}")


def _copy(tensor: Tensor) -> Tensor:
    """The same numbers in memory of their own, in order, on the CPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu").copy_(tensor.detach())


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON; its tensors go into ``tensors``, named after the path that leads to them."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return {"float": repr(value)}  # exact; JSON has no inf and nan
    if kind in (list, tuple):
        return {kind.__name__: [_encode(v, f"{path}[{i}]", tensors) for i, v in enumerate(value)]}
    if kind in (dict, OrderedDict) and all(type(key) in (str, int) for key in value):
        return {"dict": [[k, _encode(v, f"{path}[{k!r}]", tensors)] for k, v in value.items()]}
    if isinstance(value, Tensor):
        with contextlib.suppress(RuntimeError):  # sparse or quantized: not one block of numbers
            tensors[path] = _copy(value).view(-1).view(torch.uint8)  # as bytes: any dtype will do
            return {"tensor": path, "dtype": str(value.dtype)[6:], "shape": list(value.shape)}
    allowed = "dicts (keys str or int), lists, tuples, tensors, numbers, strings, bools and None"
    raise TypeError(f"{path} is a {kind.__name__}, but a state may hold only {allowed}")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The state that ``_encode`` wrote."""
    if not isinstance(node, dict):
        return node
    (kind, content), *_ = node.items()
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content].view(getattr(torch, node["dtype"])).view(node["shape"])
    if kind == "dict":
        return {key: _decode(v, tensors) for key, v in content}
    return {"list": list, "tuple": tuple}[kind](_decode(v, tensors) for v in content)


def _swap(fresh: Path, target: Path) -> None:
    """Put ``fresh`` in the place of ``target``. Every rename is to a free name, as Windows asks."""
    if any(target.glob("*")):
        shutil.rmtree(_previous(target), ignore_errors=True)
        target.rename(_previous(target))
    elif target.exists():
        target.rmdir()
    fresh.rename(target)
    shutil.rmtree(_previous(target), ignore_errors=True)


def _read(path: Path) -> Any:
    """The tensors of a .safetensors file, by name, or the content of a .json file."""
    try:
        if path.suffix == ".safetensors":  # copied: Windows cannot replace a file that is mapped
            return {name: tensor.clone() for name, tensor in load_file(path).items()}
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: choose another folder") from None
    except (ValueError, RecursionError, SafetensorError):
        raise ValueError(f"{path} is damaged: choose another folder") from None


def _open(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """The folder to read, and its config.json once that is known to be one of ours."""
    folder = Path(folder).expanduser()
    if not any(folder.glob("*")) and any(_previous(folder).glob("*")):  # killed between the renames
        folder = _previous(folder)
    if not any(folder.glob("*")):
        others = [path.parent.name for path in folder.parent.glob("*/config.json")]
        close = get_close_matches(folder.name, others, n=1)
        advice = f"did you mean {close[0]}?" if close else "save one there first"
        raise FileNotFoundError(f"there is no checkpoint in {folder}: {advice}")
    path = folder / "config.json"
    header = _read(path)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by llmkit: choose another folder")
    known = header.get("class") in tuple(MODELS) and isinstance(header.get("files"), list)
    if header.get("version") != VERSION or not known:
        raise ValueError(f"{path} is damaged or from a newer llmkit: upgrade llmkit")
    return folder, header


def _refuse_foreign(target: Path) -> None:
    """ValueError if replacing the folder would lose anything but a checkpoint."""
    lost = [target] if target.is_file() or Path.cwd().is_relative_to(target) else []
    for path in (*target.glob("*"), *_previous(target).glob("*")):
        if path.name not in FILES or not path.is_file():
            lost.append(path)
    if lost:
        raise ValueError(f"{lost[0]} is no part of a checkpoint: choose another folder")
    if any(target.glob("*")):
        _open(target)


def _previous(folder: Path) -> Path:
    """Where the earlier checkpoint waits while a save renames."""
    return folder.resolve().parent / f".{folder.resolve().name}.previous"
