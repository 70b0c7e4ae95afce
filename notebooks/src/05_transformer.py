# %% [markdown]
# # 05 · Transformer
# *Blocks that read from and write to a residual stream.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/05_transformer.ipynb)
#
# About 28 minutes to read, exercises aside.
#
# ← [04 · Attention](04_attention.ipynb) · [05b · Positions and norms](05b_positions_and_norms.ipynb) →

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
# Attention, the subject of notebook 04, lets each position of a text take a weighted average of itself and of the
# positions before it. The text decides the weights. Is that a language model? It fetches; it does not work on what it
# has fetched, and it cannot tell `dog bites man` from `man bites dog`. What has to stand around it?
#
# We start from the bigram, which knows one character and nothing else, and add one part after another. Each part has
# to show what it is worth. At the end we have a GPT, the kind of model that this series trains from here on.

# %%
import math
from collections import OrderedDict
from dataclasses import replace

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# (The line says where everything runs. On a GPU some cells do more: `runtime.pick` chooses.)
#
# We need a text, cut into characters, each of which is a number. Nine tenths are there to train on, the rest is held
# out. These are the sizes of everything that follows:

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text).to(runtime.device))

V, T, C, H = tokenizer.vocab_size, 32, 64, 4  # characters, longest text, features, heads
config = llmkit.GPTConfig(V, T, n_layer=3, n_head=H, n_embd=C)  # GPT-2's names for them
print(f"{V} characters, {T} at a time, {C} features for each")


# %% [markdown]
# ## Grow a model
#
# Everything we try has the same two ends. In front, each character is looked up in a table of features (the
# *embedding*). At the back, a matrix turns features into a score for each character that could be next. In
# between stands a `body`, features in and features out. B texts of T characters each go through at once:

# %%
class Model(nn.Module):
    def __init__(self, *body):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(V, C)  # a row of features for each character
        self.body = nn.Sequential(*body)  # its layers, one after the other
        self.lm_head = nn.Linear(C, V, bias=False)
        self.apply(small)  # to each part of the model: see below

    def forward(self, ids):
        return self.lm_head(self.body(self.wte(ids)))  # (B, T) -> (B, T, C) -> (B, T, V)

    def loss(self, x, y):
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())


def small(part):
    """First weights that are small, so that no guess is favoured before training."""
    if isinstance(part, (nn.Linear, nn.Embedding)):
        nn.init.normal_(part.weight, std=0.02)


# %% [markdown]
# The loss is the mean of −log of the probability that was given to the character that came. Its unit is the *nat*, and
# lower is better.
#
# A comparison is fair only if all get the same: the same batches, the same number of steps, the same rule for changing
# the weights. (The rule is called Muon. What it and `train` do is the subject of notebook 06; for now it is a few
# hundred small corrections.) All are measured on the whole of the held-out text.

# %%
training = llmkit.TrainConfig(steps=200, batch_size=16, optimizer="muon", learning_rate=0.05)
ladder = {}  # name -> held-out loss
grown = {}  # name -> model


def grow(name, *body):
    """Train a model with this body, keep it, and note its loss on held-out text."""
    torch.manual_seed(runtime.seed)
    model = Model(*body).to(runtime.device)
    llmkit.train(model, train_ids, config=training)
    grown[name], ladder[name] = model, llmkit.evaluate(model, val_ids).loss
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: ≈ {ladder[name]:.3f} nats per character, {parameters:,} parameters")


grow("bigram")


# %% [markdown]
# With no layers in its body the model is a bigram: it guesses the next character from the present one. (A *parameter*
# is a number that training changes.) Now let positions look back, with notebook 04's layer of four heads:

# %% tags=["trained"]
def attention():
    return llmkit.CausalSelfAttention(config)


grow("attention, no positions", attention())
assert ladder["attention, no positions"] > ladder["bigram"]


# %% [markdown]
# That is worse than the bigram, although it sees up to 32 characters. To attention the past is a bag of characters,
# and what it hands on is an average in which not even the present one has a place of its own.
#
# So where something stands must be part of *what* it is. Give each position a row of features of its own, as each
# character has one, and add the two:

