"""Answers to notebook 10c's exercises as readers would write them, and what each is told."""

import math

import numpy as np

from llmkit.scale import laws


def without_the_floor(law, N, D):
    _, A, alpha, B, beta = law
    return A / N**alpha + B / D**beta


def crossed(law, N, D):
    E, A, alpha, B, beta = law
    return E + A / D**alpha + B / N**beta


def growing(law, N, D):
    E, A, alpha, B, beta = law
    return E + A * N**alpha + B * D**beta


def by_the_logarithm(law, N, D):
    E, A, alpha, B, beta = law
    return E + A / (alpha * math.log(N)) + B / (beta * math.log(D))


def wrong_exponent(E, A, alpha, B, beta, flops):
    ratio = alpha * A / (beta * B)
    return ratio ** (1 / (alpha + beta)) * (flops / 6) ** (alpha / (alpha + beta))


def six_forgotten(E, A, alpha, B, beta, flops):
    return (alpha * A / (beta * B) * flops**beta) ** (1 / (alpha + beta))


def equal_terms(E, A, alpha, B, beta, flops):
    return (A / B * (flops / 6) ** beta) ** (1 / (alpha + beta))


def half_and_half(E, A, alpha, B, beta, flops):
    return math.sqrt(flops / 6)


def the_tokens(E, A, alpha, B, beta, flops):
    return laws.Law(E, A, alpha, B, beta).best_size(flops)[1]


def to_zero(D, losses, E, new_D):
    slope, height = np.polyfit(np.log(D), np.log(losses), 1)
    return float(np.exp(height + slope * np.log(new_D)))


def never_put_back(D, losses, E, new_D):
    slope, height = np.polyfit(np.log(D), np.log(np.array(losses) - E), 1)
    return float(np.exp(height + slope * np.log(new_D)))


def a_logarithm(D, losses, E, new_D):
    slope, height = np.polyfit(np.log(D), np.log(np.array(losses) - E), 1)
    return float(E + height + slope * np.log(new_D))


def straight(D, losses, E, new_D):
    slope, height = np.polyfit(np.log(D), np.array(losses), 1)
    return float(height + slope * np.log(new_D))


def all_new(D, U, R):
    return D


def worthless(D, U, R):
    return D if D < U else U


def first_reading_lost(D, U, R):
    return D if D <= U else U * R * (1 - math.exp(-(D / U - 1) / R))


def readings_for_repetitions(D, U, R):
    return D if D <= U else U + U * R * (1 - math.exp(-D / U / R))


def half_worth(D, U, R):
    return D if D <= U else U + (D - U) / 2


def life(law, target, served, sizes, price):
    E, A, alpha, B, beta = law
    found = {}
    for N in sizes:
        left = target - E - A / N**alpha
        if left > 0:
            found[N] = 6 * N * (B / left) ** (1 / beta) + price * N * served
    return min(found, key=found.get)


def training_alone(law, target, tokens_served, sizes):
    return life(law, target, tokens_served, sizes, 0)


def six_for_serving(law, target, tokens_served, sizes):
    return life(law, target, tokens_served, sizes, 6)


def smallest_that_can(law, target, tokens_served, sizes):
    E, A, alpha, _, _ = law
    return min(N for N in sizes if E + A / N**alpha < target)


def the_smallest(law, target, tokens_served, sizes):
    return min(sizes)


WRONG = {
    "10c.times_the_tokens": [
        (2, "only if the exponent were 1"),
        (4, "an exponent of 0.5"),
        (2**-0.28, "how far one doubling brings"),
        (100, "another number is wanted"),
    ],
    "10c.loss_of": [
        (without_the_floor, "the floor E is missing"),
        (crossed, "A and alpha belong to N"),
        (growing, "divide by the power"),
        (by_the_logarithm, "another number is wanted"),
    ],
    "10c.best_size": [
        (wrong_exponent, "beta / (alpha + beta)"),
        (six_forgotten, "divided by 6"),
        (equal_terms, "the slopes are equal, not the terms"),
        (half_and_half, "another number is wanted"),
        (the_tokens, "another number is wanted"),
    ],
    "10c.extrapolated": [
        (never_put_back, "never put back"),
        (a_logarithm, "a logarithm still"),
        (straight, "another number is wanted"),
        (lambda *answer: to_zero(*answer), "falls below any floor"),
    ],
    "10c.effective_tokens": [
        (all_new, "worth less than new ones"),
        (worthless, "worth something"),
        (first_reading_lost, "the first reading counts in full"),
        (readings_for_repetitions, "the first reading is no repetition"),
        (half_worth, "another number is wanted"),
    ],
    "10c.cheapest_size": [
        (training_alone, "what is served costs too"),
        (six_for_serving, "the forward pass alone"),
        (the_smallest, "another number is wanted"),
        (smallest_that_can, "training is left out"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "10c.effective_tokens": {"if D < U": "of a text that is read just once, both ways give U"},
}
