"""The GPT that the notebooks teach: its configuration, its blocks, and the model.

With the default choices it is GPT-2, weight for weight; the others are those on which textbooks
differ. How positions exchange information lives in ``attention``.

Shapes: B batch, T time, C = n_embd the width of the residual stream, V = vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from llmkit.arguments import check_choice, check_number, check_type
from llmkit.attention import CausalSelfAttention, KVCache, sinusoids
from llmkit.data import check_rows

INIT_STD = 0.02  # the standard deviation of GPT-2's first weights
CHOICES = {"position": ("learned", "sinusoidal", "rotary"), "activation": ("gelu", "relu")}
GPT2_SIZES = {  # layers, heads, width
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}


@dataclass(frozen=True)
class GPTConfig:
    """Everything that fixes the shape of a GPT; an impossible one raises ValueError.

    Attributes:
        vocab_size, block_size: how many tokens there are, and how many the model sees at once.
        n_layer, n_head: blocks, one after the other; attention heads in each, dividing n_embd.
        n_embd: features per position, the width of the residual stream.
        dropout: share of activations set to zero while training, 0 <= dropout < 1.
        bias: whether linear layers and layer norms have a bias (the output layer never has).
        position: "learned", a trained vector per position (GPT-2); "sinusoidal", a fixed one
            (Vaswani et al. 2017); "rotary", none, but queries and keys are turned (Su et al. 2021).
        norm_first: True, layer norm before attention and feed-forward (GPT-2); False, after the
            sum (the 2017 transformer).
        activation: "gelu", GPT-2's tanh approximation of it; "relu", as in 2017.
        tie_weights: whether the output layer uses the token embedding's weights.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = True
    position: str = "learned"
    norm_first: bool = True
    activation: str = "gelu"
    tie_weights: bool = True

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            check_number(name, getattr(self, name), int, least=1)
            check_type(name, getattr(self, name), int)  # NumPy's would not go into a checkpoint
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("bias", "norm_first", "tie_weights"):
            check_type(name, getattr(self, name), bool)
        check_number("dropout", self.dropout, least=0, below=1)
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}")
        if self.position == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary needs n_embd / n_head to be even, not {self.head_size}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head  # features per attention head

    @classmethod
    def gpt2(cls, name: str = "gpt2") -> GPTConfig:
        """The shape of a published GPT-2: "gpt2" (124M), "gpt2-medium", "gpt2-large", "gpt2-xl"."""
        check_choice("name", name, GPT2_SIZES)
        # GPT-2's tokens: 256 bytes, 50,000 merges of them, and the mark of a text's end.
        return cls(50257, 1024, *GPT2_SIZES[name])


class MLP(nn.Module):
    """The feed-forward part: each position on its own, four times as wide in the middle."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        # Without a bend between them, two linear layers would do no more than one. GPT-2 learned
        # with this approximation of GELU, so its weights expect it.
        self.act = nn.GELU(approximate="tanh") if config.activation == "gelu" else nn.ReLU()
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))  # (B, T, C) -> 4C -> (B, T, C)


class Block(nn.Module):
    """One layer: attention (look around), then feed-forward (think), each added to the stream."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        check_type("config", config, GPTConfig)
        self.norm_first = config.norm_first
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        # Added to x, not put in its place: through a sum the gradient reaches the first layer
        # undiminished, however many layers there are.
        if self.norm_first:
            x = x + self.attn(self.ln_1(x), cache)
            return x + self.mlp(self.ln_2(x))
        # A norm on the stream itself changes that gradient in each layer: such models need a warmup
        # (Xiong et al. 2020).
        x = self.ln_1(x + self.attn(x, cache))
        return self.ln_2(x + self.mlp(x))


