"""The model: llmkit's GPT with seven changes, each of them one choice of its configuration.

What it takes over is told there: the mask, the attention itself and the cache in ``attention``, the
turning of queries and keys in ``positions``. Files of others are ``folders``'.

Shapes: B batch, T time, C = n_embd width, D = head_size, V = vocab_size; H heads of queries, G of
keys and values (n_kv_head); N = B · T tokens, K = n_active experts for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from llmkit.arguments import check_choice, check_number, check_type
from llmkit.attention import KVCache, causal_attention, rotary_table, rotate
from llmkit.data import check_rows
from llmkit.model import INIT_STD

CHOICES = {"norm": ("rms", "layer"), "activation": ("swiglu", "gelu")}
SIZES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
OPEN = ("n_kv_head", "head_size", "n_inner", "window", "n_expert")  # 0 leaves them out, or open


@dataclass(frozen=True)
class ModernConfig:
    """Everything that fixes the shape of a `Modern`; an impossible one raises ValueError.

    With norm="layer" and activation="gelu", and the rest left alone, it is llmkit's GPT with rotary
    positions and without biases, weight for weight.

    Attributes:
        vocab_size, block_size, n_layer, n_head, n_embd, tie_weights: as in `GPTConfig`.
        n_kv_head: heads of keys and values, each of which serves n_head / n_kv_head heads of
            queries (grouped-query attention, Ainslie et al. 2023); 0: n_head.
        head_size: features per head; 0: n_embd / n_head.
        n_inner: width in the middle of the feed-forward part, or of one expert; 0: what gives it
            GPT's 8 n_embd² weights (4 n_embd for "gelu", 8/3 n_embd for the three of "swiglu").
        norm: "rms", divide by the root mean square (Zhang & Sennrich 2019), or "layer".
        activation: "swiglu", one product gates another (Shazeer 2020), or "gelu".
        rope_base: the slowest pair of features turns by nearly 1 / rope_base radians a position.
        qk_norm: whether queries and keys are normed, head by head (Henry et al. 2020).
        window: how many positions each one sees, itself among them (Beltagy et al. 2020); 0: all.
        n_expert: feed-forward parts in each block, of which a router gives each token to n_active
            (Shazeer et al. 2017; Jiang et al. 2024); 0: one, and no router.
        norm_eps: what norms add to a mean square, which may be 0.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    n_kv_head: int = 0
    head_size: int = 0
    n_inner: int = 0
    norm: str = "rms"
    activation: str = "swiglu"
    rope_base: float = 10_000.0
    qk_norm: bool = False
    window: int = 0
    n_expert: int = 0
    n_active: int = 2
    tie_weights: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self):
        for names, least in ((SIZES, 1), (OPEN, 0), (("n_active",), 1)):
            for name in names:
                check_number(name, getattr(self, name), int, least=least)
                check_type(name, getattr(self, name), int)  # NumPy's would not go into a file
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("qk_norm", "tie_weights"):
            check_type(name, getattr(self, name), bool)
        check_number("rope_base", self.rope_base, least=1)
        check_number("norm_eps", self.norm_eps, least=0)
        if not self.head_size and self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}")
        inner = 4 * self.n_embd if self.activation == "gelu" else 8 * self.n_embd // 3
        found = (self.n_kv_head or self.n_head, self.head_size or self.n_embd // self.n_head)
        filled = zip(OPEN, (*found, self.n_inner or inner), strict=False)
        for name, value in filled:
            object.__setattr__(self, name, value)  # once, while it is made
        if self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_head {self.n_head} must be a multiple of n_kv_head {self.n_kv_head}"
            )
        if self.head_size % 2:
            raise ValueError(f"rotary positions need head_size to be even, not {self.head_size}")
        if self.n_expert and self.n_active > self.n_expert:
            raise ValueError(f"n_active {self.n_active} is more than n_expert {self.n_expert}")


def new_norm(config: ModernConfig, size: int) -> nn.Module:
    """A norm of vectors of this size: x / √(mean(x²) + eps), times a gain for each feature; a layer
    norm takes their mean off first."""
    if config.norm == "layer":
        return nn.LayerNorm(size, config.norm_eps, bias=False)
    return nn.RMSNorm(size, config.norm_eps)


