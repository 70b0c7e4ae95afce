# %% [markdown]
# # 06 · Training
# *Hundreds of small corrections, one after the other, turn guesses into text.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/06_training.ipynb)
#
# About 39 minutes to read, exercises aside.
#
# ← [05b · Positions and norms](05b_positions_and_norms.ipynb) · [07 · Perplexity](07_perplexity.ipynb) →

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
# A model with fresh weights knows nothing: it gives each of our 65 characters about the same chance. Its *loss*, the
# average of −ln p over the characters that really come, is then about ln 65 *nats* (the unit, when the logarithm is the
# natural one). Notebook 05 ended there. What exactly has to be done, how often, and in what order, so that a hundred
# thousand random numbers become a model of a play? And how would we notice that it has begun to learn the wrong thing?

# %%
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots, widgets

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# Here is the plan. We go through the boxes from left to right, and then through the lower row.

# %%
drawings.training_loop()

# %% [markdown]
# `new_model` makes the same first weights each time, so that two runs differ only in what we change between them.

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))  # (N,) each: the first 90 %, the rest
V = tokenizer.vocab_size


def new_model(**changes) -> llmkit.GPT:
    """A GPT with the same first weights each time."""
    torch.manual_seed(runtime.seed)
    shape = dict(vocab_size=V, block_size=64, n_layer=2, n_head=4, n_embd=64, position="rotary")
    return llmkit.GPT(llmkit.GPTConfig(**shape | changes)).to(runtime.device)


# %%
model = new_model()
print(f"{model.num_parameters():,} parameters, {V} characters to choose from")
first_loss = llmkit.evaluate(model, val_ids[:10_000]).loss
print(f"first loss ≈ {first_loss:.3f} nats; a blind guess costs ln {V} = {math.log(V):.3f}")
assert abs(first_loss - math.log(V)) < 0.15

# %% [markdown]
# ## What to look at: batches
#
# The model reads a window of at most 64 *tokens*, which here are characters. At every position of the window it says
# what comes next, and the text itself knows the answer: it is the same window, moved on by one. So one window gives 64
# exercises at once.

# %%
T = 16  # a short window, to see it whole
x, y = train_ids[:T], train_ids[1 : T + 1]  # (T,), (T,)
print("x", plots.visible(tokenizer.decode(x)))
print("y", plots.visible(tokenizer.decode(y)))
for t in (0, 1, 5):
    seen, wanted = tokenizer.decode(x[: t + 1]), tokenizer.decode(y[t])
    print(f"after {plots.visible(seen)!r} comes {plots.visible(wanted)!r}")

# %% [markdown]
# One window is about a quarrel, the next about the weather, and corrections from one alone would contradict each other.
# So a *batch* of windows is taken from random positions in the text, and their losses are averaged.
#
# Which positions does a batch need? For each window, its start and the ones after it. PyTorch adds a column and a row
# by repeating each until the shapes agree, which is called *broadcasting*. Two windows of three tokens:

# %%
starts = torch.tensor([[10], [50]])  # (2, 1): a column, where each window starts
print(starts + torch.arange(3))  # (2, 1) + (3,) = (2, 3): row by row the positions of a window

# %% [markdown]
# Indexing the ids with that table cuts out all windows at once, with no loop over the rows:

# %%
generator = torch.Generator().manual_seed(0)  # its random numbers are used for nothing else


def get_batch(ids: torch.Tensor, block_size: int, batch_size: int) -> tuple:
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)  # (B, 1)
    positions = starts + torch.arange(block_size)  # (B, 1) + (T,) = (B, T)
    return ids[positions], ids[positions + 1]  # (B, T) each


x, y = get_batch(train_ids, block_size=64, batch_size=32)
print("x", tuple(x.shape), "y", tuple(y.shape))
batches = llmkit.Batches(train_ids, block_size=64, batch_size=32, seed=0)  # llmkit's: the same rows
assert all(torch.equal(a, b) for a, b in zip((x, y), next(batches), strict=True))

# %% [markdown]
# ## What to change: one step
#
# The *gradient* of the loss says, for each weight, how the loss would change if that weight grew a little. To lower the
# loss, move each weight the other way, by a small multiple of its gradient. That multiple is the *learning rate*. We
# try 0.3 here; how to choose it comes later.

# %%
x, y = (part.to(runtime.device) for part in next(batches))
learning_rate = 0.3
loss = model.loss(x, y)
loss.backward()  # fills .grad of every parameter
with torch.no_grad():  # the correction itself is not to be differentiated
    for parameter in model.parameters():
        parameter -= learning_rate * parameter.grad
        parameter.grad = None  # or the next gradient would be added to this one