# %%
class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.wpe = nn.Embedding(T, C)  # a row of features for each position

    def forward(self, x):
        return x + self.wpe.weight[: x.size(1)]  # (B, T, C) + (T, C): alike for every text


# %% tags=["trained"]
grow("attention", Positions(), attention())
assert ladder["attention"] < ladder["bigram"] - 0.02

# %% [markdown]
# The rows are trained like everything else, and the past begins to pay. (There are other ways to say where;
# [notebook 05b](05b_positions_and_norms.ipynb) compares them.)
#
# Attention only averages, though. To work on what it has fetched, the features of a position go through a small
# network: widen from C to 4 C features, bend, narrow again. It is the *same* network for every position, and it sees
# one position at a time. The bend is what makes it more than another sum. Ours is
# [GELU](https://arxiv.org/abs/1606.08415), which leaves large positive numbers as they are and brings negative ones
# to about 0:

# %%
numbers = torch.tensor([-2.5, -1.0, 0.0, 1.0, 2.5])
print(nn.GELU()(numbers))


# %% tags=["trained"]
def feed_forward():
    return nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))


grow("attention → feed-forward", Positions(), attention(), feed_forward())
assert ladder["attention → feed-forward"] > ladder["attention"]

# %% [markdown]
# That is worse than attention alone, with more than twice as many parameters. Perhaps it wants more of the same? Three
# times the pair, one after the other:

# %% tags=["trained"]
pairs = [part() for _ in range(3) for part in (attention, feed_forward)]
grow("the pair, three times", Positions(), *pairs)

unigram = llmkit.NGram(train_ids.cpu(), order=1, vocab_size=V).loss(val_ids.cpu())
print(f"to compare: knowing only how frequent each character is costs ≈ {unigram:.3f}")
assert ladder["the pair, three times"] > unigram - 0.1

# %% [markdown]
# The biggest model so far is the worst. Does it still look at the text? Let it read 32 different ones, and see how much
# its guess for the same character varies from one position to another:

# %% tags=["trained"]
x, _ = next(llmkit.Batches(val_ids, block_size=T, batch_size=32, seed=0))  # (B, T): 32 texts
for name in ("attention", "the pair, three times"):
    with torch.no_grad():
        guesses = grown[name](x).softmax(dim=-1)  # (B, T, V)
    varies = guesses.std(dim=(0, 1)).max().item()
    print(f"{name}: guesses vary by ≈ {varies:.4f}")
assert varies < 0.05

# %% [markdown]
# It has forgotten everything. Whatever it reads, its guesses are nearly the same: they are the frequencies of the
# characters, and little more.
#
# ## The residual stream
#
# In the chain every layer *replaces* what it was given. How much gets through three new pairs, not yet trained? Give
# every position features of its own, of size one, and see how much the positions still differ at the end. To be fair to
# the chain we try our small first weights, and the larger ones that PyTorch draws:

# %%
for name, start in {"our small weights": small, "PyTorch's weights": lambda part: None}.items():
    chain = nn.Sequential(*[part() for _ in range(3) for part in (attention, feed_forward)])
    chain.apply(start)
    x = torch.randn(1, T, C)  # (B, T, C)
    with torch.no_grad():
        differ = chain(x).std(dim=1).mean().item()
    print(f"{name}: after three pairs the positions differ by ≈ {differ:.0e}")
    assert differ < 0.01


# %% [markdown]
# Next to nothing. Training would have to repair six layers before any of them could be of use. So a layer should not
# replace what it was given, but add to it:

# %%
class Add(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)  # (B, T, C)


nothing = nn.Linear(3, 3)
nn.init.zeros_(nothing.weight)
nn.init.zeros_(nothing.bias)
print(Add(nothing)(torch.tensor([1.0, 2.0, 3.0])).tolist())

# %% [markdown]
# A layer that adds zero leaves the features as they are: a layer that knows nothing does no harm. Now we climb the
# same rungs once more, with this one change:

