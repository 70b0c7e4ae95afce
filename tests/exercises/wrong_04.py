"""Answers to notebook 04's exercises as readers would write them, and what each is told."""

import math

import torch

import llmkit
from llmkit.attention import CausalSelfAttention, attention


def uniform(T):
    return llmkit.causal_mask(T).float() / llmkit.causal_mask(T).sum(dim=1, keepdim=True)


def growing(T):
    scores = math.log(2) * (torch.arange(T)[:, None] - torch.arange(T))
    return scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)


def by_e(T):
    scores = -1.0 * (torch.arange(T)[:, None] - torch.arange(T))
    return scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)


def not_normalised(T):
    return llmkit.causal_mask(T) * 0.5 ** (torch.arange(T)[:, None] - torch.arange(T)).float()


class NotAhead(CausalSelfAttention):
    def forward(self, x, cache=None):
        out = super().forward(x)
        return out


class FarAhead(CausalSelfAttention):
    diagonal = 2

    def forward(self, x, cache=None):
        B, T, C = x.shape
        parts = self.c_attn(x).chunk(3, dim=2)
        q, k, v = (p.view(B, T, self.n_head, -1).transpose(1, 2) for p in parts)
        seen = torch.ones(T, T, dtype=torch.bool).tril(diagonal=self.diagonal)
        out, _ = attention(q, k, v, seen)
        return self.c_proj(out.transpose(1, 2).reshape(B, T, C))


class Everything(FarAhead):
    diagonal = 99


def rightly(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def positions_first(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head)


def without_a_batch(x, n_head):
    return x.view(n_head, x.size(1), x.size(2) // n_head)


def still_t(q, k, v):
    T = q.size(-2)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    scores = (q @ k.mT / math.sqrt(T)).masked_fill(future, -torch.inf)
    return scores.softmax(dim=-1) @ v


def still_late(q, k, v):
    T, D = q.shape[-2:]
    weights = (q @ k.mT / math.sqrt(D)).softmax(dim=-1)
    return weights.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(diagonal=1), 0.0) @ v


def not_divided(q, k, v):
    T = q.size(-2)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    return (q @ k.mT).masked_fill(future, -torch.inf).softmax(dim=-1) @ v


def renormalised(q, k, v):
    weights = (q @ k.mT / math.sqrt(q.size(-1))).softmax(dim=-1).tril(diagonal=-1)
    return (weights / weights.sum(dim=-1, keepdim=True)).nan_to_num() @ v


def mean(q, k, v):
    return v.mean(dim=0)


def without_root(q, k, v):
    return torch.softmax(k @ q, dim=0) @ v


def hard(q, k, v):
    return v[(k @ q).argmax()]


def overflowing(q, k, v):
    total, out = 0.0, torch.zeros(v.size(1))
    for key, value in zip(k, v, strict=True):
        weight = (q @ key / math.sqrt(len(q))).exp()
        total, out = total + weight, out + weight * value
    return out / total


WRONG = {
    "04.mask_rows": [
        ((0, 4, 10), "count the diagonal too"),
        ((5, 5, 25), "without a mask"),
        ((1, 4, 10), "the last of five is row 4"),
        ((1, 5), "there are 2 items, not 3"),
    ],
    "04.fading_weights": [
        (uniform, "the weights of a row are all alike"),
        (growing, "the oldest position gets the most"),
        (by_e, "divides by e, not by 2"),
        (not_normalised, "fading_weights(2): the shape is right, the numbers are not"),
    ],
    "04.off_by_one": [
        (NotAhead, "this layer does not look ahead"),
        (FarAhead, "it sees two positions ahead"),
        (Everything, "it sees all of the future"),
    ],
    "04.split_heads_wrongly": [
        (rightly, "these are the right heads"),
        (positions_first, "name the heads before the positions"),
        (without_a_batch, "the shape is (2, 2, 1), not (1, 2, 2, 1)"),
    ],
    "04.repaired": [
        (still_t, "divided by √T still"),
        (still_late, "masked after softmax"),
        (not_divided, "not divided at all"),
        (renormalised, "a position does not see itself"),
    ],
    "04.attend_in_one_pass": [
        (mean, "every position weighs the same"),
        (without_root, "the scores are not divided by √D"),
        (hard, "only the largest score counts"),
        (overflowing, "the shape is right, the numbers are not"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "04.attend_in_one_pass": {
        "torch.tensor(1.0)": "the first mend is e^-inf = 0, and wipes out what total began with",
        "torch.tensor(-1.0)": "likewise",
        "torch.ones(v.size(1))": "likewise, of out",
        "strict=False": "keys and values are equally many in every case",
    },
}
