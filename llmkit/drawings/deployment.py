"""Drawings of a served model (notebook 14)."""

from llmkit.drawings.sketch import FAINT, Sketch


def request_to_worker() -> Sketch:
    """A request's way: through the door, into a bounded line, to the one worker, and back."""
    drawing = Sketch(740, 306, "Many may ask, a few may wait, one is served")
    for row, name in enumerate(("a phone", "an editor", "a script")):
        drawing.box(20, 40 + 54 * row, 96, 36, name, tint=4)
        drawing.arrow((116, 58 + 54 * row), (202, 112), via=[(150, 58 + 54 * row), (176, 112)])
    drawing.words(68, 20, "clients", bold=True)

    drawing.box(204, 76, 104, 72, "the door", tint=0, bold=True)
    drawing.words(256, 58, "http://127.0.0.1:8000", size=11, mono=True)
    drawing.arrow((308, 112), (366, 112))
    for place, name in enumerate(("", "third", "second", "first")):
        tint = 1 if name else None
        drawing.box(370 + 40 * place, 92, 40, 40, name, tint=tint, size=10, dashed=not name)
    drawing.words(450, 68, "the queue: so many places", size=12)
    drawing.arrow((530, 112), (590, 112))
    drawing.box(594, 66, 126, 92, "the worker:\none thread\nwith the model", tint=2)

    drawing.arrow((256, 148), (256, 206), colour=FAINT)
    drawing.words(256, 218, "400, 403, 413", size=12, mono=True)
    drawing.words(256, 234, "no: mend your request", size=11)
    drawing.arrow((450, 132), (450, 206))
    drawing.words(450, 218, "429", size=12, mono=True)
    drawing.words(450, 234, "no: try again in a second", size=11)
    drawing.arrow((657, 158), (68, 190), via=[(657, 276), (68, 276)])
    drawing.words(362, 288, "200 and the text, piece by piece", size=12)
    return drawing


def joining_and_leaving() -> Sketch:
    """Five texts, a cell for each token: one after the other, and together in three places."""
    drawing = Sketch(740, 226, "A text joins when there is room, and leaves when it ends")
    side, left = 34, 112
    texts = {"A": (6, 0), "B": (2, 1), "C": (4, 2), "D": (3, 3), "E": (3, 4)}  # tokens, tint

    def row(y: float, start: int, name: str) -> None:
        tokens, tint = texts[name]
        drawing.cells(left + start * side, y, [[name] * tokens], side=side, tints=tint)

    drawing.words(left - 14, 43, "one after\nthe other", anchor="end")
    for start, name in zip((0, 6, 8, 12, 15), texts, strict=True):
        row(26, start, name)
    drawing.words(left - 14, 139, "together", anchor="end")
    for y, start, name in (
        (88, 0, "A"),
        (122, 0, "B"),
        (122, 2, "D"),
        (156, 0, "C"),
        (156, 4, "E"),
    ):
        row(y, start, name)
    drawing.words(
        left + 7 * side + 16, 122, "D joins at the step after B has left,", anchor="start"
    )
    drawing.words(left + 7 * side + 16, 142, "while A and C go on", anchor="start")
    drawing.arrow((left, 206), (left + 18 * side, 206), colour=FAINT)
    drawing.words(left - 14, 206, "steps", anchor="end")
    return drawing
