"""Attention: the mask, the explicit formula, where a token stands, the cache, a GPT's fused layer.

Here lives everything in which positions exchange information, and two of three ways to tell them
apart: waves that are added to a token's embedding, and turns of queries and keys. The third, a
vector that is learned for each position, is an embedding in ``model``; there too is what a single
position does on its own (layer norms, the feed-forward part), and the configuration.

Shapes: B batch, T time (positions asking), S time (positions looked at), C width of the model,
H heads, D = C / H features per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from llmkit.arguments import check_number, check_type, shown
from llmkit.runtime import find_device


def causal_mask(T: int, device: torch.device | str | None = None) -> Tensor:
    """Who may look at whom: a (T, T) bool, True on and below the diagonal.

    Row t is position t asking; its True columns are the positions 0..t it may look at.
    """
    check_number("T", T, int, least=0)
    if device is not None and not isinstance(device, torch.device):
        device = find_device(device)
    # Position t has to predict token t + 1, which stands beside it in the same batch: whoever may
    # look there learns to copy, and has nothing to say when the future is not written yet.
    return torch.ones(T, T, dtype=torch.bool, device=device).tril()


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √D) v, step by step, with the weights to look at (Vaswani et al. 2017, 3.2.1).

    Args:
        q: queries (..., T, D). k: keys (..., S, D). v: values (..., S, Dv).
        mask: bool, broadcastable to (..., T, S); True = may look. None: everyone sees everything.

    Returns:
        out (..., T, Dv), the weighted averages of v; weights (..., T, S), whose rows sum to 1.

    Raises:
        TypeError: the mask is not boolean, or q, k or v is no tensor.
        ValueError: a row of the mask is all False: an average of nothing has no value.
    """
    for name, tensor in {"q": q, "k": k, "v": v}.items():
        check_type(name, tensor, Tensor)
    check_type("mask", mask, Tensor, optional=True)
    # A sum of D products of numbers near 1 is near √D. Undivided, such scores would put nearly all
    # weight on one position, and where softmax is that sure, its gradient is almost 0.
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (..., T, S)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(
                f"mask must be bool (True = may look), not {mask.dtype}: use mask.bool()"
            )
        if not mask.any(dim=-1).all():
            raise ValueError("a row of the mask is all False: let each position see at least one")
        # -inf becomes a weight of exactly 0. A large negative number does not where a row's other
        # scores are as low: softmax only compares them, and the model sees the future.
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)  # (..., T, S)
    return weights @ v, weights


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, window: int = 0
) -> Tensor:
    """`attention` of each position to its own past, without the weights.

    q (B, H, T, D), k and v (B, H, S, D) -> (B, H, T, D). The queries are those of the last T of the
    S positions; S is more than T where earlier keys and values come from a cache. PyTorch's fused
    kernel never writes all weights (B, H, T, T) down (Dao et al. 2022).

    k and v may have fewer heads: each then serves as many of q's, in a row. window: how many
    positions each one sees, itself among them; 0: its whole past.
    """
    T, S = q.size(-2), k.size(-2)
    how: Any = {"dropout_p": dropout, "enable_gqa": q.size(-3) != k.size(-3)}
    near = window == 0 or window >= S
    # PyTorch's is_causal begins its triangle at the upper left: after a cache, the T queries would
    # see the first keys and not the last.
    if T == S and near:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **how)
    if T == 1 and near:  # one query may look at all; several need the lower rows of the triangle
        return F.scaled_dot_product_attention(q, k, v, **how)
    mask = causal_mask(S, q.device)[-T:]  # (T, S)
    if not near:
        mask = mask.triu(S - T - window + 1)
    return F.scaled_dot_product_attention(q, k, v, mask, **how)


def sinusoids(T: int, C: int) -> Tensor:
    """Waves, slower and slower along the features: (T, C), sin(t / 10000^(2i/C)) in column 2i, the
    cosine in column 2i + 1 (Vaswani et al. 2017, 3.5)."""
    check_number("T", T, int, least=0)
    check_number("C", C, int, least=1)
    inv_freq = 10000 ** (-torch.arange(0, C, 2) / C)  # (ceil(C/2),)
    angles = torch.outer(torch.arange(T).float(), inv_freq)  # (T, ceil(C/2))
    # Sine and cosine together: a step of s positions is then a turn by the same angle everywhere.
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :C]  # (T, C)


def rotary(x: Tensor, start: int = 0) -> Tensor:
    """Rotary position embedding: turn pairs of features by an angle that grows with the position.

    Feature i is paired with feature i + D/2 (the half-split pairing of GPT-NeoX; the paper pairs
    neighbours, which is the same up to the order of the features). Pair i turns by t / 10000^(2i/D)
    radians at position t. Lengths are kept, and the product of a query and a key that were both
    turned depends only on how far apart they stand (Su et al. 2021, RoFormer, arXiv:2104.09864).

    x is queries, keys or both (..., H, T, D), and so is the result; an odd D is a ValueError.
    ``start`` is the position of x[..., 0, :]: more than 0 where earlier positions are in a cache.
    """
    check_type("x", x, Tensor)
    check_number("start", start, int, least=0)
    T, D = x.shape[-2:]
    return rotate(x, *rotary_table(start, start + T, D, x)).type_as(x)


