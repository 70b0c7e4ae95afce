"""widgets: driven as a cell would drive them, stored as a notebook stores them."""

import subprocess
import sys
from base64 import b64decode
from types import SimpleNamespace

import ipywidgets
import nbformat
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from torch import nn

from llmkit import (
    BPETokenizer,
    CharTokenizer,
    NeuralBigram,
    Sampler,
    TrainConfig,
    plots,
    train,
    widgets,
)
from llmkit.bpe.widgets import MergeExplorer
from llmkit.finetune.widgets import Rater

PNG = b"\x89PNG\r\n\x1a\n"
TOKENIZER = CharTokenizer("\n <abcdefghijklmnopqrstuvwxyz")
VIEWS = {
    "tokens": lambda: widgets.TokenExplorer(TOKENIZER, "to be"),
    "merges": lambda: MergeExplorer(BPETokenizer.train("to be or not to be", 260), "to be"),
    "next": lambda: widgets.NextTokenExplorer(NeuralBigram(29), TOKENIZER, "to be"),
    "attention": lambda: widgets.AttentionExplorer(torch.eye(3).expand(2, 2, 3, 3), "abc"),
    "rater": lambda: Rater([("a?", "b")]),
}


@pytest.fixture
def drawn(monkeypatch):
    """What the views ask `plots` to draw: a list of (function, arguments)."""
    calls = []
    for name in ("bars", "attention_maps", "loss_curves", "token_boxes"):

        def record(*args, name=name, **kwargs):
            calls.append((name, args, kwargs))
            return SimpleNamespace(png=lambda: PNG + bytes([len(calls)]))

        monkeypatch.setattr(plots, name, record)
    return calls


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_is_stored_as_text_that_never_changes_and_a_picture(make):
    view = make()
    bundle, _ = DisplayFormatter().format(view)
    assert bundle["text/plain"] == repr(view) == f"<{type(view).__name__}>"
    assert b64decode(bundle["image/png"]) == view.png()
    assert view.png().startswith(PNG)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id


def test_a_view_shows_its_picture_under_ipywidgets_7_too(monkeypatch):
    def show(self, **_):  # how version 7 displays a widget, before anyone asks for a bundle
        raise AssertionError("the view was shown without its picture")

    monkeypatch.setattr(ipywidgets.VBox, "_ipython_display_", show, raising=False)
    bundle, _ = DisplayFormatter().format(VIEWS["tokens"]())
    assert "image/png" in bundle


def test_a_plain_column_would_tell_what_its_children_show():
    def column():
        return ipywidgets.VBox([ipywidgets.HTML("secret")])

    assert "secret" in repr(column())
    assert "secret" not in repr(widgets.View([], column().children))


def test_tokens_are_shown_with_their_ids():
    view = widgets.TokenExplorer(TOKENIZER, "a <b")
    boxes = view.result.value.split("</div>")[:-1]
    assert [box.split(">", 1)[1] for box in boxes] == [
        f"{shown}<br><small>{i}</small>"
        for shown, i in zip(["a", "␣", "&lt;", "b"], [3, 1, 2, 4], strict=True)
    ]
    assert len({box.split("background:")[1][:7] for box in boxes}) == 4
    assert view.message.value == "4 characters, 4 tokens"
    view.text.value = "z"
    assert ">z<br><small>28<" in view.result.value
    assert view.message.value == "1 characters, 1 tokens"


def test_the_picture_of_tokens_shows_each_with_its_id(drawn):
    assert widgets.TokenExplorer(TOKENIZER, "ab").png().startswith(PNG)
    assert drawn == [("token_boxes", (["a", "b"], [3, 4], "2 characters, 2 tokens"), {})]


def test_an_unknown_character_is_a_message_and_goes_away():
    view = widgets.TokenExplorer(TOKENIZER)
    assert view.png() == b""
    assert "image/png" not in view._repr_mimebundle_()
    view.text.value = "<&>"
    assert "&#x27;&amp;&#x27;" in view.message.value
    assert "position 1" in view.message.value
    assert (view.result.value, view.result.layout.display, view.png()) == ("", "none", b"")
    view.text.value = "ok"
    assert view.message.value == "2 characters, 2 tokens"
    assert view.result.layout.display is None
    view.text.value = "Ok"
    assert view.png() == widgets.TokenExplorer(TOKENIZER, "Ok").png() == b""


