"""plots: what is drawn is what was given, no name covers another, nothing is left open."""

import io
import itertools
import math
from itertools import combinations, pairwise
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colors
from matplotlib.image import imread
from matplotlib.text import Text

from llmkit import plots
from llmkit.responsible.plots import intervals

CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM = np.random.default_rng(0)


def run(n=300, seed=0, every=50, rises_after=None):
    """What a training.History holds, of a made-up run."""
    step = np.arange(1, n + 1)
    loss = 1.5 + 2.7 * np.exp(-step / 40) + np.random.default_rng(seed).normal(0, 0.05, n)
    measured = step[every - 1 :: every]
    val_loss = 1.6 + 2.6 * np.exp(-measured / 40)
    if rises_after is not None:
        val_loss += np.maximum(0, measured - rises_after) / 100
    lists = {"step": step, "tokens": step * 2048, "loss": loss, "val_loss": val_loss}
    lists |= {"eval_step": measured, "eval_tokens": measured * 2048}
    return SimpleNamespace(**{name: values.tolist() for name, values in lists.items()})


def causal(*shape):
    """Random attention weights: rows that sum to one, nothing above the diagonal."""
    weights = np.tril(RANDOM.random(shape) + 0.01)
    return weights / weights.sum(-1, keepdims=True)


def drawn(picture):
    """Every text that is really drawn, with its box in pixels."""
    seen, draw = [], Text.draw

    def record(self, renderer):
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), Text.get_window_extent(self, renderer)))  # without arrows
        return draw(self, renderer)

    picture.draw_without_rendering()  # the layout settles
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        picture.draw_without_rendering()
    return seen


def assert_apart(picture):
    """No text covers another, and none is cut off at the picture's edge."""
    texts = drawn(picture)
    assert len(texts) > 3
    for (a, box), (b, other) in combinations(texts, 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert width < 0.5 or height < 2.5, f"{a!r} and {b!r} overlap"  # boxes hold some air
    for text, box in texts:
        assert box.x0 > -1, f"{text!r} is cut off"
        assert box.x1 < picture.bbox.x1 + 1, f"{text!r} is cut off"


def names(axis):
    """{place: label} of an axis, in both rows of ticks."""
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return {tick.get_loc(): tick.label1.get_text() for tick in ticks}


GALLERY = {
    "loss": lambda: plots.loss_curves(
        run(), "It learns", references={"uniform": 4.174, "bigram": 2.45, "5-gram": 1.69}
    ),
    "runs": lambda: plots.loss_curves(
        {"AdamW": run(), "Muon": run(seed=1), "SGD": run(seed=2, rises_after=100)}, "Three runs"
    ),
    "lines": lambda: plots.lines(
        range(9), {"pre": range(1, 10), "post": [1] * 9}, "Norms", xlabel="depth", ylabel="norm"
    ),
    "log": lambda: plots.lines(
        range(9), {"x": 2.0 ** np.arange(9)}, "Growth", xlabel="depth", ylabel="norm", log=True
    ),
    "race": lambda: plots.lines(
        {"ours": np.geomspace(0.05, 0.5, 8), "textbook": np.geomspace(0.1, 9, 8)},
        {"ours": np.geomspace(4, 1.5, 8), "textbook": np.geomspace(4, 2.5, 8)},
        "A race",
        xlabel="seconds",
        ylabel="loss",
        log="x",
    ),
    "stacked": lambda: plots.stacked_bars(
        ["textbook", "+ fused"],
        {"batch": [0.1, 0], "forward": [20, 11], "backward": [30, 20], "optimizer": [5, 1]},
        "Where a step's time goes",
        xlabel="milliseconds",
        ends=["1.00 ×", "1.72 × as fast"],
    ),
    "intervals": lambda: intervals(
        ["nurse", "smith"],
        {"raw": [[1, 0.5, 2], [-1, -2, -0.5]], "clean": RANDOM.random((2, 5))},
        "What was found, and how sure one may be of it",
        xlabel="log-odds (nats)",
        truth=[2, -1],
    ),
    "bars": lambda: plots.bars(
        list(CHARACTERS[:20]), RANDOM.random(20), "Frequencies", xlabel="share", ylabel="character"
    ),
    "histogram": lambda: plots.histogram(
        RANDOM.normal(5, 1, 50),
        "Where they fall",
        xlabel="perplexity",
        ylabel="draws",
        marks={"all of the text": 5, "another": 5.1},
    ),
    "matrix": lambda: plots.matrix(
        RANDOM.integers(0, 3, (65, 65)),
        CHARACTERS,
        CHARACTERS,
        "Which pairs occur, and which never do, in a title so long that it needs a second line",
        axes=("character", "next character"),
        label="number of pairs",
        log=True,
    ),
    "numbers": lambda: plots.matrix(causal(4, 4), "the ", "the ", "Weights", texts="{:.2f}"),
    "heads": lambda: plots.attention_maps(causal(2, 26, 26), CHARACTERS[20:46], "Two heads"),
    "six": lambda: plots.attention_maps(causal(6, 8, 8), CHARACTERS[:8], "Six heads"),
    "head": lambda: plots.attention_maps(causal(30, 30), CHARACTERS[:30], "One head"),
    "positions": lambda: plots.positions({"a": RANDOM.random((32, 16)), "b": np.eye(9)}, "Places"),
    "heat": lambda: plots.text_heat(
        "To be,\nor not to be" * 8, RANDOM.random(152), "Surprise", label="loss (nats)"
    ),
}


@pytest.mark.parametrize("name", GALLERY)
def test_pictures_are_legible_white_small_and_of_one_width(name):
    picture = GALLERY[name]()
    assert_apart(picture)
    data = picture._repr_png_()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) < 100_000
    image = imread(io.BytesIO(data))
    assert (image[[0, -1], :, :3] == 1).all()
    assert 550 < image.shape[1] < 790


