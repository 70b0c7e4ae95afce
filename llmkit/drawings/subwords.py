"""Drawings of subword tokens (notebook 09)."""

from collections.abc import Sequence

from llmkit.drawings.sketch import FAINT, Sketch
from llmkit.picture import visible

FIVE_WORDS = ((b"h", b"e"), (b"t", b"he"), (b"the", b"n"))
COLUMN, BOX, STEP, MARGIN = 60, 30, 54, 34  # pixels


def merge_tree(word: str = "then", merges: Sequence[tuple[bytes, bytes]] = FIVE_WORDS) -> Sketch:
    """How a word grows from its bytes: a row for each merge that finds its pair in it.

    merges: pairs of tokens, in the order in which they were learned; numbered from 1. A word of up
    to ten bytes has room.
    """
    nodes = [(bytes([byte]), i, i + 1) for i, byte in enumerate(word.encode())]
    rows, leaves = [], nodes
    for number, pair in enumerate(merges, 1):
        nodes, made = _apply(nodes, pair)
        if made:
            rows.append((f"merge {number}", made))
    width = max(430, 2 * MARGIN + COLUMN * len(leaves) + 90)
    bottom = 14 + STEP * len(rows)
    drawing = Sketch(width, bottom + BOX + 20, f"How “{visible(word)}” grows from its bytes")
    heights = dict.fromkeys(leaves, bottom)
    for row, (_, made) in enumerate(rows, 1):
        heights |= {parent: bottom - STEP * row for parent, _, _ in made}
    for parent, *parts in (node for _, made in rows for node in made):
        for part in parts:
            x = _middle(part)
            drawing.arrow((x, heights[part]), (x, heights[parent] + BOX), head=False)
    for (token, start, stop), y in heights.items():
        left, wide = MARGIN + COLUMN * start + 6, COLUMN * (stop - start) - 12
        whole = (token, start, stop) in nodes
        tint = 2 if whole else 0 if stop - start > 1 else 4
        text = visible(token.decode("utf-8", "backslashreplace"))
        drawing.box(left, y, wide, BOX, text, tint=tint, mono=True, bold=whole)
    right = MARGIN + COLUMN * len(leaves) + 14
    for name, y in [("bytes", bottom), *((name, heights[made[0][0]]) for name, made in rows)]:
        drawing.words(right, y + BOX / 2, name, size=12, colour=FAINT, anchor="start")
    return drawing


Node = tuple[bytes, int, int]  # a token, its first byte's place and the place after its last


def _apply(nodes: list[Node], pair: tuple[bytes, bytes]) -> tuple[list[Node], list]:
    """The nodes after a merge, and what it made: (parent, left, right) each."""
    out: list[Node] = []
    made = []
    for node in nodes:
        if out and (out[-1][0], node[0]) == pair:
            left = out.pop()
            out.append((left[0] + node[0], left[1], node[2]))
            made.append((out[-1], left, node))
        else:
            out.append(node)
    return out, made


def _middle(node: Node) -> float:
    return MARGIN + COLUMN * (node[1] + node[2]) / 2
