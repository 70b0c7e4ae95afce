# %% [markdown]
# # 03b · Backpropagation
# *All slopes in one pass backwards; and with them, a model that sees several characters.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/03b_backpropagation.ipynb)
#
# About 28 minutes to read, exercises aside.
#
# ← [03 · Bigram](03_bigram.ipynb) · [04 · Attention](04_attention.ipynb) →

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
# Notebook 03 changed 4,225 numbers so that a loss fell. For each of them it needed a slope: if this number grows a
# little, how does the loss change? A slope can be measured: move the number up and down, and compute the loss both
# times. For all numbers that makes 8,450 losses, for a single step.
#
# `loss.backward()` found the 4,225 slopes at once. How can one number, the loss, tell so many others what to do?

# %%
import math
import timeit
from collections import Counter
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## Backwards on paper
#
# Take one of the smallest models that can learn, a line. It predicts `w · x + b`, and its loss is the square of its
# error. Written in small steps, for w = 2, x = 3, b = 1 and the right answer 10:

# %%
w, x, b, target = 2.0, 3.0, 1.0, 10.0
product = w * x
prediction = product + b
error = prediction - target
loss = error * error
print(f"product {product}, prediction {prediction}, error {error}, loss {loss}")


# %% [markdown]
# The loss would fall if the prediction were higher. What does that mean for `w`? Begin at the end, and ask of each number:
# if it grows by a tiny ε, by how many ε does the *loss* grow?
#
# - `error`: the loss is its square, and the derivative of e² is 2 e. So the slope is 2 · (-3) = -6.
# - `prediction`: one ε more here is one ε more in `error`, and so -6 ε in the loss. Slope -6.
# - `product` and `b`: they are added, so the same holds for each. Slope -6.
# - `w`: one ε more here is multiplied by x, and makes 3 ε in `product`. Each of those counts -6. Slope 3 · (-6) = -18.
#
# No step looked further than the step after it. That is the chain rule of calculus: to find the slope of a number, ask how
# fast the *next* number changes with it, and multiply by the slope of that one. Is it true? Measure it:

# %%
def line_loss(w: float) -> float:
    return (w * x + b - target) ** 2


epsilon = 0.001
measured = (line_loss(w + epsilon) - line_loss(w - epsilon)) / (2 * epsilon)
print(f"slope for w, measured: {measured:.3f}")

# %% [markdown]
# Here is all of it as a graph, with the slope beside each value:

# %%
drawings.autograd_graph()


# %% [markdown]
# Look at `error`. It is multiplied by itself, so two arrows lead from it to the loss. In a product, the slope for one
# factor is the other factor: -3 along the first arrow, -3 along the second, -6 together. Backpropagation has two rules,
# and no more:
#
# **Along a path, slopes are multiplied. Where several paths lead to the loss, they are added.**
#
# ## A number that remembers
#
# The rest is bookkeeping, which a computer can do. It needs a number that remembers what it was made of, its *parents*,
# and the slope for each of them. Python calls the method `__add__` where it finds a `+`, and `__mul__` where it finds
# a `*`:

# %%
class Value:
    """A number that remembers what it was made of: pairs of a parent and the slope for it."""

    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents = data, 0.0, parents

    def __add__(self, other):
        return Value(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        return Value(self.data * other.data, [(self, other.data), (other, self.data)])

    def exp(self):
        e = math.exp(self.data)
        return Value(e, [(self, e)])  # the derivative of e^x is e^x

    def log(self):
        return Value(math.log(self.data), [(self, 1 / self.data)])


# %% [markdown]
# The slopes are noted on the way forwards, when the values are known. The same line once more:

# %%
w, x, b, minus_target = Value(2.0), Value(3.0), Value(1.0), Value(-10.0)  # Value has no minus
product = w * x
error = product + b + minus_target
loss = error * error
print("the loss is", loss.data)
print("product was made of", [(parent.data, slope) for parent, slope in product.parents])


# %% [markdown]
# `product` remembers w = 2 with the slope 3, and x = 3 with the slope 2.
#
# ## The way back
#
# In which order? A number may hand its slope on to its parents only when the slope is *complete*: when everything that was
# made from the number has handed on its own. So put all numbers into a list in which each stands after its parents, and
# go through it from the end. Such a list is said to be in *topological order*.

# %%
def in_order(value, done):
    """Append to the list all that a Value was made of, parents first, then the Value itself."""
    # (For large graphs one would keep a set as well: a list is searched from its start.)
    for parent, _ in value.parents:
        if parent not in done:
            in_order(parent, done)
    done.append(value)
    return done


def backward(loss):
    """Give every Value that the loss was made of its slope, as `grad`."""
    order = in_order(loss, [])
    for value in order:
        value.grad = 0.0
    loss.grad = 1.0  # one ε more in the loss is one ε more in the loss
    for value in reversed(order):
        for parent, slope in value.parents:
            parent.grad += slope * value.grad  # += : paths are added


# %%
backward(loss)
for name, value in {"w": w, "x": x, "b": b, "product": product, "error": error}.items():
    print(f"{name:8} value {value.data:5.1f}   slope {value.grad:6.1f}")

# %% [markdown]
# These are the numbers of the drawing. The class and the two functions have about thirty lines, and they will do for any
# formula of sums, products, exponentials and logarithms.
#
# ## Why it is quick
#
# One could do without the order: follow every path from the loss to `w`, and add up the products. That is right too. But
# count the paths. Here a number is doubled twenty times, and each doubling uses it twice:

# %%
value, paths = Value(1.0), 1
for _ in range(20):
    value = value + value
    paths = 2 * paths

order = in_order(value, [])
backward(value)
print(f"{paths:,} paths, {len(order)} numbers, slope of the first: {order[0].grad:,.0f}")
assert order[0].grad == paths

# %% [markdown]
# A million paths, and 21 numbers. Going backwards in order, each number hands its slope on once. **The way back takes as
# many steps as the way there**, however many numbers want to know their slope. Measuring goes the way there twice for
# each of them.
#
# ## The same as PyTorch?
#
# Let us give it something real: the table of notebook 03, for the one line `to be or not to be`. It has 7 different
# characters, so there are 7 · 7 logits. The loss of a pair is -ln of the softmax: the logarithm of a sum of exponentials,
# minus the logit of what came:

# %%
line = "to be or not to be"
characters = sorted(set(line))
ids = [characters.index(character) for character in line]
start = torch.randn(7, 7, dtype=torch.float64)  # (7, 7): random logits
table = [[Value(z) for z in row] for row in start.tolist()]


def surprise(logits, target):
    """-ln of the softmax of a list of Values, at the place of the target."""
    total = Value(0.0)
    for z in logits:
        total = total + z.exp()
    return total.log() + Value(-1.0) * logits[target]


# %%
loss = Value(0.0)
for i, j in pairwise(ids):
    loss = loss + surprise(table[i], j)
loss = loss * Value(1 / (len(ids) - 1))  # the mean over the pairs
backward(loss)
ours = torch.tensor([[z.grad for z in row] for row in table], dtype=torch.float64)  # (7, 7)

weights = start.clone().requires_grad_()
torch_loss = F.cross_entropy(weights[ids[:-1]], torch.tensor(ids[1:]))
torch_loss.backward()
print(f"a graph of {len(in_order(loss, []))} numbers")
print(f"loss ≈ {loss.data:.4f}, PyTorch's ≈ {torch_loss.item():.4f}")
assert torch.allclose(ours, weights.grad, rtol=0, atol=1e-12)

# %% [markdown]
# All 49 slopes agree to twelve decimals. PyTorch does the same as we do, but it remembers whole tensors, so that one node
# of its graph stands for many of ours. From the loss back to the weights there are four:

# %%
node = torch_loss.grad_fn
while node is not None:
    print(node.name())
    node = node.next_functions[0][0] if node.next_functions else None

# %% [markdown]
# The cross-entropy, the softmax with its logarithm, the look-up of rows; and `AccumulateGrad`, which *adds* the slope to
# `weights.grad`. It adds to what is there already, and so a second `backward()` needs care:

# %%
before = weights.grad.clone()
F.cross_entropy(weights[ids[:-1]], torch.tensor(ids[1:])).backward()
ratio = (weights.grad / before).mean().item()
print("after a second backward(), each slope is", ratio, "times as large")

# %% [markdown]
# Our `backward` sets all slopes to zero first. PyTorch leaves that to us; hence the `weights.grad = None` in notebook 03.
#
# And what does it cost? We time one loss over the whole training text, and then the loss with all its slopes:

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each
V = tokenizer.vocab_size
weights = torch.zeros(V, V, requires_grad=True)


def table_loss() -> torch.Tensor:
    return F.cross_entropy(weights[train_ids[:-1]], train_ids[1:])


there = min(timeit.repeat(table_loss, number=1, repeat=3))
and_back = min(timeit.repeat(lambda: table_loss().backward(), number=1, repeat=3))
print(f"all {V * V:,} slopes: ≈ {and_back / there:.1f} times as long as the loss alone")
print(f"by measuring: {2 * V * V:,} times")
assert and_back < 10 * there


# %% [markdown]
# ## Several characters
#
# Now slopes are cheap, for any formula. So let us leave the table, and train a model that sees more than one character.
#
# Many tutorials begin with a small model called something like *GPTMini*, made with PyTorch's class for models,
# `nn.Module`. This class keeps a list of the *parameters*, all the numbers that training changes, in all parts of the
# model; `super().__init__()` opens the list and so comes first. There are two parts here. An *embedding* is a table with a
# row of C numbers for each of the V characters. A *linear layer* multiplies by a matrix and adds a row of numbers, the
# *bias*; it makes V logits out of C numbers. The input has B texts of T characters each.

# %%
class GPTMini(nn.Module):
    def __init__(self, vocab_size: int, block_size: int, n_embd: int):
        super().__init__()
        self.block_size = block_size  # "the context that the model sees"
        self.embedding = nn.Embedding(vocab_size, n_embd)  # (V, C)
        self.head = nn.Linear(n_embd, vocab_size)  # C -> V

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids))  # (B, T) -> (B, T, C) -> (B, T, V)


