"""`FastGPT`: the model we race, kept apart from the one we teach.

It answers to the same interface as `llmkit.GPT` (`forward`, `loss`, `new_cache`, `.config`) and
spends its parameters and its time differently. Against GPT-2's shape:

- **Embeddings of the last two, three and four tokens**, added to the token's own (hashed to tables
  of fixed size, as in N-Grammer, Roy et al. 2022). Counting is what a small model would spend its
  first layers on; here it is a look-up.
- **Rotary positions** (Su et al. 2021) and **normalised queries and keys** (Henry et al. 2020):
  attention stays well scaled at high learning rates.
- **LayerNorm without parameters**, which a CPU does in a third of RMSNorm's time; no biases.
- **ReLU²** (So et al. 2021) in place of GELU.
- **Zero initialisation** of the layers that write to the residual stream, of the n-gram tables and
  of the output layer: each block starts as the identity, and the first loss is ln(vocab_size).
- **Dropout** by the byte, and none on attention's weights: a CPU spent a fifth of a step on it.

How it is trained (Muon for matrices) is in `optim`, a very short way to do so in `sprint`, and what
was tried without a gain in benchmarks/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmkit.attention import KVCache, rotary_table, rotate
from llmkit.speed.cpu import best_dtype, byte_dropout, causal_attention
from llmkit.train_config import TrainConfig

HASH = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / the golden ratio, as an int64 (Knuth 6.4)


@dataclass(frozen=True)
class FastGPTConfig:
    """The shape of a `FastGPT`.

    vocab_size, block_size, n_layer, n_head, n_embd, dropout: as in `GPTConfig`.
    ngram_rows: rows of the tables for the last two, three, ... tokens; 0 for no table.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    ngram_rows: tuple[int, ...] = (8_192, 16_384, 32_768)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        object.__setattr__(self, "ngram_rows", tuple(self.ngram_rows))  # JSON knows lists only
        if min(self.ngram_rows, default=0) < 0:
            raise ValueError(f"ngram_rows must be 0 (no table) or more, not {self.ngram_rows}.")
        if self.n_embd % (2 * self.n_head):
            raise ValueError(
                f"n_embd {self.n_embd} must be a multiple of 2 * n_head, {2 * self.n_head}: each "
                "head gets an equal share, and rotary positions turn its features in pairs"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}.")


class FastCache:
    """Keys and values of every layer, and the last few tokens, which the n-gram embeddings need."""

    def __init__(self, layers: list[KVCache], last: Tensor) -> None:
        self.layers = layers
        self.last = last  # (B, longest n-gram - 1), -1 where there was no token yet

    @property
    def length(self) -> int:
        return self.layers[0].length


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys.

    Its weights are spared by dropout: that costs more time on a CPU than it gains.
    """

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        """x (B, T, C) -> (B, T, C); turns: the cosines and sines of x's positions."""
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k = rotate(norm(heads[:2]), *turns)  # (B, H, T, D) each
        v = heads[2]
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D), S >= T
        y = causal_attention(q, k, v)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))  # (B, T, C)


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        x = x + self.dropout(self.attn(norm(x), turns, cache))  # (B, T, C)
        hidden = F.relu(self.c_fc(norm(x))).square()  # (B, T, 4C)
        return x + self.dropout(self.c_proj(hidden))