after = model.loss(x, y)
print(f"loss of this batch ≈ {loss.item():.3f} before, ≈ {after.item():.3f} after one step")
assert after < loss


# %% [markdown]
# That is *gradient descent*, and it works. It has one weakness, which a valley shows best. Take two weights, and let
# the height depend on the first a thousand times as strongly as on the second:

# %%
def valley(w: torch.Tensor) -> torch.Tensor:
    return (1000 * w[0] ** 2 + w[1] ** 2) / 2  # steep along the first weight, flat along the second


def descend(optimizer_of, steps: int = 100) -> list[float]:
    """The heights on the way down from (1, 1)."""
    w = torch.ones(2, requires_grad=True)
    optimizer, heights = optimizer_of([w]), []
    for _ in range(steps):
        loss = valley(w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        heights.append(loss.item())
    return heights


# %% [markdown]
# Go down twice by plain descent (PyTorch calls it `SGD`), at two rates that hardly differ, and once by *Adam*, which is
# explained below.

# %%
heights = {
    "plain, rate 0.0021": descend(lambda w: torch.optim.SGD(w, lr=0.0021)),
    "plain, rate 0.0018": descend(lambda w: torch.optim.SGD(w, lr=0.0018)),
    "Adam, rate 0.05": descend(lambda w: torch.optim.Adam(w, lr=0.05, betas=(0.9, 0.95))),
}
thrown, slow, adam = (height[-1] for height in heights.values())
assert thrown > 1000 > slow > adam
plots.lines(
    range(1, 101),
    heights,
    "One rate: too large for one weight, too small for the other",
    xlabel="step",
    ylabel="height in the valley",
    log=True,
)

# %% [markdown]
# At a rate of 0.0021 the steep weight is thrown from wall to wall, each time higher. At 0.0018 it settles, but the flat
# weight creeps. What one weight can bear is too little for the other. Adam overshoots, swings back, and after some
# eighty steps stays below. Is that luck, a rate that happens to suit? Try others, and also PyTorch's own `betas`:

# %%
print(f"plain descent, rate 0.0018:     height {slow:.3f}")
for betas in ((0.9, 0.95), (0.9, 0.999)):
    for rate in (0.02, 0.05, 0.1):
        height = descend(lambda w, r=rate, b=betas: torch.optim.Adam(w, lr=r, betas=b))[-1]
        print(f"Adam, betas {betas}, rate {rate:4}: height {height:.3f}")
        assert height < slow / 5


# %% [markdown]
# Adam ([Kingma and Ba 2015, *Adam: A Method for Stochastic Optimization*](https://arxiv.org/abs/1412.6980)) gives every
# weight a step of its own. It keeps two running averages for each: `m` of its gradient, and `v` of its gradient
# squared. The two betas say how much of the old average stays at each step. The first average, divided by the root of
# the second, is near 1 or −1 where the gradients agree and near 0 where they cancel, whatever their size.

# %%
def adam_step(w, gradient, m, v, step, lr=0.1, beta1=0.9, beta2=0.95):
    """One update of w; m and v are the averages (all of w's shape), step counts from 1."""
    m += (1 - beta1) * (gradient - m)  # a running average of the gradient
    v += (1 - beta2) * (gradient**2 - v)  # and of its square
    m_hat = m / (1 - beta1**step)  # m began at 0, and so is too small at first
    v_hat = v / (1 - beta2**step)  # so is v
    w -= lr * m_hat / (v_hat.sqrt() + 1e-8)  # 1e-8: never divide by zero


# %%
ours, m, v = torch.ones(2), torch.zeros(2), torch.zeros(2)
theirs = torch.ones(2, requires_grad=True)
optimizer = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.95))
for step in range(1, 21):
    optimizer.zero_grad()
    valley(theirs).backward()
    adam_step(ours, theirs.grad, m, v, step)
    optimizer.step()
print("ours  ", ours)
print("theirs", theirs.data)
assert torch.allclose(ours, theirs.data, atol=1e-6)


# %% [markdown]
# Both weights have become the same, though one matters a thousand times as much: Adam divides the steepness away.
#
# We use *AdamW* ([Loshchilov and Hutter 2019, *Decoupled Weight Decay
# Regularization*](https://arxiv.org/abs/1711.05101)), which adds one thing. In each step it also pulls every weight a
# little towards zero, apart from the gradient: the *weight decay*, the W of the name. Exercise 5 builds it.
#
# ## How far: the learning rate
#
# Adam still needs a learning rate, and much depends on it. Rather than believe a tutorial's, try some: thirty steps
# from the same first weights on the same batches, each rate about three times the one before.

