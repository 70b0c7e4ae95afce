"""`/v1/chat/completions` as the `openai` client, unmodified, uses it; and an open model served by
the command."""

import json

import openai
import pytest
import torch
from serving import POEM, ask, command, events, gpt, tokenizer

import llmkit
from llmkit import modern
from llmkit.__main__ import main
from llmkit.deploy import server as serve
from llmkit.finetune import chatml

SPECIAL = ["<|endoftext|>", chatml.START, chatml.END]
BPE = llmkit.BPETokenizer.train(POEM + "\nuser\nassistant\nsystem\n", 300, SPECIAL)
MODEL = gpt(BPE.vocab_size, block_size=128)
SYSTEM = "Be brief."
ASK = {"role": "user", "content": "the fox?"}
TALK = [ASK, {"role": "assistant", "content": "jumps"}, {"role": "user", "content": "And the dog?"}]


@pytest.fixture(scope="module")
def server():
    limits = {"max_prompt": 100, "max_tokens": 90, "max_choices": 4, "system": SYSTEM}
    with serve.background(MODEL, BPE, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def say(client, messages=(ASK,), **options):
    return client.chat.completions.create(
        **{"model": "llmkit", "messages": list(messages)} | options
    )


def expected(messages, new, seed, system=SYSTEM, model=MODEL, **choices):
    """What `llmkit.generate` answers, and why it ended."""
    ids, _ = chatml.encode(messages, BPE, system)
    drawn = llmkit.generate(model, ids, new, seed=seed, **choices)[len(ids) :].tolist()
    ends = [n for n, i in enumerate(drawn) if i in [BPE.special_tokens[s] for s in SPECIAL[::2]]]
    reason = "stop" if ends else "length"
    return len(ids), BPE.decode(drawn[: ends[0]] if ends else drawn), reason


@pytest.mark.parametrize("messages", [[ASK], TALK, [{"role": "system", "content": "Hi."}, *TALK]])
def test_an_answer(client, messages):
    for seed in (3, 4):
        done = say(client, messages, seed=seed, max_tokens=40, temperature=0.8, top_p=0.9)
        size, text, reason = expected(messages, 40, seed, temperature=0.8, top_p=0.9)
        [choice] = done.choices
        assert (choice.message.role, choice.message.content) == ("assistant", text)
        assert (choice.index, choice.finish_reason, choice.message.refusal) == (0, reason, None)
        used = done.usage
        assert used.prompt_tokens == size
        assert used.total_tokens == size + used.completion_tokens
        assert used.completion_tokens == 40 or reason == "stop"
        assert (done.object, done.model) == ("chat.completion", "llmkit")
        assert done.id.startswith("chatcmpl-")


def ending(seeds=range(400)):
    """A seed whose answer the model ends by itself."""
    return next(s for s in seeds if expected([ASK], 60, s)[2] == "stop")


def test_an_answer_ends_with_the_assistants_turn(client):
    seed = ending()
    [choice] = say(client, seed=seed, max_completion_tokens=60).choices
    assert (choice.message.content, choice.finish_reason) == expected([ASK], 60, seed)[1:]
    assert chatml.END not in choice.message.content


@pytest.mark.parametrize("seed", [3, None])
def test_a_stream_is_the_answer_in_pieces(client, seed):
    seed = ending() if seed is None else seed
    whole = say(client, seed=seed, max_tokens=60)
    usage = {"include_usage": True}
    *chunks, last = say(client, seed=seed, max_tokens=60, stream=True, stream_options=usage)
    assert [chunk.object for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [delta.role for delta in deltas[1:]] == [None] * (len(deltas) - 1)
    text = "".join(delta.content or "" for delta in deltas)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason]
    assert deltas[-1].content is None
    assert len(deltas) > 3
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert all(chunk.usage is None for chunk in say(client, max_tokens=4, stream=True))


def test_a_stream_as_it_is_sent(server):
    body = {"messages": [ASK], "max_tokens": 5, "seed": 3, "stream": True}
    status, headers, content = ask(server.url, "/v1/chat/completions", body)
    assert (status, headers.get_content_type()) == (200, "text/event-stream")
    *pieces, done = events(content)
    assert done == "[DONE]"
    assert {"id", "object", "created", "model", "choices"} <= json.loads(pieces[0]).keys()


def test_the_helper_for_streams_of_the_client(client):
    with client.chat.completions.stream(model="llmkit", messages=[ASK], seed=3) as stream:
        told = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(told) == final.choices[0].message.content == expected([ASK], 90, 3)[1]


def test_stop_strings(client):
    _, text, _ = expected([ASK], 60, 3)
    for stop in (text[9:12], [text[9:12], "zqz"]):
        [choice] = say(client, seed=3, max_tokens=60, stop=stop).choices
        assert choice.message.content == text[: text.index(text[9:12])]
        assert choice.finish_reason == "stop"


def test_several_answers(client):
    done = say(client, n=3, seed=50, max_tokens=12)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    for choice in done.choices:
        assert choice.message.content == expected([ASK], 12, 50 + choice.index)[1]
    texts = [""] * 3
    for chunk in say(client, n=3, seed=50, max_tokens=12, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in done.choices]


def test_what_changes_nothing_is_taken(client):
    plain = say(client, seed=3, max_tokens=9).choices
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "fox?"}]
    neutral = {"frequency_penalty": 0, "logit_bias": {}, "logprobs": False, "tools": []}
    neutral |= {"response_format": {"type": "text"}, "store": False, "user": "me", "n": 1}
    turn = {"role": "user", "content": parts, "name": "Ada"}
    assert say(client, [turn], seed=3, max_tokens=9, **neutral).choices == plain
    answered = [*TALK, say(client, TALK, seed=1, max_tokens=4).choices[0].message.model_dump()]
    again = say(client, [*answered, ASK], seed=1, max_tokens=4)  # as clients send an answer back
    assert again.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("options", "param", "sentence"),
    [
        ({"messages": []}, "messages", "messages has no turn of the user's"),
        ({"messages": [TALK[1]]}, "messages", "messages has no turn of the user's"),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "messages",
            "messages[0] has the role 'tool': there are system, user",
        ),
        ({"messages": "hello"}, "messages", "must be a list of turns"),
        ({"messages": [{"role": "user"}]}, "messages", "messages.0.content is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "must be a list of turns"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages",
            "parts of type text",
        ),
        ({"messages": [ASK | {"content": "a b " * 100}]}, "messages", "tokens: 100 at most"),
        ({"max_tokens": 91}, "max_tokens", "less than or equal to 90, not 91"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "give one of them"),
        ({"n": 5}, "n", "5: 4 at most"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"stop": ["a"] * 5}, "stop", "a list of up to 4"),
        ({"logprobs": True}, "logprobs", "no argument 'logprobs': leave it out"),
        ({"tools": [{"type": "function"}]}, "tools", "no argument 'tools': leave it out"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream to true"),
        ({"extra_body": {"mesages": []}}, "mesages", "did you mean messages?"),
    ],
)
def test_bad_requests(client, options, param, sentence):
    with pytest.raises(openai.BadRequestError) as caught:
        say(client, **options)
    error = caught.value
    assert error.param == param
    assert sentence in error.body["message"]
    assert "\n" not in error.body["message"]
    assert error.type == "invalid_request_error"


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'"):
        say(client, model="gpt-5")


