# %% [markdown]
# # 03 · Bigram
# *Predict from one character, twice: by counting, and by gradient descent.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/03_bigram.ipynb)
#
# About 28 minutes to read, exercises aside.
#
# ← [02 · Character tokenizer](02_char_tokenizer.ipynb) · [04 · Attention](04_attention.ipynb) →

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
# Read a text through a slit that shows one character. You see a `q`. What comes next? You see an `e`. What
# comes next? After the `q` you would bet your house, after the `e` hardly a coin.
#
# A language model does the same: it is shown what has been written, and gives every character that might come
# next a probability. How good can it be if it sees one character and no more?

# %%
import math
from collections import Counter
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import plots, widgets

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# The text is a play. Every character becomes an *id*, its place in the sorted list of all characters
# (notebook 02), and the last tenth is held out: no model may learn from it.

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each
V = tokenizer.vocab_size
print(f"{len(train_ids):,} characters to learn from, {len(val_ids):,} held out, {V} different ones")

# %% [markdown]
# ## Counting pairs
#
# The smallest case first. In one line of text, which character follows which?

# %%
line = "to be or not to be"
pairs = Counter(pairwise(line))
for (first, second), n in pairs.most_common(5):
    print(plots.visible(first), "→", plots.visible(second), n)
assert pairs["t", "o"] == 2
assert pairs["t", " "] == 1

# %% [markdown]
# A pair of neighbours is called a *bigram*. After `t` the line has `o` twice and a space once: two thirds and
# one third. That is a prediction already. Now for the whole training text, in a table with a row for the
# first character of the pair and a column for the second:

# %%
first, second = train_ids[:-1], train_ids[1:]  # (N - 1,) each: second[t] follows first[t]
numbers = first * V + second  # each pair as one number, from 0 to V² - 1
counts = torch.bincount(numbers, minlength=V * V).reshape(V, V)  # (V, V)

slow = Counter(zip(first.tolist(), second.tolist(), strict=True))  # the same, one by one
assert all(counts[i, j] == n for (i, j), n in slow.items())
assert counts.sum() == len(train_ids) - 1
t, h = tokenizer.encode("th").tolist()
print(f"t is followed by h {counts[t, h]:,} times, out of {counts[t].sum():,}")

# %%
plots.matrix(
    counts.double().where(counts > 0, math.nan),
    tokenizer.characters,
    tokenizer.characters,
    "Most pairs never occur (grey), and a few do nearly all the work",
    axes=("first character", "second character"),
    label="how often, in the training text",
    log=True,
)

# %% [markdown]
# Take a minute for it; it is a whole language model. Small letters are followed by small letters. Capitals
# are followed by capitals, where a speaker is named, or by small letters, where a sentence begins. The rows
# of the punctuation marks are nearly empty but for their first two places, line end and space:

# %%
empty = (counts == 0).double().mean().item()
top = counts.flatten().sort(descending=True).values[:200].sum() / counts.sum()
marks, blanks = tokenizer.encode("!,.:;?"), tokenizer.encode("\n ")
print(f"{empty:.0%} of the {V * V:,} pairs never occur; the 200 most frequent make up {top:.0%}")
assert empty > 0.5
assert top > 0.6
assert counts[marks][:, blanks].sum() > 0.9 * counts[marks].sum()


# %% [markdown]
# ## From counts to probabilities
#
# Divide each row by its sum. The sums are a column, of shape `(65, 1)`. If a table `(65, 65)` is divided by a
# column, PyTorch uses the column again for each of the 65 places in a row. This is called *broadcasting*.

# %%
def rows_to_probabilities(counts: torch.Tensor) -> torch.Tensor:
    total = counts.sum(dim=1, keepdim=True)  # (V, 1)
    return counts / total.clamp(min=1)  # (V, V); a row of zeros stays one


counted = rows_to_probabilities(counts.double())
seen = counts.sum(dim=1) > 0  # (V,): which characters have a row at all
assert torch.allclose(counted[seen].sum(dim=1), torch.ones(1).double())