# %%
def loss_after(learning_rate: float, steps: int = 30) -> float:
    """The loss after some steps at one learning rate (the mean of the last five)."""
    config = llmkit.TrainConfig(
        steps=steps, batch_size=16, learning_rate=learning_rate, warmup=0, min_lr_ratio=1.0
    )
    return sum(llmkit.train(new_model(n_layer=1), train_ids, config=config).loss[-5:]) / 5


# %%
rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
losses = [loss_after(rate) for rate in rates]
best = min(range(len(rates)), key=losses.__getitem__)
assert 0 < best < len(rates) - 1  # the best lies inside, not at an edge of what we tried
plots.bars(
    [f"{rate:g}" for rate in rates],
    losses,
    "Too timid and too bold: both stay behind",
    xlabel="loss after 30 steps (nats per character)",
    ylabel="learning rate",
    highlight=f"{rates[best]:g}",
    fmt="{:.2f}",
)


# %% [markdown]
# But need one rate be best for a whole run? At the very start Adam's averages rest on a few noisy batches, so it seems
# wise to begin with short steps: *warmup*. Towards the end the model is near a good state, and long steps swing around
# it as they did in the valley, so let them become shorter: *decay*. Between the two lies the *peak*. (Weight decay is
# another thing.)

# %%
def learning_rate_at(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Up in a line, then down along half a cosine wave, to `final` times the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (steps - 1 - warmup)  # from 0 to 1
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


# %%
steps = 300
schedule = [learning_rate_at(step, steps, peak=3e-3, warmup=15, final=0.1) for step in range(steps)]
plots.lines(
    range(steps),
    {"our schedule": schedule},
    "Short steps first, bold ones early, fine ones at the end",
    xlabel="step",
    ylabel="learning rate",
)

# %% [markdown]
# ## How far at most: clipping
#
# Now and then a batch is odd, and its gradient many times as long as usual. In plain descent that is a leap; in Adam it
# outweighs everything else in the averages for many steps. *Clipping* looks at the length of the whole gradient, all
# parameters taken as one vector. Where it is longer than 1 it is shortened to 1; its direction stays.

# %%
model = new_model()
x, y = (part.to(runtime.device) for part in next(batches))
(50 * model.loss(x, y)).backward()  # as if this batch were fifty times as odd as it is
before = torch.cat([p.grad.flatten() for p in model.parameters()])
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
after = torch.cat([p.grad.flatten() for p in model.parameters()])
print(f"length ≈ {before.norm():.1f} before, {after.norm():.2f} after")
assert torch.allclose(after, before / before.norm(), atol=1e-5)  # the same direction

# %% [markdown]
# ## Do they help?
#
# Warmup, decay and clipping sound reasonable. So do many things that turn out to be worth nothing. Train with all
# three, then leave out one at a time: 150 steps, one layer, at the bold peak of 0.01, measured on held-out text.

# %%
everything = llmkit.TrainConfig(steps=150, batch_size=16, learning_rate=0.01, eval_every=150)
recipes = {
    "all three": everything,
    "no warmup": replace(everything, warmup=0),
    "no clipping": replace(everything, grad_clip=1e9),
    "no decay": replace(everything, min_lr_ratio=1.0),
    "all three, a third of the rate": replace(everything, learning_rate=0.003),
}
results = {
    name: llmkit.train(new_model(n_layer=1), train_ids, val_ids[:6000], config).val_loss[-1]
    for name, config in recipes.items()
}

# %% tags=["trained"]
bold, no_warmup, no_clipping, no_decay, third = results.values()
assert min(no_warmup, no_clipping) > third > bold - 0.02
assert no_decay < bold + 0.02
plots.bars(
    list(results),
    list(results.values()),
    "Warmup and clipping pay at a bold rate, decay not yet",
    xlabel="held-out loss after 150 steps (nats per character)",
    highlight="all three",
    fmt="{:.2f}",
)


# %% [markdown]
# Without warmup or without clipping, the bold rate does worse than a third of it. With both it does as well or better.
# Decay does not pay here: after 150 steps the model is still far from a good state, and shorter steps slow it down. It
# gets another chance below.

# %% [markdown]
# ## The loop
#
# That is everything. A batch, a loss, a gradient, clipped, a step at the rate that the schedule says; and again.
# Parameters with two dimensions, the matrices, get weight decay; biases and the like, with one, do not.

# %%
def make_optimizer(model) -> torch.optim.Optimizer:
    """AdamW, which pulls the matrices of a model towards zero and leaves its vectors alone."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


# %%
def train_in_the_open(model, ids, steps, batch_size, peak) -> list[float]:
    """The training loop with nothing left out; the loss of every step."""
    batches = llmkit.Batches(ids, model.config.block_size, batch_size, device=runtime.device)
    optimizer, losses = make_optimizer(model), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, peak, warmup=steps // 20, final=0.1)
        x, y = next(batches)  # (B, T) each
        loss = model.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
model = new_model()
losses = train_in_the_open(model, train_ids, steps=40, batch_size=16, peak=3e-3)
print(f"loss ≈ {losses[0]:.3f} at first, ≈ {losses[-1]:.3f} after {len(losses)} steps")
assert losses[-1] < losses[0] - 0.5

# %% [markdown]
# **Training is this loop; everything else is knowing when to stop and what to keep.** `llmkit.train` is the same loop
# with the keeping added. From the same first weights, on the same batches, every weight comes out alike:

# %%
config = llmkit.TrainConfig(steps=40, batch_size=16, learning_rate=3e-3, dtype="float32")
twin = new_model()
history = llmkit.train(twin, train_ids, config=config)
near = runtime.pick(cpu=1e-4, gpu=1e-2)  # a GPU may add up in another order each time
for a, b in zip(model.parameters(), twin.parameters(), strict=True):
    assert torch.allclose(a, b, atol=near)
print(f"all {twin.num_parameters():,} weights agree")

# %% [markdown]
# ## Dropout, and two modes
#
# One part of a model behaves differently while it trains. *Dropout* ([Srivastava and others
# 2014](https://jmlr.org/papers/v15/srivastava14a.html)) sets a random share of the numbers inside the model to zero in
# each step, so that nothing can rely on one number alone; the rest is made larger, to keep the average. When the model
# is measured or writes, dropout must be off: `model.train()` and `model.eval()` switch it.

# %%
dropout, ones = torch.nn.Dropout(0.5), torch.ones(10_000)
left = dropout.train()(ones)
print(f"in training: the numbers {left.unique().tolist()}, {left.mean():.1f} on average")
print(f"in use:      the numbers {dropout.eval()(ones).unique().tolist()}")

# %% [markdown]
# ## A real run
#
# Now for longer, with the two things one wants to see: the loss on text that the model is *not* trained on (all of the
# validation split), and a sample of what it writes. A *callback*, a function that is called after each step, may look
# at the run: `Sampler` lets the model write now and then, `LivePlot` draws the picture below while the model learns.
#
# One thing we change. Adam treats a matrix as a heap of single numbers. A layer uses it as a whole: it maps directions
# to directions, and a gradient is often strong along a few of them only. *Muon* ([Jordan and others
# 2024](https://kellerjordan.github.io/posts/muon/)) makes its step equally long in every direction (exercise 7).
# Embeddings, biases and the like stay with AdamW. Muon's learning rate is on another scale; 0.04 suits us.

# %%
budget = runtime.pick(
    cpu=dict(steps=300, batch_size=16, learning_rate=0.04),
    gpu=dict(steps=800, batch_size=64),
)
large = dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2)
shape = runtime.pick(cpu=dict(), gpu=large)
model = new_model(**shape)
sixth = math.ceil(budget["steps"] / 6)
config = llmkit.TrainConfig(**budget, optimizer="muon", eval_every=sixth)

# %% tags=["nbval-ignore-output", "sampled-text"]
sampler = llmkit.Sampler(tokenizer, every=sixth, prompt="\n", tokens=150)
live = widgets.LivePlot("Both losses fall together: what it learns holds on new text")
history = llmkit.train(model, train_ids, val_ids, config, callbacks=[sampler, live])

# %% tags=["trained"]
print(f"{history.tokens[-1]:,} tokens seen in {history.step[-1]:,} steps")
print(f"validation loss ≈ {history.val_loss[-1]:.3f} nats, before training ≈ {first_loss:.3f}")
assert history.val_loss[-1] < runtime.pick(cpu=1.75, gpu=1.6)

# %% [markdown]
# What it writes changes as much. The shape of a play comes first: line ends, capitals, colons. Then more and more of the
# words are words. Sense comes last, and needs a larger model or a longer run.

# %% tags=["nbval-ignore-output", "sampled-text"]
for step, sample in history.samples[::2]:  # each begins on a new line
    print(f"--- after step {step}\n{sample}")

# %% [markdown]
# What did Muon gain, and what does decay do now? Three runs with one layer: AdamW at its bold rate, Muon at a constant
# rate, and Muon with a rate that falls in a line to zero, which is llmkit's default for it.

# %%
short = dict(steps=200, batch_size=16, eval_every=40)
muon = llmkit.TrainConfig(**short, optimizer="muon", learning_rate=0.04)
contest = {
    "AdamW": llmkit.TrainConfig(**short, learning_rate=0.01),
    "Muon, constant": replace(muon, min_lr_ratio=1.0),
    "Muon, decay": muon,
}
runs = {
    name: llmkit.train(new_model(n_layer=1), train_ids, val_ids[:6000], config)
    for name, config in contest.items()
}

# %% tags=["trained"]
adamw, constant, falling = (run.val_loss for run in runs.values())
assert falling[-1] + 0.02 < constant[-1] < adamw[-1] - 0.04
assert abs(falling[0] - constant[0]) < 0.05  # after 40 steps
plots.loss_curves(runs, "Muon learns faster, and a falling rate wins at the end", by="step")

# %% [markdown]
# At first the two lower curves run together, then the one with the falling rate pulls ahead: same model, same batches,
# shorter steps.
#
# ## Saving, stopping, going on
#
# A model is its weights, its shape, and the tokenizer without which its numbers mean nothing. All three go into one
# folder.

# %%
folder = Path(tempfile.mkdtemp()) / "model"
llmkit.checkpoint.save(folder, model, tokenizer)
for file in sorted(folder.iterdir()):
    print(file.name)
loaded, its_tokenizer = llmkit.checkpoint.load(folder, device=runtime.device)
x = val_ids[None, :32].to(runtime.device)  # (1, T)
model.eval()  # as the loaded one is: no dropout
assert torch.equal(loaded(x), model(x))

# %% [markdown]
# To *go on* with an interrupted run, weights are not enough. Adam's averages, the step in the schedule, the random
# numbers behind batches and dropout: begin any of these anew and it is another run. A *checkpoint* holds them too. The
# proof is a run that stops half way and is continued from the folder, against one that never stopped:

# %%
config = llmkit.TrainConfig(steps=30, batch_size=8, learning_rate=3e-3)
whole = new_model(n_layer=1, dropout=0.1)
llmkit.train(whole, train_ids, config=config)


def stop_half_way(run):
    if run.step == 15:
        run.stop = "as agreed"


keep = llmkit.Checkpointer(folder, tokenizer)  # saves at the end, wherever that is
halved = new_model(n_layer=1, dropout=0.1)
history = llmkit.train(halved, train_ids, config=config, callbacks=[stop_half_way, keep])
print("stopped after step", history.step[-1], "-", history.stopped)

# %%
resumed, _ = llmkit.checkpoint.load(folder, device=runtime.device)
state = llmkit.checkpoint.load_state(folder)
history = llmkit.train(resumed, train_ids, config=config, resume=state)
print("went on to step", history.step[-1])
same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
print("every bit of every weight the same:", same)
assert same or runtime.pick(cpu=False, gpu=True)  # a GPU may add in another order

# %% [markdown]
# ## Learning by heart
#
# Now let us do it wrong. Some tutorials train for thousands of passes over a single play and show a wonderful training
# loss. Take a *short* text, let the model read it again and again, and watch both losses.

# %%
if runtime.pick(cpu=True, gpu=False):
    reader, little, held_out = tokenizer, train_ids[:3000], val_ids[:6000]  # a page or two
else:
    caesar = llmkit.load_text("julius_caesar")  # a whole play, as the tutorials do it
    reader = llmkit.CharTokenizer.from_text(caesar)
    little, held_out = llmkit.split(reader.encode(caesar))

budget = runtime.pick(
    cpu=dict(steps=200, batch_size=16, learning_rate=0.04),
    gpu=dict(steps=2000, batch_size=64),
)
shape = runtime.pick(cpu=dict(), gpu=dict(n_layer=6, n_head=6, n_embd=384))

# %%
model = new_model(vocab_size=reader.vocab_size, **shape)
config = llmkit.TrainConfig(**budget, optimizer="muon", eval_every=20)
history = llmkit.train(model, little, held_out, config)
print(f"{len(little):,} characters, read {history.tokens[-1] / len(little):.0f} times")

# %% tags=["trained"]
last, best = history.val_loss[-1], history.best_val_loss
memorised = sum(history.loss[-5:]) / 5  # batches differ: the mean of the last five
print(f"training loss   ≈ {memorised:.3f}")
print(f"validation loss ≈ {last:.3f}, at its best ≈ {best:.3f} after step ≈ {history.best_step}")
assert memorised < 0.5
assert last > best + 1

# %%
plots.loss_curves(
    history, "After the ring it gets better on its pages, worse on new text", by="step"
)


# %% [markdown]
# This is *overfitting*. Up to the ringed point both curves fall: what is learned holds on new text as well. From there
# on only the training loss falls: the model learns its pages by heart. Is that true, or a figure of speech? Let it
# write:

# %% tags=["nbval-ignore-output", "sampled-text"]
def write(model, characters: int = 400) -> str:
    ids = llmkit.generate(model, reader.encode("\n"), characters, temperature=0.8, seed=1)
    return reader.decode(ids)


written = write(model)
print(written[:200])


# %% [markdown]
# Are these its own words? Look up every stretch of ten characters: does it stand in the pages?

# %%
def share_copied(written: str, source: str, length: int = 10) -> float:
    """The share of a text's stretches of that length which stand in the source too."""
    pieces = [written[i : i + length] for i in range(len(written) - length)]
    return sum(piece in source for piece in pieces) / len(pieces)


pages = reader.decode(little)
copied = share_copied(written, pages)
usual = share_copied(reader.decode(held_out), pages)  # what the rest of the play shares with them
print(f"in the pages ≈ {copied:.1%} of what it wrote, ≈ {usual:.1%} of the held-out text")

# %% tags=["trained"]
assert copied > 0.4
assert copied > 5 * usual

# %% [markdown]
# It recites. A low training loss, then, says nothing by itself. What helps? More text, above all. Failing that: stop
# when the validation loss has not fallen for some measurements (`patience`), return to the weights of the ring
# (`keep_best`), and use dropout.

# %%
careful = replace(config, patience=3, keep_best=True)  # the same, but for these two
model = new_model(vocab_size=reader.vocab_size, **shape, dropout=0.2)
history = llmkit.train(model, little, held_out, careful)
kept = llmkit.evaluate(model, held_out).loss
copies = share_copied(write(model), pages)
print(f"after step ≈ {history.step[-1]} of {careful.steps}: {history.stopped}")
print(f"validation loss of the weights kept ≈ {kept:.3f}; copied ≈ {copies:.1%}")
assert math.isclose(kept, history.best_val_loss, abs_tol=1e-3)

# %% tags=["trained"]
assert history.stopped
assert kept < last - 1
assert copies < copied / 2

# %% [markdown]
# ## To look up later
#
# Four things that you will meet in other code. You can skip them now.
#
# **Batches larger than the memory.** A gradient that is not emptied is added to, and here that is what we want: a batch
# of 32 windows is four of 8, one after the other, with a quarter of each loss. This is *gradient accumulation*.

# %%
whole, parts = new_model(), new_model()
x, y = (part.to(runtime.device) for part in next(batches))  # (32, 64) each
whole.loss(x, y).backward()
for rows in torch.arange(32).split(8):
    (parts.loss(x[rows], y[rows]) / 4).backward()  # adds to .grad
for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
    assert torch.allclose(a.grad, b.grad, atol=1e-4)
print("one batch of 32, or four of 8: the same gradient")


# %% [markdown]
# Each pass needs the memory of 8 windows only. In llmkit that is
# `TrainConfig(batch_size=8, gradient_accumulation_steps=4)`.
#
# **Half as many bits.** On a GPU most of the arithmetic is done with 16 bits instead of 32 (*mixed precision*), which
# is faster and takes less memory; the weights keep 32. `TrainConfig(dtype=...)` chooses, and by default follows the
# device. The older spelling `torch.cuda.amp.autocast()` still runs but warns; today it is `torch.autocast("cuda",
# dtype=...)`.
#
# **`Dataset` and `DataLoader`.** PyTorch's general way to make batches: the first says how many examples there are and
# what the i-th one is, the second shuffles their numbers, fetches them one by one and stacks them.

# %%
class Windows(torch.utils.data.Dataset):
    def __init__(self, ids: torch.Tensor, block_size: int):
        self.ids, self.block_size = ids, block_size

    def __len__(self) -> int:
        return len(self.ids) - self.block_size

    def __getitem__(self, i: int) -> tuple:
        return self.ids[i : i + self.block_size], self.ids[i + 1 : i + 1 + self.block_size]


# %%
loader = torch.utils.data.DataLoader(Windows(train_ids, 64), batch_size=32, shuffle=True)
x, y = next(iter(loader))
print("x", tuple(x.shape), "y", tuple(y.shape), "from", f"{len(loader.dataset):,} windows")

# %% [markdown]
# For images or files on a disk it is the right tool. For ids in memory it is a detour: every row costs a call into
# Python. (Some code even tokenizes inside `__getitem__`, again in each epoch. Tokenize once, before.)
#
# **Two faults of schedules.** Neither stops the program. One is a schedule made for 300 steps that moves on only when
# an *epoch* ends, a pass over all the data, of which there may be three. The other is a lowest rate, the *floor*, that
# lies above the peak:

# %%
first, last = (learning_rate_at(epoch, 300, peak=3e-3, warmup=0, final=0.1) for epoch in (0, 2))
print(f"moved on by epochs: from {first:.4f} to {last:.4f}, it never falls")
first, last = (learning_rate_at(s, 300, peak=3e-4, warmup=0, final=1e-3 / 3e-4) for s in (0, 299))
print(f"floor above peak:   from {first:.4f} to {last:.4f}, it 'decays' upwards")
try:
    llmkit.TrainConfig(min_lr_ratio=1e-3 / 3e-4)
except ValueError as error:
    print("llmkit:", error)

# %% [markdown]
# In llmkit the schedule counts steps, and its floor is a share of the peak. To catch such faults in any code, print the
# first and the last rate of a run, as here.
#
# ## What we saw
#
# - A batch is windows from random positions; a window of 64 is 64 exercises at once.
# - One learning rate for all weights is too large for some and too small for others. Adam gives each its own.
# - At a bold rate warmup and clipping paid, and decay did not; with Muon decay paid too. Whether a habit helps depends
#   on the run, so measure it.
# - The loop fits on half a page, and llmkit's gives the same weights. Stopped and resumed it gives them to the last
#   bit, since the state of optimizer and random numbers is saved too.
# - The training loss cannot tell learning from learning by heart. Only text that was held out can.
#
# One question is left: a validation loss of so many nats, is that good? Compared with what? And measured on how much
# text, with which windows? That is notebook [07](07_perplexity.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Tokens seen** (easy, 2 minutes). Predict, with no computer but a pocket calculator: how many tokens does a run
# with `TrainConfig(steps=2000, batch_size=12, gradient_accumulation_steps=4)` see, in windows of 64? How many times is
# that a text of 100,000 tokens?

# %% tags=["exercise"]
tokens_seen = None  # your answer: (tokens seen, times the text was read, with two decimals)

# %%
check("06.tokens_seen", tokens_seen)

# %%
hint("06.tokens_seen")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · Running away** (easy, 3 minutes). Somebody types a learning rate of `1e30`, without warmup. Clipping is on.
# Predict what `llmkit.train` does, and what it leaves in the model; then try it.
#
# - a. It trains to the end, because clipping keeps every step short.
# - b. It raises an error, and the weights are all nan (not a number).
# - c. It raises an error, and the weights are finite, but of no use.
# - d. It raises an error, and the weights are those from before the run.

# %% tags=["exercise"]
runaway = None  # your answer: "a", "b", "c" or "d"

# %%
check("06.runaway", runaway)


# %% [markdown]
# **3 · Early stopping** (medium, 8 minutes). A run measures its validation loss again and again, and stops when
# `patience` measurements in a row have brought no new best. Given what they would all be, after which measurement does
# it stop, and which one was best? Count from 1. For `[3, 2, 2.1, 2.2, 2.3]` and a patience of 3 the answer is `(5, 2)`.

# %% tags=["exercise"]
def early_stop(val_losses: list[float], patience: int) -> tuple[int, int]:
    """After which measurement the run stops (or ends), and which was the best."""


# %%
check("06.early_stop", early_stop)


# %% [markdown]
# **4 · A trapezoid** (medium, 8 minutes). Write a schedule that rises like ours, stays at its peak, and falls in a line
# over the last `steps // 5` steps, to zero at the last one. It returns the share of the peak, as
# `llmkit.optim.lr_schedule` does. (Such a run can be made longer without starting again: the flat part does not know
# where the end is.)

# %% tags=["exercise"]
def trapezoid(step: int, steps: int, warmup: int) -> float:
    return llmkit.optim.lr_schedule(step, steps, warmup)


# %%
check("06.trapezoid", trapezoid)


# %% [markdown]
# **5 · The W of AdamW** (medium, 10 minutes). Make AdamW of `adam_step`: pull each weight towards zero by `lr * decay`
# times itself, and let neither average see it. Betas are 0.9 and 0.95. Give back new tensors: the weights and both
# averages.

# %% tags=["exercise"]
def adamw_step(w, gradient, m, v, step, lr, decay) -> tuple:
    """w, gradient, m, v (N,) each; step counts from 1 -> w, m, v after the step."""


# %%
check("06.adamw_step", adamw_step)


# %% [markdown]
# **6 · Repair it** (medium, 15 minutes). This loop runs, and its loss falls. Five things are wrong with it; one of them
# makes the result look better than it is. `model` is any module that turns ids into logits, such as
# `torch.nn.Sequential(torch.nn.Embedding(V, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, V))`. The check names the
# faults that are left.

# %% tags=["exercise"]
def repaired_loop(model, ids, steps, peak) -> float:
    """Train on the first nine tenths of ids, in two epochs; return the loss on the rest."""
    _, val_ids = llmkit.split(ids)
    batches = llmkit.Batches(ids, block_size=8, batch_size=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for _ in range(2):  # epochs
        for _ in range(steps // 2):
            x = y = next(batches)[0]  # (B, T)
            loss = F.cross_entropy(model(x).transpose(1, 2), y)
            loss.backward()
            optimizer.step()
        schedule.step()  # the rate falls to a tenth of the peak
    return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()


# %%
check("06.repaired_loop", repaired_loop)


# %% [markdown]
# **7 · Evened out** (hard, 20 minutes). Every matrix is a product $G = U S V^\top$: directions that come in, how much
# each is stretched (the *singular values*, in `S`), directions that come out. Muon replaces the gradient `G` by $U
# V^\top$: the same directions, all stretched by 1. Compute it. `torch.linalg.svd` makes it short. For the stretch, use
# matrix products alone, as Muon does: what does $1.5\,s - 0.5\,s^3$ make of a number `s` between 0 and 1, again and
# again? And which products do that to all singular values of a matrix at once?

# %% tags=["exercise"]
def evened_out(G: torch.Tensor) -> torch.Tensor:
    return G / G.norm()


# %%
check("06.evened_out", evened_out)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: tokens seen
tokens = 2000 * 4 * 12 * 64  # steps, passes, windows, tokens of a window
tokens_seen = (tokens, tokens / 100_000)
print(f"{tokens:,} tokens, the text {tokens / 100_000:.2f} times")
check("06.tokens_seen", tokens_seen)

# %% tags=["solution"]
# @title Solution 2: running away
too_bold = llmkit.TrainConfig(steps=40, batch_size=8, learning_rate=1e30, warmup=0, grad_clip=1.0)
model = new_model(n_layer=1)
try:
    llmkit.train(model, train_ids, config=too_bold)
except FloatingPointError as error:
    message = str(error)
    print(message.split(" at step")[0], "...", message[message.index("lower") :])
largest = max(parameter.abs().max().item() for parameter in model.parameters())
assert 1e29 < largest < 1e32
# The first loss was ordinary and its step was taken. Clipping bounds the gradient, not the rate,
# and Adam divides the gradient's length out anyway. The second loss was nan: no step after it.
runaway = "c"
check("06.runaway", runaway)

# %% tags=["solution"]
# @title Solution 3: early stopping


def early_stop(val_losses: list[float], patience: int) -> tuple[int, int]:
    best = 0  # an index; a measurement's number is one more
    for i, loss in enumerate(val_losses):
        if loss < val_losses[best]:
            best = i
        if i - best == patience:
            break
    return i + 1, best + 1


check("06.early_stop", early_stop)

# %% tags=["solution"]
# @title Solution 4: a trapezoid


def trapezoid(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - 1 - step) / (steps // 5))


check("06.trapezoid", trapezoid)

# %% tags=["solution"]
# @title Solution 5: the W of AdamW


def adamw_step(w, gradient, m, v, step, lr, decay) -> tuple:
    m = 0.9 * m + 0.1 * gradient
    v = 0.95 * v + 0.05 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
    return w - lr * decay * w - lr * m_hat / (v_hat.sqrt() + 1e-8), m, v


check("06.adamw_step", adamw_step)

# %% tags=["solution"]
# @title Solution 6: repair it


def repaired_loop(model, ids, steps, peak) -> float:
    train_ids, val_ids = llmkit.split(ids)
    batches = llmkit.Batches(train_ids, block_size=8, batch_size=4)  # not the held-out text
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for _ in range(steps):
        x, y = next(batches)  # (B, T) each
        loss = F.cross_entropy(model(x).transpose(1, 2), y)  # y: one token further on than x
        optimizer.zero_grad()  # or the gradients of all steps are added up
        loss.backward()
        optimizer.step()
        schedule.step()  # after every step
    model.eval()  # no dropout
    with torch.no_grad():
        return F.cross_entropy(model(val_ids[:-1]), val_ids[1:]).item()


# Trained on the held-out text too, a model looks better than it is: that was the flattering one.
check("06.repaired_loop", repaired_loop)

# %% tags=["solution"]
# @title Solution 7: evened out


def evened_out(G: torch.Tensor) -> torch.Tensor:
    X = G / G.norm()  # now no singular value is above 1
    for _ in range(30):
        X = 1.5 * X - 0.5 * X @ X.T @ X  # of each singular value: 1.5 s - 0.5 s³
    return X


# Muon itself repeats a steeper polynomial five times: near 1 is good enough for it.
check("06.evened_out", evened_out)
