# %% [markdown]
# # 02 · Character tokenizer
# *From text to integers and back, losing nothing.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/02_char_tokenizer.ipynb)
#
# About 20 minutes to read, exercises aside.
#
# ← [01 · Data](01_data.ipynb) · [03 · Bigram](03_bigram.ipynb) →

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
# A model multiplies and adds. Half of `7` is `3.5`; what is half of `q`? Before a model can read a text, each
# of its characters has to become a number. And since the model answers in numbers too, the way back must give
# the very text that went in: every space, every line end.
#
# Which numbers shall we take?

# %%
import random
import re
import sys
import tempfile
import timeit
import unicodedata
from collections import Counter
from pathlib import Path

import torch

import llmkit
from llmkit import plots, widgets

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## Numbers that exist already
#
# To a computer every character is a number from the start. *Unicode* is the list of them, and a character's
# place in the list is its *code point*. Python's `ord` tells it, `chr` goes back:

# %%
for character in "Toé好":
    print(character, ord(character))
assert [chr(number) for number in (84, 111)] == ["T", "o"]

# %% [markdown]
# So there are integers, and they lose nothing. Why not hand these to the model? Because a model keeps a table with a
# row of numbers for every character that it may meet: what it has learned about that character. (Notebook 03 builds
# such a table.) Say that a row has 128 numbers. Unicode has room for many characters:

# %%
text = llmkit.load_text(runtime.corpus)
for what, size in {"Unicode": sys.maxunicode + 1, "our text": len(set(text))}.items():
    megabytes = size * 128 * 4 / 1e6  # 128 numbers in a row, 4 bytes each
    print(f"{what:9}{size:10,} rows, {megabytes:6.2f} MB")

# %% [markdown]
# More than half a gigabyte, of which our text, a play, would use 65 rows. So we want numbers without gaps, 0, 1, 2 and so
# on: one for each character that occurs.
#
# ## A tokenizer in six lines
#
# The list of all that occurs is called the *vocabulary*, and a place in it an *id*. An entry of the list is called a
# *token*; here every character is one.

# %%
characters = sorted(set(text))
to_id = {character: i for i, character in enumerate(characters)}

for i, character in enumerate(characters):
    print(f"{i:2} {plots.visible(character)}", end="\n" if i % 13 == 12 else "  ")


# %% [markdown]
# (`↵` is the line end, `␣` the space.) The list is sorted for a reason: a Python set of strings may have another order
# each time that Python starts, and then every id would change.

# %%
def encode(string: str) -> list[int]:
    return [to_id[character] for character in string]


def decode(ids: list[int]) -> str:
    return "".join(characters[i] for i in ids)


ids = encode("To be, or not to be")
print(ids)
print(decode(ids))

# %% [markdown]
# **A tokenizer is a list; encoding looks up the place, decoding looks up the character.** llmkit has one too,
# `CharTokenizer`. Is it the same?

# %%
tokenizer = llmkit.CharTokenizer.from_text(text)
print(tokenizer)
assert tokenizer.encode(text).tolist() == encode(text)
assert tokenizer.decode(encode(text)) == text

# %% [markdown]
# It is, on the whole text, both ways. From here on we use llmkit's, which does three things better: it returns tensors,
# its errors help, and it is fast. We look at each in turn.
#
# ## Tensors in passing
#
# PyTorch computes with *tensors*: blocks of numbers that are all of one kind, the *dtype*, arranged in a
# *shape*.

# %%
ids = tokenizer.encode(text)
print(ids[:12])
print("dtype", ids.dtype, "· shape (N,) with N =", f"{len(ids):,}")
assert ids.shape == (len(text),)

# %% [markdown]
# One id for each character, in one row: the shape is `(N,)`. A tensor can be cut like a list. Unlike a list it
# can also be folded into rows:

# %%
rows = ids[:48].reshape(4, 12)  # (4, 12): four rows of twelve
print(rows)
for row in rows:
    print(plots.visible(tokenizer.decode(row)))

# %% [markdown]
# And all its numbers can be compared at once, or counted, without a loop:

# %%
number_of_e = (ids == to_id["e"]).sum().item()  # True counts as 1; .item() makes it a Python int
assert number_of_e == text.count("e")

