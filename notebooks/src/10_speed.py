# %% [markdown]
# # 10 · Speed
# *Where the time of training goes, and how to need less of it.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/10_speed.ipynb)
#
# About 35 minutes to read, exercises aside.
#
# ← [09 · Subword tokenizers](09_subword_tokenizers.ipynb) · [10b · What scale costs](10b_scale.ipynb) →

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
# To train a model is to wait: minutes for a text that looks a little like a play, months on thousands of GPUs for the
# largest models. What exactly are we waiting for, and how much of it is needed?
#
# There are two ways to wait less: make each step faster, or need fewer steps. We take the first, then the second, and
# then race.

# %%
import copy
import math
import os
import statistics
import time
from dataclasses import replace
from itertools import pairwise

os.environ["KINETO_LOG_LEVEL"] = "9"  # or PyTorch's profiler, used below, announces itself
import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import plots
from llmkit.speed.cpu import best_dtype
from llmkit.speed.fast_gpt import sprint

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_text, _ = llmkit.split(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each
V = tokenizer.vocab_size

small = dict(block_size=64, n_layer=4, n_head=4, n_embd=128)
large = dict(block_size=256, n_layer=6, n_head=6, n_embd=384)
config = llmkit.GPTConfig(V, **runtime.pick(cpu=small, gpu=large))
batch_size = runtime.pick(cpu=12, gpu=64)
T, C, H = config.block_size, config.n_embd, config.n_head
print(f"{config.n_layer} layers, {C} wide, windows of {T} characters, {batch_size} in a batch")

# %% [markdown]
# ## The textbook's loop
#
# It is the loop that printed tutorials share. First the batch: windows are cut out of the *text*, one after the other, and
# turned into numbers character by character.

# %%
number_of = {character: i for i, character in enumerate(tokenizer.characters)}


def textbook_batch(dice: torch.Generator) -> tuple:
    """x and y, each (B, T): random windows of the text, and the same, one character on."""
    starts = torch.randint(len(train_text) - T, (batch_size,), generator=dice).tolist()
    windows = [train_text[i : i + T + 1] for i in starts]
    rows = torch.stack([torch.tensor([number_of[c] for c in window]) for window in windows])
    return rows[:, :-1].to(runtime.device), rows[:, 1:].to(runtime.device)


# %% [markdown]
# Then the model. Its attention goes head by head, as one explains it: each head has three matrices of its own, makes its
# own scores, hides the future and takes its own average. The weights we take from a layer of llmkit, cut into the
# pieces that belong to the heads:

# %%
class HeadByHead(nn.Module):
    def __init__(self, layer: llmkit.CausalSelfAttention):
        super().__init__()
        weights, biases = layer.c_attn.weight.detach(), layer.c_attn.bias.detach()
        self.weights = nn.ParameterList(part.clone() for part in weights.chunk(3 * H))  # (D, C)
        self.biases = nn.ParameterList(part.clone() for part in biases.chunk(3 * H))  # (D,)
        self.proj = layer.c_proj

    def head(self, x, h):  # (B, T, C) -> (B, T, D)
        q, k, v = (F.linear(x, self.weights[i], self.biases[i]) for i in (h, H + h, 2 * H + h))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, T, T)
        future = torch.ones_like(scores[0], dtype=torch.bool).triu(diagonal=1)
        return scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v

    def forward(self, x, cache=None):  # (B, T, C) -> (B, T, C)
        return self.proj(torch.cat([self.head(x, h) for h in range(H)], dim=-1))


# %% [markdown]
# All the rest stays as it is in llmkit's GPT. So there is one model, computed in two ways:

# %%
def head_by_head(model: llmkit.GPT) -> llmkit.GPT:
    """A copy of the model with the same weights, whose attention goes head by head."""
    model = copy.deepcopy(model)
    for block in model.h:
        block.attn = HeadByHead(block.attn)
    return model


model = llmkit.GPT(config).to(runtime.device)
textbook = head_by_head(model)
x, y = textbook_batch(torch.Generator().manual_seed(0))  # (B, T) each
assert torch.allclose(textbook(x), model(x), atol=1e-4)
print(f"{textbook.num_parameters():,} parameters; the same predictions as llmkit's GPT")


