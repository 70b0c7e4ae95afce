# %% [markdown]
# # 14 · Deployment
# *A served model: small enough, within limits, and a client that talks to it.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/14_deployment.ipynb)
#
# About 46 minutes to read, exercises aside.
#
# ← [13b · Preferences and rewards](13b_preferences_and_rewards.ipynb) · [15 · Memory and exposure](15_memory_and_exposure.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it installs nothing.
# Colab's own torchao is too old for this notebook, and is replaced.
import importlib.util
import os
import subprocess
import sys

if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait soon leave the cores to others
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
if importlib.util.find_spec("onnxscript") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+https://github.com/your-account/llmkit@v0.1.0")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [f"llmkit[serve,client,export] @ {source}", "onnx<1.23"]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {source}; pip says above why.")
    importlib.invalidate_caches()

# %% [markdown]
# A model that lives in a notebook helps nobody else. What does it take for others to use it?
#
# They may not have our Python, so the model must be a *file* that other programs can run. It should be small, because
# somebody pays for the memory. They sit elsewhere, so it must be *served*: asked and answered over a network. And
# they are many, some in a hurry, some careless, a few malicious, so the server needs *limits*. We take the three in
# this order, and end as a client of our own server.

# %%
import copy
import queue
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import openai
import torch

import llmkit
from llmkit import checkpoint, drawings, plots
from llmkit.deploy import export, int8, server, trial
from llmkit.generation import next_token_probabilities, sample
from llmkit.speed.decoding import Slots, quick

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## Something to serve
#
# We train a small character model of the play, in seconds: the GPT of notebook 05 with rotary positions, and the Muon
# of 06.

# %% tags=["trained"]
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))
shape = runtime.pick(
    cpu=dict(block_size=64, n_layer=2, n_head=4, n_embd=96),
    gpu=dict(block_size=128, n_layer=4, n_head=4, n_embd=256, dropout=0.1),
)
config = llmkit.GPTConfig(tokenizer.vocab_size, position="rotary", **shape)
model = llmkit.GPT(config).to(runtime.device)
steps = runtime.pick(cpu=200, gpu=2000)
rate = runtime.pick(cpu=0.03, gpu=0.02)
how = llmkit.TrainConfig(steps=steps, batch_size=16, optimizer="muon", learning_rate=rate)
with llmkit.speed.cpu.tuned(model):  # attention as a CPU likes it, see notebook 10
    llmkit.train(model, train_ids, config=how)
model = model.eval().cpu()  # from here on we deploy: on a CPU, which everybody has
before = llmkit.evaluate(model, val_ids).perplexity
print(f"{model.num_parameters():,} parameters, perplexity ≈ {before:.2f} on all held-out text")
assert before < 8

# %% [markdown]
# ## What a weight costs
#
# In training each weight is a number of four bytes (*float32*). That gives the size of the file, nearly to the byte:

# %%
room = tempfile.TemporaryDirectory()
place = Path(room.name)
checkpoint.save(place / "original", model, tokenizer)
size = export.file_bytes(place / "original")
print(f"{size:,} bytes for {model.num_parameters():,} weights")
assert 0 <= size - 4 * model.num_parameters() < 10_000  # the rest: their names

print(f"\n{'MB at':14}" + "".join(f"{n:>10} bytes" for n in (4, 2)) + f"{1:>10} byte")
for name, weights in {"ours": model.num_parameters(), "GPT-2": 124e6, "seven billion": 7e9}.items():
    print(f"{name:14}" + "".join(f"{n * weights / 1e6:15,.1f}" for n in (4, 2, 1)))

# %% [markdown]
# Ours fits anywhere. But a model of seven billion weights needs 28 GB at four bytes a weight, more than most gaming
# cards have, and while it writes it needs memory for its keys and values as well (notebook 08; exercise 1 says how
# much). At one byte a weight it needs 7 GB. Does a weight *need* four bytes?
#
# ## Rounding a matrix
#
# One byte can tell 256 values apart. So choose a step, the *scale*, and store for each weight how many steps it lies
# from zero: a whole number from -128 to 127 (*int8*). The 256 numbers span 255 steps, 127.5 to either side of the
# middle; so the scale is the largest weight divided by 127.5, as small as it can be.

# %%
weights = torch.tensor([0.40, -0.255, 0.02, 0.51])
scale = weights.abs().max() / 127.5
stored = (weights / scale).round().clamp(-128, 127)  # 127.5 becomes 128, and there is no 128
back = stored * scale  # what the model will compute with
print(f"a step of {scale:.4f}")
print("in steps ", stored.int().tolist())
print("and back ", [round(weight, 3) for weight in back.tolist()])
assert ((back - weights).abs() <= 0.5001 * scale).all()  # never more than half a step off

# %% [markdown]
# Now a matrix of our model, with a scale for each of its rows:

# %%
W = model.h[0].mlp.c_fc.weight.detach()  # (4C, C): a matrix of the feed-forward part
smallest = torch.finfo(torch.float32).eps  # a row of zeros should not divide by zero
scales = (W.abs().amax(dim=1, keepdim=True) / 127.5).clamp(min=smallest)  # (4C, 1)
stored = (W / scales).round().clamp(-128, 127).to(torch.int8)  # (4C, C): a byte each
back = stored * scales  # (4C, C)
assert ((back - W).abs() <= 0.5001 * scales).all()
print(f"{tuple(W.shape)}: {W.nbytes:,} bytes before, {stored.nbytes + scales.nbytes:,} now")

