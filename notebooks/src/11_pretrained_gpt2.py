# %% [markdown]
# # 11 · Pretrained GPT-2
# *Our GPT is GPT-2: give it those weights, teach it a domain, and measure what it forgets.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/11_pretrained_gpt2.ipynb)
#
# About 27 minutes to read, exercises aside.
#
# ← [10c · How much for how much](10c_scaling.ipynb) · [11b · A modern model](11b_modern_model.ipynb) →

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
# Every model so far began with random numbers and knew nothing. Others have trained for weeks on millions of pages,
# and some of them gave the result away: a file with 124 million numbers in it is
# [GPT-2](https://huggingface.co/openai-community/gpt2). Could our GPT of notebook 05 take those numbers and be that
# model? And if so: what does it know of our play before it has read a line of it, what does it learn, and what does it
# lose?
#
# A model that has read a lot is called *pretrained*. To go on training it on a small text of a kind of its own, a
# *domain*, is to *fine-tune* it.
#
# GPT-2's weights are half a gigabyte, and Hugging Face's hub has them. On a GPU runtime this notebook fetches them and
# works with GPT-2 itself. Elsewhere it makes a small stand-in, and **no text and no perplexity stored on this page comes
# from the real GPT-2**: to meet it, open the notebook in Colab.

# %%
import copy
import inspect
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import llmkit
from llmkit import drawings, plots
from llmkit.finetune.gpt2 import from_gpt2, to_gpt2
from llmkit.finetune.manual import python_manual
from llmkit.finetune.pretrained import load_gpt2, save_gpt2
from llmkit.finetune.quiet import import_transformers
from llmkit.speed import cpu

transformers = import_transformers()  # without what it tells of missing GPU parts
runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## One model, written twice
#
# Hugging Face's library *transformers* has the GPT-2 that most people use. It shall be our judge. To compare two
# programs no trained weights are needed: random ones will do, as long as both have the same. And odd sizes are better
# than round ones, because with them nothing fits by accident.

# %%
shape = dict(n_layer=2, n_head=5, n_embd=60)
theirs = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(vocab_size=97, n_positions=32, **shape)
).eval()
config = llmkit.GPTConfig(vocab_size=97, block_size=32, **shape)
their_weights, our_weights = (dict(m.named_parameters()) for m in (theirs, llmkit.GPT(config)))

print(f"{'':37}{'theirs':12}ours")
for name, weight in their_weights.items():
    if "h.1" not in name:  # the second block is as the first
        own = our_weights[name.removeprefix("transformer.")]
        turned = "  <- turned" if weight.shape != own.shape else ""
        print(f"{name:36} {tuple(weight.shape)!s:12}{tuple(own.shape)!s:10}{turned}")
assert len(their_weights) == len(our_weights)

# %% [markdown]
# The names are the same but for a prefix. (That is no accident: notebook 05 named its parts as GPT-2 does.) One part
# that you may miss is the output layer, `lm_head`. Its weights are those of the token embedding `wte` (notebook 05),
# one tensor with two names, which is listed once.
#
# Three of the matrices lie on their side. OpenAI's code computed y = x W, with W of the shape (in, out); the layer is
# called `Conv1D`. PyTorch's `Linear` computes y = x Wᵀ and keeps (out, in). So a translation has to turn these.
#
# But look again at `attn.c_proj.weight`: (60, 60) on both sides. It is a `Conv1D` too! Its shape does not tell.

# %%
drawings.weight_names()

# %%
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def translate(theirs, turn: tuple[str, ...] = CONV1D, skip: tuple[str, ...] = ()) -> llmkit.GPT:
    """Our GPT with the weights of transformers' GPT-2, without those whose names end in `skip`."""
    weights = dict(theirs.named_parameters())
    ours = llmkit.GPT(config).eval()
    with torch.no_grad():
        for name, own in ours.named_parameters():
            weight = weights[f"transformer.{name}"]
            if not name.endswith(skip):
                own.copy_(weight.T if name.endswith(turn) else weight)
    return ours


