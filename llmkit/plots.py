"""Pictures: one visual style for the whole series. What moves or is typed into lives in `widgets`.

Each function takes numbers (lists, arrays, tensors) and a title, the picture's message as a
sentence, and returns a `Picture`: a matplotlib figure that pyplot knows nothing of. A cell shows it
by ending in it (`display(picture)` in mid-cell), a script keeps it with `picture.savefig("x.png")`;
no plt.show() is needed and nothing is left open. Backgrounds are white, on dark pages too.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, colors, style, ticker
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")  # Okabe-Ito
TINTS = ("#CCE4F2", "#FBDCC4", "#C9EBDF", "#F4DDE9", "#FBE9BF")  # paler, behind text
VIRIDIS = colormaps["viridis"].with_extremes(bad="#F0F0F0")  # grey: a cell without a number
STYLE = {"font.size": 11, "figure.titlesize": 13, "figure.titleweight": "bold", "grid.color": "0.9"}
STYLE |= {
    "axes.grid": True,
    "axes.titlesize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
}
STYLE |= {"axes.axisbelow": True, "text.parse_math": False}  # "$" is a character, not a formula
PLAIN = {"major_formatter": "{x:g}", "minor_formatter": ""}  # where matplotlib would write formulas
_styled = style.context(["default", STYLE])  # a decorator: our style inside, the reader's outside


class Picture(Figure):
    """A figure that a notebook shows at a cell's end; its text form is its title."""

    def __repr__(self) -> str:
        return f"<picture: {' '.join(self.get_suptitle().split())}>"

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

    _repr_png_ = png  # what IPython asks for, where no plotting backend answers first
    draw, savefig = _styled(Figure.draw), _styled(Figure.savefig)


def visible(text: str) -> str:
    """White space made visible, one character for one: newline as ↵, space as ␣, tab as ⇥."""
    return text.translate({ord("\n"): "↵", ord("\r"): "←", ord(" "): "␣", ord("\t"): "⇥"})


def _array(values, what: str, *shape: int | None) -> np.ndarray:
    """The values as floats of this shape (None: any length); ValueError where none can be drawn."""
    if hasattr(values, "detach"):  # a tensor may carry a gradient, sit on a GPU, be bfloat16
        values = values.detach().cpu().double()
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).any():
        raise ValueError(f"{what}: there is no finite number to draw among {array.size}")
    misfits = [n for i, n in enumerate(shape) if n not in (None, *array.shape[i : i + 1])]
    if misfits or array.ndim != len(shape):
        raise ValueError(f"{what}: the shape is {array.shape}, give {shape} (None: any length)")
    return array


def _picture(title: str, height: float) -> Picture:
    """An empty picture, 7.5 by `height` inches and more for a long title, set at the top left."""
    title = textwrap.fill(title, 66)
    height += 0.22 * title.count("\n")
    picture = Picture(figsize=(7.5, height), dpi=100, layout="compressed")
    picture.suptitle(title, x=0.01, ha="left")
    return picture


def _name_ticks(axis, labels: Sequence[str], inches: float) -> None:
    """Name places `inches` apart, white space visible; in two alternating rows where tight."""
    names = [visible(label) if len(label) == 1 else label for label in labels]
    size = min(11, 72 * inches * 0.78)
    rows = 1 if size > 6.5 else 2
    for i in range(rows):
        axis.set_ticks(range(i, len(names), rows), names[i::rows], minor=i == 1, size=size * rows)
    axis.set_tick_params(which="both", length=0)
    axis.set_tick_params(which="minor", pad=size * rows + 6)


def _draw(axes, curves: list[tuple]) -> None:
    """Draw curves (x, y, name, colour, look), each named beside its end, no name over another."""
    for x, y, _, colour, look in curves:
        axes.plot(x, y, color=colour, **look)
    axes.margins(x=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=6)
    axes.figure.draw_without_rendering()  # only now is it known how high the axes are
    line = 1.4 * 11 / 72 * axes.figure.dpi / axes.bbox.height  # a line of text, in axes heights
    named = [curve for curve in curves if curve[2]]
    ends = [[p for p in zip(x, y, strict=True) if np.isfinite(p[1])][-1] for x, y, *_ in named]
    heights = (axes.transData - axes.transAxes).transform(np.reshape(ends, (-1, 2)))[:, 1]
    order = heights.argsort(kind="stable")
    for _ in range(500):  # neighbours that are too close push each other apart
        push = np.maximum(0, line - np.diff(heights[order])) / 2
        heights[order] += np.append(0, push) - np.append(push, 0)
    for (_, _, name, colour, _), end, height in zip(named, ends, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "ls": ":", "relpos": (0, 0.5), "shrinkB": 0}
        look = {"va": "center", "textcoords": "axes fraction", "annotation_clip": False}
        look["color"] = [0.8 * part for part in colors.to_rgb(colour)]  # thin strokes look paler
        axes.annotate(name, end, (1.03, height), arrowprops=leader, **look)


