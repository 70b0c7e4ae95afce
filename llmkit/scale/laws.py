"""Scaling laws: the loss of a run before it is made, from the losses of smaller ones.

A `Law` says what N parameters that have read D tokens lose. `fit` finds one from runs, and how
uncertain it is: it replays the whole experiment, many times, with other accidents. What a run costs
is told in `cost`; how the runs must be made for a law to hold of them, in notebook 10c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmkit.arguments import check_number, shown

FEWEST = 7  # runs: five numbers are fitted, and something must be left to see the scatter by
EXPONENTS = np.geomspace(0.05, 2.5, 24)  # where the search begins
ROUNDS = 80  # steps downhill from there
# What the numbers may be, as logarithms, with N and D in units near the runs' own: E, A, B within
# 1e-6 and 1,000 nats, the exponents within 0.01 and 5.
BOUNDS = np.log([[1e-6] * 3 + [0.01] * 2, [1e3] * 3 + [5.0] * 2])


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats per token (Hoffmann et al. 2022, section 3.3).

    Attributes:
        E: what no model and no amount of text brings down, the irreducible loss.
        A, alpha: what a model of N parameters lacks for its size.
        B, beta: what it lacks for having read D tokens only.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def __call__(self, N: Any, D: Any) -> Any:
        """The loss of N parameters that have read D tokens; numbers, or arrays of one shape."""
        return self.E + self.A * N**-self.alpha + self.B * D**-self.beta

    def best_size(self, flops: float) -> tuple[float, float]:
        """N and D with the lowest loss of all that cost so many FLOPs, 6 N D.

        There one more percent of N would bring as much as one more percent of D: alpha A / N^alpha
        = beta B / D^beta (Hoffmann et al. 2022, section 3.3).
        """
        check_number("flops", flops, above=0)
        ratio = self.alpha * self.A / (self.beta * self.B)
        with np.errstate(over="ignore"):  # of a law that hardly needs the one or the other
            N = (ratio * (flops / 6) ** self.beta) ** (1 / (self.alpha + self.beta))
        return float(N), float(flops / 6 / N)


@dataclass(frozen=True)
class Fit:
    """A law found from runs, and how well it is known.

    Attributes:
        law: the one with the least squared residuals.
        scatter: the usual size of a residual, nats: the root of their squares' sum over (runs - 5).
        replays: the laws that were found when the experiment was replayed, each with its scatter.
    """

    law: Law
    scatter: float
    replays: list[tuple[Law, float]]

    def predict(self, N: float, D: float, level: float = 0.9) -> tuple[float, float, float]:
        """The loss of one more run: (low, expected, high), which hold it in `level` of all cases.

        Each replay has predicted such a run as well, and there we know by how much it was wrong, in
        units of the scatter that it saw. The same share of these errors is laid about our
        prediction, in units of our scatter: a bootstrap-t (Efron & Tibshirani 1993, chapter 12).
        So the interval is wider far from the runs, and where they are few.
        """
        check_number("N", N, above=0)
        check_number("D", D, above=0)
        check_number("level", level, above=0, below=1)
        expected = float(self.law(N, D))
        accidents = np.random.default_rng(1).standard_normal(len(self.replays))
        made = expected + self.scatter * accidents  # what such a run comes to in each replay
        errors = [
            (loss - law(N, D)) / max(scatter, 1e-12)
            for loss, (law, scatter) in zip(made, self.replays, strict=True)
        ]
        low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
        return expected + self.scatter * float(low), expected, expected + self.scatter * float(high)

    def best_size(self, flops: float, level: float = 0.9) -> tuple[float, float, float]:
        """The best N for so many FLOPs: (low, expected, high), with `level` of the replays'."""
        check_number("level", level, above=0, below=1)
        found = [law.best_size(flops)[0] for law, _ in self.replays]
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
        return float(low), self.law.best_size(flops)[0], float(high)

    def exponents(self, level: float = 0.9) -> dict[str, tuple[float, float, float]]:
        """alpha and beta: (low, found, high), with `level` of the replays'."""
        check_number("level", level, above=0, below=1)
        told = {}
        for name in ("alpha", "beta"):
            values = [getattr(law, name) for law, _ in self.replays]
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
            told[name] = (float(low), float(getattr(self.law, name)), float(high))
        return told


def fit(N: Any, D: Any, losses: Any, replays: int = 400, seed: int = 0) -> Fit:
    """The law of some runs, by least squares, and how uncertain it is.

    Args:
        N, D, losses: (n,) each, of at least seven runs: parameters, tokens read, nats per token.
            Runs that differ in their seed alone are one run, with their mean: their scatter tells
            of chance, but nothing of where the law itself is wrong.
        replays: how often the experiment is replayed (a parametric bootstrap, Efron 1979): the
            losses that the law found gives, each with a new accident of the residuals' size, and
            the law that these lead to. (To leave out and double runs, the other bootstrap, would
            often leave too few sizes to tell a curve from.)
        seed: of the replays.

    ValueError where the arrays do not fit together, hold no positive finite numbers, have fewer
    than three sizes or lengths, or where the losses do not fall as N and D grow.
    """
    check_number("replays", replays, int, least=20)
    check_number("seed", seed, int, least=0)
    sizes, lengths, targets = (
        _column(name, values) for name, values in (("N", N), ("D", D), ("losses", losses))
    )
    if not len(sizes) == len(lengths) == len(targets):
        raise ValueError(
            f"N, D and losses must have one number for each run, not {len(sizes)}, {len(lengths)} "
            f"and {len(targets)}"
        )
    if len(targets) < FEWEST or min(len(set(sizes)), len(set(lengths))) < 3:
        raise ValueError(
            f"a law takes at least {FEWEST} runs, of three sizes N and three lengths D or more: "
            f"these are {len(targets)}, of {len(set(sizes))} and {len(set(lengths))}"
        )
    units = np.exp([np.log(sizes).mean(), np.log(lengths).mean()])  # so that numbers are near 1
    x = np.log(np.stack([sizes, lengths])) - np.log(units)[:, None]  # (2, n)
    [found], [scatter] = _least_squares(x, targets[None])
    noise = np.random.default_rng(seed).standard_normal((replays, len(targets)))
    again = _curve(x, found[None])[0] + scatter * noise
    pairs = zip(*_least_squares(x, again, near=found), strict=True)
    told = [(_law(theta, units), float(spread)) for theta, spread in pairs]
    return Fit(_law(found, units), float(scatter), told)


