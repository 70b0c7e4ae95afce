# %% [markdown]
# # 04 · Attention
# *A weighted average that may not look ahead.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/04_attention.ipynb)
#
# About 33 minutes to read, exercises aside.
#
# ← [03b · Backpropagation](03b_backpropagation.ipynb) · [05 · Transformer](05_transformer.ipynb) →

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
# Read `To be, or not to b` and say what comes next. You know it, and you know why: the line up to here leaves
# no choice. The bigram of notebook 03 is handed the `b`, and nothing else. It would give the same answer after
# `a rib`. The window of 03b holds a few characters more, and must learn everything anew at each of its places.
#
# The line has 18 characters. How could the last one make use of the seventeen before it?

# %%
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots, widgets
from llmkit.attention import attention_weights

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## From a mean to a triangle
#
# A model knows each character by a row of numbers, its *features*. We need a way to combine many rows into one, however
# many there are. A mean can do that. Three positions with two features each are enough to see how:

# %%
x = torch.tensor([[6.0, 0.0], [0.0, 6.0], [0.0, 3.0]])  # (T, C): T = 3 positions, C = 2 features

means = torch.stack([x[: t + 1].mean(dim=0) for t in range(3)])  # row t: the mean of rows 0 to t
print(means)

# %% [markdown]
# Row 0 has only itself. Row 2 is the mean of all three. Each row looks back and none looks ahead. That must never
# change: the model is going to *predict* the next character, so it must not read it first.
#
# The loop is not needed. A mean is a sum with weights, and sums with weights are what a matrix product is made
# of:

# %%
weights = torch.ones(3, 3).tril()  # (T, T): ones, and zeros above the diagonal
weights = weights / weights.sum(dim=1, keepdim=True)  # (T, T) / (T, 1): each row by its sum
print(weights)
print(weights @ x)  # (T, T) @ (T, C) -> (T, C)
assert torch.allclose(weights @ x, means)

# %% [markdown]
# Read the matrix by rows. Row `t` belongs to the position that looks, column `s` to the one looked at, and the number
# says how much of `s` goes into `t`. Every row sums to one. The upper triangle is zero: nothing comes from the future.
#
# The triangle of zeros stays for the rest of this notebook. What will change are the other numbers, because a mean treats
# all the past alike, and a reader does not.
#
# ## Weights from scores
#
# So the weights are to be chosen. Choosing is easier without rules: any number may be a *score*, high for
# what matters, low for what does not. The function `softmax` turns scores into weights that are positive and
# sum to one: it takes $e^{\text{score}}$ of each and divides by the sum.

# %%
scores = torch.tensor([2.0, 0.0, 1.0])
print("by hand:", scores.exp() / scores.exp().sum())
print("softmax:", scores.softmax(dim=0))
assert torch.allclose(scores.softmax(dim=0), scores.exp() / scores.exp().sum())

# %% [markdown]
# And the triangle? A weight of zero asks for $e^{\text{score}} = 0$, and there is one score that gives it:
# minus infinity. Equal scores for the past, minus infinity for the future, and softmax returns the mean:

# %%
may_look = torch.ones(3, 3, dtype=torch.bool).tril()  # (T, T): the mask, True = may look
scores = torch.zeros(3, 3).masked_fill(~may_look, -torch.inf)
print(scores)
print(scores.softmax(dim=1))
assert torch.equal(scores.softmax(dim=1), weights)
assert torch.equal(may_look, llmkit.causal_mask(3))  # llmkit has the same mask

# %% [markdown]
# Would a large negative number not do as well? It is often seen in code. Take a position that may look at two others
# and must not look at a third, in the future. Lower the scores of the past, and see how much weight goes to the future:

# %%
print("score of the past    masked with -10    with -10,000       with -inf")
for past in (0.0, -9.0, -20.0, -20_000.0):
    leaks = []
    for fill in (-10.0, -10_000.0, -torch.inf):
        row = torch.tensor([past, past, fill])  # two positions of the past, one of the future
        leaks.append(row.softmax(dim=0)[2].item())
    print(f"{past:17,.0f}" + "".join(f"{leak:18.6f}" for leak in leaks))
    assert leaks[-1] == 0

