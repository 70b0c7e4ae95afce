# %% [markdown]
# # 14 · Deployment
# *A served model: small enough, within limits, and a client that talks to it.*
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your-account/llmkit/blob/v0.1.0/notebooks/14_deployment.ipynb)
#
# About 34 minutes to read, exercises aside.
#
# ← [13 · Instruction tuning](13_instruction_tuning.ipynb) · [15 · Responsible use](15_responsible_use.ipynb) →

# %% tags=["setup"]
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it does nothing.
# Colab's own torchao is too old for this notebook, and is replaced.
import importlib.util
import os
import subprocess
import sys

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
# They need not have our Python, so the model must be a *file* that others can run. It should be small, because somebody pays for
# the memory. They sit elsewhere, so it must be *served*: asked and answered over a network. And they are many, some in a hurry,
# some careless, a few malicious, so the server needs *limits*. We take the three in this order, and end as a client of our own
# server.

# %%
import copy
import http.client
import json
import queue
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import openai
import torch
from torch import nn

import llmkit
from llmkit import checkpoint, plots
from llmkit.deploy import export, int8
from llmkit.deploy.server import background

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## Something to serve
#
# A small character model of the play, trained in seconds: the GPT of notebook 05, with rotary positions, and the Muon of 06.

# %% tags=["trained"]
text = llmkit.load_text(runtime.corpus)
tokenizer = llmkit.CharTokenizer.from_text(text)
train_ids, val_ids = llmkit.split(tokenizer.encode(text))
shape = runtime.pick(
    cpu=dict(block_size=64, n_layer=2, n_head=4, n_embd=128),
    gpu=dict(block_size=128, n_layer=4, n_head=4, n_embd=256),
)
config = llmkit.GPTConfig(tokenizer.vocab_size, position="rotary", dropout=0.1, **shape)
model = llmkit.GPT(config).to(runtime.device)
steps = runtime.pick(cpu=250, gpu=2000)
how = llmkit.TrainConfig(steps=steps, batch_size=16, optimizer="muon")
llmkit.train(model, train_ids, config=how)
model = model.eval().cpu()  # from here on we deploy: on a CPU, which everybody has
before = llmkit.evaluate(model, val_ids).perplexity
print(f"{model.num_parameters():,} parameters, perplexity ≈ {before:.2f} on all held-out text")
assert before < 8

# %% [markdown]
# ## What a weight costs
#
# As it was trained, each weight is a number of four bytes (*float32*). Hence the size of the file, nearly to the byte:

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
# Ours fits anywhere. But a model of seven billion weights needs 28 GB at four bytes a weight, more than any gaming card has; at
# one byte it needs 7. Does a weight *need* four bytes?
#
# ## Rounding a matrix
#
# A byte can tell 256 values apart. So choose a step, the *scale*, and store how many steps each weight is from zero: a whole
# number from -128 to 127 (*int8*). The step is as small as the largest weight allows.

# %%
weights = torch.tensor([0.40, -0.255, 0.02, 0.51])
scale = weights.abs().max() / 127.5  # the range of a byte, -128 to 127, is 127.5 to either side
steps = (weights / scale).round().clamp(-128, 127)  # 127.5 becomes 128, which there is not
back = steps * scale  # what the model will compute with
print(f"a step of {scale:.4f}")
print("in steps ", steps.int().tolist())
print("and back ", [round(weight, 3) for weight in back.tolist()])
assert ((back - weights).abs() <= 0.5001 * scale).all()  # never more than half a step off

# %% [markdown]
# Now a matrix of our model, with a scale for each of its rows:

# %%
W = model.h[0].mlp.c_fc.weight.detach()  # (4C, C): a matrix of the feed-forward part
smallest = torch.finfo(torch.float32).eps  # a row of zeros should not divide by zero
scales = (W.abs().amax(dim=1, keepdim=True) / 127.5).clamp(min=smallest)  # (4C, 1)
steps = (W / scales).round().clamp(-128, 127).to(torch.int8)  # (4C, C): a byte each
back = steps * scales  # (4C, C)
assert ((back - W).abs() <= 0.5001 * scales).all()
stored = steps.nbytes + scales.nbytes
print(f"{tuple(W.shape)}: {W.nbytes:,} bytes before, {stored:,} now, a row's scale included")