@_styled
def lines(x, series: Mapping[str, Sequence], title: str, *, xlabel, ylabel, log="") -> Picture:
    """A curve (N,) over x (N,) for each entry of series, named at its end.

    x: also {name: x}, where each curve has its own. log: the logarithmic axes, "x", "y" or "xy";
    True is "y".
    """
    log = "y" if log is True else log or ""
    axes = _picture(title, 4).subplots()
    scales = {f"{axis}scale": "log" if axis in log else "linear" for axis in "xy"}
    axes.set(xlabel=xlabel, ylabel=ylabel, **scales)
    axes.yaxis.set(**PLAIN)
    curves = []
    for i, (name, y) in enumerate(series.items()):
        own = _array(x[name] if isinstance(x, Mapping) else x, "x", None)
        y = _array(y, f"curve {name!r}", len(own))
        curves.append((own, y, name, COLOURS[i % 7], {"lw": 2}))
    for axis in log:
        getattr(axes, f"{axis}axis").set(**PLAIN)
        values = np.concatenate([curve["xy".index(axis)] for curve in curves])
        if np.nanmax(values) < 1000 * np.nanmin(values):  # few powers of ten, perhaps none
            getattr(axes, f"{axis}axis").set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    _draw(axes, curves)
    return axes.figure


@_styled
def loss_curves(history, title: str, *, by="tokens", references=None) -> Picture:
    """Training loss (faint, its running mean strong) and validation loss (dots, the best ringed).

    history: a training.History, or {name: History} to compare validation (or else training) losses.
    by: "tokens" or "step". references: {name: nats per token}, levels to compare with.
    """
    if by not in ("tokens", "step"):
        raise ValueError(f"by={by!r} is no x axis for a loss: choose 'tokens' or 'step'")
    unit, xlabel = (1, "step") if by == "step" else (1e6, "training tokens seen (millions)")
    axes = _picture(title, 4).subplots()
    axes.set(xlabel=xlabel, ylabel="loss (nats per token)")
    curves, runs = [], history if isinstance(history, Mapping) else {"": history}
    dots = {"lw": 2, "marker": "o", "ms": 4}
    ring = dots | {"ms": 11, "mew": 2, "mfc": "none", "clip_on": False}
    for i, (name, run) in enumerate(runs.items()):
        shade, val_shade = [COLOURS[i % 7]] * 2 if name else COLOURS[:2]
        if not (name and run.val_loss):
            x, y = np.array(getattr(run, by)), _array(run.loss, "the training loss", None)
            window = np.ones(max(1, len(y) // 25))
            mean = np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")
            curves.append((x / unit, y, "", shade, {"lw": 0.7, "alpha": 0.25}))
            curves.append((x / unit, mean, name or "training", shade, {"lw": 2}))
        if run.val_loss:
            x, y = np.array(getattr(run, f"eval_{by}")), _array(run.val_loss, "val_loss", None)
            best = [np.nanargmin(y)]
            best_name = "" if name or best[0] == len(y) - 1 else "best"
            curves.append((x / unit, y, name or "validation", val_shade, dots))
            curves.append((x[best] / unit, y[best], best_name, val_shade, ring))
    span = [min(x[0] for x, *_ in curves), max(x[-1] for x, *_ in curves)]
    for name, loss in (references or {}).items():
        curves.append((span, [loss, loss], name, "#6E6E6E", {"lw": 1.2, "ls": "--"}))
    _draw(axes, [(x, y, name and f"{name} {y[-1]:.3f}", *look) for x, y, name, *look in curves])
    return axes.figure


@_styled
def bars(labels, values, title: str, *, xlabel, ylabel="", highlight=None, fmt="{:.3g}") -> Picture:
    """Bars (N,) from the top down, each with its value; highlight: the label of one to set off."""
    values = _array(values, "the values", len(labels))
    axes = _picture(title, 1.3 + 0.25 * len(values)).subplots()
    shades = [COLOURS[label == highlight] for label in labels]
    drawn = axes.barh(range(len(values)), values, height=0.75, color=shades)
    axes.bar_label(drawn, [fmt.format(value) for value in values], padding=3, fontsize=10)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(len(values) - 0.5, -0.5), xmargin=0.12)
    axes.grid(visible=False, axis="y")
    _name_ticks(axes.yaxis, labels, 0.25)
    return axes.figure


@_styled
def stacked_bars(labels, parts: Mapping[str, Sequence], title: str, *, xlabel, ends=()) -> Picture:
    """Bars from the top down, each put together of parts {name: (N,)}; ends (N,): a text behind
    each bar."""
    parts = {name: _array(v, f"part {name!r}", len(labels)) for name, v in parts.items()}
    picture = _picture(title, 1.7 + 0.3 * len(labels))
    axes, left = picture.subplots(), np.zeros(len(labels))
    for (name, values), colour in zip(parts.items(), COLOURS, strict=False):
        axes.barh(range(len(labels)), values, 0.75, left, label=name, color=colour)
        left = left + values
    for row, text in enumerate(ends):
        axes.annotate(text, (left[row], row), (4, 0), textcoords="offset points", va="center")
    limits = {"xlim": (0, max(left) * (1.3 if len(ends) else 1.05))}
    axes.set(xlabel=xlabel, ylim=(len(labels) - 0.5, -0.5), **limits)
    axes.grid(visible=False, axis="y")
    _name_ticks(axes.yaxis, labels, 0.25)
    look = {"ncols": len(parts), "frameon": False, "handlelength": 1, "columnspacing": 1.2}
    picture.legend(loc="outside lower left", **look)
    return picture


@_styled
def intervals(labels, series: Mapping[str, Sequence], title: str, *, xlabel, truth=()) -> Picture:
    """Means with what they are uncertain by, from the top down, one line for each label.

    series: {name: (N, 3)}, mean and ends of an interval; or {name: (N, M)} with M > 3, single
    measurements, drawn as dots about their mean. truth (N,): what should have been found.
    """
    height = 1.7 + (0.12 + 0.2 * len(series)) * len(labels)
    picture = _picture(title, height)
    axes, rows = picture.subplots(), np.arange(len(labels))
    for i, (name, values) in enumerate(series.items()):
        values = _array(values, f"series {name!r}", len(labels), None)
        y, colour = rows + 0.3 * (i - (len(series) - 1) / 2), COLOURS[i % 7]
        if values.shape[1] == 3:
            mean, low, high = values.T
            axes.hlines(y, low, high, color=colour, lw=2.5)
        else:
            mean = values.mean(axis=1)
            axes.scatter(values, y.repeat(values.shape[1]), 22, color=colour, alpha=0.4, lw=0)
        axes.plot(mean, y, "o", color=colour, ms=7, label=name)
    if len(truth):
        axes.plot(_array(truth, "truth", len(labels)), rows, "kD", mfc="none", ms=9, label="truth")
    axes.set(xlabel=xlabel, ylim=(len(labels) - 0.5, -0.5), xmargin=0.06)
    axes.grid(visible=False, axis="y")
    _name_ticks(axes.yaxis, labels, 0.25)
    look = {"frameon": False, "handlelength": 1, "columnspacing": 1.2, "numpoints": 1}
    picture.legend(loc="outside lower left", ncols=len(series) + bool(len(truth)), **look)
    return picture


@_styled
def matrix(values, rows, columns, title: str, *, axes=("", ""), label="", texts="", log=False):
    """A Picture of a matrix (R, C) in coloured cells, or of several {name: matrix} on one scale.

    rows (R,), columns (C,): labels, or None to number both; axes: what they are. label: what the
    colours mean, with the unit. texts (R, C): written into the cells; "{:.2f}" writes the values.
    log: colours by the logarithm. A cell that holds no finite number stays empty.
    """
    maps = values if isinstance(values, Mapping) else {"": values}
    shape = [labels and len(labels) for labels in (rows, columns)]
    maps = {name: _array(m, name or "the matrix", *shape) for name, m in maps.items()}
    norm = colors.LogNorm() if log else colors.Normalize()
    norm.autoscale(np.ma.masked_invalid(np.concatenate([m.ravel() for m in maps.values()])))
    height, width = next(iter(maps.values())).shape
    across = min(len(maps), 2 if (rows and width > 12) or len(maps) == 4 else 3)
    down, cell = -(-len(maps) // across), min(0.5, 5.4 / across / width)  # inches
    tall = height * cell if rows else height * 0.2 if len(texts) else 2.2
    picture = _picture(title, 1.5 + down * (tall + 0.6))
    for i, (name, m) in enumerate(maps.items()):
        panel = picture.add_subplot(down, across, i + 1)
        image = panel.imshow(m, VIRIDIS, norm, aspect="equal" if rows else "auto")
        left, bottom = i % across == 0, i + across >= len(maps)
        panel.set(title=name, ylabel=axes[0] if left else "", xlabel=axes[1] if bottom else "")
        panel.grid(visible=False)
        for axis, labels in ((panel.yaxis, rows), (panel.xaxis, columns)):
            if labels:
                _name_ticks(axis, labels, cell)
        light = VIRIDIS(norm(m)) @ (0.3, 0.6, 0.1, 0)  # as the eye weighs red, green and blue
        ink = np.where(light > 0.5, "black", "white")
        for (row, column), value in np.ndenumerate(m) if len(texts) else ():
            text = texts.format(value) if isinstance(texts, str) else texts[row][column]
            panel.text(column, row, text, color=ink[row, column], ha="center", va="center")
    picture.colorbar(image, ax=picture.axes, label=label).ax.yaxis.set(**PLAIN)
    return picture


def attention_maps(weights, labels: Sequence[str], title: str) -> Picture:
    """Who looks at whom: weights (T, T) or (H, T, T), T characters; an exact 0 is left empty."""
    heads = _array(weights, "the weights", *[None] * np.ndim(weights))
    heads = np.where(heads == 0, np.nan, heads)
    maps = {f"head {i}": head for i, head in enumerate(heads)} if heads.ndim == 3 else heads
    axes = ("looking (query)", "looked at (key)")
    return matrix(maps, labels, labels, title, axes=axes, label="attention weight")


def positions(vectors, title: str) -> Picture:
    """A position scheme's vectors (T, C), or several {name: vectors}: a row for each position."""
    return matrix(vectors, None, None, title, axes=("position", "channel"), label="value")


def text_heat(text: str, values, title: str, *, label: str, width: int = 64) -> Picture:
    """A text coloured by a value per character (NaN: none), broken at line ends and width."""
    number = iter(_array(values, "the values", len(text)))
    rows = re.findall(rf"[^\n]{{0,{width - 1}}}\n|[^\n]{{1,{width}}}", text)
    columns = range(max(map(len, rows)))
    heat = [[next(number) if i < len(row) else np.nan for i in columns] for row in rows]
    texts = [visible(row).ljust(len(columns)) for row in rows]
    picture = matrix(heat, None, None, title, label=label, texts=texts)
    picture.axes[0].set_axis_off()
    return picture


@_styled
def token_boxes(tokens: Sequence[str], ids: Sequence[int], title: str) -> Picture:
    """Each token in a box of its own, white space visible, above its id; read in rows."""
    places, x, row = [], 0.0, 0
    for token, i in zip(tokens, ids, strict=True):
        width = max(len(token), 0.8 * len(str(i))) + 0.6
        x, row = (0.0, row + 1) if x + width > 64 else (x, row)
        places.append((x, row, width))
        x += width
    picture = _picture(title, 0.5 + 0.42 * (row + 1))
    axes = picture.subplots()
    axes.set(xlim=(0, 64), ylim=(row + 0.9, -0.1))
    axes.set_axis_off()
    for n, ((x, row, width), token, i) in enumerate(zip(places, tokens, ids, strict=True)):
        shade = TINTS[n % len(TINTS)]
        axes.add_patch(Rectangle((x + 0.05, row), width - 0.1, 0.85, color=shade, lw=0))
        look = {"ha": "center", "va": "center", "family": "monospace"}
        axes.text(x + width / 2, row + 0.3, visible(token), size=11, **look)
        axes.text(x + width / 2, row + 0.67, str(i), size=7, **look)
    return picture
