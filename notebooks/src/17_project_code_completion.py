# %% [markdown]
# # 17 · Project: code completion
# *The same kit on Python source: from the library on your own disk to a line of code with its perplexity.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/17_project_code_completion.ipynb)
#
# About 40 minutes to read, exercises aside.
#
# ← [16 · Bias and privacy](16_bias_privacy_filters.ipynb) · [18 · Project: several languages](18_project_multilingual.ipynb) →

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
# An editor that finishes your line of code seems to understand what you are doing. Does that take another kind of
# model?
#
# No. Code is text, and a completion is what a language model thinks likely to come next. In this project the kit of
# the earlier notebooks meets a new corpus, and every step is decided by a measurement: how to split, which tokens,
# what to beat. And code has something that a play does not have: a machine can say whether it is grammatical.
#
# Do not expect an assistant: those are trained for weeks on many GPUs, ours for half a minute on a CPU, and it will
# finish a few lines in a hundred to the letter. The question of this page is how one finds out how good a completion
# is.

# %%
import bisect
import copy
import math
import random
import textwrap
from collections import Counter
from dataclasses import replace

import torch

import llmkit
from llmkit import drawings, plots
from llmkit.evaluation import token_losses, windows
from llmkit.finetune import instructions
from llmkit.projects import code_completion, python_source, shares
from llmkit.speed import cpu

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## A corpus on every machine
#
# Python brings its own standard library as source. `python_source.library` reads it, and leaves out the tests, what
# other programs have generated, tables of numbers, and whatever does not parse. The licence of the [Python Software
# Foundation](https://docs.python.org/3/license.html) allows us to learn from it.
#
# Which files there are depends on your version of Python. So in this notebook even plain counts stand after an ≈, and
# may differ a little from yours.

# %%
everything = python_source.library()
share = runtime.pick(cpu=0.3, gpu=1.0)  # on a CPU, three files in ten are enough
files = [file for file in everything if random.Random(file.name).random() < share]
size = sum(len(file.text) for file in files)
print(f"≈ {len(everything)} files; we take ≈ {len(files)} of them")
print(f"≈ {size / 1e6:.1f} million characters")
assert len(everything) > 200
assert size > 1e6

# %% [markdown]
# `random.Random(name)` draws the same number for the same name everywhere: as far as the files are the same, you have
# the same ones as we.
#
# ## Split by file
#
# What is held out must be new. For a play we cut once, and the last tenth was new. Here we could cut every file into
# pieces of twenty lines, and hold out some of the pieces. Or we hold out *whole files*. Is there a difference?

# %%
val_fraction = runtime.pick(cpu=0.15, gpu=0.05)
train_files, val_files = python_source.split_files(files, val_fraction)
by_file = [file.text for file in train_files], [file.text for file in val_files]
print(f"≈ {len(train_files)} files to learn from, ≈ {len(val_files)} held out")
assert not {file.name for file in train_files} & {file.name for file in val_files}


def in_pieces(files: list, lines: int = 20) -> list[str]:
    """The text of all files, in pieces of so many lines."""
    texts = (file.text.splitlines(keepends=True) for file in files)
    return ["".join(text[i : i + lines]) for text in texts for i in range(0, len(text), lines)]


pieces = in_pieces(files)
random.Random(runtime.seed).shuffle(pieces)
cut = int(len(pieces) * val_fraction)
by_piece = pieces[cut:], pieces[:cut]


# %% [markdown]
# How many of the held-out lines stand, to the letter, in the training part? We count lines of twenty characters or
# more: that a `return True` comes again is no wonder.

# %%
def seen_before(train_texts: list[str], val_texts: list[str]) -> float:
    """The share of the longer held-out lines that are also in the training part."""
    known = {line.strip() for text in train_texts for line in text.split("\n")}
    lines = [line.strip() for text in val_texts for line in text.split("\n")]
    lines = [line for line in lines if len(line) >= 20]
    return sum(line in known for line in lines) / len(lines)


seen = {"whole files": seen_before(*by_file), "pieces of 20 lines": seen_before(*by_piece)}
assert seen["pieces of 20 lines"] > 1.4 * seen["whole files"]
percent = [100 * value for value in seen.values()]
title = "Held out in pieces, much more of the text was seen in training"
plots.bars(
    list(seen), percent, title, xlabel="held-out lines that are in training too (%)", fmt="{:.1f}"
)

# %% [markdown]
# **A file repeats itself.** Its names, its habits, lines that it has twice stand on both sides of a cut through it.
# Whoever tests on pieces partly tests the memory. ([Allamanis 2019](https://arxiv.org/abs/1812.06469) found the same
# for whole files: collections of code are full of copies, and scores measured on them came out up to twice as good as
# they should.) Even between whole files some lines come again. Which ones?