# %% [markdown]
# Why a scale for every row, and not one for all? A row belongs to one output. Where one row has large weights, all
# the others would have to take its coarse step:

# %% tags=["trained"]
one_scale = W.abs().max() / 127.5
with_one = (W / one_scale).round().clamp(-128, 127) * one_scale
lost = {"one scale for all": with_one - W, "a scale for each row": back - W}
lost = {name: ((error**2).mean() / (W**2).mean()).sqrt().item() for name, error in lost.items()}
for name, error in lost.items():
    print(f"{name:21} error ≈ {error:.3%} of a weight")
assert lost["a scale for each row"] < lost["one scale for all"] < 0.03

# %% [markdown]
# This is *symmetric quantization, per channel*. PyTorch's library for it is torchao, and `int8.to_int8` has torchao
# round every linear layer of a GPT, and rounds the token embedding by the same rule. Our few lines find torchao's
# scales:

# %%
small = int8.to_int8(model)
theirs = small.h[0].mlp.c_fc.weight  # torchao's tensor: bytes and scales
assert torch.allclose(theirs.scale, scales, rtol=1e-6)
assert (theirs.qdata == stored).float().mean() > 0.99  # the rest: halfway between two steps


# %% [markdown]
# ## How few bits?
#
# Eight bits are a convention. Let us round the whole model to fewer, and measure each on all of the held-out text.

# %% tags=["trained"]
@torch.no_grad()
def rounded(model, bits):
    """A copy whose matrices know 2^bits values a row."""
    model, half = copy.deepcopy(model), 2 ** (bits - 1)
    for weight in model.parameters():
        if weight.dim() == 2:  # a matrix, that of the embedding included
            scale = (weight.abs().amax(dim=1, keepdim=True) / (half - 0.5)).clamp(min=smallest)
            weight.copy_((weight / scale).round().clamp(-half, half - 1) * scale)
    return model


bits = [2, 3, 4, 5, 6, 8]
perplexities = [llmkit.evaluate(rounded(model, b), val_ids).perplexity for b in bits]
for b, perplexity in zip(bits, perplexities, strict=True):
    print(f"{b} bits: perplexity ≈ {perplexity:6.2f}")
assert perplexities[-1] < 1.01 * before
assert perplexities[0] > 1.2 * before

# %% [markdown]
# What is a perplexity of so much worth? Counting gives a measure (notebook 07): a model that counts runs of three
# characters of the same training text.

# %% tags=["trained"]
counting = llmkit.NGram(train_ids, 3, tokenizer.vocab_size, discount=None)
counted = llmkit.evaluate(counting, val_ids).perplexity
print(f"counting runs of three characters: perplexity ≈ {counted:.2f}")
assert before < counted < perplexities[0]
ends = [bits[0], bits[-1]]
plots.lines(
    {"rounded": bits, "counting": ends, "float32": ends},
    {"rounded": perplexities, "counting": [counted] * 2, "float32": [before] * 2},
    "Eight bits cost next to nothing; with two, counting does better",
    xlabel="bits for each weight",
    ylabel="perplexity on all held-out text",
    points=True,
)

# %% [markdown]
# **Eight bits are nearly free, and a quarter of the size.** This small model bears even four. Large models are run
# with four bits every day; then every 32 or 128 neighbours in a row share a scale (exercise 2), and the rounding can
# be chosen so that the layer's *output* changes little ([GPTQ](https://arxiv.org/abs/2210.17323),
# [AWQ](https://arxiv.org/abs/2306.00978)). [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) is a
# file format for such models.
#
# An *export* is a folder with the bytes, written and loaded again:

# %% tags=["trained"]
export.save_int8(place / "int8", model, tokenizer)
loaded, _ = export.load(place / "int8")
after = llmkit.evaluate(loaded, val_ids).perplexity
ratio = int8.linear_bytes(model) / int8.linear_bytes(loaded)
print(f"linear weights {ratio:.2f} times smaller; perplexity ≈ {before:.3f}, then ≈ {after:.3f}")
assert ratio > 3.5
assert abs(after / before - 1) < 0.01
assert torch.equal(loaded(val_ids[None, :64]), small(val_ids[None, :64]))  # bit for bit

# %% [markdown]
# ## Without our Python
#
# int8 still needs PyTorch and llmkit. *ONNX* is a format for the computation itself: which operations, in which
# order, with which weights, in one file that other programs run, from a browser to a phone. The exporter calls the
# model once, watches, and writes down what happens. Batch and length must stay free, or it would write down the
# numbers of that one call.

# %%
export.save_onnx(place / "onnx", model, tokenizer)
onnx, _ = export.load(place / "onnx")  # runs the file in onnxruntime
with torch.no_grad():
    for B, T in ((1, 1), (3, 7), (1, model.config.block_size)):
        ids = val_ids[: B * T].view(B, T)
        off = (onnx(ids) - model(ids)).abs().max().item()
        print(f"{B} texts of {T:2}: equal to PyTorch within 1e-4: {off < 1e-4}")
        assert off < 1e-4

start = val_ids[:9]
texts = [llmkit.generate(each, start, 40, temperature=0) for each in (model, onnx)]
assert torch.equal(*texts)

