# %% [markdown]
# # 05 · Transformer
# *Blocks that read from and write to a residual stream.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/05_transformer.ipynb)
#
# About 37 minutes to read, exercises aside.
#
# ← [04 · Attention](04_attention.ipynb) · [06 · Training](06_training.ipynb) →

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
# Attention, the subject of notebook 04, lets each position average what it wants of its past. Is that a
# language model? It fetches; it does not work on what it has fetched, and it cannot tell `dog bites man` from
# `man bites dog`. What has to stand around it?
#
# We start from the bigram and add one part after another. Each has to show what it is worth.

# %%
import math
from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import plots
from llmkit.positions import rotary, sinusoids

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# The text, cut into characters, each of which is a number; nine tenths to train on, the rest held out. And the sizes of
# everything that follows:

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
# between stands a `body`, features in and features out:

# %%
class Model(nn.Module):
    def __init__(self, body, positions=True):
        super().__init__()
        self.config, self.body = config, body
        self.wte = nn.Embedding(V, C)  # a row for each character
        self.wpe = nn.Embedding(T, C) if positions else None  # a row for each place
        self.lm_head = nn.Linear(C, V, bias=False)
        for part in self.modules():  # small random weights, so that no guess is favoured at first
            if isinstance(part, (nn.Linear, nn.Embedding)):
                nn.init.normal_(part.weight, std=0.02)

    def forward(self, ids):
        x = self.wte(ids)  # (B, T) -> (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe.weight[: ids.size(1)]  # (B, T, C) + (T, C): the same for every text
        return self.lm_head(self.body(x))  # (B, T, V)

    def loss(self, x, y):
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())


# %% [markdown]
# Note the line with `wpe`. To attention the past is a bag of characters, so where something stands must be part
# of *what* it is. Here each place has a row of its own, which is added to the character's row and trained like
# it. Later we shall see other ways.
#
# A comparison is fair only if all get the same. So: the same batches, the same number of steps, the same
# rule for changing the weights (it is called Muon; what `train` does is the subject of notebook 06), and the loss on
# all of the held-out text. The loss is the mean of −log of the probability given to the character that came; its unit
# is the *nat*, and lower is better.

# %%
training = llmkit.TrainConfig(steps=200, batch_size=16, optimizer="muon", learning_rate=0.05)
ladder, grown = {}, {}


def grow(name, *body, positions=True):
    """Train a model with this body, keep it, and note its loss on held-out text."""
    torch.manual_seed(runtime.seed)
    model = Model(nn.Sequential(*body), positions).to(runtime.device)
    llmkit.train(model, train_ids, config=training)
    grown[name], ladder[name] = model, llmkit.evaluate(model, val_ids).loss
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: ≈ {ladder[name]:.3f} nats per character, {weights:,} weights")


grow("nothing (bigram)", positions=False)


# %% [markdown]
# A body that does nothing leaves the bigram: the next character from the present one. Now let positions look
# back, with notebook 04's layer of four heads:

# %% tags=["trained"]
def attention():
    return llmkit.CausalSelfAttention(config)


grow("attention", attention())
assert ladder["attention"] < ladder["nothing (bigram)"] - 0.02


# %% [markdown]
# Better. Attention only averages, though, and sums of averages are all it can give. To work on what it has
# fetched, each position gets a small network of its own: widen to 4 C, bend, narrow again. The bend (GELU: about
# 0 for negative numbers, about the number itself for positive ones) is what makes it more than another sum.

# %% tags=["trained"]
def feed_forward():
    return nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))


grow("attention → feed-forward", attention(), feed_forward())
assert ladder["attention → feed-forward"] > ladder["attention"] - 0.03

# %% [markdown]
# No gain, with more than twice as many weights. Perhaps it wants more of the same? Three times the pair, one after
# the other:

# %% tags=["trained"]
pairs = [part() for _ in range(3) for part in (attention, feed_forward)]
grow("the pair, three times", *pairs)

