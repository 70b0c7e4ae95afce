"""Drawings of fine-tuning (notebook 12)."""

from llmkit.drawings.sketch import FAINT, Sketch


def low_rank_adapter() -> Sketch:
    """A frozen matrix, and beside it the detour through two thin ones."""
    drawing = Sketch(720, 270, "W stays as it is; a narrow detour is trained beside it")
    drawing.box(20, 112, 60, 44, "x", tint=4, mono=True)
    drawing.box(170, 20, 190, 100, "W\nfrozen, out × in", tint=None)
    drawing.box(170, 180, 190, 30, "A: r × in", tint=1)
    drawing.box(440, 165, 30, 60, "B", tint=1, mono=True)
    drawing.words(455, 240, "out × r", size=12)
    drawing.words(400, 184, "r numbers", size=12, colour=FAINT)
    drawing.arrow((80, 124), (170, 70), via=[(125, 124), (125, 70)])
    drawing.arrow((80, 144), (170, 195), via=[(125, 144), (125, 195)])
    drawing.arrow((360, 195), (440, 195))
    drawing.circle(560, 132, "+", radius=16, tint=2)
    drawing.arrow((360, 70), (560, 116), via=[(560, 70)])
    drawing.arrow((470, 195), (560, 148), via=[(560, 195)])
    drawing.words(516, 184, "× α/r", size=12, colour=FAINT)
    drawing.arrow((576, 132), (640, 132))
    drawing.box(640, 110, 60, 44, "y", tint=4, mono=True)
    return drawing