def test_a_long_text_is_counted_but_not_drawn_to_its_end():
    view = widgets.TokenExplorer(TOKENIZER, "a" * 2000)
    assert view.result.value.count("</div>") == 500
    assert view.message.value == "2000 characters, 2000 tokens"


def test_tokens_grow_with_the_merges():
    tokenizer = BPETokenizer.train("be be be to", 258)
    assert tokenizer.merges == [(b"b", b"e"), (b" ", b"be")]
    view = MergeExplorer(tokenizer, "be <be")
    assert view.tokens == [("be", 256), (" ", 220), ("<", 27), ("be", 256)]
    view.text.value = "be be"
    assert view.tokens == [("be", 256), (" be", 257)]
    assert view.message.value == "5 characters, 2 tokens after 2 merges"
    view.merges.value = 1
    assert [token for token, _ in view.tokens] == ["be", " ", "be"]
    assert view.message.value == "5 characters, 3 tokens after 1 merges"
    assert ">␣<br><small>220<" in view.result.value
    view.merges.value = 0
    assert "".join(token for token, _ in view.tokens) == "be be"
    assert MergeExplorer(tokenizer, "be", merges=0).merges.value == 0
    assert view.merges in view.children


def test_half_a_character_is_shown_as_a_sign():
    view = widgets.TokenExplorer(BPETokenizer([]), "é")
    assert view.tokens == [("\ufffd", 127), ("\ufffd", 102)]
    assert view.png().startswith(PNG)
    view.text.value = "\ud83d"
    assert "half a surrogate pair" in view.message.value


def test_next_tokens_are_the_likeliest_first(drawn):
    p = torch.arange(29.0).flip(0) / torch.arange(29.0).sum()
    seen = []

    def function(ids):
        seen.append(ids.tolist())
        return p

    view = widgets.NextTokenExplorer(function, TOKENIZER, "th")
    (name, (labels, values, title), _) = drawn[0]
    assert name == "bars"
    assert labels == list("\n <abcdefghijkl")
    assert values.tolist() == p[:15].tolist()
    assert "“th”" in title
    assert "“↵”" in title
    assert view.message.value == f"the 15 likeliest of 29 tokens: {p[:15].sum():.1%} of all"
    view.text.value = "the"
    assert seen == [TOKENIZER.encode("th").tolist(), TOKENIZER.encode("the").tolist()]
    assert view.png() == PNG + b"\x02"


def test_next_tokens_of_nothing_or_of_unknown_characters_are_a_message():
    view = widgets.NextTokenExplorer(NeuralBigram(29), TOKENIZER, "")
    assert "type a character" in view.message.value
    assert "image/png" not in view._repr_mimebundle_()
    view.text.value = "a"
    assert view.png().startswith(PNG)
    view.text.value = "A"
    assert "&#x27;A&#x27;" in view.message.value
    assert view.png() == b""
    assert view.picture.layout.display == "none"


