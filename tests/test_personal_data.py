"""personal_data: checksums against published numbers, spans counted by hand."""

import random
from itertools import pairwise

import pytest

from llmkit.responsible.personal_data import Span, find, mask, passes_iban, passes_luhn

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
    assert passes_luhn(number)
    for i, digit in enumerate(number):
        if digit.isdigit():
            for other in set("0123456789") - {digit}:
                assert not passes_luhn(number[:i] + other + number[i + 1 :])


@pytest.mark.parametrize("number", IBANS)
def test_published_accounts_pass_and_no_single_slip_does(number):
    assert passes_iban(number)
    for i, sign in enumerate(number):
        for other in "0123456789" if sign.isdigit() else "ABCXYZ" if sign.isalpha() else "":
            assert other == sign or not passes_iban(number[:i] + other + number[i + 1 :])


def test_a_random_number_passes_luhn_one_time_in_ten():
    chance = random.Random(0)
    passed = sum(passes_luhn(str(chance.randrange(10**15, 10**16))) for _ in range(5000))
    assert 440 < passed < 560
    assert not passes_luhn("0")
    assert not passes_luhn("")


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
