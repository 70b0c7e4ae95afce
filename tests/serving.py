"""What the tests of the server share: small models, and one that waits until it is let go on."""

import http.client
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import torch
from torch import nn

import llmkit

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .,!?\n"
SIZE = len(CHARACTERS)
POEM = "Grüße, 🦊 und 日本; the quick brown fox jumps over the lazy dog. " * 20


def tokenizer():
    return llmkit.CharTokenizer(CHARACTERS)


def gpt(vocab_size=SIZE, seed=0, **shape):
    """A small GPT whose texts vary: its weights are ten times a new one's."""
    torch.manual_seed(seed)
    shape = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16} | shape
    model = llmkit.GPT(llmkit.GPTConfig(vocab_size, **shape)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    return model


class Gate(nn.Module):
    """A model that makes one token for each time that it is let go on; `open` lets it run free.
    With `failing`, it fails instead."""

    def __init__(self, vocab_size=SIZE):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size, block_size=8)
        generator = torch.Generator().manual_seed(1)
        self.table = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))
        self.permits, self.calls, self.failing = threading.Semaphore(0), 0, False

    def forward(self, ids):
        self.calls += 1
        if not self.permits.acquire(timeout=20):
            raise TimeoutError("a test left the gate shut")
        if self.failing:
            raise RuntimeError("on purpose")
        return self.table[ids]

    def open(self):
        self.permits.release(100_000)


def ask(url, path, body=None, method=None, headers=None):
    """Status, headers and content of an answer; a body other than bytes is sent as JSON."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = ({"Content-Type": "application/json"} if body is not None else {}) | (headers or {})
    connection.request(method or ("GET" if body is None else "POST"), path, raw, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.headers.get_content_type() == "application/json":
        content = json.loads(content)
    return response.status, response.headers, content


def events(content):
    """The events of a stream, as they were sent."""
    assert content.endswith(b"\n\n")
    lines = content.decode().split("\n\n")[:-1]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def expected(model, tokenizer, prompt, new, seed, **choices):
    """The text that `llmkit.generate` writes after the prompt."""
    ids = tokenizer.encode(prompt)
    ids = llmkit.generate(model, ids, new, seed=seed, **choices)[len(ids) :]
    return tokenizer.decode(ids)


@contextmanager
def command(*arguments, first="", **environment):
    """`python -m llmkit serve` in a process of its own, and the line in which it says where.
    first: a statement to run before."""
    code = f"import sys; from llmkit.__main__ import main; {first}\nsys.exit(main(sys.argv[1:]))"
    start = [sys.executable, *(["-c", code] if first else ["-m", "llmkit"])]
    process = subprocess.Popen(
        [*start, "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()
