"""The README's picture, a map of the series: `python notebooks/series_map.py` writes it anew.

tests/test_readme.py holds that it is current, has every notebook once, and can be read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from build import NOTEBOOKS, scripts, write

from llmkit.drawings.sketch import EDGES, Sketch

SVG = NOTEBOOKS / "series_map.svg"
RESULTS = NOTEBOOKS.parent / "benchmarks/results"
WIDTH, HEIGHT, GAP, LEFT = 128, 104, 22, 12  # of a station, between two, and beside them
START, IDS = "to b", ("58", "53", "1", "40")


def text(drawing: Sketch, x: float, y: float) -> None:
    drawing.cells(x - 48, y - 12, [START.replace(" ", "␣")], side=24, tints=4, size=14)


def tokens(drawing: Sketch, x: float, y: float) -> None:
    drawing.cells(x - 48, y - 12, [IDS], side=24, tints=4)


def counts(drawing: Sketch, x: float, y: float) -> None:
    """What follows an h in the play: e in 45 of 100 places, a in 23."""
    drawing.words(x - 40, y, "h →", size=14, mono=True)
    for row, (letter, length) in enumerate((("e", 46), ("a", 23))):
        drawing.words(x - 14, y - 9 + 18 * row, letter, size=14, mono=True)
        drawing.box(x - 4, y - 15 + 18 * row, length, 12, tint=2)


def mask(drawing: Sketch, x: float, y: float) -> None:
    """The triangle of attention: no position looks ahead."""
    tints = [[1 if column <= row else None for column in range(4)] for row in range(4)]
    drawing.cells(x - 20, y - 20, [[""] * 4] * 4, side=10, tints=tints)


def falling_loss(drawing: Sketch, x: float, y: float) -> None:
    points = [(x - 44 + 4 * i, y + 18 - 36 * math.exp(-i / 5)) for i in range(23)]
    drawing.arrow(points[0], points[-1], via=points[1:-1], head=False, colour=EDGES[0])


def measured(drawing: Sketch, x: float, y: float) -> None:
    """The held-out loss in nats per character, of a guess and of `python -m llmkit train`."""
    result = json.loads((RESULTS / "main_job-embedded-cpu.json").read_text(encoding="utf-8"))
    drawing.words(x, y - 9, "loss", size=14)
    drawing.words(x, y + 9, f"{math.log(65):.2f} → {result['ours']:.2f}", size=14, mono=True)


def written(drawing: Sketch, x: float, y: float) -> None:
    drawing.cells(x - 55, y - 11, [START.replace(" ", "␣")], side=22, tints=4, size=14)
    drawing.cells(x + 33, y - 11, ["e"], side=22, tints=2, size=14)


def pieces(drawing: Sketch, x: float, y: float) -> None:
    for left, width, piece in ((-52, 28, "to"), (-22, 36, "␣be"), (16, 36, "␣or")):
        drawing.box(x + left, y - 12, width, 24, piece, tint=4, size=14, mono=True)


def adapter(drawing: Sketch, x: float, y: float) -> None:
    """A frozen matrix, and the two thin ones beside it that are trained."""
    drawing.box(x - 46, y - 20, 40, 40, "W", tint=None, size=14, mono=True)
    drawing.words(x + 5, y, "+", size=14)
    drawing.box(x + 16, y - 20, 9, 40, tint=1)
    drawing.box(x + 29, y - 5, 18, 9, tint=1)


def request(drawing: Sketch, x: float, y: float) -> None:
    drawing.words(x, y - 9, "POST", size=14, mono=True)
    drawing.words(x, y + 9, "/generate", size=14, mono=True)


def questions(drawing: Sketch, x: float, y: float) -> None:
    drawing.words(x, y - 9, "recited?", size=14)
    drawing.words(x, y + 9, "biased?", size=14)


def projects(drawing: Sketch, x: float, y: float) -> None:
    drawing.words(x, y - 9, "def main():", size=14, mono=True)
    drawing.words(x, y + 9, "en de fr …", size=14, mono=True)


Station = tuple[str, str, Callable[[Sketch, float, float], None]]
STATIONS: list[list[Station]] = [
    [
        ("text", "01", text),
        ("tokens", "02", tokens),
        ("first models", "03 03b", counts),
        ("the GPT", "04 05 05b", mask),
    ],
    [
        ("trained", "06", falling_loss),
        ("measured", "07", measured),
        ("writing", "08 08b", written),
        ("larger, faster", "09 10 10b 10c", pieces),
    ],
    [
        ("fine-tuned", "11 11b 12 13 13b", adapter),
        ("served", "14", request),
        ("questioned", "15 16", questions),
        ("your project", "17 18", projects),
    ],
]


def series_map() -> Sketch:
    """The way through the series, a station for each thing that is made, with its notebooks."""
    across = 2 * LEFT + 4 * WIDTH + 3 * GAP
    down = len(STATIONS) * (HEIGHT + GAP) - GAP + LEFT
    drawing = Sketch(
        across, down, f"From a text file to a served model, in {len(scripts())} notebooks"
    )
    for row, stations in enumerate(STATIONS):
        for column, (name, notebooks, picture) in enumerate(stations):
            x, y = LEFT + column * (WIDTH + GAP), row * (HEIGHT + GAP)
            drawing.box(x, y, WIDTH, HEIGHT, tint=None)
            middle = x + WIDTH / 2
            drawing.words(middle, y + 16, name, size=14, bold=True)
            picture(drawing, middle, y + 53)
            drawing.words(middle, y + 90, notebooks, size=13, mono=True)
            if column:
                drawing.arrow((x - GAP, y + HEIGHT / 2), (x, y + HEIGHT / 2))
        if row:  # from the end of the row above
            top, right = row * (HEIGHT + GAP), LEFT + 3 * (WIDTH + GAP) + WIDTH / 2
            turn = [(right, top - GAP / 2), (LEFT + WIDTH / 2, top - GAP / 2)]
            drawing.arrow((right, top - GAP), (LEFT + WIDTH / 2, top), via=turn)
    return drawing


def svg() -> str:
    return series_map()._repr_svg_() + "\n"


if __name__ == "__main__":
    write(SVG, svg())
