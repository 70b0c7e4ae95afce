# %% [markdown]
# # 05b · Positions and norms
# *Three ways to say where a token stands, two places for a norm, and why a GPT has no encoder.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/05b_positions_and_norms.ipynb)
#
# About 28 minutes to read, exercises aside.
#
# ← [05 · Transformer](05_transformer.ipynb) · [06 · Training](06_training.ipynb) →

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
# Notebook 05 built a GPT and made choices on the way: a trained row of features for each position, a norm before each
# layer, a single stack of blocks that may not look ahead. GPT-2 made the same choices. Others chose differently, and
# most of today's models have another way to say where a token stands. Which of these choices matter, and how would one
# notice a wrong one?
#
# This is the model that we start from:

# %%
import math
from dataclasses import replace

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots
from llmkit.attention import rotary, sinusoids

runtime = llmkit.start(seed=1337)
runtime

# %%
drawings.gpt_architecture()

# %% [markdown]
# Each character is looked up in a table of features (`wte`), each position in another (`wpe`), and the sum starts the
# *residual stream*. A block reads the stream through a norm, and adds to it, twice: what *attention* fetched from
# earlier positions, and what a *feed-forward* network made of each position alone. At the end the stream is turned
# into a score for each possible next character.
#
# The text, its characters as numbers, and the sizes:

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text).to(runtime.device))

V, T, C, H = tokenizer.vocab_size, 32, 64, 4  # characters, longest text, features, heads
config = llmkit.GPTConfig(V, T, n_layer=2, n_head=H, n_embd=C)

# %% [markdown]
# ## What a row for each position cannot do
#
# T = 32, so the table of positions has 32 rows. Let the model read one character more:

# %%
try:
    llmkit.GPT(config)(val_ids[None, :33].cpu())  # (B, T) = (1, 33)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# Row 32 does not exist, and nothing could have been learned about it: no text of the training reached so far. Do we
# need rows at all? To attention the past is a bag of characters (notebook 04), so let us see what a model loses
# without them. Both get the same 200 small corrections. (`train` and its settings are the subject of notebook 06.)

# %%
training = llmkit.TrainConfig(steps=200, batch_size=16, optimizer="muon", learning_rate=0.03)
models, losses = {}, {}


def compare(name, model):
    """Train a model, keep it, and note its loss on all of the held-out text."""
    llmkit.train(model.to(runtime.device), train_ids, config=training)
    models[name], losses[name] = model, llmkit.evaluate(model, val_ids).loss
    print(f"{name}: ≈ {losses[name]:.3f} nats per character")


# %%
def new(**changes):
    """A GPT with the same first weights each time."""
    torch.manual_seed(runtime.seed)
    return llmkit.GPT(replace(config, **changes))


# %% tags=["trained"]
blind = new()
blind.wpe.weight.requires_grad_(False).zero_()  # every position has the same row, and keeps it
compare("no positions", blind)
compare("learned rows", new())
assert losses["learned rows"] < losses["no positions"] - 0.05


# %% [markdown]
# (A *nat* is the unit of the loss, the mean of −log of the probability given to the character that came. Lower is
# better.) The rows are worth a good deal. The model without them is not quite lost: its stream still holds the present
# character, and the mask lets each position see one character more than the one before, which is a trace of an order
# ([Haviv et al. 2022](https://arxiv.org/abs/2203.16634)).
#
# ## Waves
#
# How can a position be told without a table? A clock does it. Its hands turn at different speeds, and though each
# comes round again and again, all of them together name a moment of the day. The first transformer
# ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)) gave each position t such a clock, with C/2 hands. Hand i
# has the speed
#
# $$s_i = 10000^{-2i/C}$$
#
# and its end stands at $\sin(t\,s_i)$ and $\cos(t\,s_i)$. These numbers are the features, two for each hand:

# %%
def waves(T, C):
    """Sines in the even columns, cosines in the odd ones, slower to the right: (T, C), C even."""
    t = torch.arange(T)[:, None]  # (T, 1)
    speed = 10000 ** (-torch.arange(0, C, 2) / C)  # (C / 2,)
    rows = torch.zeros(T, C)
    rows[:, 0::2] = (t * speed).sin()  # (T, C / 2)
    rows[:, 1::2] = (t * speed).cos()
    return rows