# %% [markdown]
# Softmax looks at differences only. A finite number is low *compared with* ordinary scores; when all scores of the past
# are lower still, the future has the highest score in the row. Small scores, such as those of a new model, would not
# show it (the first line). Only minus infinity is below everything, and gives a weight of exactly 0.
#
# ## A question and its answers
#
# Who sets the scores? Let us do it by hand once. In a line of text, let every letter look for spaces, and every
# space look for vowels. Then a character needs two things: what it *looks for* and what it *is*. We write each
# as two numbers, one for "space" and one for "vowel":

# %%
line = "To be, or not to be"
is_space = torch.tensor([character == " " for character in line]).float()  # (T,), T = 19
is_vowel = torch.tensor([character in "aeiou" for character in line]).float()

k = torch.stack([is_space, is_vowel], dim=1)  # (T, 2): what a character is
q = torch.stack([1 - is_space, is_space], dim=1)  # (T, 2): what it looks for
q = 10 * q  # the scores will be 0 or 10, and softmax makes of that a clear choice: e^10 is 22,026
for t in (1, 2):
    print(f"{plots.visible(line[t])}  looks for {q[t].tolist()}  is {k[t].tolist()}")

# %% [markdown]
# What one looks for fits what the other is where a large number meets a large number: multiply the two rows number by
# number and add up. That is their dot product, and `q @ k.T` computes it for all pairs at once.

# %%
T = len(line)
scores = q @ k.T  # (T, 2) @ (2, T) -> (T, T): row t asks, column s answers
weights = scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)  # (T, T)

spaces_before_r = [s for s in range(8) if line[s] == " "]
assert weights[8, spaces_before_r].sum() > 0.99  # position 8, the r in "or": its two spaces
assert torch.allclose(weights[1, :2], torch.tensor([0.5, 0.5]))  # the o in "To" finds no space
plots.attention_maps(weights, line, "Letters look for spaces, spaces look for vowels")

# %% [markdown]
# Row by row, a letter spreads its weight over the spaces before it, and a space over the vowels. The first two rows found
# nothing that fits. Their weights are as even as a mean's, since every row must sum to one.
#
# What is asked has a name, the *query*; what answers, the *key*. The third thing is what gets averaged, the
# *value*, and it need not be the key. If a space wants to know *which* vowels there were, let every character
# hand over a row that says so:

# %%
v = torch.zeros(T, 5)
for s, character in enumerate(line):
    if character in "aeiou":
        v[s, "aeiou".index(character)] = 1
out = weights @ v  # (T, T) @ (T, 5) -> (T, 5)

last_space = line.rindex(" ")
print(f"what the last space of {line!r} has fetched:")
print(
    "  ".join(f"{vowel} {share:.2f}" for vowel, share in zip("aeiou", out[last_space], strict=True))
)
vowels = [character for character in line[:last_space] if character in "aeiou"]
assert abs(out[last_space, 3] - vowels.count("o") / len(vowels)) < 0.001  # column 3 is o

# %% [markdown]
# Of the five vowels before it, one is an `e` and four are `o`. The last space has read the line and taken along what it
# asked for.
#
# **Attention is a weighted average of the past, with weights that the text itself decides.**
#
# Here is all of it in one picture, for the last of four positions. The features `x` of each position give a key `k` and a
# value `v`, and those of the position that asks give a query `q` too.

# %%
drawings.queries_keys_values()

# %% [markdown]
# We wrote queries, keys and values by hand. A model finds its own: each is a matrix product with the features `x`, and
# the three matrices start at random and are trained. Here they are before any training, with a random `x`:

# %%
T, C, D = 8, 32, 16  # positions, features of a position, size of queries and keys
x = torch.randn(T, C)
query, key, value = (nn.Linear(C, D, bias=False) for _ in range(3))
q, k, v = query(x), key(x), value(x)  # (T, D) each
print(q.shape, k.shape, v.shape)