# %% [markdown]
# Why a scale for every row, and not one for all? A row belongs to one output. Where one row has large weights, the others
# would have to take its coarse step:

# %% tags=["trained"]
one_scale = W.abs().max() / 127.5
with_one = (W / one_scale).round().clamp(-128, 127) * one_scale
lost = {"one scale for all": with_one - W, "a scale for each row": back - W}
lost = {name: ((error**2).mean() / (W**2).mean()).sqrt().item() for name, error in lost.items()}
for name, error in lost.items():
    print(f"{name:21} error ≈ {error:.3%} of a weight")
assert lost["a scale for each row"] < lost["one scale for all"] < 0.03

# %% [markdown]
# This is *symmetric quantization, per channel*, and PyTorch's library for it is torchao. `int8.to_int8` has it round every
# linear layer, and the token embedding likewise. Is it the same?

# %%
small = int8.to_int8(model)
theirs = small.h[0].mlp.c_fc.weight  # torchao's tensor: bytes and scales
midway = ((W / scales).frac().abs() - 0.5).abs() < 1e-4  # a row's largest is, at 127.5 steps
differs = theirs.qdata != steps
assert torch.allclose(theirs.scale, scales, rtol=1e-6)
assert not (differs & ~midway).any()
assert differs.float().mean() < 0.01
print("the same scales, and the same bytes but where a weight lies midway between two steps")


# %% [markdown]
# ## How few bits?
#
# Eight bits are a convention. Let us round the whole model to fewer and measure each on all of the held-out text.

# %% tags=["trained"]
@torch.no_grad()
def rounded(model: nn.Module, bits: int) -> nn.Module:
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

# %%
curves = {"rounded": perplexities, "four bytes": [before] * len(bits)}
plots.lines(
    bits,
    curves,
    "Eight bits cost next to nothing; two break the model",
    xlabel="bits for each weight",
    ylabel="perplexity on all held-out text",
)

# %% [markdown]
# **Eight bits are nearly free, and a quarter of the size.** (This small model bears even four. Where fewer hurt, a scale for every
# 32 weights of a row helps, at a price: exercise 2.) An *export* is the folder with the bytes, written and loaded again:

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
# int8 still needs PyTorch and llmkit. *ONNX* is a format for the computation itself: which operations, in which order, with
# which weights, in one file that other programs run, from a browser to a phone. The exporter calls the model once, watches, and
# writes down what happens. Batch and length must stay free, or it would write down the numbers of that one call.

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
# What is lost? The file maps ids to scores and knows nothing of a key-value cache (notebook 08b): for each new character the
# window is read anew. And int8, is it faster? On a CPU the bytes become floats again before each product. Look at all three:

# %% tags=["nbval-ignore-output"]
rows = {"original": model, "int8": loaded, "onnx": onnx}
print(f"{'':10}{'file':>10}{'one window':>14}{'tokens a second':>18}{'perplexity':>13}")
for name, each in rows.items():
    found = export.measure(each, val_ids, seconds=0.3)
    megabytes = export.file_bytes(place / name) / 1e6
    print(f"{name:10}{megabytes:7.2f} MB{found.window_ms:11.2f} ms", end="")
    print(f"{found.tokens_per_second:18,.0f}{found.perplexity:13.3f}")


# %% [markdown]
# (Times are of the machine that ran this. In a window of this size the missing cache hardly shows: reading it anew is quickly
# done. In one of a thousand tokens it would.) So int8 buys *memory*, not speed; it becomes faster where memory is what one waits
# for, as on a GPU with a large model and kernels made for it. ONNX buys *independence*. On the command line, the same table for
# any model: `python -m llmkit export FOLDER --onnx --int8`.
#
# ## A queue
#
# Now others come. The model can draw one text at a time at full speed; two at once take twice as long each. So requests wait in
# a line, and one worker serves them in turn. The important number is how long the line may get:

# %%
class OneAtATime:
    def __init__(self, model, tokenizer, room: int):
        self.model, self.tokenizer = model, tokenizer
        self.waiting = queue.Queue(maxsize=room)

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