# %% [markdown]
# Last the step. It has four parts: cut a batch; go *forward*, from the characters to the loss; go *backward*, from the
# loss to the gradients; let the optimizer change the weights. We note the time after each. (A GPU works on while Python
# runs ahead, so a clock in Python measures only how fast work is handed out. To ask for a number makes Python wait until
# all work before it is done.)

# %%
def clock() -> float:
    """The time in seconds, once the device has done all its work."""
    torch.zeros(1, device=runtime.device).item()
    return time.perf_counter()


# %%
def step(get_batch, model, optimizer, dtype: torch.dtype = torch.float32) -> list[float]:
    """One step of training; the seconds that its four parts took."""
    marks = [clock()]
    x, y = get_batch()  # (B, T) each
    marks.append(clock())
    with torch.autocast(runtime.device.type, dtype, enabled=dtype != torch.float32):
        loss = model.loss(x, y)
    marks.append(clock())
    loss.backward()
    marks.append(clock())
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    marks.append(clock())
    return [after - before for before, after in pairwise(marks)]


# %% [markdown]
# (`autocast` is for later: it makes products in shorter numbers.) One timing is no timing. The first steps warm up, and
# any step can be disturbed by something else that the machine does. So we take several and the *median* of each part,
# which a few odd ones do not move.

# %%
dice = torch.Generator().manual_seed(0)
optimizer = torch.optim.AdamW(textbook.parameters(), lr=1e-3)
textbook_step = (lambda: textbook_batch(dice), textbook, optimizer)
steps = runtime.pick(cpu=8, gpu=20)
times = [step(*textbook_step) for _ in range(steps)][2:] or [step(*textbook_step)]
parts = [1000 * statistics.median(part) for part in zip(*times, strict=True)]  # milliseconds
PARTS = ("batch", "forward", "backward", "optimizer")
assert parts[1] + parts[2] > sum(parts) / 2
assert parts[0] < sum(parts) / 10
title = "Most of a step is spent in the model, forward and backward"
plots.bars(PARTS, parts, title, xlabel="milliseconds per step", fmt="{:.1f}")

# %% [markdown]
# The clock says *how long*, not *on what*. A *profiler* does. A model's step is a long list of *operations*: a matrix
# product, a softmax, a copy. Each is carried out by a compiled program, its *kernel*. PyTorch's profiler notes every
# operation that is started and how long it took by itself. There are dozens of names; we gather them into five kinds:

# %%
with torch.profiler.profile(acc_events=True) as profiled:  # it warns without acc_events
    step(*textbook_step)

KINDS = {  # what in an operation's name tells its kind, the first that is found
    "matrix products": ("mm", "linear"),
    "softmax and mask": ("softmax", "masked", "triu"),
    "norms and GELU": ("layer_norm", "gelu"),
    "copying": ("copy_", "cat", "clone"),
}
own_time = runtime.pick(cpu="self_cpu_time_total", gpu="self_device_time_total")
spent, calls = dict.fromkeys([*KINDS, "all the rest"], 0.0), 0
for event in profiled.key_averages():
    if event.key.startswith(("aten::", "mkldnn::")):  # PyTorch's operations, not the profiler's own
        found = (kind for kind, signs in KINDS.items() if any(s in event.key for s in signs))
        spent[next(found, "all the rest")] += getattr(event, own_time)
        calls += event.count

# %%
print(f"one step calls an operation ≈ {calls:,} times")
share = [100 * part / max(1, sum(spent.values())) for part in spent.values()]
title = "A step is more than matrix products"
plots.bars(spent, share, title, xlabel="share of the time (%)", fmt="{:.0f}")

# %% [markdown]
# The matrix products are what a model *is*; nobody can spare us those. Everything else is a cost that can be argued with:
# numbers copied from place to place, and thousands of calls of which most do next to nothing.
#
# **Measure first: what looks slow and what is slow are seldom the same.** Now one cost at a time. Each change must first
# be shown to give the same numbers; only then is it worth a clock.
#
# ## One cost at a time
#
# *Encode once.* The text does not change, so its numbers need not be looked up again at every step. llmkit's `Batches`
# takes the encoded text and cuts all windows out by one operation. Drawn with the same seed, the batches are the same:

# %%
batches = llmkit.Batches(train_ids, T, batch_size, seed=0, device=runtime.device)
dice = torch.Generator().manual_seed(0)
for ours, theirs in zip(next(batches), textbook_batch(dice), strict=True):
    assert torch.equal(ours, theirs)


def milliseconds(work, repeats: int = 30) -> float:
    """The median time of a piece of work."""
    times = []
    for _ in range(repeats):
        before = clock()
        work()
        times.append(1000 * (clock() - before))
    return statistics.median(times)


# %%
slow, fast = milliseconds(lambda: textbook_batch(dice)), milliseconds(lambda: next(batches))
print(f"a batch in ≈ {slow:.2f} ms, now in ≈ {fast:.3f} ms: ≈ {slow / fast:.0f} times as fast")
print(f"of a step that saves ≈ {(slow - fast) / sum(parts):.1%}")
assert fast < slow
assert slow - fast < sum(parts) / 10


# %% [markdown]
# Many times as fast, and next to nothing gained. A part that takes the share s of
# the whole and becomes f times as fast leaves 1 - s + s/f of the time. This is Amdahl's law
# ([1967](https://doi.org/10.1145/1465482.1465560)), and it says where to look: at the longest bar.
#
# *All heads at once.* The matrices of all heads, one below the other, are one matrix. So one product makes all queries, keys
# and values, and the heads become one more dimension, which the products of attention carry along. That is the layer
# which notebook 04 built. Its average is a function that can be exchanged; here is one in four plain operations:

# %%
def plain_attention(q, k, v, dropout=0.0):
    """Each head's average of its past: (B, H, T, D) three times -> (B, H, T, D)."""
    T, D = q.shape[-2:]
    mask = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(diagonal=1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (B, H, T, T)
    return (scores + mask).softmax(dim=-1) @ v


def with_attention(model: llmkit.GPT, attend) -> llmkit.GPT:
    """A copy of the model whose layers average by this function."""
    model = copy.deepcopy(model)
    for block in model.h:
        block.attn.attend = attend
    return model


# %%
together, apart = with_attention(model, plain_attention), head_by_head(model)
together.loss(x, y).backward()
apart.loss(x, y).backward()
assert torch.allclose(together(x), apart(x), atol=1e-4)
assert torch.allclose(together.wte.weight.grad, apart.wte.weight.grad, atol=1e-5)
print(f"{3 * H + 1} products with weights in each layer become 2")

# %% [markdown]
# *A fused optimizer.* AdamW's update of a tensor takes about a dozen small operations, each of which reads and writes all
# its numbers. To *fuse* operations is to do them in one kernel, which reads and writes once. `fused=True` does that:

# %%
torch.optim.AdamW(apart.parameters(), lr=1e-3).step()
torch.optim.AdamW(together.parameters(), lr=1e-3, fused=True).step()
assert torch.allclose(apart.wte.weight, together.wte.weight, atol=1e-5)

# %% [markdown]
# (PyTorch does not multiply matrices itself. On a CPU of the x86 kind it asks Intel's MKL, which leaves half of an AMD
# processor idle, [measured here](../benchmarks/README.md#what-was-found). Another library, oneDNN, is there too, and
# `with llmkit.speed.cpu.fast_matmul():` lets it in. On an Intel processor and on a GPU that changes nothing.)
#
# ## Shorter numbers
#
# Up to here every number came out the same. The next change is of another kind. A number with a point is stored as sign,
# exponent (how large) and fraction (which digits). Fewer bits mean less to move and, on processors that have units for
# it, several products in the time of one. There are two ways to spend 16 bits:

# %%
print(f"{'':9} bits  exponent  fraction  largest  smallest  step above 1")
for dtype, exponent, fraction in [
    (torch.float32, 8, 23), (torch.bfloat16, 8, 7), (torch.float16, 5, 10),
]:  # fmt: skip
    info = torch.finfo(dtype)
    name = str(dtype).removeprefix("torch.")
    print(f"{name:9}{info.bits:5}{exponent:10}{fraction:10}{info.max:9.0e}", end="")
    print(f"{info.tiny:10.0e}{info.eps:14.1e}")
    assert (1 + exponent + fraction, 2.0**-fraction) == (info.bits, info.eps)

# %% [markdown]
# `bfloat16` has all of float32's range, but only two to three digits. `float16` has one digit more and a small range: a
# gradient below its smallest number becomes 0, so the loss is multiplied by a large number first and the gradients divided by
# it after. The weights themselves stay in float32 in either case, only what is multiplied is rounded (*mixed
# precision*). Is that still the same model?

# %%
exact, exact_loss = together(x), together.loss(x, y)
with torch.autocast(runtime.device.type, torch.bfloat16):
    rounded, rounded_loss = together(x), together.loss(x, y)
error = (rounded - exact).abs().max() / exact.abs().max()
print(f"scores differ by up to ≈ {error:.2%}, losses by ≈ {(rounded_loss - exact_loss).abs():.5f}")
assert 1e-4 < error < 0.05
assert torch.allclose(rounded_loss, exact_loss, atol=0.02)


# %% [markdown]
# Not quite; but another batch moves the loss by more than this rounding does, so training does not mind. Only some CPUs
# have units for bfloat16 (others imitate them, slowly). Of the two, the T4, Colab's free GPU, has
# units for float16 alone, and there `llmkit.train` takes that.
#
# NVIDIA's GPUs from the A100 on have a third way, *TF32*: numbers stay float32 in memory, and the units for products read
# only 10 bits of each fraction. PyTorch leaves it off until one says `torch.set_float32_matmul_precision("high")`. Its
# [documentation](https://docs.pytorch.org/docs/stable/notes/cuda.html) reports a large product on an A100 in a seventh of
# the time, with an error of 0.2 % in place of 0.004 %. On a T4 or a CPU without such units that line changes nothing.
#
# ## The clock
#
# All ways take turns, step by step, so that a disturbance hits all of them alike. Where the machine has no bfloat16, the
# last bar is missing.

# %%
def way(model, get_batch=lambda: next(batches), fused=None, dtype=torch.float32) -> tuple:
    """What `step` needs."""
    model = copy.deepcopy(model)
    return get_batch, model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused), dtype