# %% tags=["trained"]
grow("add attention", Positions(), Add(attention()))
grow("add attention, add feed-forward", Positions(), Add(attention()), Add(feed_forward()))
pairs = [Add(part()) for _ in range(3) for part in (attention, feed_forward)]
grow("add the pair, three times", Positions(), *pairs)
assert ladder["add attention"] < ladder["attention"] - 0.02
assert ladder["add attention, add feed-forward"] < ladder["add attention"] - 0.01
assert ladder["add the pair, three times"] < ladder["add attention, add feed-forward"] - 0.01

# %% [markdown]
# Now every part pays: attention, then the feed-forward layer, then depth. The features run straight through from the
# embedding to the output, and layers beside this *residual stream* read from it and write to it.
# **A transformer is a stream that runs through, and layers that add what they have found.** (The idea is older than the
# transformer: [He et al. 2015](https://arxiv.org/abs/1512.03385) trained image networks of 152 layers with it.)
#
# ## A norm before each layer
#
# Sums grow. A layer that reads the stream should not have to care how large it has become. So before reading, the
# features of each position are brought to mean 0 and spread 1. This is the *layer norm*
# ([Ba et al. 2016](https://arxiv.org/abs/1607.06450)):
#
# $$\text{norm}(x) = \frac{x - \text{mean}(x)}{\sqrt{\text{variance}(x) + \varepsilon}} \cdot \text{gain} + \text{bias}$$
#
# Gain and bias are trained, a number for each feature; they are 1 and 0 at first. The ε is tiny (0.00001) and keeps us
# from dividing by zero.

# %%
x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [100.0, 200.0, 300.0, 600.0]])  # (2, 4): two positions
by_hand = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, correction=0)
print(by_hand)
assert torch.allclose(nn.LayerNorm(4)(x), by_hand, atol=1e-4)


# %% [markdown]
# The second position is a hundred times the first, and a layer behind the norm sees no difference. With a norm before
# each layer, and one before the output:

# %% tags=["trained"]
def block():
    return [Add(nn.LayerNorm(C), attention()), Add(nn.LayerNorm(C), feed_forward())]


grow("one block, with norms", Positions(), *block(), nn.LayerNorm(C))
grow("three blocks, with norms", Positions(), *block(), *block(), *block(), nn.LayerNorm(C))
for one in ("one block, with norms", "three blocks, with norms"):
    assert ladder[one] < ladder["add the pair, three times"] - 0.02
added = [ladder[name] for name in ladder if name.startswith("add ")]  # attention, one pair, three
norms_gain = added[1] - ladder["one block, with norms"]
assert norms_gain > max(added[0] - added[1], added[1] - added[2])

# %% [markdown]
# The norms are worth more than the feed-forward layer was, and more than depth. An attention part and a feed-forward
# part, each with its norm, are called a *block*. Here is the ladder as a whole:

# %% tags=["trained"]
assert ladder["three blocks, with norms"] > ladder["one block, with norms"] - 0.01
plots.bars(
    list(ladder),
    list(ladder.values()),
    "A chain forgets; a stream with norms learns most",
    xlabel="held-out loss after 200 steps (nats per character)",
    highlight="the pair, three times",
    fmt="{:.2f}",
)

# %% [markdown]
# Three blocks do not beat one here. Is depth worth nothing then? 200 steps are a short time to fill three blocks, so we
# shall ask again when the model is complete, and train for longer.
#
# ## Block and GPT
#
# What we grew is GPT-2's block. Here it is as a drawing, with the stream running from left to right:

# %%
drawings.block()


# %% [markdown]
# And here it is as code, with GPT-2's names. Notebook 11 will load GPT-2's weights by these names.

# %%
class MLP(nn.Sequential):  # "multi-layer perceptron", an old name for a feed-forward network
    def __init__(self, config):
        C = config.n_embd
        parts = OrderedDict(
            c_fc=nn.Linear(C, 4 * C),
            act=nn.GELU(approximate="tanh"),  # a formula near GELU's, which GPT-2 used
            c_proj=nn.Linear(4 * C, C),
        )
        super().__init__(parts)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn, self.mlp = llmkit.CausalSelfAttention(config), MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))  # (B, T, C): look around
        return x + self.mlp(self.ln_2(x))  # (B, T, C): think it over


# %% [markdown]
# The whole model puts blocks between the two ends that we know:

# %%
drawings.gpt_architecture()


