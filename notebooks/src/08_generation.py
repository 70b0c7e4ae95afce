# %% [markdown]
# # 08 · Generation
# *Choosing from a distribution, one token at a time, and computing nothing twice.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/08_generation.ipynb)
#
# About 40 minutes to read, exercises aside.
#
# ← [07 · Perplexity](07_perplexity.ipynb) · [09 · Subword tokenizers](09_subword_tokenizers.ipynb) →

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
# A language model does not write. It reads, and gives each possible next character a probability; notebook 07
# measured how good these are. Somebody still has to choose. Always the likeliest? At random? And if at random,
# how much of it?
#
# In this notebook we choose in every way that is in use and watch what becomes of the text. Then we make it
# fast: a model that has read a hundred characters need not read them again to add one.

# %%
import html
import math
import re
import time

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

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
# The model is the GPT of notebook 05, trained here in some seconds. What follows holds for any model
# that gives scores, the largest included: there the tokens are pieces of words, and the choice is the same.

# %% tags=["trained"]
sizes = runtime.pick(
    cpu=dict(block_size=128, n_layer=2, n_head=4, n_embd=96),
    gpu=dict(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2),
)
budget = runtime.pick(
    cpu=dict(steps=300, batch_size=16, learning_rate=0.04),
    gpu=dict(steps=2_000, batch_size=64),
)
shape = llmkit.GPTConfig(V, position="rotary", **sizes)
settings = llmkit.TrainConfig(**budget, optimizer="muon", seed=runtime.seed)
model = llmkit.GPT(shape).to(runtime.device)
bar = llmkit.ProgressBar(bar_format="training {bar}")
llmkit.train(model, train_ids, config=settings, callbacks=[bar])
model.eval()  # no dropout from here on
val_loss = llmkit.evaluate(model, val_ids).loss
print(f"held-out loss ≈ {val_loss:.3f} nats per character")
assert val_loss < 1.7


# %% [markdown]
# ## One step, and again
#
# What does it expect after `The `?

# %% tags=["trained"]
@torch.no_grad()
def scores(ids: Tensor) -> Tensor:
    """The model's scores (logits) for what comes after ids (T,): (V,), on the CPU."""
    window = ids[-model.config.block_size :].to(runtime.device)  # it cannot see further back
    return model(window[None])[0, -1].float().cpu()  # (1, T) -> (1, T, V) -> (V,)


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
# To write is to choose one, put it behind the text, and ask again. That is the whole loop; only `choose` will
# change from here on:

# %%
def write(start: str, max_new_tokens: int, choose) -> str:
    """Continue a text: choose(scores (V,), ids so far (T,)) gives the next id."""
    ids = tokenizer.encode(start)  # (T,)
    for _ in range(max_new_tokens):
        new = choose(scores(ids), ids)
        ids = torch.cat([ids, torch.tensor([int(new)])])  # (T + 1,)
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
greedy_text = tokenizer.decode(greedy_ids)
print(greedy_text[:500])


# %% [markdown]
# It goes round in circles, and it must: greedy has no dice. What it writes depends only on the window it
# sees. Once a window comes back, so does all that followed it. How bad is it? Count the stretches of eight
# characters, and how many of them are different.

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
# *Drawn from p* means: throw dice loaded with the model's own probabilities. It does not go in circles: it is
# about as varied as the play. And how surprising is each of the three texts to the model?

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
# its language has, and greedy has little ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751) saw
# the same in GPT-2).
#
# ## Temperature: how loaded are the dice?
#
# Between greedy and the model's own dice there is a dial. Take a vocabulary of five, small enough to see all
# of it:

# %%
vowels = list("aeiou")
small = torch.tensor([1.0, 2.5, 1.5, 0.5, -1.0])  # (5,): scores for a e i o u
p = small.softmax(dim=-1)  # (5,)
print(
    "  ".join(f"{letter} {chance:.3f}" for letter, chance in zip(vowels, p.tolist(), strict=True))
)
print(f"e : i = {p[1] / p[2]:.3f} : 1, and e^(2.5 - 1.5) = {math.e:.3f}")


# %% [markdown]
# Softmax turns *differences* of scores into *ratios* of probabilities. So divide all scores by a number T, the
# *temperature*. T = 1/2 doubles the differences and squares the ratios; T = 2 takes their roots.

