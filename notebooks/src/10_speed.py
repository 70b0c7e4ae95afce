# %% [markdown]
# # 10 · Speed
# *Where the time goes, and what scale costs.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/10_speed.ipynb)
#
# About 54 minutes to read, exercises aside.
#
# ← [09 · Subword tokenizers](09_subword_tokenizers.ipynb) · [11 · Pretrained GPT-2](11_pretrained_gpt2.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it does nothing.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("llmkit") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+https://github.com/your-account/llmkit@v0.1.0")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [source]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {source}; pip says above why.")
    importlib.invalidate_caches()

# %% [markdown]
# To train a model is to wait. A textbook's loop on a laptop: some minutes for a text that looks a little like a play.
# The largest models: months, on thousands of GPUs. What exactly are we waiting for? How much of it is needed? And how could
# one know *before* a run how long it will take, and whether it will fit?
#
# There are two ways to wait less: make each step faster, or need fewer steps. We take the first, then the second, and
# then race.

# %%
import copy
import math
import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

os.environ["KINETO_LOG_LEVEL"] = "9"  # or PyTorch's profiler, used below, announces itself
import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import plots
from llmkit.scale import cost
from llmkit.scale.cost import peak_memory
from llmkit.speed.cpu import best_dtype, fast_matmul
from llmkit.speed.decoding import quick
from llmkit.speed.fast_gpt import sprint

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_text, val_text = llmkit.split(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each
V = tokenizer.vocab_size

large = dict(block_size=256, n_layer=6, n_head=6, n_embd=384)
config = llmkit.GPTConfig(
    vocab_size=V,
    **runtime.pick(cpu=dict(block_size=64, n_layer=4, n_head=4, n_embd=128), gpu=large),
)
batch_size = runtime.pick(cpu=12, gpu=64)
T, C, H = config.block_size, config.n_embd, config.n_head
print(f"{config.n_layer} layers, {C} wide, windows of {T} characters, {batch_size} in a batch")

# %% [markdown]
# ## The textbook's loop
#
# It is the one that printed tutorials share. First the batch: windows are cut out of the *text*, one after the other, and
# turned into numbers character by character.

# %%
number_of = {character: i for i, character in enumerate(tokenizer.characters)}


def textbook_batch(generator: torch.Generator) -> tuple:
    """x and y, each (B, T): random windows of the text, and the same, one character on."""
    starts = torch.randint(len(train_text) - T, (batch_size,), generator=generator).tolist()
    windows = [train_text[i : i + T + 1] for i in starts]
    rows = torch.stack([torch.tensor([number_of[c] for c in window]) for window in windows])
    return rows[:, :-1].to(runtime.device), rows[:, 1:].to(runtime.device)


# %% [markdown]
# Then the model. Its attention goes head by head, as one explains it: every head has its own three matrices, makes its own
# scores, hides the future, takes its own average.

# %%
class Head(nn.Module):
    def __init__(self, C: int, D: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(C, D) for _ in range(3))

    def forward(self, x):  # (B, T, C) -> (B, T, D)
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, D) each
        scores = q @ k.mT / math.sqrt(q.size(-1))  # (B, T, T)
        future = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v


