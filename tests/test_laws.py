"""`scale.laws`: made-up runs of a known law, scipy, sums by hand; how often an interval holds."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch

from llmkit.scale import laws

# As the small models of notebook 10c have it: four sizes, four lengths.
TRUE = laws.Law(1.2, 30.0, 0.45, 400.0, 0.5)
N = np.repeat([7e3, 15e3, 27e3, 58e3], 4)
D = np.tile([5e4, 1e5, 2e5, 4e5], 4)
NOISE = 0.01  # nats


def made_up(seed=0, noise=NOISE, law=TRUE):
    accidents = np.random.default_rng(seed).standard_normal(len(N))
    return law(N, D) + noise * accidents


def test_a_law_by_hand():
    law = laws.Law(1.0, 100.0, 0.5, 8.0, 1 / 3)
    assert law(10_000, 1_000) == pytest.approx(1 + 100 / 100 + 8 / 10)
    assert law(np.array([10_000.0, 1e6]), 1_000.0) == pytest.approx([2.8, 1.9])


@pytest.mark.parametrize("law", [TRUE, laws.Law(1.69, 406.4, 0.34, 410.7, 0.28)])
def test_the_best_size_is_the_best_of_all_that_cost_the_same(law):
    flops = 1e13
    best_N, best_D = law.best_size(flops)
    assert 6 * best_N * best_D == pytest.approx(flops)
    sizes = np.geomspace(best_N / 100, best_N * 100, 20_001)
    losses = law(sizes, flops / 6 / sizes)
    assert sizes[losses.argmin()] == pytest.approx(best_N, rel=1e-3)


def test_runs_without_noise_give_their_law_back():
    found = laws.fit(N, D, TRUE(N, D), replays=20)
    assert astuple(found.law) == pytest.approx(astuple(TRUE), rel=1e-3)
    assert found.scatter < 1e-6
    low, expected, high = found.predict(1e6, 1e7)
    assert high - low < 1e-4
    assert expected == pytest.approx(TRUE(1e6, 1e7), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_worse_than_scipy(seed):
    """curve_fit, started at the truth, which we are not told."""
    optimize = pytest.importorskip("scipy.optimize")  # comes with libraries of requirements-dev.txt
    losses = made_up(seed)

    def law(runs, *numbers):
        return laws.Law(*numbers)(*runs)

    theirs, _ = optimize.curve_fit(law, (N, D), losses, p0=astuple(TRUE), bounds=(0, np.inf))
    found = laws.fit(N, D, losses, replays=20)
    ours, peer = (((losses - each(N, D)) ** 2).sum() for each in (found.law, laws.Law(*theirs)))
    assert ours < peer * 1.0001
    assert found.law(1e5, 1e6) == pytest.approx(laws.Law(*theirs)(1e5, 1e6), abs=2e-3)
    assert found.scatter == pytest.approx(math.sqrt(ours / (len(N) - 5)))


def test_an_interval_holds_what_it_should_as_often_as_it_says():
    """120 experiments made up of the same law: each predicts a run four times as long and nearly
    twice as large, which is then made up as well."""
    held, sizes, exponents, draws = 0, 0, 0, 120
    new_N, new_D = 1e5, 1.6e6
    for seed in range(draws):
        found = laws.fit(N, D, made_up(seed), replays=100, seed=seed)
        loss = TRUE(new_N, new_D) + NOISE * np.random.default_rng(10_000 + seed).standard_normal()
        low, expected, high = found.predict(new_N, new_D)
        assert low < expected < high
        held += low < loss < high
        low, _, high = found.best_size(6e11)
        sizes += low < TRUE.best_size(6e11)[0] < high
        low, _, high = found.exponents()["beta"]
        exponents += low < TRUE.beta < high
    # Of 120 coins that fall on one side in 90 %, the share lies within 83 and 97 % nearly always.
    assert 0.83 < held / draws < 0.97, held / draws
    assert 0.83 < sizes / draws < 0.97, sizes / draws
    assert 0.83 < exponents / draws < 0.97, exponents / draws


def test_an_interval_is_wider_far_away_and_at_a_higher_level():
    found = laws.fit(N, D, made_up(1))

    def width(*args, **settings):
        low, _, high = found.predict(*args, **settings)
        return high - low

    assert width(3e4, 2e5) < width(3e5, 4e6) < width(3e7, 4e9)
    assert width(3e4, 2e5, level=0.5) < width(3e4, 2e5) < width(3e4, 2e5, level=0.99)
    assert width(3e4, 2e5) > 2 * found.scatter  # a single run scatters too


def test_the_same_runs_give_the_same_interval_in_any_order():
    one = laws.fit(N, D, made_up(2))
    assert one.predict(1e5, 1e6) == laws.fit(N, D, made_up(2)).predict(1e5, 1e6)
    order = np.random.default_rng(0).permutation(len(N))
    other = laws.fit(list(N[order]), torch.tensor(D[order]), made_up(2)[order])
    assert other.law(1e5, 1e6) == pytest.approx(one.law(1e5, 1e6), abs=1e-5)


def test_much_noise_is_told_by_a_wide_interval_and_not_by_an_error():
    found = laws.fit(N, D, made_up(3, noise=0.1))
    low, expected, high = found.predict(1e5, 1.6e6)
    assert high - low > 0.2
    assert all(math.isfinite(number) for number in (low, expected, high))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(N=N[:5]), "one number for each run, not 5, 16 and 16"),
        (dict(N=N[:6], D=D[:6], losses=made_up()[:6]), "at least 7 runs.*these are 6"),
        (dict(N=np.full(16, 1e4)), "three sizes N and three lengths D or more.*of 1 and 4"),
        (dict(D=-D), "D must be a row of positive numbers"),
        (dict(losses=made_up() * math.nan), "losses must be a row of positive numbers"),
        (dict(losses="abc"), "losses must be a row of positive numbers, not 'abc'"),
        (dict(losses=[[1.0]]), "losses must be a row of positive numbers"),
        (dict(N=None), "N must be a row of positive numbers, not None"),
        (dict(losses=5 - made_up()), "do not fall as N and D grow"),
        (dict(replays=3), "replays must be at least 20"),
        (dict(seed=-1), "seed must be at least 0"),
    ],
)
def test_what_is_no_set_of_runs_is_told(change, told):
    with pytest.raises(ValueError, match=told):
        laws.fit(**dict(N=N, D=D, losses=made_up()) | change)


def test_questions_that_have_no_answer():
    found = laws.fit(N, D, made_up(), replays=20)
    for call, told in (
        (lambda: found.predict(0, 1e5), "N must be above 0"),
        (lambda: found.predict(1e5, math.inf), "D must be above 0"),
        (lambda: found.predict(1e5, 1e5, level=1), "level must be above 0 and below 1"),
        (lambda: found.best_size(0), "flops must be above 0"),
        (lambda: found.exponents(level=0), "level must be above 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
