# %% [markdown]
# # 13 · Instruction tuning
# *From a model that goes on talking to one that answers: the loss counts the answer only.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/13_instruction_tuning.ipynb)
#
# About 22 minutes to read, exercises aside.
#
# ← [12 · LoRA](12_lora.ipynb) · [13b · Preferences and rewards](13b_preferences_and_rewards.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it installs nothing.
import importlib.util
import os
import subprocess
import sys

if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait soon leave the cores to others
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
if importlib.util.find_spec("sacrebleu") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+https://github.com/your-account/llmkit@v0.1.0")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [f"llmkit[metrics] @ {source}"]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {source}; pip says above why.")
    importlib.invalidate_caches()

# %% [markdown]
# Ask a language model "First word?" and it may well reply "Second word?". It has learned one thing, to go on as its text
# went on, and in a play a question is often followed by another question. How does such a model become something that does
# what it is asked?
#
# Nothing about the model has to change, nor about training. What changes is what it reads: tasks with their answers, always
# in the same form. And one detail of the loss.

# %%
import copy
import math
from collections import Counter

import sacrebleu
import torch
import torch.nn.functional as F
from rouge_score.rouge_scorer import RougeScorer

import llmkit
from llmkit import plots
from llmkit.finetune import instructions
from llmkit.finetune.widgets import Rater
from llmkit.speed import cpu

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## A model that completes
#
# First the kind of model that the earlier notebooks make: it has read a play, nothing else. It is a small GPT with rotary
# positions (notebook 05b), trained by Muon (notebook 06), and it reads only for a few seconds: that will be enough.

# %% tags=["trained"]
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
T = 80  # the context, in characters
shape = runtime.pick(
    cpu=dict(n_layer=3, n_head=2, n_embd=64),
    gpu=dict(n_layer=4, n_head=8, n_embd=256, dropout=0.1),
)
V = tokenizer.vocab_size
config = llmkit.GPTConfig(V, T, position="rotary", **shape)
base = llmkit.GPT(config).to(runtime.device)

steps = runtime.pick(cpu=60, gpu=1000)
settings = llmkit.TrainConfig(steps=steps, batch_size=16, optimizer="muon")
with cpu.tuned(base):  # attention as a CPU likes it, see notebook 10
    history = llmkit.train(base, tokenizer.encode(text), config=settings)
print(f"loss ≈ {history.loss[-1]:.2f} nats per character, ≈ {history.seconds:.0f} s")
assert history.loss[-1] < 2.6

# %% [markdown]
# A first question to it. (What it says differs a little from machine to machine.)

# %% tags=["nbval-ignore-output", "sampled-text"]
prompt = tokenizer.encode("How many words?\nThe river is up\n")
print(tokenizer.decode(llmkit.generate(base, prompt, 40, temperature=0.7, seed=1)))

# %% [markdown]
# It goes on. It was never shown that something can be *wanted*.
#
# ## Tasks with answers
#
# `data/instructions.jsonl` was written for this project: small tasks on words and lines of the play, and questions about it.
# A tenth is held out. No question of that tenth is asked in the rest, nor is the same task set there on the same words. (Only
# questions on the play may ask in other words for a fact that another one asks for too.) Two kinds of task, to say who said
# something and to rewrite a line, are a third of all the characters. To save time we leave them out.

# %%
whole_file = instructions.load()
items = [item for item in whole_file if item.task not in ("rewrite", "who says it")]
kept, all_of_it = (sum(len(i.prompt + i.answer) for i in some) for some in (items, whole_file))
assert kept < 0.7 * all_of_it
train_items, val_items = llmkit.split(items, 0.1)
tasks = sorted({item.task for item in items})
print(f"{len(train_items):,} items to learn from, {len(val_items)} held out\n")
for task in tasks:
    item = next(item for item in train_items if item.task == task)
    print(f"{task:14}{item.instruction:26}{plots.visible(item.input):26}{item.answer}")
known = {(item.task, item.input) for item in train_items if item.input}
assert not any((item.task, item.input) in known for item in val_items)

