"""One more token of each text through a `Modern`, by the layers' functions: `speed.decoding` for
open models.

`quick` puts a model into a `ModernDecoder`, which shares its weights and is called as it is. On a
CPU the time of a token is that of reading all weights once; what lies between the products is kept
small here, and the products are `speed.cpu`'s, which read as fast as memory gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.arguments import LanguageModel
from llmkit.attention import rotary_table
from llmkit.modern.model import (
    Experts,
    FeedForward,
    GroupedAttention,
    Modern,
    ModernBlock,
)
from llmkit.speed import decoding
from llmkit.speed.cpu import product
from llmkit.speed.decoding import Attend, Decoder

PARTS = {Modern, ModernBlock, GroupedAttention, FeedForward, Experts, nn.RMSNorm}
KNOWN = PARTS | decoding.KNOWN


def quick(model: LanguageModel) -> LanguageModel:
    """A model for ``generate`` and ``stream`` that draws the same tokens sooner: a plain `Modern`
    in a `ModernDecoder`; any other as `speed.decoding.quick` gives it."""
    if type(model) is Modern and decoding.is_plain(model, KNOWN):
        return ModernDecoder(model)
    return decoding.quick(model)


class ModernDecoder(Decoder):
    """A `Modern` whose forward takes a short way for one more token of each text, ids (B, 1)."""

    def __init__(self, model: Modern):
        nn.Module.__init__(self)
        self.model, self.config = model, model.config
        self.embed, self.places = model.wte, None
        self.blocks = [_functions(block) for block in cast(list[ModernBlock], list(model.h))]
        self.norm, self.head = _norm(model.ln_f), product(model.lm_head)
        # Not with a cache that forgets, nor with experts, whose products have ever other rows.
        self.in_slots = not (model.config.window or model.config.n_expert)

    def turns(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """What `attention.rotate` does as two factors (T, D) each, of a query and of its halves
        exchanged: fewer steps."""
        c = self.config
        cos, sin = rotary_table(start, stop, c.head_size, like, c.rope_base)
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)

    def layers(self, x: Tensor, turn: Any, attend: Attend) -> Tensor:
        """From the embeddings of a token of each text to its scores: (B, C) -> (B, V).

        The heads of queries that share keys are handed to ``attend`` as if they were positions,
        (B, G, H / G, D): each looks at all that is there, so there is nothing to mask or to copy.
        """
        c, B = self.config, x.size(0)
        H, G, D = c.n_head, c.n_kv_head, c.head_size
        same, other = turn
        for layer, (norm_1, c_attn, q_norm, k_norm, project, norm_2, feed) in enumerate(
            self.blocks
        ):
            heads = c_attn(norm_1(x)).view(B, H + 2 * G, 1, D)
            qk, v = heads.split([H + G, G], dim=1)
            if c.qk_norm:
                qk = torch.cat([q_norm(qk[:, :H]), k_norm(qk[:, H:])], dim=1)
            turned = torch.addcmul(qk * same, qk.roll(D // 2, -1), other)  # (B, H + G, 1, D)
            q, k = turned.type_as(v).split([H, G], dim=1)
            y = attend(layer, q.view(B, G, H // G, D), k, v)  # (B, G, H / G, D)
            x = x + project(y.reshape(B, H * D))
            x = x + feed(norm_2(x))
        return self.head(self.norm(x))


def _functions(block: ModernBlock) -> tuple[Any, ...]:
    """A block's layers as functions, in the order of use."""
    attn = block.attn
    norms = (_norm(attn.q_norm), _norm(attn.k_norm)) if attn.config.qk_norm else (None, None)
    first = (_norm(block.ln_1), product(attn.c_attn), *norms, product(attn.c_proj))
    return *first, _norm(block.ln_2), _feed_forward(block.mlp)


def _norm(layer: Any) -> Callable[[Tensor], Tensor]:
    """The layer as a function."""
    if isinstance(layer, nn.LayerNorm):
        return decoding.norm_function(layer)
    weight, eps, size = layer.weight, cast(float, layer.eps), layer.weight.numel()
    # x / √(|x|² / n + eps) = x √n / √(|x|² + n eps): PyTorch takes twice as many steps.
    wide = torch.promote_types(weight.dtype, torch.float32)
    gain = weight.detach().to(wide) * math.sqrt(size)
    least = torch.tensor(math.sqrt(size * eps)).to(gain)

    def scaled(x: Tensor) -> Tensor:
        y = x.to(wide)
        length = torch.linalg.vector_norm(y, dim=-1, keepdim=True).hypot(least)
        return (y * gain / length).type_as(x)

    return scaled


def _feed_forward(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer as a function of (B, C); experts are called as they are."""
    if isinstance(layer, Experts):
        return lambda x: layer(x[:, None])[:, 0]
    part = cast(FeedForward, layer)
    widen, narrow = product(part.c_fc), product(part.c_proj)
    if not part.gated:
        return lambda x: narrow(F.gelu(widen(x), approximate="tanh"))

    def gated(x: Tensor) -> Tensor:
        gate, up = widen(x).chunk(2, dim=-1)
        return narrow(F.silu(gate) * up)

    return gated
