"""Pictures: one visual style for the whole series. What moves or can be typed into lives in widgets.

Each function takes numbers (lists, arrays, tensors) and a title, the picture's message as a sentence, and
returns a `Picture`: a matplotlib figure that pyplot knows nothing of. A cell shows it by ending in it
(`display(picture)` in mid-cell), a script keeps it by `picture.savefig("loss.png")`; there is no plt.show()
to call and nothing is left open. Every matrix takes viridis; the background is white on dark pages too.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, colors, style
from matplotlib.figure import Figure

# Okabe and Ito's colours: nobody's eyes confuse them. Grey is what stays behind, EMPTY a cell with no number.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
GREY, EMPTY = "#6E6E6E", "#E8E8E8"
STYLE = {"font.size": 11, "figure.titlesize": 13, "figure.titleweight": "bold", "grid.color": EMPTY}
STYLE |= {"axes.grid": True, "axes.axisbelow": True, "axes.spines.right": False, "axes.spines.top": False}
STYLE |= {"text.parse_math": False}  # "$" is a character of the corpus, not the start of a formula
_styled = style.context(["default", STYLE])  # as a decorator: our style inside, the reader's outside


class Picture(Figure):
    """A figure that a notebook shows at a cell's end, and whose text form is its title."""

    def __repr__(self) -> str:
        return f"<picture: {' '.join(self.get_suptitle().split())}>"

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

    _repr_png_ = png  # what IPython asks for where no plotting backend is set up


def visible(text: str) -> str:
    """White space made visible, one character for one: newline as ↵, space as ␣, tab as ⇥."""
    return text.translate({ord("\n"): "↵", ord("\r"): "←", ord(" "): "␣", ord("\t"): "⇥"})


def _names(labels: Sequence[str]) -> list[str]:
    """Labels as they are printed: characters made visible, words as they are."""
    return [visible(label) if len(label) == 1 else label for label in map(str, labels)]


def _number(value: float, _=None) -> str:
    """A number beside an axis: 0.25, 500, 20k, 1.5M."""
    size, unit = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e4 else (1, "")
    return f"{value / size:g}{unit}"