# %% [markdown]
# `keepdim=True` keeps the sums a column. Without it they have the shape `(65,)`, which broadcasting takes for a
# row, and each *column* of the table is divided. No error; a wrong model. Only a check like the assert above
# finds it:

# %%
wrong = counts.double() / counts.sum(dim=1).clamp(min=1)  # (V, V) / (V,)
print("a row should sum to 1, but:", [round(s, 2) for s in wrong.sum(dim=1)[[t, h]].tolist()])
assert not torch.allclose(wrong[seen].sum(dim=1), torch.ones(1).double())


# %% [markdown]
# ## What does it write?
#
# To write, draw a character from the row of the last one, then go to the row of what was drawn, and so on.
# First, for comparison, from a table in which all characters are equally likely:

# %% tags=["nbval-ignore-output", "sampled-text"]
def sample(table: torch.Tensor, length: int, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    ids = [tokenizer.encode("\n").item()]
    for _ in range(length):
        row = table[ids[-1]]  # (V,)
        ids.append(torch.multinomial(row, 1, generator=generator).item())
    return tokenizer.decode(ids[1:])


print(plots.visible(sample(torch.full((V, V), 1 / V), 60, seed=1337)))
print()
print(sample(counted, 240, seed=1337))

# %% [markdown]
# Not English, and yet no longer noise. There are word lengths, vowels in their places, capitals at the start
# of lines. All this from looking one character back.
#
# ## How good is it? One number
#
# A model is good if it gave high probabilities to what then really came. For `the`, after a space:

# %%
ids = tokenizer.encode(" the")
p = counted[ids[:-1], ids[1:]]  # (3,): p(t after space), p(h after t), p(e after h)
print(p.round(decimals=3).tolist(), "and for the whole word", round(p.prod().item(), 4))

# %% [markdown]
# Probabilities of things that all have to happen are multiplied. Do so for the whole text:

# %%
p = counted[first, second]  # (N - 1,): what each character of the text was given
print(p.prod().item())

# %% [markdown]
# Zero: so many factors below 1 make a number too small for the computer to hold. Logarithms help. They turn the
# product into a sum, which does not vanish. Dividing the sum by the number of characters makes short and long
# texts comparable, and a minus sign makes it positive, since the logarithm of a probability is never above 0.
# The result is the *average negative log-likelihood*, called the *loss*:

# %%
loss = -p.log().mean().item()
print(f"sum of the logarithms {p.log().sum().item():,.0f}, loss {loss:.3f} nats per character")

# %% [markdown]
# The loss is the average surprise per character. A character that was given probability 1 costs nothing, a less
# likely one more. With the natural logarithm the unit is called *nat*:

# %%
for chance in (1, 1 / 2, 1 / 10, 1 / V):
    print(f"probability {chance:.3f}  costs {math.log(1 / chance):.3f} nats")
baseline = math.log(V)
assert loss < baseline - 1


# %% [markdown]
# The last line is the mark to beat: whoever knows nothing gives each of the 65 characters 1/65, and pays ln 65 for
# every one, whatever the text. Our table pays far less.
#
# ## Pairs never seen
#
# That was the text we counted. And on the held-out text?

# %%
def table_loss(table: torch.Tensor, ids: torch.Tensor) -> float:
    """Nats per character that a table of probabilities (V, V) pays for a text (N,)."""
    return -table[ids[:-1], ids[1:]].log().mean().item()


unseen = counts[val_ids[:-1], val_ids[1:]] == 0  # (N - 1,)
new_pairs = [tokenizer.decode(val_ids[i : i + 2]) for i in unseen.nonzero()[:, 0]]
print("loss on the held-out text:", table_loss(counted, val_ids))
print(f"because of {len(new_pairs)} pairs, such as", *map(plots.visible, new_pairs[:6]))
assert len(new_pairs) > 0

# %% [markdown]
# Infinite. What never occurred was given 0, and a single 0 in thousands of characters ruins the whole loss: the
# model had sworn that this could not happen. So give nothing 0. Pretend that each pair was seen a little more
# often than it was, by an amount `a`. This is called *smoothing*:

# %% tags=["trained"]
amounts = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]
smooth = {a: rows_to_probabilities(counts + a) for a in amounts}
on_train = [table_loss(smooth[a], train_ids) for a in amounts]
on_val = [table_loss(smooth[a], val_ids) for a in amounts]
assert on_train == sorted(on_train)  # on the text that was counted, smoothing only harms
assert max(on_val[:7]) - min(on_val) < 0.03  # on new text, up to 1 is nearly the same
assert on_val[-1] > min(on_val) + 0.05  # too much harms
plots.lines(
    [math.log10(a) for a in amounts],
    {"training": on_train, "held out": on_val},
    "Any small amount will do; a large one drowns the counts",
    xlabel="amount added to every count, as a power of ten (-3: 0.001, 0: 1, 2: 100)",
    ylabel="loss (nats per character)",
)

