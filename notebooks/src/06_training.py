# %% [markdown]
# # 06 · Training
# *Hundreds of small corrections, one after the other, turn guesses into text.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/06_training.ipynb)
#
# About 34 minutes to read, exercises aside.
#
# ← [05b · Positions and norms](05b_positions_and_norms.ipynb) · [07 · Perplexity](07_perplexity.ipynb) →

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
# A model with fresh weights knows nothing: it gives each of our 65 characters about the same chance. Its *loss*, the
# average of -ln p over the characters that really come, is then about ln 65 *nats* (the unit, where the logarithm is the
# natural one), as notebook 05 saw. What exactly has to be done, how often, and in what order, so that a hundred
# thousand random numbers become a model of a play? And how would we notice that it has begun to learn the wrong thing?

# %%
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import llmkit
from llmkit import plots, widgets

runtime = llmkit.start(seed=1337)
runtime

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


model = new_model()
print(f"{model.num_parameters():,} parameters, {V} characters to choose from")
first_loss = llmkit.evaluate(model, val_ids[:10_000]).loss
print(f"first loss ≈ {first_loss:.3f} nats; a blind guess costs ln {V} = {math.log(V):.3f}")
assert abs(first_loss - math.log(V)) < 0.15

# %% [markdown]
# ## What to look at: batches
#
# The model reads a window of at most 64 *tokens*, which here are characters. For every position of the window it says
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
# Correcting the weights after a single window would make them lurch: one window is about a quarrel, the next about the
# weather. So a *batch* of windows is taken from random places and their losses are averaged. All the places are cut
# out by one indexing operation, with no loop over the rows:

# %%
generator = torch.Generator().manual_seed(0)  # dice of its own, which nobody else throws


def get_batch(ids: torch.Tensor, block_size: int, batch_size: int) -> tuple:
    starts = torch.randint(len(ids) - block_size, (batch_size, 1), generator=generator)  # (B, 1)
    places = starts + torch.arange(block_size)  # (B, 1) + (T,) = (B, T)
    return ids[places], ids[places + 1]  # (B, T) each


x, y = get_batch(train_ids, block_size=64, batch_size=32)
print("x", tuple(x.shape), "y", tuple(y.shape))
assert torch.equal(x[:, 1:], y[:, :-1])

batches = llmkit.Batches(train_ids, block_size=64, batch_size=32, seed=0)  # llmkit's: the same rows
assert all(torch.equal(a, b) for a, b in zip((x, y), next(batches), strict=True))


# %% [markdown]
# PyTorch has a general way to do this, which you will meet in most code: a `Dataset` says how many examples there are
# and what the i-th one is, a `DataLoader` shuffles their numbers, fetches them one by one and stacks them.

# %%
class Windows(torch.utils.data.Dataset):
    """Every window of block_size tokens, with the one a token further on."""

    def __init__(self, ids: torch.Tensor, block_size: int):
        self.ids, self.block_size = ids, block_size

    def __len__(self) -> int:
        return len(self.ids) - self.block_size

    def __getitem__(self, i: int) -> tuple:
        return self.ids[i : i + self.block_size], self.ids[i + 1 : i + 1 + self.block_size]


loader = torch.utils.data.DataLoader(Windows(train_ids, 64), batch_size=32, shuffle=True)
x, y = next(iter(loader))
print("x", tuple(x.shape), "y", tuple(y.shape), "from", f"{len(loader.dataset):,} windows")
assert torch.equal(x[:, 1:], y[:, :-1])

# %% [markdown]
# The same shapes, and for images or files on a disk it is the right tool. For ids that are in memory already it is a
# detour, since every row costs a call into Python. (Tutorials often go further and tokenize the text again inside
# `__getitem__`, for each example of each epoch. Tokenize once, before.) We stay with `Batches`.
#
# ## What to change: one step
#
# The *gradient* of the loss says, for each weight, how the loss would change if that weight grew a little. To lower the
# loss, move each weight the other way, by a small multiple of its gradient. That multiple is the *learning rate*.

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
# That is *gradient descent*, and it works. It has one weakness, which a valley shows better than a model does: two
# weights, of which one matters a hundred times as much as the other.

