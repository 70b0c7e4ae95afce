"""Answers to notebook 05's exercises as readers would write them, and what each is told."""

import math

import torch
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


class OneLayer(FromPyTorch):
    def __init__(self, config):
        super().__init__(config)
        self.layers.layers = self.layers.layers[:1]


class OwnOutput(FromPyTorch):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)


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
    "05.wave_product": [
        (sines, "not its sine"),
        (speeds_for_all_columns, "there are C / 2 speeds"),
        (divided, "a sum, not a mean"),
        (one_speed, "speeds of their own"),
        (half_the_exponent, "wave_product(3, 4): another number is wanted"),
    ],
    "05.norm_across_batch": [
        (ByLayer, "that is a layer norm"),
        (Reshaped, "only cuts the numbers anew"),
        (NotBack, "the shape is (1, 1, 2), not (1, 2, 1)"),
        (Plain, "it raised"),
        (Homemade, "at 'in eval mode'"),
    ],
    "05.repaired_block": [
        (StillX, "what attention found is lost"),
        (StillOneNorm, "the second norm is ln_2"),
        (SideBySide, "the feed-forward layer reads x"),
        (LastReplaced, "the second layer replaces the stream"),
        (After, "the norms stand after the sums"),
        (NormedStream, "the shape is right, the numbers are not"),
    ],
    "05.from_pytorch": [
        (Unmasked, "it sees the future"),
        (UpsideDown, "the mask is upside down"),
        (dropping_out, "dropout 0.1 unless told otherwise"),
        (norm_after, "the norms stand after the sums"),
        (narrow, "at 'trainable numbers'"),
        (OneLayer, "at 'layers'"),
        (OwnOutput, "a matrix of its own"),
        (llmkit.GPT, "at 'layers'"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "05.from_pytorch": {
        "enable_nested_tensor=True": "which is about texts of several lengths: here it only warns",
        "- self.wpe.weight[": "their sign is learned as well",
    },
}
