"""Answers to notebook 10b's exercises as readers would write them, and what each is told."""

import math

import torch

import llmkit
from llmkit.scale import cost


def without_attention(config, tokens_per_second, gpus, peak):
    N = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    return 6 * N * tokens_per_second / gpus / peak


def without_the_output_layer(config, tokens_per_second, gpus, peak):
    C, L = config.n_embd, config.n_layer
    flops = 6 * 12 * L * C**2 + 12 * L * config.block_size * C
    return flops * tokens_per_second / gpus / peak


def one_gpu(config, tokens_per_second, gpus, peak):
    return cost.flops_per_token(config) * tokens_per_second / peak


def forward_only(config, tokens_per_second, gpus, peak):
    return cost.flops_per_token(config) / 3 * tokens_per_second / gpus / peak


def memory(name, n, checkpointing, dtype="float16"):
    how = dict(dtype=dtype, gradient_checkpointing=checkpointing)
    return sum(cost.training_memory(llmkit.GPTConfig.gpt2(name), n, **how).values())


def all_of_it(name, gigabytes, checkpointing):
    fixed = 2 * memory(name, 1, checkpointing) - memory(name, 2, checkpointing)
    each = memory(name, 1, checkpointing) - fixed
    return max(0, int((gigabytes * 1e9 - fixed) // each))


def all_once_a_window(name, gigabytes, checkpointing):
    return int((gigabytes - 1) * 1e9 // memory(name, 1, checkpointing))


def below_zero(name, gigabytes, checkpointing):
    fixed = 2 * memory(name, 1, checkpointing) - memory(name, 2, checkpointing)
    each = memory(name, 1, checkpointing) - fixed
    return math.floor(((gigabytes - 1) * 1e9 - fixed) / each)


def more_than_fits(name, gigabytes, checkpointing):
    fixed = 2 * memory(name, 1, checkpointing) - memory(name, 2, checkpointing)
    each = memory(name, 1, checkpointing) - fixed
    return max(0, round(((gigabytes - 1) * 1e9 - fixed) / each))


def in_gibibytes(name, gigabytes, checkpointing):
    one, two = (memory(name, n, checkpointing) for n in (1, 2))
    return max(0, int(((gigabytes - 1) * 2**30 - 2 * one + two) // (two - one)))


def in_float32(name, gigabytes, checkpointing):
    one, two = (memory(name, n, checkpointing, "float32") for n in (1, 2))
    return max(0, int(((gigabytes - 1) * 1e9 - 2 * one + two) // (two - one)))


def by_places(model, parts):
    total = sum(model.loss(x, y) * y.numel() for x, y in parts if (y >= 0).any())
    return total / sum(y.numel() for _, y in parts if (y >= 0).any())


def not_a_number(model, parts):
    total = sum(model.loss(x, y) * (y != -100).sum() for x, y in parts)
    return total / sum((y != -100).sum() for _, y in parts)


def undivided(model, parts):
    return sum(model.loss(x, y) * (y != -100).sum() for x, y in parts if (y >= 0).any())


def mean_of_means(model, parts):
    return torch.stack([model.loss(x, y) for x, y in parts]).nanmean()


def root(L, a, b):
    return round(math.sqrt(L))


def exchanged(L, a, b):
    return min(range(1, L + 1), key=lambda k: math.ceil(L / k) * b + k * a)


def all_blocks(L, a, b):
    return L


def only_divisors(L, a, b):
    return min((k for k in range(1, L + 1) if L % k == 0), key=lambda k: L // k * a + k * b)


def last_of_several(L, a, b):
    return min(range(L, 0, -1), key=lambda k: math.ceil(L / k) * a + k * b)


WRONG = {
    "10b.parameters": [
        (10_795_776, "the output layer shares"),
        (10_672_512, "the positions are missing"),
        (10_770_048, "a last norm"),
        (10_650_000, "another number is wanted"),
    ],
    "10b.tokens_per_second": [
        (8 * 0.4 * 312e12 / (2 * 7e9), "too many: a token costs 6 N"),
        (8 * 312e12 / (6 * 7e9), "only 40 % of the peak arrive"),
        (3_000, "eight GPUs work on it"),
        (24, "10¹² a second"),
    ],
    "10b.utilisation_of": [
        (without_attention, "12 L T C is missing"),
        (without_the_output_layer, "another number is wanted"),
        (one_gpu, "divide by the number of GPUs"),
        (forward_only, "the forward pass alone"),
    ],
    "10b.largest_batch": [
        (all_of_it, "1 GB is to be left free"),
        (all_once_a_window, "once, not once a window"),
        (below_zero, "where nothing fits, the batch is 0"),
        (in_float32, "another number is wanted"),
        (in_gibibytes, "another number is wanted"),
        (more_than_fits, "another number is wanted"),
    ],
    "10b.accumulated": [
        (by_places, "weighed by all places"),
        (not_a_number, "a part without targets has no mean"),
        (undivided, "divide by their number"),
        (mean_of_means, "the mean of the means still"),
    ],
    "10b.best_stretch": [
        (root, "only where a = b"),
        (exchanged, "a and b are exchanged"),
        (all_blocks, "that is all activations again"),
        (last_of_several, "another number is wanted"),
        (only_divisors, "another number is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "10b.best_stretch": {"L + 2": "k = L + 1 holds more than k = L, and never wins"},
}
