"""The server over real connections: its answers against `llmkit.generate`, the `openai` client
unmodified, its limits, its end."""

import http.client
import json
import logging
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import openai
import pytest
import torch
from pydantic import ValidationError
from serving import CHARACTERS, POEM, Gate, ask, command, events, expected, gpt, tokenizer

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.deploy import server as serve
from llmkit.deploy.server import connection as connections
from llmkit.deploy.server import guard, schema
from llmkit.deploy.server.answer import Mail
from llmkit.finetune import pretrained

CHAR, MODEL = tokenizer(), gpt()
BPE = llmkit.BPETokenizer.train(POEM, 300, ["<|endoftext|>"])


@pytest.fixture(scope="module")
def server():
    limits = {"max_prompt": 100, "max_tokens": 200, "max_body": 5000, "max_choices": 8}
    with serve.background(MODEL, CHAR, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@contextmanager
def gated(**settings):
    """A server whose model waits, and the model."""
    gate = Gate()
    with serve.background(gate, CHAR, **settings) as running:
        try:
            yield running, gate
        finally:
            gate.open()


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def in_thread(function, *arguments, **named):
    """Start it; what it returns comes in the list once the thread has ended."""
    out = []
    thread = threading.Thread(target=lambda: out.append(function(*arguments, **named)))
    thread.start()
    return thread, out


# What /generate answers


def test_generate_is_generate(server):
    body = {"prompt": "the fox", "max_new_tokens": 50, "temperature": 0.8, "top_k": 9, "seed": 4}
    status, headers, answer = ask(server.url, "/generate", body | {"top_p": 0.9})
    assert status == 200
    want = expected(MODEL, CHAR, "the fox", 50, 4, temperature=0.8, top_k=9, top_p=0.9)
    timings = answer.pop("timings")
    assert answer == {
        "text": want, "prompt_tokens": 7, "tokens": 50, "seed": 4, "finish_reason": "length",
    }  # fmt: skip
    assert 0 <= timings["waited"] <= timings["first_token"] <= timings["total"] < 10
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_streamed_is_unstreamed(server):
    body = {"prompt": "the fox", "max_new_tokens": 80, "seed": 11, "stop": ["e", "qz"]}
    _, _, whole = ask(server.url, "/generate", body)
    status, headers, content = ask(server.url, "/generate", body | {"stream": True})
    pieces = [json.loads(event) for event in events(content)]
    assert (status, headers.get_content_type()) == (200, "text/event-stream")
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    for key in ("prompt_tokens", "tokens", "seed", "finish_reason"):
        assert pieces[-1][key] == whole[key]
    assert whole["finish_reason"] == "stop"
    assert whole["text"] == expected(MODEL, CHAR, "the fox", 80, 11).partition("e")[0]
    assert len(pieces) > 3


def test_without_a_seed_one_is_told(server):
    _, _, one = ask(server.url, "/generate", {"prompt": "a", "max_new_tokens": 30})
    _, _, two = ask(server.url, "/generate", {"prompt": "a", "max_new_tokens": 30})
    assert one["seed"] != two["seed"]
    again = {"prompt": "a", "max_new_tokens": 30, "seed": one["seed"]}
    assert ask(server.url, "/generate", again)[2]["text"] == one["text"]


def test_characters_of_several_bytes_are_streamed_whole():
    model = gpt(BPE.vocab_size)
    with serve.background(model, BPE) as running:
        body = {"prompt": "Grüße, 🦊", "max_new_tokens": 60, "seed": 1, "stream": True}
        content = ask(running.url, "/generate", body)[2]
        text = "".join(json.loads(event)["text"] for event in events(content))
        assert text == expected(model, BPE, "Grüße, 🦊", 60, 1).partition("<|endoftext|>")[0]
        empty = {"prompt": "", "max_new_tokens": 5, "seed": 1}  # a text that has yet to begin
        answer = ask(running.url, "/generate", empty)[2]
        assert answer["prompt_tokens"] == 1
        end = [BPE.special_tokens["<|endoftext|>"]]
        drawn = llmkit.generate(model, torch.tensor(end), 5, seed=1)[1:]
        assert answer["text"] == BPE.decode(drawn).partition("<|endoftext|>")[0]


# What OpenAI's client gets


def complete(client, **options):
    return client.completions.create(**{"model": "llmkit", "prompt": "the fox"} | options)


def test_openai_completions(client):
    done = complete(client, seed=3, max_tokens=40, temperature=0.7, top_p=0.9)
    [choice] = done.choices
    assert choice.text == expected(MODEL, CHAR, "the fox", 40, 3, temperature=0.7, top_p=0.9)
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    usage = (7, 40, 47)
    got = done.usage
    assert (got.prompt_tokens, got.completion_tokens, got.total_tokens) == usage
    assert (done.object, done.model) == ("text_completion", "llmkit")
    assert done.id.startswith("cmpl-")
    assert abs(done.created - time.time()) < 60
    default = complete(client)
    assert default.usage.completion_tokens == 16
    again = complete(client, seed=default.seed)
    assert again.choices[0].text == default.choices[0].text


def test_openai_stop(client):
    text = expected(MODEL, CHAR, "the fox", 150, 3)
    for stop in ("e", [text[9:12], "\n\n\n"]):
        cuts = [text.find(s) for s in ([stop] if isinstance(stop, str) else stop)]
        at = min(cut for cut in cuts if cut >= 0)
        [choice] = complete(client, seed=3, max_tokens=150, stop=stop).choices
        assert (choice.text, choice.finish_reason) == (text[:at], "stop")


def test_openai_stream(client):
    whole = complete(client, seed=3, max_tokens=40, stop=["zq"])
    usage = {"include_usage": True}
    chunks = list(
        complete(client, seed=3, max_tokens=40, stop=["zq"], stream=True, stream_options=usage)
    )
    *texts, last = chunks
    assert "".join(chunk.choices[0].text for chunk in texts) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in texts[:-1]] == [None] * (len(texts) - 1)
    assert texts[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in texts)
    plain = list(complete(client, seed=3, max_tokens=4, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)


def test_openai_several_prompts_and_answers(client):
    prompts = ["abc", "the fox", "abd"]
    done = complete(client, prompt=prompts, n=2, seed=50, max_tokens=12, echo=True)
    assert [choice.index for choice in done.choices] == list(range(6))
    for choice in done.choices:
        prompt = prompts[choice.index // 2]
        assert choice.text == prompt + expected(MODEL, CHAR, prompt, 12, 50 + choice.index)
    assert done.usage.prompt_tokens == 3 + 7 + 3  # each once
    assert done.usage.completion_tokens == 6 * 12
    texts = [""] * 6
    for chunk in complete(
        client, prompt=prompts, n=2, seed=50, max_tokens=12, echo=True, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in done.choices]


def test_openai_token_ids(client):
    ids = CHAR.encode("the fox").tolist()
    text = complete(client, seed=3).choices[0].text
    assert complete(client, prompt=ids, seed=3).choices[0].text == text
    many = complete(client, prompt=[ids, ids[:3]], seed=3, echo=True)
    assert many.choices[0].text == "the fox" + text
    assert many.choices[1].text.startswith("the")


def test_openai_what_changes_nothing_is_taken(client):
    plain = complete(client, seed=3).choices
    neutral = {"best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}
    neutral |= {"user": "me", "n": 1, "echo": False, "suffix": "", "extra_body": {"top_k": 32}}
    assert complete(client, seed=3, **neutral).choices == plain
    names = ["temperature", "top_p", "n", "max_tokens", "logprobs", "logit_bias", "stop", "user"]
    nulls = dict.fromkeys([*names, "suffix", "best_of", "stream", "stream_options", "echo"])
    assert complete(client, seed=3, **nulls).choices == plain
    assert complete(client, max_tokens=0, echo=True).choices[0].text == "the fox"


@pytest.mark.parametrize(
    ("options", "param", "sentence"),
    [
        ({"prompt": "the fôx"}, "prompt", "'ô' (U+00F4) at position 5"),
        ({"prompt": ""}, "prompt", "the prompt is empty"),
        ({"prompt": ["a", ""]}, "prompt", "the prompt is empty"),
        ({"prompt": [1, 99]}, "prompt", "token 99 is not one of the ids 0 to 31"),
        ({"prompt": "a" * 101}, "prompt", "101 tokens: 100 at most"),
        ({"prompt": [["a"]]}, "prompt", "must be a text, a list of texts"),
        ({"max_tokens": 201}, "max_tokens", "less than or equal to 200, not 201"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0, not -1"),
        ({"n": 9}, "n", "9: 8 at most"),
        ({"prompt": ["a"] * 5, "n": 2}, "n", "10: 8 at most"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"extra_body": {"top_k": 33}}, "top_k", "less than or equal to 32, not 33"),
        ({"stop": ["a"] * 5}, "stop", "a list of up to 4"),
        ({"stop": ""}, "stop", "1 to 256 characters"),
        ({"logprobs": 1}, "logprobs", "no argument 'logprobs': leave it out"),
        ({"suffix": "x"}, "suffix", "no argument 'suffix': leave it out"),
        (
            {"frequency_penalty": 0.5},
            "frequency_penalty",
            "no argument 'frequency_penalty': leave it out",
        ),
        (
            {"presence_penalty": -1},
            "presence_penalty",
            "no argument 'presence_penalty': leave it out",
        ),
        ({"logit_bias": {"1": 5}}, "logit_bias", "no argument 'logit_bias': leave it out"),
        ({"best_of": 2}, "best_of", "no argument 'best_of': leave it out"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream to true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "'stream_options.x'"),
        ({"extra_body": {"temprature": 1}}, "temprature", "did you mean temperature?"),
        ({"seed": 2**64}, "seed", "less than"),
        ({"seed": 1.5}, "seed", "valid integer"),
        ({"stream": "yes"}, "stream", "valid boolean"),
    ],
)
def test_openai_bad_requests(client, options, param, sentence):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **options)
    error = caught.value
    assert error.param == param
    assert sentence in error.body["message"]
    assert "\n" not in error.body["message"]
    assert error.body["type"] == error.type == "invalid_request_error"


def test_openai_models(client):
    assert [model.id for model in client.models.list()] == ["llmkit"]
    assert client.models.retrieve("llmkit").owned_by == "llmkit"
    for wrong in (lambda: client.models.retrieve("gpt-5"), lambda: complete(client, model="gpt-5")):
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'") as caught:
            wrong()
        assert caught.value.code == "model_not_found"


def test_openai_full_queue_and_cancelling():
    with gated(queue=1) as (running, gate):
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="x", max_retries=0)
        thread, out = in_thread(complete, client, prompt="a", max_tokens=3, seed=1)
        until(lambda: gate.calls == 1)
        stream = in_thread(complete, client, prompt="b", max_tokens=500, stream=True)
        until(lambda: running.engine.waiting == 1)
        with pytest.raises(openai.RateLimitError, match="1 requests wait already") as caught:
            complete(client, prompt="c")
        assert caught.value.response.headers["Retry-After"] == "1"
        assert caught.value.code == "queue_full"
        status, _, health = ask(running.url, "/health")
        assert (status, health["waiting"], health["running"]) == (200, 1, 1)
        gate.permits.release(3 + 2)
        thread.join(10)
        stream[0].join(10)
        assert out[0].choices[0].text == expected_of_gate(gate, "a", 3, 1)
        stream[1][0].close()  # its client goes away in the middle
        until(lambda: gate.permits.release() or running.engine.running == 0)
        assert gate.calls < 100


def expected_of_gate(gate, prompt, new, seed):
    other = Gate()
    other.open()
    return expected(other, CHAR, prompt, new, seed)


# Who is let in, and with what


def test_a_key():
    with serve.background(MODEL, CHAR, api_key="s3cret") as running:
        base = running.url + "/v1"
        good = openai.OpenAI(base_url=base, api_key="s3cret", max_retries=0)
        assert complete(good, max_tokens=2).usage.completion_tokens == 2
        with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
            openai.OpenAI(base_url=base, api_key="s3cre", max_retries=0).models.list()
        for headers in ({}, {"Authorization": "Basic s3cret"}, {"Authorization": "s3cret"}):
            status, sent, answer = ask(running.url, "/generate", {"prompt": "a"}, headers=headers)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert sent["WWW-Authenticate"] == "Bearer"
        assert ask(running.url, "/v1/models", headers={"Authorization": "Bearer \xff"})[0] == 401
        assert ask(running.url, "/")[0] == ask(running.url, "/health")[0] == 200
        assert ask(running.url, "/health")[2]["needs_key"] is True


def test_only_under_its_own_name(server):
    for host in ("localhost", "localhost:1234", "127.0.0.1", "[::1]:80"):
        assert ask(server.url, "/health", headers={"Host": host})[0] == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]"):
        status, _, answer = ask(server.url, "/generate", {"prompt": "a"}, headers={"Host": host})
        assert status == 403
        assert "is not called" in answer["error"]["message"]
    with serve.background(MODEL, CHAR, hosts=None) as running:
        assert ask(running.url, "/health", headers={"Host": "any.example"})[0] == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "http://localhost:8000", 200),
        ("LOCALHOST:8000", "http://localhost:8000", 200),
        ("localhost", "http://localhost", 200),
        ("localhost:80", "http://localhost", 200),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("box.example", "https://box.example", 200),  # behind a proxy that speaks TLS
        ("box.example:443", "https://box.example", 200),
        ("box.example:8000", "http://box.example:8000", 200),
        ("[2001:db8::1]:8000", "http://[2001:db8::1]:8000", 200),
        ("localhost:8000", "null", 403),
        ("localhost:8000", "", 403),
        ("localhost:8000", "http://evil.example", 403),
        ("localhost:8000", "http://localhost:3000", 403),
        ("localhost:8000", "http://localhost", 403),
        ("localhost:8000", "http://localhost:8000.evil.example", 403),
        ("localhost:8000", "http://evil.example@localhost:8000", 403),
        ("localhost:8000", "file://localhost:8000", 403),
        ("box.example", "http://localhost", 403),
        ("[::1]:8000", "http://[::2]:8000", 403),
    ],
)
def test_another_sites_page_may_not_ask(named, host, origin, status):
    headers = {"Host": host, "Origin": origin}
    for path in ("/generate", "/v1/completions"):
        got, _, answer = ask(named.url, path, {"prompt": "a"}, headers=headers)
        assert got == status
        if status == 403:
            assert "may not ask here" in answer["error"]["message"]
    assert ask(named.url, "/health", headers=headers)[0] == 200  # which it could not read


