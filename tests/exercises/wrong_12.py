"""Answers to notebook 12's exercises as readers would write them, and what each is told."""

import torch


def without_a_factor(W, A, B, alpha):
    return W + B @ A


def alpha_alone(W, A, B, alpha):
    return W + alpha * (B @ A)


def wrong_size(W, A, B, alpha):
    return W + alpha / A.size(1) * (B @ A)


def the_other_order(W, A, B, alpha):
    return W + alpha / len(A) * (A @ B)


def not_squared(change, share):
    S = torch.linalg.svdvals(change)
    return int((S.cumsum(0) / S.sum() < share).sum()) + 1


def index(change, share):
    S = torch.linalg.svdvals(change) ** 2
    return int((S.cumsum(0) / S.sum() < share).sum())


def one_more(change, share):
    return index(change, share) + 2


def whole_rank(change, share):
    return int(torch.linalg.matrix_rank(change))


def one_fault_left(x, W, b, A, B, alpha):
    return (x @ W.T + b + x @ A.T @ B.T) * (alpha / A.size(0))


def other_fault_left(x, W, b, A, B, alpha):
    return x @ W.T + b + x @ A.T @ B.T * (alpha / A.size(1))


def turned(x, W, b, A, B, alpha):
    return x @ W.T + b + x @ A.T @ B.T * (A.size(0) / alpha)


def no_bias(x, W, b, A, B, alpha):
    return x @ W.T + x @ A.T @ B.T * (alpha / A.size(0))


def averaged(A1, B1, A2, B2):
    return (A1 + A2) / 2, (B1 + B2) / 2


def summed(A1, B1, A2, B2):
    return torch.cat([A1, A2]), torch.cat([B1, B2], dim=1)


def quartered(A1, B1, A2, B2):
    return torch.cat([A1, A2]) / 2, torch.cat([B1, B2], dim=1) / 2


def first_alone(A1, B1, A2, B2):
    return A1, B1 / 2


WRONG = {
    "12.adapter_parameters": [
        (294_912, "that is c_attn alone"),
        (98_304, "there are twelve"),
        (84_934_656, "the layers' own weights"),
    ],
    "12.alive": [
        (("A", "B", "", "AB"), "the other way round"),
        (("AB", "AB", "AB", "AB"), "through a zero matrix is zero"),
        (("B", "A", "AB", "AB"), "nothing ever moves"),
    ],
    "12.merged": [
        (without_a_factor, "the factor α/r is missing"),
        (alpha_alone, "divide α by the rank"),
        (wrong_size, "A's first size"),
        (the_other_order, "the shape is right, the numbers are not"),
    ],
    "12.pairs_needed": [
        (not_squared, "the squares of the singular values"),
        (index, "one too few"),
        (one_more, "one too many"),
        (whole_rank, "another number is wanted"),
    ],
    "12.repaired": [
        (one_fault_left, "W x + b is multiplied too"),
        (other_fault_left, "by the width of x"),
        (turned, "not the rank by α"),
        (no_bias, "the shape is right, the numbers are not"),
    ],
    "12.both": [
        (averaged, "has cross terms"),
        (summed, "take half of each"),
        (quartered, "that is a quarter"),
        (first_alone, "the shape is right, the numbers are not"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "12.pairs_needed": {"cumsum(-1)": "the singular values have one dimension, which is the last"},
    "12.both": {"torch.cat([B1, B2], dim=-1)": "of a matrix, dimension 1 is the last one"},
}
