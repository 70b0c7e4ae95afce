"""planted: texts whose faults are known are what they say they are."""

from collections import Counter

import pytest

from llmkit.responsible.personal_data import Span
from llmkit.responsible.planted import (
    LABELLED,
    TEMPLATES,
    first_parts,
    labelled,
    scattered,
    work_sentences,
)


def test_first_parts_stop_as_soon_as_there_is_enough():
    assert first_parts(["abc", "de", "fgh"], 6) == ["abc", "de"]  # 5, then 9 with blank lines
    assert first_parts(["abc", "de", "fgh"], 5) == ["abc"]
    assert first_parts(["abc"], 100) == ["abc"]
    assert first_parts(["abc"], 0) == []


def test_scattered_keeps_the_order_of_the_parts_and_loses_nothing():
    parts, extras = [f"part {i}" for i in range(9)], ["x", "y", "x"]
    mixed = scattered(parts, extras)
    assert [one for one in mixed if one.startswith("part")] == parts
    assert Counter(mixed) == Counter(parts + extras)
    assert mixed == scattered(parts, extras) != scattered(parts, extras, seed=8)
    assert mixed[0] == "part 0"
    assert scattered(parts, []) == parts
    with pytest.raises(ValueError, match="scattered among"):
        scattered([], extras)


def test_sentences_have_the_odds_that_were_asked_for():
    sentences = work_sentences({"nurse": 1.0, "smith": 0.0, "baker": 0.5}, 600)
    count = Counter((sentence.role, sentence.pronoun) for sentence in sentences)
    assert sum(count.values()) == 600
    assert count["nurse", "he"] == count["smith", "she"] == 0
    assert abs(count["baker", "she"] - count["baker", "he"]) < 60
    for sentence in sentences:
        assert sentence.text.count(f" {sentence.pronoun} ") == 1
        assert f"{sentence.role} " in sentence.text
        assert sentence.text.endswith(".")


def test_templates_have_their_two_gaps():
    assert all(template.count("{role}") == template.count("{}") == 1 for template in TEMPLATES)


def test_labels_mark_what_they_say():
    assert labelled("Ask {NAME:Jan}.") == ("Ask Jan.", {Span(4, 7, "NAME")})
    assert labelled("Nothing.") == ("Nothing.", set())
    for marked in LABELLED:
        text, spans = labelled(marked)
        assert "{" not in text
        assert len(spans) == marked.count("{")