# %% [markdown]
# From a thousandth to one it hardly matters. We take a tenth. (Notebook 07 shows a better way to smooth.)

# %% tags=["trained"]
table = rows_to_probabilities(counts + 0.1)  # (V, V)
val_loss = table_loss(table, val_ids)
print(f"knowing nothing {baseline:.3f}, by counting pairs {val_loss:.3f} on the held-out text")
assert 2.2 < val_loss < 2.6

# %% [markdown]
# Does llmkit get the same? Its `NeuralBigram` holds such a table, as logarithms, and `evaluate` measures any model
# on every character of a text but the first, which has none before it.

# %%
bigram = llmkit.NeuralBigram(V)
with torch.no_grad():  # we set the table by hand; what "grad" is comes below
    bigram.table.weight.copy_(table.log())
report = llmkit.evaluate(bigram, val_ids)
assert abs(report.loss - table_loss(table, val_ids)) < 1e-5
assert report.tokens == len(val_ids) - 1
print(f"the same, over all {report.tokens:,} characters")

# %% [markdown]
# Look through the slit yourself. In a running notebook, type a text below: the bars show what the bigram expects
# next.

# %%
explorer = widgets.NextTokenExplorer(bigram, tokenizer, "e")
explorer

# %%
assert torch.equal(explorer.probabilities("What is th"), explorer.probabilities("h"))
print("after “What is th” and after “h”: the same 65 numbers")

# %% [markdown]
# However much you type, only the last character counts.
#
# ## Why learn what one can count?
#
# To see two characters we would need a table with 65 · 65 rows, to see ten, one with this many:

# %%
print(f"{65**10:,} rows, and {len(train_ids):,} characters to fill them")

# %% [markdown]
# No text fills it. Larger models therefore do not count: they start with some numbers, measure the loss, and
# change the numbers so that it falls. Does that find the same as counting? Here we can check, since we know the
# answer.
#
# ## A slope to follow
#
# Change numbers so that a loss falls: in which direction? First with one number `w` and the loss (w - 5)².
# PyTorch finds the slope by itself. It takes notes of how `loss` came about, and `backward()` goes through the
# notes in reverse; this is called *autograd*:

# %%
w = torch.tensor(3.0, requires_grad=True)  # "take notes on what is done with this"
loss = (w - 5) ** 2
loss.backward()
print("slope at w = 3:", w.grad.item())
assert w.grad == 2 * (3 - 5)  # the derivative of (w - 5)² is 2 (w - 5)

# %% [markdown]
# The slope, called the *gradient*, is negative: the loss falls if `w` grows. So take a step against the slope, and
# again, and again. That is *gradient descent*, and 0.2 is the *learning rate*, which says how far a step goes:

# %%
for step in range(20):
    loss = (w - 5) ** 2
    w.grad = None  # forget the last slope, or the new one would be added to it
    loss.backward()
    with torch.no_grad():  # no notes on the step itself
        w -= 0.2 * w.grad
    if step % 5 == 4:
        print(f"step {step + 1:2}: w = {w.item():.4f}")