class Model(nn.Module):
    """The next token is the last one plus the number of tokens seen; noisy unless in eval mode."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(block_size=4)
        self.noise = nn.Dropout(0.9)

    def forward(self, ids):  # (1, T) -> (1, T, V)
        assert not torch.is_grad_enabled()
        logits = nn.functional.one_hot((ids + ids.shape[1]) % 29, 29) * 5.0
        return logits + self.noise(torch.ones(29)) - 1


def test_a_model_reads_its_window_in_eval_mode_and_is_left_in_its_own():
    model = Model().train()
    view = widgets.NextTokenExplorer(model, TOKENIZER, "abcdef")
    p = view.probabilities("abcdef")
    expected = (
        5 * nn.functional.one_hot(torch.tensor(TOKENIZER.encode("f").item() + 4), 29)
    ).float()
    assert torch.allclose(p, expected.softmax(0))
    assert model.training
    assert model.noise.training


def test_attention_follows_its_controls(drawn):
    weights = torch.rand(2, 3, 4, 4)
    view = widgets.AttentionExplorer(weights, "abcd")
    view.head.value = 2
    view.layer.value = 1
    shown = [args for _, args, _ in drawn]
    for args, expected in zip(shown, [weights[0, 0], weights[0, 2], weights[1, 2]], strict=True):
        assert torch.equal(args[0], expected)
        assert args[1] == "abcd"
    assert shown[-1][2].startswith("Layer 1, head 2 ")
    assert view.png() == PNG + b"\x03"


def test_attention_layers_may_have_names_and_numbers_of_heads(drawn):
    previous = torch.eye(4).roll(-1, 1)  # each position looks at the one before it, or
    previous[0] = torch.tensor([1.0, 0, 0, 0])  # the first at itself
    previous[1:] = torch.eye(4)[:3]
    layers = {"first": torch.eye(4).expand(3, 4, 4), "last": previous[None].numpy()}
    view = widgets.AttentionExplorer(layers, "abcd")
    assert "head 0 looks 0.0 positions back" in drawn[-1][1][2]
    view.head.value = 2
    view.layer.value = "last"
    assert (view.head.max, view.head.value) == (0, 0)
    assert drawn[-1][1][2] == "Layer last, head 0 looks 0.8 positions back"  # 0 + 1 + 1 + 1 over 4


def test_answers_are_rated_one_after_the_other(drawn):
    view = Rater([("<a>?", "b"), ("c?", "d")], options=("yes", "no"))
    assert "&lt;a&gt;?\nb</pre>" in view.shown.value
    view.buttons[1].click()
    assert view.ratings == ["no"]
    assert "c?\nd</pre>" in view.shown.value
    view.rate("yes")
    assert view.ratings == ["no", "yes"]
    assert "all are rated" in view.shown.value
    view.buttons[0].click()  # nothing is left
    assert view.ratings == ["no", "yes"]
    assert not any(button.disabled for button in view.buttons)  # the focus would be lost
    counts = [(args[1], args[2]) for _, args, _ in drawn]
    assert counts == [
        ([0, 0, 2], "0 of 2 answers are rated"),
        ([0, 1, 1], "1 of 2 answers are rated"),
        ([1, 1, 0], "2 of 2 answers are rated"),
    ]
    assert view.png() == PNG + b"\x03"


def test_a_rater_takes_answers_and_its_own_marks_only():
    with pytest.raises(ValueError, match="nothing to rate"):
        Rater([])
    with pytest.raises(ValueError, match="rate good or fair or bad, not 'great'"):
        Rater([("a?", "b")]).rate("great")


def state(step, *, evaluated=False, sample=None, done=False, samples=()):
    history = SimpleNamespace(samples=list(samples))
    return SimpleNamespace(
        step=step, evaluated=evaluated, sample=sample, done=done, history=history
    )


def test_the_live_plot_draws_news_but_not_too_often_and_the_end_always(drawn, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(widgets.time, "monotonic", lambda: clock[0])
    live = widgets.LivePlot("Learning", by="step")
    drawings = []
    for second, run in [
        (100.0, state(1)),  # nothing to tell
        (100.1, state(2, evaluated=True)),
        (100.4, state(3, evaluated=True)),  # too soon
        (100.7, state(4, sample="hm", samples=[(4, "hm")])),
        (101.5, state(5)),
        (101.6, state(6, evaluated=True)),
        (101.7, state(7, done=True)),  # too soon, but the last
    ]:
        clock[0] = second
        before = len(drawn)
        live(run)
        drawings.append(len(drawn) - before)
    assert drawings == [0, 1, 0, 1, 0, 1, 1]
    assert drawn[-1] == ("loss_curves", (run.history, "Learning"), {"by": "step"})
    assert live.png() == PNG + b"\x04"
    assert capsys.readouterr() == ("", "")


def test_the_live_plot_rests_nine_times_as_long_as_it_draws(drawn, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(widgets.time, "monotonic", lambda: clock[0])
    record = plots.loss_curves

    def slow(*args, **kwargs):
        clock[0] += 2
        return record(*args, **kwargs)

    monkeypatch.setattr(plots, "loss_curves", slow)
    live = widgets.LivePlot()
    for second in range(50):
        clock[0] = max(clock[0], second)
        live(state(second, evaluated=True))
    assert len(drawn) == 3  # at 0, 20 and 40


def test_the_live_plot_shows_the_latest_sample_as_text(drawn):
    live = widgets.LivePlot()
    live(state(1, sample="new", samples=[(0, "old"), (1, "<script>&\n")]))
    assert "&lt;script&gt;&amp;\n</pre>" in live.sample.value
    assert "old" not in live.sample.value


def test_the_live_plot_shows_itself_once_a_run_and_leaves_its_last_picture(drawn, monkeypatch):
    shown = []

    class Handle:
        def update(self, view):
            shown.append(("update", view, view.png()))

    def display(view, display_id):
        assert display_id is True
        shown.append(("display", view, view.png()))
        return Handle()

    monkeypatch.setattr(widgets, "get_ipython", lambda: "a kernel")
    monkeypatch.setattr(widgets, "display", display)
    live = widgets.LivePlot()
    for _ in range(2):
        live.rest_until = 0.0
        live(state(1, evaluated=True))
        live(state(2, done=True))
    pictures = [PNG + bytes([n]) for n in (1, 2, 3, 4)]
    actions = ["display", "update", "display", "update"]
    assert shown == [(a, live, png) for a, png in zip(actions, pictures, strict=True)]


def test_the_live_plot_follows_a_real_run():
    ids = TOKENIZER.encode("to be or not to be that is the question " * 20)
    live = widgets.LivePlot(references={"uniform": 3.37})
    config = TrainConfig(steps=6, batch_size=2, eval_every=3)
    callbacks = [Sampler(TOKENIZER, every=3, prompt="to"), live]
    history = train(NeuralBigram(29), ids[:600], ids[600:], config, callbacks=callbacks)
    assert live.png() == plots.loss_curves(history, live.title, references={"uniform": 3.37}).png()
    assert history.samples[-1][1].split()[0] in live.sample.value


CELLS = [
    """from llmkit import CharTokenizer, NeuralBigram, Sampler, TrainConfig, plots, train, widgets