# %% [markdown]
# Now both read the same 20 random tokens. If our GPT is GPT-2, then every logit is the same, up to the rounding of 32-bit
# numbers; let us take differences below 0.0001 for that. To know what the comparison is worth, we also give it three
# translations with a fault: one forgets all biases and the norms' gains, one forgets to turn the square matrix, and one
# computes another GELU (the exact one, where GPT-2 has an approximation of it).

# %%
BIASES_AND_GAINS = ("bias", "ln_1.weight", "ln_2.weight", "ln_f.weight")
ids = torch.randint(97, (3, 20))  # (B, T)


@torch.no_grad()
def differences(theirs) -> dict[str, float]:
    """The largest difference of any logit from theirs, for four translations."""
    exact = translate(theirs)
    for block in exact.h:
        block.mlp.act = torch.nn.GELU()
    models = {
        "right": translate(theirs),
        "biases and gains forgotten": translate(theirs, skip=BIASES_AND_GAINS),
        "square one not turned": translate(theirs, turn=(CONV1D[0], *CONV1D[2:])),
        "another GELU": exact,
    }
    return {name: (m(ids) - theirs(ids).logits).abs().max().item() for name, m in models.items()}


# %%
fresh = differences(theirs)
for name, difference in fresh.items():
    print(f"{name:28} largest difference ≈ {difference:.1e}")
tolerance = 1e-4  # differences below this are taken for rounding
found = [name for name, difference in fresh.items() if difference > tolerance]
print("found:", *found)
assert found == ["square one not turned"]

# %% [markdown]
# Only one of the three was found! In a fresh model all biases are 0 and all gains are 1, so forgetting them changes
# nothing, and its numbers are so small that two kinds of GELU hardly differ. **A comparison is worth as much as the
# faults it finds.** So move every weight of theirs away from where it started, and compare again:

# %%
with torch.no_grad():
    for weight in theirs.parameters():
        weight += 0.2 * torch.randn_like(weight)
shaken = differences(theirs)
for name, difference in shaken.items():
    print(f"{name:28} largest difference ≈ {difference:.1e}")
found = [name for name, difference in shaken.items() if difference > tolerance]
print("found:", *found, sep="\n    ")
assert found == [name for name in shaken if name != "right"]

# %% [markdown]
# Now each fault shows, and the right translation is left with rounding alone. **Our GPT is GPT-2.** And a translation
# with an error in it runs as smoothly as the right one: it fits, it computes, it writes some text, only worse. Nothing
# but a comparison with a reference tells them apart. llmkit's `from_gpt2` does what `translate` does:

# %%
ours = translate(theirs)
packaged = from_gpt2(theirs.state_dict(), config)
for name, weight in packaged.named_parameters():
    assert torch.equal(weight, ours.get_parameter(name))
print(f"the same {ours.num_parameters():,} numbers")

# %% [markdown]
# ## In and out of a folder
#
# `llmkit.finetune.pretrained` does this for files: `save_gpt2` writes a folder that transformers loads, and so does
# every program that serves GPT-2; `load_gpt2` reads such a folder, or fetches one of the four published sizes by name.
# (They differ in layers, heads and width only; notebook 10b counted their parameters.)

# %%
folder = Path(tempfile.mkdtemp())  # somewhere to write
save_gpt2(ours, folder)
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
their_copy = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
our_copy, no_tokenizer = load_gpt2(folder)
assert no_tokenizer is None  # we gave none
for name, weight in their_copy.named_parameters():
    assert torch.equal(weight, their_weights[name])  # to the last bit
with torch.no_grad():
    assert torch.equal(our_copy(ids), ours(ids))

# %% [markdown]
# A model that is not a GPT-2 is refused at once, with the reason:

# %%
try:
    save_gpt2(llmkit.GPT(llmkit.GPTConfig(97, 32, position="rotary")), folder)
except ValueError as error:
    print(error)

# %% [markdown]
# ## A model that has read something
#
# On a GPU we fetch the real GPT-2, the smallest. Without one we make a pretrained model on the spot: the same
# architecture, some 260 times smaller, which reads the one English book that every Python carries: the manual of its
# own language, as `help()` shows it. Every tenth topic is held out. This is what it looks like:

# %% tags=["nbval-ignore-output"]
old_train_text, old_val_text = python_manual()
print(f"{len(old_train_text):,} characters to read, {len(old_val_text):,} held out\n")
print(old_train_text[:400])

# %% tags=["trained"]
if runtime.pick(cpu=False, gpu=True):
    model, tokenizer = load_gpt2("gpt2")
else:
    tokenizer = llmkit.BPETokenizer.train(old_train_text, 512, ["<|endoftext|>"])
    torch.manual_seed(runtime.seed)
    small = llmkit.GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=4, n_embd=128)
    reader = llmkit.GPT(small)
    with cpu.tuned(reader):  # attention as a CPU likes it, see notebook 10
        llmkit.train(
            reader,
            tokenizer.encode(old_train_text),
            config=llmkit.TrainConfig(steps=190, batch_size=16, optimizer="muon"),
            callbacks=[llmkit.ProgressBar(bar_format="pretraining {bar}")],
        )
    save_gpt2(reader, folder / "small", tokenizer)
    model, tokenizer = load_gpt2(folder / "small")  # as it would come from anywhere
model.to(runtime.device)
print(f"{model.num_parameters():,} parameters, {tokenizer.vocab_size:,} tokens")

# %% [markdown]
# Text goes in as *subwords*: GPT-2's tokenizer knows 50,257 pieces of words, that of the small model 512. They were
# learned by merging bytes that often stand together (notebook 09), so that any text can be written with them. Our
# domain is a play:

# %%
play = llmkit.load_text(runtime.pick(cpu=runtime.corpus, gpu="julius_caesar"))
play_train_text, play_val_text = llmkit.split(play)
play_train, play_val, old_val = (
    tokenizer.encode(text) for text in (play_train_text, play_val_text, old_val_text)
)  # (N,) each
sample = "Who hears it, sir, may sleep on any bed.\n"
pieces = tokenizer.encode(sample)
assert tokenizer.decode(pieces) == sample
plots.token_boxes(
    [tokenizer.decode(i) for i in pieces],
    pieces.tolist(),
    "Text goes in as pieces of words",
)


# %% [markdown]
# ## Before
#
# How well does the model know each kind of text? Both are measured where no training in this notebook reads: on the
# held-out topics, and on the last tenth of the play. A model that knows nothing has the size of the vocabulary as its
# perplexity (notebook 07).

# %%
def measure(model: torch.nn.Module) -> tuple[float, float]:
    """Perplexity on the held-out play and manual."""
    return tuple(llmkit.evaluate(model, ids).perplexity for ids in (play_val, old_val))


perplexities = {"pretrained": measure(model)}
for name, value in zip(("play", "manual"), perplexities["pretrained"], strict=True):
    print(f"{name:14} perplexity ≈ {value:.1f}")

# %% tags=["trained"]
on_play, on_old = perplexities["pretrained"]
assert runtime.pick(cpu=2.0, gpu=1.0) * on_old < on_play < tokenizer.vocab_size / 3

# %% [markdown]
# Both texts are English, and most of what it learned of letters and short words serves for both: on the play, too, it
# is far better than a model that knows nothing. But the manual has no verse and no speakers, and the small model's
# perplexity on the play is more than twice that on the manual.
#
# ## Fine-tune
#
# Nothing new is needed: the training loop of notebook 06, the play as its text, few steps. (The real GPT-2 takes a
# smaller learning rate: it has more to lose.) After every sixth part of the run we look at *both* texts.

# %%
steps = runtime.pick(cpu=60, gpu=120)
settings = llmkit.TrainConfig(
    steps=steps,
    batch_size=runtime.pick(cpu=16, gpu=4),
    learning_rate=runtime.pick(cpu=2e-3, gpu=5e-5),
)