def test_nothing_is_left_open_and_the_readers_style_is_kept():
    data = GALLERY["lines"]().png()
    dark = ["dark_background", "seaborn-v0_8-poster", {"savefig.facecolor": "black"}]
    with plt.style.context(dark):
        before = dict(mpl.rcParams)
        assert GALLERY["lines"]().png() == data
        picture = GALLERY["lines"]()
        buffer = io.BytesIO()  # as a notebook's plotting backend draws it
        picture.canvas.print_figure(buffer, facecolor=picture.get_facecolor(), bbox_inches="tight")
        assert buffer.getvalue() == data
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_style_is_there_for_pictures_of_ones_own():
    with plt.style.context("llmkit.plots"):
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == plots.COLOURS
        assert mpl.rcParams["grid.color"] == "0.9"
        assert not mpl.rcParams["text.parse_math"]


def test_the_text_form_is_the_title_on_one_line():
    title = (
        "A sentence that is so long that it has to be set on two lines, or three, above a picture"
    )
    picture = plots.bars("ab", [1, 2], title, xlabel="x")
    assert "\n" in picture.get_suptitle()
    assert repr(picture) == f"<picture: {title}>"
    short = plots.bars("ab", [1, 2], "A sentence", xlabel="x")
    heights = [(p.draw_without_rendering(), p.axes[0].bbox.height)[1] for p in (picture, short)]
    assert heights[0] == pytest.approx(heights[1], rel=0.05)  # the long title took no room away


@given(st.text())
def test_visible_shows_white_space_and_keeps_places(text):
    shown = plots.visible(text)
    assert len(shown) == len(text)
    assert not set(shown) & set(" \n\t\r")
    assert all(a == b for a, b in zip(shown, text, strict=True) if not b.isspace())


def test_visible_characters():
    assert plots.visible("a b\n\tc") == "a␣b↵⇥c"


def test_bars_are_as_long_as_their_values_and_named():
    values = torch.tensor([0.5, 0.25, 0.125], dtype=torch.bfloat16, requires_grad=True)
    axes = plots.bars(["\n", "$", "to be"], values, "T", xlabel="p", fmt="{:.1%}").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.25, 0.125]
    assert names(axes.yaxis) == {0: "↵", 1: "$", 2: "to be"}
    assert [text.get_text() for text in axes.texts] == ["50.0%", "25.0%", "12.5%"]
    assert axes.yaxis_inverted()  # the first on top
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "p"


def test_bars_highlight_one():
    axes = plots.bars(
        ["1-gram", "GPT", "bigram"], [3, 1, 2], "T", xlabel="x", highlight="GPT"
    ).axes[0]
    first, second, third = (bar.get_facecolor() for bar in axes.patches)
    assert first == third != second