# %%
places = Counter(
    line for file in files for line in {line.strip() for line in file.text.split("\n")}
)
often = [line for line, _ in places.most_common(400) if len(line) >= 20]
for line in often[:3]:
    print(f"in ≈ {places[line]} files: {line}")
assert "def __eq__(self, other):" in often[:12]

# %% [markdown]
# They are lines that everybody writes: the customary last lines of a script, with either kind of quotes, a usual
# `except`, and soon after them the head of a common method. That is what code is like, and they stay.
#
# ## Tokens for code
#
# The tokens are chosen on the training files alone. `BPETokenizer` (notebook 09) starts from the 256 bytes, so nothing
# is ever unknown, and learns which neighbours to merge. We also want five special tokens: one that says where a file
# begins, and four that we need later, for filling a gap.

# %%
special = [code_completion.FILE, *code_completion.FILLING]
whole = llmkit.BPETokenizer.train("".join(by_file[0]), 256 + 1792 + len(special), special)
code = (
    "def add(self, item):\n    if item is None:\n        return self\n    self.items.append(item)\n"
)
ids = whole.encode(code)
pieces_of_code = [whole.decode([i]) for i in ids]
assert "".join(pieces_of_code) == code
assert any(piece.startswith("\n  ") for piece in pieces_of_code)
title = "The tokenizer has learned what code is made of, indentation included"
plots.token_boxes(pieces_of_code, ids.tolist(), title)

# %% [markdown]
# A line end *and* the indentation after it are one token. (The last space goes with the word after it; that is how
# GPT-2's regular expression cuts.) With single characters a model would spend four, eight, twelve steps on such an
# indentation.
#
# How many merges? More of them make a text shorter, and each token harder to predict. Bits per character are fair to
# both (notebook 09), and counting n-grams is a quick judge. We count on the first million characters of the training
# files, and try on their last 200,000.

# %% tags=["trained"]
sample, rest = "".join(by_file[0])[:1_000_000], "".join(by_file[0])[-200_000:]
judged = {}
print("vocabulary   characters a token   bits per character, counted")
for V in (256, 512, 1024, 2048):
    few = whole.first(V - 256)
    a, b = few.encode(sample), few.encode(rest)
    counting = [llmkit.NGram(a, order, few.vocab_size, discount=None) for order in (3, 4, 5)]
    lowest = min(each.loss(b) for each in counting)  # nats per token
    judged[V] = lowest * (len(b) - 1) / len(rest) / math.log(2)
    print(f"{V:10}   ≈ {len(rest) / len(b):16.2f}   ≈ {judged[V]:.2f}")
assert judged[1024] < 0.95 * judged[256]
assert abs(judged[2048] - judged[1024]) < 0.05 * judged[1024]

# %% [markdown]
# From bytes to 1,024 tokens much is gained, from there to 2,048 little; and each further token costs the network a
# row of its output layer at every step. We take 1,024, the special ones among them.
#
# ## What counting reaches
#
# The opponent counts on all of the training files and is measured on all of the held-out ones. We even let it choose
# its order by the held-out files, in its own favour:

# %% tags=["trained"]
tokenizer = whole.first(1024 - 256 - len(special))
V = tokenizer.vocab_size  # 1,024
train_ids = code_completion.encode(by_file[0], tokenizer)  # (N,)
val_ids = code_completion.encode(by_file[1], tokenizer)
characters = sum(map(len, by_file[1]))
bits = {}
counters = {order: llmkit.NGram(train_ids, order, V, discount=None) for order in (2, 3, 4)}
for order, each in counters.items():
    bits[order] = each.loss(val_ids) * (len(val_ids) - 1) / characters / math.log(2)
order = min(bits, key=bits.get)
counter, counted = counters[order], bits[order]
print(f"≈ {len(train_ids):,} tokens to learn from, ≈ {len(val_ids):,} held out")
print(f"counting reaches ≈ {counted:.3f} bits per character")
assert counted < 2.6

# %% [markdown]
# And what would it seem to reach if we had held out pieces?

# %% tags=["trained"]
a, b = (code_completion.encode(texts, tokenizer) for texts in by_piece)
flattered = llmkit.NGram(a, order, V, discount=None).loss(b) * (len(b) - 1)
flattered /= sum(map(len, by_piece[1])) * math.log(2)
print(f"whole files ≈ {counted:.3f}, pieces ≈ {flattered:.3f} bits per character")
assert flattered < 0.97 * counted

# %% [markdown]
# The same model, the same corpus: only the split is kinder. A network, which remembers more, would gain more by it.
#
# ## A network
#
# The GPT of notebook 05 with rotary positions is trained by the Muon of notebook 06. On a CPU it reads somewhat fewer
# tokens than the counter has counted: code is large, and seconds are few.

