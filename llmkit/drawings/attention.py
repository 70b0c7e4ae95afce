"""Drawings of attention (notebook 04)."""

from llmkit.drawings.sketch import FAINT, Sketch


def queries_keys_values() -> Sketch:
    """The last of four positions asks: its query meets every key, and the values are averaged."""
    drawing = Sketch(720, 352, "One position asks, and every position up to it answers")
    rail = 172  # the height at which the query passes by the keys
    drawing.arrow((603, 226), (63, rail), via=[(603, rail)], head=False)
    drawing.box(580, 226, 46, 30, "q", tint=1, mono=True)
    drawing.arrow((530, 321), (603, 258), via=[(603, 321)])
    for t, weight in enumerate(("0.1", "0.6", "0.1", "0.2")):
        x = 40 + t * 130
        drawing.box(x, 304, 100, 34, f"x, t = {t}", tint=4)
        drawing.box(x, 226, 46, 30, "k", tint=0, mono=True)
        drawing.box(x + 54, 226, 46, 30, "v", tint=2, mono=True)
        drawing.arrow((x + 40, 304), (x + 23, 258))
        drawing.arrow((x + 60, 304), (x + 77, 258))
        drawing.arrow((x + 23, 226), (x + 23, rail + 12), head=False)
        drawing.circle(x + 23, rail, "·", radius=12, tint=3)
        drawing.arrow((x + 23, rail - 12), (x + 23, 128))
        drawing.box(x, 98, 46, 28, weight, tint=3, mono=True)
        drawing.arrow((x + 46, 112), (x + 65, 112), head=False)
        drawing.arrow((x + 77, 226), (x + 77, 124), head=False)
        drawing.circle(x + 77, 112, "×", radius=12, tint=2)
        drawing.arrow((x + 77, 100), (x + 77, 58))
    drawing.words(706, rail - 16, "scores q · k", anchor="end", colour=FAINT)
    drawing.words(706, 112, "softmax: weights", anchor="end", colour=FAINT)
    drawing.box(40, 26, 490, 30, "weighted sum of the values: what position 3 has read", tint=2)
    return drawing


def heads() -> Sketch:
    """Eight numbers cut into two heads of four; each averages its own slice; joined again."""
    side, T, D = 19, 3, 4
    drawing = Sketch(720, 288, "Each head works on its own slice of the numbers")
    numbers = [[str(8 * t + c) for c in range(2 * D)] for t in range(T)]
    both = [[0] * D + [1] * D for _ in range(T)]
    triangle = [[0 if s <= t else None for s in range(T)] for t in range(T)]
    drawing.cells(24, 110, numbers, side=side, tints=both, size=10)
    drawing.cells(544, 110, [[""] * 8] * T, side=side, tints=both)
    for head, y in enumerate((40, 180)):
        rows = [row[head * D : (head + 1) * D] for row in numbers]
        weights = [[tint if tint is None else head for tint in row] for row in triangle]
        drawing.cells(230, y, rows, side=side, tints=head, size=10)
        drawing.cells(346, y, [[""] * T] * T, side=side, tints=weights)
        drawing.cells(432, y, [[""] * D] * T, side=side, tints=head)
        drawing.arrow((176, 138), (230, y + 28))
        drawing.arrow((306, y + 28), (346, y + 28))
        drawing.arrow((403, y + 28), (432, y + 28))
        drawing.arrow((508, y + 28), (544, 138))
        drawing.words(268, y - 14, f"head {head}", bold=True)
    drawing.words(100, 186, "q, k, v (T, C)", mono=True, size=12)
    drawing.words(268, 252, "(H, T, D)", mono=True, size=12)
    drawing.words(374, 252, "weights", size=12)
    drawing.words(470, 252, "averages", size=12)
    drawing.words(620, 186, "(T, C)", mono=True, size=12)
    return drawing