def rotary_table(
    start: int, stop: int, D: int, like: Tensor, base: float = 10000
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (stop - start, D/2), of the angles by which `rotary` turns; with a
    larger base the slow pairs turn slower."""
    if D % 2:
        raise ValueError(f"rotary positions turn pairs of features: head size {D} must be even")
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision cannot hold the angles
    positions = torch.arange(start, stop, device=like.device, dtype=dtype)  # (T,)
    # Like the hands of a clock: the first pair turns by a radian at each position and tells
    # neighbours apart, the last one hardly moves and tells near from far.
    inv_freq = base ** (-torch.arange(0, D, 2, device=like.device, dtype=dtype) / D)  # (D/2,)
    angles = torch.outer(positions, inv_freq)  # (T, D/2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotary` with its table at hand: (..., T, D) -> (..., T, D)."""
    a, b = x.chunk(2, dim=-1)  # (..., T, D/2) each
    # Each pair (a, b) is a point of a plane, turned about its origin.
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class KVCache:
    """The keys and values that one attention layer has computed so far, to compute each only once.

    Memory for ``block_size`` positions is set aside at once; ``length`` of them are filled. It is
    for inference: no gradient flows through it.
    """

    def __init__(self, batch_size, n_head, block_size, head_size, *, device=None, dtype=None):
        # All at once: to grow by torch.cat would copy the whole past for each new token. Not zeros,
        # because what is not filled is never read.
        shape = (batch_size, n_head, block_size, head_size)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, T, D); return all so far, each (B, H, length, D).

        ValueError where T more positions do not fit, or B, H, D are not the cache's.
        """
        B, H, room, D = self.keys.shape
        start, stop = self.length, self.length + k.size(-2)
        if stop > room:
            raise ValueError(f"the cache holds {start} of {room} positions: {stop} do not fit")
        if k.shape != (B, H, stop - start, D):  # or a batch of one would silently be repeated
            raise ValueError(f"the cache is for B, H, D = {B, H, D}; k has shape {tuple(k.shape)}")
        self.keys.narrow(2, start, stop - start).copy_(k.detach())  # sooner than keys[:, :, ...] =
        self.values.narrow(2, start, stop - start).copy_(v.detach())
        self.length = stop
        return self.keys.narrow(2, 0, stop), self.values.narrow(2, 0, stop)


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a sequence to its own past."""

    # `speed.cpu` knows a faster way for some processors.
    attend: Callable[[Tensor, Tensor, Tensor, float], Tensor] = staticmethod(causal_attention)

    def __init__(self, config: Any):  # a GPTConfig, or what has its n_embd, n_head, bias, ...
        super().__init__()
        if not hasattr(config, "n_embd"):
            raise TypeError(f"config must be a GPTConfig, or alike, not {shown(config)}")
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.rotary = config.position == "rotary"
        C = config.n_embd
        # One product makes the queries, keys and values of all heads: a few large products take
        # less time than many small ones. GPT-2's published weights are laid out so, too.
        self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)
        self.c_proj = nn.Linear(C, C, bias=config.bias)  # mixes what the heads found, each alone
        self.resid_dropout = nn.Dropout(config.dropout)

    def queries_keys_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C), at the positions from `start` on -> three of (B, H, T, D)."""
        B, T, C = x.shape
        # The heads share the width among them: H heads of C / H features cost what one of C would.
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = heads
        if self.rotary:  # not v: where a token stands decides who looks at it, not what is seen
            q, k = rotary(heads[:2], start)
        return q, k, v

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C). With a cache, x continues the positions the cache holds."""
        B, T, C = x.shape
        q, k, v = self.queries_keys_values(x, 0 if cache is None else cache.length)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D) each, S = start + T
        # A plain function, unlike a module, does not know whether the model is being trained.
        out = self.attend(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C): heads side by side
        return self.resid_dropout(self.c_proj(out))


@torch.no_grad()
def attention_weights(model: nn.Module, ids: Tensor, masked: bool = True) -> Tensor:
    """What every head of a model looks at: ids (B, T) -> weights (L, B, H, T, T), L layers.

    While the ids run through the model, each attention layer's input is caught, and the weights are
    computed from it again, since the fused kernel does not give them. masked: False for a model
    whose positions see everything.

    ValueError where the model has no layer of the class `CausalSelfAttention`.
    """
    check_type("model", model, nn.Module)
    check_type("masked", masked, bool)
    found: list[Tensor] = []

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        q, k, v = layer.queries_keys_values(inputs[0])
        mask = causal_mask(ids.size(1), ids.device) if masked else None
        found.append(attention(q, k, v, mask)[1])

    layers = [layer for layer in model.modules() if isinstance(layer, CausalSelfAttention)]
    if not layers:
        raise ValueError("the model has no CausalSelfAttention, whose weights could be computed")
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        model(ids)
    finally:  # or every later call of the model would do this again
        for hook in hooks:
            hook.remove()
    return torch.stack(found)
