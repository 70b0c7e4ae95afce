"""Output filters by block list: the one everybody writes first, and a better one.

A filter says which listed words a text holds, nothing about what the text means. Both are called
alike: ``blocked = WordFilter(words); blocked(text)`` gives the matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LOOKALIKES = {"a": "a@4", "e": "e3", "i": "i1!", "l": "l1", "o": "o0", "s": "s$5", "t": "t7"}


class SubstringFilter:
    """Finds the listed words anywhere, inside other words too: "hell" in "hello" (the Scunthorpe
    problem, named after the town whose people could not register with their own address)."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = _checked(words)

    def __call__(self, text: str) -> list[str]:
        """The listed words in the text, in the list's order."""
        folded = text.casefold()
        return [word for word in self.words if word in folded]


class WordFilter:
    """Finds the listed words where they stand as words: in any case, with an ending (-s, -es, -ed,
    -ing), with letters doubled, replaced by look-alikes ("h3ll"), or parted ("h-e-l-l").

    separators: single signs that may stand between two letters. Each one more finds more tricks,
    and more innocents: with the apostrophe, "he'll" is a listed word; with the space, "he ll".
    """

    def __init__(self, words: Iterable[str], separators: str = ".-_*") -> None:
        self.words = _checked(words)
        self.patterns = {word: re.compile(_pattern(word, separators)) for word in self.words}

    def __call__(self, text: str) -> list[str]:
        """The listed words in the text, in the list's order."""
        folded = text.casefold()
        return [word for word, pattern in self.patterns.items() if pattern.search(folded)]


def _pattern(word: str, separators: str) -> str:
    letters = [f"[{re.escape(LOOKALIKES.get(c, c))}]+" for c in word]
    between = f"[{re.escape(separators)}]?" if separators else ""
    return rf"(?<!\w){between.join(letters)}(?:s|es|ed|ing)?(?!\w)"


def _checked(words: Iterable[str]) -> list[str]:
    words = [word.casefold() for word in words]
    if bad := [word for word in words if not word.isalpha()]:
        raise ValueError(f"a listed word is one word of letters, not {bad[0]!r}")
    return words