def test_stacked_bars_begin_where_the_part_before_ends():
    parts = {"weights": torch.tensor([1.0, 2.0, 0.0]), "activations": [3, 1, 5]}
    ends = ["a", "b", "c"]
    picture = plots.stacked_bars(["x", "y", "z"], parts, "T", xlabel="bytes", ends=ends)
    axes = picture.axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, 1), (0, 2), (0, 0), (1, 3), (2, 1), (0, 5)]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [
        ("a", 4, 0),
        ("b", 3, 1),
        ("c", 5, 2),
    ]
    assert names(axes.yaxis) == {0: "x", 1: "y", 2: "z"}
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in picture.legends[0].get_texts()] == list(parts)
    assert axes.get_xlim()[1] > 5


def test_no_part_of_a_stack_is_left_out_where_colours_run_out():
    parts = {f"part {i}": [1.0] for i in range(9)}
    axes = plots.stacked_bars("x", parts, "T", xlabel="x").axes[0]
    assert len(axes.patches) == 9 > len(plots.COLOURS)


def test_intervals_show_the_mean_its_ends_and_the_truth():
    both = {"a": [[1, 0, 3], [5, 4, 6]], "b": torch.tensor([[1.0, 2, 3, 6], [0, 0, 0, 4]])}
    picture = intervals(["x", "y"], both, "T", xlabel="nats", truth=[2, 7])
    axes = picture.axes[0]
    means = [line.get_xdata().tolist() for line in axes.lines]
    assert means == [[1, 5], [3, 1], [2, 7]]
    bars, dots = axes.collections
    assert [path[:, 0].tolist() for path in bars.get_segments()] == [[0, 3], [4, 6]]
    assert dots.get_offsets()[:, 0].tolist() == [1, 2, 3, 6, 0, 0, 0, 4]
    heights = dots.get_offsets()[:, 1].reshape(2, 4)
    assert (heights == heights[:, :1]).all()
    assert axes.yaxis_inverted()
    names_ = [text.get_text() for text in picture.legends[0].get_texts()]
    assert names_ == ["a", "one measurement (pale)", "b: mean", "truth"]
    with pytest.raises(ValueError, match="series 'a'"):
        intervals(["x"], {"a": [[1, 2, 3]] * 2}, "T", xlabel="nats")


def test_dollars_are_characters_not_formulas():
    picture = plots.bars(["a$b$", "$$"], [1, 2], "It cost $1, not $2", xlabel="$x$")
    picture.draw_without_rendering()
    assert not any(t.get_parse_math() for t in picture.findobj(Text) if "$" in t.get_text())
    assert "a$b$" in [text for text, _ in drawn(picture)]


def test_matrix_draws_the_values_in_place():
    values = RANDOM.random((2, 3))
    values[0, 1] = np.nan
    values[1, 2] = -np.inf
    picture = plots.matrix(values, "ab", "x y", "T", axes=("row", "column"), label="p")
    axes, bar = picture.axes
    image = axes.images[0]
    assert image.get_array().mask.tolist() == [[False, True, False], [False, False, True]]
    assert np.array_equal(image.get_array().data[0, [0, 2]], values[0, [0, 2]])
    assert names(axes.yaxis) == {0: "a", 1: "b"}
    assert names(axes.xaxis) == {0: "x", 1: "␣", 2: "y"}
    assert (axes.get_ylabel(), axes.get_xlabel(), bar.get_ylabel()) == ("row", "column", "p")
    assert image.get_cmap().name == "viridis"
    assert (
        image.get_clim()
        == (values[0, [0, 2]].tolist() + values[1, :2].tolist(), image.get_clim())[1]
    )


def test_matrix_names_65_characters_in_two_rows_each_at_its_place():
    axes = GALLERY["matrix"]().axes[0]
    expected = dict(enumerate(map(plots.visible, CHARACTERS)))
    assert names(axes.xaxis) == names(axes.yaxis) == expected
    sizes = {label.get_size() for label in axes.get_yticklabels(which="both")}
    assert min(sizes) >= 8


def test_matrix_in_logarithms_leaves_zeros_empty():
    picture = plots.matrix([[0, 1], [10, 100]], None, None, "T", log=True)
    image = picture.axes[0].images[0]
    colours = image.to_rgba(image.get_array())
    assert colors.to_hex(colours[0, 0]) == "#f0f0f0"
    shades = [image.norm(value) for value in (1, 10, 100)]
    assert shades == pytest.approx([0, 0.5, 1])


