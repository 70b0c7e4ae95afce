"""Answers to notebook 13's exercises as readers would write them, and what each is told."""

import math
from collections import Counter

import torch


def masks_the_whole_prompt(prompt, answer):
    y = [*prompt, *answer, 0][1:]
    return [-100] * len(prompt) + y[len(prompt) :]


def forgets_the_end(prompt, answer):
    y = [*prompt, *answer][1:]
    return [-100] * (len(prompt) - 1) + y[len(prompt) - 1 :]


def masks_the_inputs(prompt, answer):
    x = [*prompt, *answer, 0][:-1]
    return [-100 if i < len(prompt) - 1 else x[i] for i in range(len(x))]


def both_ways(item):
    return item[:, None] == item


def causal_alone(item):
    return torch.ones(len(item), len(item), dtype=torch.bool).tril()


def numbers_in_order(item):
    ahead = item[:, None] - item
    return (ahead >= 0) & (ahead <= 1) & causal_alone(item)


def as_numbers(item):
    return ((item[:, None] == item) & causal_alone(item)).float()


def users_end(turns):
    marks = ""
    for role, words in turns:
        marks += "..." + ("x" if role == "A" else ".") * len(words) + "x"
    return marks


def last_reply(turns):
    marks = "".join("." * len(f"{role}: {words}\n") for role, words in turns)
    words = turns[-1][1]
    return marks[: -len(words) - 1] + "x" * (len(words) + 1)


def words_alone(turns):
    return "".join("..." + ("x" if role == "A" else ".") * len(w) + "." for role, w in turns)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def no_reference(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -math.log(sigmoid(beta * (chosen - rejected)))


def turned_round(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -math.log(sigmoid(beta * ((rejected - ref_rejected) - (chosen - ref_chosen))))


def beta_outside(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -beta * math.log(sigmoid((chosen - ref_chosen) - (rejected - ref_rejected)))


def added(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -math.log(sigmoid(beta * (chosen + ref_chosen - rejected - ref_rejected)))


def shares(answer, reference, clip=True):
    said, wanted = answer.split(), reference.split()
    for n in range(1, 5):
        mine = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
        theirs = Counter(tuple(wanted[i : i + n]) for i in range(len(wanted) - n + 1))
        hits = sum(
            (min(mine[run], theirs[run]) if clip else mine[run]) for run in mine if run in theirs
        )
        yield hits / sum(mine.values())


def price(answer, reference):
    c, r = len(answer.split()), len(reference.split())
    return math.exp(min(0, 1 - r / c))


def arithmetic(answer, reference):
    return 100 * price(answer, reference) * sum(shares(answer, reference)) / 4


def not_clipped(answer, reference):
    return 100 * price(answer, reference) * math.prod(shares(answer, reference, clip=False)) ** 0.25


def free_of_charge(answer, reference):
    return 100 * math.prod(shares(answer, reference)) ** 0.25


def gains(answer, reference):
    c, r = len(answer.split()), len(reference.split())
    return 100 * math.exp(1 - r / c) * math.prod(shares(answer, reference)) ** 0.25


def not_in_percent(answer, reference):
    return price(answer, reference) * math.prod(shares(answer, reference)) ** 0.25


WRONG = {
    "13.targets_of_eel": [
        (3, "or the model would never stop"),
        (5, "the space after A: belongs to the prompt"),
        (24, "the prompt's characters too"),
    ],
    "13.targets": [
        (masks_the_whole_prompt, "the prompt's last id predicts the answer's first"),
        (forgets_the_end, "a model that never learns it never stops"),
        (masks_the_inputs, "those are the ids themselves"),
    ],
    "13.items_apart": [
        (both_ways, "may look ahead within its item"),
        (causal_alone, "items see those before them"),
        (numbers_in_order, "the item before is let in too"),
        (as_numbers, "the numbers are torch.float32, not torch.bool"),
    ],
    "13.counted": [
        (users_end, "is not the model's to say"),
        (last_reply, "only the last reply counts"),
        (words_alone, "a reply's end does not count"),
    ],
    "13.dpo_loss": [
        (no_reference, "the reference is left out"),
        (turned_round, "this prefers the rejected answer"),
        (beta_outside, "β belongs inside the sigmoid"),
        (added, "another number is wanted"),
    ],
    "13.bleu_by_hand": [
        (arithmetic, "take the geometric mean"),
        (not_clipped, "only as often as the reference has it"),
        (free_of_charge, "pays for it"),
        (gains, "gains nothing by its length"),
        (not_in_percent, "another number is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {}