def test_a_conversation_is_never_cut():
    """The model's window is the limit, and no answer goes beyond it: what was said first would be
    forgotten."""
    ids, _ = chatml.encode([ASK], BPE)
    small = gpt(BPE.vocab_size, block_size=len(ids) + 7)
    with serve.background(small, BPE) as running:
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="x", max_retries=0)
        done = say(client, temperature=0)
        assert done.usage.completion_tokens == 7
        want = expected([ASK], 7, 0, system=None, model=small, temperature=0)
        assert done.choices[0].message.content == want[1]
        with pytest.raises(openai.BadRequestError, match="at most") as caught:
            say(client, TALK)
        assert caught.value.code == "context_length_exceeded"
        client.close()


def test_a_model_without_the_markers_says_so():
    with serve.background(gpt(), tokenizer()) as running:
        body = {"messages": [ASK]}
        status, _, answer = ask(running.url, "/v1/chat/completions", body)
    assert status == 400
    assert "knows no conversations" in answer["error"]["message"]
    assert "/v1/completions" in answer["error"]["message"]


# The command


def open_model(folder):
    """A small open model, its tokenizer and a template, as `fetch` leaves the real one."""
    torch.manual_seed(0)
    config = modern.ModernConfig(BPE.vocab_size, 128, n_layer=1, n_head=4, n_embd=16, n_kv_head=2)
    model = modern.Modern(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    modern.save(model, folder, BPE)
    (folder / "chat_template.jinja").write_text(
        "{% if x %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}"
    )
    return model


def test_the_command_serves_an_open_model_and_it_answers(tmp_path):
    model = open_model(tmp_path / "mine")
    with command(str(tmp_path / "mine")) as (_, line):
        assert line.startswith("serving mine on http://127.0.0.1:")
        with openai.OpenAI(base_url=line.split()[3] + "/v1", api_key="x", max_retries=0) as client:
            done = say(client, TALK, model="mine", seed=1, max_tokens=30)
            assert done.choices[0].message.content == expected(TALK, 30, 1, model=model)[1]


def test_the_real_model_is_served_by_its_short_name(tmp_path, monkeypatch, capsys):
    apps = []
    monkeypatch.setattr(serve, "run", lambda app, *where: apps.append(app))
    monkeypatch.setattr(modern.smollm2, "place", lambda: tmp_path / modern.smollm2.NAME)
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "smollm2"]) == 2
    told = capsys.readouterr().err
    assert told == f"error: {modern.smollm2.NAME} is not here yet: run `python -m llmkit fetch`\n"
    open_model(tmp_path / modern.smollm2.NAME)
    for more, system in (([], SYSTEM), (["--system", "Sing."], "Sing.")):
        assert main(["serve", "smollm2", *more]) == 0
        app = apps.pop()
        assert app.state.settings.name == modern.smollm2.NAME
        assert app.state.settings.system == system
        assert type(app.state.engine._batch.model).__name__ == "ModernDecoder"
        app.state.engine.close()