@pytest.fixture(scope="module")
def named():
    hosts = (*serve.LOOPBACK, "Box.Example", "2001:db8::1")
    with serve.background(MODEL, CHAR, hosts=hosts) as running:
        yield running


@pytest.mark.parametrize(
    ("status", "path", "sent", "sentence"),
    [
        (400, "/generate", {"body": b"{"}, "the body is not JSON"),
        (400, "/generate", {"body": b'{"prompt": "\xff"}'}, "cannot be read"),
        (400, "/generate", {"body": b"[" * 4000}, ""),
        (400, "/generate", {"body": b"[]"}, "must be a JSON object"),
        (400, "/generate", {"body": b'"text"'}, "must be a JSON object"),
        (400, "/generate", {"body": b""}, ""),
        (400, "/generate", {"body": {}}, "prompt is missing"),
        (400, "/generate", {"body": {"prompt": 5}}, "prompt must be a text"),
        (400, "/generate", {"body": {"prompt": "\ud800"}}, "U+D800"),
        (400, "/generate", {"body": {"prompt": "a", "\ud800": 1}}, "surrogate"),
        (400, "/generate", {"body": {"prompt": "a", "temperature": float("nan")}}, "temperature"),
        (400, "/generate", {"body": b'{"prompt": "a", "temperature": 1e999}'}, "temperature"),
        (400, "/generate", {"body": b'{"prompt":"a","seed":' + b"9" * 4900 + b"}"}, ""),
        (400, "/generate", {"body": {"prompt": "a", "max_new_tokens": True}}, "max_new_tokens"),
        (400, "/generate", {"body": {"prompt": "a", "max_new_tokens": 201}}, "to 200, not 201"),
        (400, "/generate", {"body": {"prompt": "a", "max_tokens": 9}}, "did you mean max_new_tok"),
        (400, "/generate", {"body": {"prompt": "a", "model": "x"}}, "'model': leave it out"),
        (404, "/nowhere", {}, "there is nothing at '/nowhere'"),
        (404, "/generate/", {"body": {"prompt": "a"}}, "there is nothing at"),
        (405, "/generate", {}, "/generate does not take GET"),
        (405, "/generate", {"method": "OPTIONS"}, "/generate does not take OPTIONS"),
        (405, "/health", {"body": {}}, "/health does not take POST"),
        (413, "/generate", {"body": {"prompt": "a" * 5000}}, "5,000 bytes at most"),
        (415, "/generate", {"body": b"{}", "headers": {"Content-Type": "text/plain"}}, "text/pl"),
        (415, "/generate", {"method": "POST"}, "not without a type"),
    ],
)  # fmt: skip
def test_errors_have_one_shape(server, status, path, sent, sentence):
    got, headers, answer = ask(server.url, path, **sent)
    assert got == status
    assert headers.get_content_type() == "application/json"
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    message = answer["error"]["message"]
    assert sentence in message
    assert "\n" not in message
    assert len(message) < 400
    assert not [name for name in headers if name.lower().startswith("access-control")]
    if status == 405:
        assert headers["Allow"]


