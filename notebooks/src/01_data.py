# %% [markdown]
# # 01 · Data
# *Text is the only supervision.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/01_data.ipynb)
#
# About 26 minutes to read, exercises aside.
#
# [02 · Character tokenizer](02_char_tokenizer.ipynb) →

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
# Read this line, and guess the letter that comes next:
#
# > To be, or not to b
#
# Nobody told you the rules of spelling, or which play this is from. You have read enough English to know. In
# 1951 Claude Shannon measured how well people play this game: one of his readers found 89 of 129 letters at the
# first guess
# ([Prediction and Entropy of Printed English](https://doi.org/10.1002/j.1538-7305.1951.tb01366.x)).
#
# A *language model* is a program that plays it. Where could a program learn what you know?

# %%
import random
import re
import tempfile
from collections import Counter
from pathlib import Path

import llmkit
from llmkit import drawings, plots

runtime = llmkit.start(seed=1337)  # finds a GPU where there is one, and fixes what is random
runtime

# %% [markdown]
# ## What a language model does
#
# It reads the beginning of a text, and gives every character that might come next a probability. That is all.
# Much can be made of that:
#
# - A telephone's keyboard offers the likeliest next words.
# - Speech recognition hears something between *recognise speech* and *wreck a nice beach*, and takes the
#   likelier.
# - A program that completes code, translates or answers questions *writes*: it draws a next piece from the
#   probabilities, appends it, and asks again. The answer is what probably follows the question.
#
# This is the way from text to text, and the plan of the first eight notebooks:

# %%
drawings.pipeline()

# %% [markdown]
# (The ids are numbers that stand for characters; the probabilities are drawn as bars.)
#
# So everything depends on good probabilities. To learn them, a program needs exercises with their solutions. Any
# sentence is full of them:

# %%
sentence = "To be, or not to be"
for i in range(11, len(sentence)):
    print(f"{sentence[:i]:>18} → {plots.visible(sentence[i])}")

# %% [markdown]
# On the left is an exercise, on the right its solution (`␣` is a space). Nobody had to add the solutions; they stand in
# the text. To teach a program to tell cats from dogs, people must first say which picture shows which. **Here the text
# is the only supervision**: every position of every page is an exercise with its answer.
#
# So a model can be no better than its text. This notebook takes one text, cleans it, counts it and cuts it in two. The
# notebooks after it make the model.
#
# Our quotations are Shakespeare's, and so is the text on a GPU runtime such as Colab's (*Tiny Shakespeare*, a million
# characters). On a computer without a GPU it is a shorter play that was written for this series and comes with llmkit,
# so that everything runs without a network. Both use the same 65 characters. The numbers printed below are the play's;
# Shakespeare's are different.

# %%
text = llmkit.load_text(runtime.corpus)
print(llmkit.corpora().get(runtime.corpus, "a text of your own"))
print(f"{len(text):,} characters\n")
print(text[:300])

# %% [markdown]
# A play: a name, a colon, what is said, an empty line. Nobody explains that to a model. It learns that a name stands in
# front of a colon as it learns what follows a `q`, by seeing it often:

# %% tags=["trained"]
followers = Counter(re.findall("q(.)", text))  # the dot: any character
assert set(followers) == {"u"}
followers

# %% [markdown]
# Every `q` in this text is followed by a `u`. With `th` at the start of a word there is more choice:

# %%
after = Counter(re.findall(r"\bth([a-z])", text))  # \b: where a word begins or ends
letters = [letter for letter, _ in after.most_common(6)]
assert letters[0] == "e"
assert after["e"] > 0.5 * after.total()
plots.bars(
    letters,
    [after[letter] / after.total() for letter in letters],
    "After th, more than half of the time, comes e",
    xlabel="share of all words that begin with th",
    ylabel="third letter",
    fmt="{:.1%}",
)

# %% [markdown]
# This picture *is* a language model, for one single beginning. A real one has such bars for every possible beginning,
# even for those that it has never seen.
#
# ## Clean
#
# Text rarely comes clean. Here is a very short *Julius Caesar* in bytes, as the library Project Gutenberg
# would deliver it:

# %%
messy = (
    "\ufeffThe Project Gutenberg eBook of Julius Caesar\r\n\r\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK JULIUS CAESAR ***\r\n\r\n\r\n"
    "CAESAR.\r\nEt tu, Brute?\r\n\r\n\r\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK JULIUS CAESAR ***\r\n"
    "Please read the licence before you use this work.\r\n"
).encode("utf-8")
print(messy[:60])
print(repr(messy.decode("utf-8")[:30]))


# %% [markdown]
# Three things here are not Shakespeare's, and two of them are invisible in an editor:
#
# - `\ufeff`, the *byte-order mark*: some editors write it in front of UTF-8 text. It has no width and no ink.
# - `\r\n`, the line end of Windows: two characters where other systems write the one `\n`.
# - the header and the licence. A model trained on them learns to write licences.
#
# To a model each of them is a part of the language. So we take them off:

# %%
def clean(raw: bytes) -> str:
    text = raw.decode("utf-8-sig")  # "-sig": drops the byte-order mark, where there is one
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # MULTILINE: ^ is the beginning of any line. DOTALL: a dot stands for a line end too.
    body = re.search(r"^\*\*\* START OF.*?\n(.*)^\*\*\* END OF", text, re.MULTILINE | re.DOTALL)
    return (body[1] if body else text).strip() + "\n"


print(clean(messy))
assert clean(b"\xef\xbb\xbfEt tu,\r\nBrute?") == "Et tu,\nBrute?\n"  # mark and line ends alone

# %% [markdown]
# `load_text` does the same: it repairs marks and line ends in every text, and takes off Gutenberg's wrapping for
# `"julius_caesar"`, the whole play. (That one needs a network.)
#
# One fault is worse than all these. How letters are turned into bytes is called the *encoding*, and whoever
# guesses it wrong may get another text without any error:

# %%
print(bytes("Et tu, Brutë?", "utf-8").decode("latin-1"))  # written in one encoding, read in another
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
caesar = Path(folder.name) / "caesar.txt"
caesar.write_bytes("Et tu, Brutë?".encode("latin-1"))  # and now the other way round
try:
    llmkit.load_text(caesar)
except ValueError as error:
    print(str(error).replace(str(caesar), caesar.name))

# %% [markdown]
# The first line is what a model would have learned to spell. The second comes from a program that stops and says
# why. Better to stop.
#
# ## Count
#
# Is our text clean? Nothing tells us faster than a list of all its characters:

# %%
counts = Counter(text)
print(len(counts), "distinct characters:")
print(plots.visible("".join(sorted(counts))))
assert not {"\r", "\ufeff", "\t"} & set(counts)

# %% [markdown]
# No stray marks. But what are a `$`, a `&` and a single digit, `3`, doing in a play? Whatever looks odd, look it up:

# %%
for character in "$&3":
    place = text.index(character)
    print(f"{character}  {counts[character]:3} times, first in {text[place - 30 : place + 30]!r}")

# %% [markdown]
# All three are rare, and only reading tells whether they are meant. (In Tiny Shakespeare the only `$` is a misprint,
# `sha$l`, and every model made from that text carries the character along.) Which ones are frequent?

# %%
common = counts.most_common()
top_ten = sum(n for _, n in common[:10]) / len(text)
assert 0.6 < top_ten < 0.7
plots.bars(
    ["space" if character == " " else character for character, _ in common[:10]],
    [n for _, n in common[:10]],
    f"Ten of {len(counts)} characters make up {top_ten:.0%} of the text",
    xlabel="times in the text",
    ylabel="character",
    fmt="{:,.0f}",
)

# %% [markdown]
# A few do most of the work. With words it is the same, and there are many more rare ones (*Zipf's law*):

# %%
words = Counter(re.findall(r"[a-z']+", text.lower()))
once = sum(n == 1 for n in words.values()) / len(words)
print("most frequent:", ", ".join(f"{word} {n:,}" for word, n in words.most_common(5)))
print(f"{len(words):,} distinct words, of which {once:.0%} occur once")
assert once > 0.4

# %% [markdown]
# So a model sees a few words again and again, and nearly half of the different words only once. And who speaks?

