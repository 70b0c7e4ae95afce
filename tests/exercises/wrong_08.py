"""Answers to notebook 08's exercises as readers would write them, and what each is told."""

import numpy as np
import torch


def not_renormalised(p, m):
    return torch.where(p >= m * p.max(), p, torch.zeros(()))


def absolute(p, m):
    kept = p.clone()
    kept[kept < m] = 0
    return kept / kept.sum().clamp(min=1e-9)


def strictly(p, m):
    kept = p * (p / p.max() > m)
    return kept / kept.sum().clamp(min=1e-9)


def shorter(p, m):
    kept = p[p >= m * p.max()]
    return kept / kept.sum()


def first_above(p, u):
    for i, height in enumerate(p.cumsum(0)):
        if height > u:
            return i
    return len(p)


def last_at_worst(p, u):
    return min(first_above(p, u), len(p) - 1)


def searched_left(p, u):
    heights = p.cumsum(0)
    return torch.searchsorted(heights, u * heights[-1]).item()


def likeliest(p, u):
    return p.argmax()


def by_numpy(p, u):
    return np.random.default_rng(0).choice(len(p), p=(p / p.sum()).tolist())


def divided_by(p, temperature):
    shrunk = p / temperature
    return shrunk / shrunk.sum()


def softmax_of_p(p, temperature):
    return torch.softmax(p / temperature, dim=0)


def to_the_temperature(p, temperature):
    powers = p**temperature * (p > 0)
    return powers / powers.sum()


def not_summing(p, temperature):
    return torch.exp(p.log() / temperature)


def times_the_temperature(p, temperature):
    return torch.softmax(p.log() * temperature, dim=0)


def divides_all(scores, ids, penalty):
    lowered = scores.clone()
    lowered[ids] = lowered[ids] / penalty
    return lowered


def in_place(scores, ids, penalty):
    for i in ids.unique():
        scores[i] = scores[i] / penalty if scores[i] > 0 else scores[i] * penalty
    return scores


def each_time(scores, ids, penalty):
    lowered = scores.clone()
    for i in ids:
        lowered[i] = min(lowered[i] / penalty, lowered[i] * penalty)
    return lowered


def positive_only(scores, ids, penalty):
    lowered = scores.clone()
    for i in set(ids.tolist()):
        if scores[i] > 0:
            lowered[i] = scores[i] / penalty
    return lowered


def subtracts(scores, ids, penalty):
    lowered = scores.clone()
    lowered[ids.unique()] -= penalty
    return lowered


def greedy(model, ids, new, width):
    total = 0.0
    for _ in range(new):
        log_p = model(ids[None])[0, -1].log_softmax(-1)
        total -= log_p.max().item()
        ids = torch.cat([ids, log_p.argmax()[None]])
    return ids, total


def beams(normalise, largest, together, read=slice(None)):
    def beam_search(model, ids, new, width):
        kept, totals = ids[None], torch.zeros(1)
        for _ in range(new):
            surprise = -normalise(model(kept[:, read])[:, -1])
            if together:
                surprise = surprise + totals[:, None]
            V = surprise.size(1)
            best = surprise.flatten().topk(min(width, surprise.numel()), largest=largest)
            totals = best.values
            kept = torch.cat([kept[best.indices // V], best.indices[:, None] % V], dim=1)
        return kept[0], totals[0].item()

    return beam_search


def log_p(logits):
    return logits.log_softmax(-1)


def as_they_are(logits):
    return logits


def all_texts(model, ids, new, width):
    return beams(log_p, False, True)(model, ids, new, width)[0]


WRONG = {
    "08.by_hand": [
        (([0.414, 0.293, 0.293], [0.667, 0.333, 0]), "that is temperature 2"),
        (([0.25, 0.0625, 0.0625], [0.667, 0.333, 0]), "the squares must sum to one again"),
        (([0.67, 0.17, 0.17], [1, 0, 0]), "the next one is needed too"),
        (([0.667, 0.167, 0.167], [0.5, 0.25, 0]), "what is kept must sum to one again"),
        (([0.667, 0.167, 0.167], [0.667, 0.333]), "item 1: there are 2 items, not 3"),
    ],
    "08.min_p": [
        (not_renormalised, "what is kept must sum to one again"),
        (absolute, "not a probability"),
        (strictly, "at least means >="),
        (shorter, "the shape is (1,), not (2,)"),
    ],
    "08.draw": [
        (first_above, "no id of the vocabulary"),
        (last_at_worst, "the last id may have probability 0"),
        (searched_left, "draws an id of probability 0"),
        (likeliest, "that is greedy"),
        (by_numpy, "another number is wanted"),
    ],
    "08.change_temperature": [
        (divided_by, "made to sum to one, is p again"),
        (softmax_of_p, "softmax wants scores"),
        (to_the_temperature, "at 1/2 the ratios are squared"),
        (not_summing, "the powers must sum to one again"),
        (times_the_temperature, "the power is 1 / temperature"),
    ],
    "08.penalised": [
        (divides_all, "comes nearer to 0, and so rises: multiply it"),
        (in_place, "those that were given are changed"),
        (each_time, "however often a token was used"),
        (positive_only, "a negative score is to be lowered too"),
        (subtracts, "penalised((2,) [2.0, 1.0]"),
    ],
    "08.beam_search": [
        (greedy, "that is greedy"),
        (beams(as_they_are, False, True), "no logarithms of probabilities yet"),
        (beams(log_p, True, True), "that keeps the least likely"),
        (beams(log_p, False, False), "item 1: another number is wanted"),
        (beams(log_p, False, True, slice(-1, None)), "give it the whole text"),
        (all_texts, "a tuple is wanted, not a Tensor"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "08.change_temperature": {"dim=-0": "p has one dimension, the first and the last"},
    "08.draw": {"dim=-0": "p has one dimension, the first and the last"},
    "08.beam_search": {
        "dim=+1": "the scores are (B, V): 1 is the last dimension",
        "logits.size(+1)": "likewise",
    },
}
