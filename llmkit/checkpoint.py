"""Saving and loading: a model, its tokenizer and the state of its training, in one folder.

    model.safetensors                every weight once, under its name in the model
    tokenizer.json                   as the tokenizer writes itself, if one was given
    state.json, state.safetensors    what training needs to go on, if it was given
    config.json                      the model's class and configuration; a checksum of each file

No pickle: loading never runs code that came with a checkpoint. That it is written as a whole or not
at all is ``folder``'s work; when to save, and what a state holds, is decided in ``training``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit import tokenizer as tokenizers
from llmkit.folder import CHECKPOINT, MODELS, read, read_header, write


def save(folder: str | Path, model: nn.Module, tokenizer: Any = None, state: Any = None) -> Path:
    """Write a checkpoint, in place of the one that the folder may hold; returns the folder.

    A state nests dicts (keys str or int), lists and tuples of tensors, numbers, strings, bools
    and None. Raises TypeError for another model or another thing in the state, ValueError for a
    folder that holds other files (it is left alone), OSError where writing fails.
    """
    model = plain(model)
    if any(hasattr(weight, "qdata") for weight in model.parameters()):
        raise TypeError("the model is quantized: save it with llmkit.deploy.export.save_int8")

    def fill(folder: Path) -> None:
        write_tensors(
            folder / "model.safetensors", dict(model.named_parameters())
        )  # tied ones once
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.json")
        if state is not None:
            tensors: dict[str, Tensor] = {}
            (folder / "state.json").write_text(json.dumps(_encode(state, "state", tensors)))
            write_tensors(folder / "state.safetensors", tensors)

    return write(folder, header(CHECKPOINT, model), fill)


def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Any]:
    """The model, in eval mode and its own dtypes, and the tokenizer, None if none was saved.

    Raises FileNotFoundError for no folder, ValueError for a file in it that is not as it should be.
    """
    folder, about = read_header(folder, CHECKPOINT)
    model = build(about)
    _fill(model, folder / "model.safetensors", about)
    return model.to(device).eval(), load_tokenizer(folder, about)


def load_state(folder: str | Path) -> Any:
    """The state, its tensors on the CPU; None if none was saved. Errors as in ``load``."""
    folder, about = read_header(folder, CHECKPOINT)
    if "state.json" not in about["files"]:
        return None
    tensors = safetensors.load(read(folder / "state.safetensors", about))
    return _decode(read(folder / "state.json", about), tensors)


def plain(model: nn.Module) -> nn.Module:
    """The model without what torch.compile wrapped around it; TypeError for one not llmkit's."""
    model = getattr(model, "_orig_mod", model)
    if MODELS.get(type(model).__name__) != type(model).__module__:
        raise TypeError(f"the model must be llmkit's GPT or FastGPT, not {type(model)}")
    return model


def header(format: str, model: nn.Module) -> dict[str, Any]:
    """What a folder's config.json says of the model in it."""
    return {"format": format, "class": type(model).__name__, "config": asdict(model.config)}


def configuration(about: dict[str, Any]) -> Any:
    """The model's configuration, of a header."""
    module = import_module(MODELS[about["class"]])
    return getattr(module, f"{about['class']}Config")(**about["config"])


def build(about: dict[str, Any]) -> nn.Module:
    """A new model, of a header; the caller's random state and default device stay out of it."""
    module = import_module(MODELS[about["class"]])
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return getattr(module, about["class"])(configuration(about))


def load_tokenizer(folder: Path, about: dict[str, Any]) -> Any:
    """The tokenizer of a folder with this header, None if none was saved."""
    has_one = "tokenizer.json" in about["files"]
    return tokenizers.load(folder / "tokenizer.json") if has_one else None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
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


def _fill(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Give a model the weights of a file, dtypes and all."""
    tensors, weights = safetensors.load(read(path, about)), dict(model.named_parameters())
    found, wanted = ({(n, tuple(t.shape)) for n, t in d.items()} for d in (tensors, weights))
    if found != wanted:
        raise ValueError(f"{path} does not fit its config.json: see {min(found ^ wanted)}")
    model.to(tensors["wte.weight"].dtype)  # buffers, which are not saved, follow the weights
    for name, weight in weights.items():
        weight.data = tensors[name]
