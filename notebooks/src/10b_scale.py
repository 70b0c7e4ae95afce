# %% [markdown]
# # 10b · What scale costs
# *How long a run will take and whether it will fit, computed before it starts.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/10b_scale.ipynb)
#
# About 24 minutes to read, exercises aside.
#
# ← [10 · Speed](10_speed.ipynb) · [10c · How much for how much](10c_scaling.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it installs nothing.
import importlib.util
import os
import subprocess
import sys

if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait soon leave the cores to others
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
if importlib.util.find_spec("llmkit") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+https://github.com/your-account/llmkit@v0.1.0")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [source]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {source}; pip says above why.")
    importlib.invalidate_caches()

# %% [markdown]
# GPT-2 is a model of 2019, and small beside today's. How long would it take to train it on this machine? Would it fit into
# the memory? One could start the run and see. But nobody starts a run of months in order to see, and nobody needs to:
# time and memory both follow from a few numbers that are known beforehand. We compute them here, and check each formula
# on a model that is small enough to be counted.

# %%
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import llmkit
from llmkit import drawings, plots
from llmkit.scale import cost, token_file

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
ids = tokenizer.encode(text)  # (N,)
V = tokenizer.vocab_size

config = llmkit.GPTConfig(V, block_size=64, n_layer=4, n_head=4, n_embd=128)
T, C = config.block_size, config.n_embd
model = llmkit.GPT(config).to(runtime.device)
batches = llmkit.Batches(ids, T, batch_size=12, seed=0, device=runtime.device)
x, y = next(batches)  # (B, T) each
print(f"the small model: {model.num_parameters():,} parameters")


# %% [markdown]
# ## Parameters
#
# All matrices of a GPT follow from four numbers: vocabulary V, window T, layers L and width C. Attention has a matrix from
# C to 3 C (queries, keys, values) and one from C to C; the feed-forward part one from C to 4 C and one back. Each has
# a bias. A norm has two numbers for each feature, and a block has two norms.

# %%
def gpt2_parameters(V: int, T: int, L: int, C: int) -> int:
    attention = (3 * C * C + 3 * C) + (C * C + C)  # queries, keys and values; their way out
    feed_forward = (4 * C * C + 4 * C) + (4 * C * C + C)  # four times as wide, and back
    norms = 2 * 2 * C
    return V * C + T * C + L * (attention + feed_forward + norms) + 2 * C


for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    shape = llmkit.GPTConfig.gpt2(name)
    counted = gpt2_parameters(shape.vocab_size, shape.block_size, shape.n_layer, shape.n_embd)
    print(f"{name:12}{counted:14,}")
    assert counted == sum(cost.parameters(shape).values())

# %% [markdown]
# (The paper prints 117 million for the smallest. That was a mistake, which its authors
# [corrected](https://github.com/openai/gpt-2#gpt-2): it is 124 million.)
#
# A block has about 12 C² parameters, so twice the width makes four times the block. Where do they sit? `cost.parameters`
# counts part by part. With the four sizes of GPT-2 stands a model that tutorials like: 4 layers, 768 wide, on the same
# vocabulary of 50,257 tokens.

# %%
models = {"4 × 768": llmkit.GPTConfig(50257, 1024, 4, 12, 768)}
for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    models[name] = llmkit.GPTConfig.gpt2(name)
shares = {"embeddings": [], "attention": [], "feed-forward": []}
for shape in models.values():
    parts = cost.parameters(shape)
    embeddings = parts["token embeddings"] + parts["positions"]
    row = (embeddings, parts["attention"], parts["feed-forward"])
    for column, number in zip(shares.values(), row, strict=True):
        column.append(100 * number / sum(parts.values()))
assert shares["embeddings"][0] > 50 > 6 > shares["embeddings"][-1]
title = "On the same vocabulary, a larger model has a smaller share of embeddings"
plots.stacked_bars(list(models), shares, title, xlabel="share of the parameters (%)")


# %% [markdown]
# More than half of the tutorial's model is embeddings, because its vocabulary was made for a deeper one. The norms are too
# few to be seen.
#
# ## Arithmetic
#
# To multiply a vector by a matrix of N numbers takes N multiplications and N additions: 2N *floating-point operations*,
# FLOPs. The backward pass computes two such products, one for the gradient of the vector and one for that of the matrix: 4N.
# So a token costs 6N, and D tokens cost *6ND* ([Kaplan et al. 2020](https://arxiv.org/abs/2001.08361)). N counts the numbers
# that are multiplied: all matrices, with the output layer, and no look-ups. What 6N leaves out are the scores and averages of
# attention, in which no parameter takes part: 12 L T C for each token. PyTorch can count for us:

# %%
def plain_attention(q, k, v, dropout=0.0):  # (B, H, T, D) each, and out
    """Attention by products, which PyTorch can count."""
    T, D = q.shape[-2:]
    mask = torch.full((T, T), -torch.inf, device=q.device).triu(diagonal=1)
    return (q @ k.transpose(-2, -1) / math.sqrt(D) + mask).softmax(dim=-1) @ v


for block in model.h:
    block.attn.attend = plain_attention
with FlopCounterMode(display=False) as counter:
    loss = model.loss(x, y)
    forward = counter.get_total_flops()
    loss.backward()
counted = counter.get_total_flops() // x.numel()  # per token
N = 12 * config.n_layer * C * C + V * C  # the matrices, without biases and look-ups
print(f"{counted:,} FLOPs per token, of which 6N: {6 * N:,}")
assert counted == 6 * N + 12 * config.n_layer * T * C == cost.flops_per_token(config)
assert counter.get_total_flops() == 3 * forward  # the forward pass is a third

# %% [markdown]
# The formula is exact. Now the other side: how fast is the machine? Speeds are given in FLOP/s, operations a second, with
# the usual prefixes: a GFLOP/s is 10⁹ of them, a TFLOP/s 10¹². The speed at which large matrices are multiplied is the
# machine's *peak*. The share of the peak that a training step reaches is its *utilisation*
# ("MFU", for *model FLOPs utilisation*):

# %%
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def seconds_of_a_step() -> float:
    before = time.perf_counter()
    model.loss(*next(batches)).backward()
    optimizer.step()
    optimizer.zero_grad()
    torch.zeros(1, device=runtime.device).item()  # wait for the device
    return time.perf_counter() - before


step = statistics.median(seconds_of_a_step() for _ in range(12))
peak = cost.matmul_peak(runtime.device, seconds=0.5)  # FLOP/s, in float32
speed = counted * x.numel() / step
print(f"≈ {x.numel() / step:,.0f} tokens a second, which is ≈ {speed / 1e9:.0f} GFLOP/s")
print(f"the peak: ≈ {peak / 1e9:.0f} GFLOP/s; utilisation ≈ {speed / peak:.0%}")
assert speed < 1.5 * peak

# %% [markdown]
# And now anyone's training run can be estimated on the back of an envelope: FLOPs, divided by GPUs × peak × utilisation.
# An A100 has a peak of 312 TFLOP/s in bfloat16 ([NVIDIA](https://www.nvidia.com/en-us/data-center/a100/)), and a utilisation
# of 40 % is good work. Parameters and tokens are those that the papers state.

# %%
A100 = 312e12 * 0.40  # FLOP/s that do arrive
runs = {  # parameters, tokens
    "GPT-2 as nanoGPT": (124e6, 300e9),  # github.com/karpathy/nanoGPT, train_gpt2.py
    "GPT-3": (175e9, 300e9),  # Brown et al. 2020, arxiv.org/abs/2005.14165
    "Chinchilla": (70e9, 1.4e12),  # Hoffmann et al. 2022, arxiv.org/abs/2203.15556
    "Llama 3 8B": (8e9, 15e12),  # Llama team 2024, arxiv.org/abs/2407.21783
    "Llama 3 405B": (405e9, 15.6e12),
}
print(f"{'':18}{'FLOPs':>10}{'A100-days':>14}{'A100s for 30 days':>20}")
for name, (parameters, tokens) in runs.items():
    flops = 6 * parameters * tokens
    days = flops / A100 / 86_400
    print(f"{name:18}{flops:10.2e}{days:14,.0f}{math.ceil(days / 30):20,}")
assert math.isclose(6 * 175e9 * 300e9, 3.14e23, rel_tol=0.01)  # what the GPT-3 paper states
assert math.isclose(6 * 405e9 * 15.6e12, 3.8e25, rel_tol=0.01)  # and the Llama 3 paper
years = 6 * 124e6 * 300e9 / (0.4 * peak) / 86_400 / 365
print(f"GPT-2 on this machine, if it ran at 40 % of its peak: ≈ {years:,.1f} years")

