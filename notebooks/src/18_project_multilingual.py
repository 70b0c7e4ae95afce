# %% [markdown]
# # 18 · Project: several languages
# *One model, five languages: what each of them costs, which one this is, and where to go from here.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/18_project_multilingual.ipynb)
#
# About 40 minutes to read, exercises aside.
#
# ← [17 · Project: code completion](17_project_code_completion.ipynb)

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
# A model learns from text, and nobody has told it what a language is. What if it reads five of them at once? Does it mix them
# up? Does it get worse in each, because it has to share itself? Or better, because *Kapitän*, *capitaine* and *capitán* are
# nearly one word?
#
# And how would we know? "2.9 bits per character in Russian, 2.3 in English" sounds like a comparison. We shall see that it is
# not one, and what to measure instead.

# %%
import math
import random
from collections import Counter
from itertools import combinations

import datasets
import torch
import torch.nn.functional as F

import llmkit
from llmkit import plots
from llmkit.projects import languages
from llmkit.projects.shares import interval
from llmkit.speed import cpu

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## The same story five times
#
# `data/languages.tsv` tells of a year in a harbour town, one sentence a row, in English, German, French, Spanish and Russian.
# Such a text is called *parallel*. Ours was written for this project and is small. On a GPU we put together a larger one:
# [Tatoeba](https://tatoeba.org), to which volunteers give sentences and translations. It comes in pairs with English, and
# `aligned` keeps the sentences that have been translated into all five.

# %%
parallel = languages.load_parallel()
if runtime.pick(cpu=False, gpu=True):
    pairs = {}
    for code in list(parallel)[1:]:
        name = "sentence-transformers/parallel-sentences-tatoeba"
        fetched = datasets.load_dataset(name, f"en-{code}", split="train")
        pairs[code] = zip(fetched["english"][:], fetched["non_english"][:], strict=True)
    parallel = languages.aligned(pairs, longest=110)
codes = list(parallel)
small = runtime.pick(cpu=True, gpu=False)  # our own text, which the numbers below are about
rows = list(zip(*parallel.values(), strict=True))  # (rows, 5): a sentence in five languages