# %% [markdown]
# Does it use its context? Here is a test for any model: keep the last character, change all that stand before it, and
# see whether the prediction changes.

# %%
mini = GPTMini(V, block_size=64, n_embd=32)
x = train_ids[:64][None]  # (1, T): one text of 64 characters; None adds the dimension in front
other = x.clone()
other[:, :-1] = torch.randint(V, (1, 63))  # all but the last
print("changed:", not torch.equal(mini(x)[0, -1], mini(other)[0, -1]))
assert torch.allclose(mini(x), mini(torch.arange(V))[x], atol=1e-6)

# %% [markdown]
# No. Each position is looked up and multiplied on its own. What GPTMini says of a character fits into a table of 65 rows
# (the assert reads it off), so it *is* a bigram, whatever its `block_size`. At best it can learn the counted table, and
# that took us no training at all.
#
# ## Side by side
#
# What is missing is a place where several characters meet. One of the oldest ways is to cut the text into *windows* of k
# characters, and to put their k rows side by side, as one long row. This is what Bengio and others did with words in
# [A Neural Probabilistic Language Model](https://www.jmlr.org/papers/v3/bengio03a.html) (2003).

# %%
k = 4
windows = train_ids.unfold(0, k + 1, 1)  # (N - k, k + 1): along dimension 0, five each, step 1
for row in windows[:5]:
    before, after = tokenizer.decode(row[:k]), tokenizer.decode(row[k:])
    print(plots.visible(before), "→", plots.visible(after))

# %%
drawings.context_window()


# %% [markdown]
# Between the long row and the logits stands a *hidden layer*: H numbers, each a sum of all k · C inputs with weights of
# its own, bent by tanh, a curve that runs from -1 to 1. Without a bend, two linear layers after each other would be one
# linear layer. Such a network is called a *multi-layer perceptron*, MLP:

# %%
class WindowMLP(nn.Module):
    def __init__(self, k: int, vocab_size: int, n_embd: int = 24, n_hidden: int = 256):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, n_embd)  # (V, C), one table for all places
        self.hidden = nn.Linear(k * n_embd, n_hidden)  # k · C -> H
        self.head = nn.Linear(n_hidden, vocab_size)  # H -> V

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        row = self.embedding(ids).flatten(1)  # (B, k) -> (B, k, C) -> (B, k · C)
        return self.head(self.hidden(row).tanh())  # (B, V)


size = sum(p.numel() for p in WindowMLP(4, V).parameters())
print(f"k = 4: {size:,} parameters; a table of all contexts would have {V**4 * V:,} numbers")


# %% [markdown]
# ## Trained and measured
#
# The loop is that of notebook 03: a batch, a loss, slopes, a step. Two things are better. The steps are made by *Adam*, a
# form of gradient descent in which each parameter gets a step size of its own. And the steps get smaller towards the end,
# so that the trembling dies down. (Notebook 06 explains both.)

# %%
def fit(model: nn.Module, draw, steps: int) -> None:
    """Train on the batches that draw() gives: x (B, k) and y (B,)."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)  # fused: see notebook 10
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)  # from 0.02 down towards 0
        x, y = draw()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()  # forget the last slopes
        loss.backward()
        optimizer.step()


# %% [markdown]
# How much does context help? We train a model for each of several window lengths k. For comparison we *count* as far
# back: llmkit's `NGram` is the table of pairs continued. It counts runs of k + 1 characters, and where it has not seen a
# run, it falls back on shorter ones (notebook 07). All are measured on the held-out text.

# %%
def train_window(k: int, steps: int) -> WindowMLP:
    """A model that has learned from windows of the training text."""
    windows = train_ids.unfold(0, k + 1, 1).to(runtime.device)  # (N - k, k + 1)

    def draw():
        rows = windows[torch.randint(len(windows), (1024,))]  # (1024, k + 1), from anywhere
        return rows[:, :k], rows[:, k]

    model = WindowMLP(k, V).to(runtime.device)
    fit(model, draw, steps)
    return model


@torch.no_grad()
def held_out_loss(model: WindowMLP, k: int) -> float:
    windows = val_ids.unfold(0, k + 1, 1).to(runtime.device)  # (N - k, k + 1)
    return F.cross_entropy(model(windows[:, :k]), windows[:, k]).item()


# %% tags=["trained"]
steps = runtime.pick(cpu=320, gpu=1280)
lengths = [1, 2, 4, 8, 16]
models = {k: train_window(k, steps) for k in lengths}
learned = [held_out_loss(models[k], k) for k in lengths]
counted = [llmkit.NGram(train_ids, order=k + 1, vocab_size=V).loss(val_ids) for k in lengths]

# %% tags=["trained"]
for k, by_mlp, by_counting in zip(lengths, learned, counted, strict=True):
    print(f"{k:2} characters: counted {by_counting:.3f}, learned ≈ {by_mlp:.3f}")
assert learned[2] < counted[0] - 0.6  # four characters, against the bigram
assert learned[3] < counted[3] - 0.05  # eight, against counting eight
assert learned[4] > learned[2] + 0.08  # sixteen, against four
plots.lines(
    lengths,
    {"counted": counted, "learned": learned},
    "Four characters are far better than one, and better than sixteen",
    xlabel="characters that the model sees",
    ylabel="held-out loss (nats per character)",
    log="x",
    ticks=lengths,
    points=True,
)

# %% [markdown]
# With one character, both find the bigram. With four, both are far better, and close together. With eight, counting
# is in trouble, and here is why:

# %%
train_text, _ = llmkit.split(text)
runs = Counter(train_text[i : i + 9] for i in range(len(train_text) - 8))
once = sum(n == 1 for n in runs.values()) / len(runs)
print(f"{len(runs):,} different runs of nine characters, and {once:.0%} of them occur once")

# %% [markdown]
# A count of one says little. The network copes better, for it need not have seen a run to say something about it:
# characters that behave alike can get rows that are alike, and so can runs made of them. But from four to sixteen it gets
# worse too, with as many steps of training.
#
# This is what the model of four characters writes:

# %% tags=["nbval-ignore-output", "sampled-text"]
ids = tokenizer.encode("\n\n\n\n").tolist()
for _ in range(300):
    window = torch.tensor([ids[-4:]], device=runtime.device)  # (1, k)
    with torch.no_grad():
        p = models[4](window).softmax(dim=1)  # (1, V)
    ids.append(torch.multinomial(p, 1).item())
print(tokenizer.decode(ids[4:]))

# %% [markdown]
# Many of the words are real, and no sentence knows how it began.
#
# ## What it cannot do
#
# Why does a longer window not help? Nothing outside the window exists for the model, so we should want a long one. But
# each further character brings C · H weights to the hidden layer, 6,144 here, to be learned from the same text. And
# these weights belong to one *place* in the window: what they learn there is known only there.
#
# A riddle shows it. Six places hold digits, but one holds a star, and the answer is the digit after the star. While
# learning, the star may stand in place 0, 1, 2 or 4, never in 3:

# %%
STAR = 10


def riddles(n: int, places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n, 6) of digits, a star in one of the places; and (n,) the digits after the stars."""
    rows = torch.randint(10, (n, 6))
    star = torch.tensor(places)[torch.randint(len(places), (n,))]  # (n,)
    rows[torch.arange(n), star] = STAR
    return rows, rows[torch.arange(n), star + 1]