def test_the_colours_of_less_than_three_powers_of_ten_are_named_between_them():
    few = plots.matrix([[24, 457]], None, None, "T", log=True)
    assert {"50", "100", "200"} <= {text for text, _ in drawn(few)}


def test_several_matrices_share_their_colours():
    picture = plots.matrix({"a": [[0, 1]], "b": [[2, 5]]}, None, None, "T")
    first, second, _bar = picture.axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 5)
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert second.images[0].get_array().tolist() == [[2, 5]]


def test_matrix_writes_values_light_on_dark_and_dark_on_light():
    axes = plots.matrix([[0, 1]], "r", "cd", "T", texts="{:.1f}").axes[0]
    written = [(t.get_text(), t.get_position(), t.get_color()) for t in axes.texts]
    assert written == [("0.0", (0, 0), "white"), ("1.0", (1, 0), "black")]


def test_attention_maps_show_every_head_and_leave_zeros_empty():
    weights = torch.tensor(causal(3, 4, 4), requires_grad=True)
    picture = plots.attention_maps(weights, "to b", "T")
    *panels, _bar = picture.axes
    for panel, head in zip(panels, weights.detach().numpy(), strict=True):
        shown = panel.images[0].get_array()
        assert np.array_equal(shown.mask, head == 0)
        assert np.array_equal(shown.filled(0), head)
        assert list(names(panel.yaxis).values()) == ["t", "o", "␣", "b"]
    assert [panel.get_title() for panel in panels] == ["head 0", "head 1", "head 2"]
    assert plots.attention_maps(causal(4, 4).tolist(), "to b", "T").axes[0].get_title() == ""


def test_small_multiples_are_labelled_at_the_left_and_below():
    *panels, _bar = plots.attention_maps(causal(5, 4, 4), "to b", "T").axes  # rows of 3 and 2
    assert [bool(panel.get_ylabel()) for panel in panels] == [True, False, False, True, False]
    assert [bool(panel.get_xlabel()) for panel in panels] == [False, False, True, True, True]


def test_positions_have_a_row_per_position():
    axes = plots.positions(np.arange(6).reshape(2, 3), "T").axes[0]
    assert axes.images[0].get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("position", "feature")


@settings(deadline=None, max_examples=12)
@given(st.text(alphabet="ab \n", min_size=1, max_size=40), st.integers(1, 9))
def test_text_heat_gives_every_character_its_value(text, width):
    axes = plots.text_heat(text, range(len(text)), "T", label="loss", width=width).axes[0]
    heat = axes.images[0].get_array()
    filled = ~np.ma.getmaskarray(heat)
    cells = {tuple(reversed(t.get_position())): t.get_text() for t in axes.texts}
    shown = [(heat[place], cells[place]) for place in sorted(cells) if filled[place]]
    assert shown == list(enumerate(plots.visible(text)))
    assert heat.shape[1] <= width
    rows = ["".join(cells[i, j] for j in np.flatnonzero(filled[i])) for i in range(len(heat))]
    assert not any("↵" in row[:-1] for row in rows)
    full = [len(row) == width or row[-1] == "↵" for row in rows[:-1]]
    assert all(full)


def test_text_heat_leaves_what_has_no_value_empty():
    image = plots.text_heat("ab", [math.nan, 2.0], "T", label="loss").axes[0].images[0]
    assert image.get_array().mask.tolist() == [[True, False]]


def test_lines_are_named_at_their_ends():
    series = {"up": [1, 2, 3], "down": [3, 2, math.nan], "": [2, 2, 2]}
    axes = plots.lines([0, 1, 2], series, "T", xlabel="x", ylabel="y").axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == [1, 3, 2]
    assert [(t.get_text(), t.xy) for t in axes.texts] == [("up", (2, 3)), ("down", (1, 2))]
    assert len({line.get_color() for line in axes.lines}) == 3
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_points_mark_what_was_measured():
    for points, marker in ((False, "None"), (True, "o")):
        axes = plots.lines([0, 1], {"a": [1, 2]}, "T", xlabel="x", ylabel="y", points=points).axes[
            0
        ]
        assert axes.lines[0].get_marker() == marker


