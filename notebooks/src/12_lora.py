# %% [markdown]
# # 12 · LoRA
# *Fine-tuning that trains a few percent of the weights.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/12_lora.ipynb)
#
# About 32 minutes to read, exercises aside.
#
# ← [11b · A modern model](11b_modern_model.ipynb) · [13 · Instruction tuning](13_instruction_tuning.ipynb) →

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
# Somebody has trained a large model, once and at great cost. You would like it to write plays; your neighbour wants Python
# from it; a hundred others have a hundred wishes. Each can fine-tune it, and each then owns a copy of *all* its weights, every
# one of them a little changed. Must it be all of them? What is it that fine-tuning changes?

# %%
import copy
import importlib.util
import inspect
import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import llmkit
from llmkit import optim, plots
from llmkit.finetune import lora
from llmkit.finetune.manual import python_manual
from llmkit.finetune.quiet import quietly
from llmkit.scale import cost
from llmkit.speed import cpu

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# First the price of a copy, for the four sizes of GPT-2, in float32 (4 bytes a number). The last two columns show where this
# notebook is going: what a task costs if only an *adapter* is stored for it, a few small matrices beside each block's large ones
# (of rank 8; exercise 1 is to find the factor 16).

# %%
print("               one copy   100 tasks      one adapter   100 tasks")
for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    config = llmkit.GPTConfig.gpt2(name)
    copy_mb = 4 * sum(cost.parameters(config).values()) / 1e6
    C = config.n_embd
    adapter_mb = 4 * config.n_layer * 8 * 16 * C / 1e6
    print(f"{name:13}{copy_mb:7,.0f} MB {copy_mb / 10:8,.0f} GB {adapter_mb:13.1f} MB", end="")
    print(f"{adapter_mb / 10:9.2f} GB")
    assert adapter_mb < 0.01 * copy_mb  # less than one percent

# %% [markdown]
# ## A base, and a text it does not know
#
# We need a base model. It reads the manual that every Python carries with it (what `help("for")` shows), and we will teach it
# to write a play. Both texts get the same 96 characters.

# %%
characters = "\n" + "".join(map(chr, range(32, 127)))
tokenizer = llmkit.CharTokenizer(characters)


def ids_of(text: str) -> Tensor:
    """The ids of a text, (N,); characters outside the 96 are left out."""
    return tokenizer.encode("".join(c for c in text if c in characters))


manual, manual_val = map(ids_of, python_manual())
play, play_val = llmkit.split(ids_of(llmkit.load_text(runtime.corpus)))
manual_val, play_val = manual_val[:10_000], play_val[:8_000]  # enough to compare models by
assert min(len(manual), 10 * len(manual_val)) > 50_000  # how long it is depends on your Python
print("V =", tokenizer.vocab_size)

# %% tags=["trained"]
shape = runtime.pick(
    cpu=dict(block_size=64, n_layer=2, n_head=4, n_embd=128),
    gpu=dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.1),
)
config = llmkit.GPTConfig(tokenizer.vocab_size, position="rotary", **shape)
batch_size = runtime.pick(cpu=12, gpu=64)
base_steps = runtime.pick(cpu=160, gpu=800)
base = llmkit.GPT(config).to(runtime.device)
settings = llmkit.TrainConfig(steps=base_steps, batch_size=batch_size, optimizer="muon")
bar = llmkit.ProgressBar(bar_format="the base reads {bar}")
with cpu.tuned(base):  # products and attention as a CPU likes them, see notebook 10
    llmkit.train(base, manual, config=settings, callbacks=[bar])


# %% tags=["trained"]
def loss_on(model: nn.Module, ids: Tensor) -> float:
    return llmkit.evaluate(model, ids).loss  # nats per character


base_loss = loss_on(base, play_val)
print(f"the base: manual ≈ {loss_on(base, manual_val):.3f}, play ≈ {base_loss:.3f} nats")
assert loss_on(base, manual_val) + 0.3 < base_loss < math.log(tokenizer.vocab_size)

# %% [markdown]
# It has English letters in its head, and no play. *Full fine-tuning* goes on training it, all of it, on the new text:

# %% tags=["trained"]
tune_steps = runtime.pick(cpu=80, gpu=600)
full_lr, lora_lr = runtime.pick(cpu=(3e-3, 1e-2), gpu=(1e-3, 3e-3))


