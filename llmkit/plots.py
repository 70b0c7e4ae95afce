"""Pictures, one visual style for the whole series. What moves or is typed into lives in `widgets`.

Each function takes numbers (lists, arrays, tensors) and a title, the picture's message as a
sentence, and returns a `Picture`. A cell shows it by ending in it, or by `display(picture)`; a
script keeps it with `picture.savefig("x.png")`. What all of them share is in `picture`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, colors, ticker
from matplotlib.patches import Rectangle

from llmkit.picture import (
    COLOURS,
    PLAIN,
    TINTS,
    Picture,
    as_array,
    name_curves,
    name_ticks,
    new_axes,
    new_picture,
    place_log_ticks,
    row_axes,
    styled,
    visible,
)

# Light grows evenly along this map, so that it can be read without colours too.
VIRIDIS = colormaps["viridis"].with_extremes(bad="#F0F0F0")  # grey: a cell without a number


@styled
def lines(
    x, series: Mapping, title: str, *, xlabel: str, ylabel: str, log="", ticks=(), points=False
) -> Picture:
    """A curve (N,) over x (N,) for each entry of series, named at its end.

    x: also {name: x}, one for each curve. log: the logarithmic axes, "x", "y" (or True) or "xy".
    ticks: where the x axis has its marks, if not where they are round. points: mark each value,
    where there are few and what lies between was not measured.
    """
    picture, axes = new_axes(title, 4, xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set(**PLAIN)
    for name, values in series.items():
        own_x = as_array(x[name] if isinstance(x, Mapping) else x, "x", None)
        y = as_array(values, f"curve {name!r}", len(own_x))
        marker = "o" if points else None  # not clipped, below: the frame would cut it in half
        axes.plot(own_x, y, lw=2, label=name, marker=marker, ms=5, clip_on=not points)
    for letter in "y" if log is True else log or "":
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axes.set(**{f"{letter}scale": "log"})
        axis.set(**PLAIN)
        place_log_ticks(axis, *axis.get_data_interval())
    if len(ticks):
        axes.set_xticks([], minor=True)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    name_curves(picture)
    return picture


@styled
def loss_curves(history, title: str, *, by="tokens", references: Mapping = {}) -> Picture:
    """Training loss (faint, its running mean strong) and validation loss (dots, the best ringed).

    history: a training.History, or {name: History} to compare validation (or else training) losses.
    by: "tokens" or "step". references: {name: nats per token}, levels to compare with.
    """
    if by not in ("tokens", "step"):
        raise ValueError(f"by={by!r} is no x axis for a loss: choose 'tokens' or 'step'")
    unit, xlabel = (1, "step") if by == "step" else (1e6, "training tokens seen (millions)")
    picture, axes = new_axes(title, 4, xlabel=xlabel, ylabel="loss (nats per token)")

    def draw(x, y, name: str, colour: str, **look) -> None:
        label = name and f"{name} {y[-1]:.3f}"
        axes.plot(np.array(x) / unit, y, color=colour, label=label, **look)

    runs = history if isinstance(history, Mapping) else {"": history}
    for i, (name, run) in enumerate(runs.items()):
        colour, val_colour = [COLOURS[i % 7]] * 2 if name else COLOURS[:2]
        if not (name and run.val_loss):
            x, y = getattr(run, by), as_array(run.loss, "the training loss", None)
            # The loss of a single batch jumps: over a 25th of the run one sees where it goes.
            window = np.ones(max(1, len(y) // 25))
            # Fewer losses lie under the window at both ends: divide by how many there are.
            mean = np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")
            draw(x, y, "", colour, lw=0.7, alpha=0.25)
            draw(x, mean, name or "training", colour, lw=2)
        if run.val_loss:
            x, y = getattr(run, f"eval_{by}"), as_array(run.val_loss, "val_loss", None)
            draw(x, y, name or "validation", val_colour, lw=2, marker="o", ms=4)
            best = np.nanargmin(y)
            best_name = "" if name or best == len(y) - 1 else "best"
            ring = {"marker": "o", "ms": 11, "mew": 2, "mfc": "none", "clip_on": False}
            draw(x[best], y[[best]], best_name, val_colour, **ring)
    span = np.array(axes.xaxis.get_data_interval()) * unit
    for name, level in references.items():
        draw(span, [level, level], name, "#6E6E6E", lw=1.2, ls="--")
    name_curves(picture)
    return picture


@styled
def bars(labels, values, title: str, *, xlabel, ylabel="", highlight=None, fmt="{:.3g}") -> Picture:
    """Bars (N,) from the top down, each with its value; highlight: the label of one to set off."""
    values = as_array(values, "the values", len(labels))
    names = {"xlabel": xlabel, "ylabel": ylabel}
    # The margin is for the number after the longest bar.
    picture, axes = row_axes(labels, title, 1.3 + 0.25 * len(values), xmargin=0.12, **names)
    shades = [COLOURS[1] if label == highlight else COLOURS[0] for label in labels]
    drawn = axes.barh(range(len(values)), values, height=0.75, color=shades)
    axes.bar_label(drawn, [fmt.format(value) for value in values], padding=3, fontsize=10)
    return picture


@styled
def histogram(
    values, title: str, *, xlabel: str, ylabel="", marks: Mapping = {}, bins=12
) -> Picture:
    """How often values (N,) fall into each of `bins` stretches of one length.

    marks: {name: value}, places to set off with a line; their names stand above, one over another.
    """
    values = as_array(values, "the values", None)
    picture, axes = new_axes(title, 3.2, xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.hist(values[np.isfinite(values)], bins, color=COLOURS[0], rwidth=0.94)
    for i, (name, place) in enumerate(marks.items()):
        axes.axvline(place, color=COLOURS[1], lw=2)
        above = (place, 1.04 + 0.09 * i)
        axes.annotate(name, above, xycoords=axes.get_xaxis_transform(), ha="center", size=11)
    return picture


@styled
def stacked_bars(labels, parts: Mapping, title: str, *, xlabel, ends=()) -> Picture:
    """Bars from the top down, each of parts {name: (N,)}; ends (N,): a text after each bar."""
    picture, axes = row_axes(labels, title, 1.7 + 0.3 * len(labels), xlabel=xlabel)
    left = np.zeros(len(labels))
    for name, part in parts.items():
        values = as_array(part, f"part {name!r}", len(labels))
        axes.barh(range(len(labels)), values, 0.75, left, label=name)
        left = left + values
    for row, text in enumerate(ends):
        axes.annotate(text, (left[row], row), (4, 0), textcoords="offset points", va="center")
    axes.set(xlim=(0, max(left) * (1.3 if len(ends) else 1.05)))
    picture.legend(loc="outside lower left", ncols=len(parts))
    return picture


@styled
def matrix(
    values,
    rows,
    columns,
    title: str,
    *,
    axes=("", ""),
    label="",
    texts="",
    log=False,
    boxes: Mapping = {},
):
    """A Picture of a matrix (R, C) in coloured cells, or of several {name: matrix} on one scale.

    rows (R,), columns (C,): labels, or None to number both; axes: what they are. label: what the
    colours mean, with the unit. texts (R, C): written into the cells; "{:.2f}" writes the values.
    log: colours by the logarithm. A cell that holds no finite number stays empty. boxes {name:
    ((first row, last row), (first column, last column))}: to set off, named at their upper right.
    """
    shape = [len(labels) if labels else None for labels in (rows, columns)]
    named = values if isinstance(values, Mapping) else {"": values}
    maps = {name: as_array(m, name or "the matrix", *shape) for name, m in named.items()}
    # One scale for all of them, or one colour would mean several numbers.
    norm = colors.LogNorm() if log else colors.Normalize()
    norm.autoscale(np.ma.masked_invalid(np.concatenate([m.ravel() for m in maps.values()])))
    # Panels stand side by side, two or three in a row; cells are square where they have labels.
    height, width = next(iter(maps.values())).shape
    across = min(len(maps), 2 if (rows and width > 12) or len(maps) == 4 else 3)
    down, cell = -(-len(maps) // across), min(0.5, 5.4 / across / width)  # rows; inches
    tall = height * cell if rows else height * 0.2 if len(texts) else 2.2  # inches, a panel
    picture = new_picture(title, 1.5 + down * (tall + 0.6))
    for i, (name, m) in enumerate(maps.items()):
        panel = picture.add_subplot(down, across, i + 1)
        image = panel.imshow(m, VIRIDIS, norm, aspect="equal" if rows else "auto")
        left, bottom = i % across == 0, i + across >= len(maps)
        panel.set(title=name, ylabel=axes[0] if left else "", xlabel=axes[1] if bottom else "")
        panel.grid(visible=False)
        for axis, labels in ((panel.yaxis, rows), (panel.xaxis, columns)):
            if labels:
                name_ticks(axis, labels, cell)
        light = VIRIDIS(norm(m)) @ (0.3, 0.6, 0.1, 0)  # as the eye weighs red, green and blue
        for (row, column), value in np.ndenumerate(m) if len(texts) else ():
            text = texts.format(value) if isinstance(texts, str) else texts[row][column]
            colour = "black" if light[row, column] > 0.5 else "white"
            panel.text(column, row, text, color=colour, ha="center", va="center")
        for name, ((top, end), (start, right)) in boxes.items():
            size = right - start + 1, end - top + 1
            look: dict[str, Any] = {"lw": 1.5, "ec": COLOURS[1]}
            panel.add_patch(Rectangle((start - 0.5, top - 0.5), *size, fill=False, **look))
            look |= {"boxstyle": "circle", "fc": "white"}
            panel.text(right + 0.5, top - 0.5, name, size=9, ha="center", va="center", bbox=look)
    axis = picture.colorbar(image, ax=picture.axes, label=label).ax.yaxis
    axis.set(**PLAIN)
    if log:
        place_log_ticks(axis, *axis.get_view_interval())
    return picture


def attention_maps(weights: Any, labels: Sequence[str], title: str) -> Picture:
    """Who looks at whom: weights (T, T) or (H, T, T), T characters; an exact 0 is left empty."""
    heads = as_array(weights, "the weights", *[None] * np.ndim(weights))
    heads = np.where(heads == 0, np.nan, heads)
    maps = {f"head {i}": head for i, head in enumerate(heads)} if heads.ndim == 3 else heads
    axes = ("looking (query)", "looked at (key)")
    return matrix(maps, labels, labels, title, axes=axes, label="attention weight")


def positions(vectors: Any, title: str) -> Picture:
    """A position scheme's vectors (T, C), or several {name: vectors}: a row for each position."""
    return matrix(vectors, None, None, title, axes=("position", "feature"), label="value")