unigram = llmkit.NGram(train_ids.cpu(), order=1, vocab_size=V).loss(val_ids.cpu())
print(f"knowing only how frequent each character is: ≈ {unigram:.3f}")
assert ladder["the pair, three times"] > unigram - 0.1

x, _ = next(llmkit.Batches(val_ids, block_size=T, batch_size=32, seed=0))  # (B, T): 32 texts
with torch.no_grad():
    guesses = grown["the pair, three times"](x).softmax(dim=-1)  # (B, T, V)
print(f"from place to place its guesses vary by ≈ {guesses.std(dim=(0, 1)).max():.4f} at most")
assert guesses.std(dim=(0, 1)).max() < 0.05

# %% [markdown]
# It has forgotten everything. Whatever it reads, its guesses are nearly the same: they are the frequencies of the
# characters, and little more. The biggest model so far is the worst.
#
# ## The residual stream
#
# In the chain every layer *replaces* what it was given. How much gets through a new pair, not yet trained?

# %%
new = Model(nn.Sequential(attention(), feed_forward()))
x = torch.randn(1, T, C)  # every place has features of its own, of size one
with torch.no_grad():
    for name, layer in zip(("attention", "feed-forward"), new.body, strict=True):
        x = layer(x)
        print(f"after {name} the places differ by ≈ {x.std(dim=1).mean():.4f}")
assert x.std(dim=1).mean() < 0.01


# %% [markdown]
# Next to nothing, after one pair, and there are three. Training would have to mend all of them before any could be of
# use. So let a layer not replace, but add:

# %%
class Add(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)  # (B, T, C)


x = torch.ones(1, 2, 3)
nothing = nn.Linear(3, 3)
nn.init.zeros_(nothing.weight), nn.init.zeros_(nothing.bias)
assert torch.equal(Add(nothing)(x), x)  # a layer that knows nothing does no harm

# %% [markdown]
# A layer that adds zero leaves the features as they are. Now with the two layers from before:

# %% tags=["trained"]
grow("added to the stream", Add(attention()), Add(feed_forward()))
assert ladder["added to the stream"] < ladder["attention"] - 0.02

# %% [markdown]
# The same parts, and the feed-forward layer pays at last. The features now run straight through from the
# embedding to the output. Layers beside this *residual stream* read from it and write to it:
# **a transformer is a stream that runs through, and layers that add what they have found.**
#
# Sums grow. A layer that reads the stream should not have to care how large it has become, so before reading,
# each position's features are brought to mean 0 and spread 1. This is the *layer norm*. (PyTorch's then multiplies
# each feature by a trained *gain* and adds a trained *bias*, which are 1 and 0 at first.)

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


grow("norm before each", *block(), nn.LayerNorm(C))
grow("that, three times", *block(), *block(), *block(), nn.LayerNorm(C))
assert ladder["norm before each"] < ladder["added to the stream"] - 0.05
assert ladder["that, three times"] < ladder["the pair, three times"] - 0.8

# %% [markdown]
# All of it side by side:

# %% tags=["trained"]
plots.bars(
    list(ladder),
    list(ladder.values()),
    "Deep chains forget; a stream with norms does not",
    xlabel="held-out loss after 200 steps (nats per character)",
    highlight="the pair, three times",
    fmt="{:.2f}",
)


# %% [markdown]
# Three blocks do not beat one by much, if at all: 200 steps are a short time to fill them. What has changed is that
# depth no longer hurts.
#
# ## Block and GPT
#
# What we grew is GPT-2's block. Here it is in its usual form, with GPT-2's names:

# %%
class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = llmkit.CausalSelfAttention(config)  # built in notebook 04
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(C, 4 * C),
                act=nn.GELU(approximate="tanh"),  # as GPT-2 computed it
                c_proj=nn.Linear(4 * C, C),
            )
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))  # (B, T, C): look around
        return x + self.mlp(self.ln_2(x))  # (B, T, C): think it over