x, y = riddles(3, [0, 1, 2, 4])
for row, answer in zip(x.tolist(), y.tolist(), strict=True):
    print(" ".join("*" if i == STAR else str(i) for i in row), "→", answer)

# %% tags=["trained"]
solver = WindowMLP(6, vocab_size=11)
fit(solver, lambda: riddles(1024, [0, 1, 2, 4]), steps=250)
right = []
for place in range(5):
    x, y = riddles(2000, [place])
    right.append((solver(x).argmax(dim=1) == y).float().mean().item())  # argmax: the likeliest
assert min(right[:3] + right[4:]) > 0.95
assert right[3] < 0.25
plots.bars(
    [f"star in place {place}" for place in range(5)],
    [100 * share for share in right],
    "The rule is learned for four places, and not for the fifth",
    xlabel="riddles solved (%)",
    highlight="star in place 3",
    fmt="{:.0f}",
)

# %% [markdown]
# Where the star was seen, nearly every riddle is solved. In place 3 the answers are guesses, about one in ten right. *Read
# what comes after the star* is one rule, but the network has to learn it once for each place. All places share the table
# of rows, but not the weights of the hidden layer. With a text it is the same: what it has found out about `th` in places
# 1 and 2 it must find out again for places 2 and 3, and in a window of sixteen for fifteen pairs of places.
#
# ## What we saw
#
# - A slope is handed back from each number to its parents: multiplied along a path, added where paths meet.
# - In topological order each number hands it on once. Thirty lines gave PyTorch's slopes, to twelve decimals.
# - All slopes together cost a few times as much as the loss; measuring them would cost 8,450 times as much.
# - An embedding and a linear layer alone are a bigram, whatever the `block_size`.
# - A window of four characters, its rows side by side, brings the held-out loss at least 0.6 below the bigram's. Sixteen
#   are worse than four.
# - What an MLP learns at one place of its window it does not know at another.
#
# So several characters have to meet, and the weights must not belong to places. Could a position look at *all* that
# stands before it, near or far, with the same weights wherever it stands? That is [notebook 04](04_attention.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below. (Where a check names a number, it means a `Value`.)

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Slopes in your head** (easy, 4 minutes). Let a = 2, b = -1 and c = 3, and the loss (a · b + c) · a. What are the
# slopes for a, b and c? Predict, with no computer; mind that a is used twice.

# %% tags=["exercise"]
slopes = None  # your answer: (for a, for b, for c)

# %%
check("03b.slopes", slopes)

# %%
hint("03b.slopes")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Windows** (easy, 8 minutes). From a text, make all windows of k characters that have a character after them, and
# those characters.