# %% tags=["trained"]
T = runtime.pick(cpu=128, gpu=256)  # the context, in tokens
shape = runtime.pick(
    cpu=dict(n_layer=2, n_head=2, n_embd=96),
    gpu=dict(n_layer=4, n_head=8, n_embd=256, dropout=0.1),
)
torch.manual_seed(runtime.seed)
config = llmkit.GPTConfig(V, T, position="rotary", bias=False, **shape)
model = llmkit.GPT(config).to(runtime.device)
steps = runtime.pick(cpu=800, gpu=2500)
batch_size = runtime.pick(cpu=8, gpu=32)
rate = runtime.pick(cpu=0.05, gpu=0.02)
dtype = cpu.best_dtype(runtime.device)  # half the bits, on a CPU that multiplies in them
settings = llmkit.TrainConfig(
    steps=steps, batch_size=batch_size, optimizer="muon", learning_rate=rate, dtype=dtype
)
with cpu.tuned(model):  # attention as a CPU likes it, see notebook 10
    llmkit.train(model, train_ids, config=settings)

# %% tags=["trained"]
report = llmkit.evaluate(model, val_ids, characters=characters)
print(f"the network: perplexity ≈ {report.perplexity:.1f} per token")
print(f"the network ≈ {report.bits_per_char:.3f}, counting ≈ {counted:.3f} bits per character")
assert report.bits_per_char < counted + 0.15


# %% [markdown]
# On a CPU, in these seconds, it comes near the counter and does not pass it. A counter knows a run of tokens once it has
# read it; a network has to read it several times. Does the network then know nothing that the counter does not? Ask
# both for the probability of each held-out token, and take the mean of the two.

# %% tags=["trained"]
def by_counter(ids: torch.Tensor) -> torch.Tensor:
    """p of each token but the first, from the shortest context to the longest: (N - 1,)."""
    p = torch.tensor(1 / V, dtype=torch.float64)
    for table, context in counter.contexts(ids[None]):
        p = table(context[0, 1:-1], ids[1:], p)
    return p


model.eval()
with torch.no_grad():
    read = windows(val_ids, T, T, batch_size=16)  # (16, T) each, side by side
    by_network = torch.cat([(-token_losses(model, x, y)).exp().flatten().cpu() for x, y in read])
by_both = (by_counter(val_ids) + by_network) / 2  # (N - 1,)
mixed = -by_both.log2().sum().item() / characters
print(f"the mean of both ≈ {mixed:.3f} bits per character")
gain = runtime.pick(cpu=min(counted, report.bits_per_char) - mixed, gpu=counted - mixed)
assert gain > runtime.pick(cpu=0.03, gpu=0)

# %% [markdown]
# **Together they do better than either alone, so they know different things.** The counter has every short run of
# tokens that stood in any training file. The network has no such list, but it sees up to 127 tokens of context where
# the counter sees three at most.
#
# ## What is easy in code, and what is hard
#
# `code_completion.surprise` spreads the bits that each token costs over its characters. Here is a piece of a held-out
# file:

# %% tags=["trained"]
short = python_source.functions(val_files, most_lines=9)
short = [f for f in short if max(map(len, (f.head + f.body).split("\n"))) < 64]  # lines that fit
chosen = max(short, key=lambda f: len(f.head + f.body))
text, shown = chosen.prompt + chosen.body, len(chosen.head + chosen.body)
of_text = code_completion.surprise(model, tokenizer, text)[-shown:]  # (characters,)
blank = torch.tensor([character in " \n" for character in text[-shown:]])
assert of_text[blank].mean() < 0.6 * of_text[~blank].mean()
plots.text_heat(
    text[-shown:],
    of_text.clamp(max=6),
    "Indentation is dark; what somebody had to choose is bright",
    label="bits per character (6 and above are one colour)",
)

# %% [markdown]
# How much does a name cost, or a bracket, or a keyword? Python's own `tokenize` says where each begins and ends, and
# `python_source.parts` gives each of them a kind:

# %%
small = "if x:\n    f(x)\n"
for kind, start, end in python_source.parts(small):
    print(f"{plots.visible(small[start:end]):6}{kind}")

# %% tags=["trained"]
texts = by_file[1][: runtime.pick(cpu=100, gpu=20)]
costs = code_completion.cost_by_kind(model, tokenizer, texts)
kinds = ["self", "closing bracket", "other sign", "keyword", "line end, indentation"]
kinds += ["name, again", "name, first time"]
each = {kind: costs[kind].bits / costs[kind].number for kind in kinds}
per_character = {kind: costs[kind].bits / costs[kind].characters for kind in kinds}
print(f"{'':23}characters   bits for the whole   bits per character")
for kind in kinds:
    length = costs[kind].characters / costs[kind].number
    row = f"{kind:23}≈ {length:6.1f}       ≈ {each[kind]:6.1f}"
    print(f"{row}               ≈ {per_character[kind]:.2f}")
