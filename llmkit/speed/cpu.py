"""What one kind of processor likes: the same numbers, sooner, where PyTorch's usual way is slow.

Inside the ``with`` of `tuned` a model on a CPU trains, and is measured, in the way that is fastest
there; `product` is a linear layer for the few rows of a step of generation. Results are the same up
to rounding. On a GPU nothing of this does anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.arguments import LanguageModel
from llmkit.attention import CausalSelfAttention
from llmkit.attention import causal_attention as fused_attention
from llmkit.evaluation import device_of
from llmkit.runtime import capabilities, multiplies_bfloat16

SHORT = 256  # positions up to which a CPU may attend by plain products, not by the fused kernel
FEW_ROWS = 4  # rows up to which `linear` cuts the weights into stripes
LARGE = 2**17  # numbers in a matrix below which a product is over before threads have met


@contextmanager
def tuned(model: LanguageModel) -> Iterator[None]:
    """Inside the ``with``: attention by `causal_attention`, dropout by `byte_dropout`, GELU by
    `quick_gelu`, products by `fast_matmul`, and the memory that a step frees kept for the next."""
    device = device_of(model)
    if device.type != "cpu":
        yield
        return
    layers = [part for part in model.modules() if isinstance(part, CausalSelfAttention)]
    drops = [part for part in model.modules() if type(part) is nn.Dropout]
    bends = [part for part in model.modules() if type(part) is nn.GELU]
    keep_memory()
    try:
        for layer in layers:
            layer.attend = causal_attention
        for drop in drops:
            drop.forward = partial(_drop, drop)  # type: ignore[method-assign]
        for bend in bends:
            if bend.approximate == "tanh":
                bend.forward = quick_gelu  # type: ignore[assignment, method-assign]
        with fast_matmul(device):
            yield
    finally:
        for layer in layers:
            vars(layer).pop("attend", None)  # the class's own is found again
        for part in (*drops, *bends):
            vars(part).pop("forward", None)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """`attention.causal_attention`, by plain products where these are faster: see `fuses`. With
    dropout always, for which PyTorch's CPU kernel falls back to them, with slower dropout."""
    B, H, T, D = q.shape
    if k.size(-2) > T or q.device.type != "cpu" or (dropout == 0 and fuses(T, q.device, q.dtype)):
        return fused_attention(q, k, v, dropout)
    future = torch.full((T, T), -torch.inf, dtype=q.dtype).triu(1)
    q, k, v = (part.reshape(B * H, T, D) for part in (q, k, v))
    weights = torch.baddbmm(future, q, k.mT, alpha=D**-0.5).softmax(dim=-1)  # (B H, T, T)
    return (byte_dropout(weights, dropout) @ v).view(B, H, T, D)


def fuses(T: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention of T positions to themselves is best done by PyTorch's fused kernel.

    Plain products are faster on a CPU, up to SHORT positions, in two cases. In bfloat16, there and
    back: at T = 64 in 1/4 (Intel Xeon) or 1/8 (AMD EPYC) of the time, at 256 in 1/2. In float32 on
    AMD's processors, with `fast_matmul`: at T = 256 in 2/3 (on Intel's it takes half as long
    again).
    """
    if device.type != "cpu" or torch.compiler.is_exporting():  # an export holds for every T
        return True
    return T > SHORT or (dtype.itemsize > 2 and not is_amd())


def byte_dropout(x: Tensor, p: float) -> Tensor:
    """`F.dropout`, on a CPU with a random byte for each number (so p is rounded to 256ths).

    PyTorch draws each number's fate apart, and takes about three times as long; here a 64-bit
    random number decides eight.
    """
    if p == 0 or x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = max(1, round(256 * p))
    noise = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = noise.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return x * keep.to(x.dtype).mul_(256 / (256 - dropped))


def _drop(layer: nn.Dropout, x: Tensor) -> Tensor:
    """What ``layer(x)`` gives, by `byte_dropout`."""
    return byte_dropout(x, layer.p if layer.training else 0.0)


def quick_gelu(x: Tensor) -> Tensor:
    """``F.gelu(x, approximate="tanh")``, on a CPU in float32 by a sigmoid, as x (1 + tanh u) / 2 is
    x σ(2 u)."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    return _SigmoidGELU.apply(x)