print(waves(4, 6))
assert torch.allclose(waves(T, C), sinusoids(T, C), atol=1e-5)  # llmkit has the same

# %% [markdown]
# Row 0 is every hand at its start. In the first two columns each step is a turn by one radian (57°), in the next two it
# is a twentieth of that. Beside the rows that were learned:

# %% tags=["trained"]
rows = models["learned rows"].wpe.weight.detach()  # (T, C)
plots.positions(
    {"learned in 200 steps": rows / rows.abs().max(), "sinusoidal": waves(T, C)},
    "Fixed waves are regular, learned rows are not",
)

# %% [markdown]
# (The learned rows are drawn at the scale of the waves.) Waves exist for every position, and cost no parameter.
#
# ### The wrong shape
#
# Waves are easily added along the wrong dimension. [PyTorch's
# example](https://github.com/pytorch/examples/blob/main/word_language_model/model.py) keeps the rows in the shape
# `(T, 1, C)`. That is right there, for a stream `(T, B, C)`, and tutorials have copied it to streams `(B, T, C)`.
# Watch what happens:

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
# batch has as many rows as the text has positions. A quick repair cuts the rows to the size of the batch, and the crash
# goes away:

# %%
class Crooked(llmkit.GPT):
    def forward(self, ids):
        x = self.wte(ids)
        x = x + rows[: x.size(0)].to(x.device)  # (B, T, C) + (B, 1, C)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


print(llmkit.checks.mixes_batch(Crooked(config)))
assert not llmkit.checks.mixes_batch(Crooked(config)).passed

# %% [markdown]
# Now it runs, and trains. But every position of a text gets the same wave, so the order is lost, and the predictions
# for a text depend on which row of the batch it happens to be. The right shape is `(T, C)`: lined up from the right it
# meets time, and every row of the batch alike. **Code that runs without an error can still add the wrong things.**
#
# ## Turning queries and keys
#
# The third way adds nothing to the stream. *Rotary* positions
# ([Su et al. 2021](https://arxiv.org/abs/2104.09864)) act where positions meet: in the score of a query and a key. Take
# two features of a query as an arrow in a plane, and the same two of the key. Turn each by an angle that grows with its
# position:

# %%
drawings.rotary_turns()


# %% [markdown]
# The dot product of two arrows depends on their lengths and on the angle between them. A turn keeps the lengths, and
# the angle changes by the *difference* of the two positions alone:

# %%
def turned(pair, t):
    """An arrow (2,) turned by t radians."""
    cos, sin = math.cos(t), math.sin(t)
    return torch.tensor([[cos, -sin], [sin, cos]]) @ pair


q, k = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0])
for t, s in ((5, 3), (25, 23), (7, 3)):
    print(f"positions {t} and {s}, {t - s} apart: score {turned(q, t) @ turned(k, s):.4f}")

# %% [markdown]
# A head has many pairs of features, and each pair turns at a speed of its own, the same speeds as those of the waves.
# With llmkit's `rotary`, the same query at every position and the same key at every position:

# %%
labels = [str(t) for t in range(20)]
q = k = torch.ones(1, 1, 20, 16)  # (B, H, T, D)
scores = (rotary(q) @ rotary(k).transpose(-2, -1))[0, 0] / 4  # (T, T), divided by √D
for distance in range(20):
    assert scores.diagonal(-distance).std(correction=0) < 1e-5  # constant along each diagonal
plots.matrix(
    scores.masked_fill(~llmkit.causal_mask(20), torch.nan),
    labels,
    labels,
    "Rotary scores depend on the distance alone",
    axes=("position of the query", "position of the key"),
    label="score",
)

# %% [markdown]
# Every diagonal has one colour. Without this a model has to learn "the character just before" anew for each of its
# positions. With it, one learned turn will do for all.
#
# ## Which is best?
#
# llmkit's GPT knows all three, as `position="learned"`, `"sinusoidal"` and `"rotary"`. The same training for the other
# two:

# %% tags=["trained"]
compare("sinusoidal", new(position="sinusoidal"))
compare("rotary", new(position="rotary"))
assert losses["rotary"] < losses["learned rows"] - 0.03
assert losses["sinusoidal"] > losses["learned rows"] + 0.03