# %% [markdown]
# And the model around it. It saves one matrix: the table that turns characters into features also turns
# features into scores. A character's score is then the dot product of the stream with the character's own row.

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

x, y = next(llmkit.Batches(train_ids.cpu(), block_size=T, batch_size=32, seed=0))  # (32, T) each
assert torch.allclose(ours(x), theirs(x), atol=1e-5)
print("the same scores", tuple(ours(x).shape))


# %% [markdown]
# ## Counting what can be learned
#
# How many numbers is that? Count them by hand, part by part. A matrix from C to 4 C has 4 C² of them, and 4 C
# more that are added (the *bias*):

# %%
def count(config):
    """Trainable numbers of a GPT, by part."""
    V, T, C = config.vocab_size, config.block_size, config.n_embd
    # queries, keys and values for all heads at once; and the matrix that mixes the heads
    attention = (C * 3 * C + 3 * C) + (C * C + C)
    feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)
    norms = 2 * (C + C)  # a gain and a bias each
    return {
        "characters": V * C,
        "positions": T * C,
        "attention": config.n_layer * attention,
        "feed-forward": config.n_layer * feed_forward,
        "norms": config.n_layer * norms + 2 * C,
    }


for part, numbers in count(config).items():
    print(f"{part:13}{numbers:9,}")
print(f"{'together':13}{sum(count(config).values()):9,}")
assert sum(count(config).values()) == theirs.num_parameters()

# %% [markdown]
# Two thirds of a block are feed-forward. Does our count hold for the real ones? PyTorch can build a model
# without the memory for its weights (on the device called "meta"), so let it check our sums for all four sizes of GPT-2:

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
# PyTorch's embeddings start with numbers of size one; as an output matrix they make large scores, so the model
# is sure of itself before it has read a line. GPT-2 draws them fifty times smaller (0.02), and the weights that
# write to the stream smaller still, so that the sum does not grow with depth. If a model's first loss is not ln V,
# stop and look.
#
# So here is the whole thing, a GPT that starts at ln V. The same 200 steps for it:

# %% tags=["trained"]
torch.manual_seed(runtime.seed)
model = llmkit.GPT(config).to(runtime.device)
llmkit.train(model, train_ids, config=training)
whole = llmkit.evaluate(model, val_ids).loss
print(f"GPT: ≈ {whole:.3f} nats per character")
assert abs(whole - ladder["that, three times"]) < 0.15


# %% [markdown]
# About as good as the three blocks that we grew. It differs from them in its first weights, and in the one matrix that
# does the work of two.
#
# ## Three ways to say where
#
# A trained row per position cannot know a position it was never trained on. The first transformer (Vaswani et al.
# 2017) had fixed rows instead, made of waves, from fast to slow:

# %%
def waves(T, C):
    """Sines in the even columns, cosines in the odd ones, slower to the right: (T, C), C even."""
    place = torch.arange(T)[:, None]  # (T, 1)
    speed = 10000 ** (-torch.arange(0, C, 2) / C)  # (C / 2,)
    rows = torch.zeros(T, C)
    rows[:, 0::2], rows[:, 1::2] = (place * speed).sin(), (place * speed).cos()
    return rows


assert torch.allclose(waves(T, C), sinusoids(T, C), atol=1e-5)
learned = model.wpe.weight  # (T, C)
plots.positions(
    {"learned in 200 steps": learned / learned.abs().max(), "sinusoidal": waves(T, C)},
    "Fixed waves are regular, learned rows are not",
)

# %% [markdown]
# (The learned rows are drawn at the scale of the waves.) A tutorial that prints this scheme keeps the rows as
# `(T, 1, C)` and adds them in that shape. Watch what happens:

# %%
rows = waves(T, C)[:, None]  # (T, 1, C)
x = torch.zeros(4, T, C)  # (B, T, C)
try:
    x + rows[: x.size(1)]
