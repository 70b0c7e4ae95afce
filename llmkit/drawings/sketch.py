"""A schematic drawing as SVG: boxes, cells, arrows and words in the colours of `plots`.

It brings its own pale ground, so that it reads the same on a white page, on a black one and on
GitHub. Lengths are in pixels, y grows downwards. Its text form is its message, which is also what
a screen reader says.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from llmkit.picture import COLOURS, TINTS

EDGES = (*COLOURS[:4], "#A67C00")  # around TINTS

INK, FAINT, GROUND = "#1F2328", "#6E7781", "#FBFBF8"
FONT = "'DejaVu Sans', Verdana, Arial, sans-serif"
MONO = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
LINE = 17  # pixels from one line of words to the next


class Sketch:
    """A drawing of `width` by `height` pixels whose `message` is one sentence."""

    def __init__(self, width: int, height: int, message: str) -> None:
        self.width, self.height, self.message = width, height, message
        self.parts: list[str] = []

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "middle",
        mono: bool = False,
    ) -> None:
        """Text whose middle is at y; several lines, parted by a newline, are set around it.

        anchor: which end stands at x: "start", "middle" or "end". mono: as code, and as characters
        of a text.
        """
        lines = text.split("\n")
        weight = "bold" if bold else "normal"
        for i, line in enumerate(lines):
            middle = y + (i - (len(lines) - 1) / 2) * LINE * size / 13
            self.parts.append(
                f'<text x="{x:g}" y="{middle + size * 0.35:.1f}" font-size="{size}" fill="{colour}"'
                f' text-anchor="{anchor}" font-family="{MONO if mono else FONT}"'
                f' font-weight="{weight}">{html.escape(line)}</text>'
            )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        *,
        tint: int | None = 0,
        size: int = 13,
        mono: bool = False,
        bold: bool = False,
        dashed: bool = False,
    ) -> None:
        """A box with text in its middle; x, y: its upper left corner. tint: a number of
        `picture.TINTS`, or None: not filled."""
        fill = "none" if tint is None else TINTS[tint]
        stroke = FAINT if tint is None else EDGES[tint]
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"'
            f' fill="{fill}" stroke="{stroke}" stroke-width="1.5"{dashes}/>'
        )
        if text:
            self.words(x + width / 2, y + height / 2, text, size=size, mono=mono, bold=bold)

    def cells(
        self,
        x: float,
        y: float,
        rows: Sequence[Sequence[str]],
        *,
        side: float = 26,
        tints: Sequence[Sequence[int | None]] | int | None = 0,
        size: int = 12,
        mono: bool = True,
    ) -> None:
        """A grid of square cells, `side` pixels each, with a word in each: a matrix, a row of
        characters. tints: one for all, or one a cell (None: white)."""
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                tint = tints if tints is None or isinstance(tints, int) else tints[i][j]
                fill = "#FFFFFF" if tint is None else TINTS[tint]
                self.parts.append(
                    f'<rect x="{x + j * side:g}" y="{y + i * side:g}" width="{side:g}"'
                    f' height="{side:g}" fill="{fill}" stroke="{FAINT}"/>'
                )
                if text:
                    middle = x + (j + 0.5) * side, y + (i + 0.5) * side
                    self.words(*middle, text, size=size, mono=mono)

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        text: str = "",
        *,
        colour: str = FAINT,
        via: Sequence[tuple[float, float]] = (),
        dashed: bool = False,
        head: bool = True,
        shift: tuple[float, float] = (0, -10),
        size: int = 12,
        anchor: str = "middle",
    ) -> None:
        """A line with a head from start to end, by way of the points in `via`. text stands at the
        middle of its first stretch, shifted by `shift`."""
        points = [start, *via, end]
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        along = (x1 - x0) / length, (y1 - y0) / length
        line = [*points[:-1], (x1 - 6 * along[0], y1 - 6 * along[1]) if head else end]
        path = " ".join(f"{x:g},{y:g}" for x, y in line)
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.7"{dashes}/>'
        )
        if head:
            back, side = (x1 - 9 * along[0], y1 - 9 * along[1]), (-4 * along[1], 4 * along[0])
            corners = (
                (x1, y1),
                (back[0] + side[0], back[1] + side[1]),
                (back[0] - side[0], back[1] - side[1]),
            )
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
            self.parts.append(f'<polygon points="{path}" fill="{colour}"/>')
        if text:
            (xa, ya), (xb, yb) = points[:2]
            middle = (xa + xb) / 2 + shift[0], (ya + yb) / 2 + shift[1]
            self.words(*middle, text, size=size, colour=colour, anchor=anchor)

    def circle(
        self, x: float, y: float, text: str = "", *, radius: float = 14, tint: int = 0
    ) -> None:
        """A circle around (x, y): an operation, a node of a graph."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{TINTS[tint]}"'
            f' stroke="{EDGES[tint]}" stroke-width="1.5"/>'
        )
        if text:
            self.words(x, y, text)

    def _repr_svg_(self) -> str:
        message = html.escape(self.message, quote=True)
        title = (
            f'<text x="14" y="24" font-size="14" fill="{INK}" font-family="{FONT}">{message}</text>'
        )
        ground = (
            f'<rect width="{self.width}" height="{self.height + 36}" rx="8" fill="{GROUND}"'
            f' stroke="#D0D7DE"/>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}"'
            f' height="{self.height + 36}" viewBox="0 0 {self.width} {self.height + 36}"'
            f' role="img" aria-label="{message}">{ground}{title}'
            f'<g transform="translate(0 36)">{"".join(self.parts)}</g></svg>'
        )

    def __repr__(self) -> str:
        return f"<drawing: {self.message}>"
