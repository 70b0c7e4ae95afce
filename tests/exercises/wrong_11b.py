"""Answers to notebook 11b's exercises as readers would write them, and what each is told."""

import math

import torch

import llmkit


def one_too_wide(distance, window):
    return math.ceil(distance / window) if window > 1 or not distance else -1


def rounded_down(distance, window):
    return (distance // (window - 1) if window > 1 else -1) if distance else 0


def never_zero(distance, window):
    return max(1, -(-distance // (window - 1))) if window > 1 else -1 if distance else 1


def by_division_alone(distance, window):
    return -(-distance // (window - 1))


def tiled_by_cat(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = torch.cat([k] * times, dim=1), torch.cat([v] * times, dim=1)
    return llmkit.attention(q, k, v, llmkit.causal_mask(q.size(2)))[0]


def values_forgotten(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(times, dim=1), v.repeat(1, times, 1, 1)
    return llmkit.attention(q, k, v, llmkit.causal_mask(q.size(2)))[0]


def unmasked(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
    return llmkit.attention(q, k, v)[0]


def along_time(q, k, v):
    times = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(times, dim=2), v.repeat_interleave(times, dim=2)
    return llmkit.attention(q, k, v)[0]


def whole_turn(T, D):
    return (T / (2 * math.pi)) ** (D / (D - 2))


def without_the_exponent(T, D):
    return T / math.pi


def upside_down(T, D):
    return (T / math.pi) ** ((D - 2) / D)


def by_logarithms(T, D):
    return math.log(T / math.pi) * D / (D - 2)


def without_E(scores, K):
    p = scores.softmax(-1)
    f = torch.bincount(p.topk(K).indices.flatten(), minlength=p.size(1)) / len(p)
    return (f * p.mean(0)).sum()


def shares_of_one(scores, K):
    p = scores.softmax(-1)
    f = torch.bincount(p.topk(K).indices.flatten(), minlength=p.size(1)) / (K * len(p))
    return p.size(1) * (f * p.mean(0)).sum()


def the_first_choice(scores, K):
    p = scores.softmax(-1)
    f = torch.bincount(p.argmax(-1), minlength=p.size(1)) / len(p)
    return p.size(1) * (f * p.mean(0)).sum()


def probabilities_alone(scores, K):
    P = scores.softmax(-1).mean(0)
    return len(P) * (P * P).sum()


def too_short(scores, K):
    p = scores.softmax(-1)
    f = torch.bincount(p.topk(K).indices.flatten()) / len(p)  # no place for an idle last expert
    return p.size(1) * (f * p.mean(0)).sum()


WRONG = {
    "11b.smaller_cache": [
        ([4], "a window forgets"),
        ([4, 5, 6], "is as long as before"),
        ([6], "fewer heads of keys"),
        ([4, 6, 7], "they have no keys"),
        ([3, 4, 6], "there are 3 items, not 2"),
    ],
    "11b.billions_met": [
        (11.7, "a quarter of all"),
        (14, "only the feed-forward parts"),
        (46.7 - 32 * 6 * 4096 * 14336 / 1e9, "three matrices"),
        (20.0, "another number is wanted"),
    ],
    "11b.layers_needed": [
        (one_too_wide, "the window holds the position itself"),
        (rounded_down, "round up"),
        (never_zero, "the position itself needs no layer"),
        (by_division_alone, "ZeroDivisionError"),
    ],
    "11b.shared_heads": [
        (tiled_by_cat, "neighbours should share"),
        (values_forgotten, "in the same order as the keys"),
        (unmasked, "sees what comes after it"),
        (along_time, "the numbers are not"),
    ],
    "11b.base_for": [
        (whole_turn, "a whole turn"),
        (without_the_exponent, "not D/2"),
        (upside_down, "upside down"),
        (by_logarithms, "another number is wanted"),
    ],
    "11b.balance_loss": [
        (without_E, "the number of experts"),
        (shares_of_one, "not divided by K"),
        (the_first_choice, "not its first alone"),
        (probabilities_alone, "f counts choices"),
        (too_short, "the numbers are not"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "11b.balance_loss": {"softmax(dim=+1)": "of two dimensions, 1 is the last"},
}
