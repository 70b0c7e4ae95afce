"""What a model costs, before it is built: parameters, arithmetic, memory, and the machine's speed.

Counting needs no weights, so GPT-2 XL is counted at once on any laptop. What a run did take is
measured too: time by `training`, memory by `peak_memory`.

Shapes: B batch, T time, C = n_embd, V = vocab_size, L = n_layer.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from llmkit.model import GPT, GPTConfig
from llmkit.optim import hidden_matrices
from llmkit.speed.cpu import fast_matmul
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig

PARTS = {  # what of a parameter's name tells its part of the model, the first that is found
    "wte": "token embeddings",
    "ngrams": "n-gram embeddings",
    "wpe": "positions",
    ".ln_": "norms",
    ".attn.": "attention",
    ".c_": "feed-forward",
    "lm_head": "output",
}


@lru_cache(16)  # of GPT-2 XL it takes a second
def skeleton(config: Any) -> GPT | FastGPT:
    """The model of a configuration without its numbers: shapes only, on PyTorch's "meta" device.

    To be read only: whoever asks for the same configuration again gets the same model.
    """
    with torch.device("meta"):
        return FastGPT(config) if isinstance(config, FastGPTConfig) else GPT(config)


def parameters(config: Any) -> dict[str, int]:
    """How many numbers each part of the model learns; their sum is ``model.num_parameters()``.

    config: a GPTConfig or FastGPTConfig of any size. A part the model does not have is left out;
    an output layer that is tied to the token embeddings has no numbers of its own.
    """
    counts: dict[str, int] = {}
    for name, parameter in skeleton(config).named_parameters():  # tied weights come once
        part = next((part for sign, part in PARTS.items() if sign in f".{name}"), "other")
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def flops_per_token(config: Any, T: int | None = None) -> int:
    """Floating-point operations to train on one token: 6 N + 12 L T C.

    N counts the matrices that multiply: attention's, the feed-forward's, the output layer's (V C,
    tied or not). Looking up an embedding multiplies nothing; biases, norms, GELU and softmax are
    left out. Each number of a matrix is multiplied and added once per token on the way forward,
    2 N, and twice on the way back, 4 N: for the gradient of what came in, and for its own.
    Attention's q kᵀ and its average of v take 2 T C each a layer, so 12 L T C with the way back,
    as if every position looked at all T: half of that is masked, and a kernel may skip it. Blocks
    computed again (gradient checkpointing) are not counted.

    T: the length of the sequences; None: block_size. The count is PaLM's (Chowdhery et al. 2022,
    appendix B). "6 N D" for D tokens (Kaplan et al. 2020, Hoffmann et al. 2022) drops 12 L T C.
    """
    T = config.block_size if T is None else T
    layers = [m for m in skeleton(config).modules() if isinstance(m, nn.Linear)]
    N = sum(layer.weight.numel() for layer in layers)
    return 6 * N + 12 * config.n_layer * T * config.n_embd


def training_memory(
    config: GPTConfig,
    batch_size: int,
    T: int | None = None,
    *,
    dtype: str = "float32",
    fused: bool = True,
    optimizer: str = "adamw",
    gradient_checkpointing: bool = False,
) -> dict[str, int]:
    """Bytes that training a `GPT` holds at once: weights, gradients, optimizer state, activations.

    Weights and gradients take 4 bytes a number, whatever dtype is: mixed precision keeps them in
    float32. AdamW keeps two more such numbers for each, Muon one for each matrix it is given.
    Activations are what the way forward keeps for the way back; bytes per position and block:

    =============================  =========  =====================
    inputs of the two norms        2 · 4 C    float32 always
    inputs of the four matrices    7 · s C    C, C, C and 4 C wide
    queries, keys, values          3 · s C    twice if rotary and fused
    input of the GELU              4 · s C    none with ReLU
    of attention's softmax         4 H        its sums, fused; else its H T weights, s H T
    of the two norms               16         means, spreads
    =============================  =========  =====================

    s = 4 in float32, 2 in bfloat16 and float16 (and there, a copy of each matrix). The last norm,
    output layer, logits and ids add (4 + s) C + 4 V + 24. Attention is fused (Dao et al. 2022) on
    a GPU, on a CPU as `speed.cpu.fuses` says; fused=False counts plain products. With gradient
    checkpointing each block keeps its input, 4 C, and one at a time is computed again. All without
    dropout; within 2 % of what autograd saves. A run's peak is higher by what it works on:
    gradients of activations.
    """
    if not isinstance(config, GPTConfig):
        raise TypeError(f"training_memory knows the GPT's blocks only, not {type(config).__name__}")
    model = skeleton(config)
    numbers = model.num_parameters()
    matrices = sum(weight.numel() for weight in hidden_matrices(model))
    state = 8 * numbers - (4 * matrices if optimizer == "muon" else 0)
    C, s = config.n_embd, 4 if dtype == "float32" else 2
    T = config.block_size if T is None else T
    rows = batch_size * T
    wide = 10 + 4 * (config.activation == "gelu") + 3 * (fused and config.position == "rotary")
    block = rows * (8 * C + wide * s * C + 16 + config.n_head * (4 if fused else s * T))
    last = rows * ((4 + s) * C + 4 * config.vocab_size + 24)
    if gradient_checkpointing:
        activations = config.n_layer * rows * 4 * C + max(block, last)
    else:
        activations = config.n_layer * block + last
    activations += 2 * (matrices + config.vocab_size * C) if s == 2 else 0
    names = ("weights", "gradients", "optimizer state", "activations")
    return dict(zip(names, (4 * numbers, 4 * numbers, state, activations), strict=True))


@torch.no_grad()
def matmul_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seconds: float = 1.0,
    size: int | None = None,
) -> float:
    """The fastest that large square matrices are multiplied here, measured: FLOP/s.

    PyTorch's own way and `speed.cpu.fast_matmul` are tried; the faster one counts.
    size: rows and columns; None: 2048 on a CPU, 8192 on a GPU.
    """
    device = torch.device(device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    size = size or (2048 if device.type == "cpu" else 8192)
    x, fastest = torch.randn(size, size, device=device, dtype=dtype), math.inf
    for way in (nullcontext(), fast_matmul(device)):
        with way:
            torch.mm(x, x)  # the first call prepares the library
            started = now = time.perf_counter()
            while now - started < seconds / 2:
                wait()
                before = time.perf_counter()
                torch.mm(x, x)
                wait()
                now = time.perf_counter()
                fastest = min(fastest, now - before)
    return 2 * size**3 / fastest


def peak_memory(device: str | torch.device = "cpu") -> int:
    """The most memory used so far, in bytes: by this process, or by PyTorch's tensors on a GPU.

    0 on Windows, where Python does not tell.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
