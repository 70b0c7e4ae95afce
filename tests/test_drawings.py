"""`llmkit.drawings`: every drawing is shown, says its message, and can be read."""

import inspect
import itertools
from xml.etree import ElementTree

import build
import nbformat
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from llmkit import drawings
from llmkit.drawings.sketch import MONO, Sketch

SVG = "{http://www.w3.org/2000/svg}"


def places(drawing):
    """Where each of its words stands: (text, left, top, right, bottom), as DejaVu Sans is wide."""
    for node in ElementTree.fromstring(drawing._repr_svg_()).iter(f"{SVG}g"):
        for text in node.iter(f"{SVG}text"):
            family = "DejaVu Sans Mono" if text.get("font-family") == MONO else "DejaVu Sans"
            size = float(text.get("font-size"))
            weight = text.get("font-weight", "normal")
            font = FontProperties(family=family, size=size, weight=weight)
            width, _height, _ = TextToPath().get_text_width_height_descent(text.text, font, False)
            left = {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor")]
            x, y = float(text.get("x")) - left, float(text.get("y"))
            yield text.text, x, y - 0.72 * size, x + width, y + 0.1 * size


def faults(drawing):
    """What hinders reading it, a sentence each."""
    words = list(places(drawing))
    for text, left, top, right, bottom in words:
        if left < 3 or right > drawing.width - 3 or top < 0 or bottom > drawing.height - 3:
            yield f"{text!r} leaves the drawing"
    for one, other in itertools.combinations(words, 2):
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]:
            yield f"{one[0]!r} covers {other[0]!r}"
    if 14 + 8 * len(drawing.message) > drawing.width:
        yield "its message is too long for its width"


@pytest.mark.parametrize("name", drawings.__all__)
def test_every_drawing_can_be_read(name):
    function = getattr(drawings, name)
    assert inspect.getdoc(function)
    drawing = function()
    assert list(faults(drawing)) == []
    assert drawing.width <= 760  # a notebook's width, GitHub's and Colab's too
    assert repr(drawing) == f"<drawing: {drawing.message}>"
    assert drawing._repr_svg_() == function()._repr_svg_()  # nbval compares it


@pytest.mark.parametrize("name", drawings.__all__)
def test_every_drawing_is_shown(name):
    call = f"drawings.{name}("
    shown = [
        output
        for path in sorted(build.NOTEBOOKS.glob("*.ipynb"))
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code" and call in cell.source
        for output in cell.outputs
    ]
    assert any("image/svg+xml" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("word", ["a", " thenthen", "é", "extraordin"])
def test_a_merge_tree_of_any_word_can_be_read(word):
    drawing = drawings.merge_tree(word, [(b"h", b"e"), (b"t", b"he"), (b"\xc3", b"\xa9")])
    assert list(faults(drawing)) == []
    assert drawing.width <= 760


def test_a_merge_tree_shows_each_merge_that_is_applied():
    words = [
        text for text, *_ in places(drawings.merge_tree("hethe", [(b"h", b"e"), (b"x", b"y")]))
    ]
    assert sorted(words) == ["bytes", "e", "e", "h", "h", "he", "he", "merge 1", "t"]


def test_what_cannot_be_read_is_found():
    drawing = Sketch(200, 100, "A message")
    drawing.words(100, 50, "first")
    assert list(faults(drawing)) == []
    drawing.words(110, 52, "second")
    drawing.words(10, 80, "far too long for this")
    assert list(faults(drawing)) == [
        "'far too long for this' leaves the drawing",
        "'first' covers 'second'",
    ]


def test_words_are_escaped():
    drawing = Sketch(300, 100, 'Is 1 < 2 & "so"?')
    drawing.box(10, 10, 90, 30, "<END>")
    page = ElementTree.fromstring(drawing._repr_svg_())
    assert page.get("aria-label") == 'Is 1 < 2 & "so"?'
    assert [text[0] for text in places(drawing)] == ["<END>"]
