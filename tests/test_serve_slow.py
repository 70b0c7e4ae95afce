"""The server under load, against its own description, and against what is no request at all.
Run with `pytest -m slow`."""

import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving import POEM, Gate, ask, command, events, expected, gpt, tokenizer

import llmkit
from llmkit import checkpoint
from llmkit.deploy import server as serve
from llmkit.deploy import trial
from llmkit.deploy.server import guard

pytestmark = pytest.mark.slow

CHAR = tokenizer()
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@pytest.mark.parametrize(("batch", "queue"), [(16, 32), (4, 8)])
def test_a_thousand_requests_from_sixteen_clients(tmp_path, batch, queue):
    """0.8 M parameters, the server a process of its own. None is lost; each is answered, with the
    text of its seed, or told that the queue is full; those told come again, until all are answered.
    """
    model = gpt(block_size=64, n_layer=4, n_head=4, n_embd=128)
    assert 0.7e6 < model.num_parameters() < 0.9e6
    new, told = 12, Counter()
    wants = {s: expected(model, CHAR, "the fox", new, s) for s in range(50)}

    def one(number, client):
        seed, stream = number % 50, number % 3 == 0
        while True:
            try:
                options = {"prompt": "the fox", "max_tokens": new, "seed": seed}
                answer = client.completions.create(model="load", stream=stream, **options)
                chunks = list(answer) if stream else [answer]
                assert "".join(chunk.choices[0].text for chunk in chunks) == wants[seed]
                told["answered"] += 1
                return
            except openai.RateLimitError as error:
                told[error.code] += 1
                time.sleep(0.1 * random.random())

    checkpoint.save(tmp_path / "load", model, CHAR)
    limits = "--queue", str(queue), "--batch", str(batch)
    with command(str(tmp_path / "load"), *limits) as (_, line):
        url = line.split()[3]
        clients = [
            openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) for _ in range(16)
        ]
        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(one, n, clients[n % 16]) for n in range(1000)]
            for job in jobs:
                job.result()
        health = ask(url, "/health")[2]
        for client in clients:
            client.close()
    print(dict(told))
    assert told["answered"] == health["served"] == 1000
    assert (told["queue_full"] > 0) is (batch + queue < 16)
    assert set(told) <= {"answered", "queue_full"}
    assert health["waiting"] == health["running"] == 0


# Its own description


BPE = llmkit.BPETokenizer.train(POEM, 300, ["<|endoftext|>"])


