# %% [markdown]
# # 11 · Pretrained GPT-2
# *Our GPT is GPT-2: give it those weights, teach it a domain, and measure what it forgets.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/11_pretrained_gpt2.ipynb)
#
# About 28 minutes to read, exercises aside.
#
# ← [10b · What scale costs](10b_scale.ipynb) · [12 · LoRA](12_lora.ipynb) →

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
# Every model so far began with random numbers and knew nothing. Others have trained for weeks on millions of pages, and
# some of them gave the result away: a file with 124 million numbers in it is
# [GPT-2](https://huggingface.co/openai-community/gpt2). Could our GPT of notebook 05 take those numbers and be that model?
# And if so: what does it know of our play before it has read a line of it, what does it learn, and what does it lose?
#
# A model that has read a lot is called *pretrained*. To go on training it on a small text of a kind of its own, a
# *domain*, is to *fine-tune* it.

# %%
import copy
import inspect
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import torch

logging.disable(logging.WARNING)  # transformers tells of GPU libraries that it cannot load
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

logging.disable(logging.NOTSET)

import llmkit
from llmkit import plots
from llmkit.finetune.gpt2 import from_gpt2, to_gpt2
from llmkit.finetune.pretrained import load_gpt2, save_gpt2
from llmkit.model import GPT2_SIZES

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## One model, written twice
#
# Hugging Face's library *transformers* has the GPT-2 that most people use. It shall be our judge. To compare two programs
# no trained weights are needed: random ones will do, as long as both have the same. And odd sizes are better than round
# ones, because with them nothing fits by accident.

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
# The names are the same but for a prefix. (That is no accident: notebook 05 named its parts as GPT-2 does.) Three of the
# matrices lie on their side. OpenAI's code computed y = x W, with W of the shape (in, out); the layer is called `Conv1D`.
# PyTorch's `Linear` computes y = x Wᵀ and keeps (out, in). So a translation has to turn these.
#
# But look again at `attn.c_proj.weight`: (60, 60) on both sides. It is a `Conv1D` too! Its shape does not tell.

# %%
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def translate(theirs, config: llmkit.GPTConfig, turn: tuple[str, ...] = CONV1D) -> llmkit.GPT:
    """Our GPT with the weights of transformers' GPT-2."""
    weights = dict(theirs.named_parameters())
    ours = llmkit.GPT(config).eval()
    with torch.no_grad():
        for name, own in ours.named_parameters():
            weight = weights[f"transformer.{name}"]
            own.copy_(weight.T if name.endswith(turn) else weight)
    return ours


ours = translate(theirs, config)
packaged = from_gpt2(theirs.state_dict(), config)  # llmkit's
for name, weight in packaged.named_parameters():
    assert torch.equal(weight, ours.get_parameter(name))
print("the same", ours.num_parameters(), "numbers as llmkit's from_gpt2 gives")

# %% [markdown]
# Now both read the same 20 random tokens. If our GPT is GPT-2, then every logit is the same, up to the rounding of 32-bit
# numbers:

# %%
ids = torch.randint(97, (3, 20))  # (B, T)
with torch.no_grad():
    expected = theirs(ids).logits  # (B, T, V)
    difference = (ours(ids) - expected).abs().max().item()
    forgetful = translate(
        theirs, config, turn=tuple(n for n in CONV1D if n != "attn.c_proj.weight")
    )
    wrong = (forgetful(ids) - expected).abs().max().item()
print(f"logits spread by ≈ {expected.std():.3f} around their mean")
print(f"largest difference ≈ {difference:.1e}; where the square one was forgotten ≈ {wrong:.3f}")
assert difference < 1e-5
assert wrong > 1000 * difference

# %% [markdown]
# **Our GPT is GPT-2.** And a translation with an error in it runs as smoothly as the right one: it fits, it computes, it
# writes some text, only worse. Nothing but a comparison with a reference tells them apart.
#
# ## In and out of a folder
#
# `llmkit.finetune.pretrained` does this for files: `save_gpt2` writes a folder that transformers loads, and so does every program
# that serves GPT-2; `load_gpt2` reads such a folder, or fetches one of the four published sizes by name.

# %%
folder = Path(tempfile.mkdtemp())  # somewhere to write
save_gpt2(ours, folder)
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
their_copy = AutoModelForCausalLM.from_pretrained(folder).eval()
our_copy, no_tokenizer = load_gpt2(folder)
assert no_tokenizer is None  # we gave none
for name, weight in their_copy.named_parameters():
    assert torch.equal(weight, their_weights[name])  # to the last bit
