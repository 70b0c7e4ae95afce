"""Where a token stands: waves that are added to its embedding, and turns of queries and keys.

The third way, a vector that is learned for each position, is an embedding in ``model``.

Shapes: T time, C width of the model, H heads, D features per head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmkit.arguments import check_number, check_type


def sinusoids(T: int, C: int) -> Tensor:
    """Waves, slower and slower along the features: (T, C), sin(t / 10000^(2i/C)) in column 2i, the
    cosine in column 2i + 1 (Vaswani et al. 2017, 3.5)."""
    check_number("T", T, int, least=0)
    check_number("C", C, int, least=1)
    inv_freq = 10000 ** (-torch.arange(0, C, 2) / C)  # (ceil(C/2),)
    angles = torch.outer(torch.arange(T).float(), inv_freq)  # (T, ceil(C/2))
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
    inv_freq = base ** (-torch.arange(0, D, 2, device=like.device, dtype=dtype) / D)  # (D/2,)
    angles = torch.outer(positions, inv_freq)  # (T, D/2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotary` with its table at hand: (..., T, D) -> (..., T, D)."""
    a, b = x.chunk(2, dim=-1)  # (..., T, D/2) each
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