for code, sentence in zip(codes, rows[len(rows) // 4], strict=True):
    print(f"{code}  {sentence}")
print(f"\n{len(rows):,} rows")

# %%
print(f"{'':10}{'characters':>11}{'bytes':>9}{'distinct':>10}")
for code in codes:
    whole = "\n".join(parallel[code])
    print(f"{languages.NAMES[code]:10}{len(whole):11,}{len(whole.encode()):9,}{len(set(whole)):10}")
if small:
    assert min(codes, key=lambda code: sum(map(len, parallel[code]))) == "ru"


# %% [markdown]
# In UTF-8 a letter of the Latin alphabet is one byte, one with an accent two, and a Cyrillic letter two as well (notebook 09).
# So the Russian text has the fewest characters of all and by far the most bytes, and says the same. Keep that in mind.
#
# ## What to hold out
#
# As always the last part is for testing. But a parallel text has a trap of its own. If each language were cut at a place of its
# own, a sentence held out in French could be trained on in Spanish. Would that matter? Count how many words of a French sentence
# begin like a word of one of its translations, and, for comparison, of a row far away:

# %%
def shared(sentences: list[str], others: list[str]) -> float:
    """The share of the words (of five letters or more) whose first four letters also begin a word
    of the other sentence."""
    found = []
    for sentence, other in zip(sentences, others, strict=True):
        known = {word[:4] for word in other.lower().split()}
        found += [w[:4] in known for w in sentence.lower().split() if len(w) >= 5]
    return sum(found) / len(found)


print("French words that begin like one of the sentence in")
for code in ("es", "en", "de"):
    own = shared(parallel["fr"], parallel[code])
    half = len(rows) // 2
    far = shared(parallel["fr"], parallel[code][half:] + parallel[code][:half])
    print(f"{languages.NAMES[code]:8} {own:5.1%} of its own row, {far:5.1%} of a row far away")
    assert own > 2 * far

# %% [markdown]
# Names, and pairs like *capitaine* and *capitán*: **a parallel text leaks through translation.** So whole rows are held out,
# the same ones in every language.

# %%
train_rows, val_rows = llmkit.split(rows, runtime.pick(cpu=0.15, gpu=0.02))
train = {code: [row[i] for row in train_rows] for i, code in enumerate(codes)}
val = {code: [row[i] for row in val_rows] for i, code in enumerate(codes)}
print(
    f"{len(train_rows):,} rows to learn from, {len(val_rows):,} held out, in each of five languages"
)
assert not any(set(train[code]) & set(val[code]) for code in codes)

# %% [markdown]
# ## The tax on other languages
#
# Large models read subwords, and their tokenizer was learned from text that is English for the most part. What does it do to
# the others? We do the same on a small scale: learn the merges of a BPE tokenizer (notebook 09) from our English rows alone,
# and count the tokens of the held-out sentences. Next to it stands a tokenizer of the same size that has learned from all five:

# %%
V_bpe = 1000
english_bpe = llmkit.BPETokenizer.train("\n".join(train["en"]), V_bpe)
fair_bpe = llmkit.BPETokenizer.train("\n".join(s for code in codes for s in train[code]), V_bpe)


def tokens_each(tokenizer) -> dict[str, float]:
    """Mean number of tokens of a held-out sentence, by language."""
    return {c: sum(len(tokenizer.encode(s)) for s in val[c]) / len(val[c]) for c in codes}


tax, fair = tokens_each(english_bpe), tokens_each(fair_bpe)
print("tokens per sentence   from English   from all five")
for code in codes:
    print(f"{languages.NAMES[code]:20}{tax[code]:14.1f}{fair[code]:16.1f}")
assert tax["ru"] > 3 * tax["en"]
assert all(tax[code] > 1.3 * tax["en"] for code in codes if code != "en")
assert max(fair.values()) < 2 * min(fair.values())
if small:
    assert 1.2 < fair["en"] / tax["en"] < 1.35

# %%
plots.bars(
    [languages.NAMES[code] for code in codes],
    [tax[code] / tax["en"] for code in codes],
    "A tokenizer made for English makes the others pay",
    xlabel="tokens for the same sentences, English = 1",
    fmt="{:.2f}",
    highlight="English",
)

# %% [markdown]
# Nobody wanted that. But who pays by the token pays more, waits longer, and fits less into the window, for the same words
# ([Petrov et al. 2023](https://arxiv.org/abs/2305.15425) measured it for the large models, up to fifteen times). A tokenizer
# that has read all five shares out its merges, and English pays for that: a quarter more tokens than with its own.
#
# ## Characters or bytes?
#
# Our models will read characters, so that no alphabet is at a disadvantage. Or should they read bytes? A vocabulary of bytes is
# complete before the first text comes, and nothing is unknown to it. Characters must be collected:

# %%
everything = "".join(s for code in codes for s in parallel[code])
TAGS = {code: f"\n{code}: " for code in codes}  # what these are for comes below
tokenizer = llmkit.CharTokenizer.from_text(everything + "".join(TAGS.values()))
V = tokenizer.vocab_size
print(f"{V} characters; 256 bytes")
new = "Łódź 🙂"  # a town in Poland, and a face
try:
    tokenizer.encode(new)
except ValueError as error:
    print(error)
print(list(new.encode()))
assert bytes(list(new.encode())).decode() == new


# %% [markdown]
# And the price? Let counting show it, which is quick: n-gram models as in notebook 07, one for each language, over characters
# and over bytes. The loss of the one kind is per character, of the other per byte. To compare them we need a unit that both
# have. **A sentence is one**: add up what all its tokens cost, in bits.

# %%
class Bytes:
    """Text to bytes, with the interface of a tokenizer."""

    vocab_size = 256

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor(list(text.encode()))


# %%
def counter(code: str, order: int, reader=tokenizer) -> llmkit.NGram:
    ids = reader.encode("\n" + "\n".join(train[code]) + "\n")
    return llmkit.NGram(ids, order, reader.vocab_size, discount=None)  # None: the strongest kind


def counted_bits(model: llmkit.NGram, code: str, reader=tokenizer) -> float:
    """Bits per held-out sentence, its line end included."""
    nats = 0.0
    for sentence in val[code]:
        ids = reader.encode(f"\n{sentence}\n")  # the first line end is given, and costs nothing
        nats += model.loss(ids) * (len(ids) - 1)  # the mean over its tokens, times their number
    return nats / math.log(2) / len(val[code])


# %% tags=["trained"]
orders = range(2, 9)
curves = {}
for code in ("en", "ru"):
    for unit, reader in {"characters": tokenizer, "bytes": Bytes()}.items():
        curves[f"{languages.NAMES[code]}, {unit}"] = [
            counted_bits(counter(code, order, reader), code, reader) for order in orders
        ]
english, english_bytes, russian, russian_bytes = (torch.tensor(c) for c in curves.values())
assert torch.allclose(english, english_bytes, rtol=0.05)
assert russian_bytes[2] > 1.1 * russian[2]  # order 4
assert russian.min() < russian_bytes.min() < russian_bytes[2]
assert (russian_bytes - russian)[:2].min() > (russian_bytes - russian)[3:].max()
plots.lines(
    orders,
    curves,
    "In Russian bytes cost more than characters, most of all with a short memory",
    xlabel="order (tokens in a run; all but the last are context)",
    ylabel="bits per held-out sentence",
)

# %% [markdown]
# In English nearly every character is a byte, and the two curves lie on top of each other. In Russian every letter takes two, so
# a memory of four bytes sees two letters. With more memory the bytes come nearer, though here not all the way. Models that are
# meant for every language of the world do start from bytes, and merge them (notebook 09), so that frequent pieces are short
# again.
#
# ## Three units
#
# Now for the question of the beginning. Take the character counters of order 5 and look at the same losses in three units:

# %% tags=["trained"]
counters = {code: counter(code, 5, tokenizer) for code in codes}
counted = {code: counted_bits(counters[code], code) for code in codes}
length = {code: sum(len(s) + 1 for s in val[code]) / len(val[code]) for code in codes}
size = {code: sum(len(s.encode()) + 1 for s in val[code]) / len(val[code]) for code in codes}
print(f"{'bits per':10}{'byte':>7}{'character':>11}{'sentence':>10}")
for code in codes:
    by_byte, by_character = counted[code] / size[code], counted[code] / length[code]
    print(f"{languages.NAMES[code]:10}{by_byte:7.2f}{by_character:11.2f}{counted[code]:10.1f}")
assert min(codes, key=lambda c: counted[c] / size[c]) == "ru"
assert max(codes, key=lambda c: counted[c] / length[c]) == "ru"


# %% [markdown]
# By the byte Russian is the easiest of the five, by the character the hardest, and nothing has changed but the unit. A Russian
# sentence has fewer letters (no articles, and endings in place of many small words), and each of them says more. **Bits per
# character can compare two models on one language, and never two languages.** Bits per sentence can, if the sentences say the
# same: that is what a parallel text is good for. (And even so it measures these translations, and how much text each counter
# had.)
#
# ## One for all, or one for each?
#
# Now the models. Each line of text gets a *tag*, the name of its language. A tag is like the name of a speaker in a play: what
# follows depends on it. The lines of all languages are shuffled:

# %%
def lines_of(some: list[str]) -> str:
    """The training sentences of some languages, tagged and shuffled: one text."""
    lines = [TAGS[code] + sentence for code in some for sentence in train[code]]
    random.Random(runtime.seed).shuffle(lines)
    return "".join(lines) + "\n"


print(lines_of(codes).strip()[:400])

# %% [markdown]
# The candidates: **one GPT for all** five, and **five GPTs** that read one language each. They have the same shape, and all
# five together get as many steps as the one. So each language is read equally often by both; but the five have five times the
# weights.

# %% tags=["trained"]
T = 128  # the context, in characters
shape = runtime.pick(
    cpu=dict(n_layer=2, n_head=2, n_embd=64),
    gpu=dict(n_layer=6, n_head=6, n_embd=384, dropout=0.2),
)
config = llmkit.GPTConfig(V, T, position="rotary", bias=False, **shape)
batch_size = runtime.pick(cpu=6, gpu=64)
recipe = dict(
    batch_size=batch_size, optimizer="muon", learning_rate=runtime.pick(cpu=0.05, gpu=0.03)
)
recipe["dtype"] = cpu.best_dtype(runtime.device)  # half the bits, on a CPU that multiplies in them


def trained(some: list[str], steps: int) -> llmkit.GPT:
    torch.manual_seed(runtime.seed)
    model = llmkit.GPT(config).to(runtime.device)
    ids = tokenizer.encode(lines_of(some))
    with cpu.tuned(model):  # attention as a CPU likes it, see notebook 10
        llmkit.train(model, ids, config=llmkit.TrainConfig(steps=steps, **recipe))
    return model


# %% tags=["trained"]
steps = runtime.pick(cpu=600, gpu=3000)
one = trained(codes, steps)
five = {code: trained([code], max(1, steps // 5)) for code in codes}
print(f"{one.num_parameters():,} parameters for all, 5 times {five['en'].num_parameters():,}")

# %% [markdown]
# To measure a GPT on single sentences, each goes in with its tag before it. The tag is given and costs nothing; the sentence and
# its line end count. By hand for one:

# %%
sentence = val["fr"][0]
before, ids = tokenizer.encode(TAGS["fr"]), tokenizer.encode(TAGS["fr"] + sentence + "\n")
one.eval()
logits = one(ids[None, :-1].to(runtime.device))[0].cpu()  # (N - 1, V)
losses = F.cross_entropy(logits, ids[1:], reduction="none")[len(before) - 1 :]  # the sentence's
print(f"{sentence!r}: ≈ {losses.sum().item() / math.log(2):.0f} bits")

of_all = languages.sentence_losses(one, tokenizer, val["fr"], TAGS["fr"])  # (sentences, longest)
assert len(losses) == len(sentence) + 1
assert torch.allclose(of_all[0, : len(losses)].float(), losses, atol=1e-3)
assert of_all[0, len(losses) :].abs().sum() == 0  # after its end


# %% [markdown]
# `sentence_losses` does it for many at once. Two opponents that count take part as well: the *five counters* from above, and *one
# counter* that has counted in the mixed text, tags included.

# %% tags=["trained"]
def measured(models: dict) -> dict[str, float]:
    """Bits per character by language, of a model for each."""
    found = {}
    for code in codes:
        losses = languages.sentence_losses(models[code], tokenizer, val[code], TAGS[code])
        found[code] = losses.sum().item() / math.log(2) / (length[code] * len(val[code]))
    return found


# %% tags=["trained"]
mixed_text = tokenizer.encode(lines_of(codes))
one_counter = llmkit.NGram(mixed_text, 6, V, discount=None)  # 6 is its best order, 5 the five's
results = {
    "one counter": measured(dict.fromkeys(codes, one_counter)),
    "five counters": {code: counted[code] / length[code] for code in codes},
    "one GPT": measured(dict.fromkeys(codes, one)),
    "five GPTs": measured(five),
}
mean = {name: sum(result.values()) / 5 for name, result in results.items()}
print(f"{'bits per character':18}" + "".join(f"{code:>8}" for code in codes) + "    mean")
for name, result in results.items():
    print(f"{name:18}" + "".join(f"  ≈ {b:.2f}" for b in [*result.values(), mean[name]]))
if small:
    assert mean["one counter"] > mean["five counters"] + 0.1
    assert mean["one GPT"] < mean["five GPTs"] - 0.1
    assert mean["five counters"] < mean["one GPT"] - 0.05

# %%
others = [name for name in results if name != "five counters"]
plots.matrix(
    [[results[name][code] - results["five counters"][code] for code in codes] for name in others],
    others,
    [languages.NAMES[code] for code in codes],
    "One GPT does better than five of them, one counter worse than five",
    label="bits per character more than five counters",
    texts="{:+.2f}",
)


# %% [markdown]
# *One GPT does better than five*, with a fifth of their weights, though each language has been read equally often by both. A
# likely reason: much of what a GPT learns first is alike in all five: where a word ends, what a line is, how to look back at all.
# The one pays for that once. And which language it is stands at the start of the line, where attention can look it up.
#
# *One counter is worse than five.* A counter of order 6 sees five characters, and soon no tag among them. After *" la "* it
# does not know whether it is in Spanish or in French.
#
# *Five counters win all the same*, each with a language to itself: some 20,000 characters of each are little to learn from. On
# the play of notebook 07, seven times as long, the GPT won. (Do both know the same? Exercise 5 mixes them.)
#
# So does one language help another? These numbers cannot say. Five models have five beginnings to pay for, each out of a fifth
# of the steps, and that alone may be what puts the one ahead. Large models do carry over what they learn, most of all to
# languages with little text, until too many share too few weights ([Conneau et al. 2020](https://arxiv.org/abs/1911.02116) call
# it the curse of multilinguality).

# %% [markdown]
# ## Which language is this?
#
# Our one GPT can say what a sentence costs *if it were French*, *if it were Spanish*: put another tag before it. That is a
# probability of the text, given the language. We want the language, given the text, and Bayes' rule turns the one into the
# other:
#
# $$P(\text{language} \mid \text{text}) =
# \frac{P(\text{text} \mid \text{language}) \, P(\text{language})}{\text{the same, summed over all languages}}$$
#
# All five are equally frequent here, so P(language) drops out. P(text | language) is e to the minus its loss, summed over the
# letters read so far. So the answer is a softmax, over the five languages, of minus those sums:

# %%
def as_if(asked: dict[str, tuple], sentences: list[str], K: int) -> torch.Tensor:
    """Nats of the first 1 to K characters, as if they were of each language: (sentences, 5, K).
    asked: by language, the model to ask, and what it reads before a sentence."""
    cut = [sentence[:K] for sentence in sentences]
    losses = [languages.sentence_losses(each, tokenizer, cut, tag) for each, tag in asked.values()]
    return torch.stack(losses, dim=1)[..., :K].cumsum(dim=-1)  # of the letters read so far


asked_of = {"GPT": {code: (one, TAGS[code]) for code in codes}}
sentence = next((s for s in val["es"] if s.startswith("La ")), val["es"][0])[:24]
posterior = F.softmax(-as_if(asked_of["GPT"], [sentence], len(sentence))[0], dim=0)  # (5, K)
assert torch.allclose(posterior.sum(dim=0), torch.ones(len(sentence)).double())
plots.matrix(
    posterior,
    [languages.NAMES[code] for code in codes],
    list(sentence),
    "Letter by letter, the model makes up its mind",
    axes=("", "read so far, up to this character"),
    label="probability",
)

# %% [markdown]
# How often is it right, and after how many characters? We take the beginnings of the held-out sentences. Its opponents are our
# five counters, asked in the same way. An accuracy measured on a few hundred sentences is itself uncertain; *Wilson's interval*
# (notebook 17) says between which values the true one lies, and is right in about 95 of 100 such measurements:

# %%
asked_of["five counters"] = {code: (counters[code], "\n") for code in codes}
low, high = interval(95, 100)
print(f"95 right of 100: the accuracy is between {low:.1%} and {high:.1%}")
assert low < 0.95 < high < 1

# %% tags=["trained"]
K = 30
some = {code: val[code][:200] for code in codes}
guesses = {}  # by method: (5 languages, sentences, K), the place of the likeliest language
for method, asked in asked_of.items():
    guesses[method] = torch.stack([as_if(asked, some[code], K).argmin(dim=1) for code in codes])
truth = torch.arange(5)[:, None, None]
right = {method: (guess == truth).sum(dim=(0, 1)) for method, guess in guesses.items()}  # (K,)
n = guesses["GPT"][..., 0].numel()

# %% tags=["trained"]
for k in (1, 3, 5, 10, 20, 30):
    print(f"{k:3} characters", end="")
    for method in right:
        low, high = interval(right[method][k - 1].item(), n)
        accuracy = right[method][k - 1].item() / n
        print(f"   {method} ≈ {accuracy:.0%} (≈ {low:.0%} to ≈ {high:.0%})", end="")
    print()
assert right["GPT"][0] < 0.8 * n
assert right["GPT"][29] > 0.95 * n
begins = {code: Counter(s[0] for s in some[code]).most_common(1)[0] for code in codes}
print("first letters:", *(f"{c} {a} {k / len(some[c]):.0%}" for c, (a, k) in begins.items()))
if small:
    assert right["five counters"][9] > max(0.95 * n, right["GPT"][9])

# %%
plots.lines(
    range(1, K + 1),
    {method: 100 * count / n for method, count in right.items()},
    "To tell the language, counting needs fewer characters than the GPT",
    xlabel="characters read",
    ylabel="held-out beginnings recognised (%)",
)

# %% [markdown]
# (A first character tells more than one would think. A Cyrillic letter is Russian; and in each of the other four, a fifth or
# a quarter of the sentences begin with one and the same letter, printed above.)
# Which are mistaken for each other, after four characters?

# %% tags=["trained"]
confused = {}
for method, guess in guesses.items():
    places = [torch.bincount(guess[i, :, 3], minlength=5) for i in range(5)]
    confused[method] = torch.stack(places)  # (5, 5): row i, what language i was taken for
    assert confused[method].sum() == n
    assert confused[method][4, :4].sum() + confused[method][:4, 4].sum() <= n // 200  # Russian
both_ways = confused["five counters"] + confused["five counters"].T  # (5, 5), of each pair
first, second = max(combinations(range(5), 2), key=lambda pair: both_ways[pair])
if small:
    assert {codes[first], codes[second]} == {"fr", "es"}
names = [languages.NAMES[code] for code in codes]
plots.matrix(
    confused,
    names,
    codes,
    "The four that share an alphabet get confused, Russian never",
    axes=("is", "taken for"),
    label="held-out beginnings",
    texts="{:.0f}",
)

# %% [markdown]
# Russian has an alphabet of its own here. (With Ukrainian and Bulgarian in the box, that would be no help.) Among the others,
# *la*, *le*, *un*, *en* are words of two languages at once; French and Spanish are the pair that the counters confuse most. The
# GPT needs more characters than they do. Counting runs of characters is how most tools recognise a language ([Jauhiainen et al.
# 2019](https://arxiv.org/abs/1804.08186)): it is small, quick, and hard to beat.
#
# ## Does it stay in its language?
#
# Tags work the other way too: after a tag, the model should write that language. We give it beginnings of held-out sentences,
# twelve characters each, and the counters, which are no part of the model, say what language the continuation is in. First comes
# the right tag; then none, which the model has never seen; then *another's* tag, so that text and tag contradict each other.

# %%
starts = {code: [s[:12] for s in val[code] if len(s) > 20][:25] for code in codes}
another = dict(zip(codes, [codes[-1], *codes[:-1]], strict=True))  # each gets its neighbour's


def continued(code: str, tag: str) -> list[str]:
    """What the model makes of beginnings in one language, after a tag: up to the line's end."""
    prompts = torch.stack([tokenizer.encode(tag + start) for start in starts[code]])  # (B, T)
    ids = llmkit.generate(one, prompts, 48, temperature=0.7, seed=runtime.seed)
    return [tokenizer.decode(row[prompts.size(1) :]).split("\n")[0] for row in ids]


# %% tags=["trained"]
stays = {}
for case in ("right tag", "no tag", "another's tag"):
    as_text, as_tag, total, written = 0, 0, 0, {}
    for code in codes:
        tag = {"right tag": TAGS[code], "no tag": "\n", "another's tag": TAGS[another[code]]}[case]
        written[code] = [text for text in continued(code, tag) if len(text) >= 10]
        found = as_if(asked_of["five counters"], written[code], 48)[..., -1].argmin(dim=1)
        as_text += (found == codes.index(code)).sum().item()
        as_tag += (found == codes.index(another[code])).sum().item()
        total += len(found)
    stays[case] = as_text / total, as_tag / total
    print(f"{case:14} goes on in the language of the text: ≈ {as_text / total:.0%}", end="")
    print(f", of the tag: ≈ {as_tag / total:.0%}" if case == "another's tag" else "")
assert stays["right tag"][0] > 0.9
assert stays["no tag"][0] <= stays["right tag"][0]
if small:
    assert 0.3 < stays["no tag"][0] < 0.8
    assert stays["another's tag"][1] > stays["another's tag"][0]

# %% tags=["nbval-ignore-output", "sampled-text"]
for code, tag in {"de": TAGS["de"], "ru": TAGS["ru"], "fr": TAGS["fr"], "es": TAGS["de"]}.items():
    start, text = starts[code][1], continued(code, tag)[1]
    print(f"{tag.strip():4} {start}|{text}")

# %% [markdown]
# With its tag the model stays in its language. (It is no poet: it has seen 100,000 characters.) Without one it follows the text
# about half of the time, more than the fifth that chance would give, and otherwise drifts into another language. Set tag against
# text, and the tag wins more often: in training the tag was always right. **What decides is what was reliable in training**, and
# not what we meant.
#
# Most large models have no such tags. Their prompts are longer than twelve characters, and the text itself says what it is.

# %% [markdown]
# ## What we saw
#
# - The same sentences cost other languages up to several times the tokens, with a tokenizer that has learned from English.
# - A parallel text leaks through translation: hold out whole rows.
# - By the byte Russian looked easiest, by the character hardest. Bits per sentence of a parallel text can be compared.
# - One GPT with tags did better than five that had as many steps together; one counter did worse than five. On so little text
#   five counters beat all.
# - Bayes' rule makes a recogniser of languages out of a language model; counting characters does it better.
# - Where tag and text contradicted each other, the tag won more often, because it had always been right.
# - What is still wrong: the texts it writes. Whether languages help each other, so small a text and so short a training cannot
#   say; on a GPU this page asks again, with a larger one.

# %% [markdown]
# ## What the series built
#
# Each notebook answered its question with something you built and measured, and left another one open:
#
# | notebook | built | left open |
# |---|---|---|
# | [01](01_data.ipynb) | a text, cleaned, cut in two | where to get a good one, and whose it is |
# | [02](02_char_tokenizer.ipynb) | characters ↔ integers | what to do with a new character |
# | [03](03_bigram.ipynb), [03b](03b_backpropagation.ipynb) | pairs, counted and learned; gradients | all that is further back |
# | [04](04_attention.ipynb) | an average that does not look ahead | its cost: the square of the length |
# | [05](05_transformer.ipynb), [05b](05b_positions_and_norms.ipynb) | a GPT from blocks; positions, norms | why depth helps |
# | [06](06_training.ipynb) | a training loop that can be resumed | how to know good settings before a run |
# | [07](07_perplexity.ipynb) | one number on all held-out text | whether a lower loss is a better text |
# | [08](08_generation.ipynb), [08b](08b_kv_cache.ipynb) | sampling; the KV cache | how to choose among whole answers |
# | [09](09_subword_tokenizers.ipynb) | byte-pair encoding, GPT-2's own | a vocabulary fair to all (see the tax above) |

# %% [markdown]
# That is a language model from nothing. With it:
#
# | notebook | built | left open |
# |---|---|---|
# | [10](10_speed.ipynb) | a faster loop, and a race | kernels of one's own |
# | [10b](10b_scale.ipynb) | what a run costs, before it starts | clusters, and what fails in them |
# | [10c](10c_scaling.ipynb) | the loss of a run, before it starts | what else than loss grows with size |
# | [11](11_pretrained_gpt2.ipynb) | GPT-2 in our model, fine-tuned | how to learn and not forget |
# | [11b](11b_modern_model.ipynb) | the same model, as it is built today | which of its changes pay off at what size |
# | [12](12_lora.ipynb) | a few percent of the weights | which weights, and of what rank |
# | [13](13_instruction_tuning.ipynb) | a model that answers | whether the answers are true |
# | [13b](13b_preferences_and_rewards.ipynb) | answers that are preferred or rewarded | what nobody can check by a rule |
# | [14](14_deployment.ipynb) | a served model | thousands of users at once |
# | [15](15_memory_and_exposure.ipynb) | what a model remembers, measured | how to make it forget |
# | [16](16_bias_privacy_filters.ipynb) | bias, personal data, filters, a model card | what we did not think of measuring |
# | [17](17_project_code_completion.ipynb) | a model that completes code | programs that do what was asked |
# | 18 | one model, five languages | the other seven thousand |

# %% [markdown]
# ## Where to go next
#
# A short list; each entry says what it is for. First papers that this series stands on, then those one step further.
#
# - *The architecture*: [Attention is all you need](https://arxiv.org/abs/1706.03762), written for translation, is notebooks 04 and 05.
# - *One model for many tasks*: [GPT-2](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) and [GPT-3](https://arxiv.org/abs/2005.14165), which picks up a task from examples in its prompt.
# - *Other halves of the transformer*: [BERT](https://arxiv.org/abs/1810.04805) sees both sides and fills gaps, good for classifying; [T5](https://arxiv.org/abs/1910.10683) has an encoder and a decoder, text in, text out.
# - *How large, on how much text*: [scaling laws](https://arxiv.org/abs/2001.08361), corrected by [Chinchilla](https://arxiv.org/abs/2203.15556): more text than one had thought.
# - *Learning what people prefer*: [InstructGPT](https://arxiv.org/abs/2203.02155) (RLHF: a reward learned from ratings, then reinforcement learning) and [DPO](https://arxiv.org/abs/2305.18290), which needs neither of the two, only pairs of answers and a loss.
# - *Text and pictures*: [ViT](https://arxiv.org/abs/2010.11929) cuts a picture into tokens, [CLIP](https://arxiv.org/abs/2103.00020) learns which caption belongs to it, [LLaVA](https://arxiv.org/abs/2304.08485) lets a language model read it.
# - *More weights for the same time*: a [mixture of experts](https://arxiv.org/abs/1701.06538) uses few of them for each token; [Switch](https://arxiv.org/abs/2101.03961) made it simple.
# - *Long texts*: [rotary positions](https://arxiv.org/abs/2104.09864), [FlashAttention](https://arxiv.org/abs/2205.14135), and a warning that having a text in view is not using it, [Lost in the middle](https://arxiv.org/abs/2307.03172).
# - *Many languages*: [XLM-R](https://arxiv.org/abs/1911.02116) on sharing, [ByT5](https://arxiv.org/abs/2105.13626) on bytes.
#
# Read them with one question: what was it measured against, and on which text?

# %% [markdown]
# *Libraries*, in the order in which one comes to need them:
#
# - [transformers](https://huggingface.co/docs/transformers) and [datasets](https://huggingface.co/docs/datasets) for nearly every published model and text; [PEFT](https://huggingface.co/docs/peft) for adapters (notebook 12).
# - [TRL](https://huggingface.co/docs/trl) for instruction tuning, preferences, RLHF and DPO.
# - [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness), to measure a model as others measure theirs.
# - [vLLM](https://docs.vllm.ai) to serve many users on GPUs, [llama.cpp](https://github.com/ggml-org/llama.cpp) to run a model on a laptop.
# - [nanoGPT](https://github.com/karpathy/nanoGPT), to read: GPT-2 trained from nothing, in two files.
#
# *Courses*, each of them free:
#
# - [Neural networks: zero to hero](https://karpathy.ai/zero-to-hero.html), videos in which everything is typed out.
# - [Dive into Deep Learning](https://d2l.ai), the mathematics beside the code.
# - [CS224N](https://web.stanford.edu/class/cs224n/), language and deep learning; [CS336](https://stanford-cs336.github.io), a language model from nothing, for people who like to build.
# - The [LLM course](https://huggingface.co/learn/llm-course), the libraries above.
#
# Best of all: take a text that you care about, and a question that it can answer. Hold out a tenth, count first, and say what
# your model was measured against. The first page of this series asked where a program could learn what you know when you guess
# the next letter. You have built every part of the answer since, and you can say how well it works. Good luck with yours!

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · How many bytes?** (easy, 2 minutes). Predict, with no computer: how many bytes of UTF-8 have `кот`, `chat`, `Ü` and `€`?

# %% tags=["exercise"]
bytes_each = None  # your answer: a tuple of four

# %%
check("18.bytes_each", bytes_each)

# %%
hint("18.bytes_each")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Three units** (easy, 5 minutes). A model's loss on a sentence and its line end is so many nats, in all. Say it in bits a
# sentence, bits a character and bits a byte. Which of the three may be compared between languages?

# %% tags=["exercise"]
def three_units(nats: float, sentence: str) -> tuple[float, float, float]:
    return None


# %%
check("18.three_units", three_units)


# %% [markdown]
# **3 · Not equally likely** (medium, 10 minutes). Above, each of five languages was as likely as the others before a letter was
# read. On a page where 80 % of the sentences are English, that is not so. Given the loss of the same letters under each language's
# model (nats) and the *prior* probability of each language, return the probabilities after reading.

# %% tags=["exercise"]
def posterior(losses: list[float], priors: list[float]) -> list[float]:
    return None


# %%
check("18.posterior", posterior)


# %% [markdown]
# **4 · Fair shares** (medium, 10 minutes). Models of many languages draw a language with a probability proportional to
# $n^\alpha$, where n is the size of its text; mBERT takes α = 0.7, XLM-R 0.3
# ([Conneau et al. 2020](https://arxiv.org/abs/1911.02116)). Return the shares. What do α = 1 and α = 0 mean?

# %% tags=["exercise"]
def shares(counts: list[int], alpha: float) -> list[float]:
    return None


# %%
check("18.shares", shares)


# %% [markdown]
# **5 · Repair it: two are better than one** (hard, 15 minutes). `one` and `other` are the losses of two models, nats for each
# character. `mixed` should be the bits per character of the model that mixes the two, half and half:
# p = (p₁ + p₂) / 2. It is something else. What? Then try it: is the mixture of the one GPT and the counters better than both?

# %% tags=["exercise"]
def mixed(one, other):
    losses = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
    return sum(losses) / len(losses) / math.log(2)


# %%
check("18.mixed", mixed)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: how many bytes?
bytes_each = tuple(len(word.encode()) for word in ("кот", "chat", "Ü", "€"))
print(bytes_each)
check("18.bytes_each", bytes_each)

# %% tags=["solution"]
# @title Solution 2: three units


def three_units(nats: float, sentence: str) -> tuple[float, float, float]:
    bits = nats / math.log(2)
    return bits, bits / (len(sentence) + 1), bits / (len(sentence.encode()) + 1)


# Bits a sentence: of parallel sentences, for they say the same. The others depend on the script.
check("18.three_units", three_units)

# %% tags=["solution"]
# @title Solution 3: not equally likely


def posterior(losses: list[float], priors: list[float]) -> list[float]:
    joint = [prior * math.exp(-loss) for loss, prior in zip(losses, priors, strict=True)]
    return [p / sum(joint) for p in joint]


print([round(p, 3) for p in posterior([9.0, 8.0], [0.8, 0.2])])  # the likelier one is overruled
check("18.posterior", posterior)

# %% tags=["solution"]
# @title Solution 4: fair shares


def shares(counts: list[int], alpha: float) -> list[float]:
    weights = [n**alpha for n in counts]
    return [w / sum(weights) for w in weights]


check("18.shares", shares)

# %% tags=["solution", "trained"]
# @title Solution 5: two are better than one


def mixed(one, other):
    losses = [-math.log((math.exp(-a) + math.exp(-b)) / 2) for a, b in zip(one, other, strict=True)]
    return sum(losses) / len(losses) / math.log(2)


mixture = {}
for code in codes:
    by_gpt = languages.sentence_losses(one, tokenizer, val[code], TAGS[code])
    by_counter = languages.sentence_losses(counters[code], tokenizer, val[code])
    there = torch.arange(by_gpt.size(1)) < torch.tensor([len(s) + 1 for s in val[code]])[:, None]
    mixture[code] = mixed(by_gpt.cpu()[there].tolist(), by_counter.cpu()[there].tolist())
mixed_mean = sum(mixture.values()) / 5
print(f"the mixture ≈ {mixed_mean:.2f}, five counters ≈ {mean['five counters']:.2f}", end="")
print(f", one GPT ≈ {mean['one GPT']:.2f} bits per character")
if small:
    assert mixed_mean < min(mean.values()) - 0.01
check("18.mixed", mixed)
