"""`FastGPT`: the model we race, kept apart from the one we teach.

It answers to the same interface as `llmkit.GPT` (`forward`, `loss`, `new_cache`, `.config`) and
spends its parameters and its time differently. Against GPT-2's shape:

- **Embeddings of the last two and three tokens**, added to the token's own (hashed to a table of
  fixed size, as in N-Grammer, Roy et al. 2022). Counting is what a small model would spend its
  first layers on; here it is a look-up.
- **Rotary positions** (Su et al. 2021) and **normalised queries and keys** (Henry et al. 2020):
  attention stays well scaled at high learning rates.
- **RMSNorm without parameters** (Zhang & Sennrich 2019) in place of LayerNorm; no biases anywhere.
- **ReLU²** (So et al. 2021) in place of GELU.
- **Zero initialisation** of the layers that write to the residual stream, of the n-gram tables and
  of the output layer: each block starts as the identity, and the first loss is ln(vocab_size).

How it is trained (Muon for matrices) is in `optim`; the command line's recipes are in `recipes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmkit.attention import KVCache, rotary


@dataclass(frozen=True)
class FastGPTConfig:
    """The shape of a `FastGPT`.

    vocab_size, block_size, n_layer, n_head, n_embd, dropout: as in `GPTConfig`.
    bigram_rows, trigram_rows: rows of the tables for the last two and three tokens; 0: no table.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bigram_rows: int = 8_192
    trigram_rows: int = 16_384

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("bigram_rows", "trigram_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (no table) or more, not {getattr(self, name)}.")
        if self.n_embd % (2 * self.n_head):
            raise ValueError(
                f"n_embd {self.n_embd} must be a multiple of 2 * n_head, {2 * self.n_head}: each "
                "head gets an equal share, and rotary positions turn its features in pairs"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}.")


class FastCache:
    """Keys and values of every layer, and the last two tokens, which the n-gram embeddings need."""

    def __init__(self, layers: list[KVCache], last: Tensor) -> None:
        self.layers = layers
        self.last = last  # (B, 2), -1 where there was no token yet

    @property
    def length(self) -> int:
        return self.layers[0].length


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        B, T, C = x.shape
        start = 0 if cache is None else cache.length
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, H, T, D)
        q, k = (rotary(F.rms_norm(part, part.shape[-1:]), start) for part in (q, k))
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D), S = start + T
            if start and T > 1:  # a chunk after earlier tokens: row t sees the past and itself
                mask = torch.ones(T, start + T, dtype=torch.bool, device=x.device).tril(start)
        y = F.scaled_dot_product_attention(
            q, k, v, mask, self.dropout if self.training else 0.0, is_causal=start == 0
        )  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        x = x + self.dropout(self.attn(norm(x), cache))  # (B, T, C)
        hidden = F.relu(self.c_fc(norm(x))).square()  # (B, T, 4C)
        return x + self.dropout(self.c_proj(hidden))


class FastGPT(nn.Module):
    """A GPT built for speed of learning; see the module's docstring for what differs and why."""

    def __init__(self, config: FastGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        rows = {2: config.bigram_rows, 3: config.trigram_rows}
        self.ngrams = nn.ModuleDict(
            {str(n): nn.Embedding(size, config.n_embd) for n, size in rows.items() if size}
        )
        self.dropout = nn.Dropout(config.dropout)
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
            for table in module.ngrams.values():
                nn.init.zeros_(table.weight)

    def forward(self, ids: Tensor, cache: FastCache | None = None) -> Tensor:
        """ids (B, T) int64 -> logits (B, T, vocab_size), float32 unless autocast says otherwise."""
        start = 0 if cache is None else cache.length
        if start + ids.shape[1] > self.config.block_size:
            raise ValueError(
                f"{start + ids.shape[1]} tokens do not fit this model's block_size of "
                f"{self.config.block_size}; pass the last {self.config.block_size}."
            )
        x = self.dropout(norm(self._embed(ids, cache)))  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layers[layer])
        return self.lm_head(norm(x))  # (B, T, V)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats of predicting y (B, T) from x (B, T)."""
        return F.cross_entropy(self(x).flatten(0, 1).float(), y.flatten())

    def new_cache(self, batch_size: int = 1) -> FastCache:
        """An empty cache for `forward(ids, cache=...)`, on this model's device."""
        weight, config = self.lm_head.weight, self.config
        shape = (batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)
        layers = [KVCache(*shape, device=weight.device, dtype=weight.dtype) for _ in self.h]
        return FastCache(layers, torch.full((batch_size, 2), -1, device=weight.device))

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def _embed(self, ids: Tensor, cache: FastCache | None) -> Tensor:
        """The token's embedding plus those of the n-grams that end in it: (B, T) -> (B, T, C)."""
        x = self.wte(ids)
        if not self.ngrams:
            return x
        past = ids.new_full((len(ids), 2), -1) if cache is None else cache.last
        window = torch.cat([past, ids], dim=1)  # (B, 2 + T)
        if cache is not None:
            cache.last = window[:, -2:]
        one, two = window[:, 1:-1] + 1, window[:, :-2] + 1  # one and two tokens back; 0 = none
        pair = one * self.config.vocab_size + ids
        keys = {"2": pair, "3": two * (self.config.vocab_size + 1) * self.config.vocab_size + pair}
        for n, table in self.ngrams.items():
            distinct = (self.config.vocab_size + 1) ** int(n)
            x = x + table(bucket(keys[n], distinct, table.num_embeddings))
        return x


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without parameters."""
    return F.rms_norm(x, x.shape[-1:])


def bucket(keys: Tensor, distinct: int, rows: int) -> Tensor:
    """The table row of each n-gram: its own where all fit, else shared by hashing."""
    return keys if distinct <= rows else (keys * 0x9E3779B1 >> 7) % rows
