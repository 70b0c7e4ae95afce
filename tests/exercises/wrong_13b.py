"""Answers to notebook 13b's exercises as readers would write them, and what each is told."""

import math

import torch


def opens_always(messages):
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def opens_never(messages):
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def no_line_end(messages):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages)
    return text + ("<|im_start|>assistant\n" if messages[-1]["role"] == "user" else "")


def all_users(messages):
    text = "".join(f"<|im_start|>user\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if messages[-1]["role"] == "user" else "")


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def turned_round(gain, beta):
    return beta * sigmoid(beta * gain)


def no_beta(gain, beta):
    return sigmoid(-beta * gain)


def the_loss(gain, beta):
    return -math.log(sigmoid(beta * gain))


def always_the_same(gain, beta):
    return beta / 2


def over_columns(rewards):
    return (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0) + 1e-4)


def centred(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


def over_all(rewards):
    flat = rewards.flatten()
    return ((flat - flat.mean()) / (flat.std() + 1e-4)).view_as(rewards)


def rows_mean_all_std(rewards):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std() + 1e-4)


def difference(new, reference):
    return (new - reference).mean()


def squares(new, reference):
    return ((new - reference) ** 2 / 2).mean()


def swapped(new, reference):
    d = new - reference
    return (torch.exp(d) - d - 1).mean()


def one_too_many(new, reference):
    d = reference - new
    return (torch.exp(d) - d).mean()


def best_of_all(held_out, patience):
    return held_out.index(max(held_out))


def where_it_stops(held_out, patience):
    best = 0
    for i in range(len(held_out)):
        best = i if held_out[i] > held_out[best] else best
        if i - best == patience:
            return i
    return len(held_out) - 1


def too_patient(held_out, patience):
    best = 0
    for i in range(len(held_out)):
        best = i if held_out[i] > held_out[best] else best
        if i - best > patience:
            break
    return best


def any_fall(held_out, patience):
    for i in range(1, len(held_out)):
        if held_out[i] < held_out[i - 1]:
            return i - 1
    return len(held_out) - 1


WRONG = {
    "13b.advantage_of_the_right": [
        (0.75, "divide by the standard deviation"),
        (1.7320508, "divides by three, as torch's does"),
        (1.0, "the group's mean has to be taken off"),
        (3.0, "another number is wanted"),
    ],
    "13b.chat_text": [
        (opens_always, "nothing is to be opened"),
        (opens_never, "the assistant's must be opened"),
        (no_line_end, "a line end follows"),
        (all_users, "with its own role"),
    ],
    "13b.pull": [
        (turned_round, "a pair that is learned should pull least"),
        (no_beta, "β is missing in front"),
        (the_loss, "that is the loss itself"),
        (always_the_same, "another number is wanted"),
    ],
    "13b.advantages": [
        (over_columns, "a group is a row"),
        (centred, "each group's own standard deviation"),
        (over_all, "hard prompts are punished"),
        (rows_mean_all_std, "the numbers are not"),
    ],
    "13b.kl_estimate": [
        (difference, "may give less than 0"),
        (squares, "biased where not"),
        (swapped, "the tokens were drawn by new"),
        (one_too_many, "0 where both agree"),
    ],
    "13b.kept": [
        (best_of_all, "after the run has ended"),
        (where_it_stops, "the best one before it is kept"),
        (too_patient, "one measurement too long"),
        (any_fall, "another number is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {}
