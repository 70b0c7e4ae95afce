"""Personal data in a text: found by pattern and checksum, and masked.

What is found has a form that a regular expression can describe: addresses of mail and network,
numbers of phones, cards and accounts. Names, places, and what a sentence tells about somebody have
none; no pattern here finds them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

PATTERNS: dict[str, str] = {
    "EMAIL": r"(?<![\w.+-])[\w+-]+(?:\.[\w+-]+)*@\w[\w-]*(?:\.\w[\w-]*)+",
    "IBAN": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "CARD": r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)",
    "IP": r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)",
    # With the sign or the zero that tells a number to dial from other numbers.
    "PHONE": r"(?<![\w.])(?:\+\d{1,3}|\(0\d{1,4}\)|0\d{1,4})(?:[ /-]?\d{2,4}){2,4}(?![\w-])",
}


@dataclass(frozen=True, order=True)
class Span:
    """A piece of a text, from start up to stop, and what it is."""

    start: int
    stop: int
    kind: str


def passes_luhn(number: str) -> bool:
    """Whether the digits pass the check of payment cards (ISO/IEC 7812-1, Luhn 1960): from the
    right every second one doubled, its two digits added, all together a multiple of ten."""
    digits = [int(d) for d in number if d.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(digits) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def passes_iban(number: str) -> bool:
    """Whether letters and digits pass the check of bank accounts (ISO 13616): the first four put
    last, letters as 10 to 35, the number leaves 1 when divided by 97."""
    compact = number.replace(" ", "").upper()
    turned = compact[4:] + compact[:4]
    plain = re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", compact, re.ASCII)
    return bool(plain) and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def is_ipv4(address: str) -> bool:
    """Whether it is an address of four numbers from 0 to 255."""
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True


CHECKS: dict[str, Callable[[str], bool]] = {
    "CARD": passes_luhn,
    "IBAN": passes_iban,
    "IP": is_ipv4,
}


def find(text: str, patterns: Mapping[str, str] = PATTERNS) -> list[Span]:
    """The spans of the text that look like personal data, in their order, none over another.

    patterns: kind -> regular expression, the earlier kind first where two could claim a span. Cards
    and accounts must pass their checksum, addresses be in range (kinds of those names only).
    """
    found: list[Span] = []
    taken = [False] * len(text)
    for kind, pattern in patterns.items():
        for match in re.finditer(pattern, text):
            start = match.start()
            stop = start + _valid_length(match[0], CHECKS.get(kind))
            if stop > start and not any(taken[start:stop]):
                taken[start:stop] = [True] * (stop - start)
                found.append(Span(start, stop, kind))
    return sorted(found)


def _valid_length(candidate: str, check: Callable[[str], bool] | None) -> int:
    """How much of the candidate passes: all of it, or up to one of its spaces; 0: nothing."""
    while candidate and check and not check(candidate):
        candidate = candidate.rpartition(" ")[0]  # a number may have run on into the next word
    return len(candidate)


def mask(text: str, spans: Iterable[Span] | None = None) -> str:
    """The text with each span replaced by its kind, as in "write to [EMAIL]"; None: what `find`
    finds."""
    pieces, last = [], 0
    for span in sorted(find(text) if spans is None else spans):
        pieces += [text[last : span.start], f"[{span.kind}]"]
        last = span.stop
    return "".join([*pieces, text[last:]])
