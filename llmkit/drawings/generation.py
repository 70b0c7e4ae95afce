"""Drawings of how text is made (notebooks 08 and 08b)."""

from llmkit.drawings.sketch import FAINT, Sketch


def kv_cache() -> Sketch:
    """Four characters have been read; of the fifth come a query, a key and a value."""
    drawing = Sketch(
        720, 352, "Keys and values of the past are kept; only the new character is read"
    )
    places = [44 + t * 96 for t in range(4)]
    new = 480  # where the fifth stands, apart
    drawing.box(26, 90, 378, 140, tint=None, dashed=True)
    for x, character in zip([*places, new], "To␣be", strict=True):
        drawing.arrow((x + 27, 110), (x + 27, 56), head=False)
        drawing.box(x, 110, 54, 38, "k", tint=0, mono=True)
        drawing.box(x, 172, 54, 38, "v", tint=2, mono=True)
        tint = 4 if x == new else None
        drawing.box(x, 296, 54, 38, character, tint=tint, mono=True, size=15)
    drawing.box(26, 18, 508, 38, "one query meets all keys: a weight for each value", tint=1)
    drawing.words(215, 248, "the cache: computed at earlier steps", colour=FAINT, size=12)
    drawing.words(215, 278, "not read again", colour=FAINT, size=12)
    drawing.arrow((new + 27, 296), (new + 27, 214))
    drawing.arrow((new - 4, 191), (408, 191), dashed=True)
    drawing.words(442, 160, "kept\nfrom\nnow on", colour=FAINT, size=11)
    drawing.arrow((new + 54, 315), (639, 152), via=[(639, 315)])
    drawing.words(new + 27, 343, "new", colour=FAINT, size=12)
    drawing.box(612, 110, 54, 38, "q", tint=1, mono=True)
    drawing.arrow((639, 110), (538, 37), via=[(639, 37)])
    return drawing
