"""Shares and their intervals, several tries, against counting."""

from itertools import combinations

import numpy as np
import pytest

from llmkit.projects import shares


def test_the_interval_is_wilson_s():
    """Its ends are where the share is 1.96 standard errors away, those of the end itself."""
    for right, n in ((3, 10), (60, 600), (1, 5)):
        for end in shares.interval(right, n):
            assert abs(right / n - end) == pytest.approx(1.96 * (end * (1 - end) / n) ** 0.5)
    assert shares.interval(0, 20)[0] == 0
    assert shares.interval(20, 20)[1] == pytest.approx(1)


def test_the_interval_holds_the_truth_in_95_of_100_samples():
    drawn = np.random.default_rng(0).binomial(200, 0.1, size=2000)
    held = [low <= 0.1 <= high for low, high in (shares.interval(int(r), 200) for r in drawn)]
    assert 0.93 < np.mean(held) < 0.97


@pytest.mark.parametrize("right_of_n", [(-1, 3), (4, 3), (0, 0)])
def test_no_share(right_of_n):
    with pytest.raises(ValueError, match="from 0 to n"):
        shares.interval(*right_of_n)


def test_pass_at_k_counts_the_draws_that_hold_a_right_one():
    for n, right, k in ((1, 0, 1), (1, 1, 1), (10, 3, 1), (10, 3, 5), (6, 5, 2), (6, 0, 6)):
        draws = list(combinations(range(n), k))
        good = sum(min(draw) < right for draw in draws) / len(draws)
        assert shares.pass_at_k(n, right, k) == pytest.approx(good)
    for wrong in ((3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)):
        with pytest.raises(ValueError, match="cannot be"):
            shares.pass_at_k(*wrong)


def test_the_bars_show_shares_in_percent_with_their_intervals():
    picture = shares.bars(["a", "b"], [1, 30], [10, 60], "A title", xlabel="right (%)")
    axes = picture.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 50])
    ends = [line.get_segments()[0][:, 0] for line in axes.collections]
    for (low, high), (right, n) in zip(ends, ((1, 10), (30, 60)), strict=True):
        assert (low / 100, high / 100) == pytest.approx(shares.interval(right, n))
    assert repr(picture) == "<picture: A title>"