# %%
speeches = [speech.strip().split(":\n", 1) for speech in text.split("\n\n")]
speakers = Counter(speech[0] for speech in speeches if len(speech) == 2)
print(f"{speakers.total():,} speeches by {len(speakers)} speakers")
print("most often:", ", ".join(f"{name} {n}" for name, n in speakers.most_common(5)))


# %% [markdown]
# ## Will counting do?
#
# Above we counted what follows `th`. Why not count what follows *every* string, and be done? Let us see how many
# strings of `k` characters there are, and how often each one occurs:

# %%
def strings(text: str, k: int) -> set[str]:
    """The distinct strings of k characters in the text."""
    return {text[i : i + k] for i in range(len(text) - k + 1)}


print(" k            possible   in the text   times each")
for k in range(1, 9):
    n = len(strings(text, k))
    print(f"{k:2}{len(counts) ** k:20,}{n:14,}{len(text) / n:13.1f}")
assert len(text) / n < 2

# %% [markdown]
# Look at the last column. On average a string of eight characters occurs once or twice in the text, too rarely to make a
# probability of what followed it. And new text will bring new strings. How many? To find out, put a piece of the text
# aside.
#
# ## Cut in two
#
# `split` cuts once. From the first nine tenths a model may learn; that is called *training*. The last tenth is
# *held out*, to judge the model on text that it has not seen; that is called *validation*.

# %%
train_text, val_text = llmkit.split(text, val_fraction=0.1)
assert train_text + val_text == text
print("training   ends:  ", repr(train_text[-60:]))
print("validation begins:", repr(val_text[:60]))


# %% [markdown]
# Now we can ask what share of the held-out text has been seen before, in pieces of k characters:

# %%
def seen_before(train: str, held_out: str, k: int) -> float:
    """The share of the held-out strings of k characters that occur in the training text."""
    known = strings(train, k)
    pieces = [held_out[i : i + k] for i in range(len(held_out) - k + 1)]
    return sum(piece in known for piece in pieces) / len(pieces)  # True counts as 1


# %% tags=["trained"]
lengths = range(1, 13)
seen = [seen_before(train_text, val_text, k) for k in lengths]
assert seen[0] == 1
assert seen[1] > 0.95
assert seen[11] < 0.2
plots.bars(
    [str(k) for k in lengths],
    seen,
    "The longer a string, the less likely it was seen before",
    xlabel="share of held-out strings that occur in the training text",
    ylabel="length of the string",
    fmt="{:.1%}",
)


# %% [markdown]
# Of single characters and pairs, all or nearly all were seen; of strings of twelve characters, two or three words, only a
# few. A model has to say something sensible about beginnings that nobody has written yet, and a table of whole
# beginnings is silent there. (It may fall back on shorter ones. Exercise 6 shows that this goes further than one would
# think.) What a model makes of new beginnings is the question of everything from notebook 03b on.
#
# ## Why hold text out at all?
#
# Here is a model that understands nothing. It remembers, for every twelve characters of the training text, which
# one came next:

# %%
def remember(pieces: list[str], k: int = 12) -> dict[str, str]:
    """For every k characters in the pieces, the character that came next (the last time)."""
    memory = {}
    for piece in pieces:
        for i in range(len(piece) - k):
            memory[piece[i : i + k]] = piece[i + k]  # overwrites what came there before
    return memory


def share_right(memory: dict[str, str], pieces: list[str], k: int = 12) -> float:
    """The share of next characters in the pieces that the memory gets right."""
    right = asked = 0
    for piece in pieces:
        for i in range(len(piece) - k):
            right += memory.get(piece[i : i + k]) == piece[i + k]
            asked += 1
    return right / asked


# %%
memory = remember([train_text])
on_training, on_held_out = share_right(memory, [train_text]), share_right(memory, [val_text])
print(f"next character right: {on_training:.1%} on the training text, {on_held_out:.1%} held out")
assert on_training > 0.9
assert on_held_out < 0.2

# %% [markdown]
# Asked about what it was shown, it looks like a genius. Only the held-out text shows that it understands nothing. That is
# why this series judges every model by held-out text.
#
# ## Why not shuffle?
#
# In most of machine learning one shuffles the examples before the split. It is tempting to do the same with
# text: slide a window over it, one example for each position, and hold out a tenth of the windows *at random*.
# We give our memory both exams. Windows of 32 characters hold the text 32 times over, so a part of it will do:
# `runtime.pick` takes a small part on a CPU and a larger one on a GPU.

