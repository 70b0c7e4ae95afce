"""Differential privacy for training: DP-SGD's gradient, and the epsilon that it costs.

DP-SGD (Abadi et al. 2016, arXiv:1607.00133) draws each example into a step by its own coin, clips
each example's gradient to one length, adds them, and adds Gaussian noise: no example can change the
sum by more than that length. `epsilon` adds up what the steps give away, in Rényi's divergence
(Mironov, Talwar and Zhang 2019, arXiv:1908.10530). It protects an *example*: for what stands in
thirty examples epsilon is thirty times as large, and epsilon is an exponent, so that no promise is
left. For a large model take `opacus`, with which the tests compare.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

ORDERS = range(2, 257)


def poisson_sample(examples: int, rate: float, generator: torch.Generator) -> Tensor:
    """The numbers of the examples drawn, each with probability `rate` by itself: (B,), B varies."""
    return (torch.rand(examples, generator=generator) < rate).nonzero()[:, 0]


def per_example_gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of each example's mean cross-entropy: name -> (B, *shape of the parameter).

    x, y: ids and targets (B, T). model: forward(ids (B, T)) -> logits (B, T, V), without dropout
    and without a look at the values of its ids, for ``vmap`` hides them.
    """
    weights = {name: w.detach() for name, w in model.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, weights, (x[None],))[0]  # (T, V)
        return F.cross_entropy(logits, y)

    with sdpa_kernel(SDPBackend.MATH):  # of the fused attention, vmap would make a loop
        return vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)


def private_gradient(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    clip: float,
    noise: float,
    batch_size: float,
    generator: torch.Generator | None = None,
) -> None:
    """Set each parameter's ``.grad`` to DP-SGD's: clipped by example, summed, noised, divided.

    Args:
        x, y: the drawn examples (B, T); B may be anything, 0 too.
        clip: the longest gradient of an example, over all parameters together; longer ones shrink.
        noise: the noise multiplier: standard deviation over clip. 0 adds none, and protects nobody.
        batch_size: the *expected* number of examples, by which the sum is divided; the number drawn
            would give away something.
        generator: of the noise, on the model's device.
    """
    if clip <= 0 or noise < 0 or batch_size <= 0:
        raise ValueError(
            f"clip and batch_size must be above 0 and noise at least 0, not {clip}, {batch_size} "
            f"and {noise}"
        )
    sums = {name: torch.zeros_like(w) for name, w in model.named_parameters()}
    if len(x):
        gradients = per_example_gradients(model, x, y)
        squares = [g.flatten(1).square().sum(dim=1) for g in gradients.values()]  # (B,) each
        length = torch.stack(squares).sum(dim=0).sqrt()  # (B,)
        factor = (clip / length.clamp(min=1e-12)).clamp(max=1)  # (B,)
        sums = {name: torch.einsum("b,b...->...", factor, g) for name, g in gradients.items()}
    for name, weight in model.named_parameters():
        drawn = torch.empty_like(weight).normal_(generator=generator)
        weight.grad = (sums[name] + noise * clip * drawn) / batch_size


def rdp(rate: float, noise: float, order: int) -> float:
    """The Rényi divergence of a whole order that one step gives away, at most (Mironov, Talwar and
    Zhang 2019, section 3.3).

    rate: probability with which an example is drawn. noise: the noise multiplier, above 0.
    """
    if not 0 <= rate <= 1 or noise <= 0 or order < 2:
        raise ValueError(
            f"rate must be from 0 to 1, noise above 0, order 2 or more: {rate}, {noise}, {order}"
        )
    k = torch.arange(order + 1, dtype=torch.float64)  # how often of `order` times it was drawn
    ways = math.lgamma(order + 1) - torch.lgamma(k + 1) - torch.lgamma(order - k + 1)
    q, rest = torch.tensor([rate, 1 - rate], dtype=torch.float64)
    chance = torch.xlogy(k, q) + torch.xlogy(order - k, rest)  # 0 log 0 = 0
    return torch.logsumexp(ways + chance + k * (k - 1) / (2 * noise**2), 0).item() / (order - 1)


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy after so many steps of DP-SGD.

    Neighbours differ by one example, added or removed. The best of the whole orders up to 256,
    converted as Canonne, Kamath and Steinke 2020 do (arXiv:2004.00010, proposition 12). With noise
    0 it is infinite. delta should be far below one in the number of examples: a mechanism that
    publishes one example, drawn at random, is within delta = 1 / N. ValueError for a delta that is
    not between 0 and 1.
    """
    if not 0 < delta < 1 or steps < 0:
        raise ValueError(f"delta must be between 0 and 1, steps 0 or more, not {delta}, {steps}")
    if steps == 0 or rate == 0:
        return 0.0
    if noise == 0:
        return math.inf
    bounds = [
        steps * rdp(rate, noise, a) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in ORDERS
    ]
    return max(0.0, min(bounds))
