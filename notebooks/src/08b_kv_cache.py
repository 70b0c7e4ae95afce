# %% [markdown]
# # 08b · The KV cache
# *Computing nothing twice: what has been read once is kept.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/08b_kv_cache.ipynb)
#
# About 25 minutes to read, exercises aside.
#
# ← [08 · Generation](08_generation.ipynb) · [09 · Subword tokenizers](09_subword_tokenizers.ipynb) →

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
# Notebook 08 wrote texts character by character, and for each new one it handed the whole window to the model. A hundred
# characters are read, a hundred times 65 scores come out, and 99 of these are thrown away. Then once more, with 101
# characters. What of this did the model know already?
#
# In this notebook we keep what need not be computed again, prove that it changes nothing, and see what that saves
# in time and what it costs in memory. Both decide how large models are served.

# %%
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import llmkit
from llmkit import drawings, plots

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each: the first 90 %, the rest
V = tokenizer.vocab_size
print(f"{len(train_ids):,} characters to learn from, {len(val_ids):,} held out")

# %% [markdown]
# ## Why read it all again?
#
# For most of this notebook the weights need not be trained: what holds, holds for any weights. So take a new GPT, that
# of notebook 05, small enough to look into. Two things are done so that no mistake can hide. The numbers have 64 bits,
# so that rounding is far smaller than any mistake. And the weights are made large, so that the scores depend on all
# that was read, which those of a new model hardly do.

# %%
config = llmkit.GPTConfig(V, block_size=64, n_layer=3, n_head=4, n_embd=32)
gpt = llmkit.GPT(config).double().eval()
with torch.no_grad():
    for weight in gpt.parameters():
        weight += 0.2 * torch.randn_like(weight)
ids = val_ids[:64]  # (64,)

# %% [markdown]
# Let it read 40 characters, and then 41. What becomes of the first 40?

# %%
with torch.no_grad():
    before = gpt(ids[None, :40])[0]  # (40, V)
    after = gpt(ids[None, :41])[0]  # (41, V)
changed = (after[:40] - before).abs().max().item()
print(f"scores of the first 40 positions: {'changed' if changed > 1e-10 else 'as they were'}")
assert changed < 1e-10

# %% [markdown]
# Nothing in a GPT looks ahead (notebook 04). So whatever is added at the end, all that was computed for the positions
# before it comes out the same, in every layer. For the next character only the new position is missing. And of the old
# ones it needs only what it *looks at*, in each layer: their keys and their values. Keep those.

# %%
drawings.kv_cache()


# %% [markdown]
# ## A GPT that reads one token
#
# Here is the whole model once more, reading one token after others of which the keys and values are kept:

# %%
@torch.no_grad()
def step(gpt: llmkit.GPT, token: Tensor, kept: list[tuple[list, list]]) -> Tensor:
    """Read one token id (1,) after those in `kept`, a (keys, values) per layer: scores (1, V)."""
    C, H, position = gpt.config.n_embd, gpt.config.n_head, len(kept[0][0])
    x = gpt.wte(token) + gpt.wpe.weight[position]  # (1, C)
    for block, (keys, values) in zip(gpt.h, kept, strict=True):
        q, k, v = block.attn.c_attn(block.ln_1(x)).view(3, H, 1, C // H)  # (H, 1, D) each
        keys.append(k)
        values.append(v)
        all_k, all_v = torch.cat(keys, dim=1), torch.cat(values, dim=1)  # (H, S, D), S so far
        out, _ = llmkit.attention(q, all_k, all_v)  # (H, 1, D): one query, and all the past
        x = x + block.attn.c_proj(out.reshape(1, C))
        x = x + block.mlp(block.ln_2(x))
    return gpt.lm_head(gpt.ln_f(x))


# %% [markdown]
# That is a *KV cache*. There is no mask in it: the one query is the last, and everything kept lies before it.
# Does it give the same?

# %%
kept = [([], []) for _ in gpt.h]  # a pair of lists for each layer
one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])  # (64, V)
with torch.no_grad():
    at_once = gpt(ids[None])[0]  # (64, V)
assert torch.allclose(one_by_one, at_once, rtol=0, atol=1e-10)  # no relative error forgiven
print(f"{one_by_one.shape[0]} tokens read one by one give the scores of one reading")

# %% [markdown]
# The same up to the 10th decimal: **the cache is no approximation**.
#
# One thing is clumsy: `torch.cat` copies all that was kept, for each new token. llmkit's cache has room for `block_size`
# positions from the start, and each token is written into its place. It can also take many tokens at once. A prompt
# is read so (*prefill*), before the new tokens come one at a time (*decoding*):

