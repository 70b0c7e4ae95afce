"""Notebook 10c, how much for how much."""

from __future__ import annotations

import math
from typing import Any

from llmkit.exercises.examining import Exercise

Numbers = tuple[float, float, float, float, float]
HOFFMANN: Numbers = (1.69, 406.4, 0.34, 410.7, 0.28)  # E, A, alpha, B, beta
OURS: Numbers = (1.0, 20.0, 0.4, 300.0, 0.5)


def _extrapolated(floor: bool = True, up: bool = True, back: bool = True, line: bool = True) -> Any:
    """A line through the logarithms of what lies above the floor, and what is often made of it."""

    def extrapolated(D: list[float], losses: list[float], E: float, new_D: float) -> float:
        below = E if floor else 0.0
        x = [math.log(d) for d in D]
        y = [math.log(loss - below) for loss in losses]
        if not line:  # through the ends alone
            x, y = [x[0], x[-1]], [y[0], y[-1]]
        x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
        slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
        slope /= sum((a - x_mean) ** 2 for a in x)
        logarithm = y_mean + slope * (math.log(new_D) - x_mean)
        return (below if back else 0.0) + (math.exp(logarithm) if up else logarithm)

    return extrapolated


def _best_size(swapped: bool = False, six: bool = True, power: bool = True, ratio: bool = True):
    """The closed form of the best size, and what is often made of it."""

    def best_size(E: float, A: float, alpha: float, B: float, beta: float, flops: float) -> float:
        first = alpha * A / (beta * B) if ratio else A / B
        exponent = (alpha if swapped else beta) / (alpha + beta)
        budget = flops / 6 if six else flops
        return (first ** (1 / (alpha + beta)) if power else first) * budget**exponent

    return best_size


def _effective(first: bool = True, ends: bool = True, readings: bool = False) -> Any:
    """What repeated tokens are worth, and what is often made of it."""

    def effective_tokens(D: float, U: float, R: float) -> float:
        if D <= U and ends:
            return D
        repeated = D / U - (0 if readings else 1)
        return (U if first else 0) + U * R * (1 - math.exp(-repeated / R))

    return effective_tokens


def _cheapest(served: float = 2.0, trained: float = 6.0, reaches: bool = True) -> Any:
    """The cheapest of some sizes over its whole life, and what is often made of it."""

    def cheapest_size(
        law: Numbers, target: float, tokens_served: float, sizes: list[float]
    ) -> float:
        E, A, alpha, B, beta = law
        costs = {}
        for N in sizes:
            left = target - E - A / N**alpha  # what the tokens may still lack
            if left > 0:
                D = (B / left) ** (1 / beta)
                costs[N] = trained * N * D + served * N * tokens_served
            elif not reaches:
                costs[N] = 0.0
        return min(costs, key=costs.__getitem__)

    return cheapest_size


def _law(numbers: Numbers, N: float, D: float) -> float:
    E, A, alpha, B, beta = numbers
    return E + A / N**alpha + B / D**beta


EXTRAPOLATED = '''
def extrapolated(D: list, losses: list, E: float, new_D: float) -> float:
    """The loss after new_D tokens, by a straight line through the logarithms."""
    x, y = np.log(D), np.log(losses)
    slope, height = np.polyfit(x, y, 1)
    return float(np.exp(height + slope * np.log(new_D)))
'''
LENGTHS = [25_000.0, 50_000.0, 100_000.0, 200_000.0]
CURVE = [1.4 + 300 / D**0.5 for D in LENGTHS]
BENT = [3.2, 2.7, 2.45, 2.2]
FINE = [1e9 * 1.01**k for k in range(300)]
SIZES = [1e8, 2e8, 5e8, 1e9, 2e9, 5e9, 1e10, 2e10, 5e10, 1e11]

