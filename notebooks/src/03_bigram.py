# %% [markdown]
# # 03 · Bigram
# *Predict from one character, twice: by counting, and by gradient descent.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/03_bigram.ipynb)
#
# About 27 minutes to read, exercises aside.
#
# ← [02 · Character tokenizer](02_char_tokenizer.ipynb) · [03b · Backpropagation](03b_backpropagation.ipynb) →

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
# Read a text through a slit that shows one character. You see a `q`. What comes next? You see an `e`. What
# comes next? After the `q` you would bet your house, after the `e` hardly a coin.
#
# A language model makes the same bets: it is shown what has been written, and gives every character that might come
# next a probability. How good can it be if it sees one character and no more?

# %%
import math
from collections import Counter
from itertools import pairwise

import torch
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

slow = Counter(pairwise(train_ids.tolist()))  # the same, one by one
assert all(counts[i, j] == n for (i, j), n in slow.items())
t, h = tokenizer.encode("th").tolist()
print(f"t is followed by h {counts[t, h]:,} times, out of {counts[t].sum():,}")

# %%
marks, capitals, small = (2, 12), (13, 38), (39, 64)  # rows or columns, from and to
plots.matrix(
    counts.double().where(counts > 0, math.nan),  # no number where the count is 0: grey
    tokenizer.characters,
    tokenizer.characters,
    "Most pairs never occur (grey), and a few do most of the work",
    axes=("first character", "second character"),
    label="how often, in the training text",
    log=True,
    boxes={
        "1": (small, small),
        "2": (capitals, capitals),
        "3": (capitals, small),
        "4": (marks, (0, 1)),
    },
)

# %% [markdown]
# Take a minute to look at it: it is a whole language model. Small letters are followed by small letters (box 1).
# Capitals are followed by capitals, as in a speaker's name (2), or by small letters, as where a sentence begins (3). A
# punctuation mark is followed by a line end or a space, and hardly anything else (4; the apostrophe and the hyphen are
# exceptions):

# %%
empty = (counts == 0).double().mean().item()
top = counts.flatten().sort(descending=True).values[:200].sum() / counts.sum()
marks = tokenizer.encode("!,.:;?")
after_marks = counts[marks][:, tokenizer.encode("\n ")].sum() / counts[marks].sum()
print(f"{empty:.0%} of the {V * V:,} pairs never occur; the 200 most frequent make up {top:.0%}")
print(f"after one of ! , . : ; ? a line end or a space comes in {after_marks:.0%} of the cases")

# %% [markdown]
# ## From counts to probabilities
#
# Divide each row by its sum. In a table of two rows and three columns:

# %%
small_table = torch.tensor([[1.0, 1.0, 2.0], [3.0, 0.0, 3.0]])  # (2, 3)
total = small_table.sum(dim=1, keepdim=True)  # (2, 1): a column of two sums, 4 and 6
print(small_table / total)  # (2, 3) / (2, 1) -> (2, 3)


# %% [markdown]
# The shapes differ, and still it works: PyTorch uses the one column for each of the three. This is called
# *broadcasting*: a dimension of size 1 is repeated as often as the other tensor needs it. Now for the whole table:

# %%
def rows_to_probabilities(counts: torch.Tensor) -> torch.Tensor:
    total = counts.sum(dim=1, keepdim=True)  # (V, 1)
    return counts / total.clamp(min=1)  # (V, V); an empty row is divided by 1, not by 0


counted = rows_to_probabilities(counts.double())  # double: numbers of 64 bits, for 16 digits
seen = counts.sum(dim=1) > 0  # (V,): which characters have a row at all
assert torch.allclose(counted[seen].sum(dim=1), torch.ones(1).double())

# %% [markdown]
# `keepdim=True` keeps the sums a column. Without it they have the shape `(65,)`, and broadcasting lines up shapes
# from the right: it takes them for a row, and divides each *column*. In the table of 2 × 3 this would be an error,
# since two sums do not fit three columns. In a square table it is no error, it is a wrong model. Only a check like
# the one above finds it:

# %%
wrong = counts.double() / counts.sum(dim=1).clamp(min=1)  # (V, V) / (V,)
print("a row should sum to 1, but:", [round(s, 2) for s in wrong.sum(dim=1)[[t, h]].tolist()])


# %% [markdown]
# ## What does it write?
#
# To write, draw a character from the row of the last one, then go to the row of what was drawn, and so on.
# `torch.multinomial` draws: it returns a column number, each as often as its probability says. A `Generator` with a
# fixed seed makes the dice fall in the same way each time. For comparison we begin with a table in which all
# characters are equally likely:

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
# The second text is not English, and yet no longer noise. Its words have likely lengths, its vowels are in likely
# places. All this comes from looking one character back.
#
# ## How good is it? One number
#
# A model is good if it gave high probabilities to what really came next. For `the`, after a space:

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


# %% [markdown]
# The last line is the score to beat: whoever knows nothing gives each of the 65 characters 1/65, and pays ln 65 for
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
# Infinite. What never occurred was given probability 0, and a single 0 among thousands of characters ruins the whole
# loss: the model had sworn that this could not happen. So let nothing have probability 0. Pretend that each pair was
# seen a little more often than it was, by an amount `a`. This is called *smoothing*:

# %% tags=["trained"]
amounts = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]
smooth = {a: rows_to_probabilities(counts + a) for a in amounts}
on_train = [table_loss(smooth[a], train_ids) for a in amounts]
on_val = [table_loss(smooth[a], val_ids) for a in amounts]
assert max(on_val[:7]) - min(on_val) < 0.03  # on new text, up to 1 is nearly the same
plots.lines(
    amounts,
    {"training": on_train, "held out": on_val},
    "Any small amount will do; a large one drowns the counts",
    xlabel="amount added to every count",
    ylabel="loss (nats per character)",
    log="x",
    ticks=amounts[::2],
)

# %% [markdown]
# On the text that was counted, smoothing can only harm. On new text it turns an infinite loss into a finite one, and
# from a thousandth to one the amount hardly matters. We take a tenth. (Notebook 07 shows a better way to smooth.)

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
# To see two characters we would need a table with 65 · 65 rows. To see ten, we would need this many:

# %%
print(f"{V**10:,} rows, and {len(train_ids):,} characters to fill them")


# %% [markdown]
# No text fills it. Larger models therefore do not count: they start with some numbers, measure the loss, and
# change the numbers so that it falls. Does that find the same as counting? Here we can check, since we know the
# answer.
#
# ## A slope to follow
#
# In which direction must a number be changed so that a loss falls? Take one number `w` and the loss (w - 5)². Move `w` a
# little up and a little down, and see what the loss does. The difference of the two losses, divided by the distance, is
# the *slope*:

# %%
def loss_at(w: float) -> float:
    return (w - 5) ** 2


epsilon = 0.001
slope_at_3 = (loss_at(3 + epsilon) - loss_at(3 - epsilon)) / (2 * epsilon)
print(f"slope at w = 3: {slope_at_3:.3f}")

# %% [markdown]
# This takes two looks at the loss for one number. Our table has 4,225 numbers, and each look would read the whole text.
# PyTorch finds all slopes in one go. It records each step by which `loss` was computed, and `backward()` goes through
# the record from its end to its beginning. This is called *backpropagation*, and [notebook 03b](03b_backpropagation.ipynb)
# builds it, in thirty lines. Here it is enough that the slope is the same:

# %%
w = torch.tensor(3.0, requires_grad=True)  # "record what is done with this"
loss = (w - 5) ** 2
loss.backward()
print("slope at w = 3:", w.grad.item())
assert abs(w.grad.item() - slope_at_3) < 1e-6

# %% [markdown]
# The slope is negative: the loss falls if `w` grows. So take a step against the slope, and again, and again. That is
# *gradient descent*, and 0.2 is the *learning rate*, which says how far a step goes. (The slopes of all numbers
# together are called the *gradient*; hence `grad`.)