# %% [markdown]
# (↵ is a line end. The data have the 65 characters of the play, which knows no digit but 3: numbers are words.)
#
# ## One form for all
#
# The model reads characters. So each item becomes a text, always of the same form, the *prompt template*:

# %%
item = next(item for item in train_items if item.instruction == "What follows the?")
prompt = f"Q: {item.instruction}\n{item.input}\nA: "
whole = prompt + item.answer + "\n"
print(whole)
assert prompt == item.prompt  # llmkit has the template in one place, instructions.PROMPT_TEMPLATE

# %% [markdown]
# The last character matters too. An answer is one line, and the line end is our *end token*: the model must learn to predict
# it, or it would never stop. And whoever asks this model later must use the very same form, down to the space after `A:`.
#
# ## What counts
#
# As always, the target at each position is the next character. But do we want the model to learn to *ask* these questions?
# A target of -100 is left out of the mean by PyTorch's cross-entropy (its `ignore_index`), and so by `model.loss`.

# %%
ids = tokenizer.encode(whole)  # (N,)
x, y = ids[:-1], ids[1:].clone()  # (N - 1,) each: y[t] comes after x[t]
y[: len(prompt) - 1] = -100  # the prompt's own characters; its last one predicts the answer's first
for ours, theirs in zip((x, y), instructions.encode(item, tokenizer), strict=True):
    assert torch.equal(ours, theirs)
assert tokenizer.decode(y[y != -100]) == item.answer + "\n"

x, y = x.to(runtime.device), y.to(runtime.device)
base.eval()  # no dropout
logits = base(x[None])[0]  # (N - 1, V)
by_hand = F.cross_entropy(logits[y != -100], y[y != -100])
assert torch.allclose(base.loss(x[None], y[None]), by_hand, atol=1e-5)
print(f"{(y != -100).sum()} of {len(y)} targets count")

# %%
counts = torch.zeros(len(whole))
counts[1:] = (y != -100).float().cpu()  # a character counts where it is a target
plots.text_heat(
    whole, counts, "The loss counts the answer and its end, nothing else", label="counts"
)

# %% [markdown]
# ## Rows of equal length
#
# A batch is a rectangle, and items have all lengths. *Padding* gives each a row of its own and fills it up. *Packing* puts
# several into a row, one after the other. Here are three small items in rows of 60:

# %%
few = [instructions.encode(item, tokenizer) for item in train_items[:3]]
for arrange in (instructions.pad, instructions.pack):
    rows = arrange(few, 60)
    print(f"{arrange.__name__}: {len(rows.x)} rows")
    for row in rows.x:
        print("   ", plots.visible(tokenizer.decode(row)))

# %% [markdown]
# Much of a padded row is filling (id 0, which happens to be the line end). It does no harm: attention looks back only, so no
# position that counts sees it, and it counts nowhere. But the computer multiplies it all the same. How much is wasted on all
# of the items?

# %%
examples = [instructions.encode(item, tokenizer) for item in train_items]
padded, packed = instructions.pad(examples, T), instructions.pack(examples, T)
used = {
    "padded": sum(len(x) for x, _ in examples) / padded.x.numel(),
    "packed": sum(len(x) for x, _ in examples) / packed.x.numel(),
}
print(f"{len(padded.x):,} rows padded, {len(packed.x):,} packed")
print(f"{padded.counted:.1%} and {packed.counted:.1%} of their positions count in the loss")
assert (padded.y != -100).sum() == (packed.y != -100).sum()  # nothing is lost
assert len(packed.x) < 0.6 * len(padded.x)
percent = [100 * share for share in used.values()]
plots.bars(list(used), percent, "Packing fills the rows", xlabel="positions that hold an item (%)")

# %% [markdown]
# Packing has a price: **in a packed row, an item sees the items before it**. Let us look at it, on two rows that differ in the
# first item only.

# %%
row = instructions.pack(few[:2], T).x  # (1, T)
first = tokenizer.decode(row[0]).index("\nQ: ") + 1  # where the second item starts
changed = row.clone()
changed[0, 3] = (changed[0, 3] + 1) % V  # another character in the first question
probe = llmkit.GPT(llmkit.GPTConfig(V, T, n_layer=2, n_head=2, n_embd=32))
seen = (probe(row) - probe(changed)).abs().amax(dim=-1)[0]  # (T,): how much each position notices
noticed, length = (seen[first:] > 0).sum().item(), len(seen[first:])
print(f"{(seen[:3] > 0).sum()} of 3 positions before the change notice it")
print(f"{noticed} of {length} positions of the second item do")