def tuned(model: nn.Module, ids: Tensor, learning_rate: float, steps: int = 0) -> float:
    """Train on ids what of the model can be trained; returns the seconds it took."""
    how = dict(batch_size=batch_size, learning_rate=learning_rate, weight_decay=0)
    settings = llmkit.TrainConfig(steps=steps or tune_steps, **how)
    with cpu.tuned(model):
        return llmkit.train(model, ids, config=settings).seconds


full = copy.deepcopy(base)
full_seconds = tuned(full, play, full_lr)
full_loss = loss_on(full, play_val)
print(f"play: base ≈ {base_loss:.3f}, fully fine-tuned ≈ {full_loss:.3f}")
assert full_loss < base_loss - 0.5

# %% [markdown]
# ## How much of a matrix has changed?
#
# All of its numbers have. But think of a matrix as something that maps directions to directions. The *singular value
# decomposition* (SVD) takes it apart into such pairs, `u` (out) and `v` (in), strongest first, each pair a matrix of *rank* 1:
#
# $$W = s_1 u_1 v_1^T + s_2 u_2 v_2^T + \dots$$
#
# Does the change of a layer need all its pairs, or will a few do? The smallest case first: every number of this change
# differs from zero, and yet one pair is all of it.

# %%
change = torch.tensor(
    [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]
)  # (2, 3): the second row is twice the first
U, S, Vt = torch.linalg.svd(change, full_matrices=False)  # (2, 2) (2,) (2, 3)
assert torch.allclose(S[0] * torch.outer(U[:, 0], Vt[0]), change, atol=1e-5)
assert S[1] < 1e-5
print(
    "the first singular value squared is", f"{S[0] ** 2:.0f}; so is the sum of all squared numbers"
)

# %% [markdown]
# Now the real changes, fine-tuned minus base, in every linear layer of the blocks. What share of the sum of squares do the
# strongest pairs hold? Beside it, so that we know what to be surprised about: random numbers in matrices of the same shapes.

