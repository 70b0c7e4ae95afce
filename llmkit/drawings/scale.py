"""Drawings of what scale costs (notebook 10b)."""

from llmkit.drawings.sketch import FAINT, Sketch


def checkpointing() -> Sketch:
    """Four blocks and what is kept of each: all; the inputs only; one computed again."""
    drawing = Sketch(720, 290, "Keep the input of each block, and compute the rest again")
    rows = {  # for each block: is the input kept, is the rest of it kept
        "keep everything": [(1, 1), (1, 1), (1, 1), (1, 1)],
        "keep the inputs": [(1, 0), (1, 0), (1, 0), (1, 0)],
        "later, going\nbackward": [(1, 0), (1, 0), (1, 1), (0, 0)],
    }
    for i, (name, blocks) in enumerate(rows.items()):
        y = 30 + 84 * i
        drawing.words(20, y + 17, name, anchor="start")
        for j, (first, rest) in enumerate(blocks):
            x = 170 + 138 * j
            drawing.box(x, y, 34, 34, "in", tint=1 if first else None, dashed=not first, size=12)
            tint = 0 if rest else None
            drawing.box(x + 40, y, 64, 34, "rest", tint=tint, dashed=not rest, size=12)
            if j < 3:
                ends = (x + 106, y + 17), (x + 136, y + 17)
                drawing.arrow(*(ends[::-1] if i == 2 else ends))
    for j in range(4):
        drawing.words(170 + 138 * j + 52, 12, f"block {j + 1}", colour=FAINT, size=12)
    drawing.words(498, 252, "computed again\nfrom its input", size=12, colour=FAINT)
    drawing.words(636, 252, "done,\nforgotten", size=12, colour=FAINT)
    return drawing


def accumulation() -> Sketch:
    """Four parts of a batch one after the other: their gradients add up, one update follows."""
    drawing = Sketch(720, 250, "One update from four parts: gradients add up, activations go")
    drawing.words(20, 27, "the batch", anchor="start")
    drawing.words(20, 97, "activations", anchor="start")
    drawing.words(20, 187, "gradients", anchor="start")
    for j in range(4):
        x = 120 + 120 * j
        drawing.cells(x, 14, [["", "", "", ""]], side=24, tints=j)
        drawing.box(x, 76, 96, 42, f"of part {j + 1}", tint=j)
        drawing.arrow((x + 48, 40), (x + 48, 74))
        drawing.arrow((x + 48, 118), (x + 48, 164), "+" if j else "", shift=(12, 0), size=15)
        drawing.box(x, 166, 96, 42, " + ".join("1234"[: j + 1]), tint=4, size=12)
        if j:
            drawing.arrow((x - 24, 187), (x - 2, 187))
    drawing.arrow((576, 187), (604, 187))
    drawing.box(606, 166, 94, 42, "one update", tint=4, bold=True)
    drawing.words(120, 232, "time →", anchor="start", colour=FAINT, size=12)
    drawing.words(606, 97, "each is gone\nbefore the next", anchor="start", colour=FAINT, size=12)
    return drawing
