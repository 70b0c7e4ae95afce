"""Drawings of the transformer: its block, the whole model, what may be varied (05, 05b)."""

import math

from llmkit.drawings.sketch import EDGES, FAINT, Sketch


def block() -> Sketch:
    """The stream runs through; attention and feed-forward read it through a norm, and add to it."""
    drawing = Sketch(740, 270, "A block reads the stream twice, and adds to it twice")
    drawing.box(20, 190, 670, 26, tint=4)
    drawing.words(36, 203, "stream (B, T, C)", anchor="start", size=12)
    drawing.arrow((690, 203), (724, 203))
    layers = (
        (170, "attention", "fetches from earlier positions", 1),
        (440, "feed-forward", "works on each position alone", 2),
    )
    for x, name, about, tint in layers:
        drawing.arrow((x, 190), (x, 134))
        drawing.box(x - 45, 104, 90, 30, "norm", tint=3)
        drawing.arrow((x, 104), (x, 64))
        drawing.box(x - 45, 24, 180, 40, name, tint=tint, bold=True)
        drawing.words(x + 45, 10, about, size=12, colour=FAINT)
        drawing.arrow((x + 110, 64), (x + 110, 189))
        drawing.circle(x + 110, 203, "+", radius=13, tint=tint)
        drawing.words(x - 8, 162, "read", anchor="end", size=12, colour=FAINT)
        drawing.words(x + 118, 162, "add", anchor="start", size=12, colour=FAINT)
    drawing.words(355, 244, "x = x + attention(norm(x))", mono=True, size=12, anchor="end")
    drawing.words(640, 244, "x = x + feed_forward(norm(x))", mono=True, size=12, anchor="end")
    return drawing


def gpt_architecture() -> Sketch:
    """From the characters of a text, at the bottom, to the scores of the next ones, at the top."""
    drawing = Sketch(720, 470, "From a text to scores for each next character")
    columns = [190 + t * 90 for t in range(4)]
    for x, now, coming in zip(columns, "To␣b", "o␣be", strict=True):
        drawing.cells(x - 15, 428, [[now]], side=30, tints=None, size=14)
        drawing.arrow((x, 428), (x, 404))
        drawing.arrow((x, 370), (x, 330))
        drawing.arrow((x, 138), (x, 120))
        drawing.arrow((x, 86), (x, 50))
        drawing.cells(x - 15, 20, [[coming]], side=30, tints=0, size=14)
    parts = (
        (370, 34, "character's row + position's row", 4),
        (296, 34, "block 0", 0),
        (250, 34, "block 1", 0),
        (204, 34, "block 2", 0),
        (138, 34, "last norm", 3),
        (86, 34, "character table again: one score each", 4),
    )
    for y, height, text, tint in parts:
        drawing.box(150, y, 350, height, text, tint=tint)
    for x in columns:
        for bottom in (296, 250, 204):
            drawing.arrow(
                (x, bottom), (x, bottom - 12 if bottom > 204 else 172), head=bottom == 204
            )
    side = (
        (443, "text", "(B, T) ids"),
        (387, "wte + wpe", "(B, T, C)"),
        (267, "h", "(B, T, C)"),
        (155, "ln_f", "(B, T, C)"),
        (103, "lm_head", "(B, T, V)"),
    )
    for y, name, shape in side:
        drawing.words(136, y, name, anchor="end", mono=True)
        drawing.words(520, y, shape, anchor="start", mono=True, size=12, colour=FAINT)
    drawing.words(136, 35, "likely next", anchor="end")
    return drawing


def _clock(drawing: Sketch, x: float, y: float, angles: tuple[float, float], name: str) -> None:
    """A face with two hands, that of the key in orange and that of the query in blue."""
    drawing.circle(x, y, radius=62, tint=4)
    for letter, degrees, colour in zip("kq", angles, (EDGES[1], EDGES[0]), strict=True):
        along = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        drawing.arrow((x, y), (x + 58 * along[0], y + 58 * along[1]), colour=colour)
        drawing.words(x + 76 * along[0], y + 76 * along[1], letter, colour=colour, mono=True)
    drawing.words(x, y + 112, name, size=12)


def rotary_turns() -> Sketch:
    """A query and a key as hands of a clock, at three pairs of positions."""
    drawing = Sketch(720, 240, "The angle between them depends on how far apart they stand")
    _clock(drawing, 130, 92, (20, 60), "q and k at position 0\n0 apart: 40°")
    _clock(drawing, 360, 92, (20 + 25, 60 + 75), "q at position 3, k at 1\n2 apart: 90°")
    _clock(drawing, 590, 92, (20 + 125, 60 + 175), "q at position 7, k at 5\n2 apart: 90°")
    return drawing


def norm_places() -> Sketch:
    """The two orders: on the way to a layer, or on the stream behind the sum."""
    drawing = Sketch(720, 250, "Norm before: only the layer sees it. Norm after: the stream does")
    for left, name in ((30, "norm before (GPT-2)"), (390, "norm after (2017)")):
        drawing.words(left + 150, 14, name, bold=True)
        drawing.box(left, 190, 272, 26, tint=4)
        drawing.arrow((left + 272, 203), (left + 306, 203))
        drawing.words(left + 14, 203, "stream", anchor="start", size=12)
    drawing.box(120, 44, 100, 34, "layer", tint=1, bold=True)
    drawing.box(93, 116, 80, 30, "norm", tint=3)
    drawing.arrow((133, 190), (133, 148))
    drawing.arrow((133, 116), (133, 80))
    drawing.arrow((207, 78), (207, 189))
    drawing.circle(207, 203, "+", radius=13, tint=1)
    drawing.box(480, 44, 100, 34, "layer", tint=1, bold=True)
    drawing.arrow((493, 190), (493, 80))
    drawing.arrow((567, 78), (567, 189))
    drawing.circle(567, 203, "+", radius=13, tint=1)
    drawing.box(590, 185, 62, 36, "norm", tint=3)
    return drawing