except RuntimeError as error:
    print("RuntimeError:", error)
print(tuple((torch.zeros(T, T, C) + rows).shape), "where B happens to be T: no error")


# %% [markdown]
# PyTorch lines shapes up from the right, so `(T, 1, C)` lays its T along the *batch*. It crashes, unless the
# batch has as many rows as the text has places. A quick mend cuts the rows to the size of the batch, and the crash
# goes away:

# %%
class Sinusoidal(Model):
    def forward(self, ids):
        x = self.wte(ids)
        x = x + rows[: x.size(0)].to(x.device)  # (B, T, C) + (B, 1, C)
        return self.lm_head(self.body(x))


crooked = Sinusoidal(nn.Sequential(*block(), nn.LayerNorm(C)), positions=False)
print(llmkit.checks.mixes_batch(crooked))
assert not llmkit.checks.mixes_batch(crooked).passed


# %% [markdown]
# Now it runs, and trains. But every place of a text gets the same wave, so the order is lost, and a text's
# predictions depend on which row of the batch it happens to be. The right shape is `(T, C)`, as in `Model`: lined
# up from the right it meets time, and every row of the batch alike. Code that runs
# without an error can still add the wrong things.
#
# The third way adds nothing to the stream. *Rotary* positions (Su et al. 2021) turn queries and keys instead: take their features
# in pairs, as arrows in a plane, and turn each by an angle that grows with the place.

# %%
def turned(pair, place):
    """An arrow (2,) turned by `place` radians."""
    cos, sin = math.cos(place), math.sin(place)
    return torch.tensor([[cos, -sin], [sin, cos]]) @ pair


q, k = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0])
for t, s in ((5, 3), (25, 23), (7, 3)):
    print(f"places {t} and {s}, {t - s} apart: score {turned(q, t) @ turned(k, s):.4f}")
assert torch.allclose(turned(q, 5) @ turned(k, 3), turned(q, 25) @ turned(k, 23), atol=1e-5)

# %% [markdown]
# The product of two arrows depends on the angle between them. Turn both on by the same amount and it stays: only
# the *distance* between the two places counts. A head has many pairs of features, and each pair turns at a speed of its
# own. With llmkit's `rotary`, the same query at every place and the same key at every place:

# %%
places = [str(place) for place in range(20)]
q = k = torch.ones(1, 1, 20, 16)  # (B, H, T, D)
scores = (rotary(q) @ rotary(k).transpose(-2, -1))[0, 0] / 4  # (T, T), divided by √D
for distance in range(20):
    assert scores.diagonal(-distance).std(correction=0) < 1e-5  # constant along each diagonal
plots.matrix(
    scores.masked_fill(~llmkit.causal_mask(20), torch.nan),
    places,
    places,
    "Rotary scores depend on the distance alone",
    axes=("place of the query", "place of the key"),
    label="score",
)


# %% [markdown]
# Every diagonal has one colour. llmkit's GPT knows all three ways, as `position="learned"`, `"sinusoidal"` and
# `"rotary"`.
#
# ## Norm before, norm after
#
# The first transformer put its norms elsewhere: after the sum, on the stream itself. Let us make twelve thin blocks of
# each kind. Their first weights are PyTorch's, so that each block adds enough to be seen. How large is the stream
# (root mean square) after each?

# %%
def deep(norm_first):
    """Twelve blocks, 32 wide, with PyTorch's own first weights inside the blocks."""
    torch.manual_seed(runtime.seed)
    model = llmkit.GPT(
        llmkit.GPTConfig(V, T, n_layer=12, n_embd=32, norm_first=norm_first, tie_weights=False)
    )
    for part in model.h.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    return model


# %%
@torch.no_grad()
def stream_sizes(model, ids):
    x = model.wte(ids) + model.wpe.weight[: ids.size(1)]
    return [(x := block(x)).square().mean().sqrt().item() for block in model.h]