class _SigmoidGELU(torch.autograd.Function):
    """y = x s with s = σ(x (a + b x²)); dy/dx = s + s (1 - s) x (a + 3 b x²).

    In few passes over the memory, of which its time is made: there and back 0.7 of the time of
    PyTorch's. It keeps x alone for the way back, as that does, and computes s again.
    """

    A = torch.tensor(2 * math.sqrt(2 / math.pi))
    B = 2 * math.sqrt(2 / math.pi) * 0.044715

    @classmethod
    def gate(cls, x: Tensor) -> Tensor:
        return torch.addcmul(cls.A, x, x, value=cls.B).mul_(x).sigmoid_()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _SigmoidGELU.gate(x).mul_(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope = torch.addcmul(_SigmoidGELU.A, x, x, value=3 * _SigmoidGELU.B).mul_(x)
        gate = _SigmoidGELU.gate(x)
        return torch.ops.aten.sigmoid_backward(slope, gate).add_(gate).mul_(dy)


@contextmanager
def fast_matmul(device: str | torch.device = "cpu") -> Iterator[None]:
    """Inside the ``with``, float32 products on AMD's CPUs may go through oneDNN, and not MKL alone.

    MKL leaves half of a processor idle that is not Intel's: on an AMD EPYC (Zen 5), 110 GFLOP/s a
    core against oneDNN's 255. PyTorch hands over only where it may lower the precision to bfloat16
    ("medium"); on a processor without the units for that, oneDNN computes in float32 all the same.
    So we allow it only where a trial shows that nothing is lost; and never on Intel's, where MKL is
    at home (Ice Lake: products take a fifth longer, and PyTorch's fused attention 6 times as long).
    """
    if torch.device(device).type != "cpu" or not (is_amd() and _medium_is_exact()):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def is_amd() -> bool:
    """Whether this is a processor of AMD's, on which PyTorch's other library, MKL, is slow."""
    return "AMD" in capabilities().get("cpu_name", "")


@cache
def _medium_is_exact() -> bool:
    """Whether "medium" precision is as precise as "highest" on this CPU."""
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact, error = a.double() @ b.double(), {}
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            error[precision] = (a @ b - exact).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(error["medium"] < 4 * error["highest"])


def keep_memory() -> None:
    """Have Linux's C library keep the memory that a step frees for the next step.

    It would give most of it back to the system and fetch it again, page by page: 15 % of a small
    model's step. It keeps twice the largest piece it has seen freed, if below 32 MB (mallopt(3)).
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)  # never written to: it takes no memory itself


def best_dtype(device: torch.device | str) -> str | None:
    """bfloat16 on processors that multiply in it, twice as fast; None elsewhere: what suits the
    device (``runtime.default_dtype``)."""
    native = torch.device(device).type == "cpu" and multiplies_bfloat16(device)
    return "bfloat16" if native else None


def product(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A linear layer as a function, quick for the few rows of a step of generation.

    PyTorch leaves these products to MKL, which on AMD's processors takes one thread for a single
    row, and for a few rows another slow way. There `linear` multiplies large float32 layers.
    """
    weight = layer.weight
    quantized = type(weight) not in (nn.Parameter, Tensor)
    changed = type(layer) is not nn.Linear or "forward" in vars(layer)
    if is_amd() and not quantized and not changed:
        fits = weight.device.type == "cpu" and weight.dtype == torch.float32
        if fits and weight.is_contiguous() and weight.numel() >= LARGE:
            return partial(linear, layer)
    return lambda x: F.linear(x, layer.weight, layer.bias)  # by place: quantized weights ask for it


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What ``layer(x)`` gives, x (..., C) -> (..., O): for a few rows W xᵀ, stripe by stripe.

    Cut so, the weights are read as fast as memory gives them. From more rows on, oneDNN is faster
    (`fast_matmul`). Measured for the matrices of 6 layers, 384 wide, float32, two cores of an AMD
    EPYC (Zen 5): one row 2.2 ms, here 0.6 ms; four rows 3.7 ms, 1.1 ms; 16 rows 4.4 ms, 2.0 ms.
    """
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