# %% [markdown]
# What is lost? The file maps ids to scores and knows nothing of a key-value cache (notebook 08): for each new
# character the window is read anew. And int8, is it faster? On a CPU its bytes become floats again before each
# product. Here are all three:

# %%
rows = {"original": model, "int8": loaded, "onnx": onnx}
for name, each in rows.items():
    found = export.measure(each, val_ids, seconds=0.3)
    megabytes = export.file_bytes(place / name) / 1e6
    print(f"{name:8} ≈ {megabytes:.2f} MB, one window ≈ {found.window_ms:.2f} ms, ", end="")
    print(f"≈ {found.tokens_per_second:,.0f} tokens a second, perplexity ≈ {found.perplexity:.3f}")

# %% [markdown]
# (The times are those of one machine. In so short a window the missing cache hardly shows, as it is soon read anew.
# In one of a thousand tokens it would.) So *this kind* of int8, where only the weights are bytes, buys memory and not
# speed. Others round the activations too and multiply bytes with bytes, which is faster where the hardware and its
# kernels can do it. ONNX buys *independence*. On the command line, `python -m llmkit export FOLDER --onnx --int8`
# prints this table for a model that you have saved. With `--web` it writes a page: a folder that any file server can
# hand out, in which the model runs in the reader's browser, a byte for each weight and with a cache, and shows its
# attention and its surprise at what is typed. Nothing that is typed leaves the browser.
#
# ## What goes over the network
#
# Now others come. A few words are needed. A *server* is a program that waits to be asked, at an *address*: a machine
# and a *port*, a number that tells its programs apart. The machine `127.0.0.1` is always one's own. Who asks is a
# *client*. Both speak *HTTP*: the client sends a request with a path (`/v1/completions`), some *headers* (lines such
# as `Content-Type: application/json`) and a body; the answer begins with a *status*: 200 for "here you are", 400 to
# 499 for "the fault is yours" (429: "too many requests"), 500 and above for "the fault is mine". *TLS* encrypts all
# this, and makes `https` of `http`. Inside the server, *threads* do things at the same time: some talk with clients,
# one holds the model.

# %%
drawings.request_to_worker()


# %% [markdown]
# ## A queue
#
# Drawing one text keeps the processor busy. If each client had a thread that draws, ten would take ten times as long
# each. So requests wait in a line, and one worker serves them in turn (later it will serve several in one go). The
# important number is how long the line may get:

# %%
class OneAtATime:
    def __init__(self, model, tokenizer, places: int):
        self.model, self.tokenizer = model, tokenizer
        self.waiting = queue.Queue(maxsize=places)

    def ask(self, prompt: str) -> queue.Queue:
        """Called by anybody's thread. The answer will come in the queue that this returns."""
        answer = queue.Queue()
        self.waiting.put_nowait((prompt, answer))  # or queue.Full, at once
        return answer

    def work(self) -> None:
        """The one worker's thread; None ends its day."""
        while job := self.waiting.get():
            prompt, answer = job
            ids = llmkit.generate(self.model, self.tokenizer.encode(prompt), 20, seed=0)
            answer.put(self.tokenizer.decode(ids))


# %% [markdown]
# Five ask before the worker has come, and there are three places:

# %%
office = OneAtATime(loaded, tokenizer, places=3)
answers, refused = [], 0
for prompt in ("MARA:", "The river", "O", "And so", "Who"):
    try:
        answers.append(office.ask(prompt))
    except queue.Full:
        refused += 1
print(f"{len(answers)} wait, {refused} are told that the line is full")

worker = threading.Thread(target=office.work)
worker.start()
said = [answer.get(timeout=60) for answer in answers]
office.waiting.put(None)
worker.join()
print(f"{len(said)} are answered")
assert said[1].startswith("The river")

# %% [markdown]
# Without that bound the line, and the memory it takes, grows for as long as people come faster than they are served.
# In the end everybody waits longer than they have patience for. **A "no" at once is worth more than a "yes" too
# late.** llmkit's server is this queue with HTTP in front of it.
#
# ## Serving
#
# The server of a usual tutorial has ten lines: read `request.json["prompt"]`, call the model, return the text, and at
# the end `app.run(host="0.0.0.0")`. It works at the first try, and has five faults that show later:
#
# | fault | what follows |
# |---|---|
# | it listens on `0.0.0.0`, every network this machine is in | anybody nearby can use it |
# | no limits | one request for a million tokens, or a body of 10 GB, stops it for all |
# | no validation | a letter the tokenizer does not know becomes an error 500 and a stack trace |
# | no queue | a hundred requests at once share two cores, and all time out |
# | no end | stopping it cuts off whoever was being answered |
#
# Below we check ours for each of them. It runs beside the notebook, in threads of this process. Its worker can draw
# several texts together; at first we give it places for one (`batch=1`), as in the office above.

# %%
torch.set_num_threads(1)  # one core for the model; the others for those who ask
settings = dict(name="play", queue=8, max_tokens=2_000)
play = server.start(loaded, tokenizer, batch=1, **settings)
assert play.url.startswith("http://127.0.0.1:")  # this machine, and no other

status, health = trial.send(play.url + "/health")  # one plain HTTP request
print(status, {key: health[key] for key in ("status", "model", "waiting", "queue", "max_tokens")})


# %% [markdown]
# ## A client
#
# Whoever serves a language model today speaks the language of OpenAI's API, because every tool already knows it. So
# does ours, and here is OpenAI's own client, told to ask at our address:

# %%
def client_of(running, key="none is needed"):
    return openai.OpenAI(base_url=running.url + "/v1", api_key=key, max_retries=0)


client = client_of(play)
print([each.id for each in client.models.list()])
question = dict(model="play", prompt="MARA:\n", max_tokens=60)
answer = client.completions.create(**question, temperature=0)
print(answer.usage.prompt_tokens, "characters asked,", answer.usage.completion_tokens, "answered")

ids = llmkit.generate(loaded, tokenizer.encode("MARA:\n"), 60, temperature=0)
assert "MARA:\n" + answer.choices[0].text == tokenizer.decode(ids)  # what the model says here

# %% [markdown]
# It is the same text as from the model in our hands. With a seed, a text drawn at random can be repeated; and `stop`
# ends an answer at a string.

# %% tags=["nbval-ignore-output", "sampled-text"]
drawn = [client.completions.create(**question, seed=7).choices[0].text for _ in range(2)]
assert drawn[0] == drawn[1]
line = client.completions.create(**question, seed=7, stop="\n").choices[0]
assert line.text == drawn[0].split("\n")[0]
print("MARA:\n" + drawn[0])


# %% [markdown]
# ## Why a streamed answer feels faster
#
# A long answer takes long, streamed or not. But with `stream=True` it can be read as it is made. People read some 238
# words a minute ([Brysbaert 2019](https://doi.org/10.1016/j.jml.2019.104047)), which is about 24 characters a second.
# Our model is faster, as it is tiny. A large one may be no faster than the reader, so let us give ours that pace:

# %%
class Slow(torch.nn.Module):
    """The same model, which takes 40 ms for each character: 25 a second."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, ids):
        time.sleep(0.04)
        return self.model(ids)


# %%
with server.background(Slow(loaded), tokenizer, name="play") as slow:
    ask = client_of(slow).completions.create
    arrived, pieces = trial.arrivals(lambda: ask(**question, seed=7, stream=True))  # seconds, each
    [until_whole], [whole] = trial.arrivals(lambda: [ask(**question, seed=7)])
pieces = [piece.choices[0].text for piece in pieces]
assert "".join(pieces) == whole.choices[0].text  # the same text
assert arrived[0] < 0.5 * min(arrived[-1], until_whole)
print(f"streamed: the first piece after ≈ {arrived[0]:.2f} s, the last after ≈ {arrived[-1]:.2f} s")
print(f"not streamed: all after ≈ {until_whole:.2f} s")

# %%
seen = torch.tensor([len(piece) for piece in pieces]).cumsum(0).tolist()
end = max(arrived[-1], until_whole)
plots.lines(
    {"streamed": [0, *arrived, end], "in one piece": [0, until_whole, until_whole, end]},
    {"streamed": [0, *seen, seen[-1]], "in one piece": [0, 0, seen[-1], seen[-1]]},
    "A stream begins at once; without it, all comes at the end",
    xlabel="seconds since the question",
    ylabel="characters that have arrived",
)


# %% [markdown]
# Two numbers describe a stream: the *time to first token* and the *time per token* after it. Where the second is
# shorter than the reader's own time, nobody waits any more once the first token is there.
#
# ## Under load
#
# How long does one wait when others ask too? Let 1, 3 and 8 clients ask the same 24 questions, each client again
# as soon as it has its answer; some ask for a word, some for a few lines. The mean would hide the unlucky, so we note
# the *median* and the slowest. (Services quote *percentiles*: p50 is the median, and 99 in a hundred answers take no
# longer than p99. From 24 answers nobody can tell p99: exercise 3.)

# %%
def ask(seed: int, client) -> tuple[float, float, int]:
    """Seconds to the first piece and to the last, and how many pieces."""
    wish = question | {"max_tokens": (5, 10, 20, 60)[seed % 4], "seed": seed, "stream": True}
    arrived, _ = trial.arrivals(lambda: client.completions.create(**wish))
    return arrived[0], arrived[-1], len(arrived)


def load(client, clients: int) -> tuple[torch.Tensor, float]:
    """The times of 24 answers to so many clients, (24, 3), and the seconds in all."""
    ask(3, client)  # a first one, which loads code and does not count
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:  # so many threads, each a client
        times = torch.tensor(list(pool.map(lambda seed: ask(seed, client), range(24))))
    return times, time.perf_counter() - began


measured = {clients: load(client, clients) for clients in (1, 3, 8)}


# %%
def summary(measured: dict) -> tuple[dict, dict, dict]:
    first_token, whole, speed = {}, {}, {}
    print("clients   first token   whole answer   the slowest   characters a second")
    for clients, (answers, seconds) in measured.items():
        first, last, count = answers.unbind(1)  # (24,) each
        first_token[clients], whole[clients] = first.median().item(), last.median().item()
        speed[clients] = count.sum().item() / seconds
        print(
            f"{clients:7}    ≈ {first_token[clients]:6.2f} s     ≈ {whole[clients]:6.2f} s ", end=""
        )
        print(f"   ≈ {last.max():6.2f} s               ≈ {speed[clients]:6.0f}")
    return first_token, whole, speed


first_token, whole, speed = summary(measured)
assert whole[8] > 2 * whole[1]
assert speed[8] < 4 * speed[1]

# %%
plots.lines(
    list(whole),
    {"whole answer": list(whole.values()), "first token": list(first_token.values())},
    "One after the other: the wait for the first token grows with the line",
    xlabel="clients that ask at the same time",
    ylabel="median wait (seconds)",
    points=True,
)

# %% [markdown]
# Eight clients get nowhere near eight times the characters of one: there is one worker, and it was busy before. What
# grows is the line, and with it the wait for the first token. (Clients and server share the cores of one machine
# here, so both would do better apart.) One law ties the numbers together, *Little's*: the mean number who are in a
# shop is the arrivals per second times the mean seconds that each stays. Eight clients are always in ours, until at
# the end they leave one by one:

# %%
answers, seconds = measured[8]
inside = len(answers) / seconds * answers[:, 1].mean().item()
print(f"answers per second, times seconds for each: ≈ {inside:.1f} clients")
assert 5 < inside < 8.1

# %% [markdown]
# ## Several in one batch
#
# Can one worker serve several at once after all? It can where they share a *pass*: a matrix that is multiplied by one
# row costs nearly as much as one that is multiplied by eight, as long as most of the time goes into fetching the
# weights and calling the layers.

# %% tags=["trained"]
prompt = tokenizer.encode("MARA:\n")  # (T,)
together = {}
for B in (1, 4, 16):
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        llmkit.generate(model, prompt.repeat(B, 1), 50, seed=0)
        best = max(best, 50 * B / (time.perf_counter() - began))
    together[B] = best
    dollars = 1e6 / best / 3600  # of a machine at one dollar an hour
    print(f"{B:2} at once: ≈ {best:6.0f} characters a second, ≈ {dollars:.2f} dollars a million")
assert together[16] > 2 * together[1]

# %% [markdown]
# The last column is what providers quote: the price of a million tokens, here at one dollar for an hour of the
# machine.
#
# But a batch of equal prompts that begin and end together is not what clients bring. They come when they like, ask at
# different lengths, and would wait for the longest answer. So let a text *join* at any step, and *leave* as soon as it
# ends. This is *continuous batching* ([Yu and others 2022](https://www.usenix.org/conference/osdi22/presentation/yu)).

# %%
drawings.joining_and_leaving()


# %% [markdown]
# What do texts of different lengths share? The products with the weights, where most of the time goes: to these, a
# position is a row like any other. What each has for itself is its length, and its keys and values (notebook 08).
# `Slots` keeps those in so many *slots*, and takes one step for all. The rest is a loop:

# %%
class Together:
    def __init__(self, model, places: int):
        self.slots, self.places = Slots(quick(model), places), places
        self.texts, self.done = {}, []  # by slot; and those that have left

    def join(self, ids: list, new: int, seed: int) -> None:
        slot = min(set(range(self.places)) - set(self.texts))  # the first that is free
        self.texts[slot] = [*ids], len(ids) + new, torch.Generator().manual_seed(seed)
        self.draw([slot], self.slots.read(slot, ids))

    def step(self) -> None:
        newest = {slot: ids[-1] for slot, (ids, _, _) in self.texts.items()}
        self.draw(list(newest), self.slots.step(newest))  # one pass for all: (B, V)

    def draw(self, slots: list, scores: torch.Tensor) -> None:
        p = next_token_probabilities(scores)
        for slot, new in zip(slots, sample(p, [self.texts[s][2] for s in slots]), strict=True):
            self.texts[slot][0].append(new.item())
            if len(self.texts[slot][0]) == self.texts[slot][1]:  # it is long enough: it leaves
                self.done.append(self.texts.pop(slot)[0])


# %% [markdown]
# Twenty-four ask for 5 to 50 characters, and there are eight places:

# %%
waiting = [(tokenizer.encode("MARA:\n"[n % 3 :]).tolist(), 5 + 15 * n % 46, n) for n in range(24)]


def all_of(places: int) -> tuple[list, float]:
    """Their texts, and the seconds that they took."""
    batch, line, began = Together(loaded, places), [*waiting], time.perf_counter()
    while line or batch.texts:
        while line and len(batch.texts) < places:
            batch.join(*line.pop(0))
        batch.step()
    return sorted(batch.done), time.perf_counter() - began


alone, slow_seconds = all_of(1)
company, seconds = all_of(8)
assert alone == company
print(f"{len(company)} texts: the same ones, together ≈ {slow_seconds / seconds:.1f} times as fast")
assert slow_seconds > 1.5 * seconds
wanted = [llmkit.generate(loaded, torch.tensor(p), n, seed=s).tolist() for p, n, s in waiting]
assert sorted(wanted) == company

# %% [markdown]
# **Each text is the one that it would be alone**, because its draws are its own. That is less natural than it looks. A
# sum of rounded numbers depends on the order of its terms, and PyTorch may choose another order for one row than for
# eight. `Slots` never multiplies fewer than four rows and attends to positions by the 32, and then (measured on one
# processor) a text's scores are the same to the last bit whatever the company.
#
# Our server's worker is this loop. It also has the limits, stop strings, and temperatures of each request, and reads a
# full window anew as notebook 08 did. In a step it reads no more than one window's worth of prompts, so that who comes
# with a long one does not hold up the others. The same questions again, with sixteen places:

# %%
with server.background(loaded, tokenizer, batch=16, **settings) as wide:
    together = {clients: load(client_of(wide), clients) for clients in (1, 3, 8)}
first_together, whole_together, speed_together = summary(together)
assert first_token[8] > 1.5 * first_together[8]
print(f"\neight clients: ≈ {speed_together[8] / speed[8]:.1f} times the characters a second,")
print(f"and the first token ≈ {first_token[8] / first_together[8]:.0f} times as soon")

# %%
plots.lines(
    list(whole),
    {"one after the other": list(first_token.values()), "together": list(first_together.values())},
    "Together, nobody waits for a long answer to end",
    xlabel="clients that ask at the same time",
    ylabel="median wait for the first token (seconds)",
    points=True,
)

# %% [markdown]
# In company an answer takes longer than alone, as each step does more. But nobody stands in line. (Eight clients and
# the server share one Python here, and the clients take much of its time; `benchmarks/serving.py` asks from another
# process.) Prompts of different lengths in one batch can also be had without slots: exercise 4.
#
# ## A full line
#
# Every machine has an end. To see what the next one is told there, we take the slow model from above, in a server with
# one place, keep its worker busy with a long stream and put eight into the line:

# %%
with server.background(Slow(loaded), tokenizer, batch=1, **settings) as narrow:
    create = client_of(narrow).completions.create
    long = create(**question | {"max_tokens": 1_000}, seed=1, stream=True)
    next(iter(long))  # it is being answered now
    pool = ThreadPoolExecutor(8)
    line = [pool.submit(create, **question | {"max_tokens": 1}) for _ in range(8)]
    trial.wait_until(lambda: narrow.engine.waiting == 8)
    refusal = None
    try:
        create(**question)
    except openai.RateLimitError as error:
        refusal = error
    long.close()  # we leave: the server notices, and the next one's turn comes
    assert all(each.result(timeout=60).choices for each in line)
    pool.shutdown()
assert refusal.status_code == 429
print(refusal.status_code, refusal.body["message"])
print("Retry-After:", refusal.response.headers["Retry-After"], "second")

# %% [markdown]
# A patient client (OpenAI's own has `max_retries=2` unless one says otherwise, as we did) reads the header
# `Retry-After`, waits, and asks again by itself.
#
# ## Requests that are wrong
#
# A tutorial's server answers these with a stack trace, or falls over. Ours gives each a status from 400 to 499 and
# one sentence that says what to mend:

# %%
path = play.url + "/v1/completions"
answers = {
    "a letter it never saw": trial.send(path, {"prompt": "Zoë"}),
    "a million tokens": trial.send(path, {"prompt": "O", "max_tokens": 1_000_000}),
    "a misspelt setting": trial.send(path, {"prompt": "O", "temprature": 0.5}),
    "a body too large": trial.send(path, {"prompt": "O" * 300_000}),
    "another name for us": trial.send(play.url + "/health", Host="evil.example"),
}
for name, (status, answer) in answers.items():
    print(f"{name:22}{status}  {answer['error']['message']}")
    assert 400 <= status < 500
assert trial.send(play.url + "/health")[0] == 200  # and it lives

# %% [markdown]
# The last one is the least known. A page on the web can have its own name lead to 127.0.0.1, and then read what your
# server says, through your browser (*DNS rebinding*, [Jackson and others
# 2009](https://doi.org/10.1145/1462148.1462150)). But the request still carries the page's name, in the header
# `Host`, and so it is recognised.
#
# A server that others can reach should also ask for a key:

# %%
with server.background(loaded, tokenizer, name="play", api_key="open sesame") as guarded:
    for key in ("guess", "open sesame"):
        try:
            visitor = client_of(guarded, key)
            print(f"{key!r}: {len(visitor.completions.create(**question).choices)} answer")
        except openai.AuthenticationError as error:
            print(f"{key!r}: {error.status_code} {error.body['message']}")

# %% [markdown]
# A key sent by plain `http` can be read by every machine on its way. Between machines one therefore puts a program in
# front that speaks TLS, such as nginx or Caddy. How much one key may ask for is limited too: exercise 5.
#
# ## The end
#
# A server is also stopped, when a new model comes, say. Whoever is being answered should get the whole answer. We
# ask, and stop the server in the middle of it:

# %%
pool = ThreadPoolExecutor(1)
last = pool.submit(client.completions.create, **question | {"max_tokens": 400}, seed=3)
trial.wait_until(lambda: play.engine.running)
play.close()  # returns when all is over
usage = last.result(timeout=60).usage
print(f"answered to the end: {usage.completion_tokens} of 400 characters")
assert usage.completion_tokens == 400
pool.shutdown()
try:
    client.models.list()
except openai.APIConnectionError:
    print("now nobody is there")

# %% [markdown]
# In a terminal the same server is `python -m llmkit serve FOLDER`. It has a page to try it in, at the address that it
# prints.
#
# ## A model that somebody knows
#
# Nothing in all this depends on what kind of model it is. On a GPU we do the same with GPT-2: int8, served, asked.

# %%
if runtime.pick(cpu=False, gpu=True):
    gpt2, bpe = llmkit.pretrained.load_gpt2("gpt2")
    gpt2_int8 = int8.to_int8(gpt2).to(runtime.device)
    for each in (gpt2, gpt2_int8):
        taken = sum(w.nbytes for w in int8.tensors(each).values())
        print(f"{taken / 1e6:,.0f} MB of weights")
    with server.background(gpt2_int8, bpe, name="gpt2") as big:
        wish = dict(model="gpt2", prompt="The river was", max_tokens=40, seed=1, stream=True)
        for chunk in client_of(big).completions.create(**wish):
            print(chunk.choices[0].text, end="")

# %% [markdown]
# A model that people *talk* to is asked at the server's *chat* address: a list of messages, which a template (notebook 13b)
# writes into one prompt. On your laptop, `python -m llmkit fetch` brings SmolLM2-135M-Instruct and
# `python -m llmkit serve smollm2` serves it:
#
# ```python
# question = "What is the capital of France? Answer in one sentence."
# messages = [{"role": "user", "content": question}]
# wish = dict(model="SmolLM2-135M-Instruct", messages=messages, temperature=0, stream=True)
# for chunk in client.chat.completions.create(**wish):
#     print(chunk.choices[0].delta.content or "", end="")
# ```
#
# *The capital of France is Paris.* A token took 70 ms of one core for one client, and 59 ms for four at once, who got
# the same answers to the letter: on a busy processor, sharing gains such a model little. (Measured 2026-11-28 on an AMD
# EPYC by `python benchmarks/smollm2_chat.py`.)
#
# ## For many users
#
# Our server is small by design: one machine, and each slot takes memory for the longest text in any. An
# engine with a *paged* cache, such as [vLLM](https://docs.vllm.ai), gives each text as much as it needs, and takes a
# folder as transformers writes it. `save_gpt2` (notebook 11) writes one, for a model that *is* a GPT-2. Is ours?

# %%
try:
    llmkit.pretrained.save_gpt2(model, place / "for_others")
except ValueError as error:
    print(error)

# %% [markdown]
# A format fixes choices: ours has rotary positions, as newer models have, and GPT-2's format has learned ones. A
# model with GPT-2's choices goes out and comes back to the last bit (here one that is not trained):

# %%
gpt2_like = llmkit.GPT(replace(model.config, position="learned")).eval()
folder = llmkit.pretrained.save_gpt2(gpt2_like, place / "for_others")
again, _ = llmkit.pretrained.load_gpt2(folder)
print(sorted(file.name for file in folder.iterdir()))
assert torch.equal(again(val_ids[None, :64]), gpt2_like(val_ids[None, :64]))

# %% [markdown]
# An engine also wants the tokenizer in that folder, so one of GPT-2's kind: `save_gpt2(gpt2, folder, bpe)`, with
# `gpt2` and `bpe` as `load_gpt2` gave them, maybe fine-tuned since. vLLM then serves it by `vllm serve FOLDER
# --served-model-name gpt2` (without the name, clients must give the folder's). The client above stays as it is, but
# for address and model name.
#
# ## What we saw
#
# - A byte for each weight and a scale for each row: a quarter of the size, the perplexity within 1 %. With two bits a
#   weight, counting runs of three characters does better.
# - int8 weights save memory. This kind saved no time; other kinds can, where hardware and kernels make use of them.
#   Measure before you promise.
# - ONNX is the computation as a file: equal within 1e-4 at every length, and without a cache.
# - One worker and a bounded queue. Who cannot be served soon is told so at once, with 429.
# - A stream takes about as long as the answer in one piece, but begins at once.
# - One after the other, more clients drew hardly more; the line grew, and the wait with it. Sixteen texts in one batch
#   came at more than twice the speed of one.
# - In continuous batching a text joins at any token and leaves when it ends. Each was the text that it would have been
#   alone, and nobody waited for a long answer to end.
# - Unknown letters, huge bodies, strangers' names, misspelt settings: each has a status and a sentence, and the
#   server lives.
#
# It can be served. *Should* it be? What does it give away of the texts it has read, and whom does it treat badly?

# %% [markdown]
# ## Exercises
#
# The cell after each stub checks your answer, and shows the smallest case in which it is wrong. Stuck? `hint` gives
# one step more at each call. Worked solutions are folded away below.

# %%
from llmkit.exercises import check, hint

# %% [markdown]
# **1 · Will it fit?** (easy, 5 minutes). Predict, on paper: a model of seven billion weights, at two bytes a number,
# has 32 layers, each 4,096 wide. It serves one text of 4,096 tokens and keeps in its cache, for each token and layer,
# one key and one value of the full width. How many GB (1e9 bytes) are the weights, and how many is the cache?

# %% tags=["exercise"]
memory = None  # your answer: (weights, cache)

# %%
check("14.memory", memory)

# %%
hint("14.memory")  # so you ask for one; run it again for the next


# %% [markdown]
# **2 · Four bits** (medium, 15 minutes). Round a matrix to four bits: whole numbers from -8 to 7, one scale for every
# 32 neighbours in a row, and that scale stored in 16 bits (`scale.half()`; the rounding uses the stored one). Return
# the matrix as the model would compute with it, and how many bits each weight costs, its share of the scale included.
# A group of zeros stays zero.

# %% tags=["exercise"]
def four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    """weight (R, C), C a multiple of 32 -> what it becomes (R, C), and bits a weight"""


# %%
check("14.four_bits", four_bits)


# %% [markdown]
# **3 · What 24 answers cannot say** (easy, 8 minutes). One answer in a hundred takes longer than p99. How many
# answers must you time until, with a probability of 95 %, at least one of them is longer? Before you compute it: is
# it nearer to 20, 100 or 300? Write it for any share `p` and any probability `sure`.

# %% tags=["exercise"]
def answers_needed(p: float, sure: float) -> int:
    """The fewest answers of which one lies beyond the percentile p, with probability `sure`."""


# %%
check("14.answers_needed", answers_needed)


# %% [markdown]
# **4 · One batch, many lengths** (hard, 25 minutes). Draw the likeliest tokens for several prompts of *different
# lengths* in one batch. Each row must come out as it would alone: its new tokens, up to `n` of them, its own stop
# token included, after which that row ends (and no other). `model(ids)` gives `(B, T, V)` scores. Pad on the right:
# the model looks only back, so what is padding must never be what you read from.

# %% tags=["exercise"]
def in_one_batch(model, prompts: list, n: int, stop: int) -> list:
    """prompts (T_b,) each -> the new tokens of each, (n_b,), n_b up to n"""


# %%
check("14.in_one_batch", in_one_batch)


# %% [markdown]
# **5 · So many a second** (medium, 15 minutes). A *token bucket* limits what each key may ask for: it holds up to
# `size` tokens, is full at the start, and gains `rate` tokens a second, fractions too. A request takes one token, or
# is refused. Time comes from `clock()`, so that a test need not wait.

# %% tags=["exercise"]
class Limiter:
    def __init__(self, rate: float, size: float, clock):
        self.rate, self.size, self.clock = rate, size, clock

    def allow(self, key: str) -> bool:
        """Whether this key may ask now; if so, one of its tokens is gone."""


# %%
check("14.limiter", Limiter)


# %% [markdown]
# **6 · Repair it** (medium, 10 minutes). This should give the text of a stream up to a stop string, and how many
# pieces it read: as few as can be, since each piece costs time. It is wrong in two ways: try `["a", "b\n", "\nc"]`
# with the stop string of two line ends, and `["so.", " Yes"]` with a full stop.

# %% tags=["exercise"]
def until_stop(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        if stop in piece:
            break
        text += piece
    return text, read


# %%
check("14.until_stop", until_stop)

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: will it fit?
weights_gb = 7e9 * 2 / 1e9
cache_gb = 2 * 32 * 4096 * 4096 * 2 / 1e9  # key and value, layers, width, tokens, bytes
memory = (weights_gb, cache_gb)
print(f"{weights_gb:.1f} GB and {cache_gb:.2f} GB")  # and the cache once more for each further text
check("14.memory", memory)

# %% tags=["solution"]
# @title Solution 2: four bits


def four_bits(weight):
    groups = weight.reshape(-1, 32)  # (R C / 32, 32)
    scale = (groups.abs().amax(dim=1, keepdim=True) / 7.5).half().float()  # as it is stored
    steps = (groups / scale).nan_to_num().round().clamp(-8, 7)  # 0 / 0 in a group of zeros
    return (steps * scale).reshape(weight.shape), 4 + 16 / 32


grouped = copy.deepcopy(model)
for weight in grouped.parameters():
    if weight.dim() == 2:
        weight.data = four_bits(weight.data)[0]
perplexity = llmkit.evaluate(grouped, val_ids).perplexity
print(f"four bits by row ≈ {perplexities[2]:.3f}, by group (4.5 bits a weight) ≈ {perplexity:.3f}")
check("14.four_bits", four_bits)

# %% tags=["solution"]
# @title Solution 3: what 24 answers cannot say


def answers_needed(p, sure):
    n = 1
    while 1 - p**n < sure:  # p^n: all n are within the percentile
        n += 1
    return n


print(answers_needed(0.99, 0.95), "answers; with 24 the chance is", f"{1 - 0.99**24:.0%}")
check("14.answers_needed", answers_needed)

# %% tags=["solution"]
# @title Solution 4: one batch, many lengths


def in_one_batch(model, prompts, n, stop):
    lengths = torch.tensor([len(prompt) for prompt in prompts])  # (B,), of each text so far
    rows = torch.arange(len(prompts))
    ids = torch.zeros(len(prompts), max(lengths) + n, dtype=torch.long)  # padded on the right
    for b, prompt in enumerate(prompts):
        ids[b, : len(prompt)] = prompt
    running = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(n):
        with torch.no_grad():
            scores = model(ids[:, : max(lengths)])[rows, lengths - 1]  # (B, V), each at its own end
        new = scores.argmax(dim=-1)
        ids[rows[running], lengths[running]] = new[running]
        lengths = lengths + running
        running = running & (new != stop)
    return [ids[b, len(prompt) : lengths[b]] for b, prompt in enumerate(prompts)]


check("14.in_one_batch", in_one_batch)

# %% tags=["solution"]
# @title Solution 5: so many a second


class Limiter:
    def __init__(self, rate, size, clock):
        self.rate, self.size, self.clock = rate, size, clock
        self.tokens, self.looked = {}, {}  # of each key: how many, and when we last counted

    def allow(self, key):
        now = self.clock()
        gained = self.rate * (now - self.looked.get(key, now))
        tokens = min(self.size, self.tokens.get(key, self.size) + gained)
        self.looked[key] = now
        self.tokens[key] = tokens - 1 if tokens >= 1 else tokens
        return tokens >= 1


check("14.limiter", Limiter)

# %% tags=["solution"]
# @title Solution 6: repair it


def until_stop(pieces, stop):
    text, read = "", 0
    for piece in pieces:
        read += 1
        text += piece
        if stop in text:  # it may lie across two pieces
            break
    return text.split(stop)[0], read  # what stands before it in its piece counts


check("14.until_stop", until_stop)