# %% [markdown]
# ## Why the scores are divided by √D
#
# A score is a sum of D products. The more of them there are, the larger the sum is likely to be, for no reason but their
# number. Try it with random queries and keys, each number of size about one:

# %%
sizes = [4, 16, 64, 256, 1024]
spread = {}
for D in sizes:
    q, k = torch.randn(2, 2000, D)  # (2000, D) each
    spread[D] = (q * k).sum(dim=1).std().item()  # 2,000 scores
    print(f"D = {D:5}: scores spread by ≈ {spread[D]:5.2f}    √D = {math.sqrt(D):.0f}")
    assert abs(spread[D] / math.sqrt(D) - 1) < 0.1


# %% [markdown]
# The spread (the standard deviation) is √D: the variances of independent numbers add up, and each product brings 1. So
# longer queries and keys have scores that are spread further, and softmax turns *differences* of scores into *ratios* of
# weights. Divide by √D, and the spread is 1 for every D. What does that do to the weights? Let each query choose among
# 64 keys, and take the largest weight of its row:

# %%
def largest_weight(D: int, divisor: float) -> float:
    """Of 200 random queries and 64 random keys: the mean over the queries."""
    q, k = torch.randn(200, D), torch.randn(64, D)
    return (q @ k.T / divisor).softmax(dim=1).max(dim=1).values.mean().item()


# %%
largest = {
    "not divided": [largest_weight(D, 1) for D in sizes],
    "divided by √D": [largest_weight(D, math.sqrt(D)) for D in sizes],
    "divided by √C, C = 8 D": [largest_weight(D, math.sqrt(8 * D)) for D in sizes],
}
undivided, by_size, by_width = largest.values()
assert undivided[-1] > 0.9 > 0.06 > by_width[-1]
assert max(by_size) - min(by_size) < 0.06
plots.lines(
    sizes,
    largest,
    "Divided by √D, the choice is equally sharp for every D",
    xlabel="D, the size of queries and keys",
    ylabel="largest of 64 weights",
    log="x",
    ticks=sizes,
)

# %% [markdown]
# Undivided, and with a large D, one key takes nearly all of the weight before anything is learned. Divided by √D, the
# choice does not depend on D. The third line is a mistake that happens: the root of C, the number of features in the
# whole model, which is 8 times D here. Every row is then much nearer to a mean (1/64 = 0.016). (It stood in a
# much-watched lecture's code [until a viewer found it](https://github.com/karpathy/ng-video-lecture/pull/6).)
#
# Why not start with one key that takes all? Training moves scores a little at a time, and a weight near 1 hardly
# answers:

# %%
for score in (0.0, 2.0, 10.0):
    before, after = (torch.tensor([s, 0.0]).softmax(dim=0)[0].item() for s in (score, score - 0.1))
    print(f"weight {before:.3f}: lower its score by 0.1, and it loses {before - after:.4f}")
assert before - after < 0.0001


# %% [markdown]
# ## The function
#
# That is all there is to it: scores, mask, softmax, average. As a formula, with the queries, keys and values of all
# positions as the rows of $Q$, $K$ and $V$:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\left(\frac{Q K^\top}{\sqrt{D}}\right) V$$
#
# It is from [*Attention Is All You Need*](https://arxiv.org/abs/1706.03762) (Vaswani and others 2017). The mask goes
# between the division and the softmax.

# %%
def attend(q, k, v):
    """q, k, v (..., T, D) -> averages of the values (..., T, D), and their weights (..., T, T)."""
    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (..., T, T)
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(diagonal=1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)  # (..., T, T)
    return weights @ v, weights


# %% [markdown]
# `...` stands for any number of further dimensions in front, which are carried along. Is it what llmkit does,
# and what PyTorch does?

# %%
q, k, v = torch.randn(3, 2, 5, 8, 16)  # each (2, 5, T, D): T = 8, D = 16
out, weights = attend(q, k, v)