text = "to be or not to be that is the question " * 20
tokenizer = CharTokenizer.from_text(text)
ids = tokenizer.encode(text)
model = NeuralBigram(tokenizer.vocab_size)
live = widgets.LivePlot()
callbacks = [Sampler(tokenizer, 10, prompt="to"), live]
config = TrainConfig(steps=40, batch_size=2)
history = train(model, ids[:600], ids[600:], config, callbacks=callbacks)""",
    "live",
    """explorer = widgets.NextTokenExplorer(model, tokenizer, "th")
explorer""",
    """explorer.text.value = "X"
assert "vocabulary" in explorer.message.value""",
    """widgets.TokenExplorer(tokenizer, "to be")""",
    """plots.bars("ab", [1, 2], "b is twice as large as a", xlabel="size")""",
    """import matplotlib.pyplot as plt
plt.close(plt.figure())  # sets up the notebook's own way to show figures
plots.bars("ab", [1, 3], "b is three times as large as a", xlabel="size")""",
]


@pytest.mark.slow
def test_a_notebook_keeps_the_views_and_passes_strict_nbval(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, kernel_name="python3", timeout=60, record_timing=False).execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert [len(output) for output in outputs] == [1, 1, 1, 0, 1, 1, 1]
    data = [output[0].data for output in outputs if output]
    assert [d["text/plain"] for d in data] == [
        "<LivePlot>",
        "<LivePlot>",
        "<NextTokenExplorer>",
        "<TokenExplorer>",
        "<picture: b is twice as large as a>",
        "<picture: b is three times as large as a>",
    ]
    assert all(b64decode(d["image/png"]).startswith(PNG) for d in data)
    assert data[0]["image/png"] == data[1]["image/png"]  # what was stored is the last picture
    notebook.metadata.pop("widgets", None)
    for d in data:
        d.pop("application/vnd.jupyter.widget-view+json", None)
    path = tmp_path / "views.ipynb"
    nbformat.write(notebook, path)
    strict = ["--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", *strict, f"--rootdir={tmp_path}", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stdout
    assert "7 passed" in result.stdout