with torch.no_grad():
    assert torch.equal(our_copy(ids), ours(ids))

# %% [markdown]
# And whoever saves a model that GPT-2 is not, hears of it then and not from wrong text later:

# %%
try:
    save_gpt2(llmkit.GPT(llmkit.GPTConfig(97, 32, position="rotary")), folder)
except ValueError as error:
    print(error)

# %% [markdown]
# The published sizes differ in three numbers. Where do the parameters sit? On PyTorch's `meta` device a model has shapes
# and no memory, so that even the largest is built in an instant:

# %%
parts = {"token embedding": [], "positions": [], "blocks": []}
for name in GPT2_SIZES:
    with torch.device("meta"):
        giant = llmkit.GPT(llmkit.GPTConfig.gpt2(name))
    parts["token embedding"].append(giant.wte.weight.numel() / 1e6)
    parts["positions"].append(giant.wpe.weight.numel() / 1e6)
    parts["blocks"].append(
        giant.num_parameters() / 1e6 - sum(p[-1] for p in list(parts.values())[:2])
    )
totals = [sum(column) for column in zip(*parts.values(), strict=True)]
assert [round(total) for total in totals] == [124, 355, 774, 1558]
assert 0.3 < parts["token embedding"][0] / totals[0] < 0.35
assert parts["blocks"][-1] > 0.9 * totals[-1]
labels = [f"{name}, {n} × {width}" for name, (n, _, width) in GPT2_SIZES.items()]
plots.stacked_bars(
    labels,
    parts,
    "A third of the smallest GPT-2 is its vocabulary; the large ones are nearly all blocks",
    xlabel="parameters (millions)",
    ends=[f"{total:,.0f} M" for total in totals],
)

# %% [markdown]
# ## A model that has read something
#
# On a GPU we fetch the real GPT-2, the smallest, half a gigabyte. Without one we make a pretrained model on the spot: the
# same architecture, some 140 times smaller, which reads the one English book that every Python carries: the documentation
# of its own language, as `help()` shows it. Every tenth topic is held out. A sip of it:

# %% tags=["nbval-ignore-output"]
titles = sorted(topics)
old_train_text = "\n\n".join(topics[t] for i, t in enumerate(titles) if i % 10 != 4)
old_val_text = "\n\n".join(topics[t] for t in titles[4::10])
sizes = len(old_train_text), len(old_val_text)
print(f"{len(titles)} topics, {sizes[0]:,} characters to read, {sizes[1]:,} held out\n")
print(topics["pass"][:220])

# %% tags=["trained"]
if runtime.pick(cpu=False, gpu=True):
    model, tokenizer = load_gpt2("gpt2")
else:
    tokenizer = llmkit.BPETokenizer.train(old_train_text, 512, ["<|endoftext|>"])
    torch.manual_seed(runtime.seed)
    small = llmkit.GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=4, n_head=4, n_embd=128)
    reader = llmkit.GPT(small)
    llmkit.train(
        reader,
        tokenizer.encode(old_train_text),
        config=llmkit.TrainConfig(steps=190, batch_size=16, optimizer="muon"),
        callbacks=[llmkit.ProgressBar(bar_format="pretraining {bar}")],
    )
    save_gpt2(reader, folder / "small", tokenizer)
    model, tokenizer = load_gpt2(folder / "small")  # as it would come from anywhere
    assert 130 < 124_439_808 / model.num_parameters() < 150
model.to(runtime.device)
print(f"{model.num_parameters():,} parameters, {tokenizer.vocab_size:,} tokens")

# %% [markdown]
# Text goes in as *subwords*: GPT-2's tokenizer knows 50,257 pieces of words, that of the small model 512. They were learned
# by merging bytes that often stand together (notebook 09), so that any text can be written with them. Our domain is a play:

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
    """Perplexity on the held-out play and documentation."""
    return tuple(llmkit.evaluate(model, ids).perplexity for ids in (play_val, old_val))


perplexities = {"pretrained": measure(model)}
for name, value in zip(("play", "documentation"), perplexities["pretrained"], strict=True):
    print(f"{name:14} perplexity ≈ {value:.1f}")

