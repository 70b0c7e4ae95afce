"""Answers to notebook 18's exercises as readers would write them, and what each is told."""

import math


def no_end(nats, sentence):
    bits = nats / math.log(2)
    return bits, bits / len(sentence), bits / len(sentence.encode())


def in_nats(nats, sentence):
    return nats, nats / (len(sentence) + 1), nats / (len(sentence.encode()) + 1)


def by_characters(nats, sentence):
    bits = nats / math.log(2)
    return bits, bits / (len(sentence) + 1), bits / (len(sentence) + 1)


def no_prior(losses, priors):
    likely = [math.exp(-loss) for loss in losses]
    return [p / sum(likely) for p in likely]


def added(losses, priors):
    likely = [math.exp(-loss) + q for loss, q in zip(losses, priors, strict=True)]
    return [p / sum(likely) for p in likely]


def wrong_sign(losses, priors):
    likely = [math.exp(loss) * q for loss, q in zip(losses, priors, strict=True)]
    return [p / sum(likely) for p in likely]


def not_normalised(losses, priors):
    return [math.exp(-loss) * q for loss, q in zip(losses, priors, strict=True)]


def softmax(counts, alpha):
    weights = [math.exp(n / max(counts) * alpha) for n in counts]
    return [w / sum(weights) for w in weights]


def linear(counts, alpha):
    return [alpha * n / sum(alpha * m for m in counts) for n in counts]


def other_power(counts, alpha):
    weights = [n ** (1 / alpha) for n in counts]
    return [w / sum(weights) for w in weights]


def powers(counts, alpha):
    return [n**alpha for n in counts]


def whole_sum(one, other):
    nats = [-math.log(math.exp(-a) + math.exp(-b)) for a, b in zip(one, other, strict=True)]
    return sum(nats) / len(nats) / math.log(2)


def the_better(one, other):
    return sum(map(min, one, other)) / len(one) / math.log(2)


def nats(one, other):
    p = [(math.exp(-a) + math.exp(-b)) / 2 for a, b in zip(one, other, strict=True)]
    return -sum(map(math.log, p)) / len(p)


def geometric(one, other):
    return sum(a + b for a, b in zip(one, other, strict=True)) / 2 / len(one) / math.log(2)


WRONG = {
    "18.bytes_each": [
        ((3, 4, 1, 1), "those are characters"),
        ((3, 4, 2, 3), "takes two bytes"),
        ((6, 4, 2, 2), "beyond what two bytes hold"),
    ],
    "18.three_units": [
        (no_end, "the line end is predicted too"),
        (in_nats, "a bit is ln 2 of them"),
        (by_characters, "the third unit is per byte"),
    ],
    "18.posterior": [
        (no_prior, "the prior is left out"),
        (added, "do not add it"),
        (wrong_sign, "mind the sign"),
        (not_normalised, "divide by the sum"),
    ],
    "18.shares": [
        (softmax, "that is a softmax"),
        (linear, "changes no share"),
        (other_power, "makes the large ones larger"),
        (powers, "shares add up to 1"),
    ],
    "18.mixed": [
        (geometric, "the geometric mean of the probabilities"),
        (the_better, "nobody tells which"),
        (whole_sum, "half of each"),
        (nats, "those are nats"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "18.posterior": {"strict=False": "the lists are equally long in every case"},
    "18.mixed": {"strict=False": "the lists are equally long in every case"},
}