# %%
office = OneAtATime(loaded, tokenizer, room=3)
answers, refused = [], 0
for prompt in ("MARA:", "The river", "O", "And so", "Who"):  # before the worker has come
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
assert (len(said), refused) == (3, 2)
assert said[1].startswith("The river")
assert len(said[1]) == len("The river") + 20

# %% [markdown]
# Without that bound the line grows as long as people come faster than they are served, memory with it, and in the end everybody
# waits for longer than they have patience. **A "no" at once is worth more than a "yes" too late.** llmkit's server is this
# queue, with a web in front of it.
#
# ## Serving
#
# The usual tutorial's server has ten lines: read `request.json["prompt"]`, call the model, return the text, and at the end
# `app.run(host="0.0.0.0")`. It works at the first try, and has five faults that show later:
#
# | fault | what follows |
# |---|---|
# | it listens on `0.0.0.0`, every network this machine is in | anybody nearby can use it |
# | no limits | one request for a million tokens, or a body of 10 GB, stops it for all |
# | no validation | a letter the tokenizer does not know becomes an error 500 and a stack trace |
# | no queue | a hundred requests at once share two cores, and all time out |
# | no end | stopping it cuts off whoever was being answered |
#
# Below we check ours for each of them. It runs in this process, beside the notebook: `background`, of `llmkit.deploy.server`.

# %%
torch.set_num_threads(1)  # one core for the model; the others for those who ask
stack = ExitStack()  # what is opened on it stays open until we close it
settings = dict(name="play", queue=8, max_tokens=2_000)
server = stack.enter_context(background(loaded, tokenizer, **settings))
assert server.url.startswith("http://127.0.0.1:")  # this machine, and no other


