"""Answers to notebook 15's exercises as readers would write them, and what each is told."""

import math


def still_e(log_p, secret):
    return math.log(len(log_p)) - math.log((log_p >= log_p[secret]).sum().item())


def still_strict(log_p, secret):
    return math.log2(len(log_p)) - math.log2((log_p > log_p[secret]).sum().item() + 1)


def twice(log_p, secret):
    return math.log2(len(log_p)) - math.log2((log_p >= log_p[secret]).sum().item() + 1)


def without_itself(log_p, secret):
    return math.log2(len(log_p)) - math.log2((log_p > log_p[secret]).sum().item())


def flipped(members, others):
    return 1 - without_ties(members, others)


def strangers_lower(members, others):
    ties = (members[:, None] == others).double()
    return ((members[:, None] > others).double() + 0.5 * ties).mean().item()


def without_ties(members, others):
    return (members[:, None] < others).double().mean().item()


def full_ties(members, others):
    return (members[:, None] <= others).double().mean().item()


def pairs_only(members, others):
    ties = (members[:, None] == others).double()
    return ((members[:, None] < others).double() + 0.5 * ties).sum().item()


def characters(a, b):
    return len(set(a) & set(b)) / len(set(a) | set(b))


def pieces(text):
    return {text[i : i + 5] for i in range(len(text) - 4)}


def contained(a, b):
    smaller = min(len(pieces(a)), len(pieces(b)))
    return len(pieces(a) & pieces(b)) / smaller if smaller else 0.0


def last_piece_lost(a, b):
    one, two = ({text[i : i + 5] for i in range(len(text) - 5)} for text in (a, b))
    return len(one & two) / len(one | two) if one | two else 0.0


def divides_by_zero(a, b):
    return len(pieces(a) & pieces(b)) / len(pieces(a) | pieces(b))


def of_the_sum(gradients, clip, expected):
    total = gradients.sum(dim=0)
    return total * min(1, clip / max(total.norm().item(), 1e-12)) / expected


def by_number(gradients, clip, expected):
    return gradients.clamp(-clip, clip).sum(dim=0) / expected


def always_to_clip(gradients, clip, expected):
    length = gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (gradients * clip / length).sum(dim=0) / expected


def mean_of_drawn(gradients, clip, expected):
    length = gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (gradients * (clip / length).clamp(max=1)).sum(dim=0) / max(1, len(gradients))


def nan_at_zero(gradients, clip, expected):
    length = gradients.norm(dim=1, keepdim=True)
    return (gradients / length * length.clamp(max=clip)).sum(dim=0) / expected


WRONG = {
    "15.exposures": [
        ((math.log2(10_000), 10), "six digits make a million codes"),
        ((6, 10), "the logarithm is to base 2"),
        ((math.log2(10**6), 1024), "divide 10,000 by it"),
        ((19.93, 1), "another number is wanted"),
    ],
    "15.repaired": [
        (still_e, "the logarithm is the natural one still"),
        (still_strict, "equally likely candidates"),
        (twice, "the secret is counted twice"),
        (without_itself, "it raised ValueError"),
    ],
    "15.auc": [
        (flipped, "another number is wanted"),
        (strangers_lower, "a member has the *smaller* loss"),
        (without_ties, "a tie counts ½, not 0"),
        (full_ties, "a tie counts ½, not 1"),
        (pairs_only, "divide by how many there are"),
    ],
    "15.similarity": [
        (characters, "single characters are compared"),
        (contained, "divided by the smaller set"),
        (last_piece_lost, "another number is wanted"),
        (divides_by_zero, "it raised ZeroDivisionError"),
    ],
    "15.clipped_mean": [
        (of_the_sum, "the sum is clipped"),
        (by_number, "each number is clipped by itself"),
        (always_to_clip, "short gradients are made longer"),
        (mean_of_drawn, "divided by the number drawn"),
        (nan_at_zero, "the numbers are not"),
    ],
    "15.noise_for_one": [
        ((3.83, 2.85), "the smaller δ needs more noise"),
        ((2.85, 2.85), "the two are not the same"),
        ((5.0, 7.0), "compute it"),
        (2.85, "a tuple is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT: dict[str, dict[str, str]] = {}
