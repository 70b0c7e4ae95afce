"""Notebook 05b, positions and norms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.attention import CausalSelfAttention, causal_mask, rotary, sinusoids
from llmkit.checks import leaks_future, mixes_batch
from llmkit.exercises.examining import Exercise
from llmkit.model import GPTConfig


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


def _turn(
    halved: bool = True, sign: float = 1.0, dim: int = 2, values: str = "b", back: bool = False
) -> Any:
    """Rotary as one would write it, with one thing or another changed."""

    def turn(x: Tensor) -> Tensor:
        D = x.size(3)
        exponent = torch.arange(0, D, 2) if halved else torch.arange(D // 2)
        angle = torch.arange(x.size(dim))[:, None] * 10000 ** (-exponent / D)
        cos, sin = angle.cos(), (-angle if back else angle).sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + sign * {"a": a, "b": b}[values] * cos], -1)

    return turn


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


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class _Next(nn.Module):
    """Each position reads the next one; the last reads itself."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 1:], x[:, -1:]], dim=1)


class _Rounding(nn.Module):
    """Mixes nothing, but rounds by what stands elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        return (x - 3 * mean) + 3 * mean


class _Batch(nn.Module):
    """BatchNorm1d of a stream (B, T, C)."""

    def __init__(self, C: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(C)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.mT).mT


def _layer(kind: str) -> nn.Module:
    """A layer (B, T, 4) -> (B, T, 4) of that kind, with random weights."""
    attention = CausalSelfAttention(GPTConfig(5, 8, n_head=2, n_embd=4))
    kinds = {
        "linear": lambda: nn.Linear(4, 4),
        "causal attention": lambda: attention,
        "feed-forward": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)),
        "LayerNorm": lambda: nn.LayerNorm(4),
        "LayerNorm, then attention": lambda: nn.Sequential(nn.LayerNorm(4), attention),
        "BatchNorm1d, training": lambda: _Batch(4),
        "one that reads the next position": _Next,
        "one that rounds": _Rounding,
    }
    return kinds[kind]()


def _asked(mixes: Any) -> Any:
    """What a function of (layer, x) says of a layer of some kind."""

    def asked(kind: str) -> Any:
        torch.manual_seed(0)
        said = mixes(_layer(kind), torch.randn(2, 5, 4))
        return bool(said) if isinstance(said, Tensor) else said

    return asked


def _mixes_by_derivative(layer: nn.Module, x: Tensor) -> bool:
    """Whether the derivative of one position by another is anywhere more than rounding."""
    one_row = torch.autograd.functional.jacobian(lambda batch: layer(batch)[0], x)[:, :, 0]
    between = one_row.abs().amax(dim=(1, 3)).fill_diagonal_(0)  # (T, T)
    return bool(between.max() > 1e-5)


def _mixes(
    tried: Any = slice(None), exact: bool = False, still: bool = False, same: bool = False
) -> Any:
    """Change one position after another and look at the rest; or less than that."""

    def mixes(layer: nn.Module, x: Tensor) -> bool:
        layer = layer.eval() if still else layer
        before, T = layer(x), x.size(1)
        for s in list(range(T))[tried]:
            changed = x.clone()
            changed[:, s] += 1.0 if same else torch.randn_like(x[:, s])
            others = torch.arange(T) != s
            one, other = before[:, others], layer(changed)[:, others]
            if not (torch.equal(one, other) if exact else torch.allclose(one, other, atol=1e-5)):
                return True
        return False

    return mixes


def _mixes_itself(layer: nn.Module, x: Tensor) -> bool:
    return not torch.allclose(layer(x), layer(x + torch.randn_like(x)), atol=1e-5)


def _from_pytorch(
    mask: str = "hidden",
    tied: bool = True,
    last_norm: bool = True,
    placed: bool = True,
    used: bool = True,
    **kw: Any,
) -> Any:
    """A GPT of PyTorch's parts, and what comes of leaving one of its choices out. placed, used:
    whether the positions' rows are added, and the layers called."""
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
            x = self.wte(ids) + placed * self.wpe.weight[: ids.size(1)]
            return self.lm_head(self.h(x, mask=hidden) if used else x)

    return FromPyTorch


def _judged(kind: Any) -> Any:
    """What can be said of a model whatever its parts are called."""

    def judged(config: GPTConfig) -> dict[str, Any]:
        model = kind(config)
        layers = [part for part in model.modules() if isinstance(part, nn.TransformerEncoderLayer)]
        texts = torch.tensor([[1, 2, 3], [4, 2, 3], [2, 1, 3]])  # shorter than the window
        with torch.no_grad():
            as_it_is, other, swapped = model.eval()(texts)[:, -1]  # (V,) each
        model.train()
        return {
            "leaks_future passed": leaks_future(model).passed,
            "mixes_batch passed": mixes_batch(model).passed,
            "an earlier token counts": not torch.allclose(other, as_it_is, atol=1e-4),
            "the order of the earlier tokens counts": not torch.allclose(
                swapped, as_it_is, atol=1e-4
            ),
            "layers": len(layers),
            "norm first": all(layer.norm_first for layer in layers),
            "GELU": all(bool(layer.activation(-torch.ones(1)) < -0.1) for layer in layers),
            "dropout": max(layer.dropout.p for layer in layers) if layers else None,
            "trainable numbers": sum(weight.numel() for weight in model.parameters()),
        }

    return judged


