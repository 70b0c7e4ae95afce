"""LoRA: fine-tuning by a low-rank update beside frozen weights (Hu et al. 2021, arXiv:2106.09685).

`apply` puts a `LoRALinear` in the place of each linear layer that is named, and freezes all else;
training then changes the adapter alone, which `save` writes to a file of its own and `load` puts
onto a base model. `merge` adds the update to the weights, `unmerge` takes it out, `remove` leaves
plain linear layers, which is what ``checkpoint`` saves. An adapted model is trained as any other.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit.files import replacing

FORMAT = "llmkit adapter 1"
Model = TypeVar("Model", bound=nn.Module)


class LoRALinear(nn.Module):
    """A linear layer and a low-rank update of it: W x + b + (alpha / rank) B A x.

    A (rank, in_features) starts uniform within ±1/√in_features, B (out_features, rank) at zero: at
    first the layer gives what it gave. Dropout, while training, is of what enters A.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        self.base, self.rank, self.alpha, self.p = base, rank, alpha, dropout
        self.kept: Tensor | None
        A = torch.empty(rank, base.in_features).uniform_(-1, 1) / math.sqrt(base.in_features)
        self.A = nn.Parameter(A.to(base.weight))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.register_buffer("kept", None, persistent=False)  # W itself, while the layer is merged
        self.train(base.training)

    def update(self) -> Tensor:
        """What the adapter adds to W: (out_features, in_features), in float32 at least."""
        dtype = torch.promote_types(self.A.dtype, torch.float32)
        return self.alpha / self.rank * (self.B.to(dtype) @ self.A.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        if self.kept is not None:  # merged: the base has the update in it
            if self.training:
                raise ValueError("a merged adapter cannot learn: call lora.unmerge(model) first")
            return self.base(x)
        low = F.linear(F.dropout(x, self.p, self.training), self.A)  # (..., rank)
        return self.base(x) + F.linear(low, self.B) * (self.alpha / self.rank)


def apply(
    model: Model,
    rank: int = 8,
    alpha: float = 16,
    targets: str | Iterable[str] = ("c_attn",),
    dropout: float = 0.0,
) -> Model:
    """Give a model an adapter, in place, and freeze all its own weights; returns the model.

    Args, or a ValueError where they are not so:
        model: any module with linear layers, and no adapter yet.
        rank: of the update, from 1 to the narrower side of each layer.
        alpha: the update is scaled by alpha / rank.
        targets: which linear layers, by the end of their names: "c_attn" is that of every block,
            "mlp.c_proj" is not "attn.c_proj", "h.0.attn.c_attn" is the first block's alone.
        dropout: of what enters the update, while training; 0 <= dropout < 1.
    """
    if adapters(model):
        raise ValueError("the model has an adapter already: call lora.remove(model) first")
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a number above 0, not {alpha}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
    chosen = _choose(model, (targets,) if isinstance(targets, str) else tuple(targets))
    for name, layer in chosen.items():
        most = min(layer.weight.shape)
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"rank must be a whole number from 1 to {most} for {name}, not {rank}")
        for other, part in model.named_modules():
            if other != name and getattr(part, "weight", None) is layer.weight:
                raise ValueError(
                    f"{name} shares its weights with {other}, which merging would change too: "
                    "leave it out of targets"
                )
    model.requires_grad_(False)
    for name, layer in chosen.items():
        model.set_submodule(name, LoRALinear(layer, rank, alpha, dropout))
    return model


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers of a model, by name; empty if it has none."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRALinear)}


def trainable(model: nn.Module) -> tuple[int, int]:
    """How many of a model's parameters training changes, and how many there are."""
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return trained, sum(weight.numel() for weight in weights)


@torch.no_grad()
def merge(model: Model) -> Model:
    """Add the updates to the weights, in place: the same outputs, no slower than the base. The
    weights as they were are kept for `unmerge`, until `remove`. Returns the model."""
    for layer in _adapted(model).values():
        if layer.kept is None:
            weight = layer.base.weight
            layer.kept = weight.detach()
            weight.data = (weight + layer.update()).to(weight.dtype)
    return model