class FastGPT(nn.Module):
    """A GPT built for speed of learning; see the module's docstring for what differs and why."""

    gradient_checkpointing = False  # as in `GPT`
    can_score_last = True

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        rows = {str(n): size for n, size in enumerate(config.ngram_rows, 2) if size}
        self.ngrams = nn.ModuleDict(
            {n: nn.Embedding(size, config.n_embd) for n, size in rows.items()}
        )
        self.dropout = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Token embeddings: normal(0, 1), as `nn.Embedding` does it. Matrices: uniform, standard
        deviation 1 / sqrt(fan_in). N-gram tables, c_proj and lm_head: zero."""
        if isinstance(module, nn.Linear):
            bound = (3 / module.in_features) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, (Attention, Block)):
            nn.init.zeros_(module.c_proj.weight)
        elif isinstance(module, FastGPT):
            nn.init.zeros_(module.lm_head.weight)
            for weight in module.ngrams.parameters():
                nn.init.zeros_(weight)

    def forward(
        self, ids: Tensor, cache: FastCache | None = None, last_only: bool = False
    ) -> Tensor:
        """ids (B, T) -> logits (B, T, vocab_size), or with last_only (B, 1, vocab_size)."""
        start = 0 if cache is None else cache.length
        if start + ids.shape[1] > self.config.block_size:
            raise ValueError(
                f"{start + ids.shape[1]} tokens do not fit this model's block_size of "
                f"{self.config.block_size}; pass the last {self.config.block_size}."
            )
        x = self.dropout(norm(self._embed(ids, cache)))  # (B, T, C)
        if torch.is_autocast_enabled(ids.device.type):  # halve what is read and written on the way
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        table = rotary_table(start, start + ids.shape[1], self.head_size, x)
        turns = tuple(part.to(x.dtype) for part in table)  # made once, for all layers
        for block, part in zip(
            self.h, cache.layers if cache else [None] * len(self.h), strict=True
        ):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, turns, None, use_reentrant=False)
            else:
                x = block(x, turns, part)
        if last_only:
            x = x[:, -1:]  # (B, 1, C)
        return self.lm_head(norm(x))  # (B, T, V)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats of predicting y (B, T) from x (B, T)."""
        return F.cross_entropy(self(x).flatten(0, 1).float(), y.flatten())

    def new_cache(self, batch_size: int = 1) -> FastCache:
        """An empty cache for `forward(ids, cache=...)`, on this model's device."""
        weight, config = self.lm_head.weight, self.config
        shape = (batch_size, config.n_head, config.block_size, self.head_size)
        layers = [KVCache(*shape, device=weight.device, dtype=weight.dtype) for _ in self.h]
        reach = len(config.ngram_rows)
        return FastCache(layers, torch.full((batch_size, reach), -1, device=weight.device))

    @property
    def head_size(self) -> int:
        return self.config.n_embd // self.config.n_head

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def _embed(self, ids: Tensor, cache: FastCache | None) -> Tensor:
        """The token's embedding plus those of the n-grams that end in it: (B, T) -> (B, T, C)."""
        x = self.wte(ids)
        if not self.ngrams:
            return x
        V, T, reach = self.config.vocab_size, ids.shape[1], len(self.config.ngram_rows)
        past = ids.new_full((ids.shape[0], reach), -1) if cache is None else cache.last
        window = torch.cat([past, ids], dim=1) + 1  # (B, reach + T); 0 = no token yet
        if cache is not None:
            cache.last = window[:, T:] - 1
        key = ids  # the n-gram's number, in the base V + 1
        for n in range(2, reach + 2):
            key = key + window[:, reach + 1 - n :][:, :T] * (V + 1) ** (n - 1)
            if str(n) in self.ngrams:
                rows = self.config.ngram_rows[n - 2]
                x = x + self.ngrams[str(n)](bucket(key, (V + 1) ** n, rows))
        return x


class Dropout(nn.Dropout):
    """`nn.Dropout` by `speed.cpu.byte_dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return byte_dropout(x, self.p if self.training else 0.0)


def norm(x: Tensor) -> Tensor:
    """LayerNorm over the last dimension, without parameters."""
    return F.layer_norm(x, x.shape[-1:])


def bucket(keys: Tensor, distinct: int, rows: int) -> Tensor:
    """The table row of each n-gram: its own where all fit, else shared by hashing."""
    return keys if distinct <= rows else (keys * HASH >> 20) % rows


def sprint(
    vocab_size: int, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[FastGPTConfig, TrainConfig]:
    """A tiny model and a way to train it in about a second on a CPU.

    On Tiny Shakespeare it passes what nanoGPT's recipe for a CPU reaches (about 1.89 nats per
    character, see benchmarks/time_to_loss.py). The n-gram tables carry most of it.
    """
    shape = FastGPTConfig(vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=64)
    how = TrainConfig(
        steps=60,
        batch_size=32,
        optimizer="muon",
        learning_rate=0.08,
        adamw_share=1.0,
        warmup=2,
        seed=seed,
        dtype=best_dtype(device),
    )
    return shape, how
