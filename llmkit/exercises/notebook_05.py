"""Notebook 05, the transformer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmkit.exercises.examining import Exercise
from llmkit.model import GPT, Block, GPTConfig


def _shapes(T: int = 5, weights: Any = (2, 4, 5, 5), heads: bool = True, middle: int = 256) -> Any:
    """Shapes on the way of two texts through a GPT, and what else is taken for them."""
    queries = (2, 4, T, 16) if heads else (2, T, 64)
    return ((2, T, 64), queries, weights, (2, T, middle), (2, T, 65))


def _numbers(width: int, positions: bool = True, biases: bool = True, twice: bool = False) -> int:
    """How many numbers a GPT is made of, and what is easily left out or counted twice."""
    tables = 65 + 64 * positions + 65 * twice
    vectors = 4 + 9 * biases  # of a block: two norms, and the biases of its matrices
    return width * (tables + 4 * (12 * width + vectors) + 2)


def _widest(beyond: int = 0, **counted: bool) -> Any:
    def widest(memory: int) -> int:
        width = 4
        while _numbers(width + 4, **counted) <= memory:
            width += 4
        return width + beyond

    return widest


def _block(
    second_sum: str = "new", second_norm: str = "ln_2", norm_first: bool = True, reads: str = "new"
) -> type[Block]:
    """A block with one thing or another wrong in it."""

    class Wrong(Block):
        def forward(self, x: Tensor, cache: Any = None) -> Tensor:
            norm = getattr(self, second_norm)
            if not norm_first:
                x = self.ln_1(x + self.attn(x))
                return norm(x + self.mlp(x))
            new = x + self.attn(self.ln_1(x))
            out = self.mlp(norm({"old": x, "new": new}[reads]))
            return out + {"old": x, "new": new, "none": 0 * x}[second_sum]

    return Wrong


def _outputs(kind: Any) -> Any:
    """What a block of that kind makes of x, from weights that are the same for all."""

    def forward(x: Tensor) -> Tensor:
        block = kind(GPTConfig(vocab_size=5, block_size=8, n_head=2, n_embd=x.size(2)))
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _, weight in sorted(block.named_parameters()):
                weight.copy_(torch.randn(weight.shape, generator=draw))
            return block(x)

    return forward


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _norm_by_torch(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps=1e-5)


def _norm(
    dim: Any = -1, correction: int = 0, eps: float = 1e-5, root: bool = True, late: bool = False
) -> Any:
    """The norm as one would write it, with one thing or another changed."""

    def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        variance = x.var(dim=dim, keepdim=True, correction=correction)
        below = (variance.sqrt() + eps if late else (variance + eps).sqrt()) if root else variance
        return (x - x.mean(dim=dim, keepdim=True)) / below * gain + bias

    return layer_norm


def _norm_without_gain(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return _norm_by_torch(x, torch.ones_like(gain), torch.zeros_like(bias))


def _shorter_models(model: GPT, ids: Tensor) -> list[Tensor]:
    """What a model says that ends after 0, 1, 2, ... of its blocks."""
    scores = []
    for depth in range(len(model.h) + 1):
        short = deepcopy(model)
        short.h = short.h[:depth]
        scores.append(short(ids))
    return scores


def _lens(norm: bool = True, first: bool = True, positions: bool = True, on: bool = False) -> Any:
    """The stream read after each block, and what is often left out or changed."""

    def lens(model: GPT, ids: Tensor) -> list[Tensor]:
        x = model.wte(ids)
        if positions:
            x = x + model.wpe.weight[: ids.size(1)]
        scores = [model.lm_head(model.ln_f(x) if norm else x)] if first else []
        for block in model.h:
            x = block(x)
            scores.append(model.lm_head(model.ln_f(x) if norm else x))
            x = model.ln_f(x) if on else x
        return scores

    return lens


def _what_blocks_add(model: GPT, ids: Tensor) -> list[Tensor]:
    x = model.wte(ids) + model.wpe.weight[: ids.size(1)]
    parts = [x]
    for block in model.h:
        parts.append(block(x) - x)
        x = x + parts[-1]
    return [model.lm_head(model.ln_f(part)) for part in parts]


def _readings(lens: Any) -> Any:
    """What a lens reads in a model with n_layer blocks, and whether the model survives it."""

    def read(n_layer: int, T: int) -> dict[str, Any] | None:
        model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=n_layer, n_head=2, n_embd=4))
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=draw))
            ids = torch.randint(5, (2, T), generator=draw)
            scores = lens(model, ids)
            if scores is None:
                return None
            scores = list(scores) if isinstance(scores, Tensor) else scores
            return {"the scores": scores, "the model's own scores afterwards": model(ids)}

    return read


BROKEN = """
class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_1(y))
"""
EXERCISES = [
    Exercise(
        "05.shapes",
        reference=_shapes(),
        checked="the stream is (B, T, C); heads cut C, weights are T by T, the middle is 4 C",
        mistakes={
            "the texts are 5 long: T is their length, block_size the longest possible": _shapes(
                32, (2, 4, 32, 32)
            ),
            "each head has weights of its own: (B, H, T, T)": _shapes(weights=(2, 5, 5)),
            "a weight joins two positions: (B, H, T, T), with no D": _shapes(weights=(2, 4, 5, 16)),
            "the queries are cut into 4 heads of 16 features: (B, H, T, D)": _shapes(heads=False),
            "in its middle the feed-forward layer is four times as wide": _shapes(middle=64),
        },
        hints=(
            "B = 2, T = 5, C = 64, H = 4, so D = C / H = 16. Block_size does not come into it.",
            "A head's queries are (T, D) and so are its keys. What shape is q @ k.T?",
        ),
    ),
    Exercise(
        "05.widest",
        reference=_widest(),
        checked="the widest that fits, also where it fits to the last number",
        cases=[(_numbers(8) - less,) for less in (300, 1, 0)] + [(1_000_000,)],
        mistakes={
            "that does not fit any more: `count` says how much it takes": _widest(beyond=4),
            "four more would fit still: at most means that it may fit exactly": _widest(beyond=-4),
            "the table of positions takes numbers too": _widest(positions=False),
            "biases take numbers too": _widest(biases=False),
            "the table of characters serves twice and is stored once": _widest(twice=True),
        },
        hints=(
            "sum(count(config).values()) is what a config takes.",
            "llmkit.GPTConfig(65, 64, n_layer=4, n_head=4, n_embd=width) is a config. Try "
            "widths 4, 8, 12, ... while they fit.",
        ),
    ),
    Exercise(
        "05.layer_norm",
        reference=_norm_by_torch,
        checked="equal to PyTorch's, also where all features are equal, or nearly so",
        cases=[
            (torch.tensor([[[1.0, 3.0]]]), torch.ones(2), torch.zeros(2)),
            (torch.full((1, 1, 3), 2.0), torch.ones(3), torch.tensor([0.5, 0.0, -1.0])),
            (_draw(1, 2, 3), torch.ones(3), torch.zeros(3)),
            (_draw(2, 3, 4), torch.tensor([1.0, 2.0, -1.0, 0.5]), torch.arange(4.0)),
            (0.004 * _draw(1, 1, 5), torch.ones(5), torch.zeros(5)),
        ],
        mistakes={
            "the variance is divided by C, not by C - 1: correction=0": _norm(correction=1),
            "without the ε, equal features give 0 / 0": _norm(eps=0.0),
            "the ε stands under the root, beside the variance": _norm(late=True),
            "it should divide by the root of the variance: the root is missing": _norm(root=False),
            "each position is normed by its own features: dim=-1, not over positions": _norm(1),
            "each position is normed by its own features, not all of them together": _norm((1, 2)),
            "gain and bias are missing": _norm_without_gain,
        },
        hints=(
            "Mean and variance are taken over the last dimension, with keepdim=True.",
            "x.var(dim=-1, keepdim=True, correction=0) is the variance; add 1e-5, take the root.",
            "Last, multiply by gain and add bias: (C,) fits the last dimension by itself.",
        ),
    ),
    Exercise(
        "05.repaired_block",
        reference=Block,
        checked="equal to llmkit's block, whatever the weights",
        cases=[(_draw(1, 1, 4),), (_draw(1, 2, 4),), (_draw(2, 5, 8),)],
        mistakes={
            "what attention found is lost: the second sum starts from y, not from x": _block(
                second_sum="old"
            ),
            "the second norm is ln_2: each layer reads through a norm of its own": _block(
                second_norm="ln_1"
            ),
            "the feed-forward layer reads x: it should work on what attention found": _block(
                reads="old"
            ),
            "the second layer replaces the stream: it should add to it": _block(second_sum="none"),
            "the norms stand after the sums: GPT-2's stand before the layers": _block(
                norm_first=False
            ),
            "both faults are there: the second sum, and the norm before it": _block("old", "ln_1"),
        },
        hints=(
            "Where does what attention found go? Follow y to the end.",
            "A block has two norms. Are both used?",
            "Each line should read `x = x + layer(norm(x))`, with its own norm.",
        ),
        stub=BROKEN,
        prepare=_outputs,
    ),
    Exercise(
        "05.lens",
        reference=_shorter_models,
        checked="equal to the scores of models that end after 0, 1, 2, ... blocks",
        cases=[(1, 1), (1, 3), (2, 4), (3, 2)],
        mistakes={
            "the stream is read without its last norm: lm_head(ln_f(x))": _lens(norm=False),
            "one reading is missing, that of the stream before the first block": _lens(first=False),
            "the stream begins with the characters' rows plus the positions' rows": _lens(
                positions=False
            ),
            "the norm is for reading: the next block gets the stream as it was": _lens(on=True),
            "read the whole stream, not what the last block has added to it": _what_blocks_add,
        },
        hints=(
            "Begin as GPT.forward does, and call lm_head(ln_f(x)) once before the loop.",
            "In the loop: x = block(x), then read x, but leave x itself as it is.",
        ),
        prepare=_readings,
    ),
]
