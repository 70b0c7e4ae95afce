"""privacy and filters: checksums against published numbers, spans and scores counted by hand."""

import random
from itertools import pairwise

import pytest

from llmkit.responsible.filters import SubstringFilter, WordFilter
from llmkit.responsible.personal_data import Score, Span, find, iban, labelled, luhn, mask, score

CARDS = [  # test numbers that card companies publish
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "378282246310005",
    "6011111111111117",
    "3530111333300000",
]
IBANS = [  # examples of the IBAN registry
    "GB29 NWBK 6016 1331 9268 19",
    "DE89 3704 0044 0532 0130 00",
    "FR14 2004 1010 0505 0001 3M02 606",
    "NO93 8601 1117 947",
    "MT84MALT011000012345MTLCAST001S",
]


@pytest.mark.parametrize("number", CARDS)
def test_published_cards_pass_and_no_single_slip_does(number):
    assert luhn(number)
    for i, digit in enumerate(number):
        if digit.isdigit():
            for other in set("0123456789") - {digit}:
                assert not luhn(number[:i] + other + number[i + 1 :])


@pytest.mark.parametrize("number", IBANS)
def test_published_accounts_pass_and_no_single_slip_does(number):
    assert iban(number)
    for i, sign in enumerate(number):
        for other in "0123456789" if sign.isdigit() else "ABCXYZ" if sign.isalpha() else "":
            assert other == sign or not iban(number[:i] + other + number[i + 1 :])


def test_a_random_number_passes_luhn_one_time_in_ten():
    chance = random.Random(0)
    passed = sum(luhn(str(chance.randrange(10**15, 10**16))) for _ in range(5000))
    assert 440 < passed < 560
    assert not luhn("0")
    assert not luhn("")


FOUND = {
    "Write to jan.marden+boat@wend.example.org, soon.": ["EMAIL"],
    "Mail a@b": [],
    "Server 192.0.2.44 is down.": ["IP"],
    "At 192.0.2.256 nobody lives.": [],
    "Chapter 1.2.3.4.5 of it": [],
    "Call +44 20 7946 0958 now": ["PHONE"],
    "Call 020 7946 0958 or (0161) 496 0123": ["PHONE", "PHONE"],
    "Call 555-0143": [],
    "Paid with 4111 1111 1111 1111 12 times": ["CARD"],
    "Order 4111 1111 1111 1112": [],
    "To GB29 NWBK 6016 1331 9268 19 NOW": ["IBAN"],
    "To GB28 NWBK 6016 1331 9268 19": [],
    "Grizel Marden lives by the weir.": [],
    "": [],
}


@pytest.mark.parametrize("text", FOUND)
def test_what_is_found(text):
    assert [span.kind for span in find(text)] == FOUND[text]


def test_spans_are_exact_and_do_not_overlap():
    text = "a@b.example paid GB29 NWBK 6016 1331 9268 19 NOW, 5555-5555-5555-4444."
    spans = find(text)
    cut = [text[span.start : span.stop] for span in spans]
    assert cut == ["a@b.example", "GB29 NWBK 6016 1331 9268 19", "5555-5555-5555-4444"]
    assert all(one.stop <= other.start for one, other in pairwise(spans))
    assert mask(text) == "[EMAIL] paid [IBAN] NOW, [CARD]."
    assert find(mask(text)) == []
    assert mask("nothing") == "nothing"


def test_own_patterns():
    own = {"PIN": r"(?<=is )\d{4}"}
    assert find("The pin is 4831.", own) == [Span(11, 15, "PIN")]
    assert mask("The pin is 4831.", find("The pin is 4831.", own)) == "The pin is [PIN]."


def test_labels_are_read_off_a_marked_text():
    text, spans = labelled("Ask {NAME:Jan}, {EMAIL:j@w.example}.")
    assert text == "Ask Jan, j@w.example."
    assert [(text[s.start : s.stop], s.kind) for s in spans] == [
        ("Jan", "NAME"),
        ("j@w.example", "EMAIL"),
    ]
    assert labelled("plain") == ("plain", [])


def test_scores_by_hand():
    assert score([1, 2, 3, 4], [3, 4, 5]) == Score(hits=2, false_alarms=2, misses=1)
    assert score([1, 2, 3, 4], [3, 4, 5]).precision == 0.5
    assert score([1, 2, 3, 4], [3, 4, 5]).recall == pytest.approx(2 / 3)
    assert score([], []).precision == score([], []).recall == 1.0
    assert score([], [1]).recall == 0.0


# --- filters

LIST = ["hell", "ass", "damn"]


@pytest.mark.parametrize(
    ("text", "by_substring", "by_word"),
    [
        ("Hello, class: pass the shells.", ["hell", "ass"], []),
        ("Go to HELL!", ["hell"], ["hell"]),
        ("damned", ["damn"], ["damn"]),
        ("thou ass", ["ass"], ["ass"]),
        ("h3ll, a$$ and d@mn", [], LIST),
        ("h-e-l-l", [], ["hell"]),
        ("heelll", [], ["hell"]),
        ("a nice day", [], []),
        ("", [], []),
        ("Scunthorpe is a grassy place", ["ass"], []),
    ],
)
def test_filters(text, by_substring, by_word):
    assert SubstringFilter(LIST)(text) == by_substring
    assert WordFilter(LIST)(text) == by_word


def test_every_separator_has_its_price():
    tricks = ["h'e'l'l", "h e l l", "h.e.l.l", "hell"]
    innocent = "He'll come."
    for separators, found in {"": [3], ".": [2, 3], ".' ": [0, 1, 2, 3]}.items():
        blocked = WordFilter(LIST, separators)
        assert [i for i, trick in enumerate(tricks) if blocked(trick)] == found
        assert bool(blocked(innocent)) == ("'" in separators)


@pytest.mark.parametrize("kind", [SubstringFilter, WordFilter])
def test_a_listed_word_is_a_word(kind):
    for bad in ("", "two words", "a*"):
        with pytest.raises(ValueError, match="one word of letters"):
            kind(["fine", bad])
    assert kind([])("anything") == []