# %% [markdown]
# The rule gives what the papers of GPT-3 and Llama 3 state, to a hundredth. nanoGPT tells of about four days on eight A100s,
# 32 A100-days where we estimate 21. So we can say how busy those were:

# %%
gpt2 = llmkit.GPTConfig.gpt2()
utilisation = cost.flops_per_token(gpt2) * 300e9 / (8 * 4 * 86_400 * 312e12)
print(f"{utilisation:.0%} of the peak")
assert 0.25 < utilisation < 0.35

# %% [markdown]
# ## Memory
#
# Time can be waited for. Memory is there or it is not. Training holds four things at once: the parameters, their
# gradients, the two averages that AdamW keeps for each (notebook 06), and the *activations*, the tensors which the forward
# pass computes and the backward pass needs again. In float32 the first three take 4 + 4 + 8 = **16 bytes for each
# parameter**, before any text is read:

# %%
for name, shape in models.items():
    memory = cost.training_memory(shape, batch_size=1)
    fixed = sum(memory.values()) - memory["activations"]
    window = memory["activations"] / 1e6
    print(f"{name:12}{fixed / 1e6:8,.0f} MB, and {window:6,.0f} MB for a window of 1,024 tokens")
    assert fixed == 16 * sum(cost.parameters(shape).values())
assert fixed > 16e9


# %% [markdown]
# A T4, the free GPU in Colab, has 16 GB: GPT-2 XL does not fit into it, not even with an empty batch. And the activations
# come on top, for every window of the batch and every position of it. The formula for them is long (it stands in
# `help(cost.training_memory)`), so let us count. PyTorch calls a function of ours, a *hook*, whenever it keeps a
# tensor for the backward pass:

# %%
def kept_bytes(model, x, y) -> int:
    """What the forward pass keeps for the backward pass, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}  # the memory behind each tensor, once

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other may take its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(x, y)
    return sum(storage.nbytes() for storage in kept.values())


# %%
for attend, fused in ((plain_attention, False), (llmkit.CausalSelfAttention.attend, True)):
    for block in model.h:
        block.attn.attend = attend
    kept = kept_bytes(model, x, y)
    estimate = cost.training_memory(config, len(x), fused=fused)["activations"]
    print(f"{attend.__name__:17}{kept / 1e6:6.2f} MB; the formula says {estimate / 1e6:.2f} MB")
    assert math.isclose(kept, estimate, rel_tol=runtime.pick(cpu=0.02, gpu=0.1))

# %% [markdown]
# Plain attention also keeps its weights, T × T for each head of each layer. Fused attention, PyTorch's own, computes them
# again tile by tile (notebook 10). The difference is little for windows of 64. It grows with the *square* of T: how much
# would plain attention add for one window of GPT-2, and for one that is 32 times as long?

# %%
for T_long in (1_024, 32_768):
    fused, plain = (
        cost.training_memory(gpt2, 1, T_long, fused=fused)["activations"] for fused in (True, False)
    )
    print(f"T = {T_long:6,}: {fused / 1e9:6.1f} GB fused, {plain / 1e9:7.1f} GB plain")
assert plain > 20 * fused

# %% [markdown]
# ## Memory paid for with time
#
# Two ways to need less. *Gradient checkpointing* ([Chen et al. 2016](https://arxiv.org/abs/1604.06174)) keeps only the input of
# each block. When the backward pass comes to a block, it computes the rest of that block once more.

# %%
drawings.checkpointing()


# %% [markdown]
# The gradients should be the same, and the price at most one more forward pass, a third of the work. Are they, and is it?

# %%
def gradients_of(model, x, y) -> tuple[list[torch.Tensor], int]:
    """The gradients, and the FLOPs that they took."""
    model.zero_grad()
    with FlopCounterMode(display=False) as counter:
        model.loss(x, y).backward()
    return [p.grad.clone() for p in model.parameters()], counter.get_total_flops()


for block in model.h:
    block.attn.attend = plain_attention
kept, (plain, flops) = kept_bytes(model, x, y), gradients_of(model, x, y)
model.gradient_checkpointing = True
kept_then, (again, flops_then) = kept_bytes(model, x, y), gradients_of(model, x, y)
model.gradient_checkpointing = False
for a, b in zip(plain, again, strict=True):
    assert torch.allclose(a, b, atol=1e-5)
print(f"kept: {kept_then / kept:.1%} of the bytes, for {flops_then / flops:.2f} times the FLOPs")
assert kept_then < 0.2 * kept
assert 1.2 < flops_then / flops < 4 / 3

# %% [markdown]
# *Accumulation* is the other way: a large batch as several small ones. `backward()` adds to the gradients that are there, so
# they add up over the parts, and only one part's activations are held at a time. Nothing is computed twice.

# %%
drawings.accumulation()

# %%
model.zero_grad()
parts = list(zip(x.chunk(4), y.chunk(4), strict=True))
for x_part, y_part in parts:
    (model.loss(x_part, y_part) / len(parts)).backward()  # adds to .grad
for a, p in zip(plain, model.parameters(), strict=True):
    assert torch.allclose(a, p.grad, atol=1e-5)
kept_then = kept_bytes(model, *parts[0])
print(f"{len(parts)} parts of {len(parts[0][0])} windows: {kept_then / kept:.1%} of the bytes")

# %% [markdown]
# The division is there because a loss is a mean: the mean over the batch is the mean of the parts' means (if the parts are
# equally large; exercise 5). In llmkit these are `TrainConfig(gradient_checkpointing=True)` and
# `TrainConfig(batch_size=4, gradient_accumulation_steps=4)`. What they mean for GPT-2, with 16 windows of 1,024 tokens at
# each update:

# %%
choices = {
    "16 at once": dict(batch_size=16),
    "16, bfloat16": dict(batch_size=16, dtype="bfloat16"),
    "16, checkpointed": dict(batch_size=16, gradient_checkpointing=True),
    "4 times 4": dict(batch_size=4),
    "all three": dict(batch_size=4, gradient_checkpointing=True, dtype="bfloat16"),
}
memories = [cost.training_memory(gpt2, **choice) for choice in choices.values()]
parts = {part: [memory[part] / 1e9 for memory in memories] for part in memories[0]}
totals = [sum(memory.values()) / 1e9 for memory in memories]
assert totals[-1] == min(totals) < max(totals) / 3
title = "The same update of GPT-2, in a fraction of the memory"
ends = [f"{gigabytes:.1f} GB" for gigabytes in totals]
plots.stacked_bars(list(choices), parts, title, xlabel="gigabytes", ends=ends)

# %% [markdown]
# Parameters, gradients and averages stay; what can be saved is activations.
#
# ## Many GPUs
#
# A batch can be split in space as well as in time. Each of W processes, on a GPU of its own, holds the whole model and takes
# its share of the batch. Then they average their gradients, and all make the same update. Is that the same training?

# %%
halves = list(zip(x.chunk(2), y.chunk(2), strict=True))  # one for each of two "processes"
from_each = [gradients_of(model, *half)[0] for half in halves]
for whole, *parts in zip(plain, *from_each, strict=True):
    assert torch.allclose(whole, torch.stack(parts).mean(dim=0), atol=1e-5)
print("the mean of the gradients of two halves is the gradient of the whole")

# %% [markdown]
# So one line in a terminal is all, and the loss curve is that of a single process with an eight times larger batch:
#
# ```
# torchrun --nproc_per_node 8 -m llmkit train
# ```
#
# (In a script of your own that torchrun starts, call `llmkit.train(..., processes=llmkit.scale.distributed.join())`.)
#
# The price is one exchange of all gradients at every update. Passed round in a ring, each GPU sends 2(W - 1)/W times their
# size ([Patarasuk and Yuan 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)). For GPT-2 as nanoGPT trains it, about half a
# million tokens an update on eight A100s:

# %%
W, tokens = 8, 491_520
computing = cost.flops_per_token(gpt2) * tokens / (W * A100)
sent = 2 * (W - 1) / W * 4 * sum(cost.parameters(gpt2).values())  # bytes
links = {"NVLink of an A100": 300e9, "Ethernet, 10 Gbit/s": 1.25e9}  # bytes/s each way
print(f"computing: {computing:.2f} s; each GPU sends {sent / 1e9:.2f} GB")
for name, bytes_per_second in links.items():
    print(f"{name:24}{sent / bytes_per_second:6.3f} s")
assert sent / 300e9 < computing / 100
assert sent / 1.25e9 > computing

# %% [markdown]
# Inside a machine the exchange is hardly felt. Over an office's network it takes longer than the computing. That is why
# gradients are exchanged once an update, not after each part (accumulation makes updates rarer), and why large clusters
# are built around their networks.
#
# Where a model does not fit into one GPU at all, the 16 bytes are split too: each GPU keeps the gradients, averages and
# parameters of its share, and fetches the others' when it needs them
# ([Rajbhandari et al. 2020](https://arxiv.org/abs/1910.02054); in PyTorch, FSDP). llmkit does not do that.
#
# ## A text larger than memory
#
# The last thing that must fit is the text. nanoGPT's copy of OpenWebText has
# [9 billion tokens](https://github.com/karpathy/nanoGPT/tree/master/data/openwebtext): 72 GB as PyTorch's usual integers of 8
# bytes, 18 GB with 2 bytes for each, since 50,257 < 2¹⁶. Such a file need not be loaded. The system can *map* it: it
# looks like a tensor, and what is read of it comes from the disk at that moment. `token_file` writes one and maps it:

# %%
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    path = token_file.write(Path(folder) / "play.safetensors", [text], tokenizer)
    mapped, _ = token_file.load(path)  # (N,), on the disk
    size = mapped.numel() * mapped.element_size()
    loaded = ids.numel() * ids.element_size()
    print(f"{loaded:,} bytes in memory; in the file {size:,}, {mapped.dtype}")
    from_disk = next(llmkit.Batches(mapped, T, batch_size=12, seed=0, device=runtime.device))
    del mapped
assert torch.equal(from_disk[0], x)
assert torch.equal(from_disk[1], y)

# %% [markdown]
# The same batch, cut from a file. A random window touches a few thousand bytes of it, whatever its size.
#
# ## What we saw
#
# - Four numbers give a GPT's parameters: 12 C² a layer, and the embeddings.
# - A run costs 6ND FLOPs; PyTorch's own count agreed to the last operation. Divided by the peak and a utilisation of some 40 %,
#   it gives the time, for GPT-2 as for models three thousand times larger.
# - Memory takes 16 bytes a parameter and, for every window, the activations. Counted through hooks they were what the formula
#   says.
# - Checkpointing shrinks activations for up to a third more work, accumulation for none. Neither changes the gradients.
# - Many GPUs split the batch and change nothing else, as long as the network carries the gradients in time. A text of any
#   size is mapped.
#
# Six times N times D: so a budget can be spent on a large model that reads little, or on a small one that reads much. Which
# is better, and what will it have learned in the end? That is [notebook 10c](10c_scaling.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · By hand** (easy, 5 minutes). nanoGPT's model for Tiny Shakespeare on a GPU has 65 characters, windows of 256, 6 layers,
# 6 heads and a width of 384. How many parameters has our GPT in that shape? (With biases, positions and norms; the output
# layer shares the token embeddings.)

# %% tags=["exercise"]
parameters_of_nanogpt = None  # your answer

# %%
check("10b.parameters", parameters_of_nanogpt)

# %%
hint("10b.parameters")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · In the head** (easy, 5 minutes). Predict, with no computer: a model of 7 billion parameters trains on eight A100s at
# 40 % of 312 TFLOP/s each. How many tokens a second does it read? Round as you like: an answer within a factor of 2 passes.

# %% tags=["exercise"]
tokens_per_second = None  # your answer

# %%
check("10b.tokens_per_second", tokens_per_second)


# %% [markdown]
# **3 · Utilisation** (medium, 8 minutes). A run of a GPT reads so many tokens a second on so many GPUs, each of a known peak.
# What share of the peak is that? Take attention's 12 L T C into account. (`config` has vocab_size, block_size, n_layer
# and n_embd; do not call `cost`.)

# %% tags=["exercise"]
def utilisation_of(config, tokens_per_second: float, gpus: int, peak: float) -> float:
    return None  # your answer


# %%
check("10b.utilisation_of", utilisation_of)


# %% [markdown]
# **4 · What fits** (medium, 10 minutes). What is the largest batch (windows of 1,024) that fits into so many gigabytes (10⁹ bytes),
# by `cost.training_memory` in float16 and with 1 GB left free? A T4 has 16. Guess first: with checkpointing, how many times
# as many windows of GPT-2 fit as without?

# %% tags=["exercise"]
def largest_batch(name: str, gigabytes: float, checkpointing: bool) -> int:
    shape = llmkit.GPTConfig.gpt2(name)
    one = cost.training_memory(shape, 1, dtype="float16", gradient_checkpointing=checkpointing)
    return int(gigabytes * 1e9 // sum(one.values()))  # does each window bring all of that?


# %%
check("10b.largest_batch", largest_batch)


# %% [markdown]
# **5 · Repair it** (medium, 10 minutes). Accumulation has a trap. A target of -100 is left out of the loss (for padding, or where
# only the answer counts, as in notebook 13). Then the parts of a batch have different numbers of targets, and the mean of
# their means is *not* the mean of the whole. `transformers` had
# [that mistake](https://huggingface.co/blog/gradient_accumulation) until 2024. Mend it. (A part may have no target at all; its
# mean is then no number.)

# %% tags=["exercise"]
def accumulated(model, parts: list) -> torch.Tensor:
    """The loss of a batch that comes in parts [(x, y), ...]: should equal that of the whole."""
    return sum(model.loss(x, y) for x, y in parts) / len(parts)


# %%
check("10b.accumulated", accumulated)


# %% [markdown]
# **6 · Every k-th input** (hard, 20 minutes). Checkpointing need not keep the input of *every* block. Keep that of every k-th of L
# blocks, the first included: then the backward pass computes k blocks again at once and holds all their activations. An input
# takes `a` bytes, the rest of a block `b`. At its fullest moment such a pass holds all kept inputs and one stretch of k
# blocks. Which k from 1 to L needs the least, the smallest of them if several do? Guess how it grows with L.

# %% tags=["exercise"]
def best_stretch(L: int, a: int, b: int) -> int:
    return 1  # keeps every input


# %%
check("10b.best_stretch", best_stretch)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: by hand
parameters_of_nanogpt = gpt2_parameters(65, 256, 6, 384)
print(f"{parameters_of_nanogpt:,}")
# nanoGPT itself says 10.65 million: it has no biases and leaves the positions out.
check("10b.parameters", parameters_of_nanogpt)

# %% tags=["solution"]
# @title Solution 2: in the head
# 8 × 0.4 × 312e12 is about 1e15 FLOP/s; a token costs 6 × 7e9, about 4e10.
tokens_per_second = 1e15 / 4e10
check("10b.tokens_per_second", tokens_per_second)

# %% tags=["solution"]
# @title Solution 3: utilisation


def utilisation_of(config, tokens_per_second: float, gpus: int, peak: float) -> float:
    L, C = config.n_layer, config.n_embd
    N = 12 * L * C * C + config.vocab_size * C
    flops_per_token = 6 * N + 12 * L * config.block_size * C
    return tokens_per_second * flops_per_token / (gpus * peak)


check("10b.utilisation_of", utilisation_of)

# %% tags=["solution"]
# @title Solution 4: what fits


def largest_batch(name: str, gigabytes: float, checkpointing: bool) -> int:
    shape = llmkit.GPTConfig.gpt2(name)
    how = dict(dtype="float16", gradient_checkpointing=checkpointing)
    one, two = (sum(cost.training_memory(shape, n, **how).values()) for n in (1, 2))
    each = two - one  # the rest is there whatever the batch
    return max(0, int(((gigabytes - 1) * 1e9 - (one - each)) // each))


for name in ("gpt2", "gpt2-medium"):
    print(name, [largest_batch(name, 16, checkpointing) for checkpointing in (False, True)])
check("10b.largest_batch", largest_batch)

# %% tags=["solution"]
# @title Solution 5: a mean of means


def accumulated(model, parts: list) -> torch.Tensor:
    total, targets = 0.0, 0
    for x, y in parts:
        if n := int((y != -100).sum()):  # a mean times its number is a sum
            total, targets = total + model.loss(x, y) * n, targets + n
    return total / targets


check("10b.accumulated", accumulated)

# %% tags=["solution"]
# @title Solution 6: every k-th input


def best_stretch(L: int, a: int, b: int) -> int:
    def held(k):
        return math.ceil(L / k) * a + k * b

    return min(range(1, L + 1), key=held)  # the first of several


# L/k · a falls and k · b grows: they are equal at k = √(L a / b). So with the best k, what is held
# grows with √L only: this is the rule of Chen et al.
print([best_stretch(L, 1, 4) for L in (4, 16, 64, 256, 1024)])
check("10b.best_stretch", best_stretch)