class WindowCache(KVCache):
    """A cache that forgets what no later position will look at: it keeps window - 1 of each."""

    def __init__(self, batch_size, n_head, window, head_size, **like):
        super().__init__(batch_size, n_head, 0, head_size, **like)
        self.window = window

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v (B, G, T, D); returns those kept and these, each (B, G, S, D). ``length`` counts
        the forgotten too."""
        k, v = torch.cat([self.keys, k.detach()], 2), torch.cat([self.values, v.detach()], 2)
        oldest = max(0, k.size(2) - self.window + 1)
        self.length += k.size(2) - self.keys.size(2)
        self.keys, self.values = k[:, :, oldest:], v[:, :, oldest:]
        return k, v


class GroupedAttention(nn.Module):
    """Attention to a position's own past, in which groups of heads share their keys and values."""

    def __init__(self, config: ModernConfig):
        super().__init__()
        self.config = config
        H, G, D, C = config.n_head, config.n_kv_head, config.head_size, config.n_embd
        self.c_attn = nn.Linear(C, (H + 2 * G) * D, bias=False)  # queries, keys, values at once
        self.c_proj = nn.Linear(H * D, C, bias=False)
        if config.qk_norm:
            self.q_norm, self.k_norm = new_norm(config, D), new_norm(config, D)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], cache: KVCache | None = None
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C); turn: `rotary_table` of its T positions."""
        (B, T, _), H, G = x.shape, self.config.n_head, self.config.n_kv_head
        heads = self.c_attn(x).view(B, T, H + 2 * G, -1).transpose(1, 2)  # (B, H + 2G, T, D)
        qk, v = heads.split([H + G, G], dim=1)
        if self.config.qk_norm:
            qk = torch.cat([self.q_norm(qk[:, :H]), self.k_norm(qk[:, H:])], dim=1)
        q, k = rotate(qk, *turn).type_as(v).split([H, G], dim=1)  # (B, H, T, D), (B, G, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, S, D) each
        out = causal_attention(q, k, v, window=self.config.window)  # (B, H, T, D)
        return self.c_proj(out.transpose(1, 2).reshape(B, T, -1))


class FeedForward(nn.Module):
    """Each position on its own, wider in the middle."""

    def __init__(self, config: ModernConfig):
        super().__init__()
        self.gated = config.activation == "swiglu"
        widths = 2 if self.gated else 1  # the gate, and what passes it
        self.c_fc = nn.Linear(config.n_embd, widths * config.n_inner, bias=False)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        x = self.c_fc(x)
        if not self.gated:
            return self.c_proj(F.gelu(x, approximate="tanh"))
        gate, up = x.chunk(2, dim=-1)
        return self.c_proj(F.silu(gate) * up)


class Experts(nn.Module):
    """Several feed-forward parts, of which each token goes through the few that suit it best."""

    def __init__(self, config: ModernConfig):
        super().__init__()
        self.n_active = config.n_active
        self.router = nn.Linear(config.n_embd, config.n_expert, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.n_expert))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C) -> the K likeliest experts of each token, with shares that sum to 1: shares and
        experts, (N, K) each."""
        p = self.router(x).softmax(dim=-1, dtype=torch.float32)
        shares, chosen = p.topk(self.n_active)
        return (shares / shares.sum(dim=-1, keepdim=True)).type_as(x), chosen

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        tokens = x.flatten(0, 1)  # (N, C)
        shares, chosen = self.route(tokens)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)  # those that it was chosen for
            out = out.index_add(0, rows, shares[rows, place, None] * expert(tokens[rows]))
        return out.view_as(x)


class ModernBlock(nn.Module):
    """One layer: attention, then feed-forward, each normed first and added to the stream."""

    def __init__(self, config: ModernConfig):
        super().__init__()
        self.ln_1 = new_norm(config, config.n_embd)
        self.attn = GroupedAttention(config)
        self.ln_2 = new_norm(config, config.n_embd)
        self.mlp = Experts(config) if config.n_expert else FeedForward(config)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], cache: KVCache | None = None
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), turn, cache)
        return x + self.mlp(self.ln_2(x))


class Modern(nn.Module):
    """Embeddings, a stack of blocks, and a score for each possible next token: as `GPT`, and with
    the same methods."""

    can_score_last = True

    def __init__(self, config: ModernConfig):
        super().__init__()
        check_type("config", config, ModernConfig)
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layer))
        self.ln_f = new_norm(config, config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew, as `GPT` does: gains 1; matrices normal, 0.02, but those that
        write to the stream 0.02 / √(2 n_layer)."""
        for name, weight in self.named_parameters():
            if weight.dim() == 1:
                weight.fill_(1)
            else:
                depth = 2 * self.config.n_layer if name.endswith("c_proj.weight") else 1
                weight.normal_(0, INIT_STD / math.sqrt(depth))

    def forward(
        self, ids: Tensor, cache: list[KVCache] | None = None, last_only: bool = False
    ) -> Tensor:
        """Score every possible next token at every position: ids (B, T) -> logits (B, T, V), or
        with last_only (B, 1, V). With a cache from ``new_cache``, ids continue what it holds.

        ValueError where ids are not (B, T), or too many for block_size.
        """
        check_rows(ids)
        start = 0 if cache is None else cache[0].length
        if (stop := start + ids.size(1)) > (room := self.config.block_size):
            raise ValueError(f"{stop} tokens do not fit into block_size {room}: shorten the ids")
        x = self.wte(ids)  # (B, T, C)
        turn = rotary_table(start, stop, self.config.head_size, x, self.config.rope_base)
        parts: Sequence[KVCache | None] = cache or [None] * len(self.h)
        for block, part in zip(self.h, parts, strict=True):
            x = block(x, turn, part)
        if last_only:
            x = x[:, -1:]  # (B, 1, C)
        return self.lm_head(self.ln_f(x))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats, in float32, of the targets y (B, T) given ids x (B, T); those
        of -100 are left out."""
        check_rows(x, "x")
        check_rows(y, "y")
        logits = self(x).float()
        return F.cross_entropy(logits.view(-1, logits.size(-1)), y.reshape(-1))

    def new_cache(self, batch_size: int = 1) -> list[KVCache]:
        """An empty key-value cache for ``forward``, one part per block."""
        c, like = self.config, {"device": self.wte.weight.device, "dtype": self.wte.weight.dtype}
        kind, room = (WindowCache, c.window) if c.window else (KVCache, c.block_size)
        return [kind(batch_size, c.n_kv_head, room, c.head_size, **like) for _ in self.h]

    def num_parameters(self) -> int:
        """How many numbers the model is made of; tied weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())
