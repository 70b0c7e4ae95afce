"""One more token of each text through a `GPT`, without the weight of a module's call.

A step of generation multiplies a single row: for a small model on a CPU, half of the time goes to
what lies between the products. Here the layers' functions follow each other directly, in the order
of `model`: what they compute is the same to the last bit, in three quarters of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.attention import CausalSelfAttention, KVCache, causal_attention
from llmkit.generation import generate
from llmkit.model import GPT, MLP, Block
from llmkit.positions import rotary_table, rotate
from llmkit.speed.cpu import fast_matmul, product
from llmkit.types import LanguageModel

KNOWN = {GPT, Block, CausalSelfAttention, MLP, nn.ModuleList}
KNOWN |= {nn.Linear, nn.Embedding, nn.LayerNorm, nn.GELU, nn.ReLU, nn.Dropout}


def quick(model: LanguageModel) -> LanguageModel:
    """A model for ``generate`` and ``stream`` that draws the same tokens sooner: the model in a
    `Decoder`, or the model itself where that does not know all its parts."""
    return Decoder(model) if knows(model) else model


class Decoder(nn.Module):
    """A `GPT` whose forward takes a short way for one more token of each text, ids (B, 1).

    It shares the model's weights and is called as the model is. For a model that `knows` calls
    plain; ids are within the vocabulary.
    """

    can_score_last = True

    def __init__(self, model: GPT):
        super().__init__()
        self.model, self.config, c = model, model.config, model.config
        self.embed = partial(F.embedding, weight=model.wte.weight)
        self.places = model.wpe.weight if c.position == "learned" else getattr(model, "waves", None)
        act = partial(F.gelu, approximate="tanh") if c.activation == "gelu" else F.relu
        self.blocks = [
            (
                *(_norm(block.ln_1), product(block.attn.c_attn), product(block.attn.c_proj)),
                *(_norm(block.ln_2), product(block.mlp.c_fc), act, product(block.mlp.c_proj)),
            )
            for block in cast(list[Block], list(model.h))
        ]
        self.norm = _norm(model.ln_f) if c.norm_first else lambda x: x
        self.head = product(model.lm_head)

    def new_cache(self, batch_size: int = 1) -> list[KVCache]:
        return self.model.new_cache(batch_size)

    def forward(
        self, ids: Tensor, cache: list[KVCache] | None = None, last_only: bool = False
    ) -> Tensor:
        """What ``model(ids, cache, last_only)`` gives."""
        if cache is not None and cache[0].length and ids.size(1) == 1:
            return self.decode(ids, cache)
        with fast_matmul(ids.device):
            return self.model(ids, cache, last_only)

    @torch.inference_mode()  # spares no_grad's bookkeeping too; the weights are only read
    def decode(self, ids: Tensor, cache: list[KVCache]) -> Tensor:
        """The scores after one more token of each text: ids (B, 1) -> (B, 1, V)."""
        c, B, start = self.config, ids.size(0), cache[0].length
        x = self.embed(ids[:, 0])  # (B, C)
        if self.places is not None:
            x = x + self.places[start]
        turn = rotary_table(start, start + 1, c.head_size, x) if c.position == "rotary" else None
        for part, (norm_1, attend, project, norm_2, widen, act, narrow) in zip(
            cache, self.blocks, strict=True
        ):
            h = norm_1(x) if c.norm_first else x
            q, k, v = attend(h).view(B, 3, c.n_head, 1, c.head_size).unbind(1)  # (B, H, 1, D)
            if turn:
                q, k = (rotate(each, *turn).type_as(x) for each in (q, k))
            y = causal_attention(q, *part.append(k, v))  # (B, H, 1, D)
            x = x + project(y.view(B, c.n_embd))
            if c.norm_first:
                x = x + narrow(act(widen(norm_2(x))))
            else:
                x = norm_1(x)
                x = norm_2(x + narrow(act(widen(x))))
        return self.head(self.norm(x))[:, None]  # (B, 1, V)


def knows(model: LanguageModel) -> TypeGuard[GPT]:
    """Whether the model is a plain `GPT`: none of its parts replaced, hooked or compiled."""
    return type(model) is GPT and all(
        type(part) in KNOWN
        and "forward" not in vars(part)
        and not (part._forward_hooks or part._forward_pre_hooks or part._compiled_call_impl)
        for part in model.modules()
    )


def _norm(layer: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """The layer as a function."""
    shape, weight, bias, eps = layer.normalized_shape, layer.weight, layer.bias, layer.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def continue_prompts(
    model: LanguageModel, prompts: Sequence[Tensor], max_new_tokens: int, **options: Any
) -> list[Tensor]:
    """What a model adds to each prompt (T,), T its own: (n,) each, n up to max_new_tokens.

    Greedy unless options (see ``generate``) say otherwise. Prompts of one length go through the
    model together, which is faster than one after the other.
    """
    options.setdefault("temperature", 0)
    places_by_length: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places_by_length[len(prompt)].append(place)
    added = [prompt[:0] for prompt in prompts]
    for length, places in places_by_length.items():
        together = torch.stack([prompts[place] for place in places])  # (B, T)
        rows = generate(model, together, max_new_tokens, **options)  # (B, T + n)
        for place, row in zip(places, rows, strict=True):
            added[place] = row[length:]
    return added
