"""Answers to notebook 03b's exercises as readers would write them, and what each is told."""

import math

import torch

from llmkit.exercises.notebook_03b import Number


def last_inside(ids, k):
    pieces = ids.unfold(0, k, 1)
    return pieces, pieces[:, -1]


def one_short(ids, k):
    pieces = ids[:-1].unfold(0, k + 1, 1)
    return pieces[:, :k], pieces[:, k]


def answer_in_window(ids, k):
    pieces = ids.unfold(0, k + 1, 1)
    return pieces, pieces[:, k]


def apart(ids, k):
    pieces = ids.unfold(0, k + 1, k + 1)
    return pieces[:, :k], pieces[:, k]


def column(ids, k):
    pieces = ids.unfold(0, k + 1, 1)
    return pieces[:, :k], pieces[:, k:]


def no_biases(k, V, C, H):
    return V * C + k * C * H + H * V


def table_for_each(k, V, C, H):
    return k * V * C + k * C * H + H + H * V + V


def one_row(k, V, C, H):
    return V * C + C * H + H + H * V + V


def no_table(k, V, C, H):
    return (k * C + 1) * H + (H + 1) * V


def square_of_the_input(a):
    return Number(math.tanh(a.data), [(a, 1 - a.data**2)])


def no_parents(a):
    return Number(math.tanh(a.data))


def itself(a):
    t = math.tanh(a.data)
    return Number(t, [(a, t)])


def set_directly(a):
    t = math.tanh(a.data)
    a.grad = 1 - t * t
    return Number(t)


def number_only(a):
    return math.tanh(a.data)


def order_of(value, done):
    for parent, _ in value.parents:
        if parent not in done:
            order_of(parent, done)
    done.append(value)
    return done


def still_overwrites(loss):
    order = order_of(loss, [])
    for value in order:
        value.grad = 0.0
    loss.grad = 1.0
    for value in reversed(order):
        for parent, slope in value.parents:
            parent.grad = slope * value.grad


def adds_without_order(loss):
    for value in order_of(loss, []):
        value.grad = 0.0
    loss.grad = 1.0
    todo = [loss]
    while todo:
        value = todo.pop(0)
        for parent, slope in value.parents:
            parent.grad += slope * value.grad
            todo.append(parent)


def never_cleared(loss):
    loss.grad = 1.0
    for value in reversed(order_of(loss, [])):
        for parent, slope in value.parents:
            parent.grad += slope * value.grad


def unseeded(loss):
    order = order_of(loss, [])
    for value in order:
        value.grad = 0.0
    for value in reversed(order):
        for parent, slope in value.parents:
            parent.grad += slope * value.grad


def returned_only(loss):
    return {"a": 3.0, "b": 2.0}


def forwards(loss):
    order = order_of(loss, [])
    for value in order:
        value.grad = 0.0
    loss.grad = 1.0
    for value in order:
        for parent, slope in value.parents:
            parent.grad += slope * value.grad


def only_plus(loss):
    loss.grad = 1.0
    todo = [loss]
    while todo:
        value = todo.pop(0)
        for parent, slope in value.parents:
            parent.grad += slope * value.grad
            todo.append(parent)


def by_hand_but(x, W, U, y, mean=True, bend=True, target=True):
    h = (x @ W).tanh()
    p = (h @ U).softmax(dim=1)
    if target:
        p[torch.arange(len(y)), y] -= 1
    slope = p / len(y) if mean else p
    back = slope @ U.T
    return x.T @ (back * (1 - h * h) if bend else back), h.T @ slope


WRONG = {
    "03b.slopes": [
        ((1, 4, 2), "the path by way of a · b is missing"),
        ((-2, 4, 2), "the path from the last product is missing"),
        ((-1, 2, 2), "a is met twice"),
        ((-1, 4, 1), "the product then has the slope a"),
        ((2, -1, 3), "those are the values"),
        ((-1, 4), "there are 2 items, not 3"),
    ],
    "03b.windows": [
        (last_inside, "the shape is (3, 2), not (2, 2)"),
        (one_short, "the last window is missing"),
        (answer_in_window, "the shape is (2, 3), not (2, 2)"),
        (apart, "the windows overlap"),
        (column, "item 1: the shape is (2, 1), not (2,)"),
    ],
    "03b.parameters": [
        (no_biases, "a linear layer has a bias"),
        (table_for_each, "the table is there once"),
        (one_row, "k rows side by side"),
        (no_table, "the table of the embedding is missing"),
    ],
    "03b.tanh_of": [
        (square_of_the_input, "the square is that of the output"),
        (no_parents, "a gets no slope"),
        (itself, "the slope is the output"),
        (set_directly, "a gets no slope"),
        (number_only, "a Value is wanted, not a float"),
    ],
    "03b.repaired": [
        (still_overwrites, "a slope is overwritten"),
        (adds_without_order, "or more than once: use in_order"),
        (never_cleared, "at a second call the slopes of the first are still there"),
        (forwards, "another number is wanted"),
        (only_plus, "use in_order; and at a second call"),
        (unseeded, "nothing arrives: the slope of the loss for itself is 1"),
        (returned_only, "expected {'a': 3.0, 'b': 2.0}\ngot      {'a': 0.0, 'b': 0.0}"),
    ],
    "03b.by_hand": [
        (lambda *given: by_hand_but(*given, mean=False), "divide by their number"),
        (lambda *given: by_hand_but(*given, bend=False), "multiply by 1 - h²"),
        (lambda *given: by_hand_but(*given, target=False), "predicted minus happened"),
        (lambda *given: by_hand_but(*given)[::-1], "first that for W, then that for U"),
        (lambda x, W, U, y: (W, U), "the numbers are not"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {"03b.windows": {"unfold(-1": "ids have one dimension, the first and the last"}}