assert abs(w.item() - 5) < 1e-3

# %% [markdown]
# It found the 5 without being told how to solve an equation.
#
# ## A table of weights
#
# Now 65 · 65 numbers in place of one, called *weights*. They may be anything, also negative; probabilities may
# not. What leads from one to the other is called *softmax*: take the exponential of each number in a row, which
# is positive, and divide by the sum of the row. The numbers that go in are called *logits*.

# %%
logits = torch.tensor([2.0, 0.0, -1.0])
by_hand = logits.exp() / logits.exp().sum()
print([round(p, 3) for p in by_hand.tolist()])
assert torch.allclose(by_hand, logits.softmax(dim=0))
assert torch.allclose(by_hand, (logits + 7).softmax(dim=0))  # only differences count

# %% [markdown]
# The loss is the one we have: minus the logarithm of the probability of what really came. PyTorch computes it
# from the logits, under the name *cross-entropy*. With all weights 0 every character gets 1/65, so the first loss
# is known beforehand:

# %%
weights = torch.zeros(V, V, requires_grad=True)  # row i: logits of what follows character i
x, y = first[:5000], second[:5000]
logits = weights[x]  # (5000, V): for each character its row of the table
by_hand = -logits.softmax(dim=1)[torch.arange(len(y)), y].log().mean()
loss = F.cross_entropy(logits, y)
assert torch.allclose(loss, by_hand)
print(f"first loss {loss.item():.3f}, ln 65 = {math.log(65):.3f}")

# %% [markdown]
# And down we go. The training text is long, so each step looks at 32 random pieces of 64 characters, a *batch*.
# That is enough to tell roughly where down is:

# %% tags=["trained"]
batches = llmkit.Batches(train_ids, block_size=64, batch_size=32, seed=1337)
losses = []
for _ in range(200):
    x, y = next(batches)  # (32, 64) each: y is x, one character further on
    loss = F.cross_entropy(weights[x].flatten(0, 1), y.flatten())  # logits (32 · 64, V)
    weights.grad = None
    loss.backward()
    with torch.no_grad():
        weights -= 20 * weights.grad
    losses.append(loss.item())

goal = table_loss(counted, train_ids)  # what counting reached on the training text
assert sum(losses[-20:]) / 20 < goal + 0.25
plots.lines(
    range(1, 201),
    {"gradient descent": losses, "counting": [goal] * 200},
    "From ln 65 the loss comes down towards what counting reached",
    xlabel="step",
    ylabel="loss (nats per character)",
)

# %% [markdown]
# It trembles, as each batch is another piece of text, and it gets slower. Will it arrive? The slope itself can
# tell.
#
# ## What the gradient says
#
# Here is the gradient that `backward()` finds over the whole training text, and beside it a formula: *what the
# model predicts minus what was counted*, row by row, times the share of the text that the row's character has.

# %%
weights = weights.detach().double().requires_grad_()  # more digits, to compare exactly
loss = F.cross_entropy(weights[first], second)  # all pairs at once
loss.backward()

share = counts.sum(dim=1, keepdim=True) / counts.sum()  # (V, 1): how often each first character
with torch.no_grad():
    formula = share * (weights.softmax(dim=1) - counted)  # (V, V)
assert torch.allclose(weights.grad, formula, atol=1e-9)
print("backward() and the formula agree to 9 decimals, in all", V * V, "places")

# %% [markdown]
# So the gradient is zero where the prediction equals the counts, and nowhere else. **Gradient descent on this
# table can come to rest only at the counted one.**
#
# The formula also shows why it was slow: the row of a rare character has a small share, hence takes tiny steps.
# Leave the share out, so that all rows move at the same pace, and go on to the end. For this we need no text any
# more, only the counts:

# %%
logits = torch.zeros(V, V, dtype=torch.float64)  # from the start again
stages = {}
for step in range(3001):
    if step in (0, 2, 3000):
        stages[f"after {step} steps"] = logits.softmax(dim=1)
    logits -= 3 * (logits.softmax(dim=1) - counted) * seen[:, None]  # rows without counts stay

