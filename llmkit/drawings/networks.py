"""Drawings of how a loss is computed: its graph, and a network over a window (notebook 03b)."""

from llmkit.drawings.sketch import FAINT, Sketch
from llmkit.picture import COLOURS


def autograd_graph() -> Sketch:
    """(w x + b - target)² as a graph: values from left to right, slopes from right to left."""
    drawing = Sketch(740, 300, "Values go from left to right, slopes from right to left")
    numbers = {  # name: (x, y, value, slope)
        "w": (24, 28, "2", "−18"),
        "x": (24, 98, "3", "−12"),
        "b": (24, 168, "1", "−6"),
        "-target": (24, 238, "−10", "−6"),
        "product": (190, 63, "6", "−6"),
        "prediction": (340, 115, "7", "−6"),
        "error": (490, 177, "−3", "−6"),
        "loss": (650, 177, "9", "1"),
    }
    for name, (x, y, value, slope) in numbers.items():
        drawing.words(x + 35, y - 10, name, size=12, colour=FAINT)
        drawing.cells(x, y, [[value, slope]], side=35, tints=[[0, 1]], size=13)
    operations = {"×": (140, 81), "+": (300, 133), "+ ": (440, 195), "× ": (605, 195)}
    for name, (x, y) in operations.items():
        drawing.circle(x, y, name.strip(), tint=4)
    # from a number to the operation, and from the operation to its result
    for start, end in [
        ((94, 46), (128, 73)),
        ((94, 116), (128, 89)),
        ((154, 81), (190, 81)),
        ((260, 81), (289, 123)),
        ((94, 186), (287, 139)),
        ((314, 133), (340, 133)),
        ((410, 133), (431, 184)),
        ((94, 256), (427, 201)),
        ((454, 195), (490, 195)),
        ((560, 188), (591, 190)),
        ((560, 202), (591, 200)),
        ((619, 195), (650, 195)),
    ]:
        drawing.arrow(start, end)
    drawing.box(500, 28, 20, 20, tint=0)
    drawing.words(530, 38, "value", size=12, anchor="start")
    drawing.box(590, 28, 20, 20, tint=1)
    drawing.words(620, 38, "slope of the loss", size=12, anchor="start")
    drawing.words(575, 228, "two arrows: add", size=12, colour=FAINT)
    return drawing


def context_window() -> Sketch:
    """Four characters, their rows side by side, a hidden layer, and a score for each character."""
    drawing = Sketch(756, 400, "Each place in the window has weights of its own")
    for slot, character in enumerate("o␣be"):
        x, tint = 60 + slot * 138, slot
        drawing.box(x + 42, 350, 36, 32, character, tint=tint, mono=True, size=15)
        drawing.arrow((x + 60, 350), (x + 60, 300))
        drawing.cells(x, 272, [[""] * 5], side=24, tints=tint)
        drawing.arrow((x + 60, 272), (x + 60, 198), colour=COLOURS[slot])
    drawing.words(630, 326, "look up a row\nof C numbers", size=12, anchor="start", colour=FAINT)
    drawing.words(630, 235, "k · C · H weights", size=12, anchor="start", colour=FAINT)
    drawing.box(60, 160, 534, 36, "hidden layer: H numbers, through tanh", tint=4)
    drawing.arrow((327, 160), (327, 114))
    drawing.words(630, 136, "H · V weights", size=12, anchor="start", colour=FAINT)
    drawing.box(60, 76, 534, 36, "a logit for each of V characters", tint=4)
    drawing.arrow((327, 76), (327, 44))
    drawing.words(327, 26, "softmax: what comes next?", size=13)
    return drawing