EXERCISES = [
    Exercise(
        "10c.times_the_tokens",
        reference=2 ** (1 / 0.28),
        checked="2 to the power 1 / 0.28 is 11.9",
        mistakes={
            "twice the text would halve it only if the exponent were 1": 2.0,
            "that would be an exponent of 0.5": 4.0,
            "that is how far one doubling brings the term down: 2 to the power -0.28": 2**-0.28,
            "upside down: how many times more is asked": 2 ** (-1 / 0.28),
        },
        hints=(
            "B / (x D)^0.28 shall be half of B / D^0.28.",
            "So x^0.28 = 2.",
            "x = 2 ** (1 / 0.28)",
        ),
        tolerance=0.05,
    ),
    Exercise(
        "10c.loss_of",
        reference=lambda law, N, D: _law(law, N, D),
        checked="a floor, a term for the size, a term for the text",
        cases=[
            ((1.0, 4.0, 0.5, 9.0, 0.5), 4.0, 9.0),
            (OURS, 30_000.0, 200_000.0),
            (HOFFMANN, 70e9, 1.4e12),
        ],
        mistakes={
            "the floor E is missing": lambda law, N, D: _law((0.0, *law[1:]), N, D),
            "A and alpha belong to N, B and beta to D": lambda law, N, D: _law(law, D, N),
            "the two terms add up; they are not multiplied": lambda law, N, D: (
                law[0] + law[1] / N ** law[2] * law[3] / D ** law[4]
            ),
            "more parameters bring the loss down: divide by the power": lambda law, N, D: (
                law[0] + law[1] * N ** law[2] + law[3] * D ** law[4]
            ),
        },
        hints=(
            "Unpack the five: E, A, alpha, B, beta = law.",
            "E + A / N**alpha + B / D**beta",
        ),
    ),
    Exercise(
        "10c.best_size",
        reference=_best_size(),
        checked="where one more percent of N brings as much as one more percent of D",
        cases=[
            (1.0, 1.0, 0.5, 1.0, 0.5, 6.0),
            (1.0, 1.0, 0.5, 1.0, 0.5, 600.0),
            (1.0, 2.0, 0.5, 1.0, 0.25, 600.0),
            (*OURS, 1e11),
            (*HOFFMANN, 5.76e23),
        ],
        mistakes={
            "the exponent of the budget is beta / (alpha + beta)": _best_size(swapped=True),
            "N D is the budget divided by 6": _best_size(six=False),
            "the ratio is taken to the power 1 / (alpha + beta)": _best_size(power=False),
            "the slopes are equal, not the terms: alpha and beta stand in the ratio": _best_size(
                ratio=False
            ),
        },
        hints=(
            "Put D = flops / (6 N) into the law and ask where its slope along log N is zero.",
            "alpha A / N**alpha = beta B / D**beta",
            "N**(alpha + beta) = alpha A / (beta B) * (flops / 6)**beta",
        ),
    ),
    Exercise(
        "10c.extrapolated",
        reference=_extrapolated(),
        checked="what lies above the floor falls in a straight line; the floor comes back on top",
        cases=[
            ([1.0, 100.0], [3.0, 2.1], 2.0, 10_000.0),
            (LENGTHS, CURVE, 1.4, 1_600_000.0),
            (LENGTHS, BENT, 1.5, 1_600_000.0),
        ],
        mistakes={
            "the floor E is not taken off: such a line falls below any floor": _extrapolated(
                floor=False
            ),
            "the floor is taken off and never put back": _extrapolated(back=False),
            "that is a logarithm still: exp": _extrapolated(up=False),
            "the line should go among all runs, not through the first and the last": _extrapolated(
                line=False
            ),
        },
        hints=(
            "Which part of the loss is a power of D? Not all of it.",
            "The line goes through log(loss - E).",
            "y = np.log(np.array(losses) - E), and E + np.exp(...) at the end.",
        ),
        stub=EXTRAPOLATED,
    ),
    Exercise(
        "10c.effective_tokens",
        reference=_effective(),
        checked="all of the first reading, and less and less of each later one",
        cases=[
            (50.0, 100.0, 15.0),
            (100.0, 100.0, 15.0),
            (200.0, 100.0, 15.0),
            (1_600.0, 100.0, 15.0),
            (1e6, 100.0, 5.0),
        ],
        mistakes={
            "where the text is not read to its end, each token is new": _effective(ends=False),
            "the first reading counts in full: U more": _effective(first=False),
            "the first reading is no repetition: D / U - 1": _effective(readings=True),
            "repeated tokens are worth less than new ones": lambda D, U, R: D,
            "repeated tokens are worth something": lambda D, U, R: min(D, U),
        },
        hints=(
            "Up to U tokens nothing is repeated: they count as they are.",
            "After that: the U new ones, and what D / U - 1 repetitions are worth.",
            "U + U * R * (1 - exp(-(D / U - 1) / R))",
        ),
    ),
    Exercise(
        "10c.cheapest_size",
        reference=_cheapest(),
        checked="the more is served, the smaller the model that is cheapest over its life",
        cases=[
            ((1.0, 1.0, 0.5, 1.0, 0.5), 2.5, 0.0, [1.0, 4.0, 16.0]),
            ((1.0, 1.0, 0.5, 1.0, 0.5), 1.9, 0.0, [1.0, 4.0, 16.0]),
            (HOFFMANN, 2.1, 0.0, SIZES),
            (HOFFMANN, 2.1, 3e12, SIZES),
            (HOFFMANN, 2.1, 3e13, SIZES),
            (HOFFMANN, 2.1, 3e12, FINE),
            ((1.0, 1.0, 0.5, 1.0, 0.5), 1.5, 0.0, [1.0, 4.0, 16.0]),
            (OURS, 1.5, 1e7, [3e4, 1e5, 3e5, 1e6, 3e6]),
        ],
        mistakes={
            "what is served costs too: 2 N for each token": _cheapest(served=0),
            "training takes 6 N a token, and to serve one, the forward pass alone, 2 N": (
                _cheapest(served=6)
            ),
            "training is left out: 6 N for each token that is read": _cheapest(trained=0),
            "a model too small to reach the target at all is not cheap": _cheapest(reaches=False),
        },
        hints=(
            "How many tokens must N parameters read to reach the target? Solve the law for D.",
            "D = (B / (target - E - A / N**alpha))**(1 / beta), if that difference is above 0.",
            "Take the N with the least 6 N D + 2 N tokens_served.",
        ),
    ),
]