# %%
part = text[: runtime.pick(cpu=20_000, gpu=50_000)]
train_part, val_part = llmkit.split(part)
memory = remember([train_part])
by_heart, one_cut = share_right(memory, [train_part]), share_right(memory, [val_part])

windows = [part[i : i + 32] for i in range(len(part) - 31)]
random.Random(1337).shuffle(windows)  # any number will do; it makes the shuffle the same each time
train_windows, val_windows = llmkit.split(windows)
shuffled = share_right(remember(train_windows), val_windows)
assert shuffled > 0.9
assert one_cut < 0.2
plots.bars(
    ["the text it learned by heart", "held out: windows at random", "held out: the last tenth"],
    [by_heart, shuffled, one_cut],
    "With shuffled windows, learning by heart passes the exam",
    xlabel="share of next characters that the memory gets right",
    highlight="held out: windows at random",
    fmt="{:.0%}",
)

# %% [markdown]
# The memory has not become any better; the exam has become worthless. Most held-out windows have a neighbour in
# the training part that begins one character earlier and holds 31 of their 32 characters. That is a *leak*. One
# cut, without shuffling, leaves a single place where the two parts touch.
#
# ## Does anything stand on both sides?
#
# A text may also repeat itself. So look for held-out lines that occur, letter for letter, in the training part:

# %%
train_lines = set(train_text.splitlines())
long_lines = [line for line in val_text.splitlines() if len(line) >= 20]
repeated = [line for line in long_lines if line in train_lines]
print(f"{len(repeated)} of {len(long_lines):,} long lines occur in the training text")
assert len(repeated) <= 0.01 * len(long_lines)

# %% [markdown]
# Would we have noticed? Put a speech on both sides, and look again:

# %%
planted = max(val_text.split("\n\n")[1:-1], key=len)  # the longest whole speech held out
train_lines = set((train_text + "\n\n" + planted).splitlines())
found = [line for line in long_lines if line in train_lines]
print(f"{len(found)} lines found, the first: {found[0]!r}")
assert len(found) > len(repeated)

# %% [markdown]
# In a play this takes a moment. With text from the web it is serious work: in C4, a collection much used for
# training, one sentence of 61 words stood more than 60,000 times, and in common data sets over 4 % of the
# validation part overlapped with the training part
# ([Lee and others, 2021](https://arxiv.org/abs/2107.06499)).
#
# ## For later: loading with `datasets`
#
# `load_text` found the text. How would one load it without llmkit? A widely used library for the purpose is Hugging
# Face's `datasets`; skip this section until you need it. We put the text into a file first, so that there is something
# to load.

# %%
from datasets import load_dataset

file = Path(folder.name) / "play.txt"
file.write_bytes(text.encode("utf-8"))

rows = load_dataset("text", data_files=str(file), split="train", cache_dir=folder.name)
print(rows)
rows["text"][:6]

# %% [markdown]
# A table with one column, `text`, and a row for each line, because that is the default: `sample_by="line"`. It
# suits a file in which every line is a document of its own. Ours is *one* document, and its line ends are gone:

# %%
by_line = "".join(rows["text"])
print(by_line[:60])
print(f"{len(text) - len(by_line):,} of {len(text):,} characters are missing")
assert len(text) - len(by_line) == text.count("\n")  # the line ends, and nothing else

# %% [markdown]
# A model that learns from this never sees where a line or a speech ends. There are two other ways to cut. Which one
# brings back every character?

# %%
for how in ("paragraph", "document"):
    rows = load_dataset(
        "text", data_files=str(file), split="train", sample_by=how, cache_dir=folder.name
    )
    joined = "".join(rows["text"])
    print(f"{how:9}  rows: {len(rows):,}  characters missing: {len(text) - len(joined):,}")

assert rows[:]["text"] == [text]

# %% [markdown]
# By paragraph each speech is a row, and the empty lines between them are gone. By document the file is a single
# row, equal to our string. `data_files` may also be an address on the web; then `datasets` downloads the file
# and keeps a copy. On a GPU runtime, such as Colab's, our text comes from there:

# %%
SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
source = SHAKESPEARE if runtime.corpus == "tiny_shakespeare" else str(file)
rows = load_dataset(
    "text", data_files=source, split="train", sample_by="document", cache_dir=folder.name
)
assert rows[0]["text"] == text == llmkit.load_text(runtime.corpus)

# %% [markdown]
# `llmkit.load_text` lets `datasets` fetch `"tiny_shakespeare"` and any address too. A path it opens itself, so a
# file of your own works as well. Of Tiny Shakespeare it also compares a *checksum*, a short fingerprint of the
# whole file, so that half a download does not pass for all of it.
#
# ### A line that used to work
#
# Many tutorials load the same text with `load_dataset("tiny_shakespeare")`. There the data set was not a file
# but a *program* that fetched and cut the file. We do not need the network to see what happens to such a
# program now:

# %%
script = Path(folder.name) / "tiny_shakespeare" / "tiny_shakespeare.py"
script.parent.mkdir(exist_ok=True)
script.write_text("print('any program at all could stand here')\n")

try:
    load_dataset(str(script.parent))
except RuntimeError as error:
    print(error)

# %% [markdown]
# Since version 4 `datasets` no longer runs the programs of strangers in order to load their data. The line was
# not wrong when it was written; it depended on code that somebody else kept. A plain file runs nobody's code, and its
# checksum tells whether it is still the same file.
#
# ## What we saw

# %%
print("            characters  distinct   lines    words")
for name, part in {"training": train_text, "validation": val_text}.items():
    lines, words = part.count("\n"), len(part.split())
    print(f"{name:10}{len(part):12,}{len(set(part)):10}{lines:8,}{words:9,}")

# %% [markdown]
# - A language model gives every next character a probability, and any text is full of solved exercises for it.
# - A byte-order mark, `\r` and a licence would be learned like everything else. A list of all characters shows
#   what does not belong.
# - A memory of twelve characters is nearly perfect on its own text and lost on the held-out tenth. With shuffled
#   windows it seems perfect there too: cut once, and do not shuffle.
# - The longer the beginning, the more often it is new, so counting whole beginnings cannot be enough.
# - Of the three ways in which `datasets` cuts a file, only `sample_by="document"` kept every character.
#
# So far all is text. A model computes with numbers, and it can neither add nor multiply a `q`. How do characters become
# numbers, and how do they come back without loss? That is [notebook 02](02_char_tokenizer.ipynb).

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck?
# `hint` gives one step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Count before you run** (easy, 2 minutes). The line `to be or not to be` has 18 characters. A model reads some
# characters that stand together, and guesses the next one. Predict, with no computer: how many such exercises, with
# their solutions, does the line hold if the model reads 4 characters? If it reads 17? And 18?

# %% tags=["exercise"]
how_many = None  # your answer: (for 4, for 17, for 18)

# %%
check("01.how_many", how_many)

# %%
hint("01.how_many")  # so you ask for one; run it again for the next

# %% [markdown]
# **2 · Typeset text** (easy, 5 minutes). A text set by a printer has curly quotes, dashes and the like: new
# characters, each of them rare. Make `plain` turn them into characters that our text has: each of `“ ” ‘ ’` into
# `'`, the dash `—` into `--`, and `…` into `...`.

# %% tags=["exercise"]
typeset = "“Well—a day…” said he; ’twas but 3 o’clock"


def plain(string: str) -> str:
    return string


# %%
check("01.plain", plain)


# %% [markdown]
# **3 · Repair it** (medium, 10 minutes). This version of `clean` runs, and most files come out of it well. It is wrong in
# three ways. Find them, and mend all three. (What is not UTF-8 should be refused: `decode` raises a `ValueError` of its
# own accord.)

# %% tags=["exercise"]
def repaired(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="ignore")
    text = text.replace("\r", "\n").replace("\r\n", "\n")
    return text.strip() + "\n"


# %%
check("01.repaired", repaired)