class GPT(nn.Module):
    """Embeddings, a stack of blocks, and a score for each possible next token.

    With ``gradient_checkpointing`` set to True, training keeps each block's input only and computes
    the rest of it again on the way back: less memory for a third more time (Chen et al. 2016).
    """

    gradient_checkpointing = False
    can_score_last = True  # that forward has last_only, for `generate`
    waves: Tensor  # where positions are sinusoidal: (block_size, C)

    def __init__(self, config: GPTConfig):
        super().__init__()
        check_type("config", config, GPTConfig)
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        elif config.position == "sinusoidal":
            # Waves of their own size, 1/√2 in the mean, would drown new embeddings: shrink them.
            waves = INIT_STD * math.sqrt(2) * sinusoids(config.block_size, config.n_embd)
            # A buffer goes where the model goes, to a GPU say, and is not trained; nor is it saved,
            # because it can be computed again.
            self.register_buffer("waves", waves, persistent=False)  # (block_size, C)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        if config.norm_first:  # otherwise the last block has already normed its sum
            self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            # What a token means when read and when predicted is much the same: one table for both
            # spares V x C numbers, and learns from both (Press & Wolf 2017).
            self.lm_head.weight = self.wte.weight
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew, such that the first predictions are nearly even (loss ≈ ln V).

        ==========================  ==============================================================
        matrices and embeddings     normal, 0.02 (Radford et al. 2019, GPT-2)
        c_proj.weight               normal, 0.02 / √(2 n_layer): the stream is a sum of 2 n_layer of
                                    these and should not grow with the depth
        biases; gains of norms      0; 1
        gains of the last norm, if  1, -1, 1, -1, ...: the stream still looks like its token, which
        post-norm and tied          the tied output layer would (by 0.02 C) expect to be repeated
        ==========================  ==============================================================
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0 if name.endswith("bias") else 1)
            else:
                # The last norm makes the stream √C long, so the scores begin as numbers of the size
                # 0.02 √C, which is below 1: no token is much likelier than another.
                depth = 2 * self.config.n_layer if name.endswith("c_proj.weight") else 1
                parameter.normal_(0, INIT_STD / math.sqrt(depth))
        if self.config.tie_weights and not self.config.norm_first:
            last_norm = self.get_parameter(f"h.{self.config.n_layer - 1}.ln_2.weight")
            last_norm[1::2] = -1

    def forward(
        self, ids: Tensor, cache: list[KVCache] | None = None, last_only: bool = False
    ) -> Tensor:
        """Score every possible next token at every position: ids (B, T) -> logits (B, T, V).

        With a cache from ``new_cache``, ids continue the positions it holds, and it grows by T.
        With last_only, the last position alone is scored: (B, 1, V), which is all that drawing a
        token takes. ValueError where ids are not (B, T), or too many. (Ids are not compared with
        the vocabulary here, which a GPU would have to wait for, but where they enter: in `train`,
        `evaluate` and `generate`.)
        """
        check_rows(ids)
        room = self.config.block_size
        start = 0 if cache is None else cache[0].length
        if (stop := start + ids.size(1)) > room:
            raise ValueError(f"{stop} tokens do not fit into block_size {room}: shorten the ids")
        x = self.wte(ids)  # (B, T, C)
        if self.config.position == "learned":
            x = x + self.wpe.weight[start:stop]  # + (T, C): along time, alike in every row
        elif self.config.position == "sinusoidal":
            x = x + self.waves[start:stop]
        x = self.drop(x)
        parts: Sequence[KVCache | None] = cache or [None] * len(self.h)
        for block, part in zip(self.h, parts, strict=True):
            # Where no gradient will be asked for, nothing is kept, and nothing needs to be redone.
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = recompute(block, x, use_reentrant=False)
            else:
                x = block(x, part)  # (B, T, C)
        if last_only:  # before the output layer, which would work for all V tokens at each position
            x = x[:, -1:]  # (B, 1, C)
        if self.config.norm_first:
            x = self.ln_f(x)
        return self.lm_head(x)  # (B, T, V)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats, in float32, of the targets y (B, T) given ids x (B, T); those
        of -100 are left out, as in ``torch.nn.functional.cross_entropy``."""
        check_rows(x, "x")
        check_rows(y, "y")
        logits = self(x).float()  # half precision cannot resolve a loss near ln V
        return F.cross_entropy(logits.view(-1, logits.size(-1)), y.reshape(-1))

    def new_cache(self, batch_size: int = 1) -> list[KVCache]:
        """An empty key-value cache for ``forward``, one part per block."""
        c, like = self.config, {"device": self.wte.weight.device, "dtype": self.wte.weight.dtype}
        return [KVCache(batch_size, c.n_head, c.block_size, c.head_size, **like) for _ in self.h]

    def num_parameters(self) -> int:
        """How many numbers the model is made of; tied weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())


@contextmanager
def gradient_checkpointing(model: Any, wanted: bool) -> Iterator[None]:
    """Inside the ``with``, if wanted, the model computes each block again on the way back."""
    before = getattr(model, "gradient_checkpointing", None)
    if wanted and before is None:
        raise ValueError("this model cannot do gradient_checkpointing: leave it out of the config")
    if wanted:
        model.gradient_checkpointing = True
    try:
        yield
    finally:
        if wanted:
            model.gradient_checkpointing = before
