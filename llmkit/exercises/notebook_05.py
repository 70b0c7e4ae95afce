"""Notebook 05, the transformer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.attention import causal_mask
from llmkit.checks import leaks_future, mixes_batch
from llmkit.exercises.examining import Exercise
from llmkit.model import Block, GPTConfig
from llmkit.positions import sinusoids


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


def _product(kind: Any = torch.cos, step: int = 2, mean: bool = False) -> Any:
    """The product of two rows of waves as a sum over the pairs of columns, and sums like it."""

    def wave_product(distance: int, C: int) -> float:
        speed = 10000 ** (-torch.arange(0, C, step) / C)
        waves = kind(distance * speed)
        return float(waves.mean() if mean else waves.sum())

    return wave_product


def _product_of_rows(distance: int, C: int) -> float:
    rows = sinusoids(1021, C)
    return float(rows[20] @ rows[20 + distance])


def _norm(kind: Any = nn.BatchNorm1d, view: bool = False) -> Any:
    """A module around a norm that wants features second; or one that takes them last."""

    class Norm(nn.Module):
        def __init__(self, C: int):
            super().__init__()
            self.norm = kind(C)

        def forward(self, x: Tensor) -> Tensor:
            if kind is nn.LayerNorm:
                return self.norm(x)
            if view:
                return self.norm(x.view(x.size(0), x.size(2), x.size(1))).view(x.shape)
            if kind is nn.BatchNorm1d:
                return self.norm(x.flatten(0, 1)).view(x.shape)
            return self.norm(x.mT).mT

    return Norm


def _in_both_modes(kind: Any) -> Any:
    def normed(x: Tensor) -> dict[str, Tensor]:
        layer = kind(x.size(2))
        return {"in training mode": layer(x).detach(), "in eval mode": layer.eval()(x).detach()}

    return normed


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


def _from_pytorch(
    mask: str = "hidden", tied: bool = True, last_norm: bool = True, **kw: Any
) -> Any:
    """A GPT of PyTorch's parts, and what comes of leaving one of its choices out."""
    settings = {"dropout": 0.0, "activation": "gelu", "norm_first": True, **kw}

    class FromPyTorch(nn.Module):
        def __init__(self, config: GPTConfig):
            super().__init__()
            self.config, C = config, config.n_embd
            self.wte = nn.Embedding(config.vocab_size, C)
            self.wpe = nn.Embedding(config.block_size, C)
            layer = nn.TransformerEncoderLayer(
                C, config.n_head, 4 * C, batch_first=True, **settings
            )
            last = nn.LayerNorm(C) if last_norm else None
            self.h = nn.TransformerEncoder(layer, config.n_layer, last, enable_nested_tensor=False)
            self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
            if tied:
                self.lm_head.weight = self.wte.weight

        def forward(self, ids: Tensor) -> Tensor:
            seen = causal_mask(ids.size(1))
            hidden = {"hidden": ~seen, "seen": seen, "none": None}[mask]
            x = self.wte(ids) + self.wpe.weight[: ids.size(1)]
            return self.lm_head(self.h(x, mask=hidden))

    return FromPyTorch


def _judged(kind: Any) -> Any:
    """What can be said of a model whatever its parts are called."""

    def judged(config: GPTConfig) -> dict[str, Any]:
        model = kind(config)
        layers = [part for part in model.modules() if isinstance(part, nn.TransformerEncoderLayer)]
        return {
            "leaks_future passed": leaks_future(model).passed,
            "mixes_batch passed": mixes_batch(model).passed,
            "layers": len(layers),
            "norm first": all(layer.norm_first for layer in layers),
            "GELU": all(bool(layer.activation(-torch.ones(1)) < -0.1) for layer in layers),
            "dropout": max(layer.dropout.p for layer in layers) if layers else None,
            "trainable numbers": sum(weight.numel() for weight in model.parameters()),
        }

    return judged


NORM_ACROSS_BATCH = """
class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return x
"""
BROKEN = """
class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_1(y))
"""
FROM_PYTORCH = """
class FromPyTorch(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, ids):  # (B, T) -> (B, T, V)
        return torch.zeros(*ids.shape, self.config.vocab_size)
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
        "05.wave_product",
        reference=_product_of_rows,
        checked="equal to the product of two rows of waves that lie so far apart",
        cases=[(0, 2), (1, 2), (3, 4), (-3, 4), (17, 64), (1000, 64)],
        mistakes={
            "sin a sin b + cos a cos b is cos(a - b), not its sine": _product(torch.sin),
            "there are C / 2 speeds, one for each pair of columns: take every second": _product(
                step=1
            ),
            "a product of rows is a sum, not a mean": _product(mean=True),
            "the pairs have speeds of their own: they do not all turn by `distance`": (
                lambda distance, C: math.cos(distance) * C / 2
            ),
        },
        hints=(
            "Write the product for C = 2, where row t is (sin t, cos t).",
            "cos(a - b) = cos a cos b + sin a sin b. What is a - b, for each pair of columns?",
            "Sum cos(distance * speed) over the C / 2 speeds that `waves` has.",
        ),
    ),
    Exercise(
        "05.norm_across_batch",
        reference=_norm(),
        checked="equal to BatchNorm1d over all texts and places, in both modes",
        cases=[(_draw(*shape),) for shape in ((1, 2, 1), (1, 2, 3), (2, 3, 4), (2, 4, 4))],
        mistakes={
            "that is a layer norm: BatchNorm1d takes its means over texts and places": _norm(
                nn.LayerNorm
            ),
            "`view` only cuts the numbers anew: transpose(1, 2) brings features second": _norm(
                view=True
            ),
            "the means are taken in each text for itself: not InstanceNorm1d": _norm(
                nn.InstanceNorm1d
            ),
        },
        hints=(
            "In __init__: self.norm = nn.BatchNorm1d(C).",
            "It wants (B, C, T). Bring the features second, and back again.",
        ),
        stub=NORM_ACROSS_BATCH,
        prepare=_in_both_modes,
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
        "05.from_pytorch",
        reference=_from_pytorch(),
        checked="no leak, norms first, GELU, and as many numbers as llmkit's GPT of that shape",
        cases=[(GPTConfig(7, 4, n_layer=layers, n_head=2, n_embd=8),) for layers in (1, 2)],
        mistakes={
            "it sees the future: give the encoder a `mask`": _from_pytorch("none"),
            "the mask is upside down: PyTorch's says what is hidden, so ~": _from_pytorch("seen"),
            "the norms stand after the sums: norm_first=True": _from_pytorch(norm_first=False),
            "the layers bend by ReLU, as in 2017: activation='gelu'": _from_pytorch(
                activation="relu"
            ),
            "PyTorch's layers have dropout 0.1 unless told otherwise: dropout=0.0": (
                _from_pytorch(dropout=0.1)
            ),
            "the output has a matrix of its own: use the table of characters": _from_pytorch(
                tied=False
            ),
            "the norm before the output is missing": _from_pytorch(last_norm=False),
        },
        hints=(
            "One nn.TransformerEncoderLayer(C, n_head, 4 * C, ...) with batch_first=True, "
            "norm_first=True, activation='gelu', dropout=0.0; then nn.TransformerEncoder.",
            "Its `mask` says what is hidden: ~llmkit.causal_mask(T).",
            "Around it stand wte, wpe and a last norm; the scores are x @ self.wte.weight.T.",
        ),
        stub=FROM_PYTORCH,
        prepare=_judged,
    ),
]
