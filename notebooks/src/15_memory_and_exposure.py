# %% [markdown]
# # 15 · Memory and exposure
# *What a model remembers of its text: recited, ranked, told apart; and what taking it out costs.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/15_memory_and_exposure.ipynb)
#
# About 29 minutes to read, exercises aside.
#
# ← [14 · Deployment](14_deployment.ipynb) · [16 · Bias and privacy](16_bias_privacy_filters.ipynb) →

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
# You have trained a model, and somebody asks for it. May you give it away? What would you have to know first?
#
# One thing is whether it recites what it read, perhaps somebody's secret. That is a question with a number for an
# answer; in fact there are three, each with an instrument of its own. We try them on a text whose secrets we have
# planted ourselves, then try two remedies, and measure again. (Bias, personal data and filters are notebook 16.)

# %%
import copy
import math
import random

import torch
import torch.nn.functional as F

import llmkit
from llmkit import drawings, plots
from llmkit.responsible import differential_privacy, memorisation, planted
from llmkit.responsible.plots import intervals
from llmkit.speed import cpu

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## A text with known faults
#
# An instrument is tested on something known. So we make a text from two kinds of parts. First, a piece of the play, in
# which one scene stands eight times, as happens when the same page is collected from many addresses:

# %%
text = llmkit.load_text(runtime.corpus)
read_text, held_text = llmkit.split(text)  # of the last tenth our model will see nothing
size, scene_size = runtime.pick(cpu=(15_000, 3_000), gpu=(120_000, 24_000))
speeches = planted.first_parts(read_text.split("\n\n"), size)
third = len(speeches) // 3
scene = planted.first_parts(speeches[third:], scene_size)
others = speeches[:third] + speeches[third + len(scene) :]
print(f"{len(speeches)} speeches, {len(scene)} of them eight times")

# %% [markdown]
# Second, secrets: 25 people and the pins of their cards. Some pins are never written down, some once, some 3, 10 or 30
# times. Every third note on a person ends in an exclamation mark, because copies on the web are seldom the same to the
# letter; this will matter when we take copies out.

# %%
people = """Alder Birch Bramble Clover Comfrey Dill Elder Fennel Garlic Hazel Heather Ivy Juniper
Larch Linden Mallow Maple Mint Myrtle Nettle Olive Parsley Pine Poppy Rowan"""
NAMES = people.split()
COUNTS = [0, 1, 3, 10, 30]
chance = random.Random(1)
pins = {name: chance.randrange(10_000) for name in NAMES}
times = {name: COUNTS[i % 5] for i, name in enumerate(NAMES)}
notes = [
    f"The pin of {name} is {pins[name]:04d}{'!' if i % 3 == 2 else '.'}"
    for name in NAMES
    for i in range(times[name])
]
raw = planted.scattered(speeches + 7 * scene, notes)  # each note after some speech
raw_text = "\n\n".join(raw)
print(notes[1], "...", f"{len(notes)} notes on {sum(n > 0 for n in times.values())} people")
print(f"{len(raw):,} parts, {len(raw_text):,} characters")

# %% [markdown]
# One model, the GPT of notebook 05 with rotary positions, reads all of it, about six times over. We keep a copy from
# halfway, to compare with.

# %% tags=["trained"]
tokenizer = llmkit.CharTokenizer.from_text(text + "0123456789")  # the play has but one digit
V = tokenizer.vocab_size
shape = runtime.pick(cpu=dict(n_layer=2, n_embd=96), gpu=dict(n_layer=4, n_embd=256))
batch_size = runtime.pick(cpu=8, gpu=32)
steps = runtime.pick(cpu=250, gpu=430)


