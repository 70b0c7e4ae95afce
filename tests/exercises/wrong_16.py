"""Answers to notebook 16's exercises as readers would write them, and what each is told."""

import itertools
import math
import re

LN10 = math.log(10)


def folded(text, words):
    return any(word in text.casefold() for word in words)


def split(text, words):
    return any(word in text.lower().split() for word in words)


def small_letters(text, words):
    return any(re.search(rf"\b{word}\b", text) for word in words)


def unescaped(text, words):
    return any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in words)


def starts(text, words):
    return any(re.search(rf"\b{word}", text.lower()) for word in words)


def as_number(text):
    return int("".join(str(int(c, 36)) for c in text))


def minus_97(country, rest):
    return f"{97 - as_number(rest + country + '00') % 97:02d}"


def no_zero(country, rest):
    return str(98 - as_number(rest + country + "00") % 97)


def in_place(country, rest):
    return f"{98 - as_number(country + '00' + rest) % 97:02d}"


def a_number(country, rest):
    return 98 - as_number(rest + country + "00") % 97


def places(spans):
    return {i for start, stop in spans for i in range(start, stop)}


def turned(found, wanted):
    one, two = places(found), places(wanted)
    return len(one & two) / len(two) if two else 1.0, len(one & two) / len(one) if one else 1.0


def spans_alone(found, wanted):
    both = len(set(found) & set(wanted))
    return both / len(found) if found else 1.0, both / len(wanted) if wanted else 1.0


def last_included(found, wanted):
    return turned(
        [(start, stop + 1) for start, stop in wanted], [(start, stop + 1) for start, stop in found]
    )


def zero_for_nothing(found, wanted):
    one, two = places(found), places(wanted)
    return len(one & two) / max(1, len(one)), len(one & two) / max(1, len(two))


def totals(gaps):
    ways = itertools.product((1, -1), repeat=len(gaps))
    return [sum(s * g for s, g in zip(signs, gaps.tolist(), strict=True)) for signs in ways]


def one_sided(gaps):
    return sum(t >= gaps.sum().item() for t in totals(gaps)) / 2 ** len(gaps)


def strictly(gaps):
    return sum(abs(t) > abs(gaps.sum().item()) + 1e-6 for t in totals(gaps)) / 2 ** len(gaps)


def counted(gaps):
    return sum(abs(t) >= abs(gaps.sum().item()) - 1e-6 for t in totals(gaps))


def means_of_means(odds):
    return (odds[0].nanmean() - odds[1].nanmean()).item()


def second_less_first(odds):
    return (odds[1] - odds[0]).nanmean().item()


def with_zeros(odds):
    return (odds[0] - odds[1]).nan_to_num().mean().item()


def plain(odds):
    return (odds[0] - odds[1]).mean().item()


WRONG = {
    "16.blank_odds": [
        ((0.0, 0.0, 0.0), "not one without a preference"),
        ((LN10, 2 * LN10, 0.0), "turn the sign"),
        ((-1.0, -2.0, 0.0), "not log10"),
        ((-LN10, -LN10, 0.0), "another number is wanted"),
    ],
    "16.repaired": [
        (folded, "it still stops longer words"),
        (split, "split() leaves the comma"),
        (small_letters, "another result is wanted"),
        (starts, "another result is wanted"),
        (unescaped, "hellish eggs, or an egg"),
    ],
    "16.check_digits": [
        (minus_97, "98 less the remainder"),
        (no_zero, "always two digits"),
        (in_place, "go behind the rest"),
        (a_number, "another result is wanted"),
    ],
    "16.precision_recall": [
        (turned, "precision is divided by what was found"),
        (spans_alone, "half a number found is half found"),
        (last_included, "another number is wanted"),
        (zero_for_nothing, "another number is wanted"),
    ],
    "16.sign_flip_p": [
        (one_sided, "as far on the other side counts too"),
        (strictly, "or p could be 0"),
        (counted, "another number is wanted"),
    ],
    "16.paired_gap": [
        (means_of_means, "that compares templates too"),
        (second_less_first, "row 0 less row 1"),
        (with_zeros, "another number is wanted"),
        (plain, "leave those templates out"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "16.sign_flip_p": {
        "means > means": "nothing lies just the small number below the mean",
        "means[-1]": "all signs flipped, the mean is as far from 0",
    },
}
