"""Answers to notebook 03's exercises as readers would write them, and what each is told."""

import math
from itertools import pairwise

import torch


def to_probabilities(counts):
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def pairs_of(ids, V):
    return torch.bincount(ids[:-1] * V + ids[1:], minlength=V * V).reshape(V, V)


def every_row(counts, least):
    p = to_probabilities(counts.double())
    doubt = -torch.xlogy(p, p).sum(dim=1)
    return doubt.argmin().item(), doubt.argmax().item()


def by_the_largest(counts, least):
    largest = to_probabilities(counts.double()).max(dim=1).values
    rows = [i for i in range(len(counts)) if counts[i].sum() >= least]
    return max(rows, key=lambda i: largest[i]), min(rows, key=lambda i: largest[i])


def doubt_of_counts(counts, least):
    doubt = -(counts * counts.double().log().clamp(min=0)).sum(dim=1)
    rows = [i for i in range(len(counts)) if counts[i].sum() >= least]
    return min(rows, key=lambda i: doubt[i]), max(rows, key=lambda i: doubt[i])


def more_than_least(counts, least):
    p = to_probabilities(counts.double())
    doubt = -torch.xlogy(p, p).sum(dim=1)
    rows = [i for i in range(len(counts)) if counts[i].sum() > least]
    return min(rows, key=lambda i: doubt[i]), max(rows, key=lambda i: doubt[i])


def nan_doubt(counts, least):
    p = counts / counts.sum(dim=1, keepdim=True)
    doubt = -(p * p.log()).sum(dim=1)
    return doubt.argmin().item(), doubt.argmax().item()


def still_log2(table, ids):
    return -table[ids[:-1], ids[1:]].log2().mean().item()


def still_the_mean_first(table, ids):
    return -table[ids[:-1], ids[1:]].mean().log().item()


def order_and_mean(table, ids):
    return -table[ids[1:], ids[:-1]].log2().mean().item()


def positive_only(table, ids):
    return table[ids[:-1], ids[1:]].log().mean().item()


def whole_sum(table, ids):
    return sum(-math.log(table[a, b]) for a, b in pairwise(ids))


def turned_too_late(ids, V):
    before = to_probabilities(pairs_of(ids, V).double()).T
    return -before[ids[1:], ids[:-1]].log().mean().item()


def forwards(ids, V):
    table = to_probabilities(pairs_of(ids, V).double())
    return -table[ids[:-1], ids[1:]].log().mean().item()


def ids_not_turned(ids, V):
    before = to_probabilities(pairs_of(ids, V).double().T)
    return -before[ids[:-1], ids[1:]].log().mean().item()


def of_all_pairs(ids, V):
    p = pairs_of(ids, V).double() / (len(ids) - 1)
    return -torch.xlogy(p, p).sum().item()


def smoothed(ids, V):
    before = to_probabilities(pairs_of(ids, V).T + 0.1)
    return -before[ids[1:], ids[:-1]].log().mean().item()


def triples_in(train_ids, V, added=0.1):
    triples = (train_ids[:-2] * V + train_ids[1:-1]) * V + train_ids[2:]
    counts = torch.bincount(triples, minlength=V**3).reshape(V, V, V)
    return counts, (counts + added) / (counts + added).sum(dim=2, keepdim=True)


def on_training_text(train_ids, ids, V):
    return right_but(train_ids, train_ids, V)


def right_but(train_ids, ids, V, added=0.1, swap=False):
    counts, p = triples_in(train_ids, V, added)
    a, b, c = ids[:-2], ids[1:-1], ids[2:]
    unseen = (counts[a, b, c] == 0).float().mean().item()
    return -(p[b, a, c] if swap else p[a, b, c]).log().mean().item(), unseen


def smoothed_by_one(train_ids, ids, V):
    return right_but(train_ids, ids, V, added=1)


def middle_first(train_ids, ids, V):
    return right_but(train_ids, ids, V, swap=True)


