"""Drawings of the projects (notebook 17)."""

from llmkit.drawings.sketch import Sketch


def fill_in_the_middle() -> Sketch:
    """A file cut in three, and its parts put into another order for training."""
    drawing = Sketch(740, 268, "Put the gap last, and writing it is writing on")
    drawing.words(20, 22, "the file", anchor="start", bold=True)
    drawing.box(20, 40, 180, 40, "def area(w, h):↵", tint=0, mono=True, size=11)
    drawing.box(208, 40, 180, 40, "    size = w * h↵", tint=1, mono=True, size=11)
    drawing.box(396, 40, 180, 40, "    return size↵", tint=2, mono=True, size=11)
    drawing.words(110, 94, "before the gap", size=11)
    drawing.words(298, 94, "the gap", size=11)
    drawing.words(486, 94, "after the gap", size=11)

    drawing.words(20, 160, "for training", anchor="start", bold=True)
    x = 20
    for word, text, tint in (
        ("<prefix>", "def area(w, h):↵", 0),
        ("<suffix>", "    return size↵", 2),
        ("<middle>", "    size = w * h↵", 1),
    ):
        drawing.box(x, 178, 68, 40, word, tint=4, mono=True, size=11)
        drawing.box(x + 72, 178, 140, 40, text, tint=tint, mono=True, size=11)
        x += 216
    drawing.box(x, 178, 52, 40, "<end>", tint=4, mono=True, size=11)
    drawing.arrow((110, 104), (162, 176))
    drawing.arrow((298, 104), (594, 176))
    drawing.arrow((486, 104), (378, 176))
    drawing.words(234, 238, "what the editor knows", size=11)
    drawing.words(590, 238, "what the model writes", size=11)
    return drawing