# %%
for step in range(20):
    loss = (w - 5) ** 2
    w.grad = None  # forget the last slope, or the new one would be added to it
    loss.backward()
    with torch.no_grad():  # the step itself is not to be recorded
        w -= 0.2 * w.grad
    if step % 5 == 4:
        print(f"step {step + 1:2}: w = {w.item():.4f}")

# %% [markdown]
# It found the 5 without being told how to solve an equation.
#
# ## A table of weights
#
# Now we take 65 · 65 numbers in place of one, and call them *weights*. They may be anything, even negative; probabilities
# may not. What leads from one to the other is called *softmax*: take the exponential of each number in a row, which
# is positive, and divide by the sum of the row. The numbers that go in are called *logits*. (Adding 7 to each
# changes nothing: numerator and denominator grow by the same factor.)

# %%
logits = torch.tensor([2.0, 0.0, -1.0])
by_hand = logits.exp() / logits.exp().sum()
print([round(p, 3) for p in by_hand.tolist()])
assert torch.allclose(by_hand, logits.softmax(dim=0))
assert torch.allclose(by_hand, (logits + 7).softmax(dim=0))

# %% [markdown]
# The loss is the one we have: minus the logarithm of the probability of what really came. PyTorch computes it
# from the logits, under the name *cross-entropy*. With all weights 0 every character gets 1/65, so we know the first loss
# beforehand:

# %%
weights = torch.zeros(V, V, requires_grad=True)  # row i: logits of what follows character i
x, y = first[:5000], second[:5000]
logits = weights[x]  # (5000, V): for each character its row of the table
p = logits.softmax(dim=1)[torch.arange(5000), y]  # (5000,): from row t, the column y[t]
by_hand = -p.log().mean()
loss = F.cross_entropy(logits, y)
assert torch.allclose(loss, by_hand)
print(f"first loss {loss.item():.3f}, ln 65 = {math.log(65):.3f}")


# %% [markdown]
# And down we go. The training text is long, so each step looks at 32 random pieces of 64 characters, a *batch*.
# That is enough to tell roughly where down is. `flatten` turns the 32 rows into one long row of 2,048 pairs. And the
# learning rate? The 0.2 above was only a guess; let us try three:

# %% tags=["trained"]
def descend(learning_rate: float, steps: int = 200) -> list[float]:
    """The loss of each step, from a table of zeros."""
    weights = torch.zeros(V, V, requires_grad=True)
    batches = llmkit.Batches(train_ids, block_size=64, batch_size=32, seed=1337)
    losses = []
    for _ in range(steps):
        x, y = next(batches)  # (32, 64) each: y is x, one character further on
        loss = F.cross_entropy(weights[x].flatten(0, 1), y.flatten())  # (2048, V) and (2048,)
        weights.grad = None
        loss.backward()
        with torch.no_grad():
            weights -= learning_rate * weights.grad
        losses.append(loss.item())
    return losses


goal = table_loss(counted, train_ids)  # what counting reached on the training text
curves = {f"rate {rate}": descend(rate) for rate in (0.2, 2, 20)}

# %% tags=["trained"]
assert curves["rate 0.2"][-1] > 3.8  # hardly below ln 65
assert sum(curves["rate 20"][-20:]) / 20 < goal + 0.25
plots.lines(
    range(1, 201),
    curves | {"counting": [goal] * 200},
    "With a rate of 20 the loss comes close to what counting reached",
    xlabel="step",
    ylabel="loss (nats per character)",
)

