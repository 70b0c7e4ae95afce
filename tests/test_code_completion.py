"""Completing code and measuring its surprise, with models that know a text by heart or nothing."""

from __future__ import annotations

import math

import pytest
import torch

import llmkit
from llmkit.projects import code_completion
from llmkit.projects.code_completion import FILE

GOOD = 'def f(x):\n    """Twice."""\n    return 2 * x\n'


def tokenizer(text: str = GOOD, merges: int = 20) -> llmkit.BPETokenizer:
    return llmkit.BPETokenizer.train(text, 257 + merges, [FILE])


def test_a_special_token_stands_before_each_text():
    tok, texts = tokenizer(), [GOOD, "é = 1\n"]
    ids = code_completion.encode(texts, tok)
    assert tok.decode(ids) == f"{FILE}{GOOD}{FILE}é = 1\n"
    assert (ids == tok.special_tokens[FILE]).sum() == 2
    assert len(code_completion.encode([], tok)) == 0
    with pytest.raises(ValueError, match="needs the special token"):
        code_completion.encode(texts, llmkit.BPETokenizer.train(GOOD, 260))


@pytest.mark.parametrize(
    ("text", "indent", "block"),
    [
        ("    x\ny\n", 0, "    x\n"),
        ("    x\n\n\n    y\n\nz\n", 0, "    x\n\n\n    y\n"),
        ("        x\n    y\n", 4, "        x\n"),
        ("    x\n    y = (1", 0, "    x\n"),  # nobody knows how it would go on
        ("    x", 0, ""),
        ("x\n", 0, ""),
        ("\n\n", 0, ""),
        ("", 0, ""),
        ("\tx\n  y\n", 4, "\tx\n"),
    ],
)
def test_a_block_ends_at_a_dedent(text, indent, block):
    assert code_completion.first_block(text, indent) == block


def test_a_line_ends_at_its_end():
    assert code_completion.first_line("a b\nc\n") == "a b"
    assert code_completion.first_line("a") == "a"


BOOK = (
    "def area(width, height):\n"
    "    size = width * height\n"
    "    return size\n"
    "\n"
    "def greet(name):\n"
    "    print('é', name)\n"
)


@pytest.fixture
def memory() -> tuple[llmkit.NGram, llmkit.BPETokenizer]:
    """A model that knows one file by heart."""
    tok = tokenizer(BOOK, 60)
    ids = code_completion.encode([BOOK], tok)
    return llmkit.NGram(ids, 8, tok.vocab_size), tok


def test_lines_are_completed_up_to_their_end(memory):
    prompts = [
        "def area(width,",
        BOOK[: BOOK.index(" greet")],
        "",
        BOOK[: BOOK.index(" = width")],
    ]
    rests = [" height):", " greet(name):", "def area(width, height):", " = width * height"]
    assert code_completion.complete(*memory, prompts, 40) == rests
    [start] = code_completion.complete(*memory, prompts[:1], 1)
    assert start != rests[0]
    assert rests[0].startswith(start)


def test_a_block_is_completed_up_to_the_dedent(memory):
    heads = ["def area(width, height):\n", BOOK[: BOOK.index("    print")]]
    first, second = code_completion.complete(*memory, heads, 100, until="block")
    assert first == "    size = width * height\n    return size\n"
    assert second.startswith("    print('é', name)\n")
    assert code_completion.complete(*memory, heads, 2, until="block") == ["", ""]
    with pytest.raises(ValueError, match="until must be 'line' or 'block', not 'file'"):
        code_completion.complete(*memory, heads, 2, until="file")


def test_a_prompt_longer_than_the_window(memory):
    model, tok = memory
    prompt = "x = 1\n" * 500 + BOOK[: BOOK.index(" size\n\n")]
    assert len(tok.encode(prompt)) > model.config.block_size
    assert code_completion.complete(model, tok, [prompt], 20) == [" size"]


@pytest.mark.parametrize("most", [1, 7, 60, 100_000])
def test_the_last_ids_are_those_of_the_whole(most):
    tok = tokenizer(BOOK, 60)
    text = (BOOK + "\n\n\n        deep = [1,  2]\n" + "x" * 30) * 40
    for prompt in ("", "a", BOOK, text, text + "   ", text + "\n\n    ", text * 2 + "y" * 5000):
        whole = tok.encode(FILE + prompt, allowed_special=[FILE])
        assert torch.equal(code_completion.last_ids(prompt, tok, most), whole[-most:])