learned = stages["after 3000 steps"]  # (V, V), rows that sum to 1
by_counting, by_descent = table_loss(counted, train_ids), table_loss(learned, train_ids)
largest = (learned - counted)[seen].abs().max().item()
print(f"training loss: counting {by_counting:.3f}, gradient descent {by_descent:.3f}")
print(f"largest difference between two probabilities: ≈ {largest:.5f}")
assert by_counting <= by_descent < by_counting + 0.005
assert largest < 0.001

# %%
often = counts.sum(dim=1).topk(16).indices.sort().values  # the sixteen most frequent characters
names = [tokenizer.characters[i] for i in often]
plots.matrix(
    {name: m[often][:, often] for name, m in (stages | {"counted": counted}).items()},
    names,
    names,
    "Step by step the learned table becomes the counted one",
    axes=("first character", "second character"),
    label="probability",
)


# %% [markdown]
# Two ways, one answer. (But for the last bit: softmax never gives an exact 0, so the pairs that never occurred
# keep a little probability, which is a kind of smoothing too.)
#
# ## The "GPTMini" of the tutorials
#
# Many a tutorial opens with a small model called something like *GPTMini*. It has an *embedding*, which is a table
# with a row of C numbers for each character; a *linear layer*, which makes 65 logits of such a row; and a
# `block_size`, "the context the model sees":

# %%
class GPTMini(nn.Module):
    def __init__(self, vocab_size: int, block_size: int, n_embd: int):
        super().__init__()
        self.block_size = block_size  # kept, and never used
        self.embedding = nn.Embedding(vocab_size, n_embd)  # (V, C)
        self.head = nn.Linear(n_embd, vocab_size)  # C -> V

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids))  # (B, T) -> (B, T, C) -> (B, T, V)


# %% [markdown]
# What does it do with its context? Here is a test for any model: keep the last character, change all that stand
# before it, and see whether the prediction changes.

# %%
for block_size in (8, 64, 256):
    mini = GPTMini(V, block_size, n_embd=32)
    x = train_ids[:block_size].clone()[None]  # (1, T)
    other = x.clone()
    other[:, :-1] = torch.randint(V, (1, block_size - 1))  # all but the last
    changed = not torch.equal(mini(x)[0, -1], mini(other)[0, -1])
    print(f"block size {block_size:3}: {block_size - 1:3} characters replaced, changed: {changed}")
    assert not changed

# %% [markdown]
# Nothing in it lets one position see another. Feed it each character once and you have all that it can ever
# say, in a table of 65 rows. It *is* a bigram model:

# %%
table_of_mini = mini(torch.arange(V))  # (V, V)
assert torch.allclose(mini(x), table_of_mini[x], atol=1e-6)
print("GPTMini(x) is a row of a table, for each of", x.numel(), "positions")

# %% [markdown]
# So it cannot do better on the training text than the counts themselves. Will longer training help, or a larger C?
# We train three of them on all pairs of the text, with Adam, a form of gradient descent that notebook 06 explains:

