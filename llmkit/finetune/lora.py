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
from dataclasses import asdict, is_dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit.arguments import check_each, check_number, check_type
from llmkit.evaluation import unwrapped
from llmkit.files import as_path, replacing, unwritable

FORMAT = "llmkit adapter 2"
FIELDS = {"format", "rank", "alpha", "dropout", "base"}  # and a checksum of these and the tensors
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
    names = [targets] if isinstance(targets, str) else check_each("targets", targets, str)
    chosen = _choose(model, tuple(names))
    _check(model, chosen, rank, alpha, dropout)
    _put(model, {name: LoRALinear(each, rank, alpha, dropout) for name, each in chosen.items()})
    return model


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers of a model, by name; empty if it has none."""
    named = unwrapped(model).named_modules()
    return {name: part for name, part in named if isinstance(part, LoRALinear)}


def trainable(model: nn.Module) -> tuple[int, int]:
    """How many of a model's parameters training changes, and how many there are."""
    check_type("model", model, nn.Module)
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
        unwrapped(model).set_submodule(name, layer.base)
    return model.requires_grad_(True)


def save(path: str | Path, model: nn.Module) -> Path:
    """Write a model's adapter, and nothing of its base, to a .safetensors file; returns the path.

    A file that is there already is replaced in one step: a save killed at any moment leaves it
    whole. OSError where writing fails.
    """
    layers, path = _adapted(model), as_path(path)
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
    }
    about["checksum"] = _checksum(about, tensors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            fresh.write_bytes(safetensors.save(tensors, {"llmkit": json.dumps(about)}))
    except OSError as error:
        raise unwritable(f"no adapter could be saved as {path}", error) from error
    return path


def load(path: str | Path, model: Model) -> Model:
    """Put a saved adapter onto its base model, in place of one that it may have; returns the model.

    Raises FileNotFoundError for no file, ValueError for one that is damaged or of another program,
    and where the model is not of the shape of the adapter's base; the model is then as before.
    """
    about, tensors = _read(as_path(path))
    ours, theirs = _describe(model), about["base"]
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"{path} is for a base with {shorten(f'{name} {theirs.get(name)}', 80)}, not "
                f"{ours.get(name)}: load it onto the model that it was trained on"
            )
    rank, alpha, dropout = about["rank"], about["alpha"], about["dropout"]
    linear, names = _linear(model), {name.rpartition(".")[0] for name in tensors}
    chosen = {name: linear[name] for name in sorted(names & linear.keys())}
    try:
        _check(model, chosen, rank, alpha, dropout)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    wanted = {
        (f"{name}.{side}", shape)
        for name, layer in chosen.items()
        for side, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank)))
    }
    if wrong := wanted ^ {(name, tuple(tensor.shape)) for name, tensor in tensors.items()}:
        raise ValueError(f"{path} does not fit its base: see {shorten(min(wrong)[0], 80)}")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # which leaves the caller's as it is
        layers = {name: LoRALinear(each, rank, alpha, dropout) for name, each in chosen.items()}
        for name, layer in layers.items():
            for side in "AB":
                weight = layer.get_parameter(side)
                if not weight.copy_(tensors[f"{name}.{side}"]).isfinite().all():
                    raise ValueError(
                        f"{name}.{side} in {path} has numbers that are not finite: "
                        "train the adapter again, at a lower learning rate"
                    )
    if adapters(model):  # nothing can fail from here on
        remove(unmerge(model))
    _put(model, layers)
    return model


def _linear(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a model by name, an adapted one's own under the name of the whole."""
    named = unwrapped(model).named_modules()
    adapted = adapters(model)
    linear = {name: part for name, part in named if isinstance(part, nn.Linear)}
    bases = {f"{name}.base": name for name in adapted}
    return {bases.get(name, name): layer for name, layer in linear.items()}


def _check(
    model: nn.Module, chosen: dict[str, nn.Linear], rank: int, alpha: float, dropout: float
) -> None:
    """ValueError for what `apply` refuses."""
    check_number("alpha", alpha, above=0, below=2**53)
    check_number("dropout", dropout, least=0, below=1)
    for name, layer in chosen.items():
        most = min(layer.weight.shape)
        check_number(f"{name}'s rank", rank, int, least=1, most=most)
        for other, part in unwrapped(model).named_modules():
            if part is not layer and getattr(part, "weight", None) is layer.weight:
                raise ValueError(
                    f"{name} shares its weights with {other}, which merging would change too: "
                    "leave it out of targets"
                )


def _put(model: nn.Module, layers: dict[str, LoRALinear]) -> None:
    """Freeze a model and put adapted layers in the places of its own."""
    model.requires_grad_(False)
    for name, layer in layers.items():
        unwrapped(model).set_submodule(name, layer)


def _choose(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers whose names end in a target; ValueError for a target that ends none."""
    linear = _linear(model)
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
    model = unwrapped(model)
    config: Any = getattr(model, "config", None)  # llmkit's are dataclasses
    about = {
        "class": type(model).__name__,
        **(asdict(config) if is_dataclass(type(config)) else {}),
    }
    about.pop("dropout", None)
    return json.loads(json.dumps(about))  # as it comes back from a file, where a tuple is a list


def _checksum(about: dict[str, Any], tensors: dict[str, Tensor]) -> int:
    """Of all that a file says, and of its tensors."""
    said = json.dumps(about, sort_keys=True).encode()
    return zlib.crc32(safetensors.save(dict(sorted(tensors.items()))), zlib.crc32(said))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of an adapter, and its tensors by name, once both are known to be whole."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter {path}: save one there first")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["llmkit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind, checksum = about["format"], about.pop("checksum")
        if kind == FORMAT:
            whole = checksum == _checksum(about, tensors) and isinstance(about["base"], dict)
            if not (whole and tensors and about.keys() == FIELDS):
                raise ValueError
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError):
        reason = "is damaged or no adapter of llmkit's: choose another file"
        raise ValueError(f"{path} {reason}") from None
    if kind != FORMAT:
        raise ValueError(f"{path} is from another version of llmkit: use that one")
    return about, tensors
