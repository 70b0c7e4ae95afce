"""Answers to notebook 10's exercises as readers would write them, and what each is told."""

import math
import statistics

import torch


def only_the_part(share, factor):
    return factor


def weighted(share, factor):
    return share * factor + (1 - share)


def time_left(share, factor):
    return share / factor + 1 - share


def still_early(device, repeats):
    device.work()
    device.wait()
    times = []
    for _ in range(repeats):
        before = device.clock()
        device.work()
        times.append(device.clock() - before)
        device.wait()
    return statistics.median(times)


def no_warming_up(device, repeats):
    times = []
    for _ in range(repeats):
        before = device.clock()
        device.work()
        device.wait()
        times.append(device.clock() - before)
    return statistics.median(times)


def still_the_mean(device, repeats):
    device.work()
    device.wait()
    before = device.clock()
    for _ in range(repeats):
        device.work()
    device.wait()
    return (device.clock() - before) / repeats


def a_list_of_times(device, repeats):
    return [device.clock()] * repeats


def loop_again(x, queries, keys, values):
    q = torch.stack([x @ m.T for m in queries], 1)
    k = torch.stack([x @ m.T for m in keys], 1)
    return q, k, torch.stack([x @ m.T for m in values], 1)


def three_products(x, queries, keys, values):
    B, T, _ = x.shape
    parts = [torch.cat(part) for part in (queries, keys, values)]
    return tuple((x @ m.T).view(B, T, len(queries), -1).transpose(1, 2) for m in parts)


def not_transposed(x, queries, keys, values):
    B, T, _ = x.shape
    y = x @ torch.cat([*queries, *keys, *values]).T
    return tuple(part.view(B, T, len(queries), -1) for part in y.chunk(3, dim=-1))


def viewed(x, queries, keys, values):
    B, T, _ = x.shape
    y = x @ torch.cat([*queries, *keys, *values]).T
    return tuple(part.reshape(B, len(queries), T, -1) for part in y.chunk(3, dim=-1))


def ends(first, second):
    return first[-1][0] / second[-1][0]


def best(first, second):
    goal = min(loss for _, loss in first)
    for when, loss in second:
        if loss <= goal:
            return first[-1][0] / when
    return 0.0


def strictly(first, second):
    for when, loss in second:
        if loss < first[-1][1]:
            return first[-1][0] / when
    return 0.0


def never_is_none(first, second):
    for when, loss in second:
        if loss <= first[-1][1]:
            return first[-1][0] / when


def signs(gradient):
    return torch.sign(gradient)


def few(gradient):
    X = gradient / gradient.norm()
    for _ in range(5):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


def undivided(gradient):
    X = gradient
    for _ in range(40):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


def transposed(gradient):
    X = gradient / gradient.norm()
    for _ in range(40):
        X = 1.5 * X - 0.5 * X @ X @ X.T
    return X


WRONG = {
    "10.rounded_numbers": [
        ((1.01, 1.001, 1e5, 1e-9), "16 bits cannot hold these"),
        ((1 + 10 / 1024, 1 + 1 / 1024, math.inf, 0.0), "those are float16's steps"),
        ((1 + 1 / 128, 1.0, 65_504.0, 0.0), "becomes infinity, not the largest one"),
        ((1.0, 1.0, math.inf, 0.0), "nearer to 1 + 1/128"),
        ((1 + 1 / 128, 1.0, math.inf), "there are 3 items, not 4"),
    ],
    "10.times_as_fast": [
        (only_the_part, "the rest of the step does not become faster"),
        (weighted, "times add up, speeds do not"),
        (time_left, "the speed is one over it"),
        (lambda s, f: (1 - s + s / f) * 100, "another number is wanted"),
    ],
    "10.median_seconds": [
        (still_early, "before the device is done: wait() first"),
        (no_warming_up, "the first call, which warms up, is counted"),
        (still_the_mean, "a mean follows every odd call"),
        (a_list_of_times, "a number is wanted, not a list"),
    ],
    "10.all_heads": [
        (loop_again, "by a product for each head and part"),
        (three_products, "by three products"),
        (not_transposed, "the heads come before the positions"),
        (viewed, "the numbers are not"),
    ],
    "10.times_as_soon": [
        (ends, "whatever their losses"),
        (best, "not its best"),
        (strictly, "an equal loss has reached the goal too"),
        (never_is_none, "a number is wanted, not None"),
    ],
    "10.equal_stretches": [
        (signs, "each number has size 1 now"),
        (few, "five repetitions are too few"),
        (undivided, "it does not settle"),
        (transposed, "equal_stretches("),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "10.equal_stretches": {
        "range(41)": "it has settled long before",
        "range(39)": "likewise",
    },
}
