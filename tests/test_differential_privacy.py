"""differential_privacy: gradients against a loop of backward passes and against opacus, epsilon
against integrals and opacus."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmkit import GPT, GPTConfig
from llmkit.responsible.differential_privacy import (
    ORDERS,
    epsilon,
    per_example_gradients,
    poisson_sample,
    private_gradient,
    rdp,
)


def small(position="rotary", tie_weights=True):
    torch.manual_seed(1)
    model = GPT(GPTConfig(11, 8, 2, 2, 8, position=position, tie_weights=tie_weights))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)  # or most gradients would be small
    return model


def batch(B=5):
    ids = torch.randint(11, (B, 9), generator=torch.Generator().manual_seed(4))
    return ids[:, :-1], ids[:, 1:]


def one_by_one(model, x, y):
    """Each example's gradients, by a backward pass of its own."""
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1])[0], y[i]).backward()
        rows.append([w.grad.clone() for w in model.parameters()])
    model.zero_grad()
    return rows


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_all_gradients_at_once_are_those_of_each_alone(position, tie_weights):
    model, (x, y) = small(position, tie_weights), batch()
    found = per_example_gradients(model, x, y)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for i, row in enumerate(one_by_one(model, x, y)):
        for gradient, expected in zip(found.values(), row, strict=True):
            assert torch.allclose(gradient[i], expected, atol=1e-6)
    assert all(w.grad is None for w in model.parameters())


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_all_gradients_at_once_are_those_of_opacus():
    from opacus import GradSampleModule

    model, (x, y) = small(tie_weights=False), batch()  # opacus' hooks do not know tied weights
    found = per_example_gradients(model, x, y)
    theirs = GradSampleModule(model, loss_reduction="mean")
    F.cross_entropy(theirs(x).mT, y, reduction="none").mean(dim=1).mean().backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(found[name], weight.grad_sample, atol=1e-6), name


@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_without_noise_it_is_the_sum_of_clipped_gradients(clip):
    model, (x, y) = small(), batch()
    expected = [torch.zeros_like(w) for w in model.parameters()]
    for row in one_by_one(model, x, y):
        length = math.sqrt(sum(g.square().sum().item() for g in row))
        for total, g in zip(expected, row, strict=True):
            total += g * min(1, clip / length)
    private_gradient(model, x, y, clip, noise=0, batch_size=4)
    for weight, total in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, total / 4, atol=1e-6)


def test_no_example_moves_the_sum_by_more_than_the_clip():
    model, (x, y) = small(), batch()
    sums = []
    for n in (4, 5):
        private_gradient(model, x[:n], y[:n], clip=0.1, noise=0, batch_size=1)
        sums.append(torch.cat([w.grad.flatten() for w in model.parameters()]))
    assert (sums[1] - sums[0]).norm().item() == pytest.approx(0.1, rel=1e-4)


def test_the_noise_has_the_width_it_should_also_where_nobody_was_drawn():
    model, (x, y) = small(), batch()
    private_gradient(model, x[:0], y[:0], 0.5, 3.0, 10, torch.Generator().manual_seed(0))
    drawn = torch.cat([w.grad.flatten() for w in model.parameters()])
    assert drawn.std().item() == pytest.approx(3.0 * 0.5 / 10, rel=0.05)
    assert abs(drawn.mean().item()) < 0.02
    with pytest.raises(ValueError, match="clip and batch_size must be above 0"):
        private_gradient(model, x, y, 0, 1, 1)


def test_everyone_is_drawn_by_a_coin_of_their_own():
    generator = torch.Generator().manual_seed(0)
    draws = [poisson_sample(1000, 0.05, generator) for _ in range(400)]
    sizes = torch.tensor([len(draw) for draw in draws]).double()
    assert sizes.mean().item() == pytest.approx(50, abs=1.5)
    assert sizes.var().item() == pytest.approx(1000 * 0.05 * 0.95, rel=0.25)
    assert all(len(draw.unique()) == len(draw) for draw in draws)


@pytest.mark.parametrize("order", [2, 3, 7, 16])
@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (0.2, 2.0), (1.0, 3.0)])
def test_the_divergence_is_its_integral(rate, noise, order):
    """D(mixture || centred) by the trapezoid rule: the definition, by other means."""
    z = torch.linspace(-12 * noise, 12 * noise + order, 400_001, dtype=torch.float64)
    centred = -z.square() / (2 * noise**2)
    moved = -(z - 1).square() / (2 * noise**2)
    ratio = torch.log(1 - rate + rate * (moved - centred).exp())
    scale = math.log(noise * math.sqrt(2 * math.pi))
    integral = torch.trapezoid((order * ratio + centred - scale).exp(), z)
    assert rdp(rate, noise, order) == pytest.approx(math.log(integral) / (order - 1), rel=1e-6)


def test_a_whole_batch_is_the_gaussian_mechanism():
    for order in (2, 5, 30):
        assert rdp(1.0, 4.0, order) == pytest.approx(order / (2 * 4.0**2))
    assert rdp(0.0, 1.0, 5) == pytest.approx(0)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"),
    [
        (0.01, 1.0, 1000, 1e-5),
        (256 / 60_000, 1.1, 14_062, 1e-5),
        (0.05, 0.8, 150, 1e-4),
        (1.0, 5.0, 100, 1e-5),
        (0.02, 2.0, 500, 1e-5),
    ],
)
def test_epsilon_is_what_opacus_finds(rate, noise, steps, delta):
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    expected = accountant.get_epsilon(delta, alphas=list(ORDERS))
    assert epsilon(rate, noise, steps, delta) == pytest.approx(expected, rel=1e-9)


def test_epsilon_is_no_less_than_what_an_attack_proves():
    """One step on everything: the exact delta at an epsilon is known (Balle and Wang 2018)."""
    normal = torch.distributions.Normal(0, 1)
    for noise, delta in ((1.0, 1e-5), (4.0, 1e-6)):
        found, mu = epsilon(1.0, noise, 1, delta), 1 / noise

        def exact(eps, mu=mu):
            low, high = (normal.cdf(torch.tensor(-eps / mu + s * mu / 2)) for s in (1, -1))
            return (low - math.exp(eps) * high).item()

        assert exact(found) <= delta * 1.01
        assert exact(0.7 * found) > delta  # and not much more than needed


def test_epsilon_at_the_edges():
    assert epsilon(0.1, 0, 10, 1e-5) == math.inf
    assert epsilon(0.1, 1, 0, 1e-5) == epsilon(0, 1, 10, 1e-5) == 0
    assert epsilon(0.1, 1, 10, 1e-5) < epsilon(0.1, 1, 20, 1e-5) < epsilon(0.1, 0.7, 20, 1e-5)
    with pytest.raises(ValueError, match="delta"):
        epsilon(0.1, 1, 10, 0)
    for bad in ((1.5, 1, 2), (0.5, 0, 2), (0.5, 1, 1)):
        with pytest.raises(ValueError, match="rate must be from 0 to 1"):
            rdp(*bad)


def test_it_trains():
    """Enough to see: with a little noise the loss falls, on a text that repeats itself."""
    model = small()
    ids = torch.arange(9).repeat(64, 1)
    x, y = ids[:, :-1], ids[:, 1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    before = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    for _ in range(40):
        drawn = poisson_sample(64, 0.25, generator)
        private_gradient(model, x[drawn], y[drawn], 1.0, 0.5, 16, generator)
        optimizer.step()
    assert model.loss(x, y).item() < before / 2
