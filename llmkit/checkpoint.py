"""Saving and loading: a model, its tokenizer and the state of its training, in one folder.

    config.json          the kind of folder, the model's configuration; a checksum of each file
    model.safetensors    every weight once, under its name in the model
    tokenizer.json       as the tokenizer writes itself, if one was given
    state.pt             what training needs to go on, if it was given

How it is written as a whole or not at all, and known again, is told in `folders`; when to save, and
what a state holds, in `callbacks` and `training`. Loading never runs code that came with a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit import files
from llmkit.arguments import Tokenizer
from llmkit.evaluation import unwrapped
from llmkit.folders import (
    Kind,
    load_tokenizer,
    read_file,
    read_header,
    steady,
    write_folder,
    write_tensors,
)
from llmkit.model import GPT, GPTConfig
from llmkit.runtime import find_device

CHECKPOINT = Kind(
    "llmkit checkpoint 3", "checkpoint", {"model.safetensors", "tokenizer.json", "state.pt"}
)
MOST_POSITIONS = 1 << 20  # where they are computed, and no weight says how many there are


def save(
    folder: str | Path,
    model: nn.Module,
    tokenizer: Tokenizer | None = None,
    state: Any = None,
) -> Path:
    """Write a checkpoint, in place of the one that the folder may hold; returns the folder.

    A state nests dicts, lists and tuples of tensors, numbers, strings, bools and None. Raises
    TypeError for another model or another thing in the state; ValueError for weights that are not
    a GPT's own or not finite; the errors of ``write_folder``.
    """
    model = plain(model)
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
        if stored is not None:
            content = BytesIO()  # torch's own writer would hide why a full disk refuses
            torch.save(stored, content)
            (place / "state.pt").write_bytes(content.getbuffer())

    return write_folder(folder, CHECKPOINT, model.config, tokenizer, fill)


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
        weight.data = tensors[name]  # the very memory that was read, with the dtype it has there
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
    if type(model) is not GPT:  # a subclass neither: no file could say how to build it again
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
