"""What every picture has in common: its style and size, its title, its axes and their names.

`plots` draws with this, and so does who needs a picture that is not there. pyplot knows nothing of
a `Picture`: nothing is left open.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colors, rc_params_from_file, style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TINTS = ("#CCE4F2", "#FBDCC4", "#C9EBDF", "#F4DDE9", "#FBE9BF")  # paler, behind text
STYLE = Path(__file__).with_name("plots.mplstyle")
COLOURS = rc_params_from_file(STYLE)["axes.prop_cycle"].by_key()["color"]
PLAIN: dict[str, Any] = {"major_formatter": "{x:g}", "minor_formatter": ""}  # 0.1, not a formula
styled = style.context(["default", STYLE])  # a decorator: our style inside, the reader's outside


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
    # Much is decided only when a figure is drawn, so our style must hold then too.
    draw, savefig = styled(Figure.draw), styled(Figure.savefig)


def visible(text: str) -> str:
    """White space made visible, one character for one: newline as ↵, space as ␣, tab as ⇥."""
    return text.translate(str.maketrans("\n\r \t", "↵←␣⇥"))


def as_array(values: Any, what: str, *shape: int | None) -> np.ndarray:
    """The values as floats of this shape (None: any length); ValueError where none can be drawn."""
    if hasattr(values, "detach"):  # a tensor may carry a gradient, sit on a GPU, be bfloat16
        values = values.detach().cpu().double()
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).any():
        raise ValueError(f"{what}: there is no finite number to draw among {array.size}")
    misfits = [n for n, size in zip(shape, array.shape, strict=False) if n not in (None, size)]
    if misfits or array.ndim != len(shape):
        raise ValueError(f"{what}: the shape is {array.shape}, give {shape} (None: any length)")
    return array


def new_picture(title: str, height: float) -> Picture:
    """An empty picture, 7.5 by `height` inches and more for a long title, set at the top left."""
    title = textwrap.fill(title, 66)
    height += 0.22 * title.count("\n")
    picture = Picture(figsize=(7.5, height), dpi=100, layout="compressed")
    picture.suptitle(title, x=0.01, ha="left")
    return picture


def new_axes(title: str, height: float, **settings) -> tuple[Picture, Axes]:
    """A new picture and its one pair of axes, set so."""
    picture = new_picture(title, height)
    axes = picture.subplots()
    axes.set(**settings)
    return picture, axes


def name_ticks(axis, labels: Sequence[str], inches: float) -> None:
    """Name places `inches` apart, white space visible; in two alternating rows where tight."""
    names = [visible(label) if len(label) == 1 else label for label in labels]
    size = min(11, 72 * inches * 0.78)
    rows = 1 if size > 6.5 else 2
    for i in range(rows):  # the second row is made of minor ticks, which may stand further out
        axis.set_ticks(range(i, len(names), rows), names[i::rows], minor=i == 1, size=size * rows)
    axis.set_tick_params(which="both", length=0)
    axis.set_tick_params(which="minor", pad=size * rows + 6)


def row_axes(labels: Sequence[str], title: str, height: float, **settings) -> tuple[Picture, Axes]:
    """A new picture whose axes have a row for each label, the first on top."""
    picture, axes = new_axes(title, height, ylim=(len(labels) - 0.5, -0.5), **settings)
    axes.grid(visible=False, axis="y")
    name_ticks(axes.yaxis, labels, 0.25)
    return picture, axes


def name_curves(picture: Picture) -> None:
    """Write the name of each curve beside its end, no name over another."""
    [axes] = picture.axes
    axes.margins(x=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=6)
    picture.draw_without_rendering()  # only now is it known how high the axes are
    # matplotlib calls a curve without a name "_child" and a number.
    curves = [line for line in axes.lines if not str(line.get_label()).startswith("_child")]
    points = [np.asarray(curve.get_xydata()) for curve in curves]  # (N, 2) each
    ends = [xy[np.isfinite(xy[:, 1])][-1] for xy in points]
    heights = (axes.transData - axes.transAxes).transform(np.reshape(ends, (-1, 2)))[:, 1]
    order = heights.argsort(kind="stable")
    line = 1.4 * 11 / 72 * picture.dpi / axes.bbox.height  # a line of text, in axes heights
    for _ in range(500):  # neighbours that are too close push each other apart
        push = np.maximum(0, line - np.diff(heights[order])) / 2
        heights[order] += np.append(0, push) - np.append(push, 0)
    look: dict[str, Any] = {"textcoords": "axes fraction", "annotation_clip": False, "va": "center"}
    for curve, end, height in zip(curves, ends, heights, strict=True):
        colour = colors.to_rgb(curve.get_color())
        look["color"] = [0.8 * part for part in colour]  # thin strokes look paler
        leader = {"arrowstyle": "-", "color": colour, "ls": ":", "relpos": (0, 0.5), "shrinkB": 0}
        axes.annotate(str(curve.get_label()), end, (1.03, height), arrowprops=leader, **look)


def place_log_ticks(axis, low: float, high: float) -> None:
    """Where few powers of ten, perhaps none, lie on an axis, name what lies between them too."""
    if high < 1000 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
