# %% [markdown]
# # 08 · Generation
# *Choosing from a distribution, one token at a time.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/08_generation.ipynb)
#
# About 29 minutes to read, exercises aside.
#
# ← [07 · Perplexity](07_perplexity.ipynb) · [08b · The KV cache](08b_kv_cache.ipynb) →

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
# A language model does not write. It reads, and gives each possible next character a probability; notebook 07
# measured how good these are. Somebody still has to choose. Always the likeliest? At random? And if at random,
# how much of it?
#
# In this notebook we choose in every way that is in use and watch what becomes of the text. At the end there is a
# playground with all of them.

# %%
import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor

import llmkit
from llmkit import plots
from llmkit.evaluation import device_of
from llmkit.generation import next_token_probabilities
from llmkit.widgets import SamplingPlayground

runtime = llmkit.start(seed=1337)
runtime

# %%
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_text, val_text = llmkit.split(text)  # the last tenth is held out
train_ids, val_ids = tokenizer.encode(train_text), tokenizer.encode(val_text)  # (N,) each
V = tokenizer.vocab_size
print(f"{len(train_ids):,} characters to learn from, {len(val_ids):,} held out, {V} different ones")

# %% [markdown]
# The model is the GPT that you built in notebook 05, with rotary positions, trained as in notebook 06: with Muon, in
# some seconds. (Notebook 07 shows what it loses without the one or the other.) What follows holds for any model that
# gives scores, the largest included: there the tokens are pieces of words, and the choice is the same.

# %% tags=["trained"]
sizes = runtime.pick(
    cpu=dict(block_size=128, n_layer=2, n_head=4, n_embd=64),
    gpu=dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2),
)
budget = runtime.pick(
    cpu=dict(steps=550, batch_size=6, learning_rate=0.05),
    gpu=dict(steps=2_000, batch_size=64),
)
model = llmkit.GPT(llmkit.GPTConfig(V, position="rotary", **sizes)).to(runtime.device)
settings = llmkit.TrainConfig(**budget, optimizer="muon", seed=runtime.seed)
bar = llmkit.ProgressBar(bar_format="training {bar}")
llmkit.train(model, train_ids, config=settings, callbacks=[bar])
model.eval()  # no dropout from here on
val_loss = llmkit.evaluate(model, val_ids).loss
print(f"held-out loss ≈ {val_loss:.3f} nats per character")
assert val_loss < 1.6


# %% [markdown]
# ## One step, and again
#
# What does it expect after `The `?

# %% tags=["trained"]
@torch.no_grad()
def scores(ids: Tensor) -> Tensor:
    """The model's scores (logits) for what comes after ids (N,): (V,), on the CPU."""
    window = ids[-model.config.block_size :].to(runtime.device)  # it cannot see further back
    return model(window[None])[0, -1].float().cpu()  # (1, N) -> (1, N, V) -> (V,)


p = scores(tokenizer.encode("\nThe ")).softmax(dim=-1)  # (V,)
chances, ids = p.topk(12)  # (12,) each
plots.bars(
    [tokenizer.decode(i) for i in ids],
    chances,
    "After “The ” no letter is certain, and most are unlikely",
    xlabel="probability",
    ylabel="next character",
    fmt="{:.1%}",
)


# %% [markdown]
# To write is to choose one, add it to the text, and ask again. That is the whole loop; only `choose` will
# change from here on:

# %%
def write(start: str, max_new_tokens: int, choose) -> str:
    """Continue a text: choose(scores (V,), ids so far (N,)) gives the next id."""
    ids = tokenizer.encode(start)  # (N,)
    for _ in range(max_new_tokens):
        new = choose(scores(ids), ids)
        ids = torch.cat([ids, torch.tensor([int(new)])])  # (N + 1,)
    return tokenizer.decode(ids)


def greedy(scores: Tensor, ids: Tensor) -> Tensor:
    return scores.argmax()


# %% [markdown]
# Always taking the likeliest is called *greedy*. llmkit's `generate` has the same loop, and takes 0 for the
# temperature to mean greedy (we shall see why):