def test_a_body_in_chunks_is_bounded_too(server):
    at = urlsplit(server.url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=10)
    parts = iter([b'{"prompt": "', *[b"a" * 1000] * 50, b'"}'])
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/generate", parts, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    body = iter([b'{"prompt": "a",', b'"max_new_tokens": 3}'])
    connection.request("POST", "/generate", body, headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["tokens"]) == (200, 3)


def test_a_body_that_does_not_come(server, monkeypatch):
    monkeypatch.setattr(guard, "READ_SECONDS", 0.2)
    at = urlsplit(server.url)
    head = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((at.hostname, at.port), timeout=10) as slow:
        slow.sendall(f'{head}Content-Length: 100\r\n\r\n{{"prompt'.encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection((at.hostname, at.port), timeout=10) as gone:
        gone.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
    assert ask(server.url, "/health")[0] == 200


def test_headers_that_do_not_come(server, monkeypatch):
    monkeypatch.setattr(guard, "READ_SECONDS", 0.3)
    at, whole = urlsplit(server.url), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for data in (b"", whole[:20], whole + b"G"):
        with socket.create_connection((at.hostname, at.port), timeout=4) as slow:
            slow.sendall(data)
            while slow.recv(1000):  # until it is closed
                pass


def test_connections_are_bounded(server, monkeypatch):
    """Beyond the bound, a new one takes the place of that which has been silent for longest."""
    monkeypatch.setattr(connections, "room", lambda: 4)
    at = urlsplit(server.url)
    head = b"POST /generate HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    with ExitStack() as stack:
        silent = []
        for n in range(20):
            client = socket.create_connection((at.hostname, at.port), timeout=4)
            client.sendall(head + b"Host: localhost\r\n\r\n" if n % 2 else b"")  # or no body
            silent.append(stack.enter_context(client))
            time.sleep(0.02)
        assert ask(server.url, "/generate", {"prompt": "a"})[0] == 200
        for client in silent[:16]:
            assert client.recv(1) == b""
        silent[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)


def test_where_all_connections_are_at_work_a_new_one_is_told(monkeypatch):
    monkeypatch.setattr(connections, "room", lambda: 1)
    with gated() as (running, gate):
        thread, out = in_thread(ask, running.url, "/generate", {"prompt": "a"})
        until(lambda: gate.calls == 1)
        status, headers, answer = ask(running.url, "/health")
        assert (status, answer["error"]["code"]) == (503, "busy")
        assert headers["Connection"] == "close"
        gate.open()
        thread.join(10)
        assert out[0][0] == 200
        assert ask(running.url, "/health")[0] == 200


def test_how_many_connections_the_system_allows(monkeypatch):
    resource = pytest.importorskip("resource")
    for files, most in [(128, 64), (20, 8), (10**6, 1000), (resource.RLIM_INFINITY, 1000)]:
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert connections.room() == most


def test_what_is_no_http_leaves_the_log_alone(server, caplog):
    at = urlsplit(server.url)
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for data, status, after in [
        (b"nonsense\r\n\r\n", b"400", b""),
        (head, b"415", b"no length\r\n"),
    ]:
        with socket.create_connection((at.hostname, at.port), timeout=4) as client:
            client.sendall(data)
            assert client.recv(1000).startswith(b"HTTP/1.1 " + status)
            client.sendall(after)
            while client.recv(1000):
                pass
    assert caplog.text == ""


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1.5] * 1000},
        {"prompt": [-1] * 1000},
        {"prompt": [[]] * 1000},
        {"prompt": [None] * 1000},
        {f"name {n}": 1 for n in range(1000)},
        {"stream_options": {f"name {n}": 1 for n in range(1000)}},
    ],
)
def test_a_body_full_of_errors_is_not_read_to_its_end(body):
    """A list of each would take seconds, in which nobody else is answered."""
    with pytest.raises(ValidationError) as caught:
        schema.Completion.model_validate(body)
    assert caught.value.error_count() < 10


