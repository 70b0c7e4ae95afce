"""Answers to notebook 05b's exercises as readers would write them, and what each is told."""

import math

import torch
import torch.nn as nn

import llmkit
from llmkit.attention import rotary


def sines(distance, C):
    return sum(math.sin(distance / 10000 ** (2 * i / C)) for i in range(C // 2))


def speeds_for_all_columns(distance, C):
    return sum(math.cos(distance / 10000 ** (i / C)) for i in range(C))


def divided(distance, C):
    return 2 / C * sum(math.cos(distance / 10000 ** (2 * i / C)) for i in range(C // 2))


def one_speed(distance, C):
    return C // 2 * math.cos(distance)


def half_the_exponent(distance, C):
    return sum(math.cos(distance / 10000 ** (i / C)) for i in range(C // 2))


class ByLayer(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.ln = nn.LayerNorm(C)

    def forward(self, x):
        return self.ln(x)


class Reshaped(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.norm = nn.BatchNorm1d(C)

    def forward(self, x):
        B, T, C = x.shape
        return self.norm(x.reshape(B, C, T)).reshape(B, T, C)


class NotBack(Reshaped):
    def forward(self, x):
        return self.norm(x.transpose(1, 2))


class Plain(Reshaped):
    def forward(self, x):
        return self.norm(x)


class Homemade(Reshaped):
    def forward(self, x):
        mean = x.mean(dim=(0, 1), keepdim=True)
        return (x - mean) / (x.var(dim=(0, 1), keepdim=True, correction=0) + 1e-5).sqrt()


class FromPyTorch(nn.Module):
    def __init__(self, config, dropout=0.0, norm_first=True, middle=4):
        super().__init__()
        self.config = config
        C = config.n_embd
        self.tokens, self.places = (
            nn.Embedding(config.vocab_size, C),
            nn.Embedding(config.block_size, C),
        )
        layer = nn.TransformerEncoderLayer(
            C, config.n_head, middle * C, dropout, "gelu", batch_first=True, norm_first=norm_first
        )
        self.layers = nn.TransformerEncoder(layer, config.n_layer, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(C)

    def hidden(self, T):
        return ~llmkit.causal_mask(T)

    def forward(self, ids):
        T = ids.size(1)
        x = self.tokens(ids) + self.places(torch.arange(T))
        return self.norm(self.layers(x, mask=self.hidden(T))) @ self.tokens.weight.T


class Unmasked(FromPyTorch):
    def hidden(self, T):
        return None


class UpsideDown(FromPyTorch):
    def hidden(self, T):
        return llmkit.causal_mask(T)


def dropping_out(config):
    return FromPyTorch(config, dropout=0.1)


def norm_after(config):
    return FromPyTorch(config, norm_first=False)


def narrow(config):
    return FromPyTorch(config, middle=1)


class Unplaced(FromPyTorch):
    def forward(self, ids):
        x = self.layers(self.tokens(ids), mask=self.hidden(ids.size(1)))
        return self.norm(x) @ self.tokens.weight.T


class Unused(FromPyTorch):
    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.size(1)]
        return self.norm(x) @ self.tokens.weight.T


class OneLayer(FromPyTorch):
    def __init__(self, config):
        super().__init__(config)
        self.layers.layers = self.layers.layers[:1]


class OwnOutput(FromPyTorch):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)


def turned(x, exponents, second):
    D = x.size(-1)
    angle = torch.arange(x.size(-2))[:, None] * 10000 ** (-exponents(D) / D)
    a, b = x.chunk(2, dim=-1)
    first = a * angle.cos() - b * angle.sin()
    return torch.cat([first, second(a, b, angle.cos(), angle.sin())], dim=-1)


def even(D):
    return torch.arange(0, D, 2)


def each(D):
    return torch.arange(D // 2)


def speeds_still_wrong(x):
    return turned(x, each, lambda a, b, cos, sin: a * sin + b * cos)


def second_half_still_wrong(x):
    return turned(x, even, lambda a, b, cos, sin: a * sin + a * cos)


def wrong_sign(x):
    return turned(x, even, lambda a, b, cos, sin: a * sin - b * cos)


def other_way(x):
    return torch.cat(rotary(torch.cat(x.chunk(2, -1)[::-1], -1)).chunk(2, -1)[::-1], -1)


def neighbours(x):
    D = x.size(-1)
    angle = torch.arange(x.size(-2))[:, None] * 10000 ** (-even(D) / D)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(pairs, dim=-1).flatten(-2)


def along_the_heads(x):
    return rotary(x.transpose(1, 2)).transpose(1, 2)


def changing(layer, x, positions, near=torch.allclose):
    before = layer(x)
    for s in positions:
        other = x.clone()
        other[:, s] = torch.randn(x.size(0), x.size(2))
        after = layer(other)
        for t in range(x.size(1)):
            if t != s and not near(after[:, t], before[:, t]):
                return True
    return False


def close(a, b):
    return torch.allclose(a, b, atol=1e-5)


def by_the_last(layer, x):
    return changing(layer, x, [x.size(1) - 1], close)


def by_the_first(layer, x):
    return changing(layer, x, [0], close)


def to_the_bit(layer, x):
    return changing(layer, x, range(x.size(1)), torch.equal)


def in_eval_mode(layer, x):
    layer.eval()
    return changing(layer, x, range(x.size(1)), close)


def by_a_constant(layer, x):
    before = layer(x)
    for s in range(x.size(1)):
        other = x.clone()
        other[:, s] += 1
        differs = (layer(other) - before).abs().amax(dim=(0, 2)) > 1e-5
        differs[s] = False
        if differs.any():
            return True
    return False


def with_itself(layer, x):
    other = torch.randn(x.shape)
    return not close(layer(other), layer(x))


def always(layer, x):
    return True


WRONG = {
    "05b.changes": [
        ((True, True, True, True, False), "reads a bag"),
        ((False, True, False, True, False), "at another distance from the last one"),
        ((False, True, True, False, True), "the wrong way round"),
        ((False, True, True, True, True), "all distances are as they were"),
        ((True, False, True, True, False), "item 0: another result is wanted"),
        ([0, 1, 1, 1, 0], "item 0: another result is wanted"),
    ],
    "05b.wave_product": [
        (sines, "not its sine"),
        (speeds_for_all_columns, "there are C / 2 speeds"),
        (divided, "a sum, not a mean"),
        (one_speed, "speeds of their own"),
        (half_the_exponent, "wave_product(3, 4): another number is wanted"),
    ],
    "05b.repaired_rotary": [
        (speeds_still_wrong, "the speeds are wrong still"),
        (second_half_still_wrong, "the second half is wrong still"),
        (wrong_sign, "mind the sign"),
        (other_way, "the arrows turn backwards"),
        (neighbours, "the shape is right, the numbers are not"),
        (along_the_heads, "the shape is right, the numbers are not"),
    ],
    "05b.norm_across_batch": [
        (ByLayer, "that is a layer norm"),
        (Reshaped, "only cuts the numbers anew"),
        (NotBack, "the shape is (1, 1, 2), not (1, 2, 1)"),
        (Plain, "it raised"),
        (Homemade, "at 'in eval mode'"),
    ],
    "05b.mixes_positions": [
        (by_the_last, "changing the last position alone"),
        (by_the_first, "changing the first position alone"),
        (to_the_bit, "differ by rounding"),
        (in_eval_mode, "in the mode in which it comes"),
        (by_a_constant, "is what a norm takes away"),
        (with_itself, "compare the others only"),
        (always, "mixes_positions('linear'): another result is wanted"),
    ],
    "05b.from_pytorch": [
        (Unmasked, "it sees the future"),
        (UpsideDown, "the mask is upside down"),
        (dropping_out, "dropout 0.1 unless told otherwise"),
        (norm_after, "the norms stand after the sums"),
        (narrow, "at 'trainable numbers'"),
        (OneLayer, "at 'layers'"),
        (OwnOutput, "a matrix of its own"),
        (Unplaced, "add the positions' rows"),
        (Unused, "does not go through them"),
        (llmkit.GPT, "at 'layers'"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "05b.repaired_rotary": {"x.shape[+2:]": "which is the same for four dimensions"},
    "05b.from_pytorch": {
        "enable_nested_tensor=True": "which is about texts of several lengths: here it only warns",
        "- self.wpe.weight[": "their sign is learned as well",
    },
}