# %% [markdown]
# One thing is new. The table that turns characters into features also turns features into scores, which saves a matrix
# ([Press and Wolf 2017](https://arxiv.org/abs/1608.05859)). A character's score is then the dot product of the stream
# with the character's own row.

# %%
class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight  # one matrix, two uses

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.size(1)]  # (B, T) -> (B, T, C)
        for block in self.h:
            x = block(x)  # (B, T, C)
        return self.lm_head(self.ln_f(x))  # (B, T, V)


# %% [markdown]
# Is it llmkit's? With the same weights it must give the same scores.

# %%
ours, theirs = GPT(config), llmkit.GPT(config)
ours.load_state_dict(theirs.state_dict())  # copies all weights, each by its name

x, y = next(llmkit.Batches(train_ids.cpu(), block_size=T, batch_size=32, seed=0))  # (B, T) each
assert torch.allclose(ours(x), theirs(x), atol=1e-5)
print("the same scores", tuple(ours(x).shape))


# %% [markdown]
# So from here on we use llmkit's. It can do one thing more: `dropout`, which while training sets a random share of the
# numbers in the stream to zero, so that the model relies on none of them
# ([Srivastava et al. 2014](https://jmlr.org/papers/v15/srivastava14a.html)). The share is 0 unless we ask for more, and
# notebook 06 shows when it helps.
#
# ## Counting what can be learned
#
# How many parameters is that? Count them by hand, part by part. A matrix from C to 4 C has 4 C² of them, and 4 C
# more that are added (the *bias*):

# %%
def count(config):
    """Parameters of a GPT, by part."""
    V, T, C = config.vocab_size, config.block_size, config.n_embd
    attention = (C * 3 * C + 3 * C) + (C * C + C)  # queries, keys and values; mixing the heads
    feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)  # widen, narrow
    norms = 2 * (C + C)  # a gain and a bias each
    return {
        "characters": V * C,  # also the output matrix
        "positions": T * C,
        "attention": config.n_layer * attention,
        "feed-forward": config.n_layer * feed_forward,
        "norms": config.n_layer * norms + 2 * C,
    }


# %%
for part, numbers in count(config).items():
    print(f"{part:13}{numbers:9,}")
print(f"{'together':13}{sum(count(config).values()):9,}")
assert sum(count(config).values()) == theirs.num_parameters()

# %% [markdown]
# Two thirds of a block are feed-forward. Does our count hold for the real ones? PyTorch can build a model without the
# memory for its weights (on the device called "meta"), so let it check our sums for all four sizes of GPT-2:

# %%
for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    big = llmkit.GPTConfig.gpt2(name)
    with torch.device("meta"):
        numbers = llmkit.GPT(big).num_parameters()
    assert sum(count(big).values()) == numbers
    print(f"{name:12} {big.n_layer} blocks, {big.n_embd:4} wide: {numbers:13,}")


# %% [markdown]
# ## The first loss
#
# Before training a model knows nothing, so it should find all V characters equally likely. The loss of an even
# guess is −log(1/V) = ln V. Ours, with the weights that PyTorch draws, and then with GPT-2's:

# %%
def first_loss(model):
    with torch.no_grad():
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()


print(f"ln {V} = {math.log(V):.3f}")
print(f"PyTorch's weights: ≈ {first_loss(GPT(config)):.3f}")
print(f"GPT-2's weights:   ≈ {first_loss(llmkit.GPT(config)):.3f}")
assert first_loss(GPT(config)) > 3 * math.log(V)
assert abs(first_loss(llmkit.GPT(config)) - math.log(V)) < 0.1

# %% [markdown]
# PyTorch's embeddings start with numbers of size one. As an output matrix they make large scores, so the model
# is sure of itself before it has read a line. GPT-2 draws them fifty times smaller (0.02), and the weights that
# write to the stream smaller still, so that the sum does not grow with depth. If a model's first loss is not ln V,
# stop and look.
#
# ## Does depth pay?
#
# Back to the open question, with the whole model: one block or three, and this time 600 steps (of half as many texts).

