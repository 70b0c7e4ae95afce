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


def read(step, gpt, ids, kept):
    return torch.stack([step(gpt, ids[i : i + 1], kept)[0] for i in range(len(ids))])


def the_same_bits(step, gpt, ids):
    return bool((read(step, gpt, ids, [([], []) for _ in gpt.h]) == gpt(ids[None])[0]).all())


def one_pair(step, gpt, ids):
    kept = [([], [])] * gpt.config.n_layer
    return torch.allclose(read(step, gpt, ids, kept), gpt(ids[None])[0])


def only_the_last(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return torch.allclose(scores[-1], gpt(ids[None])[0, -1])


def only_the_first(step, gpt, ids):
    scores = read(step, gpt, ids[:1], [([], []) for _ in gpt.h])
    return torch.allclose(scores[0], gpt(ids[None, :1])[0, 0])


def same_choice(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return scores.argmax(-1).tolist() == gpt(ids[None]).argmax(-1)[0].tolist()


def generous(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return (scores - gpt(ids[None])[0]).abs().max().item() < 0.05


def greedy(model, ids, new, width):
    total = 0.0
    for _ in range(new):
        log_p = model(ids[None])[0, -1].log_softmax(-1)
        total -= log_p.max().item()
        ids = torch.cat([ids, log_p.argmax()[None]])
    return ids, total


def beams(normalise, largest, together):
    def beam_search(model, ids, new, width):
        kept, totals = ids[None], torch.zeros(1)
        for _ in range(new):
            surprise = -normalise(model(kept)[:, -1])
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
    "08.cache_size": [
        ((18_874_368, 834), "values are kept as well as keys"),
        ((75_497_472, 208), "two bytes here, not four"),
        ((37_748_736, 423), "the weights are on the GPU too"),
        ((37_748_736, 417.29), "417 whole texts fit"),
        (37_748_736, "a tuple is wanted, not an int"),
    ],
    "08.cache_is_exact": [
        (the_same_bits, "cache_is_exact(a right step"),
        (one_pair, "each layer needs lists of its own"),
        (only_the_last, "not only after the last"),
        (only_the_first, "a step that puts each token at position 0"),
        (same_choice, "the likeliest token may be right"),
        (generous, "make the tolerance smaller"),
        (lambda step, gpt, ids: True, "that accepts everything"),
    ],
    "08.beam_search": [
        (greedy, "that is greedy"),
        (beams(as_they_are, False, True), "no logarithms of probabilities yet"),
        (beams(log_p, True, True), "that keeps the least likely"),
        (beams(log_p, False, False), "item 1: another number is wanted"),
        (all_texts, "a tuple is wanted, not a Tensor"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "08.draw": {"dim=-0": "p has one dimension, the first and the last"},
    "08.cache_is_exact": {"gpt(ids[None])[-1]": "a batch of one row: its first is its last"},
    "08.beam_search": {
        "dim=+1": "the scores are (B, V): 1 is the last dimension",
        "logits.size(+1)": "likewise",
    },
}