ids, targets = next(llmkit.Batches(train_ids.cpu(), block_size=T, batch_size=16, seed=0))
sizes = {
    "norm before": stream_sizes(deep(norm_first=True), ids),
    "norm after": stream_sizes(deep(norm_first=False), ids),
}
assert sizes["norm before"][-1] > 2 * sizes["norm before"][0]
assert max(abs(size - 1) for size in sizes["norm after"]) < 0.01
plots.lines(
    range(1, 13),
    sizes,
    "Norm before: the stream adds up. Norm after: always rescaled",
    xlabel="block",
    ylabel="size of the stream",
)

# %% [markdown]
# With the norm after, whatever a block adds, the sum is brought back to size one: what earlier blocks wrote is
# rescaled by every block that follows. Does it matter for training? Sixty
# hasty steps each, at full learning rate from the first:

# %% tags=["trained"]
hasty = llmkit.TrainConfig(steps=60, batch_size=8, optimizer="muon", learning_rate=0.05, warmup=0)
runs, last = {}, {}
for name, norm_first in {"norm before": True, "norm after": False}.items():
    runs[name] = llmkit.train(deep(norm_first).to(runtime.device), train_ids, config=hasty)
    last[name] = sum(runs[name].loss[-20:]) / 20
    print(f"{name}: ≈ {last[name]:.2f}, the mean of the last 20 steps")
assert last["norm before"] < last["norm after"] - 0.1
assert last["norm after"] > unigram - 0.1
plots.loss_curves(
    runs,
    "In haste and twelve blocks deep, only norm before has begun",
    by="step",
    references={"characters' frequencies": unigram},
)

# %% [markdown]
# Here the second kind has learned how frequent characters are, and no more. With care that order trains as well: the
# 2017 transformer was given smaller steps at the start, a *warmup*, and why it needs that has been worked out since
# (Xiong et al. 2020). GPT-2 went over to norm first.
#
# ## Take a block out
#
# If blocks only add, then a model should survive the loss of one. Take the GPT trained above, three blocks, and
# leave out each in turn:

# %% tags=["trained"]
blocks, without = list(model.h), {"nothing": whole}
for i in range(3):
    model.h = nn.ModuleList(blocks[:i] + blocks[i + 1 :])
    without[f"block {i}"] = llmkit.evaluate(model, val_ids).loss
model.h = nn.ModuleList(blocks)

assert without["block 0"] > whole + 1
assert max(without["block 1"], without["block 2"]) < whole + 0.3
plots.bars(
    list(without),
    list(without.values()),
    "A later block is hardly missed, the first one is",
    xlabel="held-out loss (nats per character), nothing retrained",
    ylabel="left out",
    highlight="block 0",
    fmt="{:.2f}",
)


# %% [markdown]
# Nothing was retrained. The later blocks add refinements, and the loss without one of them is a little higher. The
# first block is another matter: all that follows was trained to read what it writes.
#
# ## A "GPT" that reads its own answer
#
# One more design is found in tutorials. The transformer of 2017 was made to translate: an *encoder* reads the
# whole source text, a *decoder* writes the translation and may look at all of the source. PyTorch has both as
# `nn.Transformer`, and some make a "GPT" of it by passing the same text as source and as target:

# %%
class EncoderDecoder(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.config, self.masked = config, masked
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.transformer = nn.Transformer(C, H, 1, 1, 4 * C, dropout=0.0, batch_first=True)
        self.lm_head = nn.Linear(C, V)

    def forward(self, ids):
        T = ids.size(1)
        x = self.wte(ids) + self.wpe.weight[:T]  # (B, T, C)
        # PyTorch's masks say what is hidden, ours what may be seen: hence the ~
        hidden = ~llmkit.causal_mask(T, ids.device) if self.masked else None
        return self.lm_head(self.transformer(src=x, tgt=x, tgt_mask=hidden))  # (B, T, V)

    def loss(self, x, y):
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())