# %% tags=["trained"]
longer = replace(training, steps=runtime.pick(cpu=600, gpu=2000), batch_size=8)
ends = {}
for name, blocks in {"one block": 1, "three blocks": 3}.items():
    torch.manual_seed(runtime.seed)
    model = llmkit.GPT(replace(config, n_layer=blocks)).to(runtime.device)
    llmkit.train(model, train_ids, config=longer)
    ends[name] = llmkit.evaluate(model, val_ids).loss
    print(f"{name}: ≈ {ends[name]:.3f} nats per character")
assert ends["three blocks"] < ends["one block"] - 0.005

# %% [markdown]
# Three blocks end lower, by a few hundredths of a nat: depth pays when there is time to train it. (GPT-2 has 12 to 48
# blocks and read [40 GB of
# text](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).) The
# last model of the loop, with three blocks, is still there. What does it write?

# %% tags=["nbval-ignore-output", "sampled-text"]
prompt = tokenizer.encode("\n").to(runtime.device)
print(tokenizer.decode(llmkit.generate(model, prompt, max_new_tokens=200, seed=1)))

# %% [markdown]
# Not a play, but it has names, lines, and words that are nearly words.
#
# ## Take a block out
#
# If blocks only add, then a model should survive the loss of one. Leave out each of the three in turn:

# %% tags=["trained"]
blocks, without = list(model.h), {"nothing": ends["three blocks"]}
for i in range(3):
    model.h = nn.ModuleList(blocks[:i] + blocks[i + 1 :])
    without[f"block {i}"] = llmkit.evaluate(model, val_ids).loss
model.h = nn.ModuleList(blocks)

assert without["block 0"] > ends["three blocks"] + 1
assert max(without["block 1"], without["block 2"]) < ends["three blocks"] + 0.6
plots.bars(
    list(without),
    list(without.values()),
    "The first block is missed most",
    xlabel="held-out loss (nats per character), nothing retrained",
    ylabel="left out",
    highlight="block 0",
    fmt="{:.2f}",
)

# %% [markdown]
# Nothing was retrained. The later blocks add refinements, and without one of them the model still predicts far better
# than the frequencies of the characters would, and than the bigram. The first block is another matter: all that
# follows was trained to read what it writes. (Image networks with a residual stream behave so too: [Veit et al.
# 2016](https://arxiv.org/abs/1605.06431).)
#
# ## Four questions to every model
#
# Does it see the future? Does one text of a batch change what is said of another? Is its first loss ln V? Can it bring
# the loss of one small batch under half of ln V, with all of its weights taking part? llmkit asks them of any model, in
# seconds:

# %%
for result in llmkit.checks.run(llmkit.GPT(config)):
    print(result)
    assert result.passed

# %% [markdown]
# ## What we saw
#
# - Attention without positions did worse than the bigram; with them it did better.
# - In a chain, the feed-forward layer did harm, and three such pairs forgot everything: each layer replaced what it was
#   given, and next to nothing got through.
# - The same parts, *adding* to a residual stream, all paid, one by one. A norm before each layer paid more than depth.
# - Three blocks were no better than one after 200 steps, and better after 600.
# - Block and GPT fit on a screen each and give llmkit's scores with llmkit's weights. The hand count of the
#   parameters holds for ours and for all four of GPT-2.
# - With GPT-2's small first weights, the first loss is ln V.
# - The first block of a trained GPT is missed most when it is taken out.
#
# Much of this was a choice: a trained row for each position, norms before the layers, a mask and no second text. Others
# chose differently, and the row for position 32 does not even exist. What do the choices change? That is
# [notebook 05b](05b_positions_and_norms.ipynb). In a hurry to train? [Notebook 06](06_training.ipynb) goes on from here
# as well.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Shapes first** (easy, 3 minutes). A GPT with `vocab_size=65, block_size=32, n_head=4, n_embd=64` reads a batch
# of 2 texts, 5 characters each. Predict, with no computer, the shape of: the stream after the embedding; the queries,
# cut into heads; the attention weights; the middle of the feed-forward layer; the scores.

# %% tags=["exercise"]
shapes = None  # your answer: five shapes, ((..., ..., ...), ...)

# %%
check("05.shapes", shapes)