# %% [markdown]
# A mask could forbid it (exercise 3); the makers of Llama 3 use one ([2024, section 3.2](https://arxiv.org/abs/2407.21783)). We
# accept it: neighbours are thrown together at random, so that a model gains nothing by looking at them.
#
# ## Before
#
# Our score is *exact match*: the share of answers that are right to the letter. First the model that has only read the play:

# %% tags=["trained"]
before = instructions.exact_match(val_items, instructions.answer(base, tokenizer, val_items, 30))
print(f"exact match on {len(val_items)} held-out items: ≈ {before['all']:.0%}")
assert before["all"] < 0.03

# %% [markdown]
# ## Loss on everything, loss on the answer
#
# Now two pupils, both copies of this model, both with the same number of steps on the same rows. For one every character
# counts, questions too; for the other only the answers. `llmkit.train` takes what `pack` made, a dataset of examples, in
# place of a text.

# %% tags=["trained"]
budget = runtime.pick(
    cpu=dict(steps=280, batch_size=18, adamw_share=1.0),  # embeddings at Muon's rate: few steps
    gpu=dict(steps=1500, batch_size=64),
)
dtype = cpu.best_dtype(runtime.device)  # half the bits, on a CPU that multiplies in them
tuning = llmkit.TrainConfig(**budget, optimizer="muon", learning_rate=0.03, dtype=dtype)
everything = [instructions.encode(item, tokenizer, answer_only=False) for item in train_items]
pupils, marks, said = {}, {"before": before}, {}
for name, material in {"all counts": everything, "answer counts": examples}.items():
    pupils[name] = copy.deepcopy(base)
    with cpu.tuned(pupils[name]):
        llmkit.train(pupils[name], instructions.pack(material, T), config=tuning)
    said[name] = instructions.answer(pupils[name], tokenizer, val_items, 30)
    marks[name] = instructions.exact_match(val_items, said[name])
for name, mark in marks.items():
    print(f"{name:14} exact match ≈ {mark['all']:.0%}")
assert marks["answer counts"]["all"] > 1 / 3 > 0.03 > before["all"]
assert marks["answer counts"]["all"] > marks["all counts"]["all"]


# %% [markdown]
# From nearly nothing to more than a third. Why does it pay to leave the questions out? Only one position in eight belongs to
# an answer. Where all count, most of the gradient goes into learning to *ask*, which nobody will need. It is no law: with
# short answers to long questions and few examples, counting the questions too can help
# ([Shi et al. 2024](https://arxiv.org/abs/2405.14394)).
#
# But how much of it is guessing? For each task, always give the answer that is most frequent in training:

# %%
def most_frequent(task: str) -> str:
    answers = [item.answer for item in train_items if item.task == task]
    return max(sorted(set(answers)), key=answers.count)


guesses = {task: most_frequent(task) for task in tasks}
chance = instructions.exact_match(val_items, [guesses[item.task] for item in val_items])
for task in tasks:
    print(f"{task:14}{chance[task]:5.0%}  by always saying {guesses[task]!r}")
print(f"{'all':14}{chance['all']:5.0%}")

# %% tags=["trained"]
after = marks["answer counts"]
rows = {"one answer": chance, **{name: marks[name] for name in pupils}}
plots.matrix(
    [[100 * mark[task] for task in tasks] for mark in rows.values()],
    list(rows),
    [task.replace(" ", "\n", 1) for task in tasks],  # on two lines
    "Where only the answer counts, procedures are learned",
    label="exact match (%)",
    texts="{:.0f}",
)

# %% tags=["trained"]
for task in ("count words", "first word", "last word", "reverse"):
    assert after[task] > chance[task] + 0.15
assert after["all"] > 3 * chance["all"]
assert after["the play"] < runtime.pick(cpu=0.2, gpu=1.0)