def _column(name: str, values: Any) -> np.ndarray:
    """The values as positive numbers (n,)."""
    try:
        column = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        column = np.empty((0, 0))
    if column.ndim != 1 or not (np.isfinite(column) & (column > 0)).all():
        raise ValueError(f"{name} must be a row of positive numbers, not {shown(values)}")
    return column


def _law(theta: np.ndarray, units: np.ndarray) -> Law:
    """A law of logarithms (5,): of E, of A and B for N and D in these units, of both exponents."""
    E, a, b, alpha, beta = map(float, np.exp(theta))
    return Law(E, float(a * units[0] ** alpha), alpha, float(b * units[1] ** beta), beta)


def _curve(x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (S, n) of S laws theta (S, 5), and their slopes (S, n, 5) along each of the five."""
    E, a, b, alpha, beta = np.exp(theta).T[:, :, None]  # (S, 1) each
    size, length = a * np.exp(-alpha * x[0]), b * np.exp(-beta * x[1])  # (S, n) each
    ones = np.ones_like(size)
    slopes = [E * ones, size, length, -alpha * x[0] * size, -beta * x[1] * length]
    return E + size + length, np.stack(slopes, axis=-1)


def _least_squares(
    x: np.ndarray, losses: np.ndarray, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best five numbers (S, 5) for each of S sets of losses (S, n), and their scatter (S,).

    Levenberg's and Marquardt's way down from the best of a grid, and from `near` as well if given:
    the lower end counts. They are sought as logarithms, for none of them can be negative.
    """
    starts = [_from_grid(x, losses)]
    if near is not None:
        starts.append(np.broadcast_to(near, starts[0].shape))
    ends = [_downhill(x, losses, start) for start in starts]
    squares = np.stack([((losses - _curve(x, end)[0]) ** 2).sum(1) for end in ends])  # (starts, S)
    best = np.stack(ends)[squares.argmin(0), np.arange(len(losses))]
    return best, np.sqrt(squares.min(0) / (losses.shape[1] - 5))


def _from_grid(x: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The best start (S, 5) of a grid of exponents: with these given, the other three numbers are
    those of a linear problem, which has one solution. Only positive ones count."""
    alpha, beta = (g.ravel()[:, None] for g in np.meshgrid(EXPONENTS, EXPONENTS))  # (G, 1) each
    columns = [np.ones((len(alpha), x.shape[1])), np.exp(-alpha * x[0]), np.exp(-beta * x[1])]
    features = np.stack(columns, axis=-1)  # (G, n, 3)
    numbers = np.linalg.pinv(features) @ losses.T  # (G, 3, S)
    squares = ((features @ numbers - losses.T) ** 2).sum(1)  # (G, S)
    squares[(numbers <= 0).any(1)] = np.inf
    best = squares.argmin(0)
    if np.isinf(squares.min(0)).any():
        if len(losses) == 1:
            raise ValueError(
                "the losses do not fall as N and D grow, so there is no law to find in them: train "
                "each run to its end, with a learning rate that suits it"
            )
        # A replay of much noise: it starts flat, and goes where it can.
        numbers = np.maximum(numbers, 1e-3)
    chosen = numbers[best, :, np.arange(len(losses))]  # (S, 3)
    return np.log(np.concatenate([chosen, alpha[best], beta[best]], axis=1))


def _downhill(x: np.ndarray, losses: np.ndarray, start: np.ndarray) -> np.ndarray:
    """From each start (S, 5), steps to where the squares are least."""
    theta, damping = start.copy(), np.full(len(start), 1e-2)
    values, slopes = _curve(x, theta)
    squares = ((losses - values) ** 2).sum(1)
    for _ in range(ROUNDS):
        gram = slopes.mT @ slopes  # (S, 5, 5)
        damped = gram + damping[:, None, None] * (np.eye(5) * gram + 1e-9 * np.eye(5))
        step = np.linalg.solve(damped, slopes.mT @ (losses - values)[:, :, None])[:, :, 0]
        trial = np.clip(theta + np.clip(step, -1, 1), *BOUNDS)
        reached = ((losses - _curve(x, trial)[0]) ** 2).sum(1)
        better = reached < squares
        damping = np.where(better, damping / 4, damping * 4).clip(1e-9, 1e9)
        theta, squares = np.where(better[:, None], trial, theta), np.minimum(reached, squares)
        values, slopes = _curve(x, theta)
    return theta
