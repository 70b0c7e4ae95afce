"""Answers to notebook 17's exercises as readers would write them, and what each is told."""

import math
import zlib

import torch


def with_putting_back(n, c, k):
    all_wrong = 1.0
    for _ in range(k):
        all_wrong *= (n - c) / n
    return 1 - all_wrong


def one_too_few(n, c, k):
    all_wrong = 1.0
    for drawn in range(1, k):
        all_wrong *= (n - c - drawn + 1) / (n - drawn + 1)
    return 1 - all_wrong


def by_combinations_of_right(n, c, k):
    return math.comb(c, k) / math.comb(n, k)


def sides(names, key, val_fraction):
    held = [zlib.crc32(key(name).encode()) < val_fraction * 2**32 for name in names]
    pairs = list(zip(names, held, strict=True))
    return [name for name, out in pairs if not out], [name for name, out in pairs if out]


def by_name(names, val_fraction):
    return sides(names, str, val_fraction)


def by_folder(names, val_fraction):
    return sides(names, lambda name: "/".join(name.split("/")[:-1]) or name, val_fraction)


def other_way(names, val_fraction):
    return sides(names, lambda name: name.split("/")[0], val_fraction)[::-1]


def sorted_names(names, val_fraction):
    train, val = sides(names, lambda name: name.split("/")[0], val_fraction)
    return sorted(train), sorted(val)


def in_the_order_given(ids, prefix, suffix, middle, end):
    return [token for token in ids if token < prefix]


def without_special(ids, prefix, suffix, middle, end):
    second, third = ids.index(suffix), ids.index(middle)
    gap = [token for token in ids[third + 1 :] if token != end]
    return ids[1:second] + gap + ids[second + 1 : third]


def always_an_end(ids, prefix, suffix, middle, end):
    second, third = ids.index(suffix), ids.index(middle)
    stop = ids.index(end) if end in ids else len(ids) - 1
    return ids[1:second] + ids[third + 1 : stop] + ids[second + 1 : third]


def sentinels_left(ids, prefix, suffix, middle, end):
    second, third = ids.index(suffix), ids.index(middle)
    stop = ids.index(end) if end in ids else len(ids)
    return ids[:second] + ids[third:stop] + ids[second:third]


def unsorted(doubts, right):
    return torch.cumsum(right, 0) / (1 + torch.arange(len(right)))


def by_all(doubts, right):
    return right[doubts.argsort()].cumsum(0) / len(doubts)


def surest_last(doubts, right):
    return right[(-doubts).argsort()].cumsum(0) / (1 + torch.arange(len(right)))


def best(scores, allowed):
    return max(allowed, key=lambda i: scores[i])


def as_usual(ids, tokens, scores):
    return ids, best(scores(ids), range(len(tokens)))


def stripped(ids, tokens, scores):
    return ids[:-1], best(scores(ids[:-1]), range(len(tokens)))


def two_back(ids, tokens, scores):
    allowed = [i for i, text in enumerate(tokens) if text.startswith(tokens[ids[-1]])]
    return ids[:-2], best(scores(ids[:-2]), allowed)


def scored_late(ids, tokens, scores):
    allowed = [i for i, text in enumerate(tokens) if text.startswith(tokens[ids[-1]])]
    return ids[:-1], best(scores(ids), allowed)


WRONG = {
    "17.tries_of_ten": [
        ((0.3, 0.51, 0.94), "none is drawn twice"),
        ((0.3, 0.6, 2.4), "the chances do not add up"),
        ((0.7, 0.467, 0), "the other way round"),
        ((0.3, 0.533), "there are 2 items, not 3"),
    ],
    "17.pass_at_k": [
        (with_putting_back, "a try is drawn once at most"),
        (one_too_few, "one draw too few"),
        (lambda n, c, k: k * c / n, "chances do not add up"),
        (by_combinations_of_right, "another number is wanted"),
    ],
    "17.by_package": [
        (by_name, "files of one package are on both sides"),
        (by_folder, "that is the whole folder"),
        (other_way, "the sides are swapped"),
        (sorted_names, "another result is wanted"),
    ],
    "17.filled_in": [
        (in_the_order_given, "another number is wanted"),
        (without_special, "what follows the end is no part of the file"),
        (always_an_end, "where the end is missing"),
        (sentinels_left, "there are 6 items, not 3"),
    ],
    "17.shown_and_right": [
        (unsorted, "sort by doubt"),
        (by_all, "divide by k, not by N"),
        (surest_last, "sort from low to high"),
    ],
    "17.healed": [
        (as_usual, "no token was taken back"),
        (stripped, "what was taken back must come again"),
        (two_back, "that took two tokens back"),
        (scored_late, "the scores are those after the whole prompt"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "17.by_package": {"<= val_fraction": "no checksum is exactly that"},
    "17.shown_and_right": {"cumsum(-1)": "the last dimension of one is dimension 0"},
}