torch.manual_seed(runtime.seed)
translator = EncoderDecoder(masked=False).to(runtime.device)
training = llmkit.TrainConfig(steps=150, batch_size=16, optimizer="muon", learning_rate=0.01)
history = llmkit.train(translator, train_ids, config=training)

# %% tags=["trained"]
translator_loss = llmkit.evaluate(translator, val_ids).loss
print(f"held-out loss ≈ {translator_loss:.2f}")
assert translator_loss < 0.6
plots.loss_curves(
    {"trained on (x, x)": history},
    "Trained on (x, x), the loss falls far below an honest GPT's",
    by="step",
    references={"GPT, held-out": whole},
)

# %% [markdown]
# Far below our best, with one encoder layer and one decoder layer. Too good to be true: the next character stands in
# the source, and the decoder looks it up. The usual mend is to mask the decoder. Is it enough?

# %%
for masked in (False, True):
    result = llmkit.checks.leaks_future(EncoderDecoder(masked))
    print(f"decoder {'masked' if masked else 'open'}:", result)
    assert not result.passed

# %% [markdown]
# It is not. The decoder no longer looks ahead by itself, but the encoder does, and the decoder reads the
# encoder. In translation that is right, for the source is given. In a language model there is no source: leave
# the encoder out, and the part of the decoder that would read it, and keep the masked rest. What remains is our
# `GPT`; *decoder-only* is its family name.
#
# ## Four questions to every model
#
# Does it see the future? Does one text of a batch change what is said of another? Is its first loss ln V? Can it learn
# one small batch by heart, with all of its weights taking part? llmkit asks them of any model, in seconds:

# %%
for result in llmkit.checks.run(llmkit.GPT(config)):
    print(result)
    assert result.passed

# %% [markdown]
# ## What we saw
#
# - Attention with positions beat the bigram. A feed-forward layer behind it brought nothing, and three such pairs
#   in a chain learned hardly more than how frequent each character is.
# - The same parts, *adding* to a residual stream, paid; with a norm before each, more so. Depth no longer hurts.
# - Block and GPT fit on a screen each and give llmkit's scores with llmkit's weights. The hand count of the
#   parameters holds for ours and for all four of GPT-2.
# - Positions can be learned rows, fixed waves, or turned queries and keys whose scores know distances only. Waves
#   in the wrong shape crashed; mended in haste, they mixed the batch, and a check saw it.
# - Twelve blocks began to learn in haste with norms before their layers, and did not with norms after the sums.
# - A later block can be left out of a trained GPT at small cost, the first cannot.
# - The encoder-decoder fed with (x, x) read its answers, with a masked decoder as well.
#
# We have a GPT whose first loss is ln V, and 200 steps of `train` that nobody explained. How is such a model
# trained, how long, and when should one stop? That is [notebook 06](06_training.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

hint("05.shapes")  # so it is asked for

# %% [markdown]
# **1 · Shapes first** (easy, 3 minutes). A GPT with `vocab_size=65, block_size=32, n_head=4, n_embd=64` reads a batch of
# 2 texts, 5 characters each. Predict, with no computer, the shape of: the stream after the embedding; the queries, cut
# into heads; the attention weights; the middle of the feed-forward layer; the scores.

# %% tags=["exercise"]
shapes = None  # your answer: five shapes, ((..., ..., ...), ...)

# %%
check("05.shapes", shapes)


# %% [markdown]
# **2 · A budget** (easy, 5 minutes). Your memory holds so many numbers, 1,000,000 say. With `vocab_size=65`, `block_size=64`
# and four blocks of four heads: how wide can the GPT be, if the width has to be a multiple of 4? Use `count`.

# %% tags=["exercise"]
def widest(memory):
    return None  # your answer, a width


# %%
check("05.widest", widest)