native = best_dtype(runtime.device) or str(runtime.dtype)  # what this machine is good at
apart, together = head_by_head(model), with_attention(model, plain_attention)
ways = {
    "textbook": way(apart, lambda: textbook_batch(dice)),
    "+ encode once": way(apart),
    "+ all heads at once": way(together),
    "+ fused AdamW": way(together, fused=True),
}
if "bfloat16" in native:
    ways["+ bfloat16"] = way(together, fused=True, dtype=torch.bfloat16)

# %%
times = {name: [] for name in ways}
for _ in range(runtime.pick(cpu=16, gpu=20)):
    for name, its_parts in ways.items():
        times[name].append(step(*its_parts))
middle = {
    name: [1000 * statistics.median(part) for part in zip(*rows[1:], strict=True)]
    for name, rows in times.items()
}
gain = {name: sum(middle["textbook"]) / sum(row) for name, row in middle.items()}

# %% tags=["trained"]
assert max(gain.values()) > 1.1
by_part = {part: [row[i] for row in middle.values()] for i, part in enumerate(PARTS)}
title = f"The same training, ≈ {max(gain.values()):.1f} times as fast"
labels = dict(xlabel="milliseconds per step", ends=[f"{ratio:.2f} ×" for ratio in gain.values()])
plots.stacked_bars(list(middle), by_part, title, **labels)


# %% [markdown]
# Each bar is one change more than the bar above it, and its number says how many times as fast as the textbook it is. Not
# every change pays on every machine, and on yours it may be others than where this picture was drawn.
#
# *A compiler.* `model = torch.compile(model)` goes further in the same direction. At its first call it reads what the model
# does, fuses neighbouring operations and writes kernels for just these shapes. On a GPU that can be
# worth more than all of the above: [nanoGPT](https://github.com/karpathy/nanoGPT#efficiency-notes)
# tells of a step in 135 ms in place of 250. The compilation takes seconds to minutes, often again for a new shape; on a CPU
# it needs a C++ compiler. It pays in long runs, and in none on this page.
#
# ## Fused is not always faster
#
# Surely PyTorch's own attention must be faster still: `scaled_dot_product_attention` is *one* kernel in place of our
# four operations, and never writes the (T, T) scores to memory ([Dao et al. 2022](https://arxiv.org/abs/2205.14135)).