llmkit_out, llmkit_weights = llmkit.attention(q, k, v, mask=llmkit.causal_mask(8))
torch_out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
assert torch.allclose(weights, llmkit_weights, atol=1e-6)
assert torch.allclose(out, llmkit_out, atol=1e-6)
assert torch.allclose(out, torch_out, atol=1e-6)
print("attend, llmkit.attention, torch: the same", tuple(out.shape))

# %% [markdown]
# PyTorch's version is made for speed. It need not write the T × T weights to memory ([*FlashAttention: Fast and
# Memory-Efficient Exact Attention with IO-Awareness*](https://arxiv.org/abs/2205.14135), Dao and others 2022); exercise
# 6 shows how that can be. So it is the one to train with. The open one returns the weights, so it is the one to look
# with.
#
# ## Several averages at once
#
# One row of weights per position is one question per position. Our hand-made letters could look for spaces, or for
# vowels; to look for both, they would have to mix them into one average. So ask several questions side by side. Each is
# called a *head*, and gets a slice of its own of the queries, keys and values. Here are three positions with eight numbers
# each, cut into two heads:

# %%
drawings.heads()


# %% [markdown]
# In code, for B texts at once, that is a matter of shapes:

# %%
def split_heads(x, n_head):
    """(B, T, C) -> (B, H, T, D), D = C / H: head h gets features h * D to (h + 1) * D."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(x):
    """(B, H, T, D) -> (B, T, C): the heads side by side again."""
    B, H, T, D = x.shape
    return x.transpose(1, 2).reshape(B, T, H * D)


x = torch.arange(24).view(1, 3, 8)  # (B, T, C): one text, three positions, eight features
print(x[0], split_heads(x, n_head=2)[0], sep="\n")
assert torch.equal(merge_heads(split_heads(x, n_head=2)), x)

# %% [markdown]
# Each head has all three positions and half of the numbers. (The `transpose` matters. Exercise 4 is about what happens
# without it.)
#
# Above, three linear layers made queries, keys and values. In practice one does the work of all three: their matrices are
# put on top of each other, and the result is cut into three.

# %%
C = 32  # as wide as the x from above
query, key, value = (nn.Linear(C, C, bias=False) for _ in range(3))
all_three = nn.Linear(C, 3 * C, bias=False)
all_three.weight.data = torch.cat([query.weight, key.weight, value.weight])  # (3 C, C)
x = torch.randn(2, 8, C)  # (B, T, C)
q, k, v = all_three(x).chunk(3, dim=2)  # (B, T, 3 C) -> (B, T, C) each
assert torch.allclose(q, query(x), atol=1e-6)
assert torch.allclose(k, key(x), atol=1e-6)
assert torch.allclose(v, value(x), atol=1e-6)

# %% [markdown]
# Now the whole layer: that one matrix, the heads, and a last matrix that mixes what the heads have found.

# %%
config = llmkit.GPTConfig(vocab_size=65, block_size=8, n_head=4, n_embd=32)  # H = 4, C = 32
layer = llmkit.CausalSelfAttention(config)


def multi_head(x, layer):
    """(B, T, C) -> (B, T, C)"""
    q, k, v = layer.c_attn(x).chunk(3, dim=2)  # (B, T, 3 C) -> (B, T, C) each
    out, _ = attend(*(split_heads(part, layer.n_head) for part in (q, k, v)))  # (B, H, T, D)
    return layer.c_proj(merge_heads(out))


assert torch.allclose(multi_head(x, layer), layer(x), atol=1e-6)
print({name: tuple(weight.shape) for name, weight in layer.named_parameters()})

# %% [markdown]
# Ours is llmkit's `CausalSelfAttention`, weight for weight, so from here on we use that.
#
# ## What a trained model looks at
#
# Random matrices ask random questions. What do trained ones ask? Here llmkit's `GPT` is two of these layers, with
# something around them that notebook 05 builds. A short training will do: a few hundred small corrections of the weights.
# Notebook 06 is about `train` and the settings in `TrainConfig` (Muon is a way to make the corrections).

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text).to(runtime.device))

config = llmkit.GPTConfig(tokenizer.vocab_size, block_size=32, n_layer=2, n_head=4, n_embd=64)
training = llmkit.TrainConfig(
    steps=runtime.pick(cpu=250, gpu=600),
    batch_size=runtime.pick(cpu=16, gpu=64),
    optimizer="muon",
    learning_rate=0.03,
)
model = llmkit.GPT(config).to(runtime.device)
history = llmkit.train(model, train_ids, config=training)

# %% tags=["trained"]
bigram = llmkit.NGram(train_ids.cpu(), order=2, vocab_size=tokenizer.vocab_size)
bigram_loss = bigram.loss(val_ids.cpu())
loss = llmkit.evaluate(model, val_ids).loss
print(f"held-out text, nats per character: bigram ≈ {bigram_loss:.2f}, with attention ≈ {loss:.2f}")
assert loss < bigram_loss - 0.2

# %% [markdown]
# The past is worth something: the loss is well below the bigram's. (The *nat* is the unit of the loss of notebook 03, the
# mean of -ln of the probability given to the character that came.)
#
# In training the model used PyTorch's attention, which does not keep its attention weights. But they can be computed
# again: llmkit's `attention_weights` lets a text run through the model, takes what each attention layer is given, and
# calls `llmkit.attention` on its queries and keys.

# %%
x, y = next(llmkit.Batches(val_ids, block_size=32, batch_size=32, seed=5))  # (32, 32) each
weights = attention_weights(model, x)
print(tuple(weights.shape), "= (layers, texts, heads, T, T)")
assert torch.allclose(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), atol=1e-5)

# %% [markdown]
# There are 32 pieces of held-out text, and two layers with four heads each. Average over the texts, and put beside the
# eight heads, for comparison, the mean that we began with: an *even look* at the past.

# %%
even = torch.ones(32, 32).tril()
even = even / even.sum(dim=1, keepdim=True)  # (T, T)
heads = weights.mean(dim=1).flatten(0, 1).cpu()  # (L, B, H, T, T) -> (L, H, T, T) -> (8, T, T)
looks = torch.cat([heads, even[None]])  # (9, T, T)
names = [f"layer {i}, head {h}" for i in (0, 1) for h in range(4)] + ["an even look"]

# %% [markdown]
# Does one of them look at the character just before? Those weights stand on the diagonal below the main one:

# %% tags=["trained"]
previous = looks.diagonal(offset=-1, dim1=1, dim2=2).mean(dim=1)  # (9,)
assert previous[:4].max() > 2.5 * previous[-1]
favourite = looks[previous[:8].argmax()]  # (T, T)
assert previous[:8].max() > favourite.diagonal().mean()  # more than it gives to itself
assert previous[:8].max() > favourite.diagonal(offset=-2).mean()  # or to the one further back
plots.bars(
    names,
    previous,
    "One head of the first layer favours the character just before",
    xlabel="share of its weight on the character just before",
    highlight=names[previous[:8].argmax()],
    fmt="{:.2f}",
)

# %% [markdown]
# Nobody told it to. In one line of the text it looks like this:

# %%
speech = tokenizer.decode(val_ids[:2000]).split("\n\n")[1]  # the first whole speech
line = max(speech.split("\n")[1:], key=len)[:32]
ids = tokenizer.encode(line)[None].to(runtime.device)  # (1, T)
layer_of, head_of = divmod(previous[:8].argmax().item(), 4)  # 4 heads in a layer
plots.attention_maps(
    attention_weights(model, ids)[layer_of, 0, head_of],
    line,
    "This head looks at what stands just before",
)

# %% [markdown]
# What do the others do? One number tells much: how many characters back a head looks, on average.

# %% tags=["trained"]
distance = torch.arange(32)[:, None] - torch.arange(32)  # (T, T): t - s
back = (looks * distance).sum(dim=2).mean(dim=1)  # (9,): the mean over each row, then over the rows
assert back[:4].mean() < back[8] / 2  # the first layer
assert back[:4].mean() * 1.3 < back[4:8].mean()
assert abs(back[4:8].mean() - back[8]) < 2
plots.bars(
    names,
    back,
    "The first layer looks near, the second further back",
    xlabel="characters back, mean over held-out text",
    highlight="an even look",
    fmt="{:.1f}",
)

# %% [markdown]
# The first layer has learned to look at what is near. The second still looks nearly as far back as the mean does: in so
# short a training it has not changed much. In a running notebook you can choose another layer and another head below:
# does one of them favour the spaces, as our hand-made letters did?

# %%
widgets.AttentionExplorer(attention_weights(model, ids)[:, 0], line)


# %% [markdown]
# ## A model that looks ahead
#
# How would we notice if the mask were missing? Let us forget it, and train a second model with everything else
# the same:

# %%
class Unmasked(llmkit.CausalSelfAttention):
    def forward(self, x, cache=None):  # the cache is for generating text, notebook 08
        q, k, v = self.c_attn(x).chunk(3, dim=2)
        parts = (split_heads(part, self.n_head) for part in (q, k, v))
        out, _ = llmkit.attention(*parts)  # the mask is missing
        return self.c_proj(merge_heads(out))


# %%
def with_attention(kind):
    """A new GPT whose blocks have another attention layer."""
    model = llmkit.GPT(config)
    for block in model.h:  # h: its layers, one after the other
        block.attn = kind(config)
    model.initialise()  # all weights at random
    return model.to(runtime.device)


peeking = with_attention(Unmasked)
peeking_history = llmkit.train(peeking, train_ids, config=training)

# %% tags=["trained"]
peeking_loss = llmkit.evaluate(peeking, val_ids).loss
print(f"held-out text: with the mask ≈ {loss:.2f}, without ≈ {peeking_loss:.2f}")
assert peeking_loss < 0.5
plots.loss_curves(
    {"masked": history, "unmasked": peeking_history},
    "Without the mask the loss falls to almost nothing",
    by="step",
)

# %% [markdown]
# Too good to be true: it seems to know nearly every next character of a text it has never read. (The curves show the
# training loss, the printed numbers the held-out loss.) It *reads* them. The answer for position `t` stands in the
# input at `t + 1`, and a head has found it:

# %% tags=["trained"]
weights = attention_weights(peeking, ids, masked=False)[:, 0]  # (L, H, T, T)
ahead = weights.diagonal(offset=1, dim1=-2, dim2=-1).mean(dim=-1)  # (L, H)
layer_of, head_of = divmod(ahead.argmax().item(), config.n_head)
assert ahead.max() > 0.5
plots.attention_maps(
    weights[layer_of, head_of].clamp(min=1e-9),  # an exact 0 would be left empty
    line,
    "Without a mask a head learns to read the answer",
)

# %% [markdown]
# (The last position has no next character to read, and looks anywhere.) The held-out loss did not warn us, for
# there too the answer stands in the input. Only where the next character is not yet written does the fault come
# out. Let both models write:

# %% tags=["nbval-ignore-output", "sampled-text"]
prompt = tokenizer.encode("\n").to(runtime.device)
for name, one in {"masked": model, "unmasked": peeking}.items():
    written = llmkit.generate(one, prompt, max_new_tokens=120, seed=1, use_cache=False)
    print(f"{name}:\n{plots.visible(tokenizer.decode(written))}\n")

# %% [markdown]
# The first writes something like words, the second has nothing to copy from. To find such a fault before the training
# and not after it, change the later characters of an input and see whether an earlier prediction moves. llmkit does
# that with any model:

# %%
for one in (model, peeking):
    print(llmkit.checks.leaks_future(one))
assert llmkit.checks.leaks_future(model).passed
assert not llmkit.checks.leaks_future(with_attention(Unmasked)).passed  # new, and found already

# %% [markdown]
# It needs no training and no text, and it names the position. Run it on every model that you write.
#
# ## What attention cannot know
#
# One thing is still missing. A mean does not care in which order its numbers come. Does attention? Take the untrained
# layer from above, and look at what its last position has read:

# %%
letters = nn.Embedding(tokenizer.vocab_size, 32)  # a row of features for each character, at random


def at_the_end(text):
    """The layer's output at the last position: (C,)"""
    x = letters(tokenizer.encode(text))[None]  # (1, T, C)
    return layer(x)[0, -1]


