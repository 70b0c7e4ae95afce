"""Drawings of what a model remembers, and of what is asked about it (notebooks 15 and 16)."""

from llmkit.drawings.sketch import FAINT, Sketch


def exposure_rank() -> Sketch:
    """All candidates, likeliest first; how far up the true one stands, in bits."""
    drawing = Sketch(720, 244, "Exposure: how far up the list of all candidates the secret stands")
    codes = ("0907", "4821", "7310", "1155", "6034", "2999", "8108", "3470")
    drawing.words(40, 22, "likeliest", anchor="start", colour=FAINT)
    drawing.words(680, 22, "least likely", anchor="end", colour=FAINT)
    drawing.arrow((118, 22), (590, 22))
    for place, code in enumerate(codes):
        x = 40 + place * 80
        tint = 1 if place == 1 else None
        drawing.box(x, 44, 72, 34, code, tint=tint, mono=True, bold=place == 1)
        drawing.words(x + 36, 94, f"rank {place + 1}", size=12, colour=FAINT)
    drawing.words(156, 120, "the secret", bold=True)
    for bits, last in ((0, 8), (1, 4), (2, 2), (3, 1)):
        y = 150 + bits * 24
        right = 40 + last * 80 - 8
        drawing.arrow((40, y), (right, y), head=False, colour="#C2571A" if bits == 2 else FAINT)
        text = f"rank {last} or better: {bits} bit{'' if bits == 1 else 's'}"
        if last == 8:
            text = "rank 8: 0 bits"
            drawing.words(360, y - 11, text, size=12, colour=FAINT)
        else:
            drawing.words(right + 12, y, text, size=12, anchor="start", bold=bits == 2)
    return drawing


def clip_and_noise() -> Sketch:
    """Three examples' gradients; each is clipped, they are added, and noise is added once."""
    drawing = Sketch(720, 250, "DP-SGD: no example adds more than a length C, and noise hides that")
    names = ("example 1", "example 2", "example 3")
    for i, (name, length) in enumerate(zip(names, (70, 190, 110), strict=True)):
        y = 62 + i * 62
        drawing.words(30, y, name, anchor="start")
        drawing.arrow((116, y), (116 + length, y), colour="#0072B2")
        short = min(length, 100)
        drawing.arrow((366, y), (366 + short, y), colour="#0072B2")
        drawing.arrow((490, y), (542, 112 + 12 * i), dashed=True)
    drawing.words(200, 22, "each its own gradient", colour=FAINT)
    drawing.words(416, 22, "shortened to C", colour=FAINT)
    drawing.arrow((466, 36), (466, 206), head=False, dashed=True)
    drawing.words(466, 220, "C", bold=True)
    drawing.circle(560, 124, "+", radius=18)
    drawing.box(500, 212, 120, 30, "noise, σ C", tint=1)
    drawing.arrow((560, 212), (560, 144))
    drawing.arrow((580, 124), (622, 124))
    drawing.box(624, 104, 86, 40, "the step", tint=2)
    return drawing


def paired_probe() -> Sketch:
    """A sentence twice, one word apart; the difference of two log-probabilities."""
    drawing = Sketch(720, 216, "A paired probe: one sentence twice, and only one word apart")
    drawing.box(24, 76, 176, 36, "The nurse said that", tint=4)
    drawing.words(112, 130, "given", size=12, colour=FAINT)
    for word, tint, y, number in (("she", 1, 26, "−31.2"), ("he", 0, 126, "−31.6")):
        drawing.arrow((200, 94), (244, y + 18))
        drawing.box(246, y, 60, 36, word, tint=tint, bold=True)
        drawing.box(312, y, 156, 36, "was late for the", tint=None)
        drawing.arrow((468, y + 18), (510, y + 18))
        drawing.words(516, y + 18, f"log p = {number}", anchor="start", size=12)
        drawing.arrow((626, y + 18), (660, 80 if word == "she" else 110))
    drawing.words(356, 94, "all of this counts", size=12, colour=FAINT)
    drawing.box(630, 80, 74, 30, "+0.4", tint=2, bold=True)
    drawing.words(700, 190, "above 0: she is the likelier, in nats", anchor="end", colour=FAINT)
    return drawing
