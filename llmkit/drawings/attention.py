"""Drawings of attention (notebook 04)."""

from llmkit.drawings.sketch import Sketch


def queries_keys_values() -> Sketch:
    """One position's row becomes three; the last of four positions asks the other keys."""
    drawing = Sketch(720, 330, "One position asks, all earlier ones answer")
    names = ("t = 0", "t = 1", "t = 2", "t = 3")
    for t, name in enumerate(names):
        x = 40 + t * 130
        drawing.box(x, 270, 100, 34, f"x, {name}", tint=4)
        drawing.box(x, 190, 46, 30, "k", tint=0, mono=True)
        drawing.box(x + 54, 190, 46, 30, "v", tint=2, mono=True)
        drawing.arrow((x + 40, 270), (x + 23, 222))
        drawing.arrow((x + 60, 270), (x + 77, 222))
    drawing.box(580, 190, 46, 30, "q", tint=1, mono=True)
    drawing.arrow((530, 287), (603, 222), via=[(603, 287)])
    weights = ("0.1", "0.6", "0.1", "0.2")
    for t, weight in enumerate(weights):
        x = 40 + t * 130
        drawing.words(x + 23, 150, "q · k", size=12, mono=True)
        drawing.arrow((x + 23, 190), (x + 23, 164), head=False)
        drawing.box(x, 100, 46, 28, weight, tint=1, mono=True)
        drawing.arrow((x + 23, 140), (x + 23, 130))
        drawing.arrow((x + 77, 190), (x + 77, 66), via=[(x + 77, 100)])
        drawing.words(x + 62, 114, "×", size=15)
    drawing.words(660, 150, "scores", anchor="end", colour="#6E7781")
    drawing.words(660, 114, "softmax", anchor="end", colour="#6E7781")
    drawing.box(
        40, 34, 490, 30, "the weighted sum of the values: what position 3 takes away", tint=2
    )
    return drawing