# %%
def valley(w: torch.Tensor) -> torch.Tensor:
    return (100 * w[0] ** 2 + w[1] ** 2) / 2  # steep along the first weight, flat along the second


def descend(optimizer_of, steps: int = 60) -> list[float]:
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
# Go down twice by plain descent, at two rates that hardly differ, and once by *Adam*, which is explained below.

# %%
ways = {
    "plain, rate 0.021": lambda w: torch.optim.SGD(w, lr=0.021),
    "plain, rate 0.018": lambda w: torch.optim.SGD(w, lr=0.018),
    "Adam, rate 0.05": lambda w: torch.optim.Adam(w, lr=0.05, betas=(0.7, 0.95)),  # short memory
}
heights = {name: descend(way) for name, way in ways.items()}
thrown, slow, adam = (height[-1] for height in heights.values())
assert thrown > 1000 > slow > adam
plots.lines(
    range(1, 61),
    heights,
    "One rate for all weights is too large for one of them",
    xlabel="step",
    ylabel="height in the valley",
    log=True,
)


# %% [markdown]
# At a rate of 0.021 the steep weight is thrown from wall to wall, each time higher. At 0.018 it settles, but the flat
# weight creeps. What one weight can bear is too little for the other.
#
# Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980)) gives every weight a step of its own. It keeps two
# averages for each: of its gradient, and of its gradient squared. The first, divided by the root of the second, is near
# 1 or -1 where the gradients agree and near 0 where they cancel, whatever their size. The W in *AdamW*
# ([Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101)) is *weight decay*: a pull of the weights towards zero,
# done apart from the gradient. The whole of it:

# %%
def adamw_step(w, gradient, m, v, step, lr=0.1, beta1=0.9, beta2=0.95, decay=0.1):
    """One update of w; m and v are the averages (all of w's shape), step counts from 1."""
    w *= 1 - lr * decay  # the pull towards zero
    m += (1 - beta1) * (gradient - m)  # a running average of the gradient
    v += (1 - beta2) * (gradient**2 - v)  # and of its square
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)  # both began at 0: undo that
    w -= lr * m_hat / (v_hat.sqrt() + 1e-8)


ours, m, v = torch.ones(2), torch.zeros(2), torch.zeros(2)
theirs = torch.ones(2, requires_grad=True)
optimizer = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
for step in range(1, 21):
    optimizer.zero_grad()
    valley(theirs).backward()
    adamw_step(ours, theirs.grad, m, v, step)
    optimizer.step()
print("ours  ", ours)
print("theirs", theirs.data)
assert torch.allclose(ours, theirs.data, atol=1e-6)


# %% [markdown]
# Look at the two numbers. They are the same, though one weight is a hundred times as steep as the other: how steep is
# exactly what Adam divides away.

# %% [markdown]
# ## How far: the learning rate
#
# Adam still needs a learning rate, and no other number decides as much. Rather than believe a tutorial's, try some:
# thirty steps from the same first weights on the same batches, each rate about three times the one before.

# %%
def loss_after(learning_rate: float, steps: int = 30) -> float:
    """The loss after some steps at one learning rate (the mean of the last five)."""
    config = llmkit.TrainConfig(
        steps=steps, batch_size=16, learning_rate=learning_rate, warmup=0, min_lr_ratio=1.0
    )
    return sum(llmkit.train(new_model(n_layer=1), train_ids, config=config).loss[-5:]) / 5


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
# One number is best now, but not for a whole run. At the very start Adam's averages rest on a few noisy batches, so
# the first steps should be short: *warmup*. Towards the end the model is near a good place, and long steps throw it out
# again: *decay*. Between them lies the *peak* that we looked for above.