# %%
every = max(1, steps // 6)
seen, play_losses, old_losses = [], [], []


def look(step: int, model: torch.nn.Module) -> None:
    """Note the loss on both held-out texts."""
    seen.append(step)
    play_losses.append(llmkit.evaluate(model, play_val).loss)
    old_losses.append(llmkit.evaluate(model, old_val).loss)


def watch(run) -> None:
    """Called after each step of training."""
    if run.step % every == 0:
        look(run.step, run.model)


# %%
tuned = copy.deepcopy(model)
look(0, tuned)
llmkit.train(tuned, play_train, config=settings, callbacks=[watch])
perplexities["fine-tuned"] = measure(tuned)

# %% [markdown]
# Was the pretraining worth anything, then? A third model starts from random weights and gets as many steps, at a
# learning rate that suits such a start:

# %%
torch.manual_seed(runtime.seed)
scratch = llmkit.GPT(model.config).to(runtime.device)
rate = runtime.pick(cpu=2e-3, gpu=6e-4)  # of 1e-3, 2e-3 and 3e-3 the best for the small model
llmkit.train(scratch, play_train, config=replace(settings, learning_rate=rate))
perplexities["from random weights"] = measure(scratch)
plots.matrix(
    list(perplexities.values()),
    list(perplexities),
    ["play", "manual"],
    "Fine-tuning wins the play and loses the manual",
    texts="{:.0f}",
    label="perplexity (lower is better)",
    log=True,
)

# %% tags=["trained"]
before, after, random_start = perplexities.values()
assert after[0] < before[0] / runtime.pick(cpu=2.0, gpu=1.2)  # the play: better than before ...
assert after[0] < random_start[0] / 1.5  # ... and than as many steps from random weights
assert after[1] > before[1]

# %% [markdown]
# **The same number of steps, from weights that have read something, gives a far better model.** It could spell and knew
# common words already. It had to learn that here people speak, in turns and in verse.
#
# ## What it forgot
#
# The right column of that picture is the price. Nothing told the model to keep what it knew of the manual, and it did
# not:

# %% tags=["trained"]
plots.lines(
    seen,
    {"manual": old_losses, "play": play_losses},
    "As the play is learned, the manual is forgotten",
    xlabel="steps of fine-tuning",
    ylabel="loss on held-out text (nats per token)",
)

# %% tags=["trained"]
gained, lost = play_losses[0] - play_losses[-1], old_losses[-1] - old_losses[0]
print(f"gained on the play ≈ {gained:.2f} nats per token, lost on the manual ≈ {lost:.2f}")
assert gained > runtime.pick(cpu=0.7, gpu=0.2)
assert lost > runtime.pick(cpu=0.7, gpu=0.0)

# %% [markdown]
# This is called *catastrophic forgetting* ([McCloskey and Cohen
# 1989](https://doi.org/10.1016/S0079-7421%2808%2960536-8)). The gradient knows the text of its batch and nothing else;
# weights that served another text are free to go wherever the new one pulls them. You will not see it unless you
# measure the old text too. (What helps: old text mixed in, which is an exercise; or leaving most weights alone, which
# is notebook 12.)
#
# What does each of the two write?

# %% tags=["nbval-ignore-output", "sampled-text"]
prompt = tokenizer.encode("The").to(runtime.device)
for name, writer in {"pretrained": model, "fine-tuned": tuned}.items():
    written = llmkit.generate(writer, prompt, 60, temperature=0.8, top_k=40, seed=runtime.seed)
    print(f"--- {name}\n{tokenizer.decode(written)}\n")

# %% [markdown]
# ## The same with `Trainer`
#
# Much code that you will meet fine-tunes with transformers' `Trainer`. What we know by one name has another there:
#
# | llmkit | `Trainer` |
# |---|---|
# | `steps`, `batch_size` | `max_steps`, `per_device_train_batch_size` |
# | `learning_rate`, `warmup`, `schedule` | `learning_rate`, `warmup_steps`, `lr_scheduler_type` |
# | `grad_clip`, `weight_decay`, `dtype` | `max_grad_norm`, `weight_decay`, `fp16` or `bf16` |
# | `eval_every` | `eval_strategy="steps"` and `eval_steps` |
# | a text, cut at random places | a data set of ready windows, each a dict with `input_ids` and `labels` |
#
# Some names changed over the years, so that older code stops with an error:

# %%
for where, old, new in [
    (transformers.TrainingArguments, "evaluation_strategy", "eval_strategy"),
    (transformers.TrainingArguments, "overwrite_output_dir", None),
    (transformers.TrainingArguments, "logging_dir", None),
    (transformers.Trainer, "tokenizer", "processing_class"),
]:
    known = inspect.signature(where).parameters
    state = "known" if old in known else "refused"
    print(f"{where.__name__:18} {old:21} {state:8} {f'-> {new}' if new else ''}")
    assert new is None or new in known

# %% [markdown]
# `labels` are the same tokens as `input_ids`: the shift by one happens inside the model. A label of -100 is left out
# of the loss (it is the `ignore_index` of PyTorch's `cross_entropy`). The first token of a window needs it, because
# nothing stands before it that could predict it.

# %%
T = min(model.config.block_size, len(play_val))


def windows(ids: torch.Tensor, first: int = -100) -> list[dict[str, torch.Tensor]]:
    """The text (N,) in pieces of T tokens that do not overlap, the first label of each as told."""
    rows = ids.unfold(0, T, T)  # (W, T)
    labels = torch.cat([torch.full((len(rows), 1), first), rows[:, 1:]], dim=1)  # (W, T)
    return [{"input_ids": x, "labels": y} for x, y in zip(rows, labels, strict=True)]


# %% [markdown]
# Now the settings, and a `Trainer` that starts from our model, by way of a folder:

# %%
quiet = dict(logging_strategy="no", report_to="none", disable_tqdm=True)
arguments = transformers.TrainingArguments(
    output_dir=str(folder / "trainer"),
    max_steps=steps,
    per_device_train_batch_size=settings.batch_size,
    learning_rate=settings.learning_rate,
    lr_scheduler_type="cosine",
    weight_decay=0.1,
    use_cpu=runtime.pick(cpu=True, gpu=False),
    dataloader_pin_memory=runtime.pick(cpu=False, gpu=True),
    save_strategy="no",
    **quiet,
)

# %%
save_gpt2(model, folder / "start", tokenizer)
trainer = transformers.Trainer(
    model=transformers.AutoModelForCausalLM.from_pretrained(folder / "start"),
    args=arguments,
    train_dataset=windows(play_train),
    data_collator=transformers.default_data_collator,  # windows are of one length: nothing to pad
)
trainer.remove_callback(transformers.PrinterCallback)

x = torch.stack([row["input_ids"] for row in windows(play_val)]).to(runtime.device)  # (W, T)
with torch.no_grad():
    our_loss = model.loss(x[:, :-1], x[:, 1:]).item()
their_loss = trainer.evaluate(windows(play_val))["eval_loss"]
print(f"loss on the windows: ours ≈ {our_loss:.4f}, theirs ≈ {their_loss:.4f}")
assert abs(our_loss / their_loss - 1) < 1e-3

# %% [markdown]
# Before any training both see the same loss. Much code gives the first token its own label instead of -100, as if it
# had been predicted. What does the loss become?

# %%
counted = trainer.evaluate(windows(play_val, first=0))["eval_loss"]
print(f"with a label for the first ≈ {counted:.4f}, ≈ {counted / their_loss:.4f} of the loss")
print(f"(T - 1) / T = {(T - 1) / T:.4f}")
assert min(abs(counted / their_loss - share) for share in (1, (T - 1) / T)) < 1e-3

# %% [markdown]
# In transformers 5.23, with which this notebook was built, `Trainer` adds up T - 1 losses and divides by T labels:
# every loss looks a little better than it is, and the shorter the window, the more so. You find that only by measuring
# twice.
#
# Now let it run, and bring the result home: its weights in our GPT, measured as ours were.

# %% tags=["trained"]
trainer.train()
from_trainer = from_gpt2(trainer.model.state_dict(), model.config).to(runtime.device)
ours_after, theirs_after = perplexities["fine-tuned"][0], measure(from_trainer)[0]
print(f"perplexity on the play: llmkit ≈ {ours_after:.1f}, Trainer ≈ {theirs_after:.1f}")
assert abs(ours_after / theirs_after - 1) < 0.2

# %% [markdown]
# Two training loops, and one result, apart from the order in which they read the text.
#
# ## What we saw
#
# - Our GPT and GPT-2 differ in the prefix of the names and in four turned matrices a block. One of the four is square:
#   forget it, and no error tells you, a reference does.
# - With fresh weights the comparison missed two faults of three, since biases are 0 there and gains 1. With all
#   weights moved it found all three, and the right translation differed by rounding only.
# - `save_gpt2` and `load_gpt2` carry models to transformers and back without changing a bit.
# - A model pretrained on one kind of text starts on another with a perplexity far above that on its own, and far below
#   chance. With a few steps of fine-tuning it passes a model that got as many from random weights.
# - It pays with what it knew. The price does not show where one usually looks, on the new text.
# - `Trainer` starts at the same loss and ends at much the same place. How it counts is worth a check.
#
# We moved every one of the weights, and had to save all of them again. Would a hundredth part do? That is
# the question of notebook 12.
#
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · What stays hidden** (easy, 3 minutes). Predict: four people write `translate`, and each makes one slip. They
# compare logits with a *fresh* model of transformers. (a) The biases of `mlp.c_fc` are never copied. (b) The gains of
# `ln_f` are never copied. (c) `attn.c_proj.weight` is not turned. (d) The positions `wpe` are never copied. For whom
# does the fault stay hidden? Answer with True for hidden.

# %% tags=["exercise"]
hidden = None  # your answer: (a, b, c, d)

# %%
check("11.hidden", hidden)

# %%
hint("11.hidden")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · The way back** (easy, 8 minutes). `translate` goes one way. Write the way back: from our GPT to a dict of
# tensors that `GPT2LMHeadModel.load_state_dict(..., strict=False)` takes, so that the logits are the same again.

# %% tags=["exercise"]
def translate_back(ours: llmkit.GPT) -> dict[str, torch.Tensor]:
    """The weights under transformers' names, in transformers' shapes."""


# %%
check("11.translate_back", translate_back)


# %% [markdown]
# **3 · The loss by hand** (medium, 10 minutes). transformers is given `input_ids` and the same as `labels`. Compute
# the loss that it should report from the logits (B, T, V) and the ids (B, T), without `cross_entropy`: with
# `log_softmax`, or with `exp` and a sum. Which logits belong to which ids, and by how many predictions do you divide?

# %% tags=["exercise"]
def loss_by_hand(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The mean loss in nats, a tensor without dimensions."""


# %%
check("11.loss_by_hand", loss_by_hand)


# %% [markdown]
# **4 · Repair it** (medium, 12 minutes). Texts of different length go into one batch, the shorter ones padded. GPT-2
# has no token for padding, so people take `<|endoftext|>`, which also ends each text. This function prepares ids and
# labels for transformers' GPT-2, and it is wrong in two ways. One makes the model learn the wrong token; the other
# keeps it from ever learning to stop. Repair both. (Padding itself should not count.)

# %% tags=["exercise"]
def repaired(rows: list[torch.Tensor], end: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(rows), max(map(len, rows))), end)  # (B, T), padded with <|endoftext|>
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    labels = torch.full_like(ids, -100)
    labels[:, :-1] = ids[:, 1:]
    labels[labels == end] = -100
    return ids, labels


# %%
check("11.repaired", repaired)


# %% [markdown]
# **5 · Not to forget** (medium, 15 minutes). Mix old text in: all of the new tokens, and after them so many from the
# beginning of the old ones that these make the given share of the whole (at least 0 and below 1, rounded to a token).
# When `mix` is right, predict, and then measure with `measure`: fine-tuned on a mixture with a quarter of manual, how
# much is still forgotten, and what does that cost on the play?

# %% tags=["exercise"]
def mix(new: torch.Tensor, old: torch.Tensor, share: float) -> torch.Tensor:
    """Tokens (N,) and (M,) -> the mixture."""


# %%
check("11.mix", mix)


# %% [markdown]
# **6 · A judge that cannot be fooled** (hard, 25 minutes). Two GPTs, `a` and `b`, have weights of the same names and
# shapes, both fresh and each with its own. Does `b` compute what `a` computes, once it has the same weights? Write the
# judge. It will be given right ones that round otherwise, and faulty ones: without biases, without gains, with the
# square matrix turned, with the exact GELU, with one block used twice, with attention that looks ahead. Both are in
# eval mode and take ids (B, T) up to `a.config.block_size`.

# %% tags=["exercise"]
def same_model(a: llmkit.GPT, b: llmkit.GPT) -> bool:
    """Whether a and b compute the same, up to rounding."""


# %%
check("11.same_model", same_model)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: what stays hidden
# Fresh biases are 0 and fresh gains 1, in theirs and in ours; what is random from the start shows.
hidden = (True, True, False, False)
new = transformers.GPT2LMHeadModel(theirs.config).eval()
slips = [dict(skip=("mlp.c_fc.bias",)), dict(skip=("ln_f.weight",))]
slips += [dict(turn=(CONV1D[0], *CONV1D[2:])), dict(skip=("wpe.weight",))]
with torch.no_grad():
    for slip, answer in zip(slips, hidden, strict=True):
        difference = (translate(new, **slip)(ids) - new(ids).logits).abs().max().item()
        assert answer == (difference < tolerance)
check("11.hidden", hidden)

# %% tags=["solution"]
# @title Solution 2: the way back


def translate_back(ours: llmkit.GPT) -> dict[str, torch.Tensor]:
    return {
        f"transformer.{name}": weight.T if name.endswith(CONV1D) else weight
        for name, weight in ours.named_parameters()
    }


empty = transformers.GPT2LMHeadModel(theirs.config).eval()
report = empty.load_state_dict(translate_back(ours), strict=False)
assert report.missing_keys == ["lm_head.weight"]  # it is the embedding, and came with it
with torch.no_grad():
    assert torch.equal(empty(ids).logits, theirs(ids).logits)
packed = to_gpt2(ours)  # llmkit's
assert all(torch.equal(packed[name], weight) for name, weight in translate_back(ours).items())
check("11.translate_back", translate_back)

# %% tags=["solution"]
# @title Solution 3: the loss by hand


def loss_by_hand(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    log_p = logits[:, :-1].log_softmax(dim=-1)  # (B, T - 1, V): nothing comes after the last
    targets = ids[:, 1:, None]  # (B, T - 1, 1): nothing predicts the first
    return -log_p.gather(2, targets).mean()


with torch.no_grad():
    reported = theirs(ids, labels=ids)
assert torch.allclose(loss_by_hand(reported.logits, ids), reported.loss)
check("11.loss_by_hand", loss_by_hand)

# %% tags=["solution"]
# @title Solution 4: repair it


def repaired(rows: list[torch.Tensor], end: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (len(rows), max(map(len, rows)))
    ids, labels = torch.full(shape, end), torch.full(shape, -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        labels[i, : len(row)] = row  # not shifted: the model does it; its own end counts
    return ids, labels


check("11.repaired", repaired)

# %% tags=["solution", "trained"]
# @title Solution 5: not to forget


def mix(new: torch.Tensor, old: torch.Tensor, share: float) -> torch.Tensor:
    n = round(share / (1 - share) * len(new))  # n / (n + len(new)) = share
    return torch.cat([new, old[:n]])


reminded = copy.deepcopy(model)
old_train = tokenizer.encode(old_train_text)
llmkit.train(reminded, mix(play_train, old_train, 0.25), config=settings)
mixed = measure(reminded)
for name, pair in {"play alone": after, "with a quarter of manual": mixed}.items():
    print(f"{name:26} play ≈ {pair[0]:.1f}, manual ≈ {pair[1]:.1f}")
assert mixed[1] < after[1]  # much less is forgotten, for a little on the play
check("11.mix", mix)

# %% tags=["solution"]
# @title Solution 6: a judge that cannot be fooled


@torch.no_grad()
def same_model(a: llmkit.GPT, b: llmkit.GPT) -> bool:
    for weight in a.parameters():
        weight += 0.2 * torch.randn_like(weight)  # no bias is 0 any more, and no gain 1
    b.load_state_dict(a.state_dict())
    ids = torch.randint(a.config.vocab_size, (4, a.config.block_size))
    return bool((a(ids) - b(ids)).abs().max() < 1e-4)


check("11.same_model", same_model)
