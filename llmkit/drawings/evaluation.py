"""Drawings of how a model is measured (notebook 07)."""

from llmkit.drawings.sketch import FAINT, Sketch

SIDE = 32  # of a character's cell, in pixels


def _windows(drawing: Sketch, y: float, text: str, stride: int) -> None:
    """A row for each window of four: what it only reads, and what of its predictions counts."""
    reached = 0  # the last character that counts so far
    for row, start in enumerate(range(0, len(text) - 4, stride)):
        top = y + row * (SIDE + 6)
        places = range(start, start + 5)  # four are read, and each has one after it
        names = [str(place - start) if place > reached else "" for place in places]
        tints = [0 if place > reached else None for place in places]
        drawing.cells(190 + start * SIDE, top, [names], side=SIDE, tints=[tints], size=13)
        reached = start + 4


def strided_windows() -> Sketch:
    """Windows of four characters over one text, side by side and overlapping."""
    text = "to␣be␣or␣not␣"
    drawing = Sketch(650, 456, "Windows that overlap leave no character with little to go by")
    drawing.words(170, 32, "the text", anchor="end")
    drawing.cells(190, 16, [list(text)], side=SIDE, tints=4, size=14)
    drawing.words(170, 124, "stride 4:\nside by side", anchor="end")
    _windows(drawing, 70, text, stride=4)
    drawing.words(170, 292, "stride 2:\noverlapping", anchor="end")
    _windows(drawing, 200, text, stride=2)
    drawing.cells(60, 408, [["3"]], side=SIDE, size=13)
    drawing.words(104, 424, "counts, with 3 characters in view", anchor="start", colour=FAINT)
    drawing.cells(390, 408, [[""]], side=SIDE, tints=None)
    drawing.words(434, 424, "is only read", anchor="start", colour=FAINT)
    return drawing