# %%
def learning_rate_at(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Up in a line, then down along half a cosine wave, to `final` times the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (steps - 1 - warmup)  # from 0 to 1
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


steps = 300
good = [learning_rate_at(step, steps, peak=3e-3, warmup=15, final=0.1) for step in range(steps)]
share = [llmkit.optim.lr_schedule(step, steps, warmup=15, final=0.1) for step in range(steps)]
assert all(math.isclose(a, 3e-3 * b) for a, b in zip(good, share, strict=True))
plots.lines(
    range(steps),
    {"our schedule": good},
    "Short steps first, bold ones early, fine ones at the end",
    xlabel="step",
    ylabel="learning rate",
)

# %% [markdown]
# Two faults turn up in printed code again and again, and neither stops the program. One is a schedule that is made for
# 300 steps but moves on only when an *epoch* ends, a pass over all the data. The other is a lowest rate, the *floor*, that
# someone sets above the peak:

# %%
epochs = [step // 100 for step in range(300)]  # three of 100 steps each
stuck = [learning_rate_at(epoch, 300, peak=3e-3, warmup=0, final=0.1) for epoch in epochs]
print(f"moved on by epochs: from {stuck[0]:.4f} to {stuck[-1]:.4f}, it never falls")
assert stuck[-1] > 0.99 * stuck[0]

peak, floor = 3e-4, 1e-3  # two numbers that look harmless
upwards = [floor + (peak - floor) * (1 + math.cos(math.pi * step / 299)) / 2 for step in range(300)]
print(f"floor above peak:   from {upwards[0]:.4f} to {upwards[-1]:.4f}, it 'decays' upwards")
assert upwards[-1] > upwards[0]
try:
    llmkit.TrainConfig(min_lr_ratio=floor / peak)
except ValueError as error:
    print("llmkit:", error)

# %% [markdown]
# In llmkit the schedule counts steps, and its floor is a share of the peak, so it cannot lie above it. To catch such
# faults in any code, print the first and the last rate of a run, as here.
#
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
print(f"same direction: {F.cosine_similarity(before, after, dim=0):.4f}")
assert before.norm() > 10
assert torch.allclose(after, before / before.norm(), atol=1e-5)


# %% [markdown]
# ## The loop
#
# That is everything. A batch, a loss, a gradient, clipped, a step at the rate that the schedule says; and again.
# Parameters that are matrices feel the pull towards zero, biases and the like do not.

# %%
def train_in_the_open(model, ids, steps, batch_size, peak) -> list[float]:
    """The training loop with nothing left out; the loss of every step."""
    batches = llmkit.Batches(ids, model.config.block_size, batch_size, device=runtime.device)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=True,  # all parameters in one pass
    )
    losses = []
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


model = new_model()
losses = train_in_the_open(model, train_ids, steps=40, batch_size=16, peak=3e-3)
print(f"loss ≈ {losses[0]:.3f} at first, ≈ {losses[-1]:.3f} after {len(losses)} steps")
assert losses[-1] < losses[0] - 0.5

# %% [markdown]
# **Training is this loop; everything else is knowing when to stop and what to keep.** `llmkit.train` is the same loop
# with the keeping added. The same? Same first weights, same batches, and every weight comes out alike:

# %%
config = llmkit.TrainConfig(steps=40, batch_size=16, learning_rate=3e-3, dtype="float32")
twin = new_model()
history = llmkit.train(twin, train_ids, config=config)
near = runtime.pick(cpu=1e-4, gpu=1e-2)  # a GPU may add up in another order each time
assert torch.allclose(torch.tensor(history.loss), torch.tensor(losses), atol=near)
for a, b in zip(model.parameters(), twin.parameters(), strict=True):
    assert torch.allclose(a, b, atol=near)
print(f"all {twin.num_parameters():,} weights agree")

# %% [markdown]
# ## A real run
#
# Now for longer, with the two things one wants to see: the loss on text that the model is *not* trained on (the
# validation split, all of it), and a sample. Both are asked for from outside the loop: a *callback* is called after each
# step and may look at the run. `Sampler` lets the model write now and then, `LivePlot` shows what is new: the picture below
# grows while the model learns. Its axis counts tokens seen, not steps: a step with a batch twice as large is twice the
# reading.
#
# One thing we change. Adam treats a matrix as a bag of numbers. *Muon*
# ([Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/)) knows that it is a matrix, and evens its step out
# so that every direction gets an equal share; embeddings and the like stay with AdamW. Its learning rate is another
# one, and so small a model bears 0.04. What that gains is exercise 4.

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
sampler = llmkit.Sampler(tokenizer, every=sixth, prompt="\n")
live = widgets.LivePlot("Both losses fall together: what it learns holds on new text")
history = llmkit.train(model, train_ids, val_ids, config, callbacks=[sampler, live])

# %% tags=["trained"]
print(f"{history.tokens[-1]:,} tokens seen in {history.step[-1]:,} steps")
print(f"validation loss ≈ {history.val_loss[-1]:.3f} nats, before training ≈ {first_loss:.3f}")
assert history.val_loss[-1] < runtime.pick(cpu=1.65, gpu=1.6)
assert history.val_loss == sorted(history.val_loss, reverse=True)

# %% [markdown]
# What it writes changes as much. The shape of a play comes first: short lines, names in capitals, colons. Then more and
# more of the words are words. Sense comes last, and needs a larger model or a longer run.

# %% tags=["nbval-ignore-output", "sampled-text"]
for step, sample in history.samples[::2]:  # each begins on a new line
    print(f"--- after step {step}\n{sample[:150]}")

# %% [markdown]
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
assert its_tokenizer.decode(val_ids[:32]) == tokenizer.decode(val_ids[:32])

# %% [markdown]
# To *go on* with an interrupted run, weights are not enough. Adam's averages, the place in the schedule, the dice that
# draw the batches: start any of these anew and it is another run. A *checkpoint* holds them too. The proof is a run that
# stops half way and is taken up by a model loaded from the folder, against one that never stopped:

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

resumed, _ = llmkit.checkpoint.load(folder, device=runtime.device)
state = llmkit.checkpoint.load_state(folder)
history = llmkit.train(resumed, train_ids, config=config, resume=state)
print("went on to step", history.step[-1])
same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
print("every bit of every weight the same:", same)
assert same or runtime.pick(cpu=False, gpu=True)  # a GPU may add in another order

# %% [markdown]
# ## Larger than the memory: accumulation
#
# In our first step we emptied `.grad`, or the next gradient would have been added to it. Where a batch is too large for the
# memory, adding is what we want: a batch of 32 windows is four of 8, one after the other, with a quarter of each loss.

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
# It takes as long, and each pass keeps a quarter of the numbers in memory. In llmkit that is
# `TrainConfig(batch_size=8, gradient_accumulation_steps=4)`.
#
# On a GPU most of the arithmetic is also done with half as many bits (*mixed precision*), which is faster and takes
# less memory; `TrainConfig(dtype=...)` says so, and by default follows the device. The weights themselves keep 32 bits.
# The older spelling in tutorials, `torch.cuda.amp.autocast()`, still runs but warns; today it is
# `torch.autocast("cuda", dtype=...)`.

# %%
print(f"this device computes in {str(runtime.dtype).removeprefix('torch.')}")
assert all(parameter.dtype == torch.float32 for parameter in model.parameters())

# %% [markdown]
# ## Learning by heart
#
# Now let us do it wrong. Some tutorials train for thousands of passes over a single play, and print a wonderful training
# loss. Take a *short* text, let the model read it over and over, and watch both losses.

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
model = new_model(vocab_size=reader.vocab_size, **shape)
config = llmkit.TrainConfig(**budget, optimizer="muon", eval_every=20)
history = llmkit.train(model, little, held_out, config)
print(f"{len(little):,} characters, read {history.tokens[-1] / len(little):.0f} times")

# %% tags=["trained"]
last, best = history.val_loss[-1], history.best_val_loss
print(f"training loss   ≈ {history.loss[-1]:.3f}")
print(f"validation loss ≈ {last:.3f}, at its best ≈ {best:.3f} after step ≈ {history.best_step}")
assert history.loss[-1] < 0.5
assert last > best + 1

# %%
plots.loss_curves(
    history, "After the ring it gets better on its pages, worse on new text", by="step"
)


# %% [markdown]
# This is *overfitting*, and the picture is worth remembering. Up to the ringed point both curves fall: what is learned
# holds on new text as well. From there on only the training loss falls: the model learns its pages by heart. Is that
# true, or a figure of speech? Let it write:

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
    """The share of a text's stretches of so many characters that stand in the source."""
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
# It recites. A low training loss, then, says nothing by itself. What helps? More text, above all. Failing that: stop when
# the validation loss has not fallen for some measurements (`patience`), go back to the weights of the ring (`keep_best`),
# and in each step switch off a random share of the numbers inside the model, so that it relies on none (`dropout`).

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
# ## What we saw
#
# - A batch is windows from random places, cut out by one indexing operation; a window of 64 is 64 exercises at once.
# - One learning rate for all weights is too large for some and too small for others. Adam gives each its own, warmup
#   and decay change it over the run, clipping keeps an odd batch from ruling the others.
# - The loop fits on half a page, and llmkit's gives the same weights. Stopped and resumed it gives the same weights to
#   the last bit, because the state of the optimizer and of the dice is saved too.
# - The training loss cannot tell learning from learning by heart. Only text that was held out can.
#
# Which brings up a question that we have passed over: a validation loss of so many nats, is that good? Compared with
# what? And measured on how much text, with which windows? That is notebook [07](07_perplexity.ipynb).
#
# ## Exercises
#
# **1 (warm-up).** How many tokens does a run of 2,000 steps see, with 12 windows of 64 tokens in a batch? How many times
# is that the training split of this notebook?

# %% tags=["exercise"]
tokens_seen = None  # your answer
times_read = None


# %% [markdown]
# **2 (medium).** Write a schedule that stays at its peak after the warmup and falls in a line to zero in the last fifth of the
# run (people call its shape a trapezoid). It returns the share of the peak, as `llmkit.optim.lr_schedule` does.

# %% tags=["exercise"]
def trapezoid(step: int, steps: int, warmup: int) -> float:
    return math.nan  # your answer


print(trapezoid(step=50, steps=100, warmup=10))  # should become 1.0

# %% [markdown]
# **3 (medium).** Make the loss undefined on purpose: train for a few steps at a learning rate of 10^30. What does
# `llmkit.train` say, and in what state does it leave the model? Clipping was on: why did it not save the run?

# %% tags=["exercise"]
message = None  # your answer: the sentence that it says

# %% [markdown]
# **4 (harder).** What does Muon gain? Give both optimizers the same first weights, the same batches and 80 steps, each of
# them at three learning rates (AdamW 0.003, 0.006 and 0.012, Muon 0.02, 0.04 and 0.08), and measure on the first 6,000
# held-out characters.

# %% tags=["exercise"]
val_losses = {}  # your answer: {(optimizer, rate): validation loss}

# %% tags=["solution"]
# @title Solution 1: tokens seen
tokens_seen = 2000 * 12 * 64
times_read = tokens_seen / len(train_ids)
print(f"{tokens_seen:,} tokens, the training split {times_read:.1f} times")
assert tokens_seen == 1_536_000


# %% tags=["solution"]
# @title Solution 2: a trapezoid
def trapezoid(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    fall = steps // 5
    return min(1.0, (steps - 1 - step) / fall)


shares = [trapezoid(step, steps=100, warmup=10) for step in range(100)]
assert shares[9] == shares[50] == shares[79] == 1.0
assert shares[99] == 0.0
assert shares[89] == 0.5

# %% tags=["solution"]
# @title Solution 3: a loss that is no number
too_bold = llmkit.TrainConfig(steps=40, batch_size=8, learning_rate=1e30, warmup=0, grad_clip=1.0)
model = new_model(n_layer=1)
try:
    llmkit.train(model, train_ids, config=too_bold)
except FloatingPointError as error:
    message = str(error)
    print(message.split(" at step")[0], "...", message[message.index("lower") :])
assert not torch.isfinite(model.loss(x, y))  # x, y: the batch of the accumulation
# Clipping bounds the gradient, not the rate; and Adam divides the gradient's length out anyway.

# %% tags=["solution"]
# @title Solution 4: what Muon gains
rates = {"adamw": (0.003, 0.006, 0.012), "muon": (0.02, 0.04, 0.08)}
val_losses = {}
for optimizer in rates:
    for rate in rates[optimizer]:
        config = llmkit.TrainConfig(
            steps=80, batch_size=16, optimizer=optimizer, learning_rate=rate, eval_every=80
        )
        history = llmkit.train(new_model(n_layer=1), train_ids, val_ids[:6000], config)
        val_losses[optimizer, rate] = history.val_loss[-1]
        print(f"{optimizer:5}, rate {rate:5g}: ≈ {history.val_loss[-1]:.3f} nats")
assert min(val_losses, key=val_losses.get)[0] == "muon"