# %% [markdown]
# **3 · Waves and distance** (medium, 10 minutes). Take the product of row t of `waves(T, C)` with row t + d. Which t you take
# makes no difference: as with rotary scores, the distance d alone counts. Show it: compute the product from d and C, with
# no rows. For C = 2, where row t is (sin t, cos t), pen and paper will do.

# %% tags=["exercise"]
def wave_product(distance, C):
    return None  # your answer, a number


# %%
check("05.wave_product", wave_product)


# %% [markdown]
# **4 · A norm across the batch** (medium, 10 minutes). Somebody replaces `LayerNorm` by `nn.BatchNorm1d`, which takes its
# means over all texts and all places. Write it as a module for `(B, T, C)` (BatchNorm1d wants the features second). Before
# you ask `leaks_future` and `mixes_batch` about a `Model` with it: which of them will complain, and why?

# %% tags=["exercise"]
class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return x


# %%
check("05.norm_across_batch", NormAcrossBatch)


# %% [markdown]
# **5 · Repair it** (medium, 10 minutes). This block runs, has the right shapes, and trains. It is wrong in two ways. Find
# them, and mend both.

# %% tags=["exercise"]
class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_1(y))


# %%
check("05.repaired_block", RepairedBlock)


# %% [markdown]
# **6 · Decoder-only by masks** (hard, 25 minutes). `nn.TransformerEncoder` with a causal mask is a GPT as well. Build one of
# any depth from `nn.TransformerEncoderLayer` (norm first, GELU, no dropout), which passes `leaks_future` and has as many
# trainable numbers as our GPT of the same `config`. Why can it have just as many?

# %% tags=["exercise"]
class FromPyTorch(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, ids):  # (B, T) -> (B, T, V)
        return torch.zeros(*ids.shape, self.config.vocab_size)


# %%
check("05.from_pytorch", FromPyTorch)

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
# @title Solution 3: waves and distance


def wave_product(distance, C):
    speed = 10000 ** (-torch.arange(0, C, 2) / C)  # a speed for each pair of columns
    return (distance * speed).cos().sum()  # sin a sin b + cos a cos b = cos(a - b)


# But the stream holds waves plus characters, and queries and keys are made of the sum: there the
# distance is mixed with everything else. Rotary keeps it apart.
check("05.wave_product", wave_product)

# %% tags=["solution"]
# @title Solution 4: a norm across the batch


class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.norm = nn.BatchNorm1d(C)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


crossed = Model(nn.Sequential(Add(NormAcrossBatch(C), attention())))
for question in (llmkit.checks.leaks_future, llmkit.checks.mixes_batch):
    print(question(crossed))
    assert not question(crossed).passed
# Both, in training mode only: there the means go over other texts, and over later places too.
check("05.norm_across_batch", NormAcrossBatch)

# %% tags=["solution"]
# @title Solution 5: repair it


class RepairedBlock(Block):
    def forward(self, x):
        y = x + self.attn(self.ln_1(x))
        return y + self.mlp(self.ln_2(y))  # from y: the stream keeps what attention added to it


check("05.repaired_block", RepairedBlock)

# %% tags=["solution"]
# @title Solution 6: decoder-only by masks


class FromPyTorch(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, C = config, config.n_embd
        self.wte = nn.Embedding(config.vocab_size, C)
        self.wpe = nn.Embedding(config.block_size, C)
        layer = nn.TransformerEncoderLayer(
            C, config.n_head, 4 * C, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.h = nn.TransformerEncoder(layer, config.n_layer, enable_nested_tensor=False)
        self.ln_f = nn.LayerNorm(C)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.size(1)]
        x = self.h(x, mask=~llmkit.causal_mask(ids.size(1), ids.device))
        return self.ln_f(x) @ self.wte.weight.T


# An encoder's layer is attention and feed-forward, as our block is: the same parts under other
# names. What makes it a decoder is the mask, and a mask has nothing to learn.
check("05.from_pytorch", FromPyTorch)