# %% tags=["trained"]
every = torch.arange(V)
pair_share = (counts / counts.sum()).float()  # (V, V): how often each pair occurs
curves = {}
for n_embd in (2, 8, 64):
    mini = GPTMini(V, 256, n_embd)
    optimizer = torch.optim.Adam(mini.parameters(), lr=0.02)
    curve = curves[f"GPTMini, C = {n_embd}"] = []
    for _ in range(800):
        loss = -(pair_share * mini(every).log_softmax(dim=1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
ends = [curve[-1] for curve in curves.values()]
assert all(end > by_counting - 1e-4 for end in ends)  # none goes below
assert ends[2] < by_counting + 0.02 < ends[0]  # the wide one arrives, the narrow one cannot
plots.lines(
    range(50, 800),
    {name: curve[50:] for name, curve in curves.items()} | {"counting": [by_counting] * 750},
    "GPTMini comes down to the bigram's loss, never below it",
    xlabel="step (the first 50 left out)",
    ylabel="training loss (nats per character)",
)

# %% [markdown]
# With a small C the model cannot even hold the counted table; with a large one it arrives there and stays. More
# training cannot help, nor a larger `block_size`, nor a larger C: there is nothing left to find in pairs.
#
# ## What we saw
#
# - A language model gives each possible next character a probability. Counted pairs, divided row by row,
#   are such a model.
# - The loss is the average of -ln p over what really came, in nats per character. Knowing nothing costs ln 65 ≈
#   4.17; one character of context brings it below 2.6 on held-out text.
# - A pair never seen makes the loss infinite. A little added to every count mends that.
# - Gradient descent on logits reached the training loss of counting to 0.005, and its table to 0.001. The gradient
#   is prediction minus counts, and vanishes only where the two agree.
# - An embedding and a linear layer, with nothing that connects positions, are this model again, whatever the name
#   and the block size.
#
# So both ways agree on a loss, and neither can go below it. What follows `h` depends on whether the `h` stands in
# `the` or in `oath`; who sees the `h` alone cannot know. How can a model see more than one character, without a
# table that no text can fill? That is [notebook 04](04_attention.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below. (In the cases a table is small: of two, three or a few
# characters.)

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Smooth in your head** (easy, 3 minutes). Take the line `to be or not to be` alone: after `t` it has `o` twice and
# a space once, and it has 7 different characters. With 1 added to every count, what is the probability of `o` after
# `t`, of the space after `t`, and of `b` after `t`? Predict, with no computer.

# %% tags=["exercise"]
smoothed = None  # your answer: (of o, of the space, of b)

# %%
check("03.smoothed", smoothed)

# %%
hint("03.smoothed")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Sure and unsure** (easy, 10 minutes). Which character leaves the least doubt about what follows, and which the
# most? The doubt of a row is the loss that it expects: -Σ p ln p. `surest` gets the counts and answers with two row
# numbers, among the rows that have at least `least` counts together. `torch.xlogy(p, p)` gives p ln p, also for p = 0.

# %% tags=["exercise"]
def surest(counts: torch.Tensor, least: int) -> tuple[int, int]:
    """counts (V, V) -> the row of the least doubt, the row of the most"""


# %%
check("03.surest", surest)


# %% [markdown]
# **3 · Repair it** (medium, 10 minutes). This is to be the loss of a table in nats per character, as `table_loss` has
# it. It runs, and gives a number that looks likely. It is wrong in three ways. Find them, and mend all three, without
# a look above.

# %% tags=["exercise"]
def repaired(table: torch.Tensor, ids: torch.Tensor) -> float:
    p = table[ids[1:], ids[:-1]]
    return -p.mean().log2().item()


# %%
check("03.repaired", repaired)


# %% [markdown]
# **4 · Backwards** (medium, 10 minutes). Make a bigram that predicts the character *before*, by counting the pairs of
# `ids`, without smoothing. What loss does it have on the same `ids`, read backwards? Guess first: on our training text,
# is it higher than forwards, lower, or nearly the same?

# %% tags=["exercise"]
def backwards_loss(ids: torch.Tensor, V: int) -> float:
    """ids (N,), all below V -> nats per character"""


# %%
check("03.backwards_loss", backwards_loss)


# %% [markdown]
# **5 · Two characters** (medium, 20 minutes). Count the triples of `train_ids` into a table with a row for each *pair*,
# so that the model sees two characters, and add 0.1 to each count. What is its loss on `ids`? And which share of the
# triples in `ids` never occurs in `train_ids`?

# %% tags=["exercise"]
def two_characters(train_ids: torch.Tensor, ids: torch.Tensor, V: int) -> tuple[float, float]:
    """ids (N,), all below V -> (nats per character, share of triples never seen)"""


# %%
check("03.two_characters", two_characters)


# %% [markdown]
# **6 · A slope by hand** (hard, 20 minutes). You need no autograd to measure a slope: move one weight by a small ε in
# both directions, and divide the difference of the two losses by the distance. Do it for `logits[i, j]` and the loss
# of the table `logits.softmax(dim=1)` on `ids`. The check compares it with the formula above.

# %% tags=["exercise"]
def slope(logits: torch.Tensor, ids: torch.Tensor, i: int, j: int, epsilon: float = 1e-4) -> float:
    """logits (V, V) of dtype float64, ids (N,) -> the slope of the loss at logits[i, j]"""


# %%
check("03.slope", slope)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: smooth in your head
smoothed = ((2 + 1) / (3 + 7), (1 + 1) / (3 + 7), (0 + 1) / (3 + 7))  # each of 7 counts grew by 1
check("03.smoothed", smoothed)

# %% tags=["solution"]
# @title Solution 2: sure and unsure


def surest(counts: torch.Tensor, least: int) -> tuple[int, int]:
    p = rows_to_probabilities(counts.double())
    doubt = -torch.xlogy(p, p).sum(dim=1)  # (V,)
    rows = [i for i in range(len(counts)) if counts[i].sum() >= least]
    return min(rows, key=lambda i: doubt[i]), max(rows, key=lambda i: doubt[i])


sure, unsure = surest(counts, least=50)
print("surest after", plots.visible(tokenizer.characters[sure]), end=", ")
print("least sure after", plots.visible(tokenizer.characters[unsure]))
check("03.surest", surest)

# %% tags=["solution"]
# @title Solution 3: repair it


def repaired(table: torch.Tensor, ids: torch.Tensor) -> float:
    p = table[ids[:-1], ids[1:]]  # a row is a first character
    return -p.log().mean().item()  # the natural logarithm, of each p, and then the mean


check("03.repaired", repaired)

# %% tags=["solution"]
# @title Solution 4: backwards


def backwards_loss(ids: torch.Tensor, V: int) -> float:
    counts = torch.bincount(ids[:-1] * V + ids[1:], minlength=V * V).reshape(V, V)
    before = rows_to_probabilities(counts.double().T)  # row j: what stood before j
    return table_loss(before, ids.flip(0))


print(f"forwards {by_counting:.4f}, backwards {backwards_loss(train_ids, V):.4f}")
# Both are the surprise of a pair less the surprise of a single character, and
# forwards and backwards have the same pairs and (but for the two ends) the same characters.
assert abs(backwards_loss(train_ids, V) - by_counting) < 1e-3
check("03.backwards_loss", backwards_loss)

# %% tags=["solution"]
# @title Solution 5: two characters


def two_characters(train_ids: torch.Tensor, ids: torch.Tensor, V: int) -> tuple[float, float]:
    triples = (train_ids[:-2] * V + train_ids[1:-1]) * V + train_ids[2:]
    cube = torch.bincount(triples, minlength=V**3).reshape(V * V, V)  # a row for each pair
    row, column = ids[:-2] * V + ids[1:-1], ids[2:]
    loss = -rows_to_probabilities(cube + 0.1)[row, column].log().mean().item()
    return loss, (cube[row, column] == 0).double().mean().item()


triple_train_loss, _ = two_characters(train_ids, train_ids, V)
triple_val_loss, share_unseen = two_characters(train_ids, val_ids, V)
print(f"training {triple_train_loss:.3f}, held out {triple_val_loss:.3f}", end=", ")
print(f"never seen {share_unseen:.1%}")
assert triple_train_loss < by_counting  # seeing more helps
assert triple_val_loss > triple_train_loss + 0.03  # and the gap to new text widens
assert share_unseen > unseen.double().mean()
check("03.two_characters", two_characters)

# %% tags=["solution"]
# @title Solution 6: a slope by hand


def slope(logits: torch.Tensor, ids: torch.Tensor, i: int, j: int, epsilon: float = 1e-4) -> float:
    losses = []
    for move in (epsilon, -epsilon):
        moved = logits.clone()
        moved[i, j] += move
        losses.append(table_loss(moved.softmax(dim=1), ids))
    return (losses[0] - losses[1]) / (2 * epsilon)


check("03.slope", slope)
