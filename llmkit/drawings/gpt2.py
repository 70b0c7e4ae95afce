"""Drawings of GPT-2's weights (notebook 11)."""

from llmkit.drawings.sketch import FAINT, Sketch

# Our name, its shape in transformers' GPT-2, and in our GPT where that is another one.
BLOCK = (
    ("ln_1", "(C,)", ""),
    ("attn.c_attn", "(C, 3C)", "(3C, C)"),
    ("attn.c_proj", "(C, C)", "(C, C)"),
    ("ln_2", "(C,)", ""),
    ("mlp.c_fc", "(C, 4C)", "(4C, C)"),
    ("mlp.c_proj", "(4C, C)", "(C, 4C)"),
)


def weight_names() -> Sketch:
    """The weights of GPT-2 in transformers and in our GPT, those that have to be turned marked."""
    drawing = Sketch(740, 446, "Same parts, same order; four matrices of a block lie on their side")
    left, right, wide, high = 40, 410, 290, 32
    drawing.words(left + wide / 2, 12, "transformers", bold=True)
    drawing.words(right + wide / 2, 12, "our GPT", bold=True)
    y = 30

    def row(name: str, theirs: str, ours: str = "", block: str = "") -> None:
        nonlocal y
        turned = bool(ours)
        for x, prefix, shape in ((left, "transformer.", theirs), (right, "", ours or theirs)):
            text = prefix + block + name
            drawing.box(x, y, wide, high, tint=1 if turned else 0)
            drawing.words(x + 12, y + high / 2, text, size=12, mono=True, anchor="start")
            drawing.words(x + wide - 12, y + high / 2, shape, size=12, mono=True, anchor="end")
        middle = y + high / 2
        text = "turn" if turned else ""
        drawing.arrow((left + wide + 4, middle), (right - 4, middle), text, shift=(0, -9))
        y += high + 8

    row("wte", "(V, C)")
    row("wpe", "(T, C)")
    top = y - 1
    y += 8
    for name, theirs, ours in BLOCK:
        row(name, theirs, ours, "h.0.")
    for x in (left - 10, right - 10):
        drawing.box(x, top, wide + 20, y - top, tint=None, dashed=True)
    y += 10
    row("ln_f", "(C,)")
    drawing.words(
        370,
        y + 16,
        "norms and layers have biases too; h.1, h.2, ... are as h.0; the output layer is wte again",
        size=12,
        colour=FAINT,
    )
    return drawing