# %% tags=["exercise"]
def windows_of(ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (N,), N above k -> windows (N - k, k) and what follows each (N - k,)"""


# %%
check("03b.windows", windows_of)


# %% [markdown]
# **3 · How many parameters?** (easy, 8 minutes). Give the number of parameters of a `WindowMLP`, from its sizes alone:
# the window k, the vocabulary V, the embedding C, the hidden layer H. Before you compute: which grows fastest if k, C
# and H are all doubled?

# %% tags=["exercise"]
def parameters(k: int, V: int, C: int, H: int) -> int:
    """How many numbers training changes"""


# %%
check("03b.parameters", parameters)


# %% [markdown]
# **4 · One more step** (medium, 10 minutes). Our `Value` has no tanh, and so it cannot train a `WindowMLP`. Write it as
# a function: it takes a `Value` and returns a new one. `math.tanh` gives the value.

# %% tags=["exercise"]
def tanh_of(a):
    """A Value -> its tanh, a Value whose parents are known"""


# %%
check("03b.tanh_of", tanh_of)


# %% [markdown]
# **5 · Repair it** (medium, 15 minutes). This backward finds the right slopes for `a * b`, and wrong ones for
# `a * a + a`. Three things are wrong with it: one shows where a number is used twice, one where such a number has
# parents, one when it is called a second time. Mend all three. You may use `in_order`.

# %% tags=["exercise"]
def repaired(loss):
    loss.grad = 1.0
    todo = [loss]
    while todo:
        value = todo.pop(0)
        for parent, slope in value.parents:
            parent.grad = slope * value.grad
            todo.append(parent)


# %%
check("03b.repaired", repaired)


# %% [markdown]
# **6 · Backwards with matrices** (hard, 25 minutes). The loss is `F.cross_entropy((x @ W).tanh() @ U, y)`, a network of
# two layers without biases. Find the slopes for W and U without `backward()`: each has the shape of its matrix. What you
# need: predicted minus happened (notebook 03); for `out = h @ U`, the slope of `h` is `slope @ U.T`, and that of `U` is
# `h.T @ slope`; and exercise 4.

# %% tags=["exercise"]
def by_hand(
    x: torch.Tensor, W: torch.Tensor, U: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (B, D), W (D, H), U (H, V), y (B,) -> the slopes for W (D, H) and for U (H, V)"""


# %%
check("03b.by_hand", by_hand)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: slopes in your head
# a: from the last product a · b + c = 1, and by way of a · b: the loss has the slope a = 2 for
# the sum, which has the slope b = -1 for a. b: 2 · a. c: 2 · 1.
slopes = (1 + 2 * -1, 2 * 2, 2)
check("03b.slopes", slopes)

# %% tags=["solution"]
# @title Solution 2: windows


def windows_of(ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    pieces = ids.unfold(0, k + 1, 1)  # (N - k, k + 1)
    return pieces[:, :k], pieces[:, k]


check("03b.windows", windows_of)

# %% tags=["solution"]
# @title Solution 3: how many parameters?


def parameters(k: int, V: int, C: int, H: int) -> int:
    # k · C · H grows fastest: eightfold.
    return V * C + (k * C * H + H) + (H * V + V)


assert parameters(4, V, 24, 256) == size
check("03b.parameters", parameters)

# %% tags=["solution"]
# @title Solution 4: one more step


def tanh_of(a):
    t = math.tanh(a.data)
    return Value(t, [(a, 1 - t * t)])


check("03b.tanh_of", tanh_of)

# %% tags=["solution"]
# @title Solution 5: repair it


def repaired(loss):
    order = in_order(loss, [])
    for value in order:
        value.grad = 0.0  # or the slopes of the last call would be added to
    loss.grad = 1.0
    for value in reversed(order):  # each once, when its slope is complete
        for parent, slope in value.parents:
            parent.grad += slope * value.grad  # paths are added


check("03b.repaired", repaired)

# %% tags=["solution"]
# @title Solution 6: backwards with matrices


def by_hand(
    x: torch.Tensor, W: torch.Tensor, U: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    h = (x @ W).tanh()  # (B, H)
    slope = (h @ U).softmax(dim=1)  # (B, V): what was predicted
    slope[torch.arange(len(y)), y] -= 1  # minus what happened
    slope = slope / len(y)  # the loss is a mean over B
    return x.T @ (slope @ U.T * (1 - h * h)), h.T @ slope


check("03b.by_hand", by_hand)