# %%
def tempered(scores: Tensor, temperature: float) -> Tensor:
    return (scores / temperature).softmax(dim=-1)


cold, hot = tempered(small, 0.5), tempered(small, 2)
assert torch.isclose(cold[1] / cold[2], (p[1] / p[2]) ** 2)
assert torch.isclose(hot[1] / hot[2], (p[1] / p[2]) ** 0.5)
assert torch.allclose(tempered(small, 1e6), torch.full((5,), 1 / 5), atol=1e-4)
assert torch.allclose(tempered(small, 0.01), next_token_probabilities(small, temperature=0))
rows = {f"T = {T:g}": next_token_probabilities(small, T) for T in (0, 0.5, 1, 2, 10)}
table = torch.stack(list(rows.values()))  # (5 settings, 5 letters)
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
for T in (0.3, 0.7, 1.0, 1.5):
    ids = llmkit.generate(model, tokenizer.encode("\n"), 150, temperature=T, seed=3)
    print(f"---------- T = {T:g}\n{tokenizer.decode(ids).strip()}\n")


# %% [markdown]
# ## Cutting the tail
#
# At T = 1 the model now and then takes a character of probability 1/1000. There are many such, together they come up
# often, and one of them spoils a word for good. Lower T and they vanish, but so does variety among the good
# ones. Better to take the scissors. *Top-k* keeps the k likeliest and shares out the rest:

# %%
def top_k(p: Tensor, k: int) -> Tensor:
    least = p.topk(k).values[-1]  # the smallest that may stay
    kept = p.where(p >= least, 0)
    return kept / kept.sum()


assert torch.allclose(top_k(p, 2), next_token_probabilities(small, top_k=2))


# %% [markdown]
# But which k? After `Th` one or two letters make sense; after a space, twenty. *Top-p* (or *nucleus*) asks
# instead how much probability to keep: the fewest tokens that have, say, nine tenths of it together.

# %%
def top_p(p: Tensor, share: float) -> Tensor:
    ranked, order = p.sort(descending=True)  # (V,) each
    before = ranked.cumsum(dim=-1) - ranked  # what the likelier ones have together
    kept = p.clone()
    kept[order[before >= share]] = 0  # they had enough without it
    return kept / kept.sum()


for share_kept in (0.5, 0.8, 0.9, 0.99, 1.0):
    assert torch.allclose(
        top_p(p, share_kept), next_token_probabilities(small, top_p=share_kept), atol=1e-6
    )
rows = {"as it is": p, "top-k 2": top_k(p, 2), "top-p 0.9": top_p(p, 0.9)}
rows["T = 0.5, top-p 0.9"] = next_token_probabilities(small, temperature=0.5, top_p=0.9)
table = torch.stack(list(rows.values()))  # (4, 5)
plots.stacked_bars(
    list(rows),
    dict(zip(vowels, table.T, strict=True)),
    "The scissors take the tail and keep the other ratios",
    xlabel="probability (each bar adds up to 1)",
)


# %% [markdown]
# The first three bars show the same ratio of `e` to `i`: a cut changes no ratio among those it keeps. (Where several are
# set, llmkit takes temperature first, then k, then p.) Now the real thing. How many characters does top-p 0.9 keep,
# place by place, in a passage of the held-out text?

# %% tags=["trained"]
@torch.no_grad()
def many_scores(ids: Tensor, first: int, last: int) -> Tensor:
    """The scores for the characters first ... last - 1 of ids, each with 64 before it: (n, V)."""
    windows = ids[first - 64 : last - 1].unfold(0, 64, 1)  # (n, 64)
    return model(windows.to(runtime.device))[:, -1].float().cpu()


first = val_text.find("\n\n", 200) + 2
last = first + 250
p_passage = next_token_probabilities(many_scores(val_ids, first, last), top_p=0.9)  # (n, V)
how_many = (p_passage > 0).sum(dim=-1)  # (n,)
plots.text_heat(
    val_text[first:last],
    how_many,
    "Top-p leaves many where a word begins, and few within it",
    label="characters that top-p 0.9 keeps",
)