def _said(a: bool = False, b: bool = True, c: bool = True, d: bool = True, e: bool = False) -> Any:
    return (a, b, c, d, e)


NORM_ACROSS_BATCH = """
class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return x
"""
TURNED = """
def repaired_rotary(x):  # (B, H, T, D) -> (B, H, T, D)
    T, D = x.shape[-2:]
    speed = 10000 ** (-torch.arange(D // 2) / D)
    angle = torch.arange(T)[:, None] * speed
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + a * angle.cos()], dim=-1)
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
        "05b.changes",
        reference=_said(),
        checked="order counts only where positions are told, and rotary knows distances alone",
        mistakes={
            "(a): without positions attention reads a bag, and the bag is the same": _said(a=True),
            "(b): each character has got another position's row": _said(b=False),
            "(c): both characters now stand at another distance from the last one": _said(c=False),
            "(d): the rows 7 to 16 are not the rows 0 to 9": _said(d=False),
            "(e): all distances are as they were, and rotary knows nothing else": _said(e=True),
            "(d) and (e) the wrong way round: rotary knows distances, rows know positions": _said(
                d=False, e=True
            ),
        },
        hints=(
            "What does the last position get from the two others: which features, which scores?",
            "A learned row depends on the position; a rotary score on the distance of two.",
        ),
    ),
    Exercise(
        "05b.wave_product",
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
        "05b.repaired_rotary",
        reference=rotary,
        checked="equal to llmkit's rotary: lengths stay, and position 0 is not turned",
        cases=[(_draw(*shape),) for shape in ((1, 1, 1, 2), (1, 1, 2, 2), (1, 2, 3, 4))]
        + [(_draw(2, 3, 5, 8),), (_draw(1, 1, 400, 8),)],
        mistakes={
            "the speeds are wrong still: pair i turns by t / 10000^(2i/D)": _turn(halved=False),
            "the second half is wrong still: a turned arrow is a sin + b cos": _turn(values="a"),
            "both faults are there: the second half, and the speeds": _turn(False, values="a"),
            "a turned arrow's second half is a sin + b cos: mind the sign": _turn(sign=-1.0),
            "the arrows turn backwards: a cos - b sin, a sin + b cos": _turn(back=True),
        },
        hints=(
            "A turn keeps an arrow's length, and at position 0 it changes nothing. Does this one?",
            "Turned by an angle, (a, b) becomes (a cos - b sin, a sin + b cos).",
            "The exponents of `waves` run 0, 2, 4, ... over D. How do these run?",
        ),
        stub=TURNED,
    ),
    Exercise(
        "05b.norm_across_batch",
        reference=_norm(),
        checked="equal to BatchNorm1d over all texts and positions, in both modes",
        cases=[(_draw(*shape),) for shape in ((1, 2, 1), (1, 2, 3), (2, 3, 4), (2, 4, 4))],
        mistakes={
            "that is a layer norm: BatchNorm1d takes its means over texts and positions": _norm(
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
        "05b.mixes_positions",
        reference=_mixes_by_derivative,
        checked="right about layers that mix positions, that do not, and that only round",
        cases=[
            ("linear",),
            ("causal attention",),
            ("feed-forward",),
            ("LayerNorm",),
            ("LayerNorm, then attention",),
            ("BatchNorm1d, training",),
            ("one that reads the next position",),
            ("one that rounds",),
        ],
        mistakes={
            "changing the last position alone shows nothing where none looks ahead": _mixes(
                slice(-1, None)
            ),
            "changing the first position alone misses a layer that reads the next one": _mixes(
                slice(0, 1)
            ),
            "ask the layer in the mode in which it comes: .eval() hides BatchNorm's mixing": _mixes(
                still=True
            ),
            "numbers that are summed in another order differ by rounding: use allclose": _mixes(
                exact=True
            ),
            "the same number added to all features is what a norm takes away: add random ones": (
                _mixes(same=True)
            ),
            "a position may depend on itself: compare the others only": _mixes_itself,
        },
        hints=(
            "Change x[:, s] to other random numbers, and compare what comes out elsewhere.",
            "Do so for every s, and compare with torch.allclose(..., atol=1e-5).",
        ),
        prepare=_asked,
    ),
    Exercise(
        "05b.from_pytorch",
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
            "the order of the tokens does not count: add the positions' rows": _from_pytorch(
                placed=False
            ),
            "the layers are built, but the stream does not go through them": _from_pytorch(
                used=False
            ),
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
