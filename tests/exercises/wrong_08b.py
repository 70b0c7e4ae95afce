"""Answers to notebook 08b's exercises as readers would write them, and what each is told."""

import torch

import llmkit


def read(step, gpt, ids, kept):
    return torch.stack([step(gpt, ids[i : i + 1], kept)[0] for i in range(len(ids))])


def the_same_bits(step, gpt, ids):
    return bool((read(step, gpt, ids, [([], []) for _ in gpt.h]) == gpt(ids[None])[0]).all())


def one_pair(step, gpt, ids):
    kept = [([], [])] * gpt.config.n_layer
    return torch.allclose(read(step, gpt, ids, kept), gpt(ids[None])[0])


def only_the_last(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return torch.allclose(scores[-1], gpt(ids[None])[0, -1], rtol=0)


def loosely_the_last(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return torch.allclose(scores[-1], gpt(ids[None])[0, -1])


def loosely(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return torch.allclose(scores, gpt(ids[None])[0], atol=1e-10)


def only_the_first(step, gpt, ids):
    scores = read(step, gpt, ids[:1], [([], []) for _ in gpt.h])
    return torch.allclose(scores[0], gpt(ids[None, :1])[0, 0])


def same_choice(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return scores.argmax(-1).tolist() == gpt(ids[None]).argmax(-1)[0].tolist()


def generous(step, gpt, ids):
    scores = read(step, gpt, ids, [([], []) for _ in gpt.h])
    return (scores - gpt(ids[None])[0]).abs().max().item() < 0.05


def keys_only(n_layer, n_head, n_kv_head, head_size, tokens, bytes_each):
    return n_layer * tokens * n_kv_head * head_size * bytes_each


def by_query_heads(n_layer, n_head, n_kv_head, head_size, tokens, bytes_each):
    return 2 * bytes_each * n_layer * tokens * (n_head * head_size)


def four_bytes(n_layer, n_head, n_kv_head, head_size, tokens, bytes_each):
    return 8 * n_layer * tokens * n_kv_head * head_size


def group_size(n_layer, n_head, n_kv_head, head_size, tokens, bytes_each):
    return 2 * n_layer * (n_head // n_kv_head) * head_size * tokens * bytes_each


def grown(q, k, v, cache):
    for name, new in (("k", k), ("v", v)):
        cache[name] = torch.cat([cache[name], new], dim=1)
    return cache["k"], cache["v"]


def keys_twice(q, k, v, cache):
    keys, values = grown(q, k, k, cache)
    return llmkit.attention(q, keys, values, llmkit.causal_mask(keys.size(1))[-q.size(1) :])[0]


def first_rows(q, k, v, cache):
    keys, values = grown(q, k, v, cache)
    return llmkit.attention(q, keys, values, llmkit.causal_mask(keys.size(1))[: q.size(1)])[0]


def no_mask(q, k, v, cache):
    return llmkit.attention(q, *grown(q, k, v, cache))[0]


def by_pytorch(q, k, v, cache):
    """Its is_causal puts the triangle at the upper left, where S is more than n."""
    keys, values = grown(q, k, v, cache)
    return torch.nn.functional.scaled_dot_product_attention(q, keys, values, is_causal=True)


def not_kept(q, k, v, cache):
    return no_mask(q, k, v, dict(cache)) if q.size(1) == 1 else right(q, k, v, dict(cache))


def right(q, k, v, cache):
    keys, values = grown(q, k, v, cache)
    return llmkit.attention(q, keys, values, llmkit.causal_mask(keys.size(1))[-q.size(1) :])[0]


def chances(p, g):
    return torch.where(g > 0, (p / g).clamp(max=1), 1.0)


def rest(p, g):
    left = torch.clamp(p - g, min=0)
    return p if left.sum() == 0 else left / left.sum()


def without_a_cap(p, g):
    return torch.where(g > 0, p / g, 9.0 * (p > 0) + 1.0 * (p == 0)), rest(p, g)


def upside_down(p, g):
    return torch.where(p > 0, (g / p).clamp(max=1), 1.0), rest(p, g)


def drawn_anew(p, g):
    return chances(p, g), p


def not_whole(p, g):
    return chances(p, g), torch.relu(p - g) if (p - g).abs().max() > 0 else p


def distances(p, g):
    return chances(p, g), (p - g).abs() / (p - g).abs().sum() if (p - g).abs().max() > 0 else p


def forgets_equals(p, g):
    left = torch.relu(p - g)
    return chances(p, g), left / left.sum()


def forgets_zeros(p, g):
    return (p / g).clamp(max=1), rest(p, g)


WRONG = {
    "08b.tokens_read": [
        ((60, 4), "the prompt is read, too"),
        ((60, 15), "read by nobody"),
        ((75, 14), "five readings"),
        ((14, 60), "the other way round"),
        ((65, 15), "item 0: another number is wanted"),
    ],
    "08b.cache_size": [
        ((18_874_368, 834), "values are kept as well as keys"),
        ((75_497_472, 208), "two bytes here, not four"),
        ((37_748_736, 423), "the weights are on the GPU too"),
        ((37_748_736, 417.29), "417 whole texts fit"),
        (37_748_736, "a tuple is wanted, not an int"),
    ],
    "08b.cache_is_exact": [
        (the_same_bits, "cache_is_exact(a right step"),
        (one_pair, "each layer needs lists of its own"),
        (only_the_last, "not only after the last"),
        (loosely_the_last, "the last scores where the first are wrong"),
        (loosely, "unless told otherwise: rtol=0"),
        (only_the_first, "a step that puts each token at position 0"),
        (same_choice, "the likeliest token may be right"),
        (generous, "make the tolerance smaller"),
        (lambda step, gpt, ids: True, "that accepts everything"),
    ],
    "08b.kv_bytes": [
        (keys_only, "values are kept as well"),
        (by_query_heads, "count the heads of keys and values"),
        (four_bytes, "use bytes_each"),
        (group_size, "kv_bytes(12, 12, 12, 64, 1024, 2)"),
    ],
    "08b.attend_with_cache": [
        (keys_twice, "the keys are kept in place of the values"),
        (first_rows, "the last n rows of the mask, not the first"),
        (no_mask, "without a mask"),
        (by_pytorch, "not the first"),
        (not_kept, "the cache has not grown"),
    ],
    "08b.speculate": [
        (without_a_cap, "a chance is at most 1"),
        (upside_down, "that is g / p"),
        (drawn_anew, "drawing from p again"),
        (not_whole, "must sum to one"),
        (distances, "not |p - g|"),
        (forgets_equals, "0 / 0 is nan: return p there"),
        (forgets_zeros, "item 0: the shape is right, the numbers are not"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "08b.cache_is_exact": {"gpt(ids[None])[-1]": "a batch of one row: its first is its last"},
    "08b.speculate": {
        "nan=2.0": "clamp brings it to 1",
        "if left.mean() > 0": "the mean is above 0 where the sum is",
    },
}
