"""How often something was right, and how sure that is: an interval for a share, several tries for
each task (pass@k), and a picture of shares with their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmkit.picture import COLOURS, Picture, row_axes, styled


def interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Between which shares the true one lies, for `right` of n: Wilson's interval (1927,
    https://doi.org/10.1080/01621459.1927.10502953), which holds in 95 of 100 samples (z = 1.96).

    ValueError for no n, or more right than n.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"give how many of n are right, from 0 to n, not {right} of {n}")
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_k(n: int, right: int, k: int) -> float:
    """Of n tries, `right` were right: the probability that k of them, drawn at random, hold a right
    one (Chen and others 2021, https://arxiv.org/abs/2107.03374).

    ValueError where k is not from 1 to n, or right not from 0 to n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"of {n} tries, {right} right and {k} drawn cannot be")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


@styled
def bars(labels: Sequence[str], right: Sequence[int], n: Sequence[int], title: str, *, xlabel: str):
    """A Picture: a bar for each share right[i] of n[i], in percent, with its 95 % interval."""
    picture: Picture
    picture, axes = row_axes(labels, title, 1.3 + 0.3 * len(labels), xlabel=xlabel)
    for row, (one, of) in enumerate(zip(right, n, strict=True)):
        share, (low, high) = 100 * one / of, interval(one, of)
        axes.barh(row, share, height=0.7, color=COLOURS[0])
        reach = [[share - 100 * low], [100 * high - share]]
        axes.errorbar(share, row, xerr=reach, color="#6E6E6E", lw=1.6, capsize=4)
        place = (100 * high, row)
        axes.annotate(f"{share:.0f}", place, (5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    return picture