# %% [markdown]
# Rotary is far ahead. The waves, though, have hardly helped: that is nearly the loss of the model without positions.
# Are waves a bad idea, or is something wrong with ours? Compare how large the numbers are that meet in the sum:

# %% tags=["trained"]
character = models["sinusoidal"].wte.weight.std().item()
wave = models["sinusoidal"].waves.std().item()
row = models["learned rows"].wpe.weight.std().item()
print(f"spread of the characters' rows ≈ {character:.3f}, of the waves ≈ {wave:.3f}")
print(f"spread of the learned rows ≈ {row:.3f}")
assert character > 4 * wave

# %% [markdown]
# llmkit makes its waves as small as the characters' rows are before training. The characters' rows have grown since,
# and the waves cannot: they are drowned out. So make them larger from the start, 5 times, and 50 times:

# %% tags=["trained"]
for times in (5, 50):
    waving = new(position="sinusoidal")
    waving.waves *= times
    compare(f"sinusoidal, {times} times as large", waving)
assert losses["sinusoidal, 5 times as large"] < losses["sinusoidal"] - 0.05
assert losses["sinusoidal, 5 times as large"] < losses["learned rows"] + 0.03
assert losses["sinusoidal, 50 times as large"] > losses["no positions"]
plots.bars(
    list(losses),
    list(losses.values()),
    "Rotary learns most; waves help if their size is right",
    xlabel="held-out loss after 200 steps (nats per character)",
    highlight="rotary",
    fmt="{:.2f}",
)


# %% [markdown]
# Five times as large, which is near the size that the learned rows have found for themselves, they are worth as much
# as those. Fifty times as large, they drown the characters, and the model is worse off than with no positions at all.
# What is added to the stream has to have a fitting size. (The 2017 transformer multiplied the characters' rows by √C
# before it added waves.) A turn has no size to choose, which is one more reason for rotary.
#
# ## Beyond the trained length
#
# Waves and turns can be computed for any position, so both models can be asked to read 128 characters, four times as
# many as they were trained on. (There is no weight that would have to grow.) How does the loss depend on the position?

# %%
def loss_by_position(model, length):
    """Mean held-out loss at each position of texts that long: (length,)"""
    longer = llmkit.GPT(replace(model.config, block_size=length)).to(runtime.device)
    longer.load_state_dict(model.state_dict())
    if model.config.position == "sinusoidal":  # waves of the same size: cos 0 = 1 stands in [0, 1]
        longer.waves = model.waves[0, 1] * sinusoids(length, C).to(runtime.device)
    B = (len(val_ids) - 1) // length
    x, y = val_ids[: B * length].view(B, length), val_ids[1 : B * length + 1].view(B, length)
    with torch.no_grad():
        return F.cross_entropy(longer(x).mT, y, reduction="none").mean(dim=0).cpu()


# %% tags=["trained"]
names = ("sinusoidal, 5 times as large", "rotary")
curves = {name.split(",")[0]: loss_by_position(models[name], 128) for name in names}
for curve in curves.values():
    assert curve[96:].mean() > curve[16:32].mean() + 0.2
assert curves["rotary"][32:44].mean() < curves["sinusoidal"][32:44].mean() - 0.3
groups = {name: curve.view(32, 4).mean(dim=1) for name, curve in curves.items()}  # four together
picture = plots.lines(
    range(2, 128, 4),
    groups,
    "Trained up to the dashed line, both lose their way behind it",
    xlabel="position",
    ylabel="held-out loss (nats per character)",
)
picture.axes[0].axvline(32, color="0.5", ls="--")
picture

# %% [markdown]
# Up to position 32 more context helps. Further on the loss climbs: that something *can be computed* for a position does
# not mean that the model has learned to use it. Waves that it has never seen confuse it at once. Rotary holds out for
# some twenty characters, until too many queries meet keys at distances that no training has shown. To read longer texts,
# models are trained on longer texts, or at least a little further with turns that have been slowed down
# ([Chen et al. 2023](https://arxiv.org/abs/2306.15595)).
#
# ## Norm before, norm after
#
# The first transformer put its norms elsewhere: after the sum, on the stream itself.

# %%
drawings.norm_places()