# %%
hint("05.shapes")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · A budget** (easy, 5 minutes). Your memory holds so many numbers, 1,000,000 say. With `vocab_size=65`,
# `block_size=64` and four blocks of four heads: how wide can the GPT be, if the width has to be a multiple of 4? Use
# `count`.

# %% tags=["exercise"]
def widest(memory):
    return None  # your answer, a width


# %%
check("05.widest", widest)


# %% [markdown]
# **3 · The norm by hand** (easy, 8 minutes). Write the whole layer norm, with its ε of 0.00001, gain and bias, for a
# stream `(B, T, C)`, and without `nn.LayerNorm`. Before you test it: what should come out for a position whose
# features are all equal?

# %% tags=["exercise"]
def layer_norm(x, gain, bias):  # (B, T, C), (C,), (C,) -> (B, T, C)
    return None  # your answer


# %%
check("05.layer_norm", layer_norm)


# %% [markdown]
# **4 · Repair it** (medium, 10 minutes). This block runs, has the right shapes, and trains. It is wrong in two ways.
# Find them, and mend both.

# %% tags=["exercise"]
class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_1(y))


# %%
check("05.repaired_block", RepairedBlock)


# %% [markdown]
# **5 · Read the stream on its way** (hard, 20 minutes). If blocks only add to the stream, it can be read at any depth
# as if the model ended there. Give the list of scores that a `GPT` would show before its first block, after it, after
# the second, and so on: `n_layer + 1` tensors `(B, T, V)`. Then guess, and measure with the trained `model`: how does
# the loss change from one to the next? (Its inventor calls it the [logit
# lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens).)

# %% tags=["exercise"]
def lens(model, ids):  # a GPT, (B, T) -> a list of n_layer + 1 tensors (B, T, V)
    return None  # your answer


# %%
check("05.lens", lens)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: shapes first
# B = 2, T = 5 (block_size is only the most there may be), C = 64, H = 4, D = 16; V = 65
shapes = ((2, 5, 64), (2, 4, 5, 16), (2, 4, 5, 5), (2, 5, 256), (2, 5, 65))
check("05.shapes", shapes)

# %% tags=["solution"]
# @title Solution 2: a budget


def widest(memory):
    def size(width):
        return sum(count(llmkit.GPTConfig(65, 64, n_layer=4, n_head=4, n_embd=width)).values())

    width = 4
    while size(width + 4) <= memory:
        width += 4
    return width


print(f"a million numbers: {widest(1_000_000)} wide")
check("05.widest", widest)

# %% tags=["solution"]
# @title Solution 3: the norm by hand


def layer_norm(x, gain, bias):
    mean = x.mean(dim=-1, keepdim=True)  # (B, T, 1): of each position alone
    variance = x.var(dim=-1, keepdim=True, correction=0)  # divided by C, not by C - 1
    return (x - mean) / (variance + 1e-5).sqrt() * gain + bias


# Where all features are equal, x - mean is 0, so the bias comes out. Without ε it would be 0 / 0.
check("05.layer_norm", layer_norm)

# %% tags=["solution"]
# @title Solution 4: repair it


class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return y + self.mlp(self.ln_2(y))  # from y: the stream keeps what attention added to it


check("05.repaired_block", RepairedBlock)

# %% tags=["solution", "trained"]
# @title Solution 5: read the stream on its way


def lens(model, ids):
    x = model.wte(ids) + model.wpe.weight[: ids.size(1)]  # (B, T, C)
    readings = [model.lm_head(model.ln_f(x))]
    for block in model.h:
        x = block(x)
        readings.append(model.lm_head(model.ln_f(x)))  # normed to be read: x itself stays
    return readings


x, y = next(llmkit.Batches(val_ids, block_size=T, batch_size=256, seed=0))  # (B, T) each
with torch.no_grad():
    losses = [F.cross_entropy(scores.mT, y).item() for scores in lens(model, x)]
for depth, loss in enumerate(losses):
    print(f"read after {depth} blocks: ≈ {loss:.2f} nats")
assert losses[0] > math.log(V)
assert losses == sorted(losses, reverse=True)
# Before the first block the stream still holds the character itself, and the same table reads it
# out again: a sure guess, and a wrong one. Each block brings the stream nearer to the next one.
check("05.lens", lens)