# %%
with torch.no_grad():
    cache = gpt.new_cache()  # one part for each layer
    gpt(ids[None, :40], cache)  # prefill: 40 tokens in one reading
    new = gpt(ids[None, 40:41], cache)  # (1, 1, V): decoding, one token
assert torch.allclose(new[0, 0], at_once[40], rtol=0, atol=1e-10)
print(f"{len(cache)} parts; keys {tuple(cache[0].keys.shape)}, {cache[0].length} positions filled")

# %% [markdown]
# `generate` does this by default, and with it or without it the tokens are the same:

# %%
for options in ({"temperature": 0}, {"seed": 1}, {"seed": 2, "top_p": 0.9}):
    cached = llmkit.generate(gpt, ids[:5], 50, **options)
    assert torch.equal(cached, llmkit.generate(gpt, ids[:5], 50, **options, use_cache=False))
print("greedy, drawn, and cut: three times the same", len(cached), "tokens")


# %% [markdown]
# ## What it saves
#
# Count multiplications. A token passes L layers, C wide. In each it is multiplied with matrices of 12 C² numbers (4 C²
# in attention, 8 C² in the feed-forward part); then its query meets S keys, and S values are added up, C
# multiplications for each. At the end come the scores:
#
# $$L \, (12\,C^2 + 2\,S\,C) + V\,C$$

# %%
def multiplications(config: llmkit.GPTConfig, S: int) -> int:
    """To read one token as the S-th, given the keys and values of the others."""
    C = config.n_embd
    return config.n_layer * (12 * C * C + 2 * S * C) + config.vocab_size * C


kept = [([], []) for _ in gpt.h]
for S in range(1, 41):
    with FlopCounterMode(display=False) as counter:  # PyTorch counts along; times and plus are two
        step(gpt, ids[:1], kept)
    assert counter.get_total_flops() == 2 * multiplications(config, S)
print(f"the 40th token: {multiplications(config, 40):,} multiplications, as counted by PyTorch")

# %% [markdown]
# Without a cache each new token costs the reading of all. (The scores of the last suffice, so V C comes once; and
# we count only pairs that may look at each other, which is generous: many programs compute the others and throw them
# away.)

# %%
shape = llmkit.GPTConfig(V, block_size=256, n_layer=4, n_head=4, n_embd=128)
lengths = range(1, 257)
with_cache = [multiplications(shape, S) for S in lengths]
outputs = V * shape.n_embd
without = [sum(with_cache[:S]) - (S - 1) * outputs for S in lengths]  # all so far, read again
saved = sum(without) / sum(with_cache)
print(f"256 tokens: {sum(without):,} multiplications without, {sum(with_cache):,} with a cache")
print(f"a factor of {saved:.1f}")
assert saved > 100
plots.lines(
    lengths,
    {"without": [n / 1e6 for n in without], "with a cache": [n / 1e6 for n in with_cache]},
    "Without a cache each token costs more than the one before",
    xlabel="characters so far",
    ylabel="multiplications for the next (millions)",
)

# %% [markdown]
# A hundred times less arithmetic. A hundred times faster? Let us see, on the processor:

# %%
timed = llmkit.GPT(shape)
seconds = {}
for use_cache in (True, False):
    started = time.perf_counter()
    llmkit.generate(timed, ids[:1], 255, seed=0, use_cache=use_cache)
    seconds[use_cache] = time.perf_counter() - started
print(f"with ≈ {seconds[True]:.2f} s, without ≈ {seconds[False]:.2f} s")
print(f"faster by a factor of ≈ {seconds[False] / seconds[True]:.1f}")
assert seconds[True] < 0.7 * seconds[False]


# %% [markdown]
# Faster, but nowhere near a hundred times. With one row against a matrix, the machine waits for the *weights* to arrive
# from memory, and a small model spends its time between the products; reading 200 rows at once keeps it busy. So
# reading several tokens at once should cost little more than reading one. Does it? With 100 characters in the cache,
# read 1, 2, 4 ... more in one go:

# %%
def seconds_to_read(n: int) -> float:
    """The shortest of ten readings of n characters after 100 others."""
    tokens, times = val_ids[None, : 100 + n], []  # (1, 100 + n)
    for _ in range(10):
        cache = timed.new_cache()
        timed(tokens[:, :100], cache)
        started = time.perf_counter()
        timed(tokens[:, 100:], cache)
        times.append(time.perf_counter() - started)
    return min(times)