first = at_the_end("dog bites man.")
for sentence in ("man bites dog.", "dog bites men."):
    same = torch.allclose(at_the_end(sentence), first, atol=1e-6)
    print(sentence, "-> the same as dog bites man." if same else "-> something else")
assert torch.allclose(at_the_end("man bites dog."), first, atol=1e-6)
assert not torch.allclose(at_the_end("dog bites men."), first, atol=1e-3)

# %% [markdown]
# The same letters in another order give the full stop the very same features. Query and key see *what* stands
# there, never *where*. To this layer a text is a bag of characters.
#
# And yet a trained head found the character just before. So something else in llmkit's `GPT` must have told it where
# each character stands. How that is done, and what else stands around attention, is the next notebook.
#
# ## What we saw
#
# - The mean of the past is a matrix product with a lower triangle whose rows sum to one.
# - Softmax makes such rows from any scores; minus infinity makes the zeros. A finite mask let the future through
#   as soon as the scores of the past were lower.
# - A query says what a position looks for, a key what it is, a value what it hands over. The score of a pair is
#   a dot product, divided by √D so that their size does not decide how sharp the choice is.
# - Heads are several such averages side by side. Ours equals llmkit's and PyTorch's to 1e-6.
# - After a short training the model beat the bigram; one head had learned to favour the character just before, and the
#   second layer looked further back than the first.
# - Without the mask the loss fell to almost nothing, on held-out text as well, and the model could not write.
#   `llmkit.checks.leaks_future` saw it without any training.
#
# Still wrong: to attention the past is a bag of characters. How does a position learn where it stands, and what
# does the model do with what attention has fetched? [Notebook 05](05_transformer.ipynb) builds the rest.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Count before you look** (easy, 2 minutes). Predict, with no computer: in a causal mask for T = 5, how many
# positions does row 0 let through, how many does row 4, and how many do all five rows together?

