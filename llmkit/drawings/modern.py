"""A drawing of what has changed since GPT-2 (notebook 11b)."""

from llmkit.drawings.sketch import FAINT, Sketch

CHANGES = (  # what of the model, in 2019, since then, and its tint as in the drawing of a block
    ("positions", "a learned row is added", "queries and keys are turned", 4),
    ("norms", "mean off, then divided by spread", "divided by the size alone", 3),
    ("feed-forward", "two matrices and a GELU", "three matrices, one is a gate", 2),
    ("keys, values", "a head for each head of queries", "a head for several heads of queries", 1),
    ("scores", "as large as they come", "of queries and keys that are normed", 1),
    ("mask", "the whole past may be seen", "the last few positions may", 1),
    ("feed-forward", "one for all tokens", "many, and a token takes a few", 2),
)


def modern_changes() -> Sketch:
    """What of GPT-2 is done otherwise in open models of today, and in which of its parts."""
    drawing = Sketch(740, 372, "Seven changes stand between GPT-2 and the models of today")
    drawing.words(246, 14, "GPT-2, 2019", bold=True)
    drawing.words(574, 14, "since then", bold=True)
    for number, (part, before, after, tint) in enumerate(CHANGES, 1):
        y = 32 + 48 * (number - 1)
        drawing.words(108, y + 17, part, anchor="end", size=12, colour=FAINT)
        drawing.box(118, y, 256, 34, before, tint=None)
        drawing.arrow((374, y + 17), (396, y + 17))
        drawing.circle(410, y + 17, str(number), tint=tint)
        drawing.box(432, y, 288, 34, after, tint=tint)
    return drawing