@settings(deadline=None, max_examples=5)
@given(st.lists(st.sampled_from([0, 0.001, 0.5, 0.52, 0.98, 1]), min_size=2, max_size=9))
def test_names_stay_apart_however_close_the_ends(ends):
    series = {f"{i} of {len(ends)}": [0.5, end] for i, end in enumerate(ends)}
    picture = plots.lines([0, 1], series, "T", xlabel="x", ylabel="y")
    texts = drawn(picture)
    assert all(box.x0 > picture.axes[0].bbox.x1 for text, box in texts if text in series)
    boxes = sorted((box.y0, box.y1, text) for text, box in texts if text in series)
    assert all(lower[1] <= upper[0] for lower, upper in pairwise(boxes))
    assert [series[name][1] for _, _, name in boxes] == sorted(ends)  # in the order of the curves


def test_a_logarithmic_axis_is_labelled_in_plain_numbers():
    picture = GALLERY["log"]()
    assert picture.axes[0].get_yscale() == "log"
    assert {"1", "10", "100"} <= {text for text, _ in drawn(picture)}
    few = plots.lines([1, 2], {"": [0.6, 6.0]}, "T", xlabel="x", ylabel="y", log=True)
    assert {"1", "2", "5"} <= {text for text, _ in drawn(few)}
    many = plots.lines([1, 2], {"": [1, 1e6]}, "T", xlabel="x", ylabel="y", log=True)
    assert "500" not in {text for text, _ in drawn(many)}


def test_curves_may_have_places_of_their_own_on_logarithmic_axes():
    x = {"fast": [0.1, 1], "slow": [1, 10, 100]}
    series = {"slow": [3, 2, 1], "fast": [3, 1]}
    for log, scales in {"x": ("log", "linear"), "xy": ("log", "log")}.items():
        axes = plots.lines(x, series, "T", xlabel="x", ylabel="y", log=log).axes[0]
        assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 10, 100], [0.1, 1]]
        assert (axes.get_xscale(), axes.get_yscale()) == scales
    assert {"0.1", "1", "10", "100"} <= {text for text, _ in drawn(axes.figure)}