# %% [markdown]
# Let us make twelve thin blocks of each kind. Their first weights are PyTorch's, so that each block adds enough to be
# seen, and the output has a matrix of its own (`tie_weights=False`), so that the two kinds differ in their norms
# alone. How large is the stream (root mean square) after each block?

# %%
def deep(norm_first):
    """Twelve blocks, 32 wide, with PyTorch's own first weights inside the blocks."""
    shape = dict(n_layer=12, n_embd=32, tie_weights=False)
    model = new(norm_first=norm_first, **shape)
    for part in model.h.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    return model


@torch.no_grad()
def stream_sizes(model, ids):
    x, sizes = model.wte(ids) + model.wpe.weight[: ids.size(1)], []
    for block in model.h:
        x = block(x)  # (B, T, C)
        sizes.append(x.square().mean().sqrt().item())
    return sizes


# %%
ids, _ = next(llmkit.Batches(train_ids.cpu(), block_size=T, batch_size=16, seed=0))  # (B, T)
sizes = {
    name: stream_sizes(deep(name == "norm before"), ids) for name in ("norm before", "norm after")
}
assert sizes["norm before"][-1] > 2 * sizes["norm before"][0]
assert max(abs(size - 1) for size in sizes["norm after"]) < 0.01
plots.lines(
    range(1, 13),
    sizes,
    "Norm before: the stream grows. Norm after: its size is always 1",
    xlabel="block",
    ylabel="size of the stream",
)

# %% [markdown]
# With the norm after, whatever a block adds, the sum is brought back to size one. What earlier blocks wrote is
# rescaled by every block that follows: nothing runs straight through any more.
#
# Does it matter for training? At two learning rates (how far each correction goes), from the first step on:

# %% tags=["trained"]
last = {}
for rate in (0.05, 0.01):
    steps = llmkit.TrainConfig(
        steps=100, batch_size=8, optimizer="muon", learning_rate=rate, warmup=0
    )
    for name in ("norm before", "norm after"):
        model = deep(name == "norm before").to(runtime.device)
        run = llmkit.train(model, train_ids, config=steps)
        last[f"{name}, rate {rate}"] = sum(run.loss[-20:]) / 20
for name, loss in last.items():
    print(f"{name}: ≈ {loss:.2f}")

# %% tags=["trained"]
unigram = llmkit.NGram(train_ids.cpu(), order=1, vocab_size=V).loss(val_ids.cpu())
print(f"knowing only how frequent each character is costs ≈ {unigram:.2f}")
assert last["norm after, rate 0.05"] > unigram - 0.1
assert last["norm before, rate 0.05"] < unigram - 0.1
assert last["norm after, rate 0.01"] < last["norm before, rate 0.01"]
plots.bars(
    list(last),
    list(last.values()),
    "In large steps only norm before learns; in small ones both do",
    xlabel="training loss, mean of the last 20 of 100 steps (nats per character)",
    highlight="norm after, rate 0.05",
    fmt="{:.2f}",
)


# %% [markdown]
# In large steps the second kind has learned how frequent characters are, and no more. At a fifth of the rate both
# learn, and the second is even ahead. So neither order is better in itself; norm before is the one that forgives. The
# 2017 transformer was given small steps at the start, a *warmup*, and why its order needs that has been worked out
# since ([Xiong et al. 2020](https://arxiv.org/abs/2002.04745)). GPT-2 put the norm first.
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
        layers = dict(num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=4 * C)
        self.transformer = nn.Transformer(C, H, **layers, dropout=0.0, batch_first=True)
        self.lm_head = nn.Linear(C, V)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.size(1)]  # (B, T, C)
        # PyTorch's masks say what is hidden, ours what may be seen: hence the ~
        hidden = ~llmkit.causal_mask(ids.size(1), ids.device) if self.masked else None
        return self.lm_head(self.transformer(src=x, tgt=x, tgt_mask=hidden))  # (B, T, V)

    loss = llmkit.GPT.loss


# %% [markdown]
# (`dropout=0.0`, because PyTorch's layers would otherwise set a random tenth of their numbers to zero while training.)