# %% [markdown]
# So the tasks differ. The first word, the last word, a word backwards, the number of words are *procedures*: hundreds of
# examples show the same steps, and new words need nothing new. For *count letters* our small model has found little or
# nothing better than the most frequent answer. *Word after* first has to find a place by its content, and then copy from
# it: two steps, the first of which it has hardly learned. And *the play* asks for facts. Hardly any of the held-out ones is
# answered: no number of other facts shows how to find a new one.
#
# And is anything learned by heart? The same score on items that it was trained on:

# %% tags=["trained"]
seen_items = train_items[: len(val_items)]
seen_said = instructions.answer(pupils["answer counts"], tokenizer, seen_items, 30)
on_seen = instructions.exact_match(seen_items, seen_said)
for task in ("all", "the play"):
    print(f"{task:8} ≈ {on_seen[task]:.0%} of what it was trained on", end=", ")
    print(f"≈ {after[task]:.0%} of what was held out")
more = on_seen["all"] - after["all"]
assert -0.03 < more < runtime.pick(cpu=0.15, gpu=1.0)

# %% [markdown]
# In so short a run little: on what it has read it does as well, or somewhat better. (The facts of the play came up too rarely
# to be learned by heart.) Only the held-out score says what it *can* do. Some of its answers:

# %% tags=["nbval-ignore-output", "sampled-text"]
for item, answer in list(zip(val_items, said["answer counts"], strict=True))[:12]:
    verdict = "" if answer == item.answer else f"(should be {item.answer})"
    print(f"{item.instruction:20}{plots.visible(item.input):28}{answer:24}{verdict}")


# %% [markdown]
# ## Nearly right
#
# Exact match knows right and wrong only. For longer answers, summaries or translations, one wants something between. *BLEU*
# ([Papineni et al. 2002](https://aclanthology.org/P02-1040/)) counts how many runs of one to four words an answer shares with
# a reference; *ROUGE-L* ([Lin 2004](https://aclanthology.org/W04-1013/)) looks for the longest sequence of words that occur in
# both in this order, and ROUGE-1 for words in common in any order. We take them from the libraries that the field uses, each
# in a line. First a case that can be checked by hand:

# %%
def bleu(answer: str, reference: str) -> float:
    """From 0 to 100; answers that are shorter than the reference lose some of it."""
    return sacrebleu.corpus_bleu([answer], [[reference]]).score


scorer = RougeScorer(["rouge1", "rougeL"])  # reads lower case, and no punctuation


def rouge(answer: str, reference: str, kind: str) -> float:
    """From 0 to 1: the mean (F1) of what share of answer and reference is in common."""
    return scorer.score(reference, answer)[kind].fmeasure


# %%
answer, wanted = "the boat is on the river", "the boat was on the river"
# In common: 5 of 6 words, 3 of 5 pairs, 1 of 4 threes, 0 of 3 fours (counted as half of one).
# BLEU is their geometric mean, the fourth root of the product: one share of 0 makes all of it 0.
by_hand = 100 * math.exp(sum(math.log(share) for share in (5 / 6, 3 / 5, 1 / 4, 1 / 6)) / 4)
print(f"BLEU {bleu(answer, wanted):.1f}, by hand {by_hand:.1f}")
print(f"ROUGE-L {rouge(answer, wanted, 'rougeL'):.3f}, by hand {5 / 6:.3f}")
assert abs(bleu(answer, wanted) - by_hand) < 1e-9
assert abs(rouge(answer, wanted, "rougeL") - 5 / 6) < 1e-9

# %% [markdown]
# Now six tries at one sentence, the last three of them wrong:

# %%
reference = "Perrin rang the bell nine times and nobody came"
tries = {
    "the reference itself": reference,
    "a slip of the pen": "Perrin rang the bell nine times and nobody cme",
    "the same in other words": "No one answered although the dyer pulled the rope nine times",
    "the opposite": "Perrin rang the bell nine times and somebody came",
    "the wrong man": "Collas rang the bell nine times and nobody came",
    "the words shaken": "nobody rang nine times and Perrin came the bell",
}
print(f"{'':26}{'BLEU':>6}{'ROUGE-1':>9}{'ROUGE-L':>9}")
score = {}
for name, answer in tries.items():
    one, longest = (rouge(answer, reference, kind) for kind in ("rouge1", "rougeL"))
    score[name] = bleu(answer, reference), one, longest
    print(f"{name:26}{score[name][0]:6.1f}{one:9.2f}{longest:9.2f}")