def send(path: str, body=None, **headers: str) -> tuple[int, dict]:
    """A plain HTTP request: the status and the JSON of the answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    headers = {"Content-Type": "application/json"} | headers
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


status, health = send("/health")
print(status, {key: health[key] for key in ("status", "model", "waiting", "queue", "max_tokens")})

# %% [markdown]
# ## A client
#
# Whoever serves a language model today speaks the language of OpenAI's API, because every tool already knows it. So does ours,
# and here is OpenAI's own client, told to ask at our address:

# %%
client = openai.OpenAI(base_url=server.url + "/v1", api_key="none is needed", max_retries=0)
print([each.id for each in client.models.list()])
asked = dict(model="play", prompt="MARA:\n", max_tokens=60)
answer = client.completions.create(**asked, temperature=0)
print(answer.usage.prompt_tokens, "characters asked,", answer.usage.completion_tokens, "answered")

ids = llmkit.generate(loaded, tokenizer.encode("MARA:\n"), 60, temperature=0)
assert "MARA:\n" + answer.choices[0].text == tokenizer.decode(ids)  # what the model says here

# %% [markdown]
# The same text as from the model in our hands. With a seed, chance too can be repeated; and `stop` ends an answer at a string:

# %% tags=["nbval-ignore-output", "sampled-text"]
drawn = [client.completions.create(**asked, seed=7).choices[0].text for _ in range(2)]
assert drawn[0] == drawn[1]
line = client.completions.create(**asked, seed=7, stop="\n").choices[0]
assert line.text == drawn[0].split("\n")[0]
print("MARA:\n" + drawn[0])

# %% [markdown]
# ## Why a streamed answer feels faster
#
# A long answer takes long, streamed or not. (Streamed it takes longer in all, because each piece is a message of its own.) But
# with `stream=True` it can be read as it is made. We note when each piece arrives:

# %%
list(client.completions.create(**asked, stream=True))  # a first one, which loads code
began = time.perf_counter()
arrived, pieces = [], []  # seconds, and the piece of text
for chunk in client.completions.create(**asked | {"max_tokens": 300}, seed=7, stream=True):
    arrived.append(time.perf_counter() - began)
    pieces.append(chunk.choices[0].text)

began = time.perf_counter()
whole = client.completions.create(**asked | {"max_tokens": 300}, seed=7)
until_whole = time.perf_counter() - began
assert "".join(pieces) == whole.choices[0].text  # the same text
assert arrived[0] < 0.5 * min(arrived[-1], until_whole)
print(f"first piece after ≈ {1000 * arrived[0]:.0f} ms, all after ≈ {1000 * arrived[-1]:.0f} ms;")
print(f"not streamed, all after ≈ {1000 * until_whole:.0f} ms")

# %%
seen = torch.tensor([len(piece) for piece in pieces]).cumsum(0).tolist()
end = max(arrived[-1], until_whole)
times = {"streamed": [0, *arrived, end], "in one piece": [0, until_whole, until_whole, end]}
times = {name: [1000 * t for t in each] for name, each in times.items()}
plots.lines(
    times,
    {"streamed": [0, *seen, seen[-1]], "in one piece": [0, 0, seen[-1], seen[-1]]},
    "A stream begins at once; without it, all comes at the end",
    xlabel="milliseconds since the question",
    ylabel="characters that have arrived",
)


# %% [markdown]
# Two numbers describe a stream: the *time to first token* and the *time per token* after it. A reader manages some 20
# characters a second, so once the first is there, nobody waits any more.
#
# ## Under load
#
# How long does one wait when others ask too? Let 1, 2, 4 and 8 clients each ask again and again, some for a word, some for a
# page, and note every answer. The mean would hide the unlucky, so one quotes *percentiles*: half of the answers take no longer
# than p50, 99 in a hundred no longer than p99.

# %%
def ask(seed: int) -> tuple[float, float, int]:
    """Seconds to the first piece and to the last, and how many pieces."""
    began = time.perf_counter()
    length = {"max_tokens": random.Random(seed).choice([10, 20, 40, 120])}
    stream = client.completions.create(**asked | length, seed=seed, stream=True)
    arrived = [time.perf_counter() - began for _ in stream]
    return arrived[0], arrived[-1], len(arrived)


measured, seconds = {}, {}
for clients in (1, 2, 4, 8):
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        measured[clients] = list(pool.map(ask, range(6 * clients)))
    seconds[clients] = time.perf_counter() - began
assert [len(each) for each in measured.values()] == [6, 12, 24, 48]  # nobody was lost

# %%
percentiles, speed = {}, {}
print("in ms     first token p50    each token    whole p50    whole p99    characters a second")
for clients, answers in measured.items():
    first, last, count = torch.tensor(answers).unbind(1)  # (N,) each
    each = 1000 * ((last - first) / (count - 1)).median()
    percentiles[clients] = (1000 * torch.quantile(last, torch.tensor([0.5, 0.99]))).tolist()
    p50, p99 = percentiles[clients]
    speed[clients] = count.sum().item() / seconds[clients]
    print(f"{clients} at once", end="")
    print(f"       ≈ {1000 * first.median():6.0f}      ≈ {each:6.1f}     ≈ {p50:6.0f}", end="")
    print(f"     ≈ {p99:6.0f}            ≈ {speed[clients]:6.0f}")
assert percentiles[8][0] > 2 * percentiles[1][0]
assert speed[8] < 2 * speed[1]

# %%
plots.lines(
    list(percentiles),
    {
        "p99": [p99 for _, p99 in percentiles.values()],
        "p50": [p50 for p50, _ in percentiles.values()],
    },
    "With one worker, waiting grows with the number who ask",
    xlabel="clients that ask at the same time",
    ylabel="milliseconds for a whole answer",
)

# %% [markdown]
# The server draws about as many characters a second for one client as for eight: the worker was busy before. What grows is the
# line, and with it nearly all of the waiting before the first token. (Clients and server share the cores of one machine here,
# so both would do better apart.) What engines for many users do about it: they draw for all waiting requests *in one batch*,
# which costs little more than drawing for one, and let newcomers join at every token (*continuous batching*, [Yu et al.
# 2022](https://www.usenix.org/conference/osdi22/presentation/yu)).
#
# ## A full line
#
# Eight may wait. To see what the next one is told, we keep the worker busy with a long stream, and let eight stand in line:

# %%
long = client.completions.create(**asked | {"max_tokens": 2_000}, seed=1, stream=True)
next(iter(long))  # it is being answered now
pool = ThreadPoolExecutor(8)
line = [pool.submit(client.completions.create, **asked | {"max_tokens": 1}) for _ in range(8)]
deadline = time.monotonic() + 10
while server.engine.waiting < 8 and time.monotonic() < deadline:
    time.sleep(0.001)
refusal = None
try:
    client.completions.create(**asked)
except openai.RateLimitError as error:
    refusal = error
assert refusal.status_code == 429
print(refusal.status_code, refusal.body["message"])
print("Retry-After:", refusal.response.headers["Retry-After"], "second")
long.close()  # we leave: the server notices, and the next one's turn comes
assert all(each.result(timeout=60).choices for each in line)
pool.shutdown()

# %% [markdown]
# The client that we ask to be patient (OpenAI's default is `max_retries=2`) reads `Retry-After`, waits and asks again by itself.
#
# ## Requests that are wrong
#
# What the usual server answers with a stack trace, or by falling over. Each gets a status from 400 to 499 ("the fault is
# yours") and one sentence that says what to mend:

# %%
wrong = {
    "a letter it never saw": {"prompt": "Zoë"},
    "a million tokens": {"prompt": "O", "max_tokens": 1_000_000},
    "an impossible temperature": {"prompt": "O", "temperature": -1},
    "a misspelt setting": {"prompt": "O", "temprature": 0.5},
    "no prompt at all": {"prompt": ""},
    "another model": {"prompt": "O", "model": "gpt-2"},
}
answers = {name: send("/v1/completions", json.dumps(body)) for name, body in wrong.items()}
answers["no JSON"] = send("/v1/completions", "prompt=O")
answers["a body too large"] = send("/v1/completions", json.dumps({"prompt": "O" * 300_000}))
answers["another name for us"] = send("/health", Host="evil.example")
for name, (status, answer) in answers.items():
    print(f"{name:27}{status}  {answer['error']['message']}")
    assert 400 <= status < 500
assert send("/health")[0] == 200  # and it lives

# %% [markdown]
# The last one is the least known. A page on the web can have its own name lead to 127.0.0.1, and then read what your server
# says, through your browser (*DNS rebinding*). But the request still carries the page's name. And where a server must be seen by
# others, it should ask for a key:

# %%
with background(loaded, tokenizer, name="play", api_key="open sesame") as guarded:
    for key in ("guess", "open sesame"):
        visitor = openai.OpenAI(base_url=guarded.url + "/v1", api_key=key, max_retries=0)
        try:
            print(f"{key!r}: {len(visitor.completions.create(**asked).choices)} answer")
        except openai.AuthenticationError as error:
            print(f"{key!r}: {error.status_code} {error.body['message']}")

# %% [markdown]
# (A key in clear text is read by whoever carries it: between machines, put a proxy with TLS in front, as nginx or Caddy.)
#
# ## The end
#
# A server is also stopped, for a new model, say. Whoever is being answered should get the answer. We ask, and stop the server in
# the middle of it:

# %%
stack.close()  # our first server had nobody left to answer; this one shall have
server = stack.enter_context(background(loaded, tokenizer, **settings))
client = openai.OpenAI(base_url=server.url + "/v1", api_key="none is needed", max_retries=0)
pool = ThreadPoolExecutor(1)
last = pool.submit(client.completions.create, **asked | {"max_tokens": 400}, seed=3)
deadline = time.monotonic() + 10
while not server.engine.running and time.monotonic() < deadline:
    time.sleep(0.001)
assert server.engine.running
stack.close()  # returns when all is over
usage = last.result(timeout=60).usage
print(f"answered to the end: {usage.completion_tokens} of 400 characters")
assert usage.completion_tokens == 400
pool.shutdown()
try:
    client.models.list()
except openai.APIConnectionError:
    print("now nobody is there")
assert not [thread for thread in threading.enumerate() if "llmkit" in thread.name]

# %% [markdown]
# In a terminal the same server is `python -m llmkit serve FOLDER`, with a page to try it in.
#
# ## A model that somebody knows
#
# Nothing in all this knew what kind of model it was. On a GPU we do the same with GPT-2: int8, served, asked.

# %%
if runtime.pick(cpu=False, gpu=True):
    gpt2, bpe = llmkit.pretrained.load_gpt2("gpt2")
    gpt2_int8 = int8.to_int8(gpt2).to(runtime.device)
    for each in (gpt2, gpt2_int8):
        stored = sum(w.nbytes for w in int8.tensors(each).values())
        print(f"{stored / 1e6:,.0f} MB of weights")
    with background(gpt2_int8, bpe, name="gpt2") as big:
        reader = openai.OpenAI(base_url=big.url + "/v1", api_key="none is needed")
        question = dict(model="gpt2", prompt="The river was", max_tokens=40, seed=1)
        for chunk in reader.completions.create(**question, stream=True):
            print(chunk.choices[0].text, end="")

# %% [markdown]
# For *many* users our server is too small, by design: one text at a time. The way on is an engine with continuous batching and
# a paged cache, such as [vLLM](https://docs.vllm.ai). It wants a folder as transformers writes it, and our GPT is GPT-2
# (notebook 11), so `llmkit.pretrained.save_gpt2(model, "folder", tokenizer)` and then `vllm serve folder` are all it takes. The
# clients above need not change by a letter: the address does.
#
# ## What we saw
#
# - A byte for each weight and a scale for each row: a quarter of the size, the perplexity within 1 %. At two bits the model is
#   broken.
# - int8 spares memory. It spares time only where the hardware and its kernels make use of it; measure before you promise.
# - ONNX is the computation as a file: equal within 1e-4 at every length, and without a cache.
# - One worker and a bounded queue. Who cannot be served soon is told so at once, with 429.
# - A stream takes longer than the whole in one piece, but begins at once. p50 and p99 say what the mean hides, and both grow
#   with the line.
# - Unknown letters, huge bodies, strangers' names, misspelt settings: each has a status and a sentence, and the server lives.
#
# It can be served. *Should* it be? What does it give away of the texts it has read, and whom does it treat badly?
#
# ## Exercises
#
# **1 (warm-up).** GPT-2 XL has 1,557,611,200 weights. How many GB (1e9 bytes) is it at four bytes a weight, and how many in int8?
# (Leave the scales out.)

# %% tags=["exercise"]
gigabytes = None  # your answer: (at four bytes, in int8)

# %% [markdown]
# **2 (medium).** Three bits, better: give every 32 neighbours in a row a scale of their own (`weight.view(-1, 32)` makes rows of
# 32). What is the perplexity now? But a scale is a number of 32 bits: how many bits does a weight cost with its share of it, and
# is that better than as many bits with a scale for each row?

# %% tags=["exercise", "trained"]
three_bits_by_group = None  # your answer: the perplexity

# %% [markdown]
# **3 (medium).** Little's law: the mean number of customers in a shop is their arrivals per second times the mean seconds that
# each one stays. Check it on `measured` and `seconds`: what do the answers a second, times the mean time of an answer, give for
# 8 clients?

# %% tags=["exercise"]
clients_by_little = None  # your answer

# %% [markdown]
# ### Solutions

# %% tags=["solution"]
# @title Solution 1: GPT-2 XL
gigabytes = (4 * 1_557_611_200 / 1e9, 1_557_611_200 / 1e9)
print("{:.2f} GB and {:.2f} GB".format(*gigabytes))
assert gigabytes[0] == 4 * gigabytes[1]

# %% tags=["solution", "trained"]
# @title Solution 2: a scale for every 32
grouped = copy.deepcopy(model)
for weight in grouped.parameters():
    if weight.dim() == 2:
        groups = weight.detach().view(-1, 32)  # (weights / 32, 32)
        scales = (groups.abs().amax(dim=1, keepdim=True) / 3.5).clamp(min=smallest)
        weight.data = ((groups / scales).round().clamp(-4, 3) * scales).view_as(weight)
three_bits_by_group = llmkit.evaluate(grouped, val_ids).perplexity
by_row = dict(zip(bits, perplexities, strict=True))
print(
    f"three bits, a scale for each row ≈ {by_row[3]:.3f}, for every 32 ≈ {three_bits_by_group:.3f}"
)
print(f"but that is {3 + 32 // 32} bits a weight, and four bits by row give ≈ {by_row[4]:.3f}")
assert by_row[4] < three_bits_by_group < by_row[3]  # engines store their scales in 16 bits or 8

# %% tags=["solution"]
# @title Solution 3: Little's law
mean_seconds = sum(last for _, last, _ in measured[8]) / len(measured[8])
clients_by_little = len(measured[8]) / seconds[8] * mean_seconds
print(f"≈ {clients_by_little:.1f} clients")  # fewer than 8: towards the end they leave one by one
assert 5 < clients_by_little < 8.1