assert 2 * max(each[kind] for kind in kinds[:-2]) < each["name, again"] < each["name, first time"]
assert 2 * max(per_character["self"], per_character["line end, indentation"]) < min(
    per_character[kind] for kind in ("closing bracket", "name, again", "name, first time")
)

# %%
plots.bars(
    kinds,
    [each[kind] for kind in kinds],
    "Names cost far more than anything else",
    xlabel="mean surprise (bits for the whole name, sign or line end)",
    fmt="{:.1f}",
)


# %% [markdown]
# A name is a choice among very many, and costs several times what a bracket or a keyword does. It is also longer.
# *Per character* a closing bracket is about as hard as a name: to know that something closes here, one must know what
# is open. Per character, what the layout decides is cheap: a line end with its indentation, a `self`. And a name that
# the file has used before costs somewhat less than a new one, but not much: copying it from far back has to be learned,
# and our network has hardly begun to.
#
# ## Completing a line
#
# A line is complete when the line end comes. With the simplest choice, always the likeliest token (*greedy*, notebook
# 08), a completion is a short loop:

# %%
def finish_line(model, prompt: str, most: int = 24) -> str:
    """What the model adds to the prompt before the next line end."""
    ids = tokenizer.encode(code_completion.FILE + prompt, allowed_special="all")[-(T - most) :]
    text = ""
    while "\n" not in text and most > 0:
        with torch.no_grad():
            scores = model(ids[None].to(runtime.device))[0, -1].cpu()  # (V,)
        ids = torch.cat([ids, scores.argmax()[None]])
        text, most = text + tokenizer.decode(ids[-1:]), most - 1
    return text.split("\n")[0]


# %% [markdown]
# llmkit's `complete` does the same for many prompts at once. (Where two tokens are equally likely, rounding may choose
# differently; so we ask for the same answer in four cases of five.)

# %%
model.eval()
prompts = [
    "import os\nimport",
    "class Node:\n    def __init__(self, name, parent=None):\n        self.name =",
    "for i in range",
    "try:\n    import ssl\nexcept",
    "    if not isinstance(value,",
]
ours = [finish_line(model, prompt) for prompt in prompts]
theirs = code_completion.complete(model, tokenizer, prompts, 24)
assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 4

# %% tags=["nbval-ignore-output", "sampled-text"]
for prompt, line in zip(prompts, theirs, strict=True):
    print(f"{prompt.splitlines()[-1].strip()} ⟶{line}")

# %% [markdown]
# ## Is it what the programmer wrote?
#
# Take a line of a held-out file, and give the model everything before a cut within it. Does it write the rest, to the
# letter? We cut once after half of the words of the line, and once after three quarters. There are two opponents: the
# counter, and a *look-up*, which searches the training lines that begin in the same way, and gives the most frequent
# rest.

# %%
n_tasks = runtime.pick(cpu=600, gpu=2000)
tasks_at = {
    at: random.Random(runtime.seed).sample(python_source.line_tasks(val_files, at), n_tasks)
    for at in (0.5, 0.75)
}
known = sorted(line.strip() for text in by_file[0] for line in text.split("\n"))


def look_up(prompt: str) -> str:
    """The most frequent rest of the training lines that begin as the prompt's last line."""
    half = prompt.rsplit("\n", 1)[-1].lstrip()
    start = bisect.bisect_left(known, half)
    end = bisect.bisect_left(known, half + chr(0x10FFFF))
    rests = Counter(line[len(half) :] for line in known[start:end])
    return rests.most_common(1)[0][0] if rests else ""


print("if __name__ ==" + look_up("if __name__ ==").replace("'", '"'))


# %% [markdown]
# A share of some hundred lines is itself uncertain. The interval of [Wilson
# (1927)](https://doi.org/10.1080/01621459.1927.10502953) holds the true share in about 95 of 100 such samples. (It
# takes the lines to be independent. Those of one file are not quite, so the true interval is a little wider.)

