"""The engine and its streams of text, against `llmkit.generate` and a tokenizer's own `decode`."""

import ctypes
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import POEM, Gate, expected, gpt, tokenizer

import llmkit
from llmkit.deploy.engine import Engine, Request, Unavailable
from llmkit.deploy.text_stream import TextStream
from llmkit.speed.decoding import Slots

BPE = llmkit.BPETokenizer.train(POEM, 300, ["<|endoftext|>"])
CHAR = tokenizer()


def ids_of(text):
    return CHAR.encode(text).tolist()


@pytest.fixture
def engine():
    engines = []

    def make(model=None, tokens=CHAR, **options):
        engines.append(Engine(model or gpt(), tokens, **options))
        return engines[-1]

    yield make
    for each in engines:
        if isinstance(each.model, Gate):
            each.model.open()
        each.close(grace=0)


def whole(pieces):
    """The text of each row, its finish reason and its count, from pieces."""
    rows = {}
    for piece in pieces:
        text, _, _ = rows.get(piece.row, ("", None, 0))
        rows[piece.row] = (text + piece.text, piece.finish_reason, piece.tokens)
    return [rows[row] for row in sorted(rows)]


def until(condition):
    """Wait for a thread to get there."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class Collector(list):
    """A `deliver` that keeps the pieces."""

    def __init__(self, rows=1):
        super().__init__()
        self.left, self.done = rows, threading.Event()

    def __call__(self, piece):
        self.append(piece)
        self.left -= isinstance(piece, Exception) or piece.finish_reason is not None
        if self.left <= 0 or isinstance(piece, Exception):
            self.done.set()


def pieces_of(engine, request):
    """All that a request is answered with."""
    out = Collector(len(request.prompts))
    engine.submit(request, out)
    assert out.done.wait(10)
    if isinstance(out[-1], Exception):
        raise out[-1]
    return out


def streamed(stream, ids):
    """The pieces of a TextStream up to its end."""
    pieces = []
    for i in ids:
        pieces.append(stream.push(i))
        if stream.stopped:
            break
    return [*pieces, stream.end()]


@given(st.lists(st.integers(0, BPE.vocab_size - 1)))
def test_pieces_of_bytes_join_to_what_decode_gives(ids):
    pieces = streamed(TextStream(BPE), ids)
    assert "".join(pieces) == BPE.decode(torch.tensor(ids, dtype=torch.long))


def test_half_a_character_is_held_back():
    stream = TextStream(BPE)
    fox = [BPE._byte_ids[byte] for byte in "🦊".encode()]
    assert [stream.push(i) for i in fox] == ["", "", "", "🦊"]
    assert stream.push(fox[0]) == ""
    assert stream.end() == "\ufffd"


@settings(max_examples=300)
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4))
def test_stop_strings_cut_where_a_search_in_the_text_so_far_cuts(text, stop):
    tokens = llmkit.CharTokenizer("ab")
    pieces = streamed(TextStream(tokens, stop), tokens.encode(text).tolist())
    want = text
    for n in range(len(text) + 1):  # the earliest place at which one is complete
        if found := [at for at in (text[:n].find(s) for s in stop) if at >= 0]:
            want = text[: min(found)]
            break
    assert "".join(pieces) == want
    for n in range(len(pieces)):  # and nothing was shown that had to be taken back
        assert want.startswith("".join(pieces[:n]))


def test_only_what_may_become_a_stop_string_is_held_back():
    stream = TextStream(CHAR, ["abc", "xx"])
    assert [stream.push(i) for i in ids_of("zabdaabx")] == [
        "z",
        "",
        "",
        "abd",
        "",
        "a",
        "",
        "ab",
    ]
    assert stream.end() == "x"


def test_a_stop_string_over_tokens_of_several_characters():
    ids = BPE.encode("the quick brown fox").tolist()
    assert len(ids) < len("the quick brown fox")
    stream = TextStream(BPE, ["k br"])
    assert "".join(streamed(stream, ids)) == "the quic"
    assert stream.stopped


def test_an_answer_is_what_generate_writes(engine):
    model = gpt()
    request = Request([ids_of("the fox")], 40, temperature=0.9, top_k=9, top_p=0.95, seed=5)
    pieces = pieces_of(engine(model), request)
    want = expected(model, CHAR, "the fox", 40, 5, temperature=0.9, top_k=9, top_p=0.95)
    assert whole(pieces) == [(want, "length", 40)]
    assert len(pieces) == 41  # one a token, and one that says why it ended


@pytest.mark.parametrize("position", ["rotary", "sinusoidal"])
def test_bytes_and_other_positions(engine, position):
    model = gpt(BPE.vocab_size, position=position)
    request = Request([BPE.encode("Grüße, 🦊").tolist()], 60, seed=3)
    [(text, _, _)] = whole(pieces_of(engine(model, BPE), request))
    assert text == expected(model, BPE, "Grüße, 🦊", 60, 3).partition("<|endoftext|>")[0]
    assert "\ufffd" in text  # a new model writes broken characters too


def test_rows_are_what_they_would_be_alone(engine):
    model = gpt()
    prompts = [ids_of(text) for text in ("abc", "abd", "a longer one", "abc")]
    rows = whole(pieces_of(engine(model), Request(prompts, 30, seed=7)))
    for b, (text, reason, tokens) in enumerate(rows):
        assert (reason, tokens) == ("length", 30)
        assert text == expected(model, CHAR, CHAR.decode(prompts[b]), 30, 7 + b)


def test_rows_are_drawn_together_and_end_apart(engine, monkeypatch):
    seen, plain = [], Slots.step
    monkeypatch.setattr(
        Slots, "step", lambda self, newest: seen.append(len(newest)) or plain(self, newest)
    )
    model = gpt(block_size=64)
    stop = ["e"]
    prompts = ["abc", "abcd", "c", "ab"]
    request = Request([ids_of(text) for text in prompts], 30, stop=stop, seed=0)
    rows = whole(pieces_of(engine(model), request))
    texts = [expected(model, CHAR, text, 30, b) for b, text in enumerate(prompts)]
    assert [row[0] for row in rows] == [text.partition("e")[0] for text in texts]
    for (text, reason, tokens), full in zip(rows, texts, strict=True):
        assert reason == ("stop" if "e" in full else "length")
        assert tokens == (len(text) + 1 if "e" in full else 30)
    ends = [row[2] for row in rows]
    assert len(set(ends)) > 1
    assert seen == [sum(end > t for end in ends) for t in range(1, max(ends))]


def test_a_request_joins_while_another_is_drawn(engine):
    """At any token, each with its own seed, temperature, stop string and length."""
    model = gpt(block_size=64)
    ways = [
        {},
        {"temperature": 0},
        {"temperature": 0.8, "top_k": 9},
        {"top_p": 0.9},
        {"stop": ["e", "qu"]},
    ]
    it, outs = engine(model), []
    for n in range(60):
        way = {"temperature": 1.0} | ways[n % 5]
        out = Collector()
        it.submit(Request([ids_of("fox"[n % 3 :])], 20 + n % 37, seed=n, **way), out)
        outs.append((n, way, out))
        if n % 4 == 0 or n > 30:  # some come together, others a while later
            time.sleep(0.002)
        until(lambda: it.waiting < 32)
    for n, way, out in outs:
        assert out.done.wait(10)
        [(text, reason, tokens)] = whole(out)
        stop = way.pop("stop", [])
        full = expected(model, CHAR, "fox"[n % 3 :], 20 + n % 37, n, **way)
        at = min((full.find(s) for s in stop if s in full), default=len(full))
        assert (text, reason) == (full[:at], "stop" if at < len(full) else "length")
        assert tokens >= len(text)
    assert it.served == 60
    until(lambda: it.running == 0)


def test_nobody_waits_for_a_long_answer_to_end(engine):
    gate = Gate()  # of a stranger's model, too, each in turn gets a token
    it = engine(gate)
    it.submit(Request([ids_of("a")], 1000), long := Collector())
    until(lambda: gate.calls == 1)
    it.submit(Request([ids_of("b")], 2, seed=4), short := Collector())
    gate.permits.release(5)
    assert short.done.wait(10)
    assert not long.done.is_set()
    assert whole(short) == [(expected_of(gate, "b", 2, 4), "length", 2)]
    assert gate.calls <= 6


def expected_of(gate, text, new, seed):
    other = Gate()
    other.open()
    return expected(other, CHAR, text, new, seed)


def test_rows_beyond_the_batch_wait_and_a_batch_of_one_is_one_after_the_other(engine):
    gate = Gate()
    it = engine(gate, batch=1)
    outs = [Collector(2), Collector()]
    first = it.submit(Request([ids_of("a")] * 2, 3, seed=1), outs[0])
    until(lambda: gate.calls == 1)
    second = it.submit(Request([ids_of("b")], 3, seed=1), outs[1])
    gate.permits.release(5)
    until(lambda: gate.calls == 6)
    assert (it.running, it.waiting, second.started) == (1, 1, None)
    assert [piece.row for piece in outs[0]] == [0, 0, 0, 0, 1, 1]
    gate.open()
    assert all(out.done.wait(10) for out in outs)
    assert first.started < first.first_token < second.started
    assert whole(outs[0])[1][0] == expected_of(gate, "a", 3, 2)


def test_a_client_that_leaves_leaves_the_batch(engine):
    model = gpt(block_size=64)
    it, stays, goes = engine(model), Collector(), Collector(3)
    it.submit(Request([ids_of("fox")], 400, seed=1), stays)
    job = it.submit(Request([ids_of("a")] * 3, 10**6, seed=5), goes)
    until(lambda: len(goes) > 20)
    it.cancel(job)
    assert goes.done.wait(10)
    assert [piece.finish_reason for piece in goes if piece.finish_reason] == ["length"] * 3
    assert stays.done.wait(20)
    assert whole(stays) == [(expected(model, CHAR, "fox", 400, 1), "length", 400)]
    assert (it.served, it.running) == (1, 0)


def test_a_failing_step_fails_those_in_it_and_not_the_worker(engine, monkeypatch):
    plain = Slots.step

    def failing(self, newest):
        if len(newest) == 2:
            raise SystemExit("on purpose")
        return plain(self, newest)

    model = gpt(block_size=64)
    it, outs = engine(model), [Collector(), Collector()]
    monkeypatch.setattr(Slots, "step", failing)
    for out in outs:
        it.submit(Request([ids_of("a")], 2000), out)
    for out in outs:
        assert out.done.wait(10)
        assert isinstance(out[-1], RuntimeError)
        assert "on purpose" in str(out[-1])
    assert (it.running, it.waiting, it.served) == (0, 0, 0)
    [(text, _, _)] = whole(pieces_of(it, Request([ids_of("a")], 30, seed=1)))
    assert text == expected(model, CHAR, "a", 30, 1)


def test_the_end_of_text_token_ends_a_text_and_is_not_shown(engine):
    model = gpt(BPE.vocab_size)
    end = BPE.special_tokens["<|endoftext|>"]
    with torch.no_grad():
        model.wte.weight[end] = model.wte.weight[BPE.encode("e")[0]]  # as likely as an e
    model.lm_head.weight = model.wte.weight
    prompt = BPE.encode("the").tolist()
    for seed in range(40):
        drawn = llmkit.generate(model, torch.tensor(prompt), 60, seed=seed)[len(prompt) :]
        if end in drawn.tolist():
            break
    n = drawn.tolist().index(end)
    [row] = whole(pieces_of(engine(model, BPE), Request([prompt], 60, seed=seed)))
    assert row == (BPE.decode(drawn[:n]), "stop", n + 1)


def test_a_drawn_seed_is_told_and_repeats_the_text(engine):
    model = gpt()
    it = engine(model)
    out = Collector()
    job = it.submit(Request([ids_of("abc")], 20), out)
    assert out.done.wait(10)
    assert whole(out)[0][0] == expected(model, CHAR, "abc", 20, job.seed)
    assert it.submit(Request([ids_of("abc")], 0), Collector()).seed != job.seed


def test_the_queue_is_bounded_and_first_come_is_first_served(engine):
    gate = Gate()
    it = engine(gate, queue=2)
    outs = [Collector() for _ in range(3)]
    jobs = [it.submit(Request([ids_of("a")], 2), outs[0])]
    until(lambda: gate.calls == 1)  # it runs: the queue is empty
    jobs += [it.submit(Request([ids_of("a")], 2), out) for out in outs[1:]]
    assert it.waiting == 2
    with pytest.raises(Unavailable, match="2 requests wait already"):
        it.submit(Request([ids_of("a")], 2), Collector())
    gate.open()
    assert all(out.done.wait(10) for out in outs)
    assert jobs[0].started < jobs[1].started < jobs[2].started
    assert it.served == 3


def test_a_cancelled_request_leaves_the_queue_or_ends_at_its_next_token(engine):
    gate = Gate()
    it = engine(gate, queue=1)
    running, waiting = Collector(), Collector()
    first = it.submit(Request([ids_of("a")], 1000), running)
    until(lambda: gate.calls == 1)
    second = it.submit(Request([ids_of("b")], 1000), waiting)
    it.cancel(second)
    assert it.waiting == 0
    it.submit(Request([ids_of("c")], 1), third := Collector())  # there is room again
    it.cancel(first)
    gate.permits.release(2)  # one token of the first, one of the third
    assert third.done.wait(10)
    assert gate.calls == 2
    assert waiting == []
    assert it.served == 1


def test_the_time_limit_keeps_what_was_drawn(engine):
    gate = Gate()
    it = engine(gate, timeout=0.2, batch=1)
    first, second = Collector(), Collector()
    it.submit(Request([ids_of("a")], 1000, seed=1), first)
    it.submit(Request([ids_of("a")], 1000, seed=1), second)
    gate.permits.release(3)
    until(lambda: gate.calls == 4)
    time.sleep(0.25)
    gate.open()
    assert first.done.wait(10)
    assert second.done.wait(10)
    [(text, reason, tokens)] = whole(first)
    assert (reason, tokens) == ("length", 4)
    assert text == expected(gate, CHAR, "a", 4, 1)
    assert second[0].code == "timeout"  # its turn never came


def test_closing_finishes_what_is_there_and_takes_nothing_new(engine):
    gate = Gate()
    it = engine(gate)
    outs = [Collector(), Collector()]
    for out in outs:
        it.submit(Request([ids_of("a")], 3, seed=2), out)
    it.refuse_new(grace=10)
    with pytest.raises(Unavailable, match="shutting down"):
        it.submit(Request([ids_of("a")], 3), Collector())
    gate.open()
    it.close()
    assert [whole(out) for out in outs] == [[(expected(gate, CHAR, "a", 3, 2), "length", 3)]] * 2


def test_after_the_grace_all_ends(engine):
    gate = Gate()
    it = engine(gate)
    running, waiting = Collector(), Collector()
    it.submit(Request([ids_of("a")], 10**6), running)
    until(lambda: gate.calls == 1)
    it.submit(Request([ids_of("a")], 10**6), waiting)
    it.refuse_new(grace=0)
    gate.open()
    it.close(grace=0)
    assert running[-1].finish_reason == "length"
    assert waiting[0].code == "timeout"


def test_one_requests_failure_is_its_own(engine):
    gate = Gate()
    gate.open()
    it = engine(gate)
    gate.failing = True
    with pytest.raises(RuntimeError, match="on purpose"):
        pieces_of(it, Request([ids_of("a")], 3))
    gate.failing = False

    def deaf(piece):
        raise ValueError("nobody hears")

    it.submit(Request([ids_of("a")], 3), deaf)
    assert whole(pieces_of(it, Request([ids_of("a")], 3)))[0][2] == 3


def test_an_exit_in_the_model_ends_its_request_alone(engine):
    model = gpt()

    def leave(*_):
        raise SystemExit

    hook = model.register_forward_hook(leave)
    it = engine(model)
    with pytest.raises(RuntimeError, match="SystemExit"):
        pieces_of(it, Request([ids_of("a")], 3))
    hook.remove()
    assert whole(pieces_of(it, Request([ids_of("a")], 3)))[0][2] == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_has_ended_takes_nothing_more(engine):
    it = engine()
    worker = it._worker
    exit_there = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert it.failed is None
    assert exit_there(ctypes.c_ulong(worker.ident), ctypes.py_object(SystemExit)) == 1
    it.submit(Request([ids_of("a")], 3), Collector())  # which wakes it
    worker.join(10)
    assert it.failed == "the model's thread has ended: the server must be started again"
    with pytest.raises(Unavailable, match="thread has ended") as caught:
        it.submit(Request([ids_of("a")], 3), Collector())
    assert caught.value.code == "model_failed"


def test_a_model_that_is_stuck_takes_nothing_more_until_it_gets_on(engine):
    gate = Gate()
    it = engine(gate, timeout=0.2)
    it.submit(Request([ids_of("a")], 9), out := Collector())
    until(lambda: it.failed is not None)
    with pytest.raises(Unavailable, match=r"no token for 0\.2 seconds"):
        it.submit(Request([ids_of("a")], 3), Collector())
    began = time.monotonic()
    it.close(grace=-4.8)  # the last token has 5 seconds more
    assert time.monotonic() - began < 2
    gate.open()
    assert out.done.wait(10)
    until(lambda: it.running == 0)
    assert it.failed is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompts": []}, "a prompt or more"),
        ({"prompts": [[]]}, "1 or more ids"),
        ({"prompts": [[1, 99]]}, "id 99 .* is outside the vocabulary"),
        ({"prompts": [[-1]]}, "id -1"),
        ({"top_k": 33}, "top_k must be from 1 to 32, not 33"),
        ({"stop": [""]}, "a stop string must have a character"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_run_gets_a_sentence(engine, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        pieces_of(engine(), Request(**{"prompts": [[1]]} | change))


def test_tiny_temperatures_are_greedy(engine):
    model = gpt()
    it = engine(model)
    requests = [Request([ids_of("a")], 9, temperature=t) for t in (0, 5e-324, 1e-9)]
    texts = [whole(pieces_of(it, request)) for request in requests]
    assert texts[0] == texts[1] == texts[2]


def test_a_tokenizer_of_another_size_is_refused():
    with pytest.raises(ValueError, match="the model scores 5 tokens, the tokenizer has 32"):
        Engine(gpt(5), CHAR)