# %% tags=["trained"]
begins = torch.tensor(
    [val_text[i].isalpha() and not val_text[i - 1].isalpha() for i in range(first, last)]
)
within = torch.tensor(
    [val_text[i].isalpha() and val_text[i - 1].isalpha() for i in range(first, last)]
)
means = [how_many[places].float().mean().item() for places in (begins, within)]
print(f"kept at a word's first letter ≈ {means[0]:.1f}, within a word ≈ {means[1]:.1f}")
assert means[0] > 1.5 * means[1]

# %% [markdown]
# A fixed k is too large in one place or too small in the other. That is the case for top-p.
#
# ## Quality against variety
#
# What is the right temperature? Two things can be counted without a judge. *Quality*, in part: how many of the
# words are words of the play? *Variety*: how many stretches are different? Sixteen texts for each temperature, written
# in one batch (see below):

# %% tags=["trained"]
known = set(re.findall(r"[a-z']+", train_text.lower()))


def share_of_words(text: str) -> float:
    words = re.findall(r"[a-z']+", text.lower())
    return sum(word in known for word in words) / max(1, len(words))


print(f"{len(known):,} words are known; of the held-out text's, {share_of_words(val_text):.1%}")

# %% tags=["trained"]
max_new_tokens = runtime.pick(cpu=200, gpu=500)
starts = tokenizer.encode("\n").repeat(16, 1)  # (16, 1)
temperatures = [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
quality, variety = [], []
for T in temperatures:
    rows = llmkit.generate(model, starts, max_new_tokens, temperature=T, seed=0)  # (16, 1 + n)
    written = [tokenizer.decode(row) for row in rows]
    quality.append(share_of_words(" ".join(text[: text.rfind(" ")] for text in written)))
    variety.append(distinct("".join(written)))
people = val_text[: 16 * max_new_tokens]
curves = {"words of the play": quality, "different stretches": variety}
curves["the play: words"] = [share_of_words(people)] * len(temperatures)
curves["the play: stretches"] = [distinct(people)] * len(temperatures)
assert quality[2] > quality[5] > quality[7]  # the hotter, the fewer words
assert variety[0] < variety[1] < variety[3] < variety[5]  # the colder, the more of the same
assert abs(variety[5] - distinct(people)) < 0.1
plots.lines(
    temperatures,
    curves,
    "Cold text has the right words, but the same ones over and over",
    xlabel="temperature",
    ylabel="share",
)

# %% [markdown]
# At 0 all sixteen texts are one, as there is nothing random in them. At 1 the model is as varied as the play, but it
# misspells more than when it is cold. When it is cold, it repeats itself. One cannot have both from this model; what
# lies between is a compromise with its mistakes.
#
# As a *prediction*, its own temperature is about right. The loss on held-out text, with all scores divided by T:

# %% tags=["trained"]
logits = many_scores(val_ids, 200, 1_200)  # (1000, V)
targets = val_ids[200:1_200]  # (1000,)
dial = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6]
losses = [torch.nn.functional.cross_entropy(logits / T, targets).item() for T in dial]
assert losses[dial.index(1.0)] < 1.05 * min(losses)  # no other T gains as much as 5 %
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
# Can greedy be cured of its circles? Lower the score of whatever would repeat. *What* repeats matters: an `e` has to
# come again, and a model of characters that avoids all letters it has used soon runs out of them. So count longer runs:
# how often did the last few characters occur before, and what came after them?

# %%
def repeats(ids: Tensor, length: int) -> Tensor:
    """How many runs of `length` in ids (T,) each token would repeat, if it came next: (V,)."""
    runs = ids.unfold(0, length, 1)  # (T - length + 1, length)
    same = (runs[:, :-1] == ids[len(ids) - length + 1 :]).all(dim=-1)  # begin as the text ends
    return torch.bincount(runs[same, -1], minlength=V)


counted = repeats(tokenizer.encode("abcabdab"), length=3)  # after ab: once c, once d
expected = torch.zeros(V, dtype=torch.int64)
expected[tokenizer.encode("cd")] = 1
assert torch.equal(counted, expected)


def penalised(strength: float, length: int = 8):
    """Greedy, on scores that lose `strength` for each time that a run would be repeated."""

    def choose(scores: Tensor, ids: Tensor) -> Tensor:
        if len(ids) < length:
            return scores.argmax()
        return (scores - strength * repeats(ids, length)).argmax()

    return choose