# %% tags=["trained"]
layers = [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
ranks = [1, 2, 4, 8, 16, 32, 64, 128]


def pairs(model: nn.Module) -> dict[str, tuple]:
    """The SVD of each layer's change from the base: U (O, K), S (K,), Vt (K, I)."""
    found = {}
    for name in layers:
        change = model.get_submodule(name).weight - base.get_submodule(name).weight  # (O, I)
        found[name] = torch.linalg.svd(change.detach().cpu(), full_matrices=False)
    return found


def shares(svds: list) -> Tensor:
    """For each rank, which share its strongest pairs hold, over all matrices: (R,)."""
    squares = torch.stack([S**2 for _, S, _ in svds]).sum(0)  # (K,)
    return squares.cumsum(0)[[rank - 1 for rank in ranks]] / squares.sum()


# %% tags=["trained"]
of_change = pairs(full)
noise = [torch.randn(base.get_submodule(name).weight.shape) for name in layers]
chance = shares([torch.linalg.svd(matrix, full_matrices=False) for matrix in noise])
held = shares(list(of_change.values()))
assert held[3] > 2 * chance[3]  # rank 8
plots.lines(
    ranks,
    {"the change by fine-tuning": held, "random numbers": chance},
    "A few directions hold far more of the change than chance would give them",
    xlabel="pairs of directions, strongest first",
    ylabel="share of the sum of squares",
    log="x",
)


# %% [markdown]
# The sum of squares is not what we care about. So cut each change down to its strongest pairs, put it back, and measure the
# loss. (Biases, norms and embeddings stay as they were fine-tuned.)

# %% tags=["trained"]
def cut(rank: int) -> nn.Module:
    """The fine-tuned model, with only the strongest pairs of each layer's change."""
    model = copy.deepcopy(full)
    for name, (U, S, Vt) in of_change.items():
        change = (U[:, :rank] * S[:rank]) @ Vt[:rank]  # (O, I)
        weight = base.get_submodule(name).weight.detach()
        model.get_submodule(name).weight.data = weight + change.to(weight)
    return model


after_cut = [loss_on(cut(rank), play_val) for rank in ranks]
gained = [(base_loss - loss) / (base_loss - full_loss) for loss in after_cut]
for rank, share in zip(ranks, gained, strict=True):
    print(f"rank {rank:3}: ≈ {100 * share:.0f} % of the gain")
assert gained[0] < gained[3] < gained[5]
assert gained[ranks.index(runtime.pick(cpu=16, gpu=64))] > 0.6  # an eighth or a sixth of the pairs

# %% [markdown]
# Not one direction, and not all of them: most of the gain sits in a small part. And our model is small, its new text far from
# the old. Large pretrained ones have less to change: Aghajanyan et al. ([2020](https://arxiv.org/abs/2012.13255)) reached 90 % of
# what full fine-tuning does while moving some hundred directions of the space of *all* weights.
#
# And ours was a change which nobody had asked to be of low rank. **If the change needs few directions, train only those.**
#
# ## The adapter
#
# *LoRA* (low-rank adaptation, Hu et al. [2021](https://arxiv.org/abs/2106.09685)) freezes `W` and puts a product of two
# thin matrices beside it:
#
# $$y = W x + b + \frac{\alpha}{r} B A x$$
#
# with A (r × in) and B (out × r). Their product is as large as W and has rank r at most. α/r is a fixed factor, so that one
# learning rate suits several ranks: with α = 2r, as we choose it here, it is 2. A starts with random numbers, B with zeros: at
# first, nothing has changed.

# %%
from llmkit import drawings

drawings.low_rank_adapter()


# %% [markdown]
# In code:

# %%
class Adapted(nn.Module):
    """A frozen linear layer, and beside it a change of low rank that is trained."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        bound = base.in_features**-0.5
        A = torch.empty(rank, base.in_features).uniform_(-1, 1) * bound  # (r, in)
        self.A = nn.Parameter(A.to(base.weight))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # (out, r)

    def forward(self, x: Tensor) -> Tensor:
        low = x @ self.A.T  # (..., in) -> (..., r): the narrow place
        return self.base(x) + low @ self.B.T * self.scale  # (..., out)


# %%
def adapt(model: nn.Module, rank: int, alpha: float, ends: tuple[str, ...]) -> nn.Module:
    """Freeze a model and put an adapter beside each linear layer whose name ends so."""
    model.requires_grad_(False)
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.Linear) and name.endswith(ends):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Adapted(part, rank, alpha))
    return model


# %% [markdown]
# That is all of it. `llmkit.finetune.lora` has the same, with merging and files. Do they agree? Give both the same A,
# look at the outputs, train both for a few steps, and look again.

# %%
EVERY = ("c_attn", "c_proj", "c_fc")  # the linear layers of a block, by the ends of their names
ours = adapt(copy.deepcopy(base), 8, 16, EVERY)
kits = lora.apply(copy.deepcopy(base), rank=8, alpha=16, targets=EVERY)
for name, layer in lora.adapters(kits).items():
    layer.A.data.copy_(ours.get_submodule(name).A)

x = play_val[None, :32].to(runtime.device)  # (B=1, T=32)
with torch.no_grad():
    assert torch.equal(kits.eval()(x), base.eval()(x))  # nothing has changed yet
for model in (ours, kits):
    tuned(model, play, 1e-2, steps=5)
with torch.no_grad():
    difference = (ours.eval()(x) - kits.eval()(x)).abs().max().item()
    moved = (kits(x) - base(x)).abs().max().item()
assert difference < runtime.pick(cpu=1e-4, gpu=0.1) < moved  # a GPU trains in bfloat16
trained, total = lora.trainable(kits)
print(f"layers with an adapter: {len(lora.adapters(kits))}; the two agree")

# %% [markdown]
# Hugging Face's [`peft`](https://github.com/huggingface/peft) is what most people adapt models with. The same layers of the
# same base, the same A and B. We tell it ourselves which of its layers belongs to an `nn.Linear`. Left to itself, it would
# also look for layers quantized by torchao, and it stops where torchao is older than it knows, as on Colab.

# %%
if importlib.util.find_spec("peft"):
    with quietly():  # it tells of GPU libraries that it cannot load
        import peft
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(EVERY))
    settings._register_custom_module({nn.Linear: peft.tuners.lora.Linear})
    theirs = peft.inject_adapter_in_model(settings, copy.deepcopy(base).cpu())
    mine = copy.deepcopy(kits).cpu().eval()
    with torch.no_grad():
        for name, layer in lora.adapters(mine).items():
            other = theirs.get_submodule(name)
            other.lora_A["default"].weight.copy_(layer.A)
            other.lora_B["default"].weight.copy_(layer.B)
        assert torch.allclose(theirs.eval()(x.cpu()), mine(x.cpu()), atol=1e-5)
    print("peft's outputs are ours")
else:
    print("peft is not installed here: there is nothing to compare with")


# %% [markdown]
# ## What it saves
#
# An optimizer keeps two numbers for every weight it trains (notebook 06), and each such weight has a gradient. A frozen weight
# needs neither. One real step of each kind, and count the bytes:

# %%
def bytes_held(model: nn.Module) -> dict[str, int]:
    """Bytes of weights, of gradients and of the optimizer's state, after one step of AdamW."""
    [optimizer] = optim.configure_optimizers(model, "adamw", learning_rate=1e-4)  # a list of one
    model.loss(x[:, :-1], x[:, 1:]).backward()
    optimizer.step()
    weights = list(model.parameters())
    states = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    return {
        "weights": 4 * sum(w.numel() for w in weights),
        "gradients": 4 * sum(w.grad.numel() for w in weights if w.grad is not None),
        "optimizer state": 4 * sum(t.numel() for t in states),
    }


# %%
of_full, of_lora = bytes_held(copy.deepcopy(full)), bytes_held(copy.deepcopy(kits))
assert of_full["optimizer state"] == 2 * of_full["weights"]
assert of_lora["optimizer state"] == 2 * 4 * trained
print(f"trained: {trained:,} of {total:,} parameters, {trained / total:.1%}")
plots.stacked_bars(
    ["full fine-tuning", "LoRA, rank 8"],
    {part: [of_full[part] / 1e6, of_lora[part] / 1e6] for part in of_full},
    "A frozen weight needs no gradient and no optimizer state",
    xlabel="megabytes",
)

# %% [markdown]
# (Activations come on top, in both alike.) A narrow layer makes a low rank look large: in GPT-2, 768 wide, rank 8 in every layer
# is 1 % of the weights. Now train it for as long as the full one was. And does it save time as well?

# %% tags=["trained"]
play_model = lora.apply(copy.deepcopy(base), rank=8, alpha=16, targets=EVERY)
lora_seconds = tuned(play_model, play, lora_lr)
print(f"{tune_steps} steps: full ≈ {full_seconds:.1f} s, LoRA ≈ {lora_seconds:.1f} s")
assert 1 / 4 < lora_seconds / full_seconds < 4

# %% [markdown]
# Not much, if any. The signal still has to go forward and back through all layers to reach the first adapter. LoRA spares only
# the products that give the gradients of W, a third of the work at most, and adds the small products of A and B. What it
# saves is memory, and above all what is stored:

# %% tags=["trained"]
lora_loss = loss_on(play_model, play_val)
print(f"play: base ≈ {base_loss:.3f}, LoRA ≈ {lora_loss:.3f}, full ≈ {full_loss:.3f}")
assert (base_loss - lora_loss) > 0.7 * (base_loss - full_loss)
for name, weight in base.named_parameters():  # has the base changed?
    owner, _, kind = name.rpartition(".")
    layer = play_model.get_submodule(owner)
    assert torch.equal(getattr(getattr(layer, "base", layer), kind), weight)

# %% [markdown]
# Most of the gain, and the base is untouched, bit for bit.
#
# ## Which rank?
#
# The one thing to choose. Sweep it, at the same number of steps, the same learning rate, and α = 2r:

# %% tags=["trained"]
swept = {1: 0.0, 4: 0.0, 8: lora_loss, 32: 0.0}
of_rank = {}
for rank in swept:
    model = lora.apply(copy.deepcopy(base), rank=rank, alpha=2 * rank, targets=EVERY)
    trained, total = lora.trainable(model)
    of_rank[rank] = trained / total
    if rank != 8:  # that one we have
        tuned(model, play, lora_lr)
        swept[rank] = loss_on(model, play_val)

# %% tags=["trained"]
cut_losses = dict(zip(ranks, after_cut, strict=True))
assert swept[1] > swept[4] > swept[32]  # and at low ranks trained beats cut:
assert swept[1] < cut_losses[1]
assert swept[4] < cut_losses[4]
plots.lines(
    list(swept),
    {
        "trained at this rank": list(swept.values()),
        "full, then cut": [cut_losses[rank] for rank in swept],
        "full": [full_loss] * len(swept),
    },
    "At a low rank, trained beats cut",
    xlabel="rank",
    ylabel="loss on the play (nats per character)",
    log="x",
)

# %%
for rank, share in of_rank.items():
    print(f"rank {rank:2}: {share:5.1%} of the parameters are trained")

# %% [markdown]
# Even rank 1 goes a long way: training with a single direction chooses it better than cutting does afterwards. Beyond some
# rank the curve flattens, and at rank 32 the cut model is as good or better: it had all directions to learn with. Which rank
# suffices depends on how far the new text lies from the old.
#
# (QLoRA, [Dettmers et al. 2023](https://arxiv.org/abs/2305.14314), also stores the frozen weights in four bits each. So
# a model of tens of billions of weights can be adapted on one GPU.)
#
# ## The file
#
# `lora.save` writes A and B and nothing else. Whoever has the base needs no more:

# %%
scratch = tempfile.TemporaryDirectory()  # gone when the notebook ends
folder = Path(scratch.name)
adapter = lora.save(folder / "play.safetensors", play_model)
llmkit.checkpoint.save(folder / "base", base, tokenizer)
large = (folder / "base" / "model.safetensors").stat().st_size
print(f"base {large / 1e6:.1f} MB, adapter {adapter.stat().st_size / 1e6:.2f} MB")

loaded = lora.load(adapter, copy.deepcopy(base))
with torch.no_grad():
    assert torch.equal(loaded.eval()(x), play_model.eval()(x))
try:
    wider = llmkit.GPT(llmkit.GPTConfig(tokenizer.vocab_size, config.block_size, n_embd=64))
    lora.load(adapter, wider)
except ValueError as error:
    print(str(error).split(" is for ")[1])  # without the path

# %% [markdown]
# ## Merged
#
# For serving, the detour can go: (α/r) B A is a matrix like W, so add it once and for all. `merge` does it, `unmerge` takes it
# out again.

# %%
mine = copy.deepcopy(play_model).cpu().eval()
with torch.no_grad():
    apart = mine(x.cpu())
    together = lora.merge(mine)(x.cpu())
    difference = (apart - together).abs().max().item()
print(f"largest difference of the logits ≈ {difference:.0e}")
assert difference < 1e-4
first = mine.h[0].attn.c_attn
assert not torch.equal(first.base.weight, base.h[0].attn.c_attn.weight.cpu())
lora.unmerge(mine)
assert torch.equal(first.base.weight, base.h[0].attn.c_attn.weight.cpu())
plain = lora.remove(lora.merge(mine))  # merged for good: a plain GPT again
assert not lora.adapters(plain)
assert plain.num_parameters() == base.num_parameters()

# %% [markdown]
# ## One base, two adapters
#
# The neighbour's wish was Python. Its own source is at hand. The base in memory stays the same; only the file is swapped.

# %% tags=["trained"]
modules = ("argparse", "inspect", "typing", "pathlib", "subprocess", "logging", "unittest.mock")
sources = (inspect.getsource(importlib.import_module(name)) for name in modules)
code, code_val = llmkit.split(ids_of("\n".join(sources)))
texts = {"manual": manual_val, "play": play_val, "Python": code_val[:8_000]}

python_model = lora.apply(copy.deepcopy(base), rank=8, alpha=16, targets=EVERY)
tuned(python_model, code, lora_lr)
second = lora.save(folder / "Python.safetensors", python_model)

# %% tags=["trained"]
one = copy.deepcopy(base)
losses = [[loss_on(one, ids) for ids in texts.values()]]  # no adapter yet
for name in ("play", "Python"):
    lora.load(folder / f"{name}.safetensors", one)
    losses.append([loss_on(one, ids) for ids in texts.values()])
losses = torch.tensor(losses)  # (adapters, texts)
assert losses[:, 1].argmin() == 1  # on the play, the play's adapter is the best ...
assert losses[:, 2].argmin() == 2  # ... on Python, Python's
assert losses[:, 0].argmin() == 0
plots.matrix(
    losses,
    ["no adapter", "play", "Python"],
    list(texts),
    "Each adapter is best at its own text, and the base at its own",
    axes=("adapter", "held-out text"),
    label="loss (nats per character)",
    texts="{:.2f}",
)

# %% [markdown]
# The first column is worth a look: whoever has learned plays has forgotten part of the manual. With an adapter that does no
# harm. Take it off, and the base is back. The same beginning, three voices:

# %% tags=["nbval-ignore-output", "sampled-text"]
start = tokenizer.encode("\n\nThe ")
lora.remove(one)
for name in ("", "play", "Python"):
    if name:
        lora.load(folder / f"{name}.safetensors", one)
    ids = llmkit.generate(one, start, max_new_tokens=150, temperature=0.7, seed=1)
    print(f"--- {name or 'no adapter'}", tokenizer.decode(ids).strip(), sep="\n", end="\n\n")

# %% [markdown]
# ## On a model that speaks
#
# Does it work on a model that people talk to? SmolLM2-135M-Instruct ([Allal and others
# 2025](https://arxiv.org/abs/2502.02737)) comes to your machine by `python -m llmkit fetch` (93 MB), is loaded by
# `llmkit.modern`, and adapted by the same `lora.apply`. It likes to chat: asked "Give the last." with the line "as if", it
# said *As for, I am a helpful AI, designed to assist users in their daily tasks.* We gave it 64 pairs of four of notebook
# 13's tasks, as turns of a conversation, and trained an adapter of rank 8 in every layer (2.0 of 136.5 million weights, a
# file of 8 MB) for 40 steps: 3 minutes of one core. Now it says *if*. Right to the letter, of 40 others:
#
# | task | before | after |
# |---|---|---|
# | all four | 0 % | 42 % |
# | first word | 0 % | 73 % |
# | last word | 0 % | 50 % |
# | rewrite | 0 % | 0 % |
# | who says it | 0 % | 38 % |
#
# It has learned to answer in a few words; which ones, 64 pairs teach it only in part. (5 more are wrong by capital letters
# alone, as *Collas: a per* for *COLLAS: a per*. Measured 2026-11-28 on one core of an AMD EPYC by `python
# benchmarks/smollm2_lora.py`.)

# %% [markdown]
# ## What we saw
#
# - A full fine-tuned copy per task costs as much as the model, each time. An adapter costs a few percent, in a large model
#   less than one.
# - Fine-tuning changes every number, but a few directions hold far more of the change than chance would give them.
# - LoRA trains a product of two thin matrices beside a frozen layer. B starts at zero, so training starts at the base.
# - It saves gradients and optimizer state, not time.
# - At a low rank it beats the full change cut to that rank, and reaches most of what full fine-tuning does.
# - The base stays untouched, so adapters can be swapped, taken off, or merged in for good.
#
# Our model now writes in the manner of a play. It still does not *answer* anybody. How does one teach it that?

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · By hand** (easy, 5 minutes). Predict, then check: GPT-2 has 12 layers and is 768 wide. How many parameters has
# an adapter of rank 8 on all four linear layers of each block? Which share of GPT-2's 124,439,808 is that?

# %% tags=["exercise"]
adapter_parameters = None  # your answer

# %%
check("12.adapter_parameters", adapter_parameters)

# %%
hint("12.adapter_parameters")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · Four starts** (easy, 5 minutes). A and B may each start at zero or with random numbers. Which of the two has a
# gradient that is not zero in the first step? Say `"A"`, `"B"`, `"AB"` or `""` for each start. Predict before you
# compute.

# %% tags=["exercise"]
#       A random, B zero · A zero, B random · both zero · both random
alive = None  # your answer: a tuple of four

# %%
check("12.alive", alive)


# %% [markdown]
# **3 · Merge it** (easy, 5 minutes). Return the one matrix that does what a frozen `W` and its adapter do together.

# %% tags=["exercise"]
def merged(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """W (out, in), A (r, in), B (out, r) -> (out, in)"""


# %%
check("12.merged", merged)


# %% [markdown]
# **4 · How many directions?** (medium, 10 minutes). Given a change (out, in) and a share, such as 0.9: how many pairs, strongest
# first, hold at least that share of the sum of squares?

# %% tags=["exercise"]
def pairs_needed(change: Tensor, share: float) -> int:
    return None


# %%
check("12.pairs_needed", pairs_needed)


# %% [markdown]
# **5 · Repair it** (medium, 10 minutes). This is the forward pass of an adapted layer. It runs, and training lowers its
# loss. It is wrong in two ways, one of which shows before the first step.

# %% tags=["exercise"]
def repaired(x, W, b, A, B, alpha):
    scale = alpha / A.size(1)
    return (x @ W.T + b + x @ A.T @ B.T) * scale


# %%
check("12.repaired", repaired)


# %% [markdown]
# **6 · Two at once** (hard, 20 minutes). Half of the play's update and half of Python's, as *one* adapter: find A and B
# (with α = r) whose product is (B₁A₁ + B₂A₂) / 2. What is its rank? Then predict: on the play, is the mixture better
# than the base? Better than the specialist? The solution tries it.

# %% tags=["exercise"]
def both(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> tuple[Tensor, Tensor]:
    """A1, A2 (r, in), B1, B2 (out, r) -> A, B"""


# %%
check("12.both", both)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: by hand
C, r = 768, 8
sides = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)]  # in and out of the four layers
adapter_parameters = 12 * sum(r * (i + o) for i, o in sides)
print(f"{adapter_parameters:,} parameters, {adapter_parameters / 124_439_808:.2%}")
with torch.device("meta"):
    gpt2 = lora.apply(llmkit.GPT(llmkit.GPTConfig.gpt2("gpt2")), 8, 16, EVERY)
assert lora.trainable(gpt2)[0] == adapter_parameters
check("12.adapter_parameters", adapter_parameters)

# %% tags=["solution"]
# @title Solution 2: four starts
found = []
for A_there, B_there in ((True, False), (False, True), (False, False), (True, True)):
    layer = Adapted(nn.Linear(6, 5), rank=2, alpha=4)
    layer.A.data.normal_().mul_(A_there)
    layer.B.data.normal_().mul_(B_there)
    layer(torch.randn(3, 6)).square().sum().backward()
    found.append("".join(name for name in "AB" if getattr(layer, name).grad.any()))
alive = tuple(found)
print(alive)  # each gradient is multiplied by the other matrix: with both at zero, none ever moves
check("12.alive", alive)

# %% tags=["solution"]
# @title Solution 3: merge it


def merged(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return W + alpha / A.size(0) * (B @ A)


check("12.merged", merged)

# %% tags=["solution"]
# @title Solution 4: how many directions?


def pairs_needed(change: Tensor, share: float) -> int:
    squares = torch.linalg.svdvals(change) ** 2
    held = squares.cumsum(0) / squares.sum()
    return int((held < share).sum()) + 1  # those that do not reach it, and the one that does


check("12.pairs_needed", pairs_needed)

# %% tags=["solution"]
# @title Solution 5: repair it


def repaired(x, W, b, A, B, alpha):
    scale = alpha / A.size(0)  # over the rank, not over the width
    return x @ W.T + b + x @ A.T @ B.T * scale  # of the detour only: B = 0 changes nothing


check("12.repaired", repaired)

# %% tags=["solution", "trained"]
# @title Solution 6: two at once


def both(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([A1, A2]), torch.cat([B1, B2], dim=1) / 2  # (2r, in), (out, 2r)


mixed = copy.deepcopy(base)
for name in layers:
    one, other = (m.get_submodule(name) for m in (play_model, python_model))
    A, B = both(one.A, one.B, other.A, other.B)
    mixed.get_submodule(name).weight.data += 2 * (B @ A).detach()  # α/r = 2
mixture_losses = [loss_on(mixed, ids) for ids in texts.values()]
for name, before, after in zip(texts, losses[0].tolist(), mixture_losses, strict=True):
    print(f"{name:8} base ≈ {before:.3f}, mixture ≈ {after:.3f}")
assert losses[1, 1] < mixture_losses[1] < losses[0, 1] - 0.2  # between specialist and base
check("12.both", both)