class HeadByHead(nn.Module):
    def __init__(self, C: int, H: int):
        super().__init__()
        self.heads = nn.ModuleList(Head(C, C // H) for _ in range(H))
        self.proj = nn.Linear(C, C)

    def forward(self, x, cache=None):  # (B, T, C) -> (B, T, C)
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


# %% [markdown]
# All the rest (embeddings, feed-forward, norms) we take from llmkit's GPT, and the weights too. So the textbook's model and
# llmkit's are one model, computed in two ways.

# %%
@torch.no_grad()
def head_by_head(model: llmkit.GPT) -> llmkit.GPT:
    """A copy of the model with the same weights, whose attention goes head by head."""
    model = copy.deepcopy(model)
    for block in model.h:
        apart, both = HeadByHead(C, H).to(runtime.device), block.attn
        weights = both.c_attn.weight.view(3, H, C // H, C)  # queries, keys, values of each head
        biases = both.c_attn.bias.view(3, H, C // H)
        for h, head in enumerate(apart.heads):
            for i, linear in enumerate((head.query, head.key, head.value)):
                linear.weight.copy_(weights[i, h])
                linear.bias.copy_(biases[i, h])
        apart.proj.load_state_dict(both.c_proj.state_dict())
        block.attn = apart
    return model


model = llmkit.GPT(config).to(runtime.device)
textbook = head_by_head(model)
x, y = textbook_batch(torch.Generator().manual_seed(0))  # (B, T) each
assert torch.allclose(textbook(x), model(x), atol=1e-4)
print(f"{textbook.num_parameters():,} parameters; the same predictions as llmkit's GPT")

# %% [markdown]
# Last the step: batch, loss, gradient, update. We note the time after each. (A GPU works on while Python runs ahead, so
# a clock in Python shows nonsense there. To ask for a number makes Python wait until all before it is done.)

# %%
PARTS = ("batch", "forward", "backward", "optimizer")


def step(get_batch, model, optimizer, dtype: torch.dtype = torch.float32) -> list[float]:
    """One step of training; the seconds that its four parts took."""
    marks = [time.perf_counter()]

    def mark():
        torch.zeros(1, device=runtime.device).item()  # wait for the device
        marks.append(time.perf_counter())

    x, y = get_batch()  # (B, T) each
    mark()
    with torch.autocast(runtime.device.type, dtype, enabled=dtype != torch.float32):
        loss = model.loss(x, y)
    mark()
    loss.backward()
    mark()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    mark()
    return [after - before for before, after in pairwise(marks)]


# %% [markdown]
# One timing is no timing: the first steps warm up, and any step can be disturbed by something else that the machine does.
# So take several and the *median* of each part, which a few odd ones do not move.

# %%
dice = torch.Generator().manual_seed(0)
textbook_step = (
    lambda: textbook_batch(dice),
    textbook,
    torch.optim.AdamW(textbook.parameters(), lr=1e-3),
)
steps = runtime.pick(cpu=8, gpu=20)
times = [step(*textbook_step) for _ in range(steps)][2:] or [step(*textbook_step)]
parts = [1000 * statistics.median(part) for part in zip(*times, strict=True)]
assert parts[1] + parts[2] > sum(parts) / 2
assert parts[0] < sum(parts) / 10
plots.bars(
    PARTS,
    parts,
    "Most of a step is spent in the model, on the way forward and back",
    xlabel="milliseconds per step",
    fmt="{:.1f}",
)

# %% [markdown]
# The clock says *how long*, not *on what*. PyTorch's profiler does: it notes every operation of its library that is
# started, and how long each took by itself. There are dozens of names; gathered into five kinds:

# %%
from torch.profiler import profile

with profile(acc_events=True) as profiled:  # or some versions warn that they keep one step only
    step(*textbook_step)

KINDS = {  # what in an operation's name tells its kind, the first that is found
    "matrix products": ("mm", "linear"),
    "softmax and mask": ("softmax", "masked", "triu"),
    "norms and GELU": ("layer_norm", "gelu"),
    "copying": ("copy_", "cat", "clone"),
}
spent, calls = dict.fromkeys([*KINDS, "all the rest"], 0.0), 0
for event in profiled.key_averages():
    if event.key.startswith(("aten::", "mkldnn::")):
        found = (kind for kind, signs in KINDS.items() if any(s in event.key for s in signs))
        own_time = runtime.pick(cpu="self_cpu_time_total", gpu="self_device_time_total")
        spent[next(found, "all the rest")] += getattr(event, own_time)
        calls += event.count
print(f"one step calls an operation ≈ {calls:,} times")
share = [time / max(1, sum(spent.values())) for time in spent.values()]
plots.bars(
    spent, share, "A step is more than matrix products", xlabel="share of the time", fmt="{:.0%}"
)

# %% [markdown]
# The matrix products are what a model *is*; nobody can spare us those. Everything else is a cost that can be argued with:
# numbers copied from place to place, and thousands of calls of which each does next to nothing.
#
# **Measure first: what feels slow and what is slow are seldom the same.** Now one cost at a time. Each change must first
# be shown to give the same numbers; only then is it worth a clock.
#
# ## One cost at a time
#
# *Encode once.* The text does not change, so its numbers need not be looked up again at every step. llmkit's `Batches`
# takes the encoded text and cuts all windows out by one operation. From the same dice, the same batches:

# %%
batches = llmkit.Batches(train_ids, T, batch_size, seed=0, device=runtime.device)
dice = torch.Generator().manual_seed(0)
for _ in range(3):
    for ours, theirs in zip(next(batches), textbook_batch(dice), strict=True):
        assert torch.equal(ours, theirs)


def milliseconds(work, repeats: int = 30) -> float:
    """The median time of a piece of work."""
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        torch.zeros(1, device=runtime.device).item()
        times.append(1000 * (time.perf_counter() - before))
    return statistics.median(times)


slow, fast = milliseconds(lambda: textbook_batch(dice)), milliseconds(lambda: next(batches))
print(f"a batch in ≈ {slow:.2f} ms, now in ≈ {fast:.3f} ms: ≈ {slow / fast:.0f} times as fast")
assert fast < slow


# %% [markdown]
# *All heads at once.* The three matrices of all heads, one below the other, are one matrix. So one product makes all
# queries, keys and values; and the heads become one more dimension, which a product of stacked matrices takes along.

# %%
def plain_attention(q, k, v):
    """Each head's average of its past: q, k, v (B, H, T, D) and out."""
    B, H, T, D = q.shape
    future = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    q, k, v = (part.reshape(B * H, T, D) for part in (q, k, v))
    scores = torch.baddbmm(future, q, k.mT, alpha=D**-0.5)  # (B H, T, T)
    return (scores.softmax(dim=-1) @ v).view(B, H, T, D)


class AllHeads(nn.Module):
    """What HeadByHead computes, with the weights of llmkit's layer."""

    def __init__(self, layer: llmkit.CausalSelfAttention, attend):
        super().__init__()
        self.c_attn, self.c_proj = layer.c_attn, layer.c_proj  # (C -> 3 C), (C -> C)
        self.attend = attend

    def forward(self, x, cache=None):  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        y = self.attend(q, k, v).transpose(1, 2).reshape(B, T, C)  # heads side by side
        return self.c_proj(y)


def all_heads(model: llmkit.GPT, attend=plain_attention) -> llmkit.GPT:
    model = copy.deepcopy(model)
    for block in model.h:
        block.attn = AllHeads(block.attn, attend)
    return model


# %%
together, apart = all_heads(model), head_by_head(model)
together.loss(x, y).backward()
apart.loss(x, y).backward()
assert torch.allclose(together(x), apart(x), atol=1e-4)
assert torch.allclose(together.wte.weight.grad, apart.wte.weight.grad, atol=1e-5)
print(f"{3 * H + 1} products with weights in each layer become 2; predictions and gradients stay")

# %% [markdown]
# *A fused optimizer.* AdamW's update of a tensor takes about a dozen small operations, and a model has many tensors.
# `fused=True` makes it one pass over each number:

# %%
one_by_one = torch.optim.AdamW(apart.parameters(), lr=1e-3)
fused = torch.optim.AdamW(together.parameters(), lr=1e-3, fused=True)
one_by_one.step()
fused.step()
assert torch.allclose(apart.wte.weight, together.wte.weight, atol=1e-5)
assert torch.allclose(apart(x), together(x), atol=1e-2)
print(f"{sum(1 for _ in apart.parameters())} tensors updated in two ways, the same weights after")

# %% [markdown]
# *Another library.* PyTorch does not multiply matrices itself: on a CPU it asks Intel's MKL, which on processors of other
# makers leaves much of them idle. A second library, oneDNN, is there too, and `fast_matmul` lets it in. On an Intel
# processor or a GPU it changes nothing.

# %%
expected = together(x)
with fast_matmul(runtime.device):
    assert torch.allclose(together(x), expected, atol=1e-4)
print("the same predictions, whichever library multiplies")

# %% [markdown]
# *Fewer bits.* Up to here every number came out the same. This change is of another kind: `bfloat16` keeps 16 of the 32
# bits of a number: all of its range, but two to three digits. Processors with units for it multiply several times as fast.
# The weights themselves stay at 32 bits, only what is multiplied is rounded. Is that still the same model?

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
# have units for it (others imitate them, slowly), and the free GPU in Colab has not: there `llmkit.train` takes `float16`
# and scales the loss up, so that small gradients do not vanish. Where the machine has no bfloat16, the last bar is missing.
#
# Now the clock. All ways take turns, step by step, so that a disturbance hits all of them alike.

# %%
def way(model, fused=None, dtype=torch.float32, get_batch=lambda: next(batches)) -> tuple:
    """What `step` needs."""
    model = copy.deepcopy(model)
    return get_batch, model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused), dtype


native = best_dtype(runtime.device) or str(runtime.dtype)  # what this machine is good at
apart, together = head_by_head(model), all_heads(model)
ways = {
    "textbook": way(apart, get_batch=lambda: textbook_batch(dice)),
    "+ encode once": way(apart),
    "+ all heads at once": way(together),
    "+ fused AdamW": way(together, fused=True),
    "+ faster library": way(together, fused=True),
}
if "bfloat16" in native:
    ways["+ bfloat16"] = way(together, fused=True, dtype=torch.bfloat16)
times = {name: [] for name in ways}
rounds_of_steps = runtime.pick(cpu=16, gpu=20)
for _ in range(rounds_of_steps):
    for i, (name, parts) in enumerate(ways.items()):
        with fast_matmul(runtime.device) if i > 3 else nullcontext():
            times[name].append(step(*parts))

# %% tags=["trained"]
middle = {
    name: [1000 * statistics.median(part) for part in zip(*rows[1:], strict=True)]
    for name, rows in times.items()
}
total = {name: sum(parts) for name, parts in middle.items()}
gain = {name: total["textbook"] / t for name, t in total.items()}
assert max(gain.values()) > 1

# %%
plots.stacked_bars(
    list(middle),
    {part: [row[i] for row in middle.values()] for i, part in enumerate(PARTS)},
    f"The same training, ≈ {max(gain.values()):.1f} times as fast",
    xlabel="milliseconds per step",
    ends=[f"{ratio:.2f} ×" for ratio in gain.values()],
)


# %% [markdown]
# Each bar is one change more than the bar above it, and its number says how many times as fast as the textbook it is. Not
# every change pays on every machine: some of these bars may be as long as the one above, and on yours it may be others than
# on the one where the picture was drawn.
#
# ## Fused is not always faster
#
# Surely PyTorch's own attention must be faster still: `scaled_dot_product_attention` is *one* operation in place of our
# four, and never writes the (T, T) scores to memory at all
# ([Dao et al. 2022](https://arxiv.org/abs/2205.14135)). The same numbers? And faster?

# %%
def fused_attention(q, k, v):  # (B, H, T, D) each
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


assert torch.allclose(all_heads(model, fused_attention)(x), model(x), atol=1e-4)
formats = [torch.float32] + [torch.bfloat16] * ("bfloat16" in native)
windows = (32, 64, 128, 256, 512)
ratios = {str(dtype).removeprefix("torch."): [] for dtype in formats}
for dtype, row in zip(formats, ratios.values(), strict=True):
    for window in windows:
        shape = (2048 // window, 4, window, 32)  # (B, H, T, D): always 2,048 positions
        qkv = torch.randn(3, *shape, device=runtime.device, dtype=dtype, requires_grad=True)
        fused, plain = (
            milliseconds(lambda f=attend, qkv=qkv: f(*qkv).sum().backward(), repeats=7)
            for attend in (fused_attention, plain_attention)
        )
        row.append(fused / plain)

# %%
plots.lines(
    windows,
    ratios,
    "Below 1, the fused attention is faster: ask window and format",
    xlabel="window (positions)",
    ylabel="time of fused / time of plain",
    log=True,
)

# %% [markdown]
# The fused one takes the whole (T, T) square in small tiles. That pays where the square is large, and on a GPU, whose memory
# is slow against its arithmetic. On a CPU with short windows the tiles themselves can be the cost. So inside
# `with llmkit.speed.cpu.tuned(model):` llmkit's models take plain products there in bfloat16 (and on some processors in
# float32), and the fused kernel elsewhere.
#
# ## Fewer steps
#
# So much for faster steps: the same training, sooner. Now let each step *learn more*. This time the numbers will differ,
# and the measure is the loss on held-out text after the same few steps with the same batches.
#
# Two things are changed. One is the optimizer. A matrix's gradient points in some directions far more than in others: a
# *singular value* says how far a matrix stretches along one direction. *Muon*
# ([Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/)) takes the gradient's directions and gives all of
# them a stretch of about one.

# %%
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
assert stretches["gradient"][C // 4] < 0.5 < stretches["Muon's step"][C // 4]
plots.lines(
    range(1, C + 1),
    stretches,
    "A gradient favours a few directions; Muon's step uses them all",
    xlabel="direction, the strongest first",
    ylabel="stretch, as a share of the strongest",
)

# %% [markdown]
# The other is the model. `FastGPT` has the parts that newer models have (rotary positions, norms without parameters, also of
# queries and keys; blocks that start as the identity), and one of its own. A small model spends its first layers on
# *counting*: after `th` comes `e`. A table can do that. Besides the vector of its character, each position gets a vector
# for the pair, for the three and for the four characters that end there. For the pairs:

# %%
torch.manual_seed(runtime.seed)
pairs_only = llmkit.FastGPTConfig(
    V, block_size=64, n_layer=1, n_head=2, n_embd=64, ngram_rows=[8192]
)
fast = llmkit.FastGPT(pairs_only)
nn.init.normal_(fast.ngrams["2"].weight)  # they start at zero, and so does
nn.init.normal_(fast.lm_head.weight)  # the output layer: nothing could be seen

ids = train_ids[None, :64]  # (1, T)
before = F.pad(ids[:, :-1] + 1, (1, 0))  # (1, T): the character before, counted from 1; 0: none
row = ids + before * (V + 1)  # (1, T): each pair's own row of the table
vectors = fast.wte(ids) + fast.ngrams["2"](row)  # (1, T, C)
scores = fast.lm_head(F.layer_norm(vectors, [64]))  # past the block, which does nothing yet
assert torch.allclose(fast(ids), scores, atol=1e-3)
print(f"{V} characters, {(V + 1) * V:,} possible pairs, a table of {8192:,} rows")

# %% [markdown]
# Triples are too many for a row each; several share one, chosen by a number that is scrambled (a *hash*). Now one change at a
# time, and the same few steps for each, with settings that llmkit keeps for the race below:

# %%
shape, settings = sprint(V, device=runtime.device)
settings = replace(settings, eval_every=5)
held_out = val_ids[:6000]
plain = llmkit.GPTConfig(V, shape.block_size, shape.n_layer, shape.n_head, shape.n_embd)
adamw = replace(settings, optimizer="adamw", learning_rate=3e-3)
trials = {
    "GPT, AdamW": (llmkit.GPT, plain, adamw),
    "GPT, Muon": (llmkit.GPT, plain, settings),
    "FastGPT, no tables": (llmkit.FastGPT, replace(shape, ngram_rows=()), settings),
    "FastGPT": (llmkit.FastGPT, shape, settings),
}
histories = {}
for name, (kind, its_shape, its_config) in trials.items():
    torch.manual_seed(runtime.seed)
    trial = kind(its_shape).to(runtime.device)
    histories[name] = llmkit.train(trial, train_ids, held_out, its_config)

# %% tags=["trained"]
for name, history in histories.items():
    print(f"{name:18} ≈ {history.val_loss[-1]:.3f} nats after ≈ {history.step[-1]} steps")
losses = [history.val_loss[-1] for history in histories.values()]
assert losses == sorted(losses, reverse=True)
assert losses[-1] < losses[0] - 0.5

# %%
plots.loss_curves(histories, "The same number of steps, and each change learns more", by="step")

# %% [markdown]
# (AdamW's learning rate is the best of six that were tried.) Each change brings the loss further down, the tables a good
# deal. They have a price that is easy to overlook: a batch touches few of their rows, but AdamW walks over all of them at
# every step. There is no free lunch, but there are cheap ones.
#
# ## The race
#
# The textbook's loop gets a few seconds. Then `sprint`, which is the last curve above, runs until its loss is no
# higher. Same machine, same text, same held-out characters; the clocks stop while the loss is measured.

# %%
seconds = runtime.pick(cpu=6, gpu=8)

torch.manual_seed(runtime.seed)
textbook = head_by_head(llmkit.GPT(config).to(runtime.device))
textbook_step = (textbook_step[0], textbook, torch.optim.AdamW(textbook.parameters(), lr=1e-3))
clock, look, textbook_steps, textbook_curve = 0.0, 0.1, 0, []
while clock < seconds:
    clock += sum(step(*textbook_step))
    textbook_steps += 1
    if clock > look or clock >= seconds:
        textbook_curve.append((clock, llmkit.evaluate(textbook, held_out).loss))
        look = 1.5 * clock

# %%
ours_curve = []


def watch(run):
    if run.evaluated:
        ours_curve.append((run.history.seconds, run.history.val_loss[-1], run.step))


torch.manual_seed(runtime.seed)
sprinter = llmkit.FastGPT(shape).to(runtime.device)
llmkit.train(sprinter, train_ids, held_out, replace(settings, eval_every=2), callbacks=[watch])
goal = textbook_curve[-1][1]
reached = next((point for point in ours_curve if point[1] <= goal), ours_curve[-1])
ratio = clock / reached[0]

# %% tags=["trained"]
print(f"textbook: loss ≈ {goal:.3f} after ≈ {clock:.2f} s and ≈ {textbook_steps} steps")
print(f"ours:     loss ≈ {reached[1]:.3f} after ≈ {reached[0]:.3f} s and ≈ {reached[2]} steps")
print(f"at the end, after ≈ {ours_curve[-1][0]:.2f} s: ≈ {ours_curve[-1][1]:.3f}")
assert reached[1] <= goal
assert ratio > 2
assert ours_curve[-1][1] < goal - 0.3

# %%
curves = {"textbook": textbook_curve, "ours": ours_curve}
plots.lines(
    {name: [point[0] for point in curve] for name, curve in curves.items()},
    {name: [point[1] for point in curve] for name, curve in curves.items()},
    f"To the same loss ≈ {ratio:.0f} times sooner",
    xlabel="seconds of training",
    ylabel="held-out loss (nats per character)",
    log="x",
)

# %% [markdown]
# Two factors are multiplied here: far fewer steps, and shorter ones, since one narrow layer stands where four wide ones
# stood. Is it fair? To the question *how soon is this loss reached*, yes. It is a sprinter, though, with little room to go
# on: what `llmkit train` makes is a plain `GPT`, larger and slower, and ends lower. Both are measured on Tiny Shakespeare
# in the [README](../README.md#what-it-reaches), the sprinter against nanoGPT's own script, with the commands that repeat it.
#
# ## Writing, too
#
# A model that writes takes one step for each token (notebook 08), and in a small model much of it goes to the calls between
# the products. `quick(model)` is the same model with a shorter way for one more token; give it to `generate` in its place.
# The same tokens? And sooner?

# %%
writer = llmkit.GPT(llmkit.GPTConfig(V, block_size=128, n_layer=4, n_head=4, n_embd=128))
usual_ids = llmkit.generate(writer, train_ids[:5], 100, seed=0)  # (105,)
assert torch.equal(llmkit.generate(quick(writer), train_ids[:5], 100, seed=0), usual_ids)
for name, asked in {"as it is": writer, "quick": quick(writer)}.items():
    took = milliseconds(lambda m=asked: llmkit.generate(m, train_ids[:5], 100, seed=0), repeats=3)
    print(f"{name:8} ≈ {took / 100:.2f} ms a token")


# %% [markdown]
# ## What scale costs: parameters
#
# How long would a *real* model take here? That can be answered without building it. First its size. All matrices of a GPT
# follow from four numbers: vocabulary V, window T, layers L and width C.

# %%
def gpt2_parameters(V: int, T: int, L: int, C: int) -> int:
    attention = (3 * C * C + 3 * C) + (C * C + C)  # queries, keys and values; their way out
    feed_forward = (4 * C * C + 4 * C) + (4 * C * C + C)  # four times as wide, and back
    norms = 2 * 2 * C
    return V * C + T * C + L * (attention + feed_forward + norms) + 2 * C


for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    published = llmkit.GPTConfig.gpt2(name)
    sizes = (published.vocab_size, published.block_size, published.n_layer, published.n_embd)
    assert gpt2_parameters(*sizes) == sum(cost.parameters(published).values())
print(f"GPT-2: {gpt2_parameters(50257, 1024, 12, 768):,} parameters, as published")

# %% [markdown]
# `cost.parameters` counts the same, part by part. Beside our own models stand one of a tutorial (4 layers, 768 wide, on
# GPT-2's vocabulary) and the four sizes of GPT-2:

# %%
small = llmkit.GPTConfig(V, block_size=64, n_layer=4, n_head=4, n_embd=128)  # "small" from here on
models = {"sprinter": shape, "small": small, "4 x 768": llmkit.GPTConfig(50257, 1024, 4, 12, 768)}
for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    models[name] = llmkit.GPTConfig.gpt2(name)
tables = ("token embeddings", "n-gram embeddings", "positions", "output")
columns = {"tables": [], "attention": [], "feed-forward": [], "norms": []}
print(f"{'':12}" + "".join(f"{name:>15}" for name in [*columns, "all"]))
for name, its_shape in models.items():
    parts = cost.parameters(its_shape)
    row = [sum(parts.get(table, 0) for table in tables)]
    row += [parts.get(part, 0) for part in list(columns)[1:]]
    print(f"{name:12}" + "".join(f"{number:15,}" for number in [*row, sum(row)]))
    assert sum(row) == sum(parts.values())
    for column, number in zip(columns.values(), row, strict=True):
        column.append(100 * number / sum(row))

# %%
plots.stacked_bars(
    list(models),
    columns,
    "On one vocabulary, larger models have a smaller share of tables",
    xlabel="share of the parameters (%)",
)

# %% [markdown]
# The tutorial's model is more than half tables, because its vocabulary is that of a model twelve layers deep. The sprinter
# is nearly nothing but tables. That is no waste: a table is looked up, not multiplied.
#
# ## What scale costs: arithmetic
#
# To multiply a vector by a matrix of N numbers takes N multiplications and N additions: 2N *floating-point operations*,
# FLOPs. The way back computes two such products, one for the gradient of the vector and one for that of the matrix: 4N. So
# a token costs 6N, and D tokens cost *6ND* ([Kaplan et al. 2020](https://arxiv.org/abs/2001.08361)). What is left out
# are the scores of attention, where no weight takes part: 12 L T C more. PyTorch can count for us:

# %%
from torch.utils.flop_counter import FlopCounterMode

toy = all_heads(llmkit.GPT(config).to(runtime.device))
with FlopCounterMode(display=False) as counter:
    loss = toy.loss(x, y)
    forward = counter.get_total_flops()
    loss.backward()
counted = counter.get_total_flops() // x.numel()  # per token
N = 12 * config.n_layer * C * C + V * C  # the matrices, without biases and tables
assert counted == 6 * N + 12 * config.n_layer * T * C == cost.flops_per_token(config)
assert counter.get_total_flops() == 3 * forward
print(f"{counted:,} FLOPs per token, a third of them on the way forward; 6N alone: {6 * N:,}")
print(f"the sprinter: {cost.flops_per_token(shape):,}")

# %% [markdown]
# So we know what a step must compute, and by the clock how fast it was. Against the fastest that this machine multiplies
# matrices at all, which gives the *utilisation*:

# %%
peak = cost.matmul_peak(runtime.device, seconds=0.5)  # FLOP/s, in float32
print(f"this machine: ≈ {peak / 1e9:.0f} GFLOP/s at its peak")
for name in ("textbook", "+ faster library"):
    speed = counted * batch_size * T / (total[name] / 1000)
    print(f"{name:16} ≈ {speed / 1e9:.0f} GFLOP/s, ≈ {speed / peak:.0%} of the peak")
assert speed > 0

# %% [markdown]
# And now anyone's training run can be estimated on the back of an envelope: FLOPs, divided by GPUs × peak × utilisation.
# An A100 has a peak of 312 TFLOP/s in bfloat16 ([NVIDIA](https://www.nvidia.com/en-us/data-center/a100/)), and 40 % of
# it is good work. Parameters and tokens are those that the papers state.

# %%
A100 = 312e12 * 0.40  # FLOP/s that do arrive
runs = {  # parameters, tokens
    "GPT-2 as nanoGPT": (124e6, 300e9),  # github.com/karpathy/nanoGPT, train_gpt2.py
    "GPT-3": (175e9, 300e9),  # Brown et al. 2020, arxiv.org/abs/2005.14165
    "Chinchilla": (70e9, 1.4e12),  # Hoffmann et al. 2022, arxiv.org/abs/2203.15556
    "Llama 3 8B": (8e9, 15e12),  # Llama team 2024, arxiv.org/abs/2407.21783
    "Llama 3 70B": (70e9, 15e12),
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
# ## What scale costs: memory
#
# Time can be waited for. Memory is there or it is not. Training holds four things at once: the weights, their gradients,
# AdamW's two averages, and the *activations*, which are what the way forward computes and the way back will need. The first
# three take 4 + 4 + 8 = 16 bytes for each parameter, before any text is read:

# %%
for name in list(models)[1:]:
    memory = cost.training_memory(models[name], batch_size=1)
    fixed = sum(memory.values()) - memory["activations"]
    assert fixed == 16 * sum(cost.parameters(models[name]).values())
    window = memory["activations"] / 1e6
    print(f"{name:12}{fixed / 1e6:9,.0f} MB, and {window:6,.0f} MB for each window")
assert fixed > 16e9


# %% [markdown]
# A T4, the free GPU in Colab, has 16 GB: GPT-2 XL does not fit into it, not even with an empty batch. And the activations
# come on top, for every window of the batch and every position of it. Do not take the formula's word for it, count: PyTorch
# calls a hook for every tensor that it keeps for the way back.

# %%
def kept_bytes(model, x, y) -> int:
    """What the way forward keeps for the way back, without the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # each once, and held: none may take its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(x, y)
    return sum(storage.nbytes() for storage in kept.values())


for attend, fused in ((fused_attention, True), (plain_attention, False)):
    kept = kept_bytes(all_heads(model, attend), x, y)
    estimate = cost.training_memory(config, len(x), fused=fused)["activations"]
    print(f"{attend.__name__}: {kept / 1e6:.2f} MB; the formula says {estimate / 1e6:.2f} MB")
    assert math.isclose(kept, estimate, rel_tol=runtime.pick(cpu=0.02, gpu=0.1))


# %% [markdown]
# The plain one keeps its (T, T) weights besides, for
# each head of each layer. That is little for windows of 64 and everything for windows of 100,000; for those, the fused
# kernel is not a question of speed.
#
# ## Memory paid for with time
#
# Two ways to need less. *Gradient checkpointing* ([Chen et al. 2016](https://arxiv.org/abs/1604.06174)) keeps the input of
# each block only, and computes the rest of the block again when the way back comes to it. The gradients are the same; the
# price is a second way forward.

# %%
def gradients_of(model, x, y) -> tuple[list[torch.Tensor], int]:
    """The gradients, and the FLOPs that they took."""
    model.zero_grad()
    with FlopCounterMode(display=False) as counter:
        model.loss(x, y).backward()
    return [p.grad.clone() for p in model.parameters()], counter.get_total_flops()


model = all_heads(model)
kept = kept_bytes(model, x, y)
plain, flops = gradients_of(model, x, y)
model.gradient_checkpointing = True
kept_then = kept_bytes(model, x, y)
again, flops_then = gradients_of(model, x, y)
model.gradient_checkpointing = False
for a, b in zip(plain, again, strict=True):
    assert torch.allclose(a, b, atol=1e-5)
print(f"kept: {kept_then / kept:.1%} of the bytes, for {flops_then / flops:.2f} times the FLOPs")
assert kept_then < 0.2 * kept
assert 1.2 < flops_then / flops < 1.34

# %% [markdown]
# A third more work at most, since the way forward is a third of it. *Accumulation* is the other way: a large batch as several
# small ones, whose gradients add up. No extra work at all, but only a part of the batch is held at a time.

# %%
model.zero_grad()
quarters = list(zip(x.chunk(4), y.chunk(4), strict=True))
for x_part, y_part in quarters:
    (model.loss(x_part, y_part) / len(quarters)).backward()  # adds to .grad
for a, p in zip(plain, model.parameters(), strict=True):
    assert torch.allclose(a, p.grad, atol=1e-5)
kept_then = kept_bytes(model, *quarters[0])
print(f"{len(quarters)} parts of {len(quarters[0][0])}: {kept_then / kept:.1%} of the bytes")

# %% [markdown]
# In llmkit these are `TrainConfig(gradient_checkpointing=True)` and
# `TrainConfig(batch_size=4, gradient_accumulation_steps=4)`. What they mean for GPT-2, 16 windows of 1,024 tokens at each
# update:

# %%
choices = {
    "16 at once": dict(batch_size=16),
    "16, bfloat16": dict(batch_size=16, dtype="bfloat16"),
    "16, checkpointed": dict(batch_size=16, gradient_checkpointing=True),
    "4 times 4": dict(batch_size=4),
    "all three": dict(batch_size=4, gradient_checkpointing=True, dtype="bfloat16"),
}
memories = [cost.training_memory(gpt2, **choice) for choice in choices.values()]
totals = [sum(memory.values()) / 1e9 for memory in memories]
assert totals[-1] == min(totals) < max(totals) / 3
plots.stacked_bars(
    list(choices),
    {part: [memory[part] / 1e9 for memory in memories] for part in memories[0]},
    "The same update of GPT-2, in a fraction of the memory",
    xlabel="gigabytes",
    ends=[f"{gigabytes:.1f} GB" for gigabytes in totals],
)

# %% [markdown]
# Weights, gradients and averages stay; what can be saved is activations. And what this notebook itself held at its fullest
# moment can be asked of the system:

# %%
print(f"≈ {peak_memory(runtime.device) / 1e9:.2f} GB")

# %% [markdown]
# ## Many GPUs
#
# A batch can be split in space as well as in time. Each of W processes, on a GPU of its own, holds the whole model and takes
# its share of the batch; then they average their gradients and all make the same update. Is that the same training? The mean
# over a batch is the mean of the means of its halves, if the halves are equally large:

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
# In a script of your own that torchrun starts, each process calls
# `llmkit.train(..., processes=llmkit.scale.distributed.join())`.
#
# The price is one exchange of all gradients at every update. Passed round in a ring, each GPU sends 2(W - 1)/W times their
# size ([Patarasuk and Yuan 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)). For GPT-2 as nanoGPT trains it, about half a
# million tokens an update on eight A100s:

# %%
W, tokens = 8, 491_520
computing = cost.flops_per_token(gpt2) * tokens / (W * A100)
sent = 2 * (W - 1) / W * 4 * gpt2_parameters(50257, 1024, 12, 768)  # bytes
links = {"NVLink of an A100": 300e9, "Ethernet, 10 Gbit/s": 1.25e9}  # bytes/s each way
print(f"computing: {computing:.2f} s; each GPU sends {sent / 1e9:.2f} GB")
for name, bytes_per_second in links.items():
    print(f"{name:24}{sent / bytes_per_second:6.3f} s")
assert sent / 300e9 < computing / 100
assert sent / 1.25e9 > computing

# %% [markdown]
# Inside a machine the exchange is hardly felt. Over an office's network it takes longer than the computing. That is why
# gradients are exchanged once an update, not once a pass (accumulation makes updates rarer), and why large clusters are
# built around their networks.
#
# ## What we saw
#
# - Measure before mending. The batch that looked so wasteful took next to no time; the model's own passes took most of it.
# - Each change was first proved to give the same numbers (or, for bfloat16, nearly), then timed by turns, by the median.
# - Faster is not a property of code alone: PyTorch's fused attention may win or lose, by window, format and machine.
# - A step can also be made to teach more. Muon, newer blocks and tables of pairs, triples and fours bring a model in a few
#   steps to a loss from which the plain one is far away.
# - A run costs 6ND FLOPs, and 16 bytes a parameter plus activations. Checkpointing shrinks those for a third more work,
#   accumulation for none; many GPUs split the batch and change nothing else.
#
# Six times N times D: no trick of this page makes GPT-2 affordable on a laptop. But somebody has paid for that run already,
# and has published the weights. Could our GPT take them over?
#
# ## Exercises
#
# **1 (warm-up).** nanoGPT's model for Tiny Shakespeare on a GPU has 65 characters, windows of 256, 6 layers, 6 heads, 384 wide.
# How many parameters has our GPT in that shape? By hand or with `gpt2_parameters`; then check it.

# %% tags=["exercise"]
parameters_of_nanogpt = None  # your answer

# %% [markdown]
# **2 (medium).** Hoffmann et al. found that a budget of FLOPs is spent best with about 20 tokens for each parameter. You have
# 10^21 FLOPs. How large should the model be, how many tokens should it read, and how many days does an A100 need at 40 %?

# %% tags=["exercise"]
best_parameters, best_tokens, days = None, None, None  # your answer

# %% [markdown]
# **3 (medium).** What is the largest batch of GPT-2 (windows of 1,024) that fits into the 16 GB of a T4 in float16, by the formula
# and leaving 1 GB free? With checkpointing, without it? And for `gpt2-medium`?

# %% tags=["exercise"]
largest = {}  # your answer: {(name, checkpointing): sequences}


# %% [markdown]
# **4 (harder).** Accumulation has a trap. A target of -100 is left out of the loss (for padding, or where only the answer counts).
# Then the parts of a batch have different numbers of targets, and the mean of their means is *not* the mean of the whole.
# `transformers` had [that mistake](https://huggingface.co/blog/gradient_accumulation) until 2024. Show it, and mend it.

# %% tags=["exercise"]
def accumulated(model, parts) -> torch.Tensor:
    """The loss of a batch that comes in parts [(x, y), ...]: should equal that of the whole."""
    return sum(model.loss(x, y) for x, y in parts) / len(parts)  # your answer goes here


# %% tags=["solution"]
# @title Solution 1: parameters by hand
parameters_of_nanogpt = gpt2_parameters(65, 256, 6, 384)
print(f"{parameters_of_nanogpt:,}")
nanogpt = llmkit.GPTConfig(65, block_size=256, n_layer=6, n_head=6, n_embd=384)
assert parameters_of_nanogpt == sum(cost.parameters(nanogpt).values()) == 10_770_816
# nanoGPT itself says 10.65 million: it has no biases and leaves the positions out.

# %% tags=["solution"]
# @title Solution 2: 20 tokens for each parameter
budget = 1e21
best_parameters = math.sqrt(budget / (6 * 20))  # 6 N (20 N) = budget
best_tokens = 20 * best_parameters
days = budget / A100 / 86_400
print(f"{best_parameters / 1e9:.2f} billion parameters, {best_tokens / 1e9:.0f} billion tokens")
print(f"{days:.0f} days on one A100")
assert math.isclose(6 * best_parameters * best_tokens, budget)

# %% tags=["solution"]
# @title Solution 3: what fits into a T4
for name in ("gpt2", "gpt2-medium"):
    for checkpointing in (False, True):
        how = dict(dtype="float16", gradient_checkpointing=checkpointing)
        one, two = (sum(cost.training_memory(models[name], n, **how).values()) for n in (1, 2))
        each = two - one  # the rest is there whatever the batch
        largest[name, checkpointing] = int((15e9 - (one - each)) // each)
        print(f"{name:12} checkpointing {checkpointing!s:5} {largest[name, checkpointing]:4}")
assert largest["gpt2", True] > 2 * largest["gpt2", False] > 0


# %% tags=["solution"]
# @title Solution 4: a mean of means
def accumulated_rightly(model, parts) -> torch.Tensor:
    """Each part counts by its number of targets."""
    targets = [(y != -100).sum() for _, y in parts]
    losses = [model.loss(x, y) * n for (x, y), n in zip(parts, targets, strict=True)]
    return sum(losses) / sum(targets)


y_some = y.clone()
y_some[: len(y) // 2, 5:] = -100  # half of the rows have five targets left
parts = list(zip(x.chunk(2), y_some.chunk(2), strict=True))
whole, wrong = model.loss(x, y_some), accumulated(model, parts)
right = accumulated_rightly(model, parts)
print(f"whole ≈ {whole:.4f}, mean of means ≈ {wrong:.4f}, mended ≈ {right:.4f}")
assert torch.allclose(right, whole, atol=1e-5)
assert not torch.allclose(wrong, whole, atol=1e-5)