def test_a_client_that_leaves_is_forgotten():
    with gated(queue=5) as (running, gate):
        at, connections = urlsplit(running.url), []
        for stream in (False, True, False):  # the first one runs, the others wait
            connection = http.client.HTTPConnection(at.hostname, at.port)
            body = json.dumps({"prompt": "a", "max_new_tokens": 1000, "stream": stream})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/generate", body, headers)
            connections.append(connection)
            until(lambda: running.engine.running + running.engine.waiting == len(connections))
        for connection in connections:
            connection.close()
        until(lambda: running.engine.waiting == 0)
        until(lambda: gate.permits.release() or running.engine.running == 0)
        assert gate.calls < 100
        assert running.engine.served == 0


def test_a_failing_model_is_a_500_and_the_next_request_is_served():
    with gated() as (running, gate):
        gate.open()
        gate.failing = True
        for stream in (False, True):
            body = {"prompt": "a", "stream": stream}
            status, _, answer = ask(running.url, "/generate", body)
            assert (status, answer["error"]["type"]) == (500, "server_error")
            assert "on purpose" not in answer["error"]["message"]
        gate.failing = False
        assert ask(running.url, "/generate", {"prompt": "a"})[0] == 200


def test_a_stuck_model_is_told():
    """To its own client, to those who wait, to those who come, and by /health; until it goes on."""
    with gated(timeout=0.4) as (running, gate):
        body = {"prompt": "a", "max_new_tokens": 5}
        clients = [
            in_thread(ask, running.url, "/generate", body | {"stream": s}) for s in (False, True)
        ]
        for thread, out in clients:
            thread.join(5)
            assert out, "it waits for ever"
            assert (out[0][0], out[0][2]["error"]["code"]) == (503, "model_failed")
        status, headers, answer = ask(running.url, "/generate", body)
        assert (status, answer["error"]["code"]) == (503, "model_failed")
        assert headers["Retry-After"]
        status, _, health = ask(running.url, "/health")
        assert (status, health["status"]) == (503, "failed")
        assert health["message"] == "the model has made no token for 0.4 seconds: it may be stuck"
        gate.open()
        until(lambda: running.engine.running == 0)
        status, _, health = ask(running.url, "/health")
        assert (status, health["status"], health["message"]) == (200, "ok", None)
        assert ask(running.url, "/generate", body)[0] == 200


