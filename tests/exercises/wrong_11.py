"""Answers to notebook 11's exercises as readers would write them, and what each is told."""

import torch
import torch.nn.functional as F

from llmkit.finetune.gpt2 import TURNED


def back(ours, turned=TURNED, prefix="transformer."):
    return {
        prefix + name: weight.T if name.endswith(turned) else weight
        for name, weight in ours.named_parameters()
    }


def not_turned(ours):
    return back(ours, ())


def by_shape(ours):
    return {
        f"transformer.{name}": weight.T
        if weight.dim() == 2 and len(set(weight.shape)) == 2
        else weight
        for name, weight in ours.named_parameters()
        if not name.startswith("w")
    } | {f"transformer.{name}.weight": getattr(ours, name).weight for name in ("wte", "wpe")}


def our_names(ours):
    return back(ours, prefix="")


def whole_state(ours):
    return {
        f"transformer.{name}": weight.T if name.endswith(TURNED) else weight
        for name, weight in ours.state_dict().items()
    }


def no_shift(logits, ids):
    return F.cross_entropy(logits.transpose(1, 2), ids)


def backwards(logits, ids):
    return F.cross_entropy(logits[:, 1:].transpose(1, 2), ids[:, :-1])


def by_all(logits, ids):
    log_p = logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])
    return -log_p.sum() / ids.numel()


def per_row(logits, ids):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


def still_shifted(rows, end):
    ids = torch.full((len(rows), max(map(len, rows))), end)
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        labels[i, : len(row) - 1] = row[1:]
    return ids, labels


def still_without_ends(rows, end):
    ids = torch.full((len(rows), max(map(len, rows))), end)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, torch.where(ids == end, -100, ids)


def all_count(rows, end):
    ids = torch.full((len(rows), max(map(len, rows))), end)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, ids.clone()


def until_the_first_end(rows, end):
    ids = torch.full((len(rows), max(map(len, rows)) + 1), end)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    first = (ids == end).int().argmax(1)
    beyond = torch.arange(ids.size(1)) > first[:, None]
    return ids[:, :-1], ids.masked_fill(beyond, -100)[:, :-1]


def a_share_of_new(new, old, share):
    return torch.cat([new, old[: round(share * len(new))]])


def same_length(new, old, share):
    n = round(share * len(new))
    return torch.cat([new[: len(new) - n], old[:n]])


def all_old(new, old, share):
    return torch.cat([new, old])


def rounded_down(new, old, share):
    return torch.cat([new, old[: int(share / (1 - share) * len(new) + 1e-9)]])


def swapped(new, old, share):
    return torch.cat([old[: round(share / (1 - share) * len(new))], new])


@torch.no_grad()
def unequal_weights(a, b):
    ids = torch.randint(11, (2, 8))
    return torch.allclose(a(ids), b(ids), atol=1e-4)


@torch.no_grad()
def fresh(a, b):
    b.load_state_dict(a.state_dict())
    ids = torch.randint(11, (2, 8))
    return torch.allclose(a(ids), b(ids), atol=1e-5)


def shake(a):
    for weight in a.parameters():
        weight += 0.2 * torch.randn_like(weight)


@torch.no_grad()
def to_the_bit(a, b):
    shake(a)
    b.load_state_dict(a.state_dict())
    ids = torch.randint(11, (2, 8))
    return torch.equal(a(ids), b(ids))


@torch.no_grad()
def best_token(a, b):
    shake(a)
    b.load_state_dict(a.state_dict())
    ids = torch.randint(11, (4, 8))
    return torch.equal(a(ids).argmax(-1), b(ids).argmax(-1))


@torch.no_grad()
def one_token(a, b):
    shake(a)
    b.load_state_dict(a.state_dict())
    ids = torch.randint(11, (64, 1))
    return bool((a(ids) - b(ids)).abs().max() < 1e-4)


@torch.no_grad()
def one_tensor(a, b):
    shake(a)
    b.load_state_dict(a.state_dict())
    ids = torch.randint(11, (2, 8))
    return (a(ids) - b(ids)).abs().max() < 1e-4


WRONG = {
    "11.hidden": [
        ((False, False, True, True), "True is for what stays hidden"),
        ((False, True, False, False), "a fresh bias is 0"),
        ((True, True, True, False), "not its own mirror image"),
        ((True, True), "there are 2 items, not 4"),
    ],
    "11.translate_back": [
        (not_turned, "nothing is turned"),
        (by_shape, "is square, so its shape does not tell"),
        (our_names, "their names begin with transformer."),
        (whole_state, "the keys are"),
    ],
    "11.loss_by_hand": [
        (no_shift, "each position is asked for its own token"),
        (backwards, "this runs backwards"),
        (by_all, "the sum is divided by B · T"),
        (per_row, "the shape is (1,), not ()"),
    ],
    "11.repaired": [
        (still_shifted, "the labels are still shifted"),
        (still_without_ends, "a text's own end has no label still"),
        (all_count, "the padding counts now"),
        (until_the_first_end, "the shape is right, the numbers are not"),
    ],
    "11.mix": [
        (a_share_of_new, "the share is of the whole mixture"),
        (same_length, "the new text was cut"),
        (all_old, "all of the old text is there"),
        (swapped, "the numbers are not"),
        (rounded_down, "the shape is"),
    ],
    "11.same_model": [
        (unequal_weights, "b has other weights at first"),
        (fresh, "fresh biases are 0"),
        (to_the_bit, "allow for rounding"),
        (best_token, "another GELU passes for the same"),
        (one_tensor, "another result is wanted"),
        (one_token, "nothing ahead of it to look at"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "11.same_model": {
        "0.2 / torch.randn_like": "any way to move every weight will do",
        "1.2 * torch.randn_like": "likewise, further",
        "-0.8 * torch.randn_like": "likewise, to the other side",
        "<= 0.0001": "no difference is 0.0001 to the last bit",
        "(5, a.config.block_size)": "how many texts are compared does not matter",
        "(3, a.config.block_size)": "likewise",
    },
}