# %%
new = 100
by_hand = write("\n", new, greedy)
by_llmkit = llmkit.generate(model, tokenizer.encode("\n"), new, temperature=0)  # (1 + new,)
assert by_hand == tokenizer.decode(by_llmkit)
print(f"{len(by_hand) - 1} characters, the same from both")

# %% tags=["nbval-ignore-output", "sampled-text"]
max_new_tokens = runtime.pick(cpu=1_500, gpu=3_000)
greedy_ids = llmkit.generate(model, tokenizer.encode("\n"), max_new_tokens, temperature=0)
print(tokenizer.decode(greedy_ids)[:500])


# %% [markdown]
# It goes round in circles. How bad is it? Count the stretches of eight characters, and how many of them are different.
# To compare: a text *drawn from p*, with dice loaded with the model's own probabilities, and the play.

# %% tags=["trained"]
def distinct(text: str, length: int = 8) -> float:
    """The share of different ones among a text's stretches of so many characters."""
    pieces = [text[i : i + length] for i in range(len(text) - length + 1)]
    return len(set(pieces)) / max(1, len(pieces))


assert distinct("abcabcabc", length=3) == 3 / 7  # abc bca cab abc bca cab abc
drawn_ids = llmkit.generate(model, tokenizer.encode("\n"), max_new_tokens, seed=1)
people_ids = val_ids[: len(drawn_ids)]
texts = {"greedy": greedy_ids, "drawn from p": drawn_ids, "the play": people_ids}
share = {name: distinct(tokenizer.decode(ids)) for name, ids in texts.items()}
for name, value in share.items():
    print(f"{name:13} ≈ {value:.0%} of its stretches of 8 characters are different")
assert share["greedy"] < 0.7 * share["drawn from p"]
assert abs(share["drawn from p"] - share["the play"]) < 0.1

# %% [markdown]
# Dice do not go in circles: what they write is about as varied as the play. Why does greedy? What it takes depends only
# on what the model sees, and this model cares for little of that. Take places in the greedy text, keep the last n
# characters before each, and replace those further back by a piece of the play that has nothing to do with them. How
# often is the likeliest next character still the same?