def test_loss_curves_draw_the_history():
    history = run(rises_after=150)
    axes = plots.loss_curves(history, "T", by="step", references={"bigram": 2.45}).axes[0]
    raw, mean, validation, ring, level = axes.lines
    assert raw.get_xdata().tolist() == history.step
    assert raw.get_ydata().tolist() == history.loss
    assert raw.get_alpha() < 0.5
    window = len(history.loss) // 25
    middle = np.mean(history.loss[150 - window // 2 : 150 - window // 2 + window])
    assert mean.get_ydata()[150] == pytest.approx(middle)
    assert validation.get_xdata().tolist() == history.eval_step
    assert validation.get_ydata().tolist() == history.val_loss
    assert validation.get_marker() == "o"
    best = int(np.argmin(history.val_loss))
    assert 0 < best < len(history.val_loss) - 1
    assert ring.get_xdata().tolist() == [history.eval_step[best]]
    assert ring.get_ydata().tolist() == [history.val_loss[best]]
    assert list(level.get_ydata()) == [2.45, 2.45]
    assert [text.get_text() for text in axes.texts] == [
        f"training {mean.get_ydata()[-1]:.3f}",
        f"validation {history.val_loss[-1]:.3f}",
        f"best {min(history.val_loss):.3f}",
        "bigram 2.450",
    ]
    assert axes.get_xlabel() == "step"


def test_loss_curves_over_tokens_and_a_best_point_that_is_the_last():
    history = run()
    axes = plots.loss_curves(history, "T").axes[0]
    raw, _mean, validation, ring = (line.get_xdata() * 1e6 for line in axes.lines)
    assert raw == pytest.approx(history.tokens)
    assert validation == pytest.approx(history.eval_tokens)
    assert ring == pytest.approx(history.eval_tokens[-1:])
    assert axes.get_xlabel() == "training tokens seen (millions)"
    assert axes.get_ylabel() == "loss (nats per token)"
    assert not any("best" in text.get_text() for text in axes.texts)


def test_the_running_mean_of_a_constant_is_that_constant_at_both_ends():
    history = SimpleNamespace(step=range(80), loss=[2.0] * 80, val_loss=[])
    axes = plots.loss_curves(history, "T", by="step").axes[0]
    assert axes.lines[1].get_ydata() == pytest.approx(np.full(80, 2.0))


def test_runs_are_compared_by_validation_loss_or_else_by_training_loss():
    unmeasured = run(seed=1)
    unmeasured.val_loss = []
    axes = plots.loss_curves({"A": run(), "B": unmeasured}, "T").axes[0]
    validation, _ring, raw, _mean = axes.lines
    assert validation.get_ydata().tolist() == run().val_loss
    assert raw.get_ydata().tolist() == unmeasured.loss
    assert [text.get_text()[0] for text in axes.texts] == ["A", "B"]
    assert validation.get_color() != raw.get_color()


NAN = [math.nan, math.inf]


@pytest.mark.parametrize(
    ("draw", "complaint"),
    [
        (lambda: plots.bars([], [], "T", xlabel="x"), "the values.*no finite number"),
        (lambda: plots.bars("ab", NAN, "T", xlabel="x"), "the values.*no finite number"),
        (lambda: plots.bars("abc", [1, 2], "T", xlabel="x"), r"the values.*\(2,\).*\(3,\)"),
        (lambda: plots.bars([], [1], "T", xlabel="x"), r"the values.*\(1,\).*\(0,\)"),
        (lambda: plots.matrix([[1, 2]], "a", "b", "T"), r"the matrix.*\(1, 2\).*\(1, 1\)"),
        (lambda: plots.matrix([1, 2], None, None, "T"), r"the matrix.*\(2,\)"),
        (lambda: plots.matrix([NAN], None, None, "T"), "the matrix.*no finite number"),
        (lambda: plots.attention_maps(causal(2, 3, 3), "ab", "T"), r"head 0.*\(3, 3\).*\(2, 2\)"),
        (lambda: plots.attention_maps([], "", "T"), "the weights.*no finite number"),
        (lambda: plots.positions(np.empty((0, 4)), "T"), "no finite number"),
        (lambda: plots.text_heat("", [], "T", label="x"), "the values.*no finite number"),
        (lambda: plots.text_heat("abc", [1], "T", label="x"), r"\(1,\).*\(3,\)"),
        (lambda: plots.lines([1, 2], {"a": NAN}, "T", xlabel="x", ylabel="y"), "curve 'a'"),
        (lambda: plots.lines([1], {"a": [1, 2]}, "T", xlabel="x", ylabel="y"), "curve 'a'"),
        (lambda: plots.stacked_bars("ab", {"p": [1]}, "T", xlabel="x"), "part 'p'"),
        (lambda: plots.loss_curves(run(0), "T"), "the training loss.*no finite number"),
        (lambda: plots.loss_curves(run(), "T", by="epoch"), "by='epoch'.*'tokens' or 'step'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(draw, complaint):
    with pytest.raises(ValueError, match=complaint):
        draw()


def test_token_boxes_show_each_token_above_its_id_without_overlap():
    tokens, ids = ["to", " ", "be", "\n"] * 20, [12, 0, 7, 50256] * 20
    picture = plots.token_boxes(tokens, ids, "80 tokens")
    picture.draw_without_rendering()
    axes = picture.axes[0]
    written = [text.get_text() for text in axes.texts]
    assert written[0::2] == ["to", "␣", "be", "↵"] * 20
    assert written[1::2] == ["12", "0", "7", "50256"] * 20
    boxes = [patch.get_window_extent() for patch in axes.patches]
    for box, other in itertools.combinations(boxes, 2):
        assert not box.overlaps(other)
    for text, box in zip(axes.texts, [box for box in boxes for _ in "12"], strict=True):
        extent = text.get_window_extent()
        assert box.x0 - 1 <= extent.x0
        assert extent.x1 <= box.x1 + 1
    assert axes.texts[0].get_window_extent().y0 > axes.texts[1].get_window_extent().y0


def test_a_histogram_counts_every_value_once():
    values = [1.0, 1.1, 1.9, 3.0, math.nan]
    [axes] = plots.histogram(values, "Four", xlabel="x", marks={"here": 2}, bins=2).axes
    assert [bar.get_height() for bar in axes.patches] == [3, 1]
    assert [line.get_xdata()[0] for line in axes.lines] == [2]