# %% [markdown]
# **4 · A cut between speeches** (medium, 10 minutes). Our cut goes through the middle of a speech, perhaps of a word.
# Write `split_at_speech`, which moves it to the nearest place where a speech begins, and still loses nothing.
# Between two speeches stands an empty line; it belongs to the first part.

# %% tags=["exercise"]
def split_at_speech(text: str, val_fraction: float = 0.1) -> tuple[str, str]:
    return llmkit.split(text, val_fraction)


# %%
check("01.split_at_speech", split_at_speech)


# %% [markdown]
# **5 · The longest echo** (hard, 20 minutes). Which is the longest string that stands in both of two texts? Trying
# every length works, and takes its time. If two texts share a string of 30 characters, they share one of 29 too:
# how does that help? (Texts that share nothing share the empty string.)

# %% tags=["exercise"]
def longest_echo(one: str, other: str) -> str:
    return ""


# %%
check("01.longest_echo", longest_echo)


# %% [markdown]
# **6 · A memory that backs off** (hard, 25 minutes). The memory of twelve characters was silent about nearly all of
# the held-out text. Let it *back off*: where it does not know the last `most` characters, it asks for the last
# `most - 1`, and so on down to one. The longest beginning that it knows makes the guess. Which share of the characters
# `held_out[most:]` does it get right? Guess before you run it on the whole text: a tenth, a third, a half?

# %% tags=["exercise"]
def back_off(train: str, held_out: str, most: int) -> float:
    return share_right(remember([train], most), [held_out], most)


# %%
check("01.back_off", back_off)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: count before you run
# Every character with k others before it is the answer of one exercise: 18 - k of them. The last
# window of k characters is none, since nothing comes after it.
how_many = (14, 1, 0)
check("01.how_many", how_many)

# %% tags=["solution"]
# @title Solution 2: typeset text


def plain(string: str) -> str:
    quotes = dict.fromkeys("“”‘’", "'")
    return string.translate(str.maketrans(quotes | {"—": "--", "…": "..."}))


print(plain(typeset))
assert set(plain(typeset)) <= set(text)
check("01.plain", plain)

# %% tags=["solution"]
# @title Solution 3: repair it


def repaired(raw: bytes) -> str:
    text = raw.decode("utf-8-sig")  # takes the mark off, and refuses what is not UTF-8
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # the pair first
    return text.strip() + "\n"


check("01.repaired", repaired)

# %% tags=["solution"]
# @title Solution 4: a cut between speeches


def split_at_speech(text: str, val_fraction: float = 0.1) -> tuple[str, str]:
    wanted = int((1 - val_fraction) * len(text))
    starts = [match.end() for match in re.finditer("\n\n", text)]
    cut = min(starts, key=lambda start: abs(start - wanted))
    return text[:cut], text[cut:]


print(repr(split_at_speech(text)[1][:40]))
check("01.split_at_speech", split_at_speech)

# %% tags=["solution"]
# @title Solution 5: the longest echo
# What is shared at length k is shared at every smaller one. So double k until nothing is shared,
# then halve the range that is left.


def longest_echo(one: str, other: str) -> str:
    low, high = 0, 1  # shared at low; high is to become a length at which nothing is
    while strings(one, high) & strings(other, high):
        low, high = high, 2 * high
    while high - low > 1:
        k = (low + high) // 2
        low, high = (k, high) if strings(one, k) & strings(other, k) else (low, k)
    return min(strings(one, low) & strings(other, low))  # of several the first in the alphabet


echo = longest_echo(train_text, val_text)
print(f"{len(echo)} characters: {echo!r}")
check("01.longest_echo", longest_echo)

# %% tags=["solution", "trained"]
# @title Solution 6: a memory that backs off


def back_off(train: str, held_out: str, most: int) -> float:
    memories = {k: remember([train], k) for k in range(1, most + 1)}
    right = 0
    for i in range(most, len(held_out)):
        for k in range(most, 0, -1):
            if guess := memories[k].get(held_out[i - k : i]):
                right += guess == held_out[i]
                break
    return right / (len(held_out) - most)


share = back_off(train_text, val_text, most=12)
print(f"{share:.1%} of the held-out text, against {on_held_out:.1%} without backing off")
assert share > 0.4  # so long beginnings are new, and short ones still tell much
check("01.back_off", back_off)
