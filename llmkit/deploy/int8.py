"""int8 weights: a byte for each number of a matrix, and one scale for each of its rows.

Row w becomes round(w / s), whole numbers from -128 to 127, with s = max |w| / 127.5: "symmetric,
per channel". Linear layers are quantized by torchao's `Int8WeightOnlyConfig`: activations stay
float32, and each product turns its bytes into floats again. So int8 spares memory, not time: on a
CPU, a window takes about as long as before and a single token up to twice as long. (With int8
activations as well, `Int8DynamicActivationInt8WeightConfig`, windows 768 wide took half the time, a
single token of a small model six times as long, and the perplexity moved more.)

The token embedding follows the same rule: in a small model it is most of the file. A head tied to
it stays tied: both read the same bytes. What stays float32: biases, gains of norms, and the learned
positions, which are added and not looked up. How a quantized model is saved is told in ``export``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.arguments import check_type
from llmkit.checkpoint import build, outline, plain
from llmkit.files import check_weights
from llmkit.model import GPT, GPTConfig

SCALE = "_scale"  # what a weight's name ends in where its scales are meant


class Int8Embedding(nn.Module):
    """A table of rows in int8, each looked up and scaled when asked for: ids (...) -> (..., C).

    weight: torchao's int8 tensor (V, C), of the type that its linear layers have too.
    """

    weight: Any

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.qdata[ids] * self.weight.scale.reshape(-1, 1)[ids]


def to_int8(model: nn.Module) -> GPT:
    """A copy of a GPT with int8 weights, in eval mode, on its device; everything that is not int8
    is float32. It generates and is measured as the original is, but not trained.

    Raises ImportError without torchao, TypeError for a model that is not llmkit's, ValueError for
    one that is quantized already or has parts which are not a GPT's own, as LoRA's adapters.
    """
    model = deepcopy(check(model)).float().eval().requires_grad_(False)
    config, quantize_ = _torchao()

    def chosen(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) or name == "wte"

    quantize_(model, config, filter_fn=chosen)
    model.set_submodule("wte", Int8Embedding(model.wte.weight))
    if model.config.tie_weights:
        model.lm_head.weight = model.wte.weight
    return model


def check(model: nn.Module) -> GPT:
    """The model without torch.compile's wrapping, if it can be exported; errors as in `to_int8`."""
    model = plain(model)
    if is_int8(model):
        raise ValueError("the model is quantized already: give the original")
    with torch.device("meta"):  # no memory, no time
        own = {name for name, _ in GPT(model.config).named_parameters()}
    if foreign := own ^ {name for name, _ in model.named_parameters()}:
        raise ValueError(
            f"the model has other parts than its class ({min(foreign)}): merge LoRA's adapters "
            "first (lora.merge, lora.remove), and undo other changes"
        )
    return model


def is_int8(model: nn.Module) -> bool:
    """Whether any of the model's weights is int8."""
    check_type("model", model, nn.Module)
    return any(hasattr(weight, "qdata") for weight in model.parameters())


def linear_bytes(model: nn.Module) -> int:
    """Bytes of the weights of all linear layers, scales included, a tied head too; no biases."""
    check_type("model", model, nn.Module)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(part.nbytes for layer in layers for part in _parts("", layer.weight).values())


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of a quantized model once, as plain tensors: an int8 matrix under its name, its
    scales (rows, 1) under that name and `_scale`."""
    named = model.named_parameters()
    return {key: part for name, weight in named for key, part in _parts(name, weight).items()}


def from_tensors(config: GPTConfig, found: dict[str, Tensor]) -> GPT:
    """A quantized model of this configuration, with the weights of `tensors`; ValueError where they
    do not fit, which is known before anything is built."""
    shapes: dict[str, tuple[int, ...]]
    shapes = {name: tuple(w.shape) for name, w in outline(config, found).named_parameters()}
    whole = [name for name, shape in shapes.items() if len(shape) == 2 and name != "wpe.weight"]
    scales = {name + SCALE: (shapes[name][0], 1) for name in whole}
    check_weights(found, {**shapes, **scales}, whole)
    quantized = to_int8(build(config))
    for name, weight in tensors(quantized).items():
        weight.copy_(found[name])
    return quantized


def _parts(name: str, weight: Any) -> dict[str, Tensor]:
    """What a weight is made of, sharing its memory."""
    if hasattr(weight, "qdata"):
        return {name: weight.qdata, name + SCALE: weight.scale.view(-1, 1)}
    return {name: weight.detach()}


def _torchao() -> tuple[Any, Any]:
    """The configuration and the function of torchao that quantize."""
    try:
        # It warns of GPU kernels that this machine cannot load, and that nobody here uses.
        with quiet("torchao", "torch.utils._pytree"):
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
        return Int8WeightOnlyConfig(version=2, set_inductor_config=False), quantize_
    except (ImportError, TypeError):  # an older one has no second version
        raise ImportError(
            "int8 needs torchao 0.15 or later: pip install 'llmkit[export]'"
        ) from None


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Inside the ``with``, no warnings, and of these loggers errors only."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in loggers}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