# (65,): how often each id occurs; minlength gives the last ids their place even if they never do
counts = torch.bincount(ids, minlength=tokenizer.vocab_size)
assert counts.tolist() == [Counter(text)[character] for character in characters]
print(f"{number_of_e:,} times e; {counts.sum():,} characters in all")

# %% [markdown]
# A warning, before the numbers mislead us. Ids can be added and halved, but what would that mean?

# %%
middle = (tokenizer.encode("a") + tokenizer.encode("c")) / 2  # dividing makes floats
print("halfway between a and c:", tokenizer.decode(middle.long()))  # .long(): integers again

# %% [markdown]
# Nothing: the answer depends on the order of the list. An id is a name, like the number on a football shirt.
# Nobody adds those; one *looks up* who wears it. A model does the same: it takes the row of that number from a
# table, as notebook 03 shows.
#
# ## A character never seen
#
# The play does not contain an `ë`. What if a reader writes one?

# %%
try:
    encode("Et tu, Brutë?")
except KeyError as error:
    print("KeyError:", error)

# %% [markdown]
# This is what the usual tutorial code does. The error names the character, but does not say where it stands or what to do.
# llmkit's error says both:

# %%
try:
    tokenizer.encode("Et tu,\nBrutë?")
except ValueError as error:
    print(error)

# %% [markdown]
# Try it. In a running notebook, type a text of your own into the box, then a letter that the play does not have;
# each character stands above its id.

# %%
widgets.TokenExplorer(tokenizer, "To be, or not to be")

# %% [markdown]
# The error message offers a way out: an *unknown token*, one more id for everything that is not in the list.

# %%
forgiving = llmkit.CharTokenizer.from_text(text, unknown="<unk>")
print(forgiving)
for string in ("Et tu, Brutë?", "Naïve café", "Быть или не быть"):
    print(forgiving.decode(forgiving.encode(string)))

# %% [markdown]
# It never fails now, but it loses text: `ë`, `ï` and all Russian letters have become the same token, and no decoder can
# bring them back. So use the strict tokenizer for the text that a model learns from, since it reports every unknown
# character. An unknown token is for input that you do not control.
#
# ## A round trip, any number of times
#
# "Losing nothing" is a claim about *every* string, and a few examples that we thought of cannot support it. Let chance
# choose: a thousand random strings over the vocabulary, the empty one among them, and a thousand random rows of ids:

# %%
chance = random.Random(1337)
for length in range(1000):
    string = "".join(chance.choices(characters, k=length))
    assert tokenizer.decode(tokenizer.encode(string)) == string  # there and back

    row = torch.randint(tokenizer.vocab_size, (length,))
    assert torch.equal(tokenizer.encode(tokenizer.decode(row)), row)  # and the other way round
print("2,000 round trips, all whole; the shortest empty, the longest of", length, "characters")

# %% [markdown]
# ## The list belongs to the model
#
# What does a model know of `e`? Nothing but the id. Read by another list, the same ids are another text:

# %%
ids = tokenizer.encode("To be, or not to be")
print(llmkit.CharTokenizer(characters[::-1]).decode(ids))

# %% [markdown]
# So the list must be saved wherever the model is saved. It is a small file that people can read too:

# %%
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
file = Path(folder.name) / "tokenizer.json"
tokenizer.save(file)
print(file.read_text()[:90], "...")

loaded = llmkit.CharTokenizer.load(file)
assert loaded.characters == tokenizer.characters
assert torch.equal(loaded.encode(text), tokenizer.encode(text))

# %% [markdown]
# ## Why not words?
#
# With an id for each *word* the same text would be a much shorter row. llmkit's `WordTokenizer` makes a token of
# each word, and of each space and punctuation mark, so that known text comes back whole:

# %%
train_text, val_text = llmkit.split(text)  # the first nine tenths, and the last
by_word = llmkit.WordTokenizer.from_text(train_text, unknown="<unk>")
assert by_word.decode(by_word.encode(train_text)) == train_text
print([by_word.decode([i]) for i in by_word.encode("To be, or not to be")])

# %%
print("             vocabulary   ids for the training text")
for name, one in {"characters": tokenizer, "words": by_word}.items():
    print(f"{name:12}{one.vocab_size:11,}{len(one.encode(train_text)):16,}")