# %% tags=["trained"]
max_new_tokens = runtime.pick(cpu=600, gpu=1_000)
strengths = [0, 0.5, 2, 8]
cured = {s: write("\n", max_new_tokens, penalised(s)) for s in strengths}
assert distinct(cured[2]) > distinct(cured[0]) + 0.1
assert share_of_words(cured[8]) <= share_of_words(cured[0])
curves = {
    "different stretches": [distinct(text) for text in cured.values()],
    "words of the play": [share_of_words(text) for text in cured.values()],
}
plots.lines(
    strengths,
    curves,
    "A small penalty breaks the circles; a large one costs words",
    xlabel="strength (taken off a score for each repetition)",
    ylabel="share",
)

# %% tags=["nbval-ignore-output", "sampled-text"]
print(cured[2].strip()[:400])

# %% [markdown]
# For pieces of words, of which there are tens of thousands, single tokens are penalised
# ([Keskar et al. 2019](https://arxiv.org/abs/1909.05858)). It is a bandage all the same: a refrain is a repetition too.
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

# %% tags=["trained"]
drawn = line[len(start) :]
assert drawn[-1] == newline
assert newline not in drawn[:-1]

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
# ## Why read it all again?
#
# Our `write` hands over the whole window for each character. The model reads a hundred characters, gives scores
# after each of the hundred, and we throw 99 away. Then once more with 101. What of this did it know already?
#
# In a GPT nothing looks ahead (notebook 04). So the first hundred positions come out the same, whatever is added behind
# them: a new token changes nothing before it. From the old ones it needs only what it *looks at*, in each layer: their
# keys and values. Keep those. Here is a whole GPT (that of notebook 05) reading one token:

# %%
@torch.no_grad()
def step(gpt: llmkit.GPT, token: Tensor, kept: list[tuple[list, list]]) -> Tensor:
    """Read one token id (1,) after those in `kept`, a (keys, values) per layer: scores (1, V)."""
    C, H, position = gpt.config.n_embd, gpt.config.n_head, len(kept[0][0])
    x = gpt.wte(token) + gpt.wpe.weight[position]  # (1, C)
    for block, (keys, values) in zip(gpt.h, kept, strict=True):
        q, k, v = block.attn.c_attn(block.ln_1(x)).view(3, H, 1, C // H)  # (H, 1, D) each
        keys.append(k)
        values.append(v)
        K, W = torch.cat(keys, dim=1), torch.cat(values, dim=1)  # (H, S, D) each, S so far
        out, _ = llmkit.attention(q, K, W)  # (H, 1, D): one query, and all the past
        x = x + block.attn.c_proj(out.reshape(1, C))
        x = x + block.mlp(block.ln_2(x))
    return gpt.lm_head(gpt.ln_f(x))


# %% [markdown]
# That is a *KV cache*. There is no mask in it: the one query is the last, and everything kept lies before it.
# Does it give the same? For that the weights need not be trained. We take 64-bit numbers and the processor, so that
# rounding cannot hide a mistake, and make the weights large, so that scores depend on all that was read:

# %%
config = llmkit.GPTConfig(V, block_size=64, n_layer=3, n_head=4, n_embd=32)
gpt = llmkit.GPT(config).double().eval()
with torch.no_grad():
    for weight in gpt.parameters():
        weight += 0.2 * torch.randn_like(weight)
ids = val_ids[:64]  # (64,)
kept = [([], []) for _ in gpt.h]
one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])  # (64, V)
with torch.no_grad():
    at_once = gpt(ids[None])[0]  # (64, V)
assert torch.allclose(one_by_one, at_once, atol=1e-10)
print(f"{one_by_one.shape[0]} tokens read one by one give the scores of one reading")

# %% [markdown]
# The same up to the 10th decimal: **the cache is no approximation**. llmkit's works like this, with memory set aside in
# advance. It is on by default, and with it or without it the tokens are the same:

# %%
for options in ({"temperature": 0}, {"seed": 1}, {"seed": 2, "top_p": 0.9}):
    cached = llmkit.generate(gpt, ids[:5], 50, **options)
    assert torch.equal(cached, llmkit.generate(gpt, ids[:5], 50, **options, use_cache=False))
print("greedy, drawn, and cut: three times the same", len(cached), "tokens")


# %% [markdown]
# ## What it saves
#
# Count multiplications. In each layer a token is multiplied with matrices of 12 C² numbers; then its query meets S keys,
# and S values are added up, 2 S C more. At the end the scores: V C.