# %% tags=["trained"]
last, same_choice = [2, 4, 8, 16, 32], []
places = range(len(greedy_ids) // 2, len(greedy_ids), 8)
for n in last:
    same = 0
    for i in places:
        mixed = torch.cat([val_ids[i : i + 64 - n], greedy_ids[i - n : i]])  # 64 in all
        same += int(scores(mixed).argmax() == greedy_ids[i])
    same_choice.append(same / len(places))
assert same_choice[3] > runtime.pick(cpu=0.8, gpu=0.3)  # the last sixteen
plots.bars(
    [f"last {n}" for n in last],
    same_choice,
    "The last characters decide nearly all that greedy writes",
    xlabel="share of the places where the choice stays the same",
    ylabel="characters kept",
    fmt="{:.0%}",
)

# %% [markdown]
# So once the last sixteen characters are as they have been before, what follows is most likely as it was then, and the
# circle is closed. Dice leave it sooner or later. Large models do look far back, and have a cause of their own: each
# repetition of a phrase makes the next one likelier ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751) measured
# it).
#
# And how surprising is each of the three texts as a whole?

# %% tags=["trained"]
surprise = {name: llmkit.evaluate(model, ids).loss for name, ids in texts.items()}
assert surprise["greedy"] < 0.75 * surprise["the play"]
assert abs(surprise["drawn from p"] - surprise["the play"]) < 0.4
plots.bars(
    list(surprise),
    list(surprise.values()),
    "People do not write the likeliest text: dice come nearer to them",
    xlabel="surprise to the model (nats per character)",
    highlight="the play",
    fmt="{:.2f}",
)

# %% [markdown]
# **The likeliest next character, again and again, does not make a likely text.** A text has about as much surprise as
# its language has, and greedy has little.
#
# ## Temperature: how loaded are the dice?
#
# Between greedy and the model's own dice there is a dial. Take a vocabulary of five, small enough to see all
# of it:

# %%
vowels = list("aeiou")
small = torch.tensor([1.0, 2.5, 1.5, 0.5, -1.0])  # (5,): scores for a e i o u
p = small.softmax(dim=-1)  # (5,)
print("  ".join(f"{letter} {chance:.3f}" for letter, chance in zip(vowels, p, strict=True)))
print(f"e : i = {p[1] / p[2]:.3f} : 1, and e^(2.5 - 1.5) = {math.e:.3f}")


# %% [markdown]
# Softmax turns *differences* of scores into *ratios* of probabilities. So divide all scores $z$ by a number τ (tau), the
# *temperature*:
#
# $$p_i = \frac{e^{\,z_i / \tau}}{\sum_j e^{\,z_j / \tau}}$$
#
# τ = 1/2 doubles the differences and squares the ratios; τ = 2 takes their roots.

# %%
def tempered(scores: Tensor, temperature: float) -> Tensor:
    return (scores / temperature).softmax(dim=-1)


cold, hot = tempered(small, 0.5), tempered(small, 2)
assert torch.isclose(cold[1] / cold[2], (p[1] / p[2]) ** 2)
assert torch.isclose(hot[1] / hot[2], (p[1] / p[2]) ** 0.5)
rows = {f"τ = {tau:g}": next_token_probabilities(small, tau) for tau in (0, 0.5, 1, 2, 10)}
table = torch.stack(list(rows.values()))  # (5 settings, 5 letters)
assert torch.allclose(table[1], cold)
plots.stacked_bars(
    list(rows),
    dict(zip(vowels, table.T, strict=True)),
    "Cold dice show one face; hot dice show all alike",
    xlabel="probability (each bar adds up to 1)",
)

# %% [markdown]
# At 0 the likeliest has everything: greedy. Towards infinity everybody has the same. The order of the letters never
# changes. Listen to the dial:

# %% tags=["nbval-ignore-output", "sampled-text"]
for tau in (0.3, 0.7, 1.0, 1.5):
    ids = llmkit.generate(model, tokenizer.encode("\n"), 150, temperature=tau, seed=3)
    print(f"---------- τ = {tau:g}\n{tokenizer.decode(ids).strip()}\n")

# %% [markdown]
# ## Cutting the tail
#
# At τ = 1 there are words like no others. Why? In each place most characters are unlikely, and there are many of them.
# How many have less than one chance in a hundred, and how much do these have together? Over 500 places of the held-out
# text:

# %% tags=["trained"]
first = val_text.find("\n\n", 200) + 2
places = range(first, first + 500)
z = torch.stack([scores(val_ids[i - 64 : i]) for i in places])  # (500, V): each with 64 before it
p_places = z.softmax(dim=-1)
unlikely = p_places < 0.01
count = unlikely.sum(dim=1).float().mean().item()
tail = p_places.where(unlikely, 0).sum(dim=1).mean().item()
print(f"≈ {count:.0f} of {V} characters have less than 1 %; together they have ≈ {tail:.1%}")
print(f"so one of them is drawn about once in ≈ {1 / tail:.0f} characters")
assert count > 45
assert 0.01 < tail < 0.08


# %% [markdown]
# One of them spoils a word for good. Lower τ and they vanish, but so does variety among the good
# ones. Better to cut them off. *Top-k* keeps the k likeliest and shares out the rest:

# %%
def top_k(p: Tensor, k: int) -> Tensor:
    least = p.topk(k).values[-1]  # the smallest that may stay
    kept = p.where(p >= least, 0)
    return kept / kept.sum()


assert torch.allclose(top_k(p, 2), next_token_probabilities(small, top_k=2))


# %% [markdown]
# But which k? After `Th` one or two letters make sense; after a space, twenty. *Top-p* (or *nucleus*, Holtzman et al.)
# asks instead how much probability to keep: the fewest tokens that have, say, nine tenths of it together.

# %%
def top_p(p: Tensor, share: float) -> Tensor:
    ranked, order = p.sort(descending=True)  # (V,) each
    before = ranked.cumsum(dim=-1) - ranked  # what the likelier ones have together
    kept = p.clone()
    kept[order[before >= share]] = 0  # they had enough without it
    return kept / kept.sum()


for share in (0.5, 0.8, 0.9, 0.99, 1.0):
    assert torch.allclose(top_p(p, share), next_token_probabilities(small, top_p=share), atol=1e-6)
rows = {"as it is": p, "top-k 2": top_k(p, 2), "top-p 0.9": top_p(p, 0.9)}
rows["τ = 0.5, top-p 0.9"] = next_token_probabilities(small, temperature=0.5, top_p=0.9)
table = torch.stack(list(rows.values()))  # (4, 5)
plots.stacked_bars(
    list(rows),
    dict(zip(vowels, table.T, strict=True)),
    "A cut takes the tail and keeps the other ratios",
    xlabel="probability (each bar adds up to 1)",
)

# %% [markdown]
# The first three bars show the same ratio of `e` to `i`: a cut changes no ratio among those it keeps. (Where several are
# set, llmkit takes temperature first, then k, then p.) Now the real thing. How many characters does top-p 0.9 keep,
# place by place, in a passage of the held-out text?

# %% tags=["trained"]
how_many = (next_token_probabilities(z, top_p=0.9) > 0).sum(dim=-1)[:250]  # (250,)
passage = val_text[first : first + 250]
plots.text_heat(
    passage,
    how_many,
    "Top-p leaves many where a word begins, and few within it",
    label="characters that top-p 0.9 keeps",
)

# %% tags=["trained"]
begins, within = [], []
for before, character, kept in zip("\n" + passage, passage, how_many.tolist(), strict=False):
    if character.isalpha():
        (within if before.isalpha() else begins).append(kept)
means = [sum(kept) / len(kept) for kept in (begins, within)]
print(f"kept at a word's first letter ≈ {means[0]:.1f}, within a word ≈ {means[1]:.1f}")
assert means[0] > 1.5 * means[1]

# %% [markdown]
# A fixed k is too large in one place or too small in the other. That is the case for top-p. A third cut asks the leader:
# *min-p* keeps whatever has at least a tenth, say, of the likeliest one's probability
# ([Nguyen et al. 2024](https://arxiv.org/abs/2407.01082)). It is exercise 3.
#
# ## Quality against variety
#
# What is the right temperature? Two things can be counted without a judge. *Quality*, in part: how many of the
# words are words of the play? *Variety*: how many stretches are different?

# %% tags=["trained"]
known = set(re.findall(r"[a-z']+", train_text.lower()))


def share_of_words(text: str) -> float:
    words = re.findall(r"[a-z']+", text.lower())
    return sum(word in known for word in words) / max(1, len(words))


people = val_text[:3_200]
print(f"{len(known):,} words occur in the training text; of the words of a held-out piece")
print(
    f"{share_of_words(people):.0%} are among them; {distinct(people):.0%} of its stretches differ"
)

# %% [markdown]
# Sixteen texts for each temperature, written in one batch:

# %% tags=["trained"]
max_new_tokens = runtime.pick(cpu=200, gpu=500)
starts = tokenizer.encode("\n").repeat(16, 1)  # (16, 1)
dial = [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
quality, variety = [], []
for tau in dial:
    rows = llmkit.generate(model, starts, max_new_tokens, temperature=tau, seed=0)  # (16, 1 + n)
    written = [tokenizer.decode(row) for row in rows]
    # The last word of each may be cut off, and is not judged.
    quality.append(share_of_words(" ".join(text[: text.rfind(" ")] for text in written)))
    variety.append(distinct("".join(written)))
assert quality[2] > quality[5] > quality[7]  # the hotter, the fewer words
assert variety[0] < variety[1] < variety[3] < variety[5]  # the colder, the more of the same
assert abs(variety[5] - distinct(people)) < 0.1
plots.lines(
    dial,
    {"words of the play": quality, "different stretches": variety},
    "Cold text has the right words, but the same ones over and over",
    xlabel="temperature",
    ylabel="share",
)

# %% [markdown]
# At 0 all sixteen texts are one, as there is nothing random in them. At 1 the model is as varied as the play, but it
# misspells more than when it is cold. When it is cold, it repeats itself. One cannot have both from this model; what
# lies between is a compromise with its mistakes.
#
# As a *prediction*, its own temperature is about right. The loss on the 500 places from above, with all scores divided
# by τ:

# %% tags=["trained"]
targets = val_ids[places.start : places.stop]  # (500,)
dial = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6]
losses = [F.cross_entropy(z / tau, targets).item() for tau in dial]
assert losses[dial.index(1.0)] < 1.05 * min(losses)  # no other temperature gains as much as 5 %
plots.lines(
    dial,
    {"held-out text": losses},
    "To predict, the model's own temperature is about the best",
    xlabel="temperature",
    ylabel="loss (nats per character)",
)


# %% [markdown]
# ## Against repetition
#
# Can greedy be cured of its circles? Forbid it to repeat. *What* may not be repeated matters: an `e` has to come again,
# and so has `the`. But a run of twelve characters need not. So look whether the last eleven occurred before, and take
# away whatever came after them then:

# %%
def without_repeats(length: int):
    """Greedy, but no run of so many characters may come a second time."""

    def choose(scores: Tensor, ids: Tensor) -> Tensor:
        ids = ids.tolist()
        last = ids[len(ids) - length + 1 :]  # the new character would complete a run
        for i in range(len(ids) - length + 1):
            if ids[i : i + length - 1] == last:
                scores[ids[i + length - 1]] = -torch.inf
        return scores.argmax()

    return choose


# %% tags=["trained"]
max_new_tokens = runtime.pick(cpu=500, gpu=1_000)
lengths = [4, 8, 12, 20, 30]
cured = {n: write("\n", max_new_tokens, without_repeats(n)) for n in lengths}
assert distinct(cured[4], length=4) == 1
assert distinct(cured[8]) > distinct(cured[30]) + 0.2
assert share_of_words(cured[4]) < share_of_words(cured[20])
plots.lines(
    lengths,
    {
        "words of the play": [share_of_words(text) for text in cured.values()],
        "different stretches": [distinct(text) for text in cured.values()],
    },
    "Forbid short runs and words break; forbid only long ones and circles remain",
    xlabel="length of the runs that may not come again (characters)",
    ylabel="share",
)

# %% tags=["nbval-ignore-output", "sampled-text"]
print(cured[12].strip()[:400])

# %% [markdown]
# This is done with pieces of words, too: three of them may not come a second time
# ([Paulus et al. 2017](https://arxiv.org/abs/1705.04304)). A milder way lowers the scores of all tokens used before
# ([Keskar et al. 2019](https://arxiv.org/abs/1909.05858); exercise 5). Each is a bandage: a refrain is a repetition too.
#
# ## Where to end, and words as they come
#
# A character model knows no end. Ours writes plays, and there a line ends in a newline: name it as `stop`, and it is
# the last token drawn.

# %% tags=["nbval-ignore-output", "sampled-text"]
newline = tokenizer.encode("\n").item()
start = tokenizer.encode("\nI have ")
line = llmkit.generate(model, start, 300, temperature=0.7, stop=newline, seed=5)
print(tokenizer.decode(line).strip())

# %% [markdown]
# Large models have a token that means nothing but "the end"; it stands between the texts they learned from, and they
# learn to draw it. When the end is more than one token, as the empty line after a speech is, look at the text as it
# comes: `stream` hands out each token as soon as it is drawn, which is also how a chat can show words while
# the rest is still being written.

# %% tags=["nbval-ignore-output", "sampled-text"]
speech = "\n\nFirst "
for token in llmkit.stream(model, tokenizer.encode(speech), 400, temperature=0.7, seed=2):
    character = tokenizer.decode(token)
    speech += character
    print(character, end="")
    if speech.endswith("\n\n"):
        break  # what would have followed is never computed

# %% [markdown]
# ## A playground
#
# Everything at once. Move the sliders: the bars show what the next character is drawn from, and the text is
# drawn anew. (On a page without a running kernel you see a picture.)

# %%
playground = SamplingPlayground(model, tokenizer, "\nThe ", new_tokens=300)
playground.temperature.value = 0.7
playground.top_p.value = 0.9
playground

# %% [markdown]
# Things to try: temperature 0 and any seed · top k 1, and compare · temperature 2, then turn top p down until there are
# words again · a prompt that no play would have.
#
# ## What we saw
#
# - Greedy writes in circles: the last few characters decide what it takes next, and sooner or later they come again.
#   Its text is far less surprising than a play is. Dice with the model's own probabilities come nearer.
# - Temperature τ turns ratios of probabilities into their 1/τ-th powers: 0 is greedy, 1 the model, infinity
#   blind.
# - Unlikely characters are many, and together they are drawn often enough to spoil words. Top-k, top-p and min-p cut
#   them off and keep the ratios of the rest. Top-p keeps many where a word begins and few within it.
# - The colder, the more words of the play and the fewer new ones. At temperature 1 this model is as varied as
#   the play, and spells worse.
# - Repetition can be forbidden, at a price.
#
# One thing was wasted all the time: for each new character our `write` lets the model read the whole window again.
# [Notebook 08b](08b_kv_cache.ipynb) computes nothing twice.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · By hand** (easy, 5 minutes). Three tokens have probabilities 1/2, 1/4 and 1/4. Predict, on paper: what are they
# at temperature 1/2? And what does top-p 0.6 leave of them, at temperature 1? (Among equals the first stays longer.)

# %% tags=["exercise"]
by_hand = None  # your answer: ([three at temperature 1/2], [three with top-p 0.6])

# %%
check("08.by_hand", by_hand)

# %%
hint("08.by_hand")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · A dial without scores** (easy, 5 minutes). Some services return probabilities only, and the scores stay with
# them. Can the temperature still be changed? Write it. At temperature 1/2, `[0.5, 0.3, 0.2]` should become 0.658, 0.237
# and 0.105.

# %% tags=["exercise"]
def change_temperature(p: Tensor, temperature: float) -> Tensor:
    """Probabilities (V,) at temperature 1 -> those at another one, above 0: (V,)."""


# %%
check("08.change_temperature", change_temperature)


# %% [markdown]
# **3 · A cut that asks the leader** (easy, 5 minutes). *Min-p* keeps every token that has at least a share m of the
# likeliest one's probability. Write it. How many of the five vowels stay with m = 0.2?

# %% tags=["exercise"]
def min_p(p: Tensor, m: float) -> Tensor:
    """Probabilities (V,) -> those that are left, (V,), which sum to one."""


# %%
check("08.min_p", min_p)


# %% [markdown]
# **4 · Repair it: the dice** (medium, 10 minutes). To draw from p, stack the probabilities into a tower and throw a
# dart at it: the token in whose floor the dart lands is drawn. Here u, a random number from 0 to just below 1, says how
# high. This works nearly always. Twice in a long while it draws what it never should: once for a certain u, once
# because rounded probabilities need not sum to 1. Find both, and mend them.

# %% tags=["exercise"]
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    return int((heights < u).sum())


# %%
check("08.draw", draw)


# %% [markdown]
# **5 · Repair it: the penalty** (medium, 10 minutes). The *repetition penalty* of Keskar et al. divides the score of
# each token that has been used by a number above 1, say 1.2. This is that sentence in code. For some tokens it does the
# opposite of what it should: for which? Besides, one thing happens to the caller. Mend both, and keep what is right: a
# token is penalised once, however often it was used.

# %% tags=["exercise"]
def penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores (V,), less for every token that occurs in ids (N,): (V,)."""
    used = ids.unique()
    scores[used] /= penalty
    return scores


# %%
check("08.penalised", penalised)


# %% [markdown]
# **6 · Looking further ahead** (hard, 25 minutes). *Beam search* keeps not one text but the `width` likeliest so far,
# lets each go on in every way, and again keeps the likeliest. The check has tiny models; then try 40 characters with
# the GPT. Does it find a text of lower total surprise than greedy does? Is it a better text?

# %% tags=["exercise"]
def beam_search(model, ids: Tensor, new: int, width: int) -> tuple[Tensor, float]:
    """The likeliest text found, (N + new,), and the sum of -ln p over its new tokens."""


# %%
check("08.beam_search", beam_search)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: by hand
at_half = [2 / 3, 1 / 6, 1 / 6]  # squares 1/4, 1/16, 1/16, divided by their sum 3/8
with_top_p = [2 / 3, 1 / 3, 0]  # 1/2 is not enough, so one of the two equals; the first
by_hand = at_half, with_top_p
three = torch.tensor([1 / 2, 1 / 4, 1 / 4]).log()
assert torch.allclose(next_token_probabilities(three, 0.5), torch.tensor(at_half))
assert torch.allclose(next_token_probabilities(three, top_p=0.6), torch.tensor(with_top_p))
check("08.by_hand", by_hand)


# %% tags=["solution"]
# @title Solution 2: a dial without scores
def change_temperature(p: Tensor, temperature: float) -> Tensor:
    # ln p differs from the scores by a constant only, and softmax does not see it.
    return (p.log() / temperature).softmax(dim=-1)


check("08.change_temperature", change_temperature)


# %% tags=["solution"]
# @title Solution 3: a cut that asks the leader
def min_p(p: Tensor, m: float) -> Tensor:
    kept = p.where(p >= m * p.max(), 0)
    return kept / kept.sum()


left = min_p(small.softmax(-1), 0.2)
print("  ".join(f"{letter} {chance:.3f}" for letter, chance in zip(vowels, left, strict=True)))
assert (left > 0).sum() == 3
check("08.min_p", min_p)


# %% tags=["solution"]
# @title Solution 4: the dice
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    dart = u * heights[-1]  # below the top, whatever rounding has made of it
    return int((heights <= dart).sum())  # a floor of no height is passed, at the bottom too


check("08.draw", draw)


# %% tags=["solution"]
# @title Solution 5: the penalty
def penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    used = ids.unique()
    lowered = scores.clone()  # the caller's own scores stay as they are
    # A negative score divided by 1.2 is nearer to 0, and so the token would become likelier.
    lowered[used] = (scores / penalty).minimum(scores * penalty)[used]
    return lowered


check("08.penalised", penalised)


# %% tags=["solution", "trained"]
# @title Solution 6: looking further ahead
@torch.no_grad()
def beam_search(model, ids: Tensor, new: int, width: int) -> tuple[Tensor, float]:
    beams, totals = ids[None], torch.zeros(1)  # (B, N) and (B,)
    for _ in range(new):
        logits = model(beams.to(device_of(model)))[:, -1].float().cpu()  # (B, V)
        surprise = totals[:, None] - logits.log_softmax(dim=-1)  # (B, V): of every way to go on
        totals, flat = surprise.flatten().topk(min(width, surprise.numel()), largest=False)
        beam, token = flat // logits.size(-1), flat % logits.size(-1)  # (B,) each
        beams = torch.cat([beams[beam], token[:, None]], dim=1)
    return beams[0], totals[0].item()


one, eight = (beam_search(model, tokenizer.encode("\n"), 40, width) for width in (1, 8))
print(f"greedy ≈ {one[1]:.2f} nats, eight beams ≈ {eight[1]:.2f} nats")
assert tokenizer.decode(one[0]) == write("\n", 40, greedy)
assert eight[1] < one[1]
check("08.beam_search", beam_search)