# %% tags=["trained"]
torch.manual_seed(runtime.seed)
translator = EncoderDecoder(masked=False).to(runtime.device)
steps = llmkit.TrainConfig(steps=150, batch_size=16, optimizer="muon", learning_rate=0.01)
history = llmkit.train(translator, train_ids, config=steps)
translator_loss = llmkit.evaluate(translator, val_ids).loss
print(f"held-out loss ≈ {translator_loss:.2f}")
assert translator_loss < 0.6
plots.loss_curves(
    {"trained on (x, x)": history},
    "Trained on (x, x), the loss falls far below an honest GPT's",
    by="step",
    references={"rotary GPT, held-out": losses["rotary"]},
)

# %% [markdown]
# That is far below our best, with one encoder layer and one decoder layer. It is too good to be true: the next
# character stands in the source, and the decoder looks it up. The usual repair is to mask the decoder. Is it enough?

# %%
for masked in (False, True):
    result = llmkit.checks.leaks_future(EncoderDecoder(masked))
    print(f"decoder {'masked' if masked else 'open'}:", result)
    assert not result.passed

# %% [markdown]
# It is not. The decoder no longer looks ahead by itself, but the encoder does, and the decoder reads the
# encoder. In translation that is right, for the source is given. In a language model there is no source: leave
# the encoder out, and the part of the decoder that would read it, and keep the masked rest. What remains is our
# `GPT`. *Decoder-only* is its family name.
#
# ## What we saw
#
# - A row for each position has to be learned, and ends with the table. Without positions the model learned less.
# - Waves and turns exist for every position. Waves helped once they were large enough, and not too large.
# - Rotary positions turn queries and keys, so that of two positions a score knows the distance alone. In the same time
#   they learned most.
# - Neither was of use far beyond the length it was trained on.
# - Waves in the wrong shape crashed. Repaired in haste, they mixed the batch, and a check saw it.
# - With the norm before each layer the stream grows. With the norm after, its size is always 1, and large steps did not
#   train such a model; small ones did.
# - The encoder-decoder fed with (x, x) read its answers, with a masked decoder as well.
#
# So from here on most models of this series have rotary positions, norms first, and no encoder. What we have not
# explained is `train`. How is such a model trained, how long, and when should one stop? That is [notebook
# 06](06_training.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · What will change?** (easy, 3 minutes). One layer of causal attention reads ten characters. Predict for each
# case, True or False, whether what comes out at the *last* position changes: (a) there are no positions, and the first
# two characters, which differ, are swapped; (b) the same with learned rows; (c) the same with rotary; (d) the text
# stays, but takes positions 7 to 16 of a table of learned rows instead of 0 to 9; (e) the same move with rotary.

# %% tags=["exercise"]
changes = None  # your answer: (a, b, c, d, e), each True or False

# %%
check("05b.changes", changes)

# %%
hint("05b.changes")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Waves and distance** (medium, 10 minutes). Take the dot product of row t of `waves(T, C)` with row t + d. Which
# t you take makes no difference: as with rotary scores, the distance d alone counts. Show it: compute the product from
# d and C, with no rows. For C = 2, where row t is (sin t, cos t), pen and paper will do.

# %% tags=["exercise"]
def wave_product(distance, C):
    return None  # your answer, a number


# %%
check("05b.wave_product", wave_product)


# %% [markdown]
# **3 · Repair it** (medium, 10 minutes). This should turn queries as llmkit's `rotary` does: feature i of the first
# half and feature i of the second half are a pair. It runs, has the right shape, and a model with it trains. It is
# wrong in two ways. Find them, and mend both. (What should happen at position 0, and to the length of an arrow?)

# %% tags=["exercise"]
def repaired_rotary(x):  # (B, H, T, D) -> (B, H, T, D)
    T, D = x.shape[-2:]
    speed = 10000 ** (-torch.arange(D // 2) / D)
    angle = torch.arange(T)[:, None] * speed
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + a * angle.cos()], dim=-1)


# %%
check("05b.repaired_rotary", repaired_rotary)


# %% [markdown]
# **4 · A norm across the batch** (medium, 10 minutes). Somebody replaces `LayerNorm` by `nn.BatchNorm1d`, which takes
# its means over all texts and all positions. Write it as a module for `(B, T, C)` (BatchNorm1d wants the features
# second). Before you ask `leaks_future` and `mixes_batch` about a GPT with it: which of them will complain, and why?

# %% tags=["exercise"]
class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return x


# %%
check("05b.norm_across_batch", NormAcrossBatch)


