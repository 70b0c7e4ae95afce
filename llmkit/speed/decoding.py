"""One more token of each text through a `GPT`, without the weight of a module's call.

A step of generation multiplies a single row: for a small model on a CPU, half of the time goes to
what lies between the products. Here the layers' functions follow each other directly, in the order
of `model`: what they compute is the same to the last bit, in three quarters of the time. Texts of
different lengths can take the step together (`Slots`), as a server wants it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.arguments import LanguageModel
from llmkit.attention import CausalSelfAttention, KVCache, rotary_table, rotate
from llmkit.generation import generate
from llmkit.model import GPT, MLP, Block
from llmkit.speed.cpu import LARGE, fast_matmul, is_amd, product

KNOWN = {GPT, Block, CausalSelfAttention, MLP, nn.ModuleList}
KNOWN |= {nn.Linear, nn.Embedding, nn.LayerNorm, nn.GELU, nn.ReLU, nn.Dropout}
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q, k, v -> what was seen
STEADY = 4  # rows from which on a product gives each row the same bits, however many there are
ROOM = 256  # positions that a slot has at first
STRIDE = 32  # positions of which attention takes whole multiples, for the same reason


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
    in_slots = True  # whether `Slots` can hold its texts
    model: Any
    config: Any  # of the model

    def __init__(self, model: GPT):
        super().__init__()
        self.model, self.config, c = model, model.config, model.config
        plain = type(model.wte) is nn.Embedding  # a table of int8 weights is called as it is
        self.embed = partial(F.embedding, weight=model.wte.weight) if plain else model.wte
        self.places = model.wpe.weight if c.position == "learned" else getattr(model, "waves", None)
        act = partial(F.gelu, approximate="tanh") if c.activation == "gelu" else F.relu
        self.blocks = [
            (
                norm_function(block.ln_1),
                product(block.attn.c_attn),
                product(block.attn.c_proj),
                norm_function(block.ln_2),
                product(block.mlp.c_fc),
                act,
                product(block.mlp.c_proj),
            )
            for block in cast(list[Block], list(model.h))
        ]
        self.norm = norm_function(model.ln_f) if c.norm_first else lambda x: x
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
        start = cache[0].length
        x = self.embed(ids[:, 0])  # (B, C)
        if self.places is not None:
            x = x + self.places[start]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, *cache[layer].append(k, v))

        return self.layers(x, self.turns(start, start + 1, x), attend)[:, None]  # (B, 1, V)

    def turns(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """The angles of rotary positions from start to stop; None where there are none."""
        c = self.config
        return rotary_table(start, stop, c.head_size, like) if c.position == "rotary" else None

    def layers(self, x: Tensor, turn: tuple[Tensor, Tensor] | None, attend: Attend) -> Tensor:
        """From the embeddings of a token of each text to its scores: (B, C) -> (B, V)."""
        c, B = self.config, x.size(0)
        for layer, (norm_1, c_attn, project, norm_2, widen, act, narrow) in enumerate(self.blocks):
            h = norm_1(x) if c.norm_first else x
            q, k, v = c_attn(h).view(B, 3, c.n_head, 1, c.head_size).unbind(1)  # (B, H, 1, D)
            if turn:
                q, k = (rotate(each, *turn).type_as(x) for each in (q, k))
            y = attend(layer, q, k, v)  # (B, H, 1, D)
            x = x + project(y.view(B, c.n_embd))
            if c.norm_first:
                x = x + narrow(act(widen(norm_2(x))))
            else:
                x = norm_1(x)
                x = norm_2(x + narrow(act(widen(x))))
        return self.head(self.norm(x))


class Slots:
    """Texts that stand at different positions and take each step together.

    Each has a slot of its own in one cache. On a CPU its scores do not depend on what is in the
    other slots, to the last bit: products are of STEADY rows or more (fewer, PyTorch multiplies in
    other ways), attention is over a multiple of STRIDE positions (what is beyond a text weighs 0,
    and other lengths are summed in another order), and a beginning is read alone. So the scores are
    those of `Decoder.decode` up to rounding; of 48,000 tokens drawn in company of 16, none was
    another than `generate` draws.

    All this was measured on an AMD EPYC, with 1 to 32 rows. There, `cpu.product` has one way for up
    to four rows of large matrices and another for more, which round differently: to fill up would
    take a lone text twice the time, and is left out. With one slot there is no company.
    """

    def __init__(self, decoder: Decoder, count: int):
        c, like = decoder.config, decoder.new_cache(0)[0].keys
        weights = [part.weight for part in decoder.modules() if isinstance(part, nn.Linear)]
        cut = is_amd() and any(weight.numel() >= LARGE for weight in weights)
        alone = cut or count == 1 or like.device.type != "cpu"
        self.least = 1 if alone else STEADY  # rows in a product
        self.most = -(-c.block_size // STRIDE) * STRIDE  # positions in a slot
        shape = (2, c.n_layer, count, like.size(1), min(ROOM, self.most), c.head_size)
        # (slots, G, room, D) a layer. Zeros, where a weight of 0 would meet what happened to be
        # there, which may be no number.
        self.keys, self.values = (list(part) for part in like.new_zeros(shape))
        self.lengths = [0] * count
        self.table = decoder.turns(0, c.block_size, like)
        self.decoder, self.device = decoder, like.device

    @torch.inference_mode()
    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        """A text's beginning, in place of what the slot held: ids (T,) -> scores (1, V)."""
        self._make_room(len(ids))
        part = self.decoder.new_cache(0)
        for layer, keys, values in zip(part, self.keys, self.values, strict=True):
            layer.keys, layer.values = keys[slot, None], values[slot, None]  # (1, G, room, D)
        scores = self.decoder(torch.tensor([ids], device=self.device), part, last_only=True)
        self.lengths[slot] = len(ids)
        return scores[:, -1]

    @torch.inference_mode()
    def step(self, newest: dict[int, int]) -> Tensor:
        """One more token of each of B texts, by their slots: scores (B, V). Slots below the highest
        that are not named lose what they hold."""
        c, decoder, S = self.decoder.config, self.decoder, 1 + max(newest)
        more = max(0, self.least - S)
        both = [(newest[s], self.lengths[s]) if s in newest else (0, 0) for s in range(S + more)]
        ids, at = torch.tensor(both, device=self.device).unbind(1)  # (S + more,) each
        x = decoder.embed(ids)  # (S + more, C)
        if decoder.places is not None:
            x = x + decoder.places[at]
        turn = None
        if self.table:
            cos, sin = (part[at][:, None, None] for part in self.table)  # (S + more, 1, 1, D / 2)
            turn = cos, sin
        L = -(-(1 + max(start for _, start in both)) // STRIDE) * STRIDE
        self._make_room(L)
        at = at[:S, None, None, None]
        beyond = torch.arange(L, device=self.device) > at  # (S, 1, 1, L)
        mask = torch.zeros_like(beyond, dtype=x.dtype).masked_fill_(beyond, -torch.inf)
        place = at.expand(S, self.keys[0].size(1), 1, c.head_size)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer][:S], self.values[layer][:S]  # (S, G, room, D)
            keys.scatter_(2, place, k[:S])
            values.scatter_(2, place, v[:S])
            y = F.scaled_dot_product_attention(
                q[:S], keys.narrow(2, 0, L), values.narrow(2, 0, L), mask
            )  # as q
            return torch.cat([y, q[S:]]) if more else y

        scores = decoder.layers(x, turn, attend)
        for slot in newest:
            self.lengths[slot] += 1
        return scores.index_select(0, torch.tensor(list(newest), device=self.device))

    @torch.inference_mode()
    def move(self, slot: int, to: int) -> None:
        """A text to another slot, in place of what that held."""
        self.lengths[to] = T = self.lengths[slot]
        for part in (*self.keys, *self.values):
            part[to, :, :T] = part[slot, :, :T]

    def _make_room(self, T: int) -> None:
        """For T positions in each slot: twice as much as there was, or more. A window of thousands
        is rarely full, and its memory is taken when it is."""
        room = self.keys[0].size(2)
        if room < T:
            more = min(self.most, max(2 * room, -(-T // STRIDE) * STRIDE)) - room
            for both in (self.keys, self.values):
                for layer, part in enumerate(both):
                    both[layer] = F.pad(part, (0, 0, 0, more))


def knows(model: LanguageModel) -> TypeGuard[GPT]:
    """Whether the model is a plain `GPT`: see `is_plain`."""
    return type(model) is GPT and is_plain(model, KNOWN)


def is_plain(model: Any, known: set[type]) -> bool:
    """Whether all parts of a model are of known classes, and none replaced, hooked or compiled. Its
    token embedding may be any, as it is called whatever it is: int8 has one of its own."""
    return all(
        (type(part) in known or part is model.wte)
        and "forward" not in vars(part)
        and not (part._forward_hooks or part._forward_pre_hooks or part._compiled_call_impl)
        for part in model.modules()
    )


def norm_function(layer: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
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