# %%
def multiplications(config: llmkit.GPTConfig, S: int) -> int:
    """To read one token as the S-th, given the keys and values of the others."""
    C = config.n_embd
    return config.n_layer * (12 * C * C + 2 * S * C) + config.vocab_size * C


kept = [([], []) for _ in gpt.h]
for S in range(1, 41):
    with FlopCounterMode(display=False) as counter:  # PyTorch counts along; times and plus are two
        step(gpt, ids[:1], kept)
    assert counter.get_total_flops() == 2 * multiplications(config, S)
print(f"the 40th token: {multiplications(config, 40):,} multiplications, as counted by PyTorch")

# %% [markdown]
# Without a cache each new token costs the reading of all. (The scores of the last suffice, so V C comes once; and
# we count only pairs that may look at each other, which is generous: many programs compute the others and throw them
# away.)

# %%
shape = llmkit.GPTConfig(V, block_size=256, n_layer=4, n_head=4, n_embd=128)
lengths = range(1, 257)
outputs = V * shape.n_embd
with_cache = [multiplications(shape, S) for S in lengths]
without, reading = [], 0
for cost in with_cache:
    reading += cost - outputs  # all up to this one, read anew
    without.append(reading + outputs)
saved = sum(without) / sum(with_cache)
print(
    f"256 tokens: {sum(without):,} multiplications without, {sum(with_cache):,} with: {saved:.1f}x"
)
assert saved > 100
plots.lines(
    lengths,
    {"without": [n / 1e6 for n in without], "with a cache": [n / 1e6 for n in with_cache]},
    "Without a cache each token costs more than the one before",
    xlabel="characters so far",
    ylabel="multiplications for the next (millions)",
)

# %% [markdown]
# A hundred times less arithmetic. A hundred times faster? Let us see, on the processor:

# %%
timed = llmkit.GPT(shape)
seconds = {}
for use_cache in (True, False):
    started = time.perf_counter()
    llmkit.generate(timed, ids[:1], 255, seed=0, use_cache=use_cache)
    seconds[use_cache] = time.perf_counter() - started
print(f"with ≈ {seconds[True]:.2f} s, without ≈ {seconds[False]:.2f} s")
print(f"faster by a factor of ≈ {seconds[False] / seconds[True]:.1f}")
numbers = 2 * shape.n_layer * shape.block_size * shape.n_embd
print(f"the cache holds {numbers:,} numbers, {4 * numbers / 2**20:.0f} MiB")
assert seconds[True] < 0.7 * seconds[False]

# %% [markdown]
# Faster, but nowhere near a hundred times. One row against a matrix leaves the machine waiting for the *weights* to
# arrive from memory, and a small model spends its time between the products; reading 200 rows at once keeps it
# busy. What is left to use is the idle arithmetic: several texts at once.
#
# ## Many at a time

# %% tags=["trained"]
prompts = torch.stack(
    [tokenizer.encode(start) for start in ("\nThe ", "\nYou ", "\nAnd ", "\nWho ")]
)
together = llmkit.generate(model, prompts, 150, temperature=0.8, seed=10)  # (4, 5) -> (4, 155)
for row, prompt in enumerate(prompts):  # row b is drawn with dice of its own, seed + b
    alone = llmkit.generate(model, prompt, 150, temperature=0.8, seed=10 + row)  # (155,)
    assert torch.equal(alone, together[row])
print(f"{tuple(prompts.shape)} -> {tuple(together.shape)}, each row as if it had been alone")

# %%
started = time.perf_counter()
llmkit.generate(model, prompts[:1].repeat(16, 1), 100, seed=0)
at_once = time.perf_counter() - started
started = time.perf_counter()
for row in range(16):
    llmkit.generate(model, prompts[0], 100, seed=row)
in_turn = time.perf_counter() - started
print(f"16 texts in one batch ≈ {at_once:.2f} s, one after the other ≈ {in_turn:.2f} s")
assert at_once < 0.6 * in_turn

# %% [markdown]
# ## When the window is full
#
# A GPT has positions for `block_size` tokens. And then? Our `write` lets the window slide: forget the oldest,
# add the newest. But then every token stands one place further left than before, and what was kept about it no longer
# holds:

# %%
before = gpt(ids[None, :63])[0, -1]  # (V,): the last of 63 characters
slid = gpt(ids[None, 1:63])[0, -1]  # the same place in the text, the first character forgotten
changed = (before.softmax(-1) - slid.softmax(-1)).abs().max().item()
print(f"one character forgotten: the largest change of a probability ≈ {changed:.3f}")
assert changed > 1e-4


# %% [markdown]
# With a sliding window the cache would be useless from there on, and every character would cost a full reading.
# llmkit's rule: when the window is full, **keep its last half and read that anew**. Then there is room for half a window of
# cheap steps. How many tokens did the model read before each new one?

# %%
class Noting(llmkit.GPT):
    """A GPT that notes how many tokens it is given, and how many lie in its cache."""

    def forward(self, ids, cache=None, last_only=False):
        self.notes.append((ids.size(1), cache[0].length if cache else 0))
        return super().forward(ids, cache, last_only)


noting = Noting(llmkit.GPTConfig(V, block_size=8, n_layer=1, n_head=1, n_embd=8))
noting.notes = []
long = llmkit.generate(noting, ids[:3], 15, seed=0)
print("read   ", *(f"{read:2}" for read, _ in noting.notes))
print("in view", *(f"{read + kept:2}" for read, kept in noting.notes))
assert [read for read, _ in noting.notes[1:]] == [1, 1, 1, 1, 1, 5, 1, 1, 1, 5, 1, 1, 1, 5]
assert torch.equal(long, llmkit.generate(noting, ids[:3], 15, seed=0, use_cache=False))

# %% [markdown]
# Half a window read, half a window written: on the average two tokens read for each one written. The price
# is that the model sees, right after a cut, only half of what it could. That is why both ways follow this rule,
# with the cache and without it: the same seed gives the same text.
#
# ## A playground
#
# Everything at once. Move the sliders: the bars show what the next character is drawn from, and the text is
# drawn anew. (On a page without a running kernel you see a picture.)

# %%
playground = SamplingPlayground(model, tokenizer, "\nThe ", new_tokens=300)
playground.temperature.value = 0.7
playground.top_p.value = 0.9
playground

# %%
before = playground.text, playground.picture.value
playground.temperature.value = 1.6
assert playground.text != before[0]
assert playground.picture.value != before[1]
playground.prompt.value = "naïve"  # has no id, and no harm is done
print(html.unescape(playground.message.value).split(";")[0])
assert playground.text.startswith("\nThe ")
playground.prompt.value = "\nWhy "

# %% [markdown]
# Things to try: temperature 0 and any seed · top k 1, and compare · temperature 2, then turn top p down until there are
# words again · a prompt that no play would have.
#
# ## What we saw
#
# - Greedy writes in circles, and its text is far less surprising than a play is. Dice with the model's own
#   probabilities come nearer.
# - Temperature T turns ratios of probabilities into their 1/T-th powers: 0 is greedy, 1 the model, infinity
#   blind.
# - Top-k and top-p cut the tail and keep the ratios of the rest. Top-p keeps many where a word begins and few
#   within it.
# - The colder, the more words of the play and the fewer new ones. At temperature 1 this model is as varied as
#   the play, and spells worse.
# - A KV cache gives the same scores, for more than a hundred times fewer multiplications over 256 tokens; in time
#   it is much less, as one row does not keep a machine busy. A batch does.
# - A full window is halved and read anew.
#
# All this worked with characters, one at a time. A word of ten letters took ten steps, and the window of a hundred saw
# twenty words. Could a token be more than a character? That is notebook 09.

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · By hand** (easy, 5 minutes). Three tokens have probabilities 1/2, 1/4 and 1/4. Predict, on paper: what are
# they at temperature 1/2? And what does top-p 0.6 leave of them, at temperature 1? (Among equals the first stays longer.)

# %% tags=["exercise"]
by_hand = None  # your answer: ([three at temperature 1/2], [three with top-p 0.6])

# %%
check("08.by_hand", by_hand)

# %%
hint("08.by_hand")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · A cut that asks the leader** (easy, 5 minutes). *Min-p* keeps every token that has at least a share m of the
# likeliest one's probability. Write it. How many of the five vowels stay with m = 0.2?

# %% tags=["exercise"]
def min_p(p: Tensor, m: float) -> Tensor:
    """Probabilities (V,) -> those that are left, (V,), which sum to one."""


# %%
check("08.min_p", min_p)