# %% [markdown]
# With 0.2 it hardly moves, with 20 it comes close. The loss is a mean over 2,048 pairs, and only the pairs in its own row
# have anything to say about a weight. So its slope is small, and a small slope needs a large rate. The curve trembles,
# as each batch is another piece of text, and it gets slower. Will it arrive? The slope itself can tell.
#
# ## What the gradient says
#
# One pair first: after the character `i` came `j`. With the logits $z$ of row `i`, the loss is
#
# $$-\ln p_j = -\ln \frac{e^{z_j}}{\sum_m e^{z_m}} = \ln \sum_m e^{z_m} - z_j$$
#
# How does it change with one of the logits, $z_m$? The derivative of the logarithm of the sum is $e^{z_m}$ divided by the
# sum, which is $p_m$. And of the last term it is -1 for the character that came, 0 for every other. So the slope is
# $p_m - 1$ for what came and $p_m$ for the rest: **what was predicted minus what happened.**
#
# Over the whole text, average this. In row `i` it gives the prediction minus the *share* of each follower, which is the
# counted table, and the row weighs as much as its character has a share in the text. Is that what `backward()` finds?

# %%
weights = torch.randn(V, V, dtype=torch.float64, requires_grad=True)  # any weights will do
loss = F.cross_entropy(weights[first], second)  # all pairs of the training text
loss.backward()

share = counts.sum(dim=1, keepdim=True) / counts.sum()  # (V, 1): how often each first character
with torch.no_grad():
    formula = share * (weights.softmax(dim=1) - counted)  # (V, V)
assert torch.allclose(weights.grad, formula, atol=1e-9)
print("backward() and the formula agree to 9 decimals, for all", V * V, "weights")

# %% [markdown]
# So the gradient is zero where the prediction equals the counted table, and nowhere else: that table is the only goal that
# gradient descent can have. It never quite arrives, since softmax gives no exact 0 and most counts are 0; but it comes
# as close as we have patience for.
#
# The formula also shows why it was slow: the row of a rare character has a small share, and so takes tiny steps. Leave the
# share out, so that all rows move at the same pace, and take many steps. For this we need only the counts and no text:

# %%
logits = torch.zeros(V, V, dtype=torch.float64)  # from the start again
stages = {}
for step in range(3001):
    if step in (0, 2, 3000):
        stages[f"after {step} steps"] = logits.softmax(dim=1)
    slopes = logits.softmax(dim=1) - counted  # (V, V)
    logits -= 3 * slopes * seen[:, None]  # seen as a column (V, 1): rows without counts stay

learned = stages["after 3000 steps"]  # (V, V), rows that sum to 1
by_counting, by_descent = table_loss(counted, train_ids), table_loss(learned, train_ids)
largest = (learned - counted)[seen].abs().max().item()
print(f"training loss: counting {by_counting:.3f}, gradient descent {by_descent:.3f}")
print(f"largest difference between two probabilities: ≈ {largest:.5f}")
assert by_descent < by_counting + 0.005
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
# **Two ways, one answer.** Counting knows it at once. Gradient descent needs a loss and its slopes, and nothing else. So it
# can also train models for which nobody knows what to count.
#
# ## What we saw
#
# - A language model gives each possible next character a probability. Counted pairs, divided row by row,
#   are such a model.
# - The loss is the average of -ln p over what really came, in nats per character. Knowing nothing costs ln 65 ≈
#   4.17; one character of context brings it below 2.6 on held-out text.
# - A pair never seen makes the loss infinite. A little added to every count mends that.
# - The slope of a logit is what was predicted minus what happened. It vanishes only where the table is the counted one.
# - Gradient descent came within 0.005 nats of the training loss of counting, and within 0.001 of each probability.
#
# Both ways agree on a loss, and neither can go below it. What follows `h` depends on whether the `h` stands in
# `the` or in `oath`; who sees the `h` alone cannot know. Gradient descent needs no table that has a row for every
# case. But it needs slopes, and we have not seen how PyTorch finds 4,225 of them in one go. How that works, and a
# first model that sees several characters, is [notebook 03b](03b_backpropagation.ipynb).

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
# looking above.

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
# **6 · A slope by hand** (medium, 15 minutes). Measure a slope of the table as we did for `w`: move one weight by a
# small ε in both directions, and divide the difference of the two losses by the distance. Do it for `logits[i, j]` and
# the loss of the table `logits.softmax(dim=1)` on `ids`. The check compares it with the formula above.

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