def text_heat(text: str, values: Any, title: str, *, label: str, width: int = 64) -> Picture:
    """A text coloured by a value per character (NaN: none), broken at line ends and width."""
    values = as_array(values, "the values", len(text))
    rows = re.findall(rf"[^\n]{{0,{width - 1}}}\n|[^\n]{{1,{width}}}", text)
    lengths = np.array([len(row) for row in rows])
    filled = np.arange(max(lengths)) < lengths[:, None]  # (rows, columns)
    heat = np.full(filled.shape, np.nan)
    heat[filled] = values  # row by row, as the text is read
    texts = [visible(row).ljust(max(lengths)) for row in rows]
    picture = matrix(heat, None, None, title, label=label, texts=texts)
    picture.axes[0].set_axis_off()
    return picture


@styled
def token_boxes(tokens: Sequence[str], ids: Sequence[int], title: str) -> Picture:
    """Each token in a box of its own, white space visible, above its id; read in rows."""
    picture, axes = new_axes(title, 0.5)
    look: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace"}
    x, row = 0.0, 0  # in widths of a character, of which 64 fill a row
    for n, (token, i) in enumerate(zip(tokens, ids, strict=True)):
        width = max(len(token), 0.8 * len(str(i))) + 0.6
        if x + width > 64:
            x, row = 0.0, row + 1
        shade = TINTS[n % len(TINTS)]
        axes.add_patch(Rectangle((x + 0.05, row), width - 0.1, 0.85, color=shade, lw=0))
        axes.text(x + width / 2, row + 0.3, visible(token), size=11, **look)
        axes.text(x + width / 2, row + 0.67, str(i), size=7, **look)
        x += width
    axes.set(xlim=(0, 64), ylim=(row + 0.9, -0.1))
    axes.set_axis_off()
    picture.set_figheight(picture.get_figheight() + 0.42 * (row + 1))
    return picture