def test_options_go_to_generate(memory):
    draws = [
        code_completion.complete(*memory, ["def "], 20, temperature=2.0, seed=s) for s in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("text", [BOOK, "a", "é", BOOK * 20])
def test_the_surprise_of_the_characters_sums_to_the_loss(memory, text):
    model, tok = memory
    bits = code_completion.surprise(model, tok, text)
    assert len(bits) == len(text)
    ids = code_completion.encode([text], tok)
    report = llmkit.evaluate(model, ids)
    total = report.loss * report.tokens / math.log(2)
    assert bits.sum().item() == pytest.approx(total)


def test_the_surprise_of_a_token_is_shared_by_its_bytes():
    """Uniform over 258 tokens: each costs log2 258 bits, "ab" and the two bytes of é too."""
    tok = llmkit.BPETokenizer([(b"a", b"b")], [FILE])
    model = llmkit.NeuralBigram(tok.vocab_size)
    one = math.log2(258)
    bits = code_completion.surprise(model, tok, "abéc")
    assert bits.tolist() == pytest.approx([one / 2, one / 2, 2 * one, one])


def test_the_cost_of_each_kind_sums_to_the_whole(memory):
    model, tok = memory
    costs = code_completion.cost_by_kind(model, tok, [BOOK, GOOD])
    bits = sum(code_completion.surprise(model, tok, t)[:-1].sum().item() for t in (BOOK, GOOD))
    assert sum(cost.bits for cost in costs.values()) == pytest.approx(bits)
    assert sum(cost.characters for cost in costs.values()) == len(BOOK + GOOD) - 2  # last line ends
    words = ("def", "return", "def", "def", "return")
    assert costs["keyword"].number == len(words)
    assert costs["keyword"].characters == len("".join(words))


FILL = llmkit.BPETokenizer.train(BOOK, 256 + 20 + 4, code_completion.FILLING)


def test_a_gap_goes_to_the_end():
    prefix, suffix, middle, end = (FILL.special_tokens[text] for text in code_completion.FILLING)
    ids = torch.arange(5)
    row = code_completion.rearranged(ids, 1, 3, FILL)
    assert row.tolist() == [prefix, 0, suffix, 3, 4, middle, 1, 2, end]
    row = code_completion.rearranged(ids, 5, 5, FILL)
    assert row.tolist() == [prefix, 0, 1, 2, 3, 4, suffix, middle, end]
    for start, stop in ((-1, 2), (3, 2), (2, 6)):
        with pytest.raises(ValueError, match="does not lie within 5 tokens"):
            code_completion.rearranged(ids, start, stop, FILL)
    with pytest.raises(
        ValueError, match="needs the special token '<|prefix|>'".replace("|", r"\|")
    ):
        code_completion.rearranged(ids, 1, 3, tokenizer())


def test_gaps_lie_within_their_pieces():
    text = BOOK * 30
    found = code_completion.gaps([text, "x"], FILL, 50, seed=1)
    again = code_completion.gaps([text, "x"], FILL, 50, seed=1)
    assert all(
        torch.equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(found, again, strict=True)
    )
    for ids, start, end in found:
        assert len(ids) == code_completion.PIECE
        assert 6 <= end - start <= 20
        assert FILL.decode(ids).strip("\N{REPLACEMENT CHARACTER}") in text  # cut within é
    with pytest.raises(ValueError, match="no text has 100 tokens"):
        code_completion.gaps(["x = 1\n"], FILL, 1, seed=1)


def test_what_a_gap_costs_is_the_gap_s_alone():
    """Uniform over V tokens: each costs log2 V bits."""
    model = llmkit.NeuralBigram(FILL.vocab_size)
    pieces = code_completion.gaps([BOOK * 30], FILL, 5, seed=2)
    tokens = sum(end - start for _, start, end in pieces)
    characters = sum(len(FILL.decode(ids[start:end])) for ids, start, end in pieces)
    expected = tokens * math.log2(FILL.vocab_size) / characters
    assert code_completion.gap_bits(model, FILL, pieces) == pytest.approx(expected)
    left = code_completion.gap_bits(model, FILL, pieces, rearrange=False)
    assert left == pytest.approx(expected)