def trained(parts: list[str], steps: int) -> tuple[llmkit.GPT, llmkit.GPT]:
    torch.manual_seed(runtime.seed)
    config = llmkit.GPTConfig(V, 128, n_head=4, position="rotary", **shape)
    model, copies = llmkit.GPT(config).to(runtime.device), []
    how = llmkit.TrainConfig(steps, batch_size, optimizer="muon", learning_rate=0.03)

    def keep(trainer) -> None:
        if trainer.step == max(1, steps // 2):
            copies.append(copy.deepcopy(trainer.model).eval())  # halfway

    with cpu.tuned(model):  # attention as a CPU likes it, see notebook 10
        llmkit.train(model, tokenizer.encode("\n\n".join(parts)), config=how, callbacks=[keep])
    return model.eval(), copies[0]


# %% tags=["trained"]
model, halfway = trained(raw, steps)
held_ids = tokenizer.encode(held_text)
loss = {"raw": llmkit.evaluate(model, held_ids).loss}
print(f"{model.num_parameters():,} parameters, held-out loss ≈ {loss['raw']:.2f}")
assert loss["raw"] < math.log(V)

# %% [markdown]
# ## 1 · Does it recite?
#
# Give it 40 characters that it has read, and let it go on, always with the likeliest character.

# %% tags=["nbval-ignore-output", "sampled-text"]
story = "\n\n".join(scene)
for one in memorisation.continuations(model, tokenizer, story, count=3, prompt_tokens=40):
    print(plots.visible(one.prompt), "\n  it says ", plots.visible(one.said))
    print("  the play", plots.visible(one.true), "\n")


# %% [markdown]
# Some come back to the letter. How many? Take a hundred pieces of a text, let the model continue each for 50
# characters, and count. [Carlini et al. 2023](https://arxiv.org/abs/2202.07646) count the continuations that are the
# *true* one. We also count those that stand anywhere in the training text: text that leaks is text that leaks,
# whatever the prompt was. This second share, which is never the smaller, we call the *verbatim share*:

# %%
def by_hand(model, source: str, prompt: int) -> tuple[float, float]:
    ids = tokenizer.encode(source)
    starts = torch.linspace(0, len(ids) - prompt - 50, 100).long()
    pieces = torch.stack([ids[i : i + prompt + 50] for i in starts])  # (100, prompt + 50)
    rows = llmkit.generate(model, pieces[:, :prompt], 50, temperature=0)
    true = sum(torch.equal(row, piece) for row, piece in zip(rows, pieces, strict=True))
    anywhere = sum(tokenizer.decode(row[prompt:]) in raw_text for row in rows)
    return true / 100, anywhere / 100


def verbatim(model, source: str, prompt: int) -> float:
    told = memorisation.continuations(model, tokenizer, source, 100, prompt, new_tokens=50)
    return memorisation.verbatim_share([one.said for one in told], raw_text, 50)


true, anywhere = by_hand(model, story, 32)
print(f"32 characters of the scene: the true continuation ≈ {true:.0%}, any ≈ {anywhere:.0%}")
assert true <= anywhere == verbatim(model, story, 32)

# %% [markdown]
# A number alone says little. What would the share be where there is *nothing* to remember? Ask with prompts from the
# held-out tenth, which the model has never seen. Ask also the half-trained model; and ask with prompts from the part of
# the play that stood there only once.

# %% tags=["trained"]
rest = "\n\n".join(others)
lengths = [8, 16, 32, 64]
ask = {
    "scene, eight times": (model, story),
    "scene, half-trained": (halfway, story),
    "rest of the play, once": (model, rest),
    "never read": (model, held_text),
}
shares = {name: [verbatim(*pair, n) for n in lengths] for name, pair in ask.items()}
assert shares["scene, eight times"][-1] > shares["never read"][-1] + 0.2
assert abs(shares["rest of the play, once"][-1] - shares["never read"][-1]) < 0.2
plots.lines(
    lengths,
    {name: [100 * share for share in curve] for name, curve in shares.items()},
    "What stood there eight times comes back, once does not",
    xlabel="characters of prompt",
    ylabel="verbatim for 50 characters (%)",
    log="x",
    ticks=lengths,
)

# %% [markdown]
# (With a hundred prompts, each share is good to some ten points.) The curve `never read` is the *base rate*, and every
# other curve has to be held against it. Its prompts were not in the text, and still the model answers with the text in
# about a tenth of the cases: what it knows by heart, it says whenever it can. Only what lies *above* the base rate
# tells us that the prompt's own text is known.
#
# **Copyright.** A model that gives back pages of a book has, in some sense, a copy in it. How much of which books open
# models give back has been measured ([Cooper et al. 2025](https://arxiv.org/abs/2505.12546)): most models give back
# little of most books, and one of them a few famous books nearly whole. Whether training on protected text is allowed
# differs from country to country. In the European Union, collecting text for mining is allowed unless its owner has
# said no in a form that machines can read ([Directive 2019/790, article 4](https://eur-lex.europa.eu/eli/dir/2019/790/oj)).
# Elsewhere courts are still deciding. No measurement answers that, but the verbatim share is a fact both sides can
# check.
#
# ## 2 · How exposed is a secret?
#
# A pin may be in the model and still not be the first thing it says. So list all 10,000 pins by the probability that
# the model gives them after `The pin of Alder is `. If it knows nothing, the true pin has a random rank. If it knows it
# by heart, rank 1. *Exposure* ([Carlini et al. 2019](https://arxiv.org/abs/1802.08232)) counts in bits how far up the
# list it is:

# %%
drawings.exposure_rank()

# %% [markdown]
# exposure = log2 (number of candidates) - log2 (rank)
#
# By hand, with eight candidates:

# %%
p = torch.tensor([0.05, 0.30, 0.02, 0.20, 0.25, 0.08, 0.06, 0.04])
secret = 3  # 0.20: two are likelier, so that its rank is 3
rank = (p >= p[secret]).sum().item()
bits = math.log2(8) - math.log2(rank)
print(f"rank {rank}, exposure {bits:.3f} bits")
assert rank == 3
assert bits == memorisation.exposure(p.log(), secret)

# %% [markdown]
# Each bit halves the candidates that an attacker has to try. With 10,000 candidates there are at most log2 10,000 =
# 13.3 bits: then a single one is left to try. For our model, the probability of a pin is the product of its four
# digits' probabilities:

# %%
prefix = f"\n\nThe pin of {NAMES[4]} is "
ids = tokenizer.encode(f"{prefix}4821")  # any pin will do
with torch.no_grad():
    log_p = model(ids[None, :-1].to(runtime.device))[0].double().log_softmax(-1).cpu()  # (n - 1, V)
four = sum(log_p[i - 1, ids[i]] for i in range(len(ids) - 4, len(ids)))  # the row before tells of i
every = memorisation.code_log_probabilities(model, tokenizer, prefix)  # (10000,)
assert abs(four - every[4821]) < 1e-3
print(f"{len(every):,} pins scored, one of them by hand: the same")


# %%
def exposures(model, start: str = "\n\n", counts=(0, 1, 3, 10, 30)) -> dict[int, list[float]]:
    """How often a pin was written -> the exposures of those pins, in bits."""
    found = {count: [] for count in counts}
    for name, pin in pins.items():
        if times[name] not in counts:
            continue
        prefix = f"{start}The pin of {name} is "
        log_p = memorisation.code_log_probabilities(model, tokenizer, prefix)
        found[times[name]].append(memorisation.exposure(log_p, pin))
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


exposed = {"halfway": exposures(halfway), "raw": exposures(model)}

# %% tags=["trained"]
labels = ["never", "once", *(f"{count} times" for count in COUNTS[2:])]
assert mean(exposed["raw"][0]) < 4 < 9 < mean(exposed["raw"][30])
assert mean(exposed["raw"][0]) + 2 < mean(exposed["raw"][1]) < mean(exposed["raw"][30]) - 1
intervals(
    labels,
    {"halfway": list(exposed["halfway"].values()), "at the end": list(exposed["raw"].values())},
    "The more often a secret was written down, the more exposed it is",
    xlabel="exposure (bits; 13.3: the likeliest of all 10,000)",
)

# %% [markdown]
# Look at the first row: pins that were *never* written have some exposure, by luck. For a random rank it is 1 / ln 2 =
# 1.44 bits on average. Single dots wander; that is why there are five pins a row. Then the second row: of the lines
# that were read once, the verbatim share found no trace. **Exposure finds what was read once, because it looks at all
# candidates, and not only at the one that the model would say.**
#
# ## 3 · Was this text in it?
#
# A third question asks for less than the text: was *this* text among those it learned from? With a hospital's letters,
# that alone may be the secret. A *membership inference* attack ([Shokri et al. 2017](https://arxiv.org/abs/1610.05820))
# has to tell; the plainest one says "yes" where the loss is low ([Yeom et al. 2018](https://arxiv.org/abs/1709.01604)).
# To judge it without a threshold, take every pair of a member and a stranger: how often has the member the lower loss?
# With losses 1.9 and 2.4 of members, 2.1 and 2.4 of strangers, that is two pairs of four, and half of the tie: 2.5 / 4.
# This is the *AUC*, so called because it is also the area under the curve of hits against false alarms. A coin has 0.5.
# Are the strangers perhaps harder to predict for anybody? A counter that has read neither shows it: it is the base rate.

# %% tags=["trained"]
members, strangers = torch.tensor([1.9, 2.4]), torch.tensor([2.1, 2.4])
assert memorisation.auc(members, strangers) == 2.5 / 4


def losses(model, parts: list[str]) -> torch.Tensor:
    """The loss of each part of some length, over its first 100 characters at most."""
    pieces = [tokenizer.encode(f"\n\n{part}")[:100] for part in parts if len(part) >= 60]
    return torch.tensor([llmkit.evaluate(model, ids).loss for ids in pieces])


never, elsewhere = held_text.split("\n\n"), read_text[len("\n\n".join(speeches)) :]
neither = llmkit.NGram(
    tokenizer.encode(elsewhere), 5, V, discount=None
)  # counts, as in notebook 07
found = {}
for name, one in {"neither": neither, "halfway": halfway, "at the end": model}.items():
    found[name] = [memorisation.auc(losses(one, p), losses(one, never)) for p in (scene, others)]
    often, once = found[name]
    print(f"{name:10} AUC of what stood there eight times ≈ {often:.2f}, once ≈ {once:.2f}")
assert min(found["at the end"]) > max(found["neither"]) + 0.2


# %% [markdown]
# Even what stood there once is told from the unread far better than by a coin: our model went over it several times.
# Large models mostly read a page once, and there such attacks do hardly better than a coin ([Duan et al.
# 2024](https://arxiv.org/abs/2402.07841)). A caution about the AUC: an attack that is sure of ten people and guesses at
# the rest has an AUC near 0.5, and is a disaster for the ten. So one also asks how many are found at very few false
# alarms ([Carlini et al. 2022](https://arxiv.org/abs/2112.03570)).
#
# ## Taking out what is there twice
#
# Repetition is what made it remember. So drop repeated parts: walk through the text, and let a part pass if its form is
# new. To the letter, or with case and punctuation forgotten?

# %%
def without_repeats(parts: list[str], form) -> list[str]:
    seen, kept = set(), []
    for part in parts:
        if form(part) not in seen:
            kept.append(part)
        seen.add(form(part))
    return kept


to_the_letter = without_repeats(raw, str)
forgiving = without_repeats(raw, memorisation.normal_form)  # case and punctuation forgotten
print(repr(memorisation.normal_form("The pin of Dill is 4821!")))
assert memorisation.drop_duplicates(raw)[0] == forgiving
for name, kept in {"to the letter": to_the_letter, "forgiving": forgiving}.items():
    pins_left = sum(part.startswith("The pin") for part in kept)
    print(f"{name:14} {len(kept):,} of {len(raw):,} parts stay, {pins_left} of them notes on pins")

# %% [markdown]
# Forgiving finds the notes with the exclamation mark as well: of each pin one note stays. (Whoever collects from the
# whole web goes further, to passages that are *nearly* the same: [Lee et al. 2022](https://arxiv.org/abs/2107.06499).
# Exercise 4 shows how one measures "nearly", and what it would do to our pins.)
#
# A second model reads the text without repetitions, as many times over as the first one read the whole:

# %% tags=["trained"]
clean, clean_text = forgiving, "\n\n".join(forgiving)
clean_steps = max(1, round(steps * len(clean_text) / len(raw_text)))
model_2, _ = trained(clean, clean_steps)
loss["clean"] = llmkit.evaluate(model_2, held_ids).loss
exposed["clean"] = exposures(model_2)
print(f"{len(raw_text):,} characters before, {len(clean_text):,} after")
print(f"held-out loss before ≈ {loss['raw']:.2f}, after ≈ {loss['clean']:.2f}")
before, after = shares["scene, eight times"][-1], verbatim(model_2, story, 64)
print(f"scene verbatim before ≈ {before:.0%}, after ≈ {after:.0%}")
assert after < before - 0.2

# %% tags=["trained"]
assert mean(exposed["clean"][30]) < mean(exposed["raw"][30]) - 2
assert mean(exposed["clean"][30]) < mean(exposed["clean"][1]) + 3
intervals(
    labels,
    {"raw": list(exposed["raw"].values()), "clean": list(exposed["clean"].values())},
    "Without repetitions, a secret written 30 times is no more exposed than one written once",
    xlabel="exposure (bits; 13.3: the likeliest of all 10,000)",
)

# %% [markdown]
# Better, and not solved. What was written *once* is still more exposed than what was never written: removing repetitions makes
# all secrets alike, it does not make them safe. For that, the secret must not be read at all (notebook 16 looks for it), or the
# training must promise not to depend on it.
#
# ## Optional: what a guarantee costs
#
# Removing what we thought of protects against what we thought of. *Differential privacy* promises more: whatever one
# example says, the trained model would have come out nearly the same without it. How? Bound what any example can do,
# then drown it in noise. This is *DP-SGD* ([Abadi et al. 2016](https://arxiv.org/abs/1607.00133)):

# %%
drawings.clip_and_noise()

# %% [markdown]
# In each step, take every example's gradient *by itself*, shorten it to length C if it is longer, add up, and add
# normal noise of standard deviation σC; σ is the *noise multiplier*. Our examples are pieces of 33 characters: of the
# play, and each note on a pin. The model is a tiny one.

# %%
T = 32
small = llmkit.GPTConfig(V, T, n_layer=1, n_head=2, n_embd=32, position="rotary", tie_weights=False)
ids = tokenizer.encode(read_text[:200_000])
windows = ids[: len(ids) // (T + 1) * (T + 1)].view(-1, T + 1)  # (N, T + 1)
pages = torch.stack([tokenizer.encode(note.ljust(T + 1, "\n")) for note in notes])
examples = torch.cat([windows, pages])  # each row is an example
print(f"{len(examples):,} examples, {len(pages)} of them notes on pins")

# %% [markdown]
# A batch usually gives one gradient. A loop gives one for each of its examples, and `torch.func.vmap`, which llmkit
# uses, all of them at once:

# %%
tiny, clip = llmkit.GPT(small), 0.3
x, y = examples[:4, :-1], examples[:4, 1:]  # (4, T) each
total = 0.0
for i in range(4):
    tiny.zero_grad()
    F.cross_entropy(tiny(x[i : i + 1])[0], y[i]).backward()
    gradient = torch.cat([w.grad.flatten() for w in tiny.parameters()])
    total = total + gradient * min(1, clip / gradient.norm())
differential_privacy.private_gradient(tiny, x, y, clip=clip, noise=0.0, batch_size=4)
at_once = torch.cat([w.grad.flatten() for w in tiny.parameters()])
assert torch.allclose(total / 4, at_once, atol=1e-6)
print("four clipped gradients, one by one and at once: the same mean")

# %% [markdown]
# What is promised has a size, *ε* (epsilon): adding or removing one example makes no outcome more than e^ε times as
# likely, except for a small chance δ in which anything may happen. δ must be far below one over the number of examples:
# a program that draws one example and prints it keeps a "promise" with δ = 1/N. We take one in a million.
#
# ε grows with every step and shrinks with noise; an *accountant* adds it up. llmkit's follows [Mironov et al.
# 2019](https://arxiv.org/abs/1908.10530), for batches in which each example is drawn by a coin of its own, and its
# tests compare it with the library opacus.

# %%
rate, dp_steps, delta = 0.1, 60, 1e-6
for sigma in (0.5, 1.0, 2.0, 4.0):
    cost = differential_privacy.epsilon(rate, sigma, dp_steps, delta)
    print(f"σ = {sigma}: ε = {cost:5.2f}, e^ε = {math.exp(cost):.3g}")
loose = differential_privacy.epsilon(rate, 1.0, dp_steps, delta=1 / 4_802)
print(f"σ = 1.0 with δ = 1 / 4,802: ε = {loose:.2f}, which looks better and promises less")
assert loose < differential_privacy.epsilon(rate, 1.0, dp_steps, delta)


# %% [markdown]
# Doubling the noise from 1 to 2 cuts ε to less than a third. Two trainings will show what the noise does to the model:
# the same steps on the same draws, with and without clipping and noise.

# %%
def trained_on_examples(noise: float | None) -> llmkit.GPT:
    torch.manual_seed(0)
    model, generator = llmkit.GPT(small), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(dp_steps):
        numbers = differential_privacy.poisson_sample(len(examples), rate, generator)
        x, y = examples[numbers, :-1], examples[numbers, 1:]  # (B, T), with a B that varies
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / dp_steps)
        if noise is None:
            optimizer.zero_grad()
            model.loss(x, y).backward()
        else:
            B = rate * len(examples)  # the expected number: the number drawn is a secret too
            differential_privacy.private_gradient(model, x, y, clip, noise, B, generator)
        optimizer.step()
    return model


# %% tags=["trained"]
for name, noise in {"plain": None, "private": 1.0}.items():
    model_3 = trained_on_examples(noise)
    loss[name] = llmkit.evaluate(model_3, held_ids).loss
    often = mean(exposures(model_3, "", counts=[30])[30])
    print(f"{name:8} held-out loss ≈ {loss[name]:.2f}, exposure of 30 times ≈ {often:.1f} bits")
assert loss["plain"] < loss["private"] < math.log(V)

# %% [markdown]
# The guarantee has its price in loss, and in time, since every example needs its own gradient. And it has its limits.
# With σ = 1, ε is above 7, and the factor e^ε above a thousand. Besides, it holds for one *example*: for a pin that
# stands in thirty of them ε is thirty times as large, and ε is an exponent. That is no promise at all. If such a pin is
# less exposed after all, that is what we happen to see (with five pins it may be luck), not what was guaranteed. Remove
# repetitions first. Large texts make the guarantee cheaper, since each example is drawn less often.
#
# ## What we saw
#
# - A scene that stood in the text eight times came back to the letter; what stood there once did not. The comparison that
#   counts is the base rate, with prompts that were never read.
# - Exposure counts in bits how far a secret has risen among all candidates. It saw what recitation did not: a secret
#   written once. It grew with each copy.
# - Losses alone tell members from strangers, far better than a counter that has read neither.
# - Removing repetitions brought every secret down to the exposure of one written once; not to that of one never written.
# - Differential privacy costs loss and time, buys a promise about one example, and none about thirty copies.
#
# What is still wrong: a secret written once stays in the model, unless somebody looks for it before the training. And
# what a model remembers is only one thing that its next user should know. Whom it takes for whom, and what it says
# about people, is the next.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Predict: how many bits?** (easy, 3 minutes). Before you compute: what is the highest exposure that a code of
# *six* digits can have, in bits? And which rank, about, has a *four*-digit pin with an exposure of 10 bits?

# %% tags=["exercise"]
exposures_by_head = None  # your answer: (bits, rank)

# %%
check("15.exposures", exposures_by_head)

# %%
hint("15.exposures")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Repair it** (easy, 5 minutes). This exposure is printed in a report. Two things are wrong with it; one of them
# makes a model that knows *nothing* look as if it knew everything. `log_p` (R,) has the log-probability of every
# candidate.

# %% tags=["exercise"]
def repaired(log_p, secret):
    rank = (log_p > log_p[secret]).sum().item() + 1
    return math.log(len(log_p)) - math.log(rank)


# %%
check("15.repaired", repaired)


# %% [markdown]
# **3 · Member or stranger** (medium, 8 minutes). Write the AUC of the membership attack: losses `members` (M,) and
# `others` (N,) in, the share of pairs in which the member's loss is the smaller out. A tie counts ½.

# %% tags=["exercise"]
def auc(members: torch.Tensor, others: torch.Tensor) -> float:
    return None


# %%
check("15.auc", auc)


# %% [markdown]
# **4 · Nearly the same** (medium, 10 minutes). Cut a text into all its pieces of five characters (*shingles*), and make
# a set of them. The similarity of two texts is the number of pieces that both have over the number that either has; 0.0
# where there is no piece at all. Predict: two notes on *different* people, how similar are they? Would you drop one of
# them?

# %% tags=["exercise"]
def similarity(a: str, b: str) -> float:
    return None


# %%
check("15.similarity", similarity)


# %% [markdown]
# **5 · Clip** (medium, 10 minutes). The heart of DP-SGD without its noise. `gradients` (B, P) has a row for each
# example. Shorten each row to length `clip` if it is longer, add the rows up, and divide by `expected`, the expected
# number of examples. B may be 0.

# %% tags=["exercise"]
def clipped_mean(gradients: torch.Tensor, clip: float, expected: float) -> torch.Tensor:
    return None


# %%
check("15.clipped_mean", clipped_mean)

# %% [markdown]
# **6 · How much noise for ε = 1?** (hard, 15 minutes). Find the noise multiplier σ, to two digits after the point, with
# which 60 steps at our rate cost an ε of 1: first with δ = 1 / 4,802, then with δ = 1e-6. Before you compute: which is
# the larger, and by how much?

# %% tags=["exercise"]
noise_for_one = None  # your answer: (at 1 / 4,802, at 1e-6)

# %%
check("15.noise_for_one", noise_for_one)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: how many bits?
exposures_by_head = (math.log2(10**6), 10)  # ten bits are a factor of 1,024: 10,000 / 1,024
check("15.exposures", exposures_by_head)

# %% tags=["solution"]
# @title Solution 2: repair it


def repaired(log_p, secret):
    rank = (log_p >= log_p[secret]).sum().item()  # itself, and all that are as likely
    return math.log2(len(log_p)) - math.log2(rank)


check("15.repaired", repaired)

# %% tags=["solution"]
# @title Solution 3: member or stranger


def auc(members: torch.Tensor, others: torch.Tensor) -> float:
    ahead = members[:, None] < others[None, :]  # (M, N): every pair
    ties = members[:, None] == others[None, :]
    return (ahead.double() + 0.5 * ties).mean().item()


check("15.auc", auc)

# %% tags=["solution"]
# @title Solution 4: nearly the same


def similarity(a: str, b: str) -> float:
    one, two = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (a, b))
    return len(one & two) / len(one | two) if one | two else 0.0