def not_smoothed(train_ids, ids, V):
    return right_but(train_ids, ids, V, added=0)


def bigram_again(train_ids, ids, V):
    counts = pairs_of(train_ids, V)
    p = to_probabilities(counts + 0.1)
    unseen = (counts[ids[:-1], ids[1:]] == 0).float().mean().item()
    return -p[ids[:-1], ids[1:]].log().mean().item(), unseen


def share_first(train_ids, ids, V):
    return right_but(train_ids, ids, V)[::-1]


def loss_of(logits, ids):
    return -logits.log_softmax(dim=1)[ids[:-1], ids[1:]].mean().item()


def one_side(logits, ids, i, j, epsilon=1e-4):
    moved = logits.clone()
    moved[i, j] += epsilon
    return (loss_of(moved, ids) - loss_of(logits, ids)) / epsilon


def in_place(logits, ids, i, j, epsilon=1e-4):
    logits[i, j] += epsilon
    above = loss_of(logits, ids)
    logits[i, j] -= epsilon
    return (above - loss_of(logits, ids)) / (2 * epsilon)


def by_one_epsilon(logits, ids, i, j, epsilon=1e-4):
    move = torch.zeros_like(logits)
    move[i, j] = epsilon
    return (loss_of(logits + move, ids) - loss_of(logits - move, ids)) / epsilon


def same_table(logits, ids, i, j, epsilon=1e-4):
    above = below = logits
    above[i, j] += epsilon
    below[i, j] -= epsilon
    return (loss_of(above, ids) - loss_of(below, ids)) / (2 * epsilon)


def downhill(logits, ids, i, j, epsilon=1e-4):
    return -by_one_epsilon(logits, ids, i, j, epsilon) / 2


WRONG = {
    "03.smoothed": [
        ((2 / 3, 1 / 3, 0), "that is without smoothing"),
        ((3 / 3, 2 / 3, 1 / 3), "the row sums to more than one"),
        ((3 / 10, 2 / 10, 0), "item 2: another number is wanted"),
        ((3, 2, 1), "item 0: another number is wanted"),
        ((0.3, 0.2), "there are 2 items, not 3"),
    ],
    "03.surest": [
        (every_row, "a row of few counts only seems sure"),
        (by_the_largest, "the largest probability is not the whole row"),
        (doubt_of_counts, "divide each row by its sum first"),
        (more_than_least, "surest((3, 3)"),
        (nan_doubt, "another number is wanted"),
    ],
    "03.repaired": [
        (still_log2, "log2 gives bits"),
        (still_the_mean_first, "the logarithm comes after the mean"),
        (order_and_mean, "the wrong way round: first character, then second; and log2"),
        (positive_only, "the sign is missing"),
        (whole_sum, "divide by the number of pairs"),
    ],
    "03.backwards_loss": [
        (turned_too_late, "that is the loss forwards"),
        (forwards, "that is the loss forwards"),
        (ids_not_turned, "another number is wanted"),
        (of_all_pairs, "that is the loss of whole pairs"),
        (smoothed, "another number is wanted"),
    ],
    "03.two_characters": [
        (on_training_text, "it is measured on the training text"),
        (smoothed_by_one, "1 was added to each count"),
        (middle_first, "the two characters have changed places"),
        (not_smoothed, "item 0: another number is wanted"),
        (bigram_again, "another number is wanted"),
        (share_first, "another number is wanted"),
    ],
    "03.slope": [
        (one_side, "that is one side only"),
        (in_place, "it is half as large"),
        (by_one_epsilon, "it is twice as large"),
        (same_table, "the two losses are the same"),
        (downhill, "the sign is wrong"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "03.surest": {".mean(dim=1)": "all rows have V places, so their sums stand in the same order"},
    "03.backwards_loss": {"ids.flip(-1)": "ids have one dimension, the first and the last"},
}