def test_a_failure_in_the_middle_of_a_stream_is_told():
    with gated() as (running, gate):
        body = {"model": "llmkit", "prompt": "a", "max_tokens": 9, "stream": True}
        thread, out = in_thread(ask, running.url, "/v1/completions", body)
        gate.permits.release(2)
        until(lambda: gate.calls == 3)
        gate.failing = True
        gate.open()
        thread.join(10)
        *_, last = events(out[0][2])
        assert json.loads(last)["error"]["type"] == "server_error"


def test_the_time_limit():
    with gated(timeout=0.3, batch=1) as (running, gate):
        first = in_thread(ask, running.url, "/generate", {"prompt": "a", "seed": 1})
        until(lambda: gate.calls == 1)
        second = in_thread(ask, running.url, "/generate", {"prompt": "a"})
        gate.permits.release(1)
        time.sleep(0.4)
        gate.open()
        for thread, _ in (first, second):
            thread.join(10)
        status, _, answer = first[1][0]
        assert (status, answer["finish_reason"], answer["tokens"]) == (200, "length", 2)
        status, headers, answer = second[1][0]
        assert (status, answer["error"]["code"]) == (503, "timeout")
        assert headers["Retry-After"] == "1"


# The page and the description


def test_the_page_needs_nothing_else(server):
    status, headers, content = ask(server.url, "/")
    page, policy = content.decode(), headers["Content-Security-Policy"]
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in page
    assert "https://" not in page
    assert "style=" not in page
    assert "onclick" not in page