assert score["the opposite"] > score["the same in other words"]
assert score["the words shaken"][1] == 1.0  # ROUGE-1 has no order
assert score["the wrong man"][0] > 80

# %% [markdown]
# **They measure words in common, not truth.** The slip of the pen and the wrong man both score 86: one word differs. The
# opposite scores high, the same in other words low. And most of our own answers are a single word, in which there is no run
# of four at all:

# %%
one_word = bleu("blue", "blue")
longest = rouge("blue", "blue", "rougeL")
print(f"BLEU of a right answer of one word: {one_word:.0f}; ROUGE-L: {longest:.0f}")
assert one_word < 1  # sacrebleu.sentence_bleu counts the runs that there can be, and gives 100
assert sacrebleu.sentence_bleu("blue", ["blue"]).score > 99

# %% [markdown]
# So: exact match where an answer is right or wrong; BLEU and ROUGE over *many* longer answers, to compare systems of one kind.
# Where the meaning matters, people read. In a running notebook, mark some answers yourself with the buttons:

# %% tags=["nbval-ignore-output", "sampled-text"]
pairs = [
    (item.prompt, answer) for item, answer in zip(val_items, said["answer counts"], strict=True)
]
rater = Rater(pairs[:8])
rater

# %%
rater.rate("good")  # what a click on the first button does
rater.rate("bad")
print(rater.ratings)

# %% [markdown]
# Two people who rate the same answers will not quite agree, and neither do the big models' raters. What they prefer can itself
# be learned from, which is the next step after this notebook's (RLHF, [Ouyang et al. 2022](https://arxiv.org/abs/2203.02155)).
#
# ## What we saw
#
# - A language model completes. Tasks in one fixed form, with an end token, make it answer.
# - A target of -100 leaves a position out of the loss. Counting the answers alone taught more in the same number of steps.
# - Padding wastes positions, packing fills them; in a packed row an item sees those before it.
# - Held-out exact match went from nearly 0 to above a third, unevenly: what is a procedure was learned, what is a fact was not.
# - BLEU and ROUGE count shared words. They call the opposite nearly right and a good paraphrase wrong.
#
# Our model answers in this notebook. How would it answer others, over a network, quickly and without our Python around it?
#
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives one
# step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Count the targets** (easy, 2 minutes). Predict, with no computer: the instruction is `Backwards?`, the input `eel`. How
# many targets of this item count in the loss?

# %% tags=["exercise"]
targets_of_eel = None  # your answer

# %%
check("13.targets_of_eel", targets_of_eel)

# %%
hint("13.targets_of_eel")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · The targets of an item** (easy, 5 minutes). Given the ids of a prompt and of an answer, return the list of targets: the
# next id at each position, -100 where it belongs to the prompt, and at last the end token, whose id is 0.

# %% tags=["exercise"]
def targets(prompt: list[int], answer: list[int]) -> list[int]:
    """Of len(prompt) + len(answer) positions."""


# %%
check("13.targets", targets)


# %% [markdown]
# **3 · Items apart** (medium, 10 minutes). In a packed row an item sees the items before it. Build the mask that forbids it:
# `item` (T,) has the number of the item at each position; the answer is (T, T), True where row t may look.

# %% tags=["exercise"]
def items_apart(item: torch.Tensor) -> torch.Tensor:
    """item (T,) -> (T, T) bool"""


# %%
check("13.items_apart", items_apart)


# %% [markdown]
# **4 · Repair it: a conversation** (medium, 10 minutes). A conversation has turns of a user, `U: ...`, and of the assistant,
# `A: ...`, each ending in a line end. `counted` marks with `x` the characters that count in the loss, with `.` the others. It
# counts the assistant's tag, which the program types and the model need not say. Repair it. What should become of the line
# ends?

# %% tags=["exercise"]
def counted(turns):
    marks = ""
    for role, words in turns:
        line = f"{role}: {words}\n"
        marks += ("x" if role == "A" else ".") * len(line)
    return marks