# %% tags=["exercise"]
mask_rows = None  # your answer: (row 0, row 4, together)

# %%
check("04.mask_rows", mask_rows)

# %%
hint("04.mask_rows")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · A fading memory** (easy, 5 minutes). Build the `(T, T)` scores for which softmax gives weights that halve with
# each step back: 1, ½, ¼, ... of the position's own weight. Which scores have differences that make ratios of ½? The
# last row of `fading_weights(3)` should be 1/7, 2/7, 4/7.

# %% tags=["exercise"]
def fading_weights(T: int) -> torch.Tensor:
    scores = torch.zeros(T, T)
    return scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)


# %%
check("04.fading_weights", fading_weights)


# %% [markdown]
# **3 · Off by one** (medium, 10 minutes). Somebody writes `triu(diagonal=2)` where `attend` has `triu(diagonal=1)`.
# What may a position see then? Build the layer as `Unmasked` was built, put it into a GPT with `with_attention`, and
# see what `leaks_future` says. Before you train it: what will the loss do?

# %% tags=["exercise"]
class OffByOne(llmkit.CausalSelfAttention):
    def forward(self, x, cache=None):
        return super().forward(x)


# %%
check("04.off_by_one", OffByOne)


# %% [markdown]
# **4 · The missing transpose** (medium, 10 minutes). `x.view(B, H, T, D)` has the right shape at once, without
# `transpose`. What is in it? Find out with the small `x = torch.arange(24).view(1, 3, 8)`. What is a causal mask still
# worth then, if `merge_heads` stays as it is? Let a check confirm your answer.