def test_the_description_names_every_answer(server):
    described = ask(server.url, "/openapi.json")[2]
    operation = described["paths"]["/v1/completions"]["post"]["responses"]
    statuses = (200, 400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    assert set(operation) == {*map(str, statuses), "4XX"}
    assert set(operation["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "HTTPValidationError" not in json.dumps(described)
    fields = described["components"]["schemas"]["Completion"]["properties"]
    for name, most in {"max_tokens": 200, "top_k": 32}.items():
        field = fields[name]
        assert field.get("anyOf", [field])[0]["maximum"] == most


def test_small_answers_are_sent_at_once(server):
    """On a connection that is kept, Nagle's algorithm would hold each of them for 40 ms."""
    at, times = urlsplit(server.url), []
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=10)
    for _ in range(20):
        started = time.monotonic()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/generate", '{"prompt": "a", "max_new_tokens": 1}', headers)
        connection.getresponse().read()
        times.append(time.monotonic() - started)
    connection.close()
    assert sorted(times)[10] < 0.03


def test_health_is_quick_while_the_model_works(server):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            ask(server.url, "/generate", {"prompt": "a", "max_new_tokens": 200, "stream": True})

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    times = []
    for _ in range(20):
        started = time.monotonic()
        assert ask(server.url, "/health")[0] == 200
        times.append(time.monotonic() - started)
    stop.set()
    for thread in threads:
        thread.join()
    assert sorted(times)[10] < 0.1


# The end


def test_shutting_down_finishes_a_running_stream():
    gate = Gate()
    with serve.background(gate, CHAR) as running:
        body = {"prompt": "a", "max_new_tokens": 5, "seed": 1, "stream": True}
        threads = [in_thread(ask, running.url, "/generate", body)]
        until(lambda: gate.calls == 1)
        threads.append(in_thread(ask, running.url, "/generate", body))
        until(lambda: running.engine.waiting == 1)
        later = threading.Timer(0.5, gate.open)
        later.start()
    for thread, out in threads:  # the running one and the waiting one
        thread.join(10)
        text = "".join(json.loads(event)["text"] for event in events(out[0][2]))
        assert text == expected_of_gate(gate, "a", 5, 1)
    with pytest.raises(OSError, match="refused"):
        ask(running.url, "/health")


def test_while_it_stops_new_requests_are_told():
    with serve.background(MODEL, CHAR) as running:
        running.engine.refuse_new(5)
        status, headers, answer = ask(running.url, "/generate", {"prompt": "a"})
        assert (status, answer["error"]["code"]) == (503, "shutting_down")
        assert headers["Retry-After"]
        status, _, health = ask(running.url, "/health")
        assert (status, health["status"]) == (503, "stopping")


def test_a_failing_notebook_cell_leaves_no_server():
    with pytest.raises(ZeroDivisionError), serve.background(MODEL, CHAR) as running:
        raise ZeroDivisionError
    with pytest.raises(OSError, match="refused"):
        ask(running.url, "/health")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"queue": 0}, "queue must be at least 1"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"grace": -1}, "grace must be at least 0"),
        ({"name": "a/b"}, "a model's name"),
        ({"api_key": ""}, "an API key"),
        ({"api_key": "ключ"}, "an API key"),
    ],
)
def test_settings_are_checked(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        serve.Settings(**wrong)


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "poem"
    run.mkdir()
    checkpoint.save(run / "checkpoint", gpt(block_size=64), CHAR)
    return run


def test_the_command_serves_and_finishes_a_stream_when_told_to_stop(folder):
    with command(str(folder), LLMKIT_API_KEY="abc") as (process, line):
        assert line.startswith("serving poem on http://127.0.0.1:")
        url = line.split()[3]
        client = openai.OpenAI(base_url=url + "/v1", api_key="abc", max_retries=0)
        stream = complete(client, model="poem", max_tokens=1000, seed=1, stream=True)
        text = next(stream).choices[0].text
        process.send_signal(signal.SIGTERM)
        text += "".join(chunk.choices[0].text for chunk in stream)
        assert text == expected(gpt(block_size=64), CHAR, "the fox", 1000, 1)
        client.close()
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_second_ctrl_c_ends_at_once(folder):
    with command(str(folder), "--max-tokens", "1000000") as (process, line):
        body = {"prompt": "a", "max_new_tokens": 1000000}
        thread, _ = in_thread(ask_and_lose, line.split()[3], body)
        while ask(line.split()[3], "/health")[2]["running"] == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for the request
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130
        assert process.stderr.read() == ""
        thread.join(10)


def ask_and_lose(url, body):
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(url, "/generate", body)


def test_what_folders_it_takes(tmp_path, folder):
    from llmkit.commands.serve import load

    for place in (folder, folder / "checkpoint"):
        name, model, tokens = load(place, "cpu")
        assert (name, tokens.characters) == ("poem", CHARACTERS)
        assert not model.training
    shape = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = llmkit.GPT(llmkit.GPTConfig(BPE.vocab_size, **shape))
    pretrained.save_gpt2(model, tmp_path / "my gpt2", BPE)
    name, loaded, tokens = load(tmp_path / "my gpt2", "cpu")
    assert name == "my-gpt2"
    assert tokens.tokens == BPE.tokens
    assert torch.equal(loaded.wte.weight, model.wte.weight)


def test_what_it_cannot_serve_gets_one_sentence(tmp_path, folder, capsys):
    checkpoint.save(tmp_path / "mute", MODEL)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        for arguments, sentence in [
            ([str(tmp_path / "none")], "there is no checkpoint in"),
            ([str(tmp_path)], "config.json is missing"),
            ([str(tmp_path / "mute")], "has no tokenizer"),
            ([str(folder), "--port", taken], f"cannot listen on port {taken} of 127.0.0.1: it is"),
            ([str(folder), "--port", "99999"], "port"),
            ([str(folder), "--host", "no.such.invalid"], "cannot listen on no.such.invalid"),
            ([str(folder), "--queue", "0"], "queue must be at least 1"),
        ]:
            assert main(["serve", "--device", "cpu", *arguments]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert sentence in error
            assert error.count("\n") == 1


@pytest.mark.parametrize("key", [None, "abc"])
def test_open_to_the_world_without_a_key_is_warned_of(folder, monkeypatch, capsys, key):
    apps = []
    monkeypatch.setattr(serve, "run", lambda app, *where: apps.append((app, where)))
    monkeypatch.delenv("LLMKIT_API_KEY", raising=False)
    arguments = [] if key is None else ["--api-key", key]
    assert main(["serve", str(folder), "--host", "0.0.0.0", *arguments]) == 0
    assert ("warning: on 0.0.0.0" in capsys.readouterr().err) is (key is None)
    [(app, (host, port, _))] = apps
    assert (host, port) == ("0.0.0.0", 8000)
    assert app.state.settings.hosts is None
    app.state.engine.close()


@pytest.mark.parametrize(("width", "alone"), [(128, True), (384, False)])
def test_a_small_model_leaves_a_core_to_the_clients(tmp_path, monkeypatch, width, alone):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(serve, "run", lambda app, *where: app.state.engine.close())
    checkpoint.save(tmp_path / "model", gpt(n_embd=width), CHAR)
    assert main(["serve", str(tmp_path / "model"), "--batch", "3"]) == 0
    assert counts == [1] * alone


def test_what_is_said_in_one_go_is_told_by_one_wake_up():
    class Loop:
        def __init__(self):
            self.calls, self.closed = [], False

        def call_soon_threadsafe(self, call):
            if self.closed:
                raise RuntimeError("Event loop is closed")
            self.calls.append(call)

    loop, mail, heard = Loop(), Mail(), []
    for n in range(16):
        mail.post(loop, heard.append, n)
    assert len(loop.calls) == 1
    assert heard == []
    loop.calls.pop()()
    assert heard == list(range(16))
    mail.post(loop, lambda n: mail.post(loop, heard.append, n), 16)  # while it is emptied
    while loop.calls:
        loop.calls.pop()()
    assert heard == list(range(17))
    loop.closed = True
    mail.post(loop, heard.append, 17)  # nobody is there any more


def test_without_the_extra_it_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("llmkit.deploy.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(llmkit.deploy, "server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "x"]) == 2
    error = capsys.readouterr().err
    assert error == "error: serving needs uvicorn: pip install 'llmkit[serve]'\n"


def test_asyncios_words_on_a_client_that_left_are_not_logged(server, caplog):
    """A line for each piece of an answer that nobody takes any more, under load."""
    log = logging.getLogger("asyncio")
    for _ in range(5):
        log.warning("socket.send() raised exception.")
    log.warning("another thing")
    assert caplog.messages == ["another thing"]