# %% [markdown]
# **3 · Repair it: the dice** (medium, 10 minutes). To draw from p, stack the probabilities into a tower and throw a dart at
# it: the token in whose floor the dart lands is drawn. Here u, a random number from 0 to just below 1, says how high. This
# works nearly always. Twice in a long while it draws what it never should: once for a certain u, once because
# rounded probabilities need not sum to 1. Find both, and mend them.

# %% tags=["exercise"]
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    return int((heights < u).sum())


# %%
check("08.draw", draw)

# %% [markdown]
# **4 · What a cache costs** (medium, 10 minutes). GPT-2 has 12 layers, C = 768 and 1,024 positions. How many bytes has its
# cache for one full text, with two bytes a number? How many such texts fit into the 16 · 10⁹ bytes of a T4, beside the
# 124 million weights of two bytes each?

# %% tags=["exercise"]
cache_size = None  # your answer: (bytes of one text, how many texts)

# %%
check("08.cache_size", cache_size)


# %% [markdown]
# **5 · A test of the cache** (medium, 15 minutes). Write the test that tells a right `step` from a wrong one: whether
# reading one by one gives the scores of one reading, up to rounding. The check hands it steps with all sorts of
# faults, and a `gpt` as above, with large weights in 64-bit numbers. Predict first: which faults would not show in the
# scores after the first token?

# %% tags=["exercise"]
def cache_is_exact(step, gpt: llmkit.GPT, ids: Tensor) -> bool:
    """Whether `step` reads ids (T,) as gpt does at once."""


# %%
check("08.cache_is_exact", cache_is_exact)


# %% [markdown]
# **6 · Looking further ahead** (hard, 25 minutes). *Beam search* keeps not one text but the `width` likeliest so far, lets each
# go on in every way, and again keeps the likeliest. The check uses small bigrams; then try 40 characters with the GPT.
# Does it find a text of lower total surprise than greedy does? Is it a better text?

# %% tags=["exercise"]
def beam_search(model, ids: Tensor, new: int, width: int) -> tuple[Tensor, float]:
    """The likeliest text found, (T + new,), and the sum of -ln p over its new tokens."""


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
# @title Solution 2: a cut that asks the leader
def min_p(p: Tensor, m: float) -> Tensor:
    kept = p.where(p >= m * p.max(), 0)
    return kept / kept.sum()


left = min_p(small.softmax(-1), 0.2)
print("  ".join(f"{letter} {chance:.3f}" for letter, chance in zip(vowels, left, strict=True)))
assert (left > 0).sum() == 3
check("08.min_p", min_p)


# %% tags=["solution"]
# @title Solution 3: the dice
def draw(p: Tensor, u: float) -> int:
    heights = p.cumsum(dim=-1)  # (V,)
    dart = u * heights[-1]  # below the top, whatever rounding has made of it
    return int((heights <= dart).sum())  # a floor of no height is passed, at the bottom too


check("08.draw", draw)

# %% tags=["solution"]
# @title Solution 4: what a cache costs
cache_bytes = 2 * 12 * 1024 * 768 * 2  # keys and values, layers, positions, C, bytes
cache_size = cache_bytes, (16 * 10**9 - 2 * 124_000_000) // cache_bytes
print(f"{cache_bytes / 2**20:.0f} MiB a text, {cache_size[1]} texts")
check("08.cache_size", cache_size)


# %% tags=["solution"]
# @title Solution 5: a test of the cache
@torch.no_grad()
def cache_is_exact(step, gpt: llmkit.GPT, ids: Tensor) -> bool:
    kept = [([], []) for _ in gpt.h]  # a pair of lists for each layer, each its own
    one_by_one = torch.cat([step(gpt, token[None], kept) for token in ids])  # (T, V)
    return torch.allclose(one_by_one, gpt(ids[None])[0], atol=1e-10)


assert cache_is_exact(step, gpt, ids)
# After one token there is no past: position 0 is right, and nothing is forgotten yet.
check("08.cache_is_exact", cache_is_exact)


# %% tags=["solution", "trained"]
# @title Solution 6: looking further ahead
@torch.no_grad()
def beam_search(model, ids: Tensor, new: int, width: int) -> tuple[Tensor, float]:
    beams, totals = ids[None], torch.zeros(1)  # (B, T) and (B,)
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