# %%
def fused_attention(q, k, v, dropout=0.0):  # (B, H, T, D) each
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


assert torch.allclose(with_attention(model, fused_attention)(x), together(x), atol=1e-4)
formats = [torch.float32] + [torch.bfloat16] * ("bfloat16" in native)
windows = (32, 64, 128, 256, 512)
ratios = {"equally fast": [1.0] * len(windows)}
for dtype in formats:
    row = ratios[str(dtype).removeprefix("torch.")] = []
    for window in windows:
        shape = (2048 // window, 4, window, 32)  # (B, H, T, D): always 2,048 positions
        qkv = torch.randn(3, *shape, device=runtime.device, dtype=dtype, requires_grad=True)
        fused, plain = (
            milliseconds(lambda f=attend, qkv=qkv: f(*qkv).sum().backward(), repeats=5)
            for attend in (fused_attention, plain_attention)
        )
        row.append(fused / plain)

# %%
title = "Below 1, the fused attention is faster: ask window and format"
axes = dict(xlabel="window (positions)", ylabel="time of fused / time of plain", log="xy")
plots.lines(windows, ratios, title, **axes)

# %% [markdown]
# The fused kernel takes the (T, T) square in small tiles. That pays where the square is large, and on a GPU, whose memory
# is slow against its arithmetic. On a CPU with short windows the tiles themselves can be the cost: there, inside
# `with llmkit.speed.cpu.tuned(model):`, llmkit's models take plain products where these are faster.
#
# ## Fewer steps
#
# Now let each step *learn more*. This time the numbers will differ, and the measure is the loss on held-out text after the
# same 60 steps.
#
# First the optimizer. A matrix stretches different directions differently, and a *singular value* is the stretch along one of
# them. A gradient points in some directions far more than in others. *Muon*
# ([Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/)), the optimizer of notebook 06, keeps the directions
# and makes the stretches nearly equal, by a few products of the matrix with itself.

# %% tags=["trained"]
model.zero_grad()
model.loss(x, y).backward()
gradient = model.h[0].mlp.c_fc.weight.grad  # (4 C, C)
matrix = nn.Parameter(torch.zeros_like(gradient))
matrix.grad = gradient
torch.optim.Muon([matrix], lr=1.0, weight_decay=0.0).step()  # a single step, from zero

stretches = {
    "gradient": torch.linalg.svdvals(gradient.float().cpu()),  # (C,), the largest first
    "Muon's step": torch.linalg.svdvals(matrix.detach().float().cpu()),
}
stretches = {name: values / values[0] for name, values in stretches.items()}
assert stretches["gradient"][C // 4] < 0.5 < stretches["Muon's step"][3 * C // 4]
title = "A gradient favours a few directions; Muon's step uses nearly all"
axes = dict(xlabel="direction, the strongest first", ylabel="stretch, as a share of the strongest")
plots.lines(range(1, C + 1), stretches, title, **axes)

# %% [markdown]
# Nearly all of Muon's directions have more than half of the largest stretch. The last few stay weak: the products do not
# reach them, and little of the gradient lies there.
#
# Second, the positions: rotary ones (notebook 05b). They tell attention how far apart two characters are, so that it need
# not learn that from a table.
#
# Third, a model made for short races. A small model spends its first layers on *counting*: after `th` comes `e`. A table can
# do that at once. `FastGPT` gives each position, besides the vector of its character, a vector for the pair, one for
# the three and one for the four characters that end there. How much of it is tables?

# %%
shape, settings = sprint(V, device=runtime.device)  # a tiny FastGPT and how to train it
plain = llmkit.GPTConfig(V, shape.block_size, shape.n_layer, shape.n_head, shape.n_embd)
rotary = replace(plain, position="rotary")
racer = llmkit.FastGPT(shape)
in_tables = sum(table.numel() for table in racer.ngrams.parameters())
all_of_it = racer.num_parameters()
print(f"FastGPT: {all_of_it:,} parameters, {in_tables / all_of_it:.1%} of them in its tables")
print(f"a GPT of the same shape: {llmkit.GPT(rotary).num_parameters():,} parameters")
print(f"{V} characters make {V**2:,} pairs and {V**3:,} triples; rows: {shape.ngram_rows}")
assert in_tables > 0.98 * all_of_it

# %% [markdown]
# So `FastGPT` is mostly a counter, with a small GPT on top that differs a little from ours. Triples are too many for a row
# each: several share one, chosen by a scrambled number, a *hash*.
#
# One change at a time, 60 steps each, on the same batches. We keep the clock of each run for the race:

# %%
held_out = val_ids[:4000]
settings = replace(settings, eval_every=3)
by_adamw = dict(optimizer="adamw", learning_rate=3e-3, adamw_share=None)
trials = {
    "GPT, AdamW": (llmkit.GPT, plain, replace(settings, **by_adamw)),
    "GPT, Muon": (llmkit.GPT, plain, settings),
    "GPT, Muon, rotary": (llmkit.GPT, rotary, settings),
    "FastGPT, no tables": (llmkit.FastGPT, replace(shape, ngram_rows=()), settings),
    "FastGPT": (llmkit.FastGPT, shape, settings),
}

# %%
histories, curves = {}, {}
for name, (kind, its_shape, its_settings) in trials.items():
    torch.manual_seed(runtime.seed)
    curves[name] = []  # (seconds, held-out loss)

    def watch(run, curve=curves[name]):
        if run.evaluated:
            curve.append((run.history.seconds, run.history.val_loss[-1]))

    trial = kind(its_shape).to(runtime.device)
    histories[name] = llmkit.train(trial, train_ids, held_out, its_settings, callbacks=[watch])

# %% tags=["trained"]
ends = {name: history.val_loss[-1] for name, history in histories.items()}
assert ends["GPT, AdamW"] > ends["GPT, Muon"] + 0.1
assert ends["GPT, Muon"] > ends["GPT, Muon, rotary"] + 0.1
assert ends["FastGPT, no tables"] > ends["FastGPT"] + 0.2
assert abs(ends["FastGPT, no tables"] - ends["GPT, Muon, rotary"]) < 0.25
plots.loss_curves(
    histories, "Muon, rotary positions, tables: what each is worth in 60 steps", by="step"
)

# %% [markdown]
# (AdamW's learning rate is the best of six that were tried.) Muon and rotary positions, both of which *your* GPT can have,
# bring the loss down by more than half a nat. `FastGPT` without its tables is no better than that GPT: what it has beyond
# yours is counting. The tables have a price, too: a batch touches few of their rows, but AdamW walks over all of them at
# every step.
#
# ## The race
#
# Now by the clock. Three runners: the textbook's loop, with AdamW at the best of four learning rates that were tried; your
# GPT, with rotary positions and Muon; and `FastGPT`. Same machine, same text, same held-out characters; the clocks stop while
# the loss is measured. First the textbook:

# %%
torch.manual_seed(runtime.seed)
textbook = head_by_head(llmkit.GPT(config).to(runtime.device))
textbook_step = (textbook_step[0], textbook, torch.optim.AdamW(textbook.parameters(), lr=1e-3))
steps = runtime.pick(cpu=110, gpu=100)
seconds, curve = 0.0, []
for i in range(steps):
    seconds += sum(step(*textbook_step))
    if i + 1 == steps or i + 1 in (2, 4, 8, 16, 32, 64, 100):
        curve.append((seconds, llmkit.evaluate(textbook, held_out).loss))

# %% [markdown]
# A race also needs finish lines that mean something. Notebook 07 has two: what counting pairs reaches, and what counting five
# characters reaches, with the best discounts. Both are counted in less than a second:

# %%
counted = {}
for name, order in {"pairs, counted": 2, "fives, counted": 5}.items():
    before = clock()
    counter = llmkit.NGram(train_ids, order, V, discount=None)
    took = clock() - before
    counted[name] = counter.loss(held_out)
    print(f"{name:15} {counted[name]:.2f} nats per character, after ≈ {took:.2f} s")

# %%
runners = {"textbook": curve, "your GPT": curves["GPT, Muon, rotary"], "FastGPT": curves["FastGPT"]}
goal, sooner = curve[-1][1], {}
for name, points in runners.items():
    reached = next((when for when, loss in points if loss <= goal), points[-1][0])
    sooner[name] = seconds / reached
    end, loss = points[-1]
    print(f"{name:9} ends at ≈ {loss:.2f} after ≈ {end:.1f} s", end="; ")
    print(f"the textbook's last loss ≈ {sooner[name]:.0f} times as soon")

# %% tags=["trained"]
assert goal > counted["pairs, counted"] - runtime.pick(cpu=0.1, gpu=2)
assert sooner["FastGPT"] > sooner["your GPT"] > 1.5
assert runners["FastGPT"][-1][1] < counted["pairs, counted"] - 0.3
lines = runners | {name: [(0.02, loss), (seconds, loss)] for name, loss in counted.items()}
whens = {name: [when for when, _ in points] for name, points in lines.items()}
losses = {name: [loss for _, loss in points] for name, points in lines.items()}
title = f"≈ {sooner['FastGPT']:.0f} times as soon, to a loss that counting pairs reaches too"
axes = dict(xlabel="seconds of training", ylabel="held-out loss (nats per character)", log="x")
plots.lines(whens, losses, title, **axes)

# %% [markdown]
# The factor is large, and the two lines say what it is worth. On a CPU the textbook's 110 steps end about where a table of *pairs*
# stands: the factor tells how soon two programs learn what can be counted in a moment. And `FastGPT`, with its tables
# of up to four characters, ends close to the counter of five. In a race of seconds nothing beats counting, and a model
# that contains a counter comes next.
#
# But a model can go on where a counter stops. Your GPT, larger and trained for about a minute, passes the best counter on
# Tiny Shakespeare, 1.52 against 1.66 ([README](../README.md#what-it-reaches)); `python -m llmkit train` makes it.
#
# ## What we saw
#
# - Measure first. The batch that looked so wasteful took next to no time, and no factor on it could have helped.
# - Each change was first proved to give the same numbers (or, in bfloat16, nearly), then timed by turns, by the median.
# - Faster is not a property of code alone: PyTorch's fused attention may win or lose, by window, format and machine.
# - A step can also be made to learn more. Muon and rotary positions gave your GPT more than half a nat in 60 steps; tables of
#   pairs, triples and fours gave `FastGPT` the rest.
# - A factor of speed says little without the line that it was measured to. Counting draws such lines in a second.
#
# All this was one small model on one machine. How long would GPT-2 take here, and would it fit at all? Must one try, or can
# it be known before the run? [Notebook 10b](10b_scale.ipynb) computes it.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint
from llmkit.exercises.notebook_10 import PretendDevice

# %% [markdown]
# **1 · What 16 bits keep** (easy, 3 minutes). Predict, with the table of formats and no computer: what is 1.01 rounded to
# bfloat16? And 1.001 to bfloat16, 100,000 to float16, and 10⁻⁹ to float16? (`math.inf` is a number too.)

# %% tags=["exercise"]
rounded_numbers = None  # your answer: (1.01, 1.001, 100_000, 1e-9), each as it is stored

# %%
check("10.rounded_numbers", rounded_numbers)

# %%
hint("10.rounded_numbers")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · The whole from a part** (easy, 5 minutes). A part takes the share `share` of a step and becomes `factor` times as fast.
# How many times as fast is the whole step? Guess two cases first: the batch (share 0.01) 10 times as fast; forward and
# backward (share 0.9) 1.5 times as fast.

# %% tags=["exercise"]
def times_as_fast(share: float, factor: float) -> float:
    return None  # your answer


# %%
check("10.times_as_fast", times_as_fast)


# %% [markdown]
# **3 · Repair the clock** (medium, 10 minutes). This is meant to give the median seconds of one call of `device.work()`, from
# `repeats` calls, after one more call that warms up. It is wrong in three ways. Like a GPU, the pretend device returns
# from `work()` at once and goes on working; `wait()` returns when all is done; `clock()` tells the time in seconds. Try it:
# with `PretendDevice([9, 2, 2, 30])` the calls take 9, 2, 2 and 30 seconds, and three repeats should give 2.

# %% tags=["exercise"]
def median_seconds(device: PretendDevice, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        before = device.clock()
        device.work()
        times.append(device.clock() - before)
        device.wait()
    return sum(times) / len(times)


# %%
check("10.median_seconds", median_seconds)


# %% [markdown]
# **4 · One product** (medium, 10 minutes). Here are the queries, keys and values of all heads, by three products for each head.
# Give the same three tensors `(B, H, T, D)` with a single product. (The check counts them.)

# %% tags=["exercise"]
def all_heads(x: torch.Tensor, queries: list, keys: list, values: list) -> tuple:
    """x (B, T, C); of each head a matrix (D, C) -> q, k, v, each (B, H, T, D)"""
    return tuple(
        torch.stack([x @ matrix.T for matrix in matrices], dim=1)
        for matrices in (queries, keys, values)
    )


# %%
check("10.all_heads", all_heads)


# %% [markdown]
# **5 · How much sooner?** (medium, 8 minutes). Two runs, each a list of (seconds, loss). How many times as soon does the second
# reach the loss with which the first *ends*? If it never does: 0. (It may reach that loss, and lose it again.)

# %% tags=["exercise"]
def times_as_soon(first: list, second: list) -> float:
    return None  # your answer


# %%
check("10.times_as_soon", times_as_soon)


# %% [markdown]
# **6 · Equal stretches** (hard, 20 minutes). Give a matrix the same directions and all stretches 1, by products alone, as
# Muon does. Divide it by the root of the sum of its squares, so that no stretch is above 1. Then repeat
# X ← 1.5 X − 0.5 X Xᵀ X. What does one repetition make of a stretch s, and why does it end at 1? How often is enough for
# a stretch that begins at 0.01? Compare with `torch.linalg.svd`: from `U, S, Vh` the answer is `U @ Vh`.

# %% tags=["exercise"]
def equal_stretches(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / gradient.norm()


# %%
check("10.equal_stretches", equal_stretches)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: what 16 bits keep
rounded_numbers = (1 + 2**-7, 1.0, math.inf, 0.0)
# Above 1, bfloat16 goes in steps of 1/128: 1.01 is nearest to 1 + 1/128, and 1.001 to 1. float16
# ends at 65,504 and, below its smallest number, at about 6e-8. So a weight of 1 in bfloat16 would
# never notice updates of 0.001: one reason why weights stay in float32.
check("10.rounded_numbers", rounded_numbers)

# %% tags=["solution"]
# @title Solution 2: the whole from a part


def times_as_fast(share: float, factor: float) -> float:
    return 1 / (1 - share + share / factor)


print(f"the batch: {times_as_fast(0.01, 10):.3f}")
print(f"forward and backward: {times_as_fast(0.9, 1.5):.3f}")
check("10.times_as_fast", times_as_fast)

# %% tags=["solution"]
# @title Solution 3: repair the clock


def median_seconds(device: PretendDevice, repeats: int) -> float:
    device.work()  # warms up
    device.wait()
    times = []
    for _ in range(repeats):
        before = device.clock()
        device.work()
        device.wait()  # before the clock is read
        times.append(device.clock() - before)
    return statistics.median(times)  # a mean would follow the one odd call


check("10.median_seconds", median_seconds)

# %% tags=["solution"]
# @title Solution 4: one product


def all_heads(x: torch.Tensor, queries: list, keys: list, values: list) -> tuple:
    matrix = torch.cat([*queries, *keys, *values])  # (3 H D, C)
    together = (x @ matrix.T).unflatten(-1, (3, len(queries), -1))  # (B, T, 3, H, D)
    return tuple(together.permute(2, 0, 3, 1, 4))  # (3, B, H, T, D)


check("10.all_heads", all_heads)

# %% tags=["solution"]
# @title Solution 5: how much sooner?


def times_as_soon(first: list, second: list) -> float:
    seconds, goal = first[-1]
    reached = [when for when, loss in second if loss <= goal]
    return seconds / reached[0] if reached else 0.0


check("10.times_as_soon", times_as_soon)

# %% tags=["solution"]
# @title Solution 6: equal stretches


def equal_stretches(gradient: torch.Tensor) -> torch.Tensor:
    X = gradient / gradient.norm()
    for _ in range(40):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


# The directions stay, and a stretch s becomes 1.5 s - 0.5 s³: larger as long as s < 1, and 1 stays
# 1. A small one grows by half at each repetition: 0.01 needs about 12 to come near 1, and a few
# more.
check("10.equal_stretches", equal_stretches)