# %% tags=["trained"]
on_play, on_old = perplexities["pretrained"]
assert runtime.pick(cpu=2.0, gpu=1.0) * on_old < on_play < tokenizer.vocab_size / 2

# %% [markdown]
# The play is foreign to it. Still, it does far better than a model that knows nothing: the play is English too.
#
# ## Fine-tune
#
# Nothing new is needed: the training loop of notebook 06, the play as its text, few steps. (The real GPT-2 takes a smaller
# learning rate: it has more to lose.) After every sixth part of the run we look at *both* texts.

# %%
steps = runtime.pick(cpu=60, gpu=120)
batch_size = runtime.pick(cpu=16, gpu=4)
learning_rate = runtime.pick(cpu=2e-3, gpu=5e-5)
settings = llmkit.TrainConfig(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
every = max(1, steps // 6)
seen, play_losses, old_losses = [], [], []


def watch(run) -> None:
    """Measure both texts, now and then."""
    if run.step % every == 0:
        seen.append(run.step)
        play_losses.append(llmkit.evaluate(run.model, play_val).loss)
        old_losses.append(llmkit.evaluate(run.model, old_val).loss)


tuned = copy.deepcopy(model)
watch_start = [llmkit.evaluate(tuned, ids).loss for ids in (play_val, old_val)]
llmkit.train(tuned, play_train, config=settings, callbacks=[watch])
perplexities["fine-tuned"] = measure(tuned)

# %% [markdown]
# Was the pretraining worth anything, then? A third model starts from random weights and gets as many steps, at a learning
# rate that suits such a start:

# %%
torch.manual_seed(runtime.seed)
scratch = llmkit.GPT(model.config).to(runtime.device)
rate = runtime.pick(cpu=2e-3, gpu=6e-4)  # of 1e-3, 2e-3 and 3e-3 the best for the small model
llmkit.train(scratch, play_train, config=replace(settings, learning_rate=rate))
perplexities["from random weights"] = measure(scratch)
plots.matrix(
    list(perplexities.values()),
    list(perplexities),
    ["play", "documentation"],
    "Fine-tuning wins the play and loses the documentation",
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
# **As many steps, from weights that have read, give a far better model.** Spelling and common words it had already; it had to
# learn that here people speak, in turns and in verse.
#
# ## What it forgot
#
# The right column of that picture is the price. Nobody told the model to keep its documentation, and so it did not:

# %% tags=["trained"]
plots.lines(
    [0, *seen],
    {
        "documentation": [watch_start[1], *old_losses],
        "play": [watch_start[0], *play_losses],
    },
    "As the play is learned, the documentation is forgotten",
    xlabel="steps of fine-tuning",
    ylabel="loss on held-out text (nats per token)",
)

# %% tags=["trained"]
gained, lost = watch_start[0] - play_losses[-1], old_losses[-1] - watch_start[1]
print(f"gained on the play ≈ {gained:.2f} nats per token, lost on the documentation ≈ {lost:.2f}")
assert gained > runtime.pick(cpu=0.7, gpu=0.2)
assert lost > runtime.pick(cpu=0.7, gpu=0.0)

# %% [markdown]
# This is called *catastrophic forgetting* ([McCloskey and Cohen 1989](https://doi.org/10.1016/S0079-7421%2808%2960536-8)). The
# gradient knows the text of its batch and nothing else; weights that served another text are free to go wherever the new one
# pulls them. You will not see it unless you measure the old text too. (What helps: a smaller learning rate, old text mixed
# in, or leaving most weights alone. The first two are exercises; the third is notebook 12.)
#
# What does each of the two write?

# %% tags=["nbval-ignore-output", "sampled-text"]
prompt = tokenizer.encode("The ").to(runtime.device)
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
# `labels` are the same tokens as `input_ids`: the shift by one happens inside their model. Some names changed over the years, so
# that older code stops with an error:

# %%
for where, old, new in [
    (TrainingArguments, "evaluation_strategy", "eval_strategy"),
    (TrainingArguments, "overwrite_output_dir", None),
    (TrainingArguments, "logging_dir", None),
    (Trainer, "tokenizer", "processing_class"),
]:
    known = inspect.signature(where).parameters
    state = "known" if old in known else "refused"
    print(f"{where.__name__:18} {old:21} {state:8} {f'-> {new}' if new else ''}")
    assert new is None or new in known

# %%
T = min(model.config.block_size, len(play_val))


def windows(ids: torch.Tensor, first: int = -100) -> list[dict[str, torch.Tensor]]:
    """The text (N,) in pieces of T tokens that do not overlap, the first label of each as told."""
    rows = ids.unfold(0, T, T)  # (W, T)
    labels = torch.cat([torch.full((len(rows), 1), first), rows[:, 1:]], dim=1)  # (W, T)
    return [{"input_ids": x, "labels": y} for x, y in zip(rows, labels, strict=True)]


# %%
save_gpt2(model, folder / "start", tokenizer)
arguments = TrainingArguments(
    output_dir=str(folder / "trainer"),
    max_steps=steps,
    per_device_train_batch_size=batch_size,
    per_device_eval_batch_size=batch_size,
    learning_rate=learning_rate,
    lr_scheduler_type="cosine",
    warmup_steps=steps // 20,
    weight_decay=0.1,
    max_grad_norm=1.0,
    eval_strategy="steps",
    eval_steps=every,
    fp16=runtime.dtype == torch.float16,
    bf16=runtime.dtype == torch.bfloat16,
    seed=runtime.seed,
    use_cpu=runtime.pick(cpu=True, gpu=False),
    dataloader_pin_memory=False,
    save_strategy="no",  # the rest keeps it quiet
    logging_strategy="no",
    report_to="none",
    disable_tqdm=True,
)

# %%
trainer = Trainer(
    model=AutoModelForCausalLM.from_pretrained(folder / "start"),
    args=arguments,
    train_dataset=windows(play_train),
    eval_dataset=windows(play_val),
    processing_class=AutoTokenizer.from_pretrained(folder / "start"),
    data_collator=transformers.default_data_collator,  # windows are of one length: nothing to pad
)
trainer.remove_callback(transformers.PrinterCallback)

x = torch.stack([row["input_ids"] for row in windows(play_val)]).to(runtime.device)  # (W, T)
with torch.no_grad():
    our_loss = model.loss(x[:, :-1], x[:, 1:]).item()
their_loss = trainer.evaluate()["eval_loss"]
print(f"loss on the windows: ours ≈ {our_loss:.4f}, theirs ≈ {their_loss:.4f}")
assert abs(our_loss / their_loss - 1) < runtime.pick(
    cpu=1e-4, gpu=1e-2
)  # a GPU computes in 16 bits

# %% [markdown]
# Before any training both see the same loss. And why that -100, the label that no loss counts? A window of T tokens has T - 1
# predictions, for nothing stands before the first. Most code gives that one its label all the same:

# %%
counted = trainer.evaluate(windows(play_val, first=0))["eval_loss"]
print(
    f"with a label for the first ≈ {counted:.4f}, which is ≈ {counted / their_loss:.4f} of the loss"
)
print(f"(T - 1) / T = {(T - 1) / T:.4f}")
assert min(abs(counted / their_loss - share) for share in (1, (T - 1) / T)) < 1e-3

# %% [markdown]
# In transformers 5.23, with which this notebook was built, `Trainer` adds up T - 1 losses and divides by T labels: every loss
# looks a little better than it is, and the shorter the window, the better. You find that only by measuring twice.
#
# Now let it run, and bring the result home: its weights in our GPT, measured as ours were.

# %%
trainer.train()
rows = [row for row in trainer.state.log_history if "eval_loss" in row]  # from this run
curve = {0: their_loss} | {row["step"]: row["eval_loss"] for row in rows if row["step"]}
from_trainer = from_gpt2(trainer.model.state_dict(), model.config).to(runtime.device)
perplexities["Trainer"] = measure(from_trainer)
plots.lines(
    {"llmkit": [0, *seen], "Trainer": list(curve)},
    {"llmkit": [watch_start[0], *play_losses], "Trainer": list(curve.values())},
    "Two training loops, one curve",
    xlabel="steps of fine-tuning",
    ylabel="loss on the held-out play (nats per token)",
)

# %% tags=["trained"]
ours_after, theirs_after = perplexities["fine-tuned"][0], perplexities["Trainer"][0]
print(f"perplexity on the play: llmkit ≈ {ours_after:.1f}, Trainer ≈ {theirs_after:.1f}")
assert abs(ours_after / theirs_after - 1) < 0.2


# %% [markdown]
# ## What we saw
#
# - Our GPT and GPT-2 differ in the prefix of the names and in four turned matrices a block; with those in place, the logits
#   are the same. One of the four is square: forget it, and no error tells you, a reference does.
# - `save_gpt2` and `load_gpt2` carry models to transformers and back without changing a bit.
# - A model pretrained on one kind of text starts with a perplexity on the other that is far above its own and far below
#   chance, and with a few steps of fine-tuning passes a model that got as many from random weights.
# - It pays with what it knew. The price does not show where one usually looks, on the new text.
# - `Trainer` starts at the same loss and ends at much the same place. Its names change; what they mean does not. But how it
#   counts is worth a check.
#
# We moved every one of the weights, and had to save all of them again. Would a hundredth part do? That is
# the question of notebook 12.
#
# ## Exercises
#
# **1 (warm-up).** Write down the number of parameters of a GPT-2 from its four sizes: V tokens, T positions, L layers, width C.
# (A block has two norms, and four matrices with a bias each.)

# %% tags=["exercise"]
def count(V: int, T: int, L: int, C: int) -> int:
    return 0  # your answer


print(count(50257, 1024, 12, 768))  # should become 124439808


# %% [markdown]
# **2 (medium).** `translate` goes one way. Write the way back: from our GPT to a dict of tensors that
# `GPT2LMHeadModel.load_state_dict(..., strict=False)` takes, so that the logits are the same again.

# %% tags=["exercise"]
def translate_back(ours: llmkit.GPT) -> dict[str, torch.Tensor]:
    return {}  # your answer


print(len(translate_back(ours)), "tensors")  # should become 28

# %% [markdown]
# **3 (medium).** Mix old text in: fine-tune again, on the play and a piece of the documentation a third as long. How much is
# still forgotten, and what does it cost on the play?

# %% tags=["exercise"]
mixed = None  # your answer: perplexities on play and documentation, from measure(...)

# %% [markdown]
# **4 (harder).** A third of the steps, at a tenth of the learning rate, at the same, and at four times as much: how much is
# gained on the play, how much is lost on the documentation? Is there a rate that gains without losing?

# %% tags=["exercise"]
by_rate = {}  # your answer: {rate: perplexities on play and documentation}


# %% tags=["solution"]
# @title Solution 1: counting
def count(V: int, T: int, L: int, C: int) -> int:
    matrices = 12 * C**2  # c_attn 3, c_proj 1, c_fc 4, c_proj 4
    biases = 9 * C  # 3 + 1 + 4 + 1
    norms = 2 * 2 * C  # a gain and a bias in each of the two
    return V * C + T * C + L * (matrices + biases + norms) + 2 * C


for name, (layers, _, width) in GPT2_SIZES.items():
    print(f"{name:12} {count(50257, 1024, layers, width):13,}")
assert count(50257, 1024, 12, 768) == 124_439_808
assert count(97, 32, 2, 60) == ours.num_parameters()


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
assert report.unexpected_keys == []
with torch.no_grad():
    assert torch.equal(empty(ids).logits, theirs(ids).logits)
packed = to_gpt2(ours)  # llmkit's
assert all(torch.equal(packed[name], weight) for name, weight in translate_back(ours).items())

# %% tags=["solution", "trained"]
# @title Solution 3: old text mixed in
old_piece = tokenizer.encode(old_train_text)[: len(play_train) // 3]
reminded = copy.deepcopy(model)
llmkit.train(reminded, torch.cat([play_train, old_piece]), config=settings)
mixed = measure(reminded)
for name, pair in {"play alone": after, "with old text": mixed}.items():
    print(f"{name:14} play ≈ {pair[0]:.1f}, documentation ≈ {pair[1]:.1f}")
assert mixed[1] < after[1]

# %% tags=["solution", "trained"]
# @title Solution 4: the learning rate
by_rate = {}
for factor in (0.1, 1, 4):
    rate = factor * learning_rate
    student = copy.deepcopy(model)
    brief = llmkit.TrainConfig(steps=max(1, steps // 3), batch_size=batch_size, learning_rate=rate)
    llmkit.train(student, play_train, config=brief)
    by_rate[rate] = measure(student)
    print(f"rate {rate:g}: play ≈ {by_rate[rate][0]:.1f}, documentation ≈ {by_rate[rate][1]:.1f}")
gentle, usual, bold = by_rate.values()
assert before[0] > gentle[0] > usual[0]  # more is gained ...
assert gentle[1] < usual[1] < bold[1]  # ... and more is lost
