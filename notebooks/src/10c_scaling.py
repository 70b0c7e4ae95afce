# %% [markdown]
# # 10c · How much for how much
# *The loss of a run that nobody has made yet, predicted from a dozen small ones, and then tested.*

# %% [markdown]
# You have a machine for a week. You may train a large model briefly, or a small one for long, or something in between.
# Which will have the lowest loss, and how low will it be? Notebook 10b says what each run costs. What it *buys*
# nobody can compute beforehand, and with a week to spend there is no second try.
#
# But small runs are cheap. Perhaps their losses fall along a curve that one can follow further than one has been. We
# make a dozen of them, find the curve, say how far it can be trusted, predict a run four times as expensive as any of
# them, and only then make it.

# %%
import csv
import math
import statistics

import numpy as np
import torch

import llmkit
from llmkit import plots
from llmkit.data import packaged
from llmkit.scale import cost, laws

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (n,) each
V = tokenizer.vocab_size


def shape_of(width: int) -> llmkit.GPTConfig:
    """Two layers of so many features, in heads of 16 or so."""
    shape = dict(block_size=64, n_layer=2, n_head=max(1, width // 16), n_embd=width)
    return llmkit.GPTConfig(V, position="rotary", **shape)


# %% [markdown]
# ## One model, four lengths
#
# The recipe is that of notebooks 06 and 07: rotary positions, Muon, a batch of 8 windows. A step reads 8 × 64 = 512 tokens.
# Every run rises to the same learning rate, falls to zero at *its own* last step, and is then measured on all of
# the held-out text. Why its own? We come to that.

# %%
TOKENS = 8 * 64  # of a step


def trained(width: int, steps: int, watch: int | None = None) -> tuple[float, llmkit.History]:
    """The held-out loss of a run, and its history; watch: measure on the way, every so many steps."""
    torch.manual_seed(runtime.seed)
    model = llmkit.GPT(shape_of(width)).to(runtime.device)
    how = dict(batch_size=8, optimizer="muon", seed=runtime.seed, eval_every=watch)
    config = llmkit.TrainConfig(steps=steps, **how)
    history = llmkit.train(model, train_ids, val_ids if watch else None, config)
    return llmkit.evaluate(model, val_ids).loss, history


# %% tags=["trained"]
first = runtime.pick(cpu=50, gpu=100)  # steps of the shortest run
lengths = [first, 2 * first, 4 * first, 8 * first]
runs = {(32, steps): trained(32, steps)[0] for steps in lengths[:-1]}  # (width, steps): loss
runs[32, lengths[-1]], long_run = trained(32, lengths[-1], watch=first)
for steps in lengths:
    print(f"{steps * TOKENS:9,} tokens: loss ≈ {runs[32, steps]:.3f}")
gains = [runs[32, steps] - runs[32, 2 * steps] for steps in lengths[:-1]]
assert gains[0] > gains[1] > gains[2] > 0

# %% [markdown]
# Each doubling of the text brings something, and each brings less than the one before.
#
# Four runs for four points: is that not wasteful? The longest passes all the other lengths on its way, and we have measured
# it there. One run would give the whole curve:

# %% tags=["trained"]
on_the_way = dict(zip(long_run.eval_step, long_run.val_loss, strict=True))
own = [runs[32, steps] for steps in lengths]
passing = [on_the_way[steps] for steps in lengths]
for steps, one, other in zip(lengths[:-1], own, passing, strict=False):
    print(f"{steps * TOKENS:9,} tokens: its own run ≈ {one:.3f}, passing by ≈ {other:.3f}")
    assert other > one + 0.02
plots.lines(
    [steps * TOKENS for steps in lengths],
    {"passing by": passing, "runs of their own": own},
    "A run that is not at its end has not shown what it learned",
    xlabel="tokens read",
    ylabel="held-out loss (nats per character)",
    log="x",
    ticks=[steps * TOKENS for steps in lengths],
    points=True,
)

# %% [markdown]
# It would be the wrong curve. On its way the long run still takes large steps, and much of what it knows comes out only when
# the learning rate falls (notebook 06). **Points of a scaling law are runs that were planned for their length.** The
# same thing stands behind a famous correction: [Kaplan et al. 2020](https://arxiv.org/abs/2001.08361) found that most of
# a larger budget should go into size; [Hoffmann et al. 2022](https://arxiv.org/abs/2203.15556), who matched the schedule
# to the length of each run, that size and text should grow alike. (The schedule is one of several reasons. Others are
# the warmup, the optimizer's settings and how small models are counted:
# [Porian et al. 2024](https://arxiv.org/abs/2406.19146), [Pearce and Song 2024](https://arxiv.org/abs/2406.12907).)
#
# ## A curve with a floor
#
# How does it go on? If each doubling brought the loss down by the same *factor*, the loss would be a power of D, the tokens
# read, and would end at 0. It cannot. After `the ` there are many words that may come, and no model, however large,
# can know which. Part of the loss belongs to the text. So let it be a power of D above a floor:
#
# $$L(D) = E + \frac{B}{D^{\beta}}$$
#
# Such a curve is called a *power law*, here with an *irreducible* term E. Fitting it is easier than it looks. If someone
# told us β, then L would be a straight line over D^−β, with E where it starts. So we try many β:

# %% tags=["trained"]
D = np.array(lengths, dtype=float) * TOKENS  # (4,)


def power_law(D: np.ndarray, losses: list) -> tuple[float, float, float]:
    """beta, B and E with the least sum of squared residuals."""
    tried = []
    for beta in np.geomspace(0.05, 2, 100):
        B, E = np.polyfit(D**-beta, losses, deg=1)
        tried.append((((E + B * D**-beta - losses) ** 2).sum(), beta, B, E))
    return min(tried)[1:]


beta, B, E = power_law(np.array([1.0, 4, 16, 64]), [3.0, 2.0, 1.5, 1.25])
print(f"made up: beta {beta:.2f}, B {B:.2f}, E {E:.2f}")  # 1 + 2 / D ** 0.5
assert abs(E - 1) < 0.02
beta, B, E = power_law(D, own)
print(f"our four runs: beta ≈ {beta:.2f}, E ≈ {E:.2f}")
assert 0 < beta < 2

# %% [markdown]
# On made-up numbers it finds what they were made of. Of our own four runs it also says something; but three numbers can be
# bent to fit almost any four points. And a floor for *this* size of model is not what we are after. A larger
# one would have a lower floor.
#
# ## Three more sizes
#
# A model of N parameters falls short for two reasons: it is too small, and it has read too little. If these add up:
#
# $$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}$$
#
# That is the form of Hoffmann et al. For N we count what costs: the numbers in matrices that multiply, so that 6ND is
# exactly the "6ND" of notebook 10b. Sixteen runs, of four sizes and four lengths:

# %% tags=["trained"]
widths = (16, 24, 32, 48)
for width in widths:
    for steps in lengths[:-1] if width != 32 else ():
        runs[width, steps], _ = trained(width, steps)


def size(width: int) -> int:
    """N: without attention's scores, whose T we set to 0, a token costs 6N."""
    return cost.flops_per_token(shape_of(width), T=0) // 6


assert size(48) == 12 * 2 * 48**2 + V * 48
N = np.array([size(width) for width, _ in runs], dtype=float)  # (n,)
D = np.array([steps * TOKENS for _, steps in runs], dtype=float)  # (n,)
losses = np.array(list(runs.values()))  # (n,)
title = "Both a larger model and more text bring the loss down, less and less"
tokens = {f"N = {size(w):,}": [s * TOKENS for v, s in sorted(runs) if v == w] for w in widths}
curves = {f"N = {size(w):,}": [runs[v, s] for v, s in sorted(runs) if v == w] for w in widths}
plots.lines(
    tokens,
    curves,
    title,
    xlabel="tokens read",
    ylabel="held-out loss (nats per character)",
    log="x",
    ticks=[steps * TOKENS for steps in lengths],
    points=True,
)


# %% [markdown]
# The trick is the same with two exponents. Given both, E, A and B are a linear problem of three unknowns, and we try a grid of
# exponents. Only positive numbers make sense. `laws.fit` goes on downhill from such a grid, and should end no
# higher.

# %%
def least_squares(N, D, losses, exponents) -> tuple:
    """The least sum of squares, and its E, A, B, alpha and beta."""
    tried = []
    for alpha in exponents:
        for beta in exponents:
            columns = np.stack([np.ones(len(N)), N**-alpha, D**-beta], axis=1)  # (n, 3)
            E, A, B = np.linalg.lstsq(columns, losses)[0]
            squares = ((E + A * N**-alpha + B * D**-beta - losses) ** 2).sum()
            if min(E, A, B) > 0:
                tried.append((squares, E, A, B, alpha, beta))
    return min(tried)


# %% tags=["trained"]
squares, E, A, B, alpha, beta = least_squares(N, D, losses, np.geomspace(0.05, 2, 60))
scatter = math.sqrt(squares / (len(losses) - 5))
found = laws.fit(N, D, losses)
print(f"alpha ≈ {alpha:.2f}, beta ≈ {beta:.2f}, E ≈ {E:.2f} nats; scatter ≈ {scatter:.4f}")
print(f"llmkit's: alpha ≈ {found.law.alpha:.2f}, beta ≈ {found.law.beta:.2f}, E ≈ {found.law.E:.2f}")
assert found.scatter <= 1.001 * scatter
assert scatter < 0.05

# %% [markdown]
# *Scatter* is the usual distance of a run from the curve: the sum of squares is divided not by the number of runs but by five
# fewer, because five numbers were bent to fit them. Thousands of guesses, and sixteen losses between 2 and 3 lie on a
# surface of five numbers to within a hundredth of a nat or two.
#
# ## How sure may we be?
#
# Another seed would have given sixteen slightly different losses, and so another E, another alpha, another prediction. How
# different? To find out we would have to repeat the experiment many times. We cannot pay for that, but we can *replay*
# it: take the law for true, make up sixteen losses from it, each with an accident of the size of the scatter, fit
# them, predict a new run from them, and see by how much that is wrong. This is a *bootstrap* (Efron 1979). In a
# replay we know the truth, for we made it.

# %%
def replayed_errors(N, D, numbers, scatter, new_N, new_D, replays=100) -> list[float]:
    """How wrong each replay's prediction of a new run is, in units of the scatter it saw."""
    E, A, B, alpha, beta = numbers
    random, errors = np.random.default_rng(0), []
    for _ in range(replays):
        accidents = random.normal(0, scatter, len(N) + 1)
        made_up = E + A * N**-alpha + B * D**-beta + accidents[:-1]
        new = E + A * new_N**-alpha + B * new_D**-beta + accidents[-1]
        squares, e, a, b, x, y = least_squares(N, D, made_up, np.geomspace(0.05, 2, 12))
        error = new - (e + a * new_N**-x + b * new_D**-y)
        errors.append(error / math.sqrt(squares / (len(N) - 5)))
    return errors


# %% [markdown]
# The errors are counted in units of each replay's own scatter, as we know only ours and not the true one. What 90 of 100 replays
# stay within is our *interval*. It is laid about a run of four times the compute of any that we made. (`laws.fit` does the
# same with 400 replays and finer fits.)

# %% tags=["trained"]
budget = 4 * 6 * (N * D).max()  # FLOPs
new_N, new_D = found.law.best_size(budget)
expected = found.law(new_N, new_D)
errors = replayed_errors(N, D, (E, A, B, alpha, beta), scatter, new_N, new_D)
low, high = expected + scatter * np.quantile(errors, [0.05, 0.95])
print(f"by hand:   ≈ {expected:.3f}, from ≈ {low:.3f} to ≈ {high:.3f}")
low, _, high = found.predict(new_N, new_D)
print(f"laws.fit:  ≈ {expected:.3f}, from ≈ {low:.3f} to ≈ {high:.3f}")
assert low < expected < high

# %% [markdown]
# ## The best size for a budget
#
# `best_size` has chosen that run. Why this one? Of all N and D that cost the same, a small N lacks size and a large N lacks
# text, since nothing is left to pay for it. In between the loss is lowest, where one more percent of N would bring as
# much as one more percent of D (exercise 3 has the formula).

# %% tags=["trained"]
sizes = np.geomspace(new_N / 8, 8 * new_N, 41)
budgets = {"our largest run": budget / 4, "4 times": budget, "16 times": 4 * budget}
curves = {name: found.law(sizes, flops / 6 / sizes) for name, flops in budgets.items()}
for name, flops in budgets.items():
    best, text_read = found.law.best_size(flops)
    print(f"{name:16} N ≈ {best:9,.0f}, D ≈ {text_read:11,.0f}")
    assert curves[name].min() >= found.law(best, text_read) - 1e-9
plots.lines(
    sizes,
    curves,
    "For each budget there is a best size, and near it size hardly matters",
    xlabel="parameters N, at equal compute",
    ylabel="predicted loss (nats per character)",
    log="x",
)

# %% [markdown]
# Two things to take home from the picture. A larger budget wants a larger model *and* more text. And the valley is flat: half
# or double the best size costs little, so that the best size itself is never known well. (Ask for its interval:
# `found.best_size(budget)`.)
#
# ## The test
#
# Now the run that was not in the fit. We take the width that comes nearest to the best size, and what is left of the budget as
# text. First we write down what we expect. Then we train.

# %% tags=["trained"]
width = min(range(16, 129, 8), key=lambda w: abs(math.log(size(w) / new_N)))
new_N = size(width)
steps = max(1, round(budget / 6 / new_N / TOKENS))
new_D = steps * TOKENS
low, expected, high = found.predict(new_N, new_D)
print(f"≈ {width} wide, ≈ {steps} steps: expected ≈ {expected:.3f}, from ≈ {low:.3f} to ≈ {high:.3f}")

# %% tags=["trained"]
measured, _ = trained(width, steps)
print(f"measured: ≈ {measured:.3f}; the lowest loss of the fit was ≈ {losses.min():.3f}")
assert low < measured < high
assert measured < losses.min() - 0.03

# %% [markdown]
# It is where it was expected: far below all that the fit had seen, and inside the interval.
#
# ## The same on a wider grid, and on two texts
#
# Once may be luck. `benchmarks/scaling.py` did the same with five sizes, four lengths up to 400,000 tokens and three seeds, on the
# play and on Tiny Shakespeare, and had four times the compute for its held-back run. Its runs come with llmkit, in `data/scaling.csv`
# (data/README.md says when and on what they were made). The learning rate was chosen before, on a slice of the
# training split, at both ends of the grid. Seeds are averaged: three runs of one size and length are one point.

# %%
with open(packaged("scaling.csv"), encoding="utf-8", newline="") as file:
    table = list(csv.DictReader(file))


def points(corpus: str, kind: str) -> np.ndarray:
    """N, D and the seeds' mean loss, (3, cells)."""
    found = {}
    for row in table:
        if (row["corpus"], row["kind"]) == (corpus, kind):
            found.setdefault((int(row["N"]), int(row["D"])), []).append(float(row["loss"]))
    return np.array([(N, D, statistics.mean(losses)) for (N, D), losses in found.items()]).T


# %%
fits = {}
for corpus in ("embedded", "tiny_shakespeare"):
    fits[corpus] = laws.fit(*points(corpus, "grid"))
    law = fits[corpus].law
    [[N], [D], [measured]] = points(corpus, "held back")
    low, expected, high = fits[corpus].predict(N, D)
    print(f"{corpus}: E {law.E:.2f}, alpha {law.alpha:.2f}, beta {law.beta:.2f}")
    print(f"  held back: N = {N:,.0f}, D = {D:,.0f}")
    print(f"  expected {expected:.3f} ({low:.3f} to {high:.3f}), measured {measured:.3f}")
    assert low < measured < high

# %%
[[N], [D], [measured]] = points("tiny_shakespeare", "held back")
law = fits["tiny_shakespeare"].law
grid_N, grid_D, grid_losses = points("tiny_shakespeare", "grid")
compute, curves = {}, {}
for n in np.unique(grid_N):
    own = grid_N == n
    compute[f"N = {n:,.0f}"], curves[f"N = {n:,.0f}"] = 6 * n * grid_D[own], grid_losses[own]
path = np.geomspace(compute["N = 26,656" if "N = 26,656" in compute else next(iter(compute))][0], 6 * N * D, 40)