# %% [markdown]
# **5 · Does it mix positions?** (medium, 12 minutes). Which layers let one position see another? Write a function that
# finds out for any layer `(B, T, C) -> (B, T, C)`, as it is given, by changing its input: `True` if what comes out at
# some position depends on what goes in at another. Guess first for a feed-forward network, attention, `LayerNorm` and
# `BatchNorm1d`.

# %% tags=["exercise"]
def mixes_positions(layer, x):  # x (B, T, C), random -> True or False
    return None  # your answer


# %%
check("05b.mixes_positions", mixes_positions)


# %% [markdown]
# **6 · Decoder-only by masks** (hard, 25 minutes). `nn.TransformerEncoder` with a causal mask is a GPT as well. Build
# one of any depth from `nn.TransformerEncoderLayer` (norm first, GELU, no dropout), which passes `leaks_future` and
# has as many parameters as `llmkit.GPT` with the same `config`: a table of rows for positions, and one table for
# characters that also gives the scores. Why can it have just as many?

# %% tags=["exercise"]
class FromPyTorch(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, ids):  # (B, T) -> (B, T, V)
        return torch.zeros(*ids.shape, self.config.vocab_size)


# %%
check("05b.from_pytorch", FromPyTorch)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: what will change?
changes = (False, True, True, True, False)


def last_row(x, way, start=0):  # (T, C) -> (C,)
    if way == "learned":
        x = x + table[start : start + len(x)]
    q = k = v = x[None, None]  # (1, 1, T, C)
    if way == "rotary":
        q, k = rotary(q, start), rotary(k, start)
    return llmkit.attention(q, k, v, llmkit.causal_mask(len(x)))[0][0, 0, -1]


x, table = torch.randn(10, 8), torch.randn(20, 8)
swapped = x[[1, 0, *range(2, 10)]]
pairs = [(last_row(x, way), last_row(swapped, way)) for way in ("none", "learned", "rotary")]
pairs += [(last_row(x, way), last_row(x, way, start=7)) for way in ("learned", "rotary")]
assert changes == tuple(not torch.allclose(one, other, atol=1e-5) for one, other in pairs)
check("05b.changes", changes)

# %% tags=["solution"]
# @title Solution 2: waves and distance


def wave_product(distance, C):
    speed = 10000 ** (-torch.arange(0, C, 2) / C)  # a speed for each pair of columns
    return (distance * speed).cos().sum()  # sin a sin b + cos a cos b = cos(a - b)


# But the stream holds waves plus characters, and queries and keys are made of the sum: there the
# distance is mixed with everything else. Rotary keeps it apart.
check("05b.wave_product", wave_product)

# %% tags=["solution"]
# @title Solution 3: repair it


def repaired_rotary(x):  # (B, H, T, D) -> (B, H, T, D)
    T, D = x.shape[-2:]
    speed = 10000 ** (-torch.arange(0, D, 2) / D)  # the exponents run up to 1
    angle = torch.arange(T)[:, None] * speed
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)


check("05b.repaired_rotary", repaired_rotary)

# %% tags=["solution"]
# @title Solution 4: a norm across the batch


class NormAcrossBatch(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.norm = nn.BatchNorm1d(C)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


crossed = llmkit.GPT(config)
crossed.h[0].ln_1 = NormAcrossBatch(C)
for question in (llmkit.checks.leaks_future, llmkit.checks.mixes_batch):
    print(question(crossed))
    assert not question(crossed).passed
# Both, in training mode only: there the means go over other texts, and over later positions too.
check("05b.norm_across_batch", NormAcrossBatch)

# %% tags=["solution"]
# @title Solution 5: does it mix positions?


def mixes_positions(layer, x):
    before, T = layer(x), x.size(1)  # in the mode in which it comes: no .eval()
    for s in range(T):
        changed = x.clone()
        changed[:, s] = torch.randn_like(x[:, s])  # x + 1 would be taken away by a norm
        others = torch.arange(T) != s
        if not torch.allclose(layer(changed)[:, others], before[:, others], atol=1e-5):
            return True
    return False


# A feed-forward network and LayerNorm do not, attention does, and so does BatchNorm1d in training.
check("05b.mixes_positions", mixes_positions)

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
check("05b.from_pytorch", FromPyTorch)