many = [1, 2, 4, 8, 16]
with torch.no_grad():
    times = [seconds_to_read(n) for n in many]
for n, seconds in zip(many[1:], times[1:], strict=True):
    print(f"{n:2} characters at once take ≈ {seconds / times[0]:.1f} times as long as one")
assert times[-1] < 8 * times[0]

# %% [markdown]
# What is idle can be used in two ways: for several texts at once, or for several tokens of one text.
#
# ## Many texts at a time
#
# `generate` takes a batch of prompts, one row each, all of the same length. Each row has a part of the cache, and dice
# of its own (row b those of `seed + b`), so that no text depends on who else is being served:

# %%
starts = ("\nThe ", "\nYou ", "\nAnd ", "\nWho ")
prompts = torch.stack([tokenizer.encode(start) for start in starts])  # (4, 5)
together = llmkit.generate(timed, prompts, 100, temperature=0.8, seed=10)  # (4, 105)
for row, prompt in enumerate(prompts):
    alone = llmkit.generate(timed, prompt, 100, temperature=0.8, seed=10 + row)  # (105,)
    assert torch.equal(alone, together[row])
print(f"{tuple(prompts.shape)} -> {tuple(together.shape)}, each row as if it had been alone")

# %%
started = time.perf_counter()
llmkit.generate(timed, prompts[:1].repeat(16, 1), 60, seed=0)
at_once = time.perf_counter() - started
started = time.perf_counter()
for row in range(16):
    llmkit.generate(timed, prompts[0], 60, seed=row)
in_turn = time.perf_counter() - started
print(f"16 texts in one batch ≈ {at_once:.2f} s, one after the other ≈ {in_turn:.2f} s")
assert at_once < 0.6 * in_turn


# %% [markdown]
# (Prompts of different lengths go into a batch for each length. A server that cannot wait fills the shorter ones up and
# masks what it filled in, or lets each row come and go by itself.)
#
# ## Many tokens of one text
#
# This seems impossible, as each token depends on the one before it. But a small, fast model may *guess* the next few,
# and the large one then reads all the guesses at once, for little more than the price of one. Where it agrees, several
# tokens are won; where it does not, its own choice is taken, and nothing is lost but the guess. This is *speculative
# decoding* ([Leviathan, Kalman and Matias 2023](https://arxiv.org/abs/2211.17192)), and with the right rule for
# accepting a guess the text is drawn from exactly the large model's probabilities. That rule is exercise 6.
#
# ## What it costs
#
# Memory. For each token each layer keeps a key and a value, C numbers each:

# %%
def cache_bytes(n_layer: int, n_embd: int, tokens: int, bytes_each: int = 2) -> int:
    """A cache of `tokens` positions for one text: keys and values of every layer."""
    return 2 * n_layer * n_embd * tokens * bytes_each


numbers = sum(part.keys.numel() + part.values.numel() for part in timed.new_cache())
assert 4 * numbers == cache_bytes(4, 128, 256, bytes_each=4)  # ours has 32-bit numbers
print("                    layers       C   tokens    cache of one text")
print(f"our small GPT {4:12}{128:8}{256:9}{4 * numbers / 2**20:14,.0f} MiB")
for name in ("gpt2", "gpt2-xl"):
    c = llmkit.GPTConfig.gpt2(name)
    mib = cache_bytes(c.n_layer, c.n_embd, c.block_size) / 2**20
    print(f"{name:14}{c.n_layer:12}{c.n_embd:8}{c.block_size:9}{mib:14,.0f} MiB")
mib = cache_bytes(32, 4096, 8192) / 2**20
print(f"{'8B, see below':14}{32:12}{4096:8}{8192:9}{mib:14,.0f} MiB")

# %% [markdown]
# The last line has the layers, the width and the window of Llama 3 8B ([Grattafiori et al.
# 2024](https://arxiv.org/abs/2407.21783)). Four GiB for a single text, where its eight billion weights of two bytes
# have about 15: with four readers the caches would be larger than the model. And a cache has to be fetched from memory
# for each new token.
#
# ### Grouped-query attention
#
# So modern models keep less. The queries need their many heads, but several of them may share *one* head of keys and
# values (*grouped-query attention*, [Ainslie et al. 2023](https://arxiv.org/abs/2305.13245)). Four query heads in two
# groups:

# %%
H, groups, S, D = 4, 2, 10, 8  # query heads, key-value heads, tokens so far, head size
q = torch.randn(H, 1, D)
k, v = torch.randn(2, groups, S, D)  # (groups, S, D) each: this is all that is kept
shared_k, shared_v = (part.repeat_interleave(H // groups, dim=0) for part in (k, v))  # (H, S, D)
out, _ = llmkit.attention(q, shared_k, shared_v)  # (H, 1, D): as many averages as before
print(f"kept: {k.numel() + v.numel()} numbers; without groups: {2 * H * S * D}")
expected = F.scaled_dot_product_attention(q[None], k[None], v[None], enable_gqa=True)[0]
assert torch.allclose(out, expected, atol=1e-6)  # PyTorch has it, too

# %% [markdown]
# Heads 0 and 1 look at the first group, 2 and 3 at the second. Llama 3 8B has 32 query heads of size 128 and 8
# key-value heads. The cache has 8 · 128 = 1,024 numbers a key where C = 4,096 would be, a quarter:
#
# $$2 \cdot 32\ \text{layers} \cdot 1{,}024 \cdot 8{,}192\ \text{tokens} \cdot 2\ \text{bytes} = 2^{30}\ \text{bytes}$$
#
# ## When the window is full
#
# A GPT has positions for `block_size` tokens. And then? In notebook 08 `write` lets the window slide: forget the oldest,
# add the newest. But then every token stands one place further left than before, and what was kept about it no longer
# holds. The model from above reads 63 characters, and then the same without the first:

# %%
with torch.no_grad():
    whole = gpt(ids[None, :63])[0, -1].softmax(dim=-1)  # (V,): after the last of 63 characters
    slid = gpt(ids[None, 1:63])[0, -1].softmax(dim=-1)  # the same place, the first one forgotten
changed = (whole - slid).abs().max().item()
print(f"one character forgotten: the largest change of a probability ≈ {changed:.3f}")
assert changed > 1e-4


# %% [markdown]
# With a sliding window the cache would be useless from there on, and every character would cost a full reading.
# llmkit's rule: when the window is full, **keep its last half and read that again**. Then there is room for half a
# window of cheap steps. How many tokens does the model read before each new one? Let it take notes:

# %%
class Noting(llmkit.GPT):
    """A GPT that notes how many tokens it is given, and how many lie in its cache."""

    def forward(self, ids, cache=None, last_only=False):
        self.notes.append((ids.size(1), cache[0].length if cache else 0))
        return super().forward(ids, cache, last_only)


noting = Noting(llmkit.GPTConfig(V, block_size=8, n_layer=1, n_head=1, n_embd=8))
noting.notes = []
long = llmkit.generate(noting, ids[:3], 15, seed=0)
print("read   ", *(f"{read:2}" for read, _ in noting.notes))
print("in view", *(f"{read + kept:2}" for read, kept in noting.notes))
assert torch.equal(long, llmkit.generate(noting, ids[:3], 15, seed=0, use_cache=False))

# %% [markdown]
# Half a window read, half a window written: on the average two tokens read for each one written. The price
# is that the model sees, right after a cut, only half of what it could. That is why both ways follow this rule,
# with the cache and without it: the same seed gives the same text.
#
# Is the price high? That needs a trained model. It is that of notebook 08, and we ask how well it predicts held-out
# characters with so many in view:

# %% tags=["trained"]
sizes = runtime.pick(
    cpu=dict(block_size=128, n_layer=2, n_head=4, n_embd=64),
    gpu=dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2),
)
budget = runtime.pick(
    cpu=dict(steps=550, batch_size=6, learning_rate=0.05),
    gpu=dict(steps=2_000, batch_size=64),
)
model = llmkit.GPT(llmkit.GPTConfig(V, position="rotary", **sizes)).to(runtime.device)
settings = llmkit.TrainConfig(**budget, optimizer="muon", seed=runtime.seed)
bar = llmkit.ProgressBar(bar_format="training {bar}")
llmkit.train(model, train_ids, config=settings, callbacks=[bar])
model.eval()
print(f"held-out loss ≈ {llmkit.evaluate(model, val_ids).loss:.3f} nats per character")

# %%
T = model.config.block_size
windows = val_ids.unfold(0, T + 1, T // 8)  # (B, T + 1): each begins an eighth after the last
total = torch.zeros(T)
with torch.no_grad():
    for rows in windows.split(32):
        logits = model(rows[:, :-1].to(runtime.device)).float().cpu()  # (b, T, V)
        losses = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")  # (b, T)
        total += losses.sum(dim=0)
by_view = total / len(windows)  # (T,): entry t has t + 1 characters in view

# %% tags=["trained"]
in_view, start = {}, 0
while start < T:
    end = max(1, 2 * start)  # 1, 2, 3 to 4, 5 to 8 ... in view
    name = f"{start + 1} to {end}" if end > start + 1 else f"{end}"
    in_view[name], start = by_view[start:end].mean().item(), end
losses = list(in_view.values())
assert losses[0] > losses[2] + 0.3
assert losses[-2] - losses[-1] < 0.1
plots.bars(
    list(in_view),
    losses,
    "The first characters in view help most, the last ones hardly",
    xlabel="loss on held-out text (nats per character)",
    ylabel="characters in view",
    fmt="{:.2f}",
)

# %% [markdown]
# With more than half a window in view (the last bar) this model predicts hardly better than with less than half (the
# bar above), so its cuts are cheap. For a model that follows a long argument they would not be: hence the long windows
# of today's.
#
# ## What we saw
#
# - A GPT never looks ahead, so what it has computed for a position stays right when tokens are added. The cache keeps
#   keys and values, and gives the same scores to the 10th decimal.
# - It saves more than a hundred times the multiplications over 256 tokens. In time it is much less, as one row does not
#   keep a machine busy. Several texts at once do, or several guessed tokens of one text.
# - It costs two numbers for each layer, channel and token. Query heads that share keys and values bring it down: Llama
#   3 8B keeps 1 GiB for 8,192 tokens, and would keep four.
# - A sliding window would make it useless. A full window is halved and read again: two tokens read for each one written.
#
# All this worked with characters, one at a time. A word of ten letters took ten steps, and the window of a hundred saw
# twenty words. Could a token be more than a character? That is [notebook 09](09_subword_tokenizers.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Count before you look** (easy, 3 minutes). A prompt of 10 tokens is to become a text of 15, and the window is
# large enough. Predict, with no computer: how many tokens does the model read in all, without a cache and with one?
# (The last token written is read by nobody.)

# %% tags=["exercise"]
tokens_read = None  # your answer: (without a cache, with one)

# %%
check("08b.tokens_read", tokens_read)

# %%
hint("08b.tokens_read")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · How many readers?** (easy, 5 minutes). GPT-2 has 12 layers, C = 768 and 1,024 positions. How many bytes has its
# cache for one full text, with two bytes a number? How many such texts fit into the 16 · 10⁹ bytes of a T4, beside the
# 124 million weights of two bytes each?

# %% tags=["exercise"]
cache_size = None  # your answer: (bytes of one text, how many texts)

# %%
check("08b.cache_size", cache_size)


# %% [markdown]
# **3 · Bytes for each token** (easy, 5 minutes). Write the formula for a model whose query heads share keys and values.
# Llama 3 8B should come to 2³⁰ bytes for 8,192 tokens. What does GPT-2 need, in the same formula?

# %% tags=["exercise"]
def kv_bytes(
    n_layer: int, n_head: int, n_kv_head: int, head_size: int, tokens: int, bytes_each: int
) -> int:
    """The bytes of one text's cache: n_head query heads, n_kv_head heads of keys and values."""


# %%
check("08b.kv_bytes", kv_bytes)


# %% [markdown]
# **4 · A test of the cache** (medium, 15 minutes). Write the test that tells a right `step` from a wrong one: whether
# reading one by one gives the scores of one reading, up to rounding. The check hands it steps with all sorts of
# faults, and a `gpt` as above, with large weights in 64-bit numbers. Predict first: which faults would not show in the
# scores after the first token?

# %% tags=["exercise"]
def cache_is_exact(step, gpt: llmkit.GPT, ids: Tensor) -> bool:
    """Whether `step` reads ids (N,) as gpt does at once."""


# %%
check("08b.cache_is_exact", cache_is_exact)


# %% [markdown]
# **5 · Repair it: one layer with a cache** (medium, 15 minutes). This reads n new positions at once, after those in the
# cache, as one reads a prompt or several guesses. It runs, and has the right shapes. It is wrong in two ways. Find
# them, and mend both. (Which positions may the second of three new ones look at?)

# %% tags=["exercise"]
def attend_with_cache(q: Tensor, k: Tensor, v: Tensor, cache: dict) -> Tensor:
    """q, k, v (H, n, D) of n new positions; cache: {"k": (H, S, D), "v": (H, S, D)} -> (H, n, D)"""
    cache["k"] = torch.cat([cache["k"], k], dim=1)  # (H, S + n, D)
    cache["v"] = torch.cat([cache["v"], k], dim=1)
    n, total = q.size(1), cache["k"].size(1)
    mask = llmkit.causal_mask(total)[:n]  # (n, S + n)
    return llmkit.attention(q, cache["k"], cache["v"], mask)[0]


# %%
check("08b.attend_with_cache", attend_with_cache)


# %% [markdown]
# **6 · When to accept a guess** (hard, 25 minutes). In speculative decoding the small model has drawn a token from its
# own probabilities g. The large one, whose probabilities are p, accepts token i with probability min(1, p[i] / g[i]).
# If it does not, a token is drawn from what is *left over*: where p is larger than g, by how much, made to sum to one.
# Write both. Then show with them that the token that comes out in the end has exactly the probabilities p. Predict: how
# often is a guess accepted if g = p, and if g and p have no token in common? (Where g[i] is 0, no guess can be i: say
# 1. If p = g, nothing is left over: return p.)

# %% tags=["exercise"]
def speculate(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """p, g (V,) -> the chance to accept each token as a guess, (V,), and the left-over, (V,)."""


# %%
check("08b.speculate", speculate)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: count before you look
tokens_read = (10 + 11 + 12 + 13 + 14, 10 + 1 + 1 + 1 + 1)  # five new tokens, five readings
check("08b.tokens_read", tokens_read)

# %% tags=["solution"]
# @title Solution 2: how many readers
one_text = 2 * 12 * 1024 * 768 * 2  # keys and values, layers, positions, C, bytes
cache_size = one_text, (16 * 10**9 - 2 * 124_000_000) // one_text
print(f"{one_text / 2**20:.0f} MiB a text, {cache_size[1]} texts")
check("08b.cache_size", cache_size)


# %% tags=["solution"]
# @title Solution 3: bytes for each token
def kv_bytes(
    n_layer: int, n_head: int, n_kv_head: int, head_size: int, tokens: int, bytes_each: int
) -> int:
    return 2 * n_layer * n_kv_head * head_size * tokens * bytes_each  # queries are not kept


print(f"Llama 3 8B: {kv_bytes(32, 32, 8, 128, 8192, 2) / 2**30:.0f} GiB")
print(f"GPT-2: {kv_bytes(12, 12, 12, 64, 1024, 2) / 2**20:.0f} MiB")
check("08b.kv_bytes", kv_bytes)


# %% tags=["solution"]
# @title Solution 4: a test of the cache
@torch.no_grad()
def cache_is_exact(step, gpt: llmkit.GPT, ids: Tensor) -> bool:
    kept = [([], []) for _ in gpt.h]  # a pair of lists for each layer, each its own
    one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])  # (N, V)
    return torch.allclose(one_by_one, gpt(ids[None])[0], rtol=0, atol=1e-10)


assert cache_is_exact(step, gpt, ids)
# After one token there is no past: position 0 is right, and nothing is forgotten yet.
check("08b.cache_is_exact", cache_is_exact)


# %% tags=["solution"]
# @title Solution 5: one layer with a cache
def attend_with_cache(q: Tensor, k: Tensor, v: Tensor, cache: dict) -> Tensor:
    cache["k"] = torch.cat([cache["k"], k], dim=1)  # (H, S + n, D)
    cache["v"] = torch.cat([cache["v"], v], dim=1)  # the values, not the keys once more
    n, total = q.size(1), cache["k"].size(1)
    mask = llmkit.causal_mask(total)[-n:]  # the new positions are the last rows of the triangle
    return llmkit.attention(q, cache["k"], cache["v"], mask)[0]


check("08b.attend_with_cache", attend_with_cache)


# %% tags=["solution"]
# @title Solution 6: when to accept a guess
def speculate(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    accept = (p / g).nan_to_num(nan=1.0).clamp(max=1.0)  # 0 / 0 is nan; p / 0 is infinite, so 1
    left = (p - g).clamp(min=0)
    return accept, left / left.sum() if left.sum() > 0 else p


p, g = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.7, 0.1])
accept, left = speculate(p, g)
accepted = (g * accept).sum()  # the same as torch.minimum(p, g).sum()
assert torch.allclose(g * accept + (1 - accepted) * left, p)
print(f"{accepted:.0%} of the guesses are accepted, and what comes out has the probabilities p")
check("08b.speculate", speculate)