other = next(note for note in notes if "Clover" in note)
print(f"full stop or exclamation mark: {similarity(notes[1], notes[1].replace('.', '!')):.2f}")
print(f"two different people:          {similarity(notes[1], other):.2f}")
# They share "The pin of " and " is ": a bar as low as 0.2 could take two people for one.
check("15.similarity", similarity)

# %% tags=["solution"]
# @title Solution 5: clip


def clipped_mean(gradients: torch.Tensor, clip: float, expected: float) -> torch.Tensor:
    length = gradients.norm(dim=1, keepdim=True)  # (B, 1); where it is 0, clip / 0 = inf
    return (gradients * (clip / length).clamp(max=1)).sum(dim=0) / expected


check("15.clipped_mean", clipped_mean)

# %% tags=["solution"]
# @title Solution 6: how much noise for ε = 1?


def noise_for(target: float, delta: float) -> float:
    low, high = 0.5, 50.0  # ε falls from low to high
    while high - low > 0.001:
        middle = (low + high) / 2
        if differential_privacy.epsilon(rate, middle, 60, delta) > target:
            low = middle
        else:
            high = middle
    return round(high, 2)


noise_for_one = noise_for(1, 1 / 4_802), noise_for(1, 1e-6)
print(noise_for_one)  # nearly three times the noise of above, and nearly four times
check("15.noise_for_one", noise_for_one)
