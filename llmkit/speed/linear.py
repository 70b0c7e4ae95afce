"""The linear layers of a step of generation, one new token of each text, at the speed of a CPU.

PyTorch leaves these products to MKL, which on AMD's processors takes one thread for a single row,
and for a few rows another slow way. Cut into stripes, the weights are read as fast as memory gives
them. From more rows on, oneDNN is faster (``runtime.fast_matmul``), but for linear layers only: the
attention of a single query to many keys would take it five times as long. Measured for the matrices
of 6 layers, 384 wide, float32, two cores of an AMD EPYC (Zen 5): one row 2.2 ms, here 0.6 ms; four
rows 3.7 ms, 1.1 ms; 16 rows 4.4 ms, 2.0 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.runtime import fast_matmul, is_amd

FEW_ROWS = 4  # up to here stripes are the fastest way
LARGE = 2**17  # numbers in a matrix below which a product is over before threads have met


@contextmanager
def quick_linear(model: nn.Module) -> Iterator[None]:
    """Inside the ``with``, the model's large float32 ``nn.Linear`` layers on an AMD processor are
    quick with one row to some dozens. Results and gradients are the same up to rounding."""
    layers = [layer for layer in model.modules() if _gains(layer)]
    for layer in layers:
        layer.forward = MethodType(linear, layer)  # found before the class's own
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def product(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The layer as a function, quick where `quick_linear` would make it so."""
    if _gains(layer):
        return partial(linear, layer)
    return lambda x: F.linear(x, layer.weight, layer.bias)  # by place: quantized weights ask for it


def _gains(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or "forward" in vars(layer) or not is_amd():
        return False
    weight = layer.weight
    if type(weight) not in (nn.Parameter, Tensor):  # quantized, say
        return False
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
    return fits and weight.numel() >= LARGE


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What ``layer(x)`` gives, x (..., C) -> (..., O): for a few rows W xᵀ, stripe by stripe."""
    (O, C), rows = layer.weight.shape, x.numel() // layer.in_features  # noqa: E741
    if not 0 < rows <= FEW_ROWS:
        with fast_matmul(x.device):
            return F.linear(x, layer.weight, layer.bias)
    count = stripes(O, torch.get_num_threads())
    columns = x.reshape(rows, C).t().expand(count, -1, -1)  # (count, C, rows)
    y = torch.bmm(layer.weight.view(count, -1, C), columns)  # (count, O / count, rows)
    y = y.view(O, rows).t().reshape(*x.shape[:-1], O)
    return y if layer.bias is None else y + layer.bias


@cache
def stripes(rows: int, threads: int) -> int:
    """How many equal stripes to cut so many rows into: one for each thread, or as few more as
    divide them, but two at least, as one would be MKL's slow way again; 1 where 64 do not do."""
    return next((count for count in range(max(2, threads), 65) if rows % count == 0), 1)