def unmerge(model: Model) -> Model:
    """Undo `merge`, in place: the base's weights come back bit for bit. Returns the model."""
    for layer in _adapted(model).values():
        if layer.kept is not None:
            layer.base.weight.data = layer.kept
            layer.kept = None
    return model


def remove(model: Model) -> Model:
    """Put the plain linear layers back, in place, and let all weights be trained again: those of
    the base, or where the adapter is merged, with it in them for good. Returns the model."""
    for name, layer in _adapted(model).items():
        model.set_submodule(name, layer.base)
    return model.requires_grad_(True)


def save(path: str | Path, model: nn.Module) -> Path:
    """Write a model's adapter, and nothing of its base, to a .safetensors file; returns the path.

    A file that is there already is replaced in one step: a save killed at any moment leaves it
    whole. OSError where writing fails.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    layers = _adapted(model)
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{name}.A"] = layer.A.detach().cpu().contiguous()
        tensors[f"{name}.B"] = layer.B.detach().cpu().contiguous()
    about = {
        "format": FORMAT,
        "rank": layer.rank,  # alike in all layers
        "alpha": layer.alpha,
        "dropout": layer.p,
        "base": _describe(model),
        "checksum": _checksum(tensors),
    }
    try:
        Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            safetensors.save_file(tensors, fresh, {"llmkit": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        reason = f"no adapter could be saved as {path} ({error})"
        raise OSError(f"{reason}: free some disk space or choose another path") from error
    return Path(path)


def load(path: str | Path, model: Model) -> Model:
    """Put a saved adapter onto its base model, in place of one that it may have; returns the model.

    Raises FileNotFoundError for no file, ValueError for one that is damaged or of another program,
    and where the model is not of the shape of the adapter's base; the model is then as before.
    """
    about, tensors = _read(Path(path).expanduser())
    ours = _describe(getattr(model, "_orig_mod", model))
    for name, value in about["base"].items():
        if ours.get(name) != value:
            raise ValueError(
                f"{path} is for a base with {name} {value}, not {ours.get(name)}: "
                "load it onto the model that it was trained on"
            )
    if adapters(model):
        remove(unmerge(model))
    names = [name.removesuffix(".A") for name in tensors if name.endswith(".A")]
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        apply(model, about["rank"], about["alpha"], names, about["dropout"])
    with torch.no_grad():
        for name, layer in adapters(model).items():
            layer.A.copy_(tensors[f"{name}.A"])
            layer.B.copy_(tensors[f"{name}.B"])
    return model


def _choose(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers whose names end in a target; ValueError for a target that ends none."""
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    ends = tuple(f".{target}" for target in targets)
    chosen = {name: layer for name, layer in linear.items() if f".{name}".endswith(ends)}
    for target in targets or ("",):
        if not any(f".{name}".endswith(f".{target}") for name in chosen):
            kinds = sorted({re.sub(r"^h\.\d+\.", "", name) for name in linear})
            raise ValueError(f"no linear layer is called {target!r}; there are {', '.join(kinds)}")
    return chosen


def _adapted(model: nn.Module) -> dict[str, LoRALinear]:
    """`adapters`, of which there must be some."""
    if layers := adapters(model):
        return layers
    raise ValueError("the model has no adapter: call lora.apply or lora.load first")


def _describe(model: nn.Module) -> dict[str, Any]:
    """What must be alike in two bases: their class and shape."""
    config: Any = model.config
    about = {"class": type(model).__name__, **asdict(config)}
    about.pop("dropout", None)
    return json.loads(json.dumps(about))  # as it comes back from a file, where a tuple is a list


def _checksum(tensors: dict[str, Tensor]) -> int:
    return zlib.crc32(safetensors.save(dict(sorted(tensors.items()))))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of an adapter, and its tensors by name, once both are known to be whole."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter {path}: save one there first")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["llmkit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] == FORMAT and about["checksum"] != _checksum(tensors):
            raise ValueError
    except (LookupError, TypeError, ValueError, SafetensorError):
        reason = "is damaged or no adapter of llmkit's: choose another file"
        raise ValueError(f"{path} {reason}") from None
    if about["format"] != FORMAT:
        raise ValueError(f"{path} is from a newer llmkit: upgrade llmkit")
    return about, tensors