def _array(values, what: str, *shape: int | None) -> np.ndarray:
    """The values as floats of this shape (None: any length); ValueError if they cannot be drawn."""
    if hasattr(values, "detach"):  # a tensor may carry a gradient, sit on a GPU, be bfloat16
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).any():
        raise ValueError(f"{what}: no finite number in them, so there is nothing to draw")
    if len(shape) != array.ndim or any(n not in (None, m) for n, m in zip(shape, array.shape)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{what}: their shape is {array.shape}, give ({wanted}) to match the labels")
    return array


def _picture(title: str, height: float, rows=1, columns=1, **kwargs) -> tuple[Picture, list]:
    """A picture, 7.5 by `height` inches, titled at the top left, and the list of its axes."""
    picture = Picture(figsize=(7.5, height), dpi=100, layout="constrained")
    picture.suptitle(textwrap.fill(title, 66), x=0.01, ha="left")
    return picture, list(picture.subplots(rows, columns, squeeze=False, **kwargs).flat)


def _name_ends(axes, curves: list[tuple]) -> None:
    """Write the name of each curve (x, y, name, colour) beside its end, no name over another."""
    axes.figure.draw_without_rendering()  # only now is it known how high the axes are
    line = 1.4 * 11 / 72 * axes.figure.dpi / axes.bbox.height  # a line of text, in axes heights
    last = [np.flatnonzero(np.isfinite(y))[-1] for _, y, *_ in curves]
    ends = [(x[i], y[i]) for i, (x, y, *_) in zip(last, curves)]
    heights = (axes.transData - axes.transAxes).transform(ends)[:, 1]
    order = heights.argsort(kind="stable")
    for _ in range(500):  # neighbours that are too close push each other apart
        push = np.maximum(0, line - np.diff(heights[order])) / 2
        heights[order] += np.append(0, push) - np.append(push, 0)
    for (*_, name, colour), end, height in zip(curves, ends, heights):
        leader = {"arrowstyle": "-", "color": colour, "ls": ":", "relpos": (0, 0.5), "shrinkB": 0}
        look = {"color": [0.8 * part for part in colors.to_rgb(colour)], "va": "center"}  # thin looks pale
        look |= {"arrowprops": leader, "annotation_clip": False}
        axes.annotate(name, end, (1.03, height), textcoords="axes fraction", **look)


@_styled
def lines(x, series: Mapping[str, Sequence], title: str, *, xlabel, ylabel, log=False) -> Picture:
    """A curve (N,) over x (N,) for each entry of series, named at its end; log: logarithmic y."""
    picture, (axes,) = _picture(title, 4)
    x = _array(x, "x", None)
    curves = [
        (x, _array(y, f"the curve {name!r}", len(x)), name, COLOURS[i % len(COLOURS)])
        for i, (name, y) in enumerate(series.items())
    ]
    for x, y, _, colour in curves:
        axes.plot(x, y, color=colour, lw=2)
    axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear", xmargin=0)
    axes.yaxis.set_major_formatter(_number)
    _name_ends(axes, curves)
    return picture


@_styled
def loss_curves(history, title: str, *, by="tokens", references=None, note="") -> Picture:
    """Training loss (faint, its running mean strong), validation loss (dots, the best ringed).

    history: a training.History, or {name: History} to compare runs, a colour each. by: "tokens" or "step",
    the x axis. references: {name: nats per token}, drawn as levels. note: a text set below.
    """
    if by not in ("tokens", "step"):
        raise ValueError(f"by={by!r} is no x axis for a loss: choose 'tokens' or 'step'")
    picture, (axes,) = _picture(title, 4 + 0.16 * len(note.splitlines()))
    curves, several = [], isinstance(history, Mapping)
    for i, (name, run) in enumerate((history if several else {"": history}).items()):
        train_colour, val_colour = [COLOURS[i % len(COLOURS)]] * 2 if several else COLOURS[:2]
        loss = _array(run.loss, "the training losses", None)
        x, window = np.asarray(getattr(run, by)), np.ones(max(1, len(loss) // 40))
        mean = np.convolve(loss, window, "same") / np.convolve(np.ones(len(loss)), window, "same")
        axes.plot(x, loss, color=train_colour, lw=0.7, alpha=0.0 if several else 0.25)
        axes.plot(x, mean, color=train_colour, lw=1 if several else 2)
        if not several or not len(run.val_loss):
            curves.append((x, mean, name or "training", train_colour))
        if len(run.val_loss):
            x, loss = np.asarray(getattr(run, f"eval_{by}")), _array(run.val_loss, "the losses", None)
            best = [np.nanargmin(loss)]
            dots = {"color": val_colour, "clip_on": False}
            axes.plot(x, loss, "o-", lw=2, markersize=4, **dots)
            axes.plot(x[best], loss[best], "o", markersize=11, mew=2, fillstyle="none", **dots)
            curves.append((x, loss, name or "validation", val_colour))
            if not several and best[0] < len(loss) - 1:
                curves.append((x[best], loss[best], "best", val_colour))
    for name, loss in (references or {}).items():
        axes.axhline(loss, color=GREY, lw=1.2, ls="--")
        curves.append((x[-1:], [loss], name, GREY))
    xlabel = "training tokens seen" if by == "tokens" else "step"
    axes.set(xlabel=xlabel, ylabel="loss (nats per token)", xmargin=0)
    axes.xaxis.set_major_formatter(_number)
    picture.supxlabel(note, x=0.01, ha="left", family="monospace", size=9)
    _name_ends(axes, [(x, y, f"{name} {y[-1]:.3f}", colour) for x, y, name, colour in curves])
    return picture


@_styled
def bars(labels, values, title: str, *, xlabel, ylabel="", highlight=None, fmt="{:.3g}") -> Picture:
    """Bars (N,) from the top down with their values written by fmt; over 25 take several columns.

    highlight: the label of the bar to set off, as in a ladder of losses.
    """
    values = _array(values, "values", len(labels))
    columns = math.ceil(len(values) / 25)
    rows = math.ceil(len(values) / columns)
    picture, panels = _picture(title, 1.3 + 0.25 * rows, 1, columns, sharex=True)
    for i, axes in enumerate(panels):
        names, part = labels[i * rows : (i + 1) * rows], values[i * rows : (i + 1) * rows]
        shades = [COLOURS[name == highlight] for name in names]
        drawn = axes.barh(range(len(part)), part, height=0.75, color=shades)
        axes.bar_label(drawn, [fmt.format(value) for value in part], padding=3, fontsize=10)
        axes.set_yticks(range(len(part)), _names(names))
        axes.set(ylim=(rows - 0.5, -0.5), xlabel=xlabel)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(_number)
    panels[0].set_ylabel(ylabel)
    panels[0].set_xlim(0, np.nanmax(values) * (1.1 + 0.15 * columns))  # room for the values
    return picture


def _name_cells(axis, labels: Sequence[str], inches: float) -> None:
    """Name the cells along an axis, each `inches` wide; in two alternating rows where it is tight."""
    size = min(11, 72 * inches * 0.85)
    rows = 1 if size > 7 else 2
    for i in range(rows):
        places = range(i, len(labels), rows)
        axis.set_ticks(places, _names(labels[i::rows]), minor=i == 1, fontsize=size * rows)
    axis.set_tick_params(which="minor", pad=size * rows + 6)


@_styled
def matrix(
    values, row_labels, column_labels, title: str, *, xlabel="", ylabel="", label="", texts=None,
    log=False, own_scale=False,
) -> Picture:
    """A matrix (R, C) as coloured cells, or several {name: matrix}; NaN, and 0 with log, stay empty.

    row_labels (R,), column_labels (C,): None for numbers. label: what colour means, with its unit.
    texts (R, C): to write into the cells, or "{:.2f}" for their values. log: logarithmic colours.
    own_scale: a colour bar for each of several matrices.
    """
    axis_labels = row_labels, column_labels
    shape = [names and len(names) for names in axis_labels]
    maps = values if isinstance(values, Mapping) else {"": values}
    maps = {name: _array(values, name or "values", *shape) for name, values in maps.items()}
    height, width = next(iter(maps.values())).shape
    columns = min(len(maps), 4 if width <= 12 else 3 if row_labels is None else 2)
    rows, cell = math.ceil(len(maps) / columns), min(0.5, 5.4 / columns / width)
    ...
