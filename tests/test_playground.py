"""The playground: its controls moved as a reader would, its text and bars against `generation`."""

from base64 import b64decode
from html import unescape
from types import SimpleNamespace

import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from torch import nn

from llmkit import CharTokenizer, generate, plots, widgets
from llmkit.widgets import SamplingPlayground

PNG = b"\x89PNG\r\n\x1a\n"
TOKENIZER = CharTokenizer("\n <abcdefg")
LOGITS = torch.tensor([0.0, 1.0, -1.0, 3.0, 2.5, 2.0, 1.5, 0.5, -0.5, -2.0])
MOVES = {"temperature": 0.3, "top_k": 2, "top_p": 0.5, "seed": 7, "prompt": "ba"}


class Model(nn.Module):
    """Surer the more tokens it is given, at most 4; avoids repeating the last one; noisy unless in
    eval mode."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(block_size=4, vocab_size=10)
        self.noise = nn.Dropout(0.9)
        self.lm_head = nn.Linear(1, 1)

    def forward(self, ids):  # (B, T) -> (B, T, V)
        assert ids.size(1) <= 4
        assert not torch.is_grad_enabled()
        repeated = nn.functional.one_hot(ids, 10)
        return LOGITS * ids.size(1) + self.noise(torch.ones(10)) - 1 - 5.0 * repeated


@pytest.fixture
def drawn(monkeypatch):
    """The bars asked for, drawn quickly: a list of (labels, values, title)."""
    calls = []

    def bars(labels, values, title, **axes):
        calls.append((labels, values, title))
        return SimpleNamespace(png=lambda: PNG + bytes([len(calls)]))

    monkeypatch.setattr(plots, "bars", bars)
    return calls


def make(prompt="ab", **options):
    return SamplingPlayground(Model(), TOKENIZER, prompt, **{"new_tokens": 30} | options)


def expected(view, **settings):
    ids = TOKENIZER.encode(view.prompt.value)
    ids = generate(view.model, ids, view.new_tokens, **{"seed": 0} | settings)
    return TOKENIZER.decode(ids)


def test_it_is_stored_as_text_that_never_changes_and_a_picture():
    view = make()
    bundle, _ = DisplayFormatter().format(view)
    assert bundle["text/plain"] == "<SamplingPlayground>"
    assert b64decode(bundle["image/png"]).startswith(PNG)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id


def test_the_stored_picture_has_the_text_beneath_its_bars(monkeypatch):
    texts, picture = [], plots.bars("ab", [1, 2], "b is larger", xlabel="x")
    monkeypatch.setattr(picture, "text", lambda x, y, text, **look: texts.append(text))
    monkeypatch.setattr(plots, "bars", lambda *args, **axes: picture)
    view = make("ab\n", new_tokens=200)
    assert view.png().startswith(PNG)
    assert "".join(texts[0].split()) == "".join(view.text.split())
    assert all(len(row) <= 80 for row in texts[0].split("\n"))


def test_the_text_is_what_generate_gives(drawn):
    view = make()
    assert view.text == expected(view)
    assert len(view.text) == 32
    shown = unescape(view.output.value.replace("<b>", "").replace("</b>", ""))
    assert view.text in shown
    assert "<b>ab</b>" in view.output.value


@pytest.mark.parametrize("control", MOVES)
def test_each_control_changes_the_text(control, drawn):
    view = make()
    before = view.text
    getattr(view, control).value = MOVES[control]
    setting = {} if control == "prompt" else {control: MOVES[control]}
    assert view.text == expected(view, **setting) != before
    assert view.message.value == ""
    bars_before, bars = drawn[0], drawn[-1]
    assert view.picture.value == PNG + bytes([len(drawn)])
    if control == "seed":  # other dice, from the same distribution
        assert torch.equal(bars[1], bars_before[1])
    else:
        assert not torch.equal(bars[1], bars_before[1])


def test_the_bars_are_the_distribution_the_first_token_is_drawn_from(drawn):
    view = make("a")
    logits = LOGITS - 5.0 * (torch.arange(10) == TOKENIZER.encode("a").item())
    labels, values, title = drawn[-1]
    order = logits.sort(descending=True, stable=True).indices
    assert sorted(labels) == sorted("\n <abcdefg")  # all ten: there are no twelve
    assert torch.allclose(values, logits.softmax(0)[order])
    assert title == f"10 of 10 tokens may come next; “b” has {logits.softmax(0).max():.0%}"
    view.temperature.value = 0.5
    assert torch.allclose(drawn[-1][1], (logits / 0.5).softmax(0)[order])
    view.top_k.value = 2
    two = torch.tensor([2.5, 2.0]).div(0.5).softmax(0)
    assert drawn[-1][0] == labels  # the bars stay where they were
    assert torch.allclose(drawn[-1][1], torch.cat([two, torch.zeros(8)]))
    assert drawn[-1][2].startswith("2 of 10 tokens may come next")
    view.temperature.value = 0
    assert drawn[-1][1].tolist() == [1.0] + [0.0] * 9


def test_sliders_at_their_ends_cut_nothing():
    assert make().settings() == {"temperature": 1, "top_k": None, "top_p": None}


def test_a_long_prompt_is_read_as_generate_reads_it(drawn):
    view = make("abcabcabc")  # more than the model holds: it is given the last 3, see `fitting`
    assert view.text == expected(view)
    p = (LOGITS * 3 - 5.0 * (torch.arange(10) == TOKENIZER.encode("c").item())).softmax(0)
    assert torch.allclose(drawn[-1][1], p.sort(descending=True).values)


@pytest.mark.parametrize(
    ("prompt", "told"), [("aXb", "'X' (U+0058) at position 1"), ("", "type a character or more")]
)
def test_a_bad_prompt_is_a_sentence_and_loses_nothing(prompt, told, drawn):
    view = make()
    kept = view.text, view.output.value, view.picture.value
    view.prompt.value = prompt
    assert told in unescape(view.message.value)
    assert "<" not in view.message.value
    assert (view.text, view.output.value, view.picture.value) == kept
    view.temperature.value = 0.5  # still bad, still nothing lost
    assert told in unescape(view.message.value)
    assert (view.text, view.output.value, view.picture.value) == kept
    view.prompt.value = "ab"
    assert view.message.value == ""
    assert view.text == expected(view, temperature=0.5)


def test_a_bad_prompt_from_the_start_shows_no_picture():
    view = make("X")
    assert "vocabulary" in view.message.value
    assert (view.text, view.png()) == ("", b"")
    assert "image/png" not in view._repr_mimebundle_()
    view.prompt.value = "a"
    assert view.png().startswith(PNG)


def test_it_ends_at_a_stop_token(drawn):
    stop = TOKENIZER.encode("c").item()
    view = make(new_tokens=500, stop=stop)
    assert view.text == expected(view, stop=stop)
    assert view.text.endswith("c")
    assert "c" not in view.text[:-1]


def test_markup_in_the_text_is_shown_as_characters(drawn):
    view = make("<a<", new_tokens=60)
    assert view.text.count("<") == view.output.value.count("&lt;")


def test_the_text_appears_as_it_grows_but_not_at_every_token(drawn, monkeypatch):
    clock = [0.0]

    def tick():
        clock[0] += 0.05
        return clock[0]

    monkeypatch.setattr(widgets.time, "monotonic", tick)
    view, seen = make(), []
    view.output.observe(lambda change: seen.append(change["new"]), names="value")
    view.seed.value = 5
    assert 3 <= len(seen) <= 10
    assert [len(text) for text in seen] == sorted(len(text) for text in seen)
    assert seen[-1] == view.output.value


def test_the_model_is_left_in_its_own_mode_and_nothing_is_printed(drawn, capsys):
    model = Model().train()
    SamplingPlayground(model, TOKENIZER, "ab", new_tokens=5)
    assert model.training
    assert model.noise.training
    assert capsys.readouterr() == ("", "")


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="scores 10 tokens, the tokenizer has 3"):
        SamplingPlayground(Model(), CharTokenizer("abc"), "ab")