# %%
def interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share, right of n."""
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return middle - half, middle + half


low, high = interval(60, 600)
print(f"60 of 600: between {low:.1%} and {high:.1%}")
assert (low, high) == shares.interval(60, 600)  # llmkit's, which also draws it


# %% tags=["trained"]
def to_the_letter(lines: list[str], tasks: list) -> list[bool]:
    return [line.rstrip() == task.rest for line, task in zip(lines, tasks, strict=True)]


counter.config = replace(counter.config, block_size=8)  # it looks no further back: hand it no more
tasks = tasks_at[0.75]
prompts = [task.prompt for task in tasks]
halves = [task.prompt for task in tasks_at[0.5]]
said = {
    "network": code_completion.complete(model, tokenizer, prompts, 16),
    "counter": code_completion.complete(counter, tokenizer, prompts, 16),
    "look-up": [look_up(prompt) for prompt in prompts],
}
right = {name: to_the_letter(lines, tasks) for name, lines in said.items()}
half_given = code_completion.complete(model, tokenizer, halves, 16)
right["network, half given"] = to_the_letter(half_given, tasks_at[0.5])
assert sum(right["network"]) > 1.3 * sum(right["network, half given"])

# %% tags=["trained"]
shares.bars(
    list(right),
    [sum(marks) for marks in right.values()],
    [n_tasks] * len(right),
    "A few lines in a hundred come out to the letter, fewer with half given",
    xlabel="lines completed to the letter (%), with 95 % intervals",
)

# %% [markdown]
# To the letter is a hard test. Now look at the intervals. Those of the first three overlap, or nearly: a few hundred lines
# hardly tell which of three very different ways of completing is the best. **The loss is a finer measure than the score**: it
# takes in every token of the held-out files, not some hundred lines, and it gives credit for having nearly known. By
# kind of line:

# %% tags=["trained"]
names = ["import", "def, class", "return", "if, for, with", "assignment", "other", "text"]
groups = {name: [n for n, task in enumerate(tasks) if task.kind == name] for name in names}
groups = {name: group for name, group in groups.items() if group}
exact = {name: sum(right["network"][n] for n in group) for name, group in groups.items()}
code_lines = [n for name, group in groups.items() if name != "text" for n in group]
in_code = sum(right["network"][n] for n in code_lines) / len(code_lines)
in_text = exact["text"] / len(groups["text"])
print(f"in code ≈ {in_code:.0%}, in comments and docstrings ≈ {in_text:.0%}")
assert in_code > in_text
shares.bars(
    ["comment, docstring" if name == "text" else name for name in groups],
    list(exact.values()),
    [len(group) for group in groups.values()],
    "Some kinds of code can be completed, prose hardly ever",
    xlabel="lines completed to the letter (%), with 95 % intervals",
)

# %% [markdown]
# (Some kinds have few lines among our tasks, so their intervals are wide; and not every kind of code does better than
# prose.) A comment or docstring could go on in a hundred good ways. What does the network do where it is wrong?

# %% tags=["nbval-ignore-output", "sampled-text"]
wrong = [n for n in code_lines if not right["network"][n]][:40:5]
for n in wrong:
    half = tasks[n].prompt.rsplit("\n", 1)[-1].strip()
    print(f"{half}\n    its rest ⟶{said['network'][n]}\n    the file ⟶{tasks[n].rest}")

# %% [markdown]
# Often it is well formed, and about something else, with names that belong to other files. By this test another name
# for the same thing would be wrong too.
#
# ## Several tries
#
# An editor can offer a list. So let the network draw ten completions for each of some lines of code, at a temperature
# of 0.8, and ask whether *one* of k is right: *pass@k*, by which models for code are compared ([Chen and others
# 2021](https://arxiv.org/abs/2107.03374)). If c of n tries were right, the best estimate is the probability that k tries
# drawn from these n hold a right one. `shares.pass_at_k` computes it; exercise 2 repairs a wrong one.

# %% tags=["trained"]
tried = [tasks[n] for n in code_lines[:80]]
tries = [task.prompt for task in tried for _ in range(10)]
lines = code_completion.complete(model, tokenizer, tries, 16, temperature=0.8, seed=runtime.seed)
hits = to_the_letter(lines, [task for task in tried for _ in range(10)])
right_of_ten = torch.tensor(hits).view(-1, 10).sum(dim=1).tolist()  # for each task
ks = [1, 2, 5, 10]
passed = [sum(shares.pass_at_k(10, c, k) for c in right_of_ten) / len(tried) for k in ks]
for k, value in zip(ks, passed, strict=True):
    print(f"pass@{k}: ≈ {value:.1%}")
assert passed[-1] > 1.5 * passed[0]

# %% [markdown]
# In ten tries it finds far more lines than in one. It *can* write them; it does not know which one is meant. (Real
# comparisons do not look at letters: they *run* the tries against tests, in a sandbox, since code from a model is a
# stranger's code.)
#
# ## Completing a function
#
# Given a file up to a `def` line, write the body. It ends where a line is indented no more than the `def`: at the
# *dedent* (`until="block"`). To the letter it will hardly ever be right. But does it parse? Python's parser reads it,
# and runs nothing.

# %% tags=["trained"]
bodies = python_source.functions(val_files)
bodies = random.Random(runtime.seed).sample(bodies, min(80, len(bodies)))
heads = [function.prompt for function in bodies]


def bodies_by(model, **options) -> list[str]:
    return code_completion.complete(model, tokenizer, heads, 100, until="block", **options)


hot = dict(temperature=0.8, seed=runtime.seed)
drawn = {
    "programmers": [function.body for function in bodies],
    "network, greedy": bodies_by(model),
    "network, drawn": bodies_by(model, **hot),
    "counter, greedy": bodies_by(counter),
    "counter, drawn": bodies_by(counter, **hot),
}

# %% tags=["trained"]
parsed = {}
for name, texts in drawn.items():
    pairs = zip(bodies, texts, strict=True)
    snippets = [textwrap.dedent(function.head + text) for function, text in pairs]
    parsed[name] = sum(map(python_source.parses, snippets))
assert parsed["programmers"] == len(bodies)
assert max(parsed["network, greedy"], parsed["network, drawn"]) > parsed["counter, drawn"] + 2
shares.bars(
    list(parsed),
    list(parsed.values()),
    [len(bodies)] * len(parsed),
    "Some of the network's function bodies parse, few of the counter's",
    xlabel="function bodies that parse (%), with 95 % intervals",
)

# %% tags=["nbval-ignore-output", "sampled-text"]
for n in range(3):
    print(textwrap.dedent(bodies[n].head + drawn["network, greedy"][n]))

# %% [markdown]
# For a body to parse, every bracket and every quote must be closed, perhaps lines later: by then the counter, which sees
# three tokens at most, has forgotten them. But **that it parses says nothing about what it does.** The indentation
# fits, the names look like names, and nobody would expect these functions to work. Grammar can be read off the text;
# purpose cannot.
#
# ## Filling a gap
#
# In an editor the cursor mostly stands in the *middle* of a file. What comes after it says much about what belongs
# there, and our network cannot see it: it reads from left to right. The remedy is to change the text and not the
# model (*fill in the middle*, [Bavarian and others 2022](https://arxiv.org/abs/2207.14255)):

# %%
drawings.fill_in_the_middle()

# %% [markdown]
# `code_completion.rearranged` does that to tokens, with the four special tokens that we have kept for it. A copy of
# the network goes on training for a moment, on pieces of the training files, each with a gap at random:

# %% tags=["trained"]
fill_steps = runtime.pick(cpu=120, gpu=1000)
pieces = code_completion.gaps(by_file[0], tokenizer, count=batch_size * fill_steps, seed=1)
rows = [code_completion.rearranged(*piece, tokenizer) for piece in pieces]  # (N + 4,) each
filler = copy.deepcopy(model)
with cpu.tuned(filler):
    llmkit.train(
        filler,
        instructions.pad([(row[:-1], row[1:]) for row in rows], T),  # a row each, as in notebook 13
        config=replace(settings, steps=fill_steps, learning_rate=0.4 * rate),
    )

# %% [markdown]
# Does it read what comes after the gap? Measure it on held-out files twice: with the file's own text after the gap,
# and with another file's.

# %% tags=["trained"]
pieces = code_completion.gaps(by_file[1], tokenizer, count=300, seed=2)
others = [ids for ids, _, _ in pieces[1:] + pieces[:1]]
foreign = [
    (torch.cat([ids[:end], other[end:]]), start, end)
    for (ids, start, end), other in zip(pieces, others, strict=True)
]
own_bits = code_completion.gap_bits(filler, tokenizer, pieces)
foreign_bits = code_completion.gap_bits(filler, tokenizer, foreign)
left_bits = code_completion.gap_bits(model, tokenizer, pieces, rearrange=False)
print(f"bits per character with its own text after it ≈ {own_bits:.2f}")
print(f"with another file's text after it             ≈ {foreign_bits:.2f}")
print(f"the first network, from what is before it     ≈ {left_bits:.2f}")
assert own_bits < foreign_bits - 0.03

# %% [markdown]
# It has begun to: the right text after a gap makes the gap likelier. The order of the tokens is all that we changed.
# (The third number is the first network's, which sees only what stands before the gap.)
#
# ## Where a prompt may end
#
# One trap is of our own making. The tokenizer puts a space in front of a word: ` None` is one token. If your prompt
# ends in a space, that space becomes a token of its own, which hardly ever stood there in training. Here are the same
# tasks, one space further:

# %% tags=["trained"]
spaced = [n for n in code_lines if tasks[n].rest[:1] == " " and len(tasks[n].rest) > 1]
lines = code_completion.complete(model, tokenizer, [tasks[n].prompt + " " for n in spaced], 16)
after = sum(line.rstrip() == tasks[n].rest[1:] for line, n in zip(lines, spaced, strict=True))
before = sum(right["network"][n] for n in spaced)
print(f"cut before the space ≈ {before} right, after it ≈ {after}")
assert after < before

# %% [markdown]
# So the prompt that says *more* is completed worse. Tools for completion avoid this by taking back the last token and
# letting the model write it again (*token healing*): exercise 6 does it.
#
# ## A completion with its perplexity
#
# Last, a class that stands in no library. What does the model write, and how sure is it, per token, of its own line, of
# ours, and of ours with the words in disorder?

# %% tags=["trained"]
prompt = "class Basket:\n    def __init__(self, owner, items=None):\n"
prompt += "        self.owner = owner\n        self.items ="


def perplexity_of(rest: str) -> float:
    """Of the tokens of rest, given the prompt."""
    bits = code_completion.surprise(model, tokenizer, prompt + rest)[len(prompt) :]  # (characters,)
    return 2 ** (bits.sum().item() / len(tokenizer.encode(rest)))


[own] = code_completion.complete(model, tokenizer, [prompt], 24)
marks = {text: perplexity_of(text + "\n") for text in (own, " items or []", " [] items or")}
print(f"its own line: perplexity ≈ {marks[own]:.1f}")
for text in (" items or []", " [] items or"):
    print(f"{text.strip():12}: perplexity ≈ {marks[text]:.1f}")
assert marks[own] < marks[" items or []"] < marks[" [] items or"]

# %% tags=["nbval-ignore-output", "sampled-text"]
print(prompt + own)

# %% [markdown]
# It is surest of its own line, which it made of the likeliest token at each place. Of our two, it finds the one in order
# likelier. Whether its own is a good line, no perplexity can say.
#
# ## What we saw
#
# - The kit did not have to change for code: other files, other tokens, the same model and the same measure.
# - With pieces held out, far more of the lines had been seen in training, and the loss came out too low. Split by file.
# - Tokens that hold an indentation, or a whole keyword, save steps; bits per character said how many tokens to take.
# - A small network comes near the counter in seconds, and the mean of the two beats both. Names cost most, though per
#   character a closing bracket costs about as much.
# - A few lines come out to the letter, hardly any in comments; so few that the score could not rank the models, where
#   the loss could. In ten tries many more came out than in one.
# - Some of its function bodies parse, more than the counter's. What they do, no parser says.
# - With the text put into another order, the same network soon began to look at what comes after a gap.
# - What is still wrong: the names. Our network takes them from its memory, where it should take them from the file
#   before it. We expect that of longer training and a larger model, as on a GPU.

# %% [markdown]
# What do real models for code do beyond that? They are also given other files of the project ([Zhang and others
# 2023](https://arxiv.org/abs/2303.12570)). And what they learn from has licences and authors; [The
# Stack](https://arxiv.org/abs/2211.15533) keeps to permissive licences, removes near copies, and lets authors opt out.
#
# One model for one language. What happens if there are several?
#
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives
# one step more at each call. Worked solutions are folded away below.

# %%
import zlib  # for exercise 3

from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Ten tries** (easy, 3 minutes). Predict, on paper: of ten tries at a task, three were right. You draw some of
# the ten at random, none twice. With which probability is there a right one among them if you draw one, two, eight?

# %% tags=["exercise"]
tries_of_ten = None  # your answer: (one, two, eight)

# %%
check("17.tries_of_ten", tries_of_ten)

# %%
hint("17.tries_of_ten")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Repair it** (medium, 8 minutes). This should be pass@k. It runs and looks plausible, and is wrong in two ways.
# Compare it with your answers to exercise 1.

# %% tags=["exercise"]
def pass_at_k(n: int, c: int, k: int) -> float:
    """n tries, c of them right, k drawn"""
    all_wrong = 1.0
    for _ in range(1, k):
        all_wrong *= (n - c) / n
    return 1 - all_wrong


# %%
check("17.pass_at_k", pass_at_k)


# %% [markdown]
# **3 · Whole packages** (easy, 8 minutes). Files of one package resemble each other, so hold out whole packages: the
# part of a name before its first `/` (a file in no folder is a package of its own). A package is held out where the
# checksum `zlib.crc32` of its name in bytes lies below `val_fraction * 2**32`. Keep the order of the names. How many
# lines have been seen before now?

# %% tags=["exercise"]
def by_package(names: list[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """names such as "json/decoder.py" -> those to learn from, those held out"""


# %%
check("17.by_package", by_package)


# %% [markdown]
# **4 · Put it back** (medium, 12 minutes). A model was given `prefix, before, suffix, after, middle` and wrote the
# gap, and after it the token `end`; or it was stopped before that. Make the file of it: what stood before the gap,
# the gap, what stood after.

# %% tags=["exercise"]
def filled_in(ids: list[int], prefix: int, suffix: int, middle: int, end: int) -> list[int]:
    """the rearranged ids, and the four special ones -> the ids of the file"""


# %%
check("17.filled_in", filled_in)


# %% [markdown]
# **5 · Silence is an answer** (medium, 10 minutes). An editor may offer nothing. `doubts` says how many bits each
# completion cost the model, `right` (0 or 1) whether it was right. For k = 1, 2, ..., N: if only the k least doubtful
# completions are shown, which share of them is right? Before you draw the curve for our network: where is it highest?

# %% tags=["exercise"]
def shown_and_right(doubts: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """doubts (N,), right (N,) -> shares (N,)"""


# %%
check("17.shown_and_right", shown_and_right)


# %% [markdown]
# **6 · Token healing** (hard, 25 minutes). Take back the last token of a prompt, and let the model write one in its
# place: the likeliest of those whose text *begins with* the text that was taken back. `tokens[i]` is the text of
# token i, `scores(ids)` gives the scores (V,) of what follows ids.

# %% tags=["exercise"]
def healed(ids: list[int], tokens: list, scores) -> tuple[list[int], int]:
    """a prompt of two tokens or more -> the ids that are kept, and the one written after them"""


# %%
check("17.healed", healed)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: ten tries
one, two = 3 / 10, 1 - 7 / 10 * 6 / 9
tries_of_ten = (one, two, 1.0)  # only seven are wrong: of eight, one must be right
check("17.tries_of_ten", tries_of_ten)

# %% tags=["solution"]
# @title Solution 2: repair it


def pass_at_k(n, c, k):
    all_wrong = 1.0
    for drawn in range(k):  # the first draw counts too, and each one leaves a wrong one fewer
        all_wrong *= (n - c - drawn) / (n - drawn)
    return 1 - all_wrong


check("17.pass_at_k", pass_at_k)

# %% tags=["solution"]
# @title Solution 3: whole packages


def by_package(names, val_fraction):
    sides = [], []
    for name in names:
        package = name.split("/")[0]
        held_out = zlib.crc32(package.encode()) < val_fraction * 2**32
        sides[held_out].append(name)
    return sides


text_of = {file.name: file.text for file in files}
by_folder = by_package(list(text_of), 0.15)
share = seen_before(*([text_of[name] for name in side] for side in by_folder))
print(f"files ≈ {seen['whole files']:.1%}, packages ≈ {share:.1%} of the lines seen before")
check("17.by_package", by_package)

# %% tags=["solution"]
# @title Solution 4: put it back


def filled_in(ids, prefix, suffix, middle, end):
    second, third = ids.index(suffix), ids.index(middle)
    before, after, gap = ids[1:second], ids[second + 1 : third], ids[third + 1 :]
    if end in gap:
        gap = gap[: gap.index(end)]  # and what it wrote after that is dropped
    return before + gap + after


check("17.filled_in", filled_in)

# %% tags=["solution", "trained"]
# @title Solution 5: silence is an answer


def shown_and_right(doubts, right):
    order = doubts.argsort()  # the least doubtful first
    return right[order].cumsum(0) / torch.arange(1, len(right) + 1)


tails = [task.prompt[-250:] for task in tasks[:200]]
doubts = torch.zeros(len(tails))
for n, tail in enumerate(tails):
    line = said["network"][n] + "\n"
    doubts[n] = code_completion.surprise(model, tokenizer, tail + line)[-len(line) :].sum()
curve = shown_and_right(doubts, torch.tensor(right["network"][: len(tails)]).float())
print(f"right ≈ {curve[-1]:.0%} of all, ≈ {curve[len(tails) // 4 - 1]:.0%} of the surest quarter")
check("17.shown_and_right", shown_and_right)

# %% tags=["solution", "trained"]
# @title Solution 6: token healing


def healed(ids, tokens, scores):
    kept, taken = ids[:-1], tokens[ids[-1]]
    allowed = [i for i, text in enumerate(tokens) if text.startswith(taken)]
    found = scores(kept)
    return kept, max(allowed, key=lambda i: found[i])


def scores_of(ids):
    with torch.no_grad():
        return model(torch.tensor(ids)[None].to(runtime.device))[0, -1].tolist()


def mended(prompt):
    """The prompt as healing leaves it."""
    _, new = healed(tokenizer.encode(prompt)[-100:].tolist(), tokenizer.tokens, scores_of)
    taken = tokenizer.decode(tokenizer.encode(prompt)[-1:])
    return prompt.removesuffix(taken) + tokenizer.decode([new])


starts = [mended(tasks[n].prompt + " ") for n in spaced]
lines = code_completion.complete(model, tokenizer, starts, 16)
whole_lines = [(start + line).rstrip() for start, line in zip(starts, lines, strict=True)]
good = sum(w == tasks[n].prompt + tasks[n].rest for w, n in zip(whole_lines, spaced, strict=True))
print(f"with a space at the end ≈ {after} right, healed ≈ {good}, without it ≈ {before}")
check("17.healed", healed)