# %% tags=["exercise"]
def split_heads_wrongly(x, n_head):
    return split_heads(x, n_head)


# %%
check("04.split_heads_wrongly", split_heads_wrongly)


# %% [markdown]
# **5 · Repair it** (medium, 10 minutes). This attention runs, has the right shapes, and trains. It is wrong in two
# ways. Find them, and mend both.

# %% tags=["exercise"]
def repaired(q, k, v):
    T = q.size(-2)
    scores = q @ k.transpose(-2, -1) / math.sqrt(T)
    weights = scores.softmax(dim=-1)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    return weights.masked_fill(future, 0.0) @ v


# %%
check("04.repaired", repaired)


# %% [markdown]
# **6 · Without the matrix** (hard, 25 minutes). A row of T weights is a waste if all we want is the average. Compute it
# for one query in a single pass over keys and values that keeps three things only: the largest score so far, the sum of
# the $e^{\text{score}}$ so far, and the weighted sum of values so far. (Subtract the largest score in the exponent, and
# mend both sums when a larger one comes.) Fast attention is made so, in blocks. The result should be that of
# `llmkit.attention`.

# %% tags=["exercise"]
def attend_in_one_pass(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q (D,), k (T, D), v (T, Dv) -> (Dv,)"""
    return v[0]


# %%
check("04.attend_in_one_pass", attend_in_one_pass)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: count before you look
mask_rows = (1, 5, 15)  # row t lets t + 1 positions through; 1 + 2 + 3 + 4 + 5
check("04.mask_rows", mask_rows)

# %% tags=["solution"]
# @title Solution 2: a fading memory


def fading_weights(T: int) -> torch.Tensor:
    place = torch.arange(T)
    scores = -math.log(2) * (place[:, None] - place)  # ln 2 lower with each step back
    return scores.masked_fill(~llmkit.causal_mask(T), -torch.inf).softmax(dim=1)


check("04.fading_weights", fading_weights)

# %% tags=["solution"]
# @title Solution 3: off by one


class OffByOne(llmkit.CausalSelfAttention):
    def forward(self, x, cache=None):
        q, k, v = (split_heads(part, self.n_head) for part in self.c_attn(x).chunk(3, dim=2))
        T = x.size(1)
        mask = torch.ones(T, T, dtype=torch.bool, device=x.device).tril(diagonal=1)  # one ahead
        out, _ = llmkit.attention(q, k, v, mask)
        return self.c_proj(merge_heads(out))


found = llmkit.checks.leaks_future(with_attention(OffByOne))
print(found)
assert not found.passed
# One ahead is all it takes: the next character is the answer, so the loss falls as without a mask.
check("04.off_by_one", OffByOne)

# %% tags=["solution"]
# @title Solution 4: the missing transpose


def split_heads_wrongly(x, n_head):
    B, T, C = x.shape
    return x.reshape(B, n_head, T, C // n_head)


print(split_heads_wrongly(torch.arange(24).view(1, 3, 8), n_head=2)[0])
# Head 0 holds position 0 and half of position 1, cut into three rows: its rows are not positions.


class WrongHeads(llmkit.CausalSelfAttention):
    def forward(self, x, cache=None):
        q, k, v = (split_heads_wrongly(p, self.n_head) for p in self.c_attn(x).chunk(3, dim=2))
        return self.c_proj(merge_heads(attend(q, k, v)[0]))


found = llmkit.checks.leaks_future(with_attention(WrongHeads))
print(found)
assert not found.passed
# Row 0 of the last head was cut from late in the text, and merge_heads gives it to position 0.
# With the same mistake in merge_heads nothing would leak, but each head would see only its own
# piece of the text, a quarter of it with four heads.
check("04.split_heads_wrongly", split_heads_wrongly)

# %% tags=["solution"]
# @title Solution 5: repair it


def repaired(q, k, v):
    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # a score is a sum of D products
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)  # masked first: rows sum to 1
    return weights @ v


check("04.repaired", repaired)

# %% tags=["solution"]
# @title Solution 6: without the matrix


def attend_in_one_pass(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    largest, total, out = torch.tensor(-torch.inf), torch.tensor(0.0), torch.zeros(v.size(1))
    for key, value in zip(k, v, strict=True):
        score = q @ key / math.sqrt(len(q))
        new_largest = torch.maximum(largest, score)
        mend = (largest - new_largest).exp()  # 1 while no larger score comes
        weight = (score - new_largest).exp()
        total, out = total * mend + weight, out * mend + weight * value
        largest = new_largest
    return out / total


check("04.attend_in_one_pass", attend_in_one_pass)
