"""A drawing of the whole way from text to text (notebook 01)."""

from llmkit.drawings.sketch import FAINT, Sketch

START = "to b"  # what the model has read, and its ids in our vocabulary of 65 characters
IDS = ("58", "53", "1", "40")
GUESSES = {"e": 62, "u": 30, "o": 20, "y": 12, "l": 8}  # next characters; pixels, not percentages


def pipeline() -> Sketch:
    """How a language model writes: text, ids, model, probabilities, one more character, again."""
    drawing = Sketch(720, 234, "How a language model writes, and which notebook makes each part")
    middle = 112
    drawing.cells(20, middle - 13, [START.replace(" ", "␣")], tints=4)
    drawing.cells(170, middle - 13, [IDS], tints=0)
    drawing.box(320, middle - 40, 100, 80, "network", tint=1)
    for row, (character, length) in enumerate(GUESSES.items()):
        y = middle - 46 + 20 * row
        drawing.words(478, y + 7, character, mono=True)
        drawing.box(490, y, length, 14, tint=2)
    drawing.cells(634, middle - 13, ["e"], tints=4)
    for start, end in ((124, 170), (274, 320), (420, 464), (564, 634)):
        drawing.arrow((start, middle), (end, middle))
    drawing.words(599, middle - 12, "draw one", size=12, colour=FAINT)
    parts = {
        72: ("text", "notebook 01"),
        222: ("ids", "02"),
        370: ("model", "03 to 06"),
        514: ("probabilities", "07"),
        647: ("next character", "08"),
    }
    for x, (name, notebook) in parts.items():
        drawing.words(x, 14, name)
        drawing.words(x, 36, notebook, size=12, bold=True, colour=FAINT)
    drawing.arrow((647, middle + 13), (72, middle + 13), via=[(647, 196), (72, 196)])
    drawing.words(360, 214, "append it, and ask again", size=12, colour=FAINT)
    return drawing
