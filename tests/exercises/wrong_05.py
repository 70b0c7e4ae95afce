"""Answers to notebook 05's exercises as readers would write them, and what each is told."""

import torch.nn as nn

import llmkit


def parts(width):
    return {
        "characters": 65 * width,
        "positions": 64 * width,
        "attention": 4 * (4 * width**2 + 4 * width),
        "feed-forward": 4 * (8 * width**2 + 5 * width),
        "norms": 4 * 4 * width + 2 * width,
    }


def widest_by(numbers, fits=lambda needed, memory: needed <= memory):
    def widest(memory):
        return max(
            width for width in range(4, 600, 4) if width == 4 or fits(numbers(width), memory)
        )

    return widest


def everything(width):
    return sum(parts(width).values())


def without_places(width):
    return everything(width) - parts(width)["positions"]


def output_too(width):
    return everything(width) + parts(width)["characters"]


def matrices_and_norms(width):
    return (65 + 64) * width + 4 * 12 * width**2 + parts(width)["norms"]


def first_too_many(memory):
    return next(width for width in range(4, 600, 4) if everything(width) > memory)


class Block(nn.Module):
    """As in the notebook."""

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = llmkit.CausalSelfAttention(config)
        self.mlp = llmkit.model.MLP(config)


class StillX(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(y))


class StillOneNorm(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_1(x))


class SideBySide(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return y + self.mlp(self.ln_2(x))


class LastReplaced(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return self.mlp(self.ln_2(y))


class After(Block):
    def forward(self, x):
        x = self.ln_1(x + self.attn(x))
        return self.ln_2(x + self.mlp(x))


class NormedStream(Block):
    def forward(self, x):
        x = self.ln_1(x)
        x = x + self.attn(x)
        x = self.ln_2(x)
        return x + self.mlp(x)


def sample_variance(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt() * gain + bias


def no_epsilon(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0) * gain + bias


def epsilon_late(x, gain, bias):
    spread = x.std(-1, keepdim=True, correction=0)
    return (x - x.mean(-1, keepdim=True)) / (spread + 1e-5) * gain + bias


def over_positions(x, gain, bias):
    variance = x.var(1, keepdim=True, correction=0)
    return (x - x.mean(1, keepdim=True)) / (variance + 1e-5).sqrt() * gain + bias


def without_gain(x, gain, bias):
    return nn.LayerNorm(x.size(-1))(x).detach()


def bias_first(x, gain, bias):
    return (nn.LayerNorm(x.size(-1))(x).detach() + bias) * gain


def normed_without_mean(x, gain, bias):
    return x / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() * gain + bias


def start(model, ids):
    return model.wte(ids) + model.wpe.weight[: ids.size(1)]


def without_norm(model, ids):
    x, scores = start(model, ids), []
    for block in [lambda x: x, *model.h]:
        x = block(x)
        scores.append(model.lm_head(x))
    return scores


def after_blocks_only(model, ids):
    x, scores = start(model, ids), []
    for block in model.h:
        x = block(x)
        scores.append(model.lm_head(model.ln_f(x)))
    return scores


def without_positions(model, ids):
    x, scores = model.wte(ids), []
    for block in [lambda x: x, *model.h]:
        x = block(x)
        scores.append(model.lm_head(model.ln_f(x)))
    return scores


def normed_on(model, ids):
    x = start(model, ids)
    scores = [model.lm_head(model.ln_f(x))]
    for block in model.h:
        x = model.ln_f(block(x))
        scores.append(model.lm_head(x))
    return scores


def never_moving(model, ids):
    x = start(model, ids)
    return [model.lm_head(model.ln_f(block(x))) for block in [lambda x: x, *model.h]]


def taking_blocks_away(model, ids):
    blocks, scores = list(model.h), []
    for depth in range(len(blocks) + 1):
        model.h = nn.ModuleList(blocks[:depth])
        scores.append(model(ids))
    model.h = nn.ModuleList(blocks[:1])
    return scores


def last_only(model, ids):
    return model(ids)


WRONG = {
    "05.shapes": [
        (
            ((2, 32, 64), (2, 4, 32, 16), (2, 4, 32, 32), (2, 32, 256), (2, 32, 65)),
            "T is their length",
        ),
        (((2, 5, 64), (2, 4, 5, 16), (2, 5, 5), (2, 5, 256), (2, 5, 65)), "weights of its own"),
        (
            ((2, 5, 64), (2, 4, 5, 16), (2, 4, 5, 16), (2, 5, 256), (2, 5, 65)),
            "joins two positions",
        ),
        (((2, 5, 64), (2, 4, 5, 16), (2, 4, 5, 5), (2, 5, 256), (2, 65)), "item 4: there are 2"),
        ([2, 5, 64], "there are 3 items, not 5"),
    ],
    "05.widest": [
        (widest_by(without_places), "the table of positions"),
        (widest_by(matrices_and_norms), "biases take numbers too"),
        (widest_by(output_too), "serves twice and is stored once"),
        (widest_by(everything, lambda needed, memory: needed < memory), "widest(4536): another"),
        (first_too_many, "that does not fit any more"),
        (140, "a function is wanted"),
    ],
    "05.repaired_block": [
        (StillX, "what attention found is lost"),
        (StillOneNorm, "the second norm is ln_2"),
        (SideBySide, "the feed-forward layer reads x"),
        (LastReplaced, "the second layer replaces the stream"),
        (After, "the norms stand after the sums"),
        (NormedStream, "the shape is right, the numbers are not"),
    ],
    "05.layer_norm": [
        (sample_variance, "divided by C, not by C - 1"),
        (no_epsilon, "equal features give 0 / 0"),
        (epsilon_late, "the ε stands under the root"),
        (over_positions, "not over positions"),
        (without_gain, "gain and bias are missing"),
        (bias_first, "the shape is right, the numbers are not"),
        (normed_without_mean, "the shape is right, the numbers are not"),
    ],
    "05.lens": [
        (without_norm, "read without its last norm"),
        (after_blocks_only, "one reading is missing"),
        (without_positions, "plus the positions' rows"),
        (normed_on, "the norm is for reading"),
        (never_moving, "item 2: the shape is right, the numbers are not"),
        (taking_blocks_away, 'at "the model\'s own scores afterwards"'),
        (last_only, "at 'the scores'"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {}