# %% [markdown]
# The row of ids is shorter, and the vocabulary many times as large. Is the list of words ever complete? Read the text
# from its beginning, and count how many different words have come so far:

# %% tags=["trained"]
places = [len(text) * i // 20 for i in range(21)]
kinds = {
    "words": [len(set(re.findall(r"\w+", text[:n]))) for n in places],
    "characters": [len(set(text[:n])) for n in places],
}
assert kinds["words"][20] > 1.2 * kinds["words"][10]  # the second half brings many new words
assert kinds["characters"][20] - kinds["characters"][10] <= 3  # and next to no new character
plots.lines(
    places,
    kinds,
    "New text keeps bringing new words, and hardly ever a new character",
    xlabel="characters read",
    ylabel="different ones so far",
)

# %% [markdown]
# Each new word would need an id, and a row in the model's table. What happens in the held-out tenth, which the
# word tokenizer has not seen?

# %% tags=["trained"]
known = set(re.findall(r"\w+", train_text))
words = re.findall(r"\w+", val_text)
missed = sum(word not in known for word in words)
print(f"unknown characters: {len(set(val_text) - set(train_text))}")
print(f"unknown words:      {missed:,} of {len(words):,}, or {missed / len(words):.1%}")
assert set(val_text) <= set(train_text)
assert 0.02 < missed / len(words) < 0.15

# %% tags=["trained"]
unknown_id = by_word.vocab_size - 1  # the unknown token was added at the end
val_ids = by_word.encode(val_text)
assert (val_ids == unknown_id).sum() == missed  # the tokenizer counts the same
third = (val_ids == unknown_id).nonzero()[2].item()  # where the third of them stands
print(by_word.decode(val_ids[max(0, third - 50) : third + 50]))

# %% [markdown]
# Every character of the held-out text was known, and one word in twenty or so was not. With characters the vocabulary
# is small and soon complete, and the row of ids long; with words it is the other way round. Between the two lie pieces
# of words, which notebook 09 is about. Until then we stay with characters.
#
# ## For later: a table instead of a loop
#
# The rest of this page makes encoding fast, and can wait until you need it. Our `encode` visits the characters one by
# one, in Python. For one play that hardly matters. But the text for [Llama 3](https://arxiv.org/abs/2407.21783) had
# 15.6 trillion tokens, and those were pieces of words. Let us time a million characters, and work out how long so many
# would take.

# %%
length = runtime.pick(cpu=1_000_000, gpu=10_000_000)
many = (text * (length // len(text) + 1))[:length]


def seconds(function) -> float:
    return min(timeit.repeat(function, number=1, repeat=3))  # the fastest of three calls


loop = seconds(lambda: torch.tensor(encode(many)))
print(f"a million characters:     ≈ {loop / len(many) * 1e6:.2f} seconds")
print(f"15.6 trillion characters: ≈ {loop / len(many) * 15.6e12 / 86400:.0f} days")
assert loop / len(many) * 15.6e12 > 86400  # more than a day, at least

# %% [markdown]
# A string already *is* a row of numbers, its code points. So make a table that holds the id of each character at the
# position of its code point. With the three characters `abe`, whose code points are 97, 98 and 101:

# %%
small = torch.full((102,), -1)  # (102,): -1 stands for "not in the vocabulary"
small[[97, 98, 101]] = torch.tensor([0, 1, 2])  # the ids of a, b and e
print("positions 96 to 101:", small[96:].tolist())
print("the ids of bea:     ", small[torch.tensor([98, 101, 97])].tolist())

# %% [markdown]
# `small[...]` with a tensor inside is *indexing by a tensor*: one result for each index, found in compiled code. You
# will meet it again and again. The same for our 65 characters, whose code points are all below 128:

# %%
table = torch.full((128,), -1)  # (128,)
table[[ord(character) for character in characters]] = torch.arange(len(characters))


def encode_by_table(string: str) -> torch.Tensor:
    code_points = torch.frombuffer(bytearray(string, "utf-32-le"), dtype=torch.int32)  # (N,)
    return table[code_points]  # (N,)


assert torch.equal(encode_by_table(text), tokenizer.encode(text))

# %% [markdown]
# UTF-32 writes every code point as an integer of 32 bits, so the bytes of the string can be read as a tensor. How much
# faster is it?

# %%
by_table = seconds(lambda: encode_by_table(many))
by_llmkit = seconds(lambda: tokenizer.encode(many))
print(f"our table: ≈ {loop / by_table:.0f} times as fast as the loop")
print(f"llmkit:    ≈ {loop / by_llmkit:.0f} times")
assert loop > 3 * by_table
assert loop > 10 * by_llmkit

# %% [markdown]
# The same ids, many times faster. (llmkit's table is the same idea; it takes the text in blocks that fit into the
# processor's cache.) But our table is careless. Code point 235, an `ë`, lies beyond its end, and that at least is an
# error. A tab has a position in the table but no id, so the answer is `-1`, and Python accepts that as an index:

# %%
try:
    encode_by_table("Brutë")
except IndexError as error:
    print("IndexError:", error)
wrong = encode_by_table("Et tu,\tBrute?")
print(wrong.tolist())
print(decode(wrong.tolist()))

# %% [markdown]
# The tab has become a `z`, because `-1` means the last entry of a list. A wrong text without an error: that is worse.
# llmkit's table watches for the `-1`. Exercise 4 mends ours.
#
# One more trap, for anyone who compares texts: what looks the same need not be the same characters.

# %%
one, two = "caf\u00e9", "cafe\u0301"  # é as one character; e, and an accent to be set on top
print(one, two, one == two, len(one), len(two))
print(unicodedata.normalize("NFC", two) == one)

# %% [markdown]
# A tokenizer keeps code points, not looks. Putting letter and accent together (`NFC`) is part of cleaning a text, before
# its characters are counted.
#
# ## What we saw
#
# - Unicode numbers every character already, but has room for more than a million, and one text uses few of them.
# - A vocabulary is the sorted list of what occurs: 65 characters here. An id is a position in it, a name and not an
#   amount.
# - A character never seen is a `KeyError` in a dictionary, and in llmkit an error that says where. With an unknown
#   token there is no error, and the character is lost.
# - The round trip held for 1,000 random strings and 1,000 random rows of ids.
# - With words the row of ids is shorter, the vocabulary far larger, and new text still brings unknown words.
# - A table look-up gave the same ids as the loop, at least three times as fast, and llmkit's at least ten times as fast.
#   A careless table turned a tab into a `z`.
#
# Now we have numbers, but they mean nothing yet. What can be predicted from a single one of them? That is
# [notebook 03](03_bigram.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · A small vocabulary** (easy, 3 minutes). Make a tokenizer, in your head, from the line `to be or not to be`.
# Predict: what is its `vocab_size`? Which ids has `bot`? Which text do the ids 5, 4, 1, 2 give?

# %% tags=["exercise"]
small_vocabulary = None  # your answer: (vocab_size, [id, id, id], "text")

# %%
check("02.small_vocabulary", small_vocabulary)

# %%
hint("02.small_vocabulary")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Caesar's cipher** (easy, 5 minutes). Move every character of a text on by `n` places in the list
# `characters`, beginning again at 0 after the last. Tensors can be added to a number, and `%` works on them too.
# How does one read the result?

# %% tags=["exercise"]
def caesar(string: str, n: int, characters: str) -> str:
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode(tokenizer.encode(string))


# %%
check("02.caesar", caesar)


# %% [markdown]
# **3 · Without capitals** (easy, 5 minutes). A tokenizer made from `text.lower()` has a smaller vocabulary. By how
# many ids? And if all of `text` makes the round trip in small letters, what share of its characters comes back
# changed? Guess both for our text first.

# %% tags=["exercise"]
def without_capitals(text: str) -> tuple[int, float]:
    """How many ids are saved, and the share of the characters that is lost."""


# %%
check("02.without_capitals", without_capitals)


# %% [markdown]
# **4 · Repair it** (medium, 15 minutes). This is the table look-up from above, with the list as an argument. It is
# wrong in three ways: it gives `-1` for some unknown characters, it fails for all beyond code point 127, and it cannot
# encode an empty string. Mend it, so that it works with any list and any string, and raises a `ValueError` where a
# character is not in the list.

# %% tags=["exercise"]
def repaired(string: str, characters: str) -> torch.Tensor:
    table = torch.full((128,), -1)
    table[[ord(character) for character in characters]] = torch.arange(len(characters))
    code_points = torch.frombuffer(bytearray(string, "utf-32-le"), dtype=torch.int32)
    return table[code_points]


# %%
check("02.repaired", repaired)


# %% [markdown]
# **5 · Bytes** (medium, 15 minutes). Any text in UTF-8 is a row of bytes, and there are only 256 of those. Write a
# tokenizer that needs no vocabulary and has no unknown character. How many ids does `好` take?

# %% tags=["exercise"]
class ByteTokenizer:
    vocab_size = 256

    def encode(self, string: str) -> torch.Tensor:  # (N,)
        return torch.zeros(0, dtype=torch.int64)

    def decode(self, ids: torch.Tensor) -> str:
        return ""


# %%
check("02.ByteTokenizer", ByteTokenizer)


# %% [markdown]
# **6 · The way back by table** (hard, 15 minutes). `decode` above joins a list, character by character. Decode by a
# table look-up, without a loop over the ids: a tensor with the code point of every id, and bytes in UTF-32.
# (`tensor.numpy().tobytes()` gives the bytes.)

# %% tags=["exercise"]
def decode_by_table(ids: torch.Tensor, characters: str) -> str:
    return ""


# %%
check("02.decode_by_table", decode_by_table)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: a small vocabulary
small = llmkit.CharTokenizer.from_text("to be or not to be")
print(plots.visible(small.characters))
small_vocabulary = (7, [1, 4, 6], "robe")
assert small.encode("bot").tolist() == [1, 4, 6]
check("02.small_vocabulary", small_vocabulary)

# %% tags=["solution"]
# @title Solution 2: Caesar's cipher


def caesar(string: str, n: int, characters: str) -> str:
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode((tokenizer.encode(string) + n) % tokenizer.vocab_size)


secret = caesar("To be, or not to be", 3, tokenizer.characters)
print(secret)
assert caesar(secret, -3, tokenizer.characters) == "To be, or not to be"  # read by moving back
check("02.caesar", caesar)

# %% tags=["solution"]
# @title Solution 3: without capitals


def without_capitals(text: str) -> tuple[int, float]:
    small = text.lower()
    ids_saved = len(set(text)) - len(set(small))
    return ids_saved, sum(a != b for a, b in zip(text, small, strict=True)) / len(text)


ids_saved, share_lost = without_capitals(text)
print(f"{ids_saved} ids saved, {share_lost:.1%} of the characters lost")
check("02.without_capitals", without_capitals)

# %% tags=["solution"]
# @title Solution 4: repair it


def repaired(string: str, characters: str) -> torch.Tensor:
    if not string:
        return torch.zeros(0, dtype=torch.int64)  # frombuffer refuses an empty buffer
    table = torch.full((sys.maxunicode + 1,), -1)  # a place for every code point there is
    table[[ord(character) for character in characters]] = torch.arange(len(characters))
    code_points = torch.frombuffer(bytearray(string, "utf-32-le"), dtype=torch.int32)
    ids = table[code_points]
    if ids.min() < 0:
        unknown = string[ids.argmin()]
        raise ValueError(f"{unknown!r} is not in the vocabulary")
    return ids


check("02.repaired", repaired)

# %% tags=["solution"]
# @title Solution 5: bytes


class ByteTokenizer:
    vocab_size = 256

    def encode(self, string: str) -> torch.Tensor:  # (N,)
        return torch.tensor(list(string.encode("utf-8")), dtype=torch.int64)

    def decode(self, ids: torch.Tensor) -> str:
        return bytes(ids.tolist()).decode("utf-8")


by_byte = ByteTokenizer()
print("好 is", by_byte.encode("好").tolist())
assert len(by_byte.encode(text)) == len(text)  # one byte each, since all our characters are ASCII
check("02.ByteTokenizer", ByteTokenizer)

# %% tags=["solution"]
# @title Solution 6: the way back by table


def decode_by_table(ids: torch.Tensor, characters: str) -> str:
    code_points = torch.tensor([ord(character) for character in characters], dtype=torch.int32)
    return code_points[ids].numpy().tobytes().decode("utf-32-le")


assert decode_by_table(tokenizer.encode(text), tokenizer.characters) == text
check("02.decode_by_table", decode_by_table)