@pytest.fixture(scope="module")
def described():
    """A tokenizer that takes any text, so that many generated requests are good ones."""
    with serve.background(gpt(BPE.vocab_size), BPE, max_tokens=20, max_choices=4) as running:
        yield schemathesis.openapi.from_url(running.url + "/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_description_is_true(described, mode):
    """Requests generated from it, right and wrong ones: every answer is one that it describes."""
    seen = Counter()
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call_and_validate(checks=CHECKS)
            seen[case.operation.label, response.status_code] += 1
            described = case.operation.definition.raw["responses"]
            assert str(response.status_code) in described  # and not by 4XX alone

        try:
            check()
        except Unsatisfiable:  # there is no wrong request to an address without parameters
            assert mode == GenerationMode.NEGATIVE
    print(dict(seen))
    assert seen["POST /v1/completions", 200 if mode == GenerationMode.POSITIVE else 400] > 20
    assert seen["POST /generate", 200 if mode == GenerationMode.POSITIVE else 400] > 20


# What is no request


def malformed(random, secret):
    """A way to be wrong: a path, a body and headers, and the statuses that it may be told."""
    good = {"prompt": "the fox", "max_new_tokens": 2}
    junk = random.choice(
        [None, True, -1, 1.5, 2**80, "", "x" * 300, [], [[]], {}, {"a": 1}, "\ud800", [None], "é🦊"]
    )
    key = random.choice(["prompt", "max_new_tokens", "temperature", "top_k", "top_p", "stop",
                         "seed", "stream", "model", "n", "logprobs", secret])  # fmt: skip
    path = random.choice(["/generate", "/v1/completions"])
    text = json.dumps(good).encode()
    cut = random.randrange(len(text))
    kinds = [
        (json.dumps(good | {key: junk}).encode(), {}),
        (text[:cut], {}),
        (text[:cut] + random.randbytes(5) + text[cut:], {}),
        (random.randbytes(random.randrange(2000)), {}),
        (b"[" * random.randrange(1, 60_000), {}),
        (b'{"a":' * random.randrange(1, 20_000) + b"1", {}),
        (b'{"prompt": "' + b"a" * random.randrange(250_000, 2_000_000) + b'"}', {}),
        (b'{"prompt": "a", "seed": ' + b"9" * random.randrange(1, 20_000) + b"}", {}),
        (json.dumps({"prompt": chr(random.randrange(128, 0x110000))}).encode(), {}),
        (b'{"prompt": "a", "top_p": ' + random.choice([b"NaN", b"-Infinity", b"1e999"]) + b"}", {}),
        (text, {"Content-Type": random.choice(["text/plain", "a/b", "\xff", "a" * 5000])}),
        (text, {"Host": "evil.example"}),
        (text, {"Authorization": "Bearer " + "x" * random.randrange(5000)}),
        (text.decode().encode("utf-16"), {}),
    ]  # fmt: skip
    return (path, *random.choice(kinds))


def raw(url, data, slow=False):
    """Send bytes and hang up, or (slow) send all but the end and wait; the answer's beginning."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=10) as connection:
        try:
            connection.sendall(data[: -3 if slow else None])
            if not slow:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(100)
        except OSError:
            return b""  # it hung up first, as it may


def test_a_thousand_malformed_requests(tmp_path):
    """No 5xx, no crash, and the memory of the server, a process of its own, stays."""
    rng, statuses = random.Random(0), Counter()
    head = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    checkpoint.save(tmp_path / "fuzz", gpt(), CHAR)
    impatient = "from llmkit.deploy.server import guard; guard.READ_SECONDS = 0.3"
    with command(str(tmp_path / "fuzz"), "--max-tokens", "20", first=impatient) as (process, line):
        url = line.split()[3]

        def wrong(_):
            path, body, headers = malformed(rng, "unknown")
            try:
                statuses[ask(url, path, body, headers=headers)[0]] += 1
            except OSError:  # a huge body to which it did not listen to the end
                statuses["hung up"] += 1

        def truncated(n):
            lines = [
                f"{head}Content-Length: 500\r\n\r\n{{'prompt'",
                f"{head}Transfer-Encoding: chunked\r\n\r\nfff\r\nabc",
                f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                f"{head}Content-Length: -5\r\n\r\n",
                f"{head}Content-Length: 99999999999999999999\r\n\r\n",
                "GET / HTTP/9.9\r\n\r\n",
                "\x00\x01\x02\r\n\r\n",
                f"GET /{'a' * 100_000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "POST /generate HTTP/1.1\r\n" + "X: y\r\n" * 20_000 + "\r\n",
            ]
            start = raw(url, lines[n % 9].encode("latin-1"), slow=n % 9 < 2)
            statuses[int(start[9:12]) if start.startswith(b"HTTP/1.1 ") else "hung up"] += 1

        def batch(size):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(wrong, range(size * 4 // 5)))
                list(pool.map(truncated, range(size // 5)))
            return psutil.Process(process.pid).memory_info().rss / 2**20

        sizes = [batch(250) for _ in range(4)]  # the first ones to warm up
        good = {"prompt": "the fox", "seed": 1, "max_new_tokens": 9}
        text = ask(url, "/generate", good)[2]["text"]
        health = ask(url, "/health")[2]
        assert process.poll() is None
    print(dict(statuses), [f"{mb:.1f} MB" for mb in sizes])
    assert text == expected(gpt(), CHAR, "the fox", 9, 1)
    assert health["waiting"] == health["running"] == 0
    assert sum(statuses.values()) == 1000
    numbers = {status for status in statuses if isinstance(status, int)}
    assert max(numbers) < 500, statuses
    assert {400, 403, 408, 413, 415} <= numbers
    assert sizes[-1] - sizes[1] < 8, sizes  # it levels off: 3,000 requests add no more


FLOOD = """
import itertools, resource, select, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
head = b"POST /generate HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
kinds = itertools.cycle([
    b"", head[:30], head + b"Content-Length: 100\\r\\n\\r\\n{", b"no HTTP\\r\\n\\r\\n",
    head + b"Upgrade: websocket\\r\\nConnection: Upgrade\\r\\nContent-Length: 9\\r\\n\\r\\n",
])
poll, clients, made = select.poll(), {}, 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for _ in range(min(500 - len(clients), 500 - made if made < 500 else 25)):
        client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        client.sendall(next(kinds))
        clients[client.fileno()] = client
        poll.register(client, select.POLLIN)
        made += 1
    if made == 500:
        print("all are there", flush=True)
    for number, _ in poll.poll(0):  # it answered, or hung up: another comes
        poll.unregister(number)
        clients.pop(number).close()
    time.sleep(0.05)
print(made)
"""


def test_five_hundred_silent_clients_and_few_file_descriptors(tmp_path):
    """Who sends nothing, or half of something, and comes again when dropped, keeps nobody out."""
    checkpoint.save(tmp_path / "flood", gpt(), CHAR)
    with command(str(tmp_path / "flood")) as (process, line):
        url, server = line.split()[3], psutil.Process(process.pid)
        server.rlimit(psutil.RLIMIT_NOFILE, (128, 128))
        arguments = [sys.executable, "-c", FLOOD, str(urlsplit(url).port), "25"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as flood:
            assert flood.stdout.readline() == "all are there\n"
            times, sizes = [], []
            while flood.poll() is None and len(times) < 500:
                started = time.monotonic()
                if len(times) % 2:
                    assert ask(url, "/health")[0] == 200
                else:
                    body = {"prompt": "the fox", "max_new_tokens": 5}
                    assert ask(url, "/generate", body)[0] == 200
                times.append(time.monotonic() - started)
                sizes.append(server.memory_info().rss / 2**20)
                time.sleep(0.04)
            made = int(flood.communicate()[0])
        files, busy = server.num_fds(), server.cpu_times()
        process.terminate()
        out, err = process.communicate(timeout=20)
    print(f"{made} connections, {len(times)} answers, the slowest in {max(times):.2f} s; {busy}")
    assert made > 500
    assert len(times) > 50
    assert max(times) < 1
    assert sizes[-1] - sizes[len(sizes) // 3] < 8, sizes
    assert files < 128
    assert (out, err.count("\n")) == ("", 0), err[:5000]


@contextmanager
def deaf(url, new):
    """A client that asks for a stream of so many tokens, and reads none."""
    at, head = urlsplit(url), "Host: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps({"prompt": "a", "max_new_tokens": new, "stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((at.hostname, at.port))
        head = f"POST /generate HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        yield client


def test_a_listener_that_does_not_listen():
    """A stream to a client that reads nothing holds neither the model nor the others up."""
    gate = Gate()  # which is quick, once it is open
    gate.open()
    server = serve.background(gate, CHAR, max_tokens=8_000, grace=1)
    with server as running, deaf(running.url, 8_000):
        content = ask(running.url, "/generate", {"prompt": "a", "seed": 2, "stream": True})[2]
        assert len(events(content)) > 50
        trial.wait_until(lambda: ask(running.url, "/health")[2]["running"] == 0, 20)


def test_a_client_that_takes_no_answers_is_dropped(monkeypatch):
    """It asks for more than the system's buffers hold, and begins to read when it is too late."""
    monkeypatch.setattr(guard, "READ_SECONDS", 1)
    with serve.background(gpt(), CHAR) as running, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", urlsplit(running.url).port))
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        time.sleep(15)
        content = b""
        try:
            while piece := deaf.recv(2**20):
                content += piece
        except ConnectionResetError:
            pass
    assert 0 < content.count(b"HTTP/1.1 200") < 1000