# %%
check("13.counted", counted)


# %% [markdown]
# **5 · Two answers, one better** (medium, 15 minutes). After tuning, models learn from *preferences*: of two answers
# people chose one. Direct preference optimisation, DPO ([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)),
# needs the log-probability of both, under the model and under the *reference*, the model as it was before: $-\ln
# \sigma\big(\beta\,[(\ln p_\text{chosen} - \ln r_\text{chosen}) - (\ln p_\text{rejected} - \ln
# r_\text{rejected})]\big)$, where $\sigma(z) = 1/(1 + e^{-z})$. What should it be where model and reference agree?

# %% tags=["exercise"]
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    """Log-probabilities in nats, and a positive number -> nats"""


# %%
check("13.dpo_loss", dpo_loss)


# %% [markdown]
# **6 · BLEU by hand, and cheated** (hard, 25 minutes). Write BLEU for one answer and one reference, words parted by spaces: the
# geometric mean of four shares times the price for being short, from 0 to 100. (Some run of every length will be in common.)
# Then find an answer of nine words that scores above 50 against `reference` and is wrong about who rang *and* about who came.

# %% tags=["exercise"]
def bleu_by_hand(answer: str, reference: str) -> float:
    return None


# %%
check("13.bleu_by_hand", bleu_by_hand)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: three letters and an end
targets_of_eel = len("lee\n")  # the end of the line is learned too, or the model would never stop
eel = instructions.Item(0, "reverse", "Backwards?", "eel", "lee")
assert (instructions.encode(eel, tokenizer)[1] != -100).sum() == targets_of_eel
check("13.targets_of_eel", targets_of_eel)

# %% tags=["solution"]
# @title Solution 2: the targets of an item


def targets(prompt: list[int], answer: list[int]) -> list[int]:
    following = [*prompt, *answer, 0][1:]  # the id that comes next
    asked = len(prompt) - 1
    return [-100] * asked + following[asked:]


check("13.targets", targets)

# %% tags=["solution"]
# @title Solution 3: items apart


def items_apart(item: torch.Tensor) -> torch.Tensor:
    T = len(item)
    return (item[:, None] == item) & torch.ones(T, T, dtype=torch.bool).tril()


check("13.items_apart", items_apart)

# %% tags=["solution"]
# @title Solution 4: a conversation


def counted(turns):
    marks = ""
    for role, words in turns:
        marks += "..." + ("x" if role == "A" else ".") * (len(words) + 1)  # its end counts too
    return marks


for role_and_words in [("U", "Who rang?"), ("A", "Perrin")]:
    print("{}: {}".format(*role_and_words), counted([role_and_words]), sep="\n")
check("13.counted", counted)

# %% tags=["solution"]
# @title Solution 5: two answers, one better


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    gap = (chosen - ref_chosen) - (rejected - ref_rejected)
    return math.log(1 + math.exp(-beta * gap))  # -ln of 1 / (1 + e^-z)


print(f"{dpo_loss(-5.0, -5.0, -5.0, -5.0, 0.1):.4f}, and ln 2 is {math.log(2):.4f}")
check("13.dpo_loss", dpo_loss)

# %% tags=["solution"]
# @title Solution 6: BLEU by hand, and cheated


def bleu_by_hand(answer: str, reference: str) -> float:
    said, wanted = answer.split(), reference.split()
    product = 1.0
    for n in (1, 2, 3, 4):
        mine, theirs = (
            Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            for words in (said, wanted)
        )
        product *= (mine & theirs).total() / mine.total()  # & keeps the smaller count
    price = math.exp(min(0.0, 1 - len(wanted) / len(said)))
    return 100 * price * product ** (1 / 4)


cheat = "Collas rang the bell nine times and everybody came"
print(f"{bleu_by_hand(cheat, reference):.1f} by hand, {bleu(cheat, reference):.1f} by sacrebleu")
assert abs(bleu_by_hand(cheat, reference) - bleu(cheat, reference)) < 1e-9
assert bleu(cheat, reference) > 50
check("13.bleu_by_hand", bleu_by_hand)
