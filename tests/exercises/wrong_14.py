"""Answers to notebook 14's exercises as readers would write them, and what each is told."""

import math

import torch


def by_group(weight, divisor=7.5, low=-8, high=7, size=32, half=True):
    groups = weight.reshape(-1, size)
    scale = groups.abs().amax(dim=1, keepdim=True) / divisor
    scale = scale.half().float() if half else scale
    scale = scale.clamp(min=1e-9)
    return ((groups / scale).round().clamp(low, high) * scale).reshape(weight.shape)


def only_the_bits(weight):
    return by_group(weight), 4


def full_scale(weight):
    return by_group(weight), 4 + 32 / 32


def with_eight(weight):
    return by_group(weight, high=8), 4.5


def by_row(weight):
    return by_group(weight, size=weight.size(1)), 4.5


def long_scale(weight):
    return by_group(weight, half=False), 4.5


def dividing_by_zero(weight):
    groups = weight.reshape(-1, 32)
    scale = (groups.abs().amax(dim=1, keepdim=True) / 7.5).half().float()
    return ((groups / scale).round().clamp(-8, 7) * scale).reshape(weight.shape), 4.5


def symmetric(weight):
    return by_group(weight, divisor=7, low=-7), 4.5


def padded(prompts, left):
    most = max(map(len, prompts))
    rows = [[0] * (most - len(p)) for p in prompts]
    pairs = zip(prompts, rows, strict=True)
    return torch.tensor([[*pad, *p.tolist()] if left else [*p.tolist(), *pad] for p, pad in pairs])


def cut(row, stop):
    row = row.tolist()
    return torch.tensor(row[: row.index(stop) + 1] if stop in row else row)


def greedy(model, ids, n):
    for _ in range(n):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def right_padding(model, prompts, n, stop):
    ids = padded(prompts, left=False)
    return [cut(row[ids.size(1) :], stop) for row in greedy(model, ids, n)]


def left_padding(model, prompts, n, stop):
    ids = padded(prompts, left=True)
    return [cut(row[ids.size(1) :], stop) for row in greedy(model, ids, n)]


def with_prompt(model, prompts, n, stop):
    return [
        torch.cat([prompt, cut(greedy(model, prompt[None], n)[0, len(prompt) :], stop)])
        for prompt in prompts
    ]


def never_ending(model, prompts, n, stop):
    return [greedy(model, prompt[None], n)[0, len(prompt) :] for prompt in prompts]


def one_stops_all(model, prompts, n, stop):
    rows = never_ending(model, prompts, n, stop)
    ends = [row.tolist().index(stop) + 1 for row in rows if stop in row]
    return [row[: min(ends, default=n)] for row in rows]


class NoCap:
    def __init__(self, rate, size, clock):
        self.rate, self.size, self.clock, self.state = rate, size, clock, {}

    def refill(self, gained, key, tokens):
        return tokens + gained

    def allow(self, key):
        now = self.clock()
        tokens, then = self.state.get(key, (self.size, now))
        tokens = self.refill((now - then) * self.rate, key, tokens)
        self.state[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens >= 1


class Whole(NoCap):
    def refill(self, gained, key, tokens):
        return min(self.size, tokens + int(gained))


class Shared(NoCap):
    def refill(self, gained, key, tokens):
        return min(self.size, tokens + gained)

    def allow(self, key):
        return super().allow("everybody")


class ForgetsRefusals(NoCap):
    """It counts the time from the last token that was taken, and adds it anew at each refusal."""

    def allow(self, key):
        now = self.clock()
        tokens, then = self.state.get(key, (self.size, now))
        tokens = min(self.size, tokens + (now - then) * self.rate)
        self.state[key] = (tokens - 1, now) if tokens >= 1 else (tokens, then)
        return tokens >= 1


def piecewise(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        if stop in piece:
            return text + piece[: piece.index(stop)], read
        text += piece
    return text, read


def losing(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        if stop in text + piece:
            break
        text += piece
    return text, read


def kept(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        text += piece
        if stop in text:
            return text[: text.index(stop) + len(stop)], read
    return text, read


WRONG = {
    "14.memory": [
        ((14, 1.07), "the cache keeps a key and a value"),
        ((14.0, 0.067), "each of the 32 layers"),
        ((28, 4.3), "that is at four bytes a number"),
        ((14.0,), "there are 1 items, not 2"),
    ],
    "14.four_bits": [
        (only_the_bits, "the scale costs something too"),
        (full_scale, "the scale has 16 bits, not 32"),
        (with_eight, "8 is no number of four bits"),
        (by_row, "one scale for a whole row"),
        (long_scale, "the scale is not rounded to 16 bits"),
        (dividing_by_zero, "a group of zeros became NaN"),
        (symmetric, "-8 is not used"),
    ],
    "14.answers_needed": [
        (lambda p, sure: int(1 / (1 - p) + 0.5), "that many hold one on average"),
        (lambda p, sure: round(1 / (1 - sure)), "the percentile does not come in"),
        (lambda p, sure: math.ceil(sure / (1 - p)), "do not add up"),
        (lambda p, sure: math.log(1 - sure) / math.log(p), "another number is wanted"),
    ],
    "14.in_one_batch": [
        (right_padding, "the shorter rows read from padding"),
        (left_padding, "padded on the left"),
        (with_prompt, "the prompt is no part of what is new"),
        (never_ending, "a row went on after its stop"),
        (one_stops_all, "one row's stop ended all"),
    ],
    "14.limiter": [
        (NoCap, "a bucket holds no more than `size`"),
        (Shared, "one bucket for all"),
        (Whole, "fractions count"),
        (ForgetsRefusals, "another result is wanted"),
    ],
    "14.until_stop": [
        (piecewise, "a stop string that lies across two pieces is not seen"),
        (losing, "what stands before the stop string in its piece is lost"),
        (kept, "the stop string is no part of the text"),
        (lambda pieces, stop: ("".join(pieces).split(stop)[0], len(pieces)), "it reads on"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "14.four_bits": {
        "clamp(-9, 7)": "no weight is further than 7.5 steps from zero, which rounds to -8 at most",
    },
    "14.answers_needed": {"n = 0": "the loop counts from there to the same number"},
    "14.in_one_batch": {
        "torch.ones(len(prompts), max(lengths)": "it does not matter what the padding is",
        "argmax(dim=+1)": "the last dimension of two is dimension 1",
    },
}
