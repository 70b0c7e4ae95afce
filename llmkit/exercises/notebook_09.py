"""Notebook 09, subword tokenizers."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import regex

from llmkit.bpe.files import BYTES
from llmkit.bpe.tokenizer import PATTERN, BPETokenizer
from llmkit.bpe.training import learn_merges
from llmkit.exercises.examining import Exercise

Merge = tuple[bytes, bytes]
FIVE = {"the": 1, "then": 1, "hen": 1, "her": 1, "thin": 1}
FEW = {"he": 5, "hers": 1, "cat": 3, "act": 1}
PLAY = {" the": 60, " then": 14, " other": 9, " thin": 6, " nothing": 5, " hen": 4, "aaaa": 3}


# ----------------------------------------------------------------------------------- decode


def _decode(ids: list[int], tokens: list[bytes]) -> str:
    """Byte by byte, with Python's own decoder, which waits for the rest of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return "".join(decoder.decode(tokens[i]) for i in ids) + decoder.decode(b"", final=True)


def _decode_as(errors: str, encoding: str = "utf-8", apart: bool = False) -> Any:
    """Decoding in other ways: each token apart, other signs for what is missing."""

    def decode(ids: list[int], tokens: list[bytes]) -> str:
        parts = [tokens[i] for i in ids]
        parts = parts if apart else [b"".join(parts)]
        return "".join(part.decode(encoding, errors) for part in parts)

    return decode


_TOKENS = [*BYTES, b" the", "é".encode(), b"end"]


def _ids(text: str) -> list[int]:
    return [BYTES.index(bytes([byte])) for byte in text.encode()]


# ----------------------------------------------------------------------------------- encode


def _encode_word(word: bytes, ranks: dict[Merge, int]) -> list[bytes]:
    merges: list[Merge] = sorted(ranks, key=ranks.__getitem__)
    tokenizer = BPETokenizer(merges)
    ids = [BYTES.index(bytes([byte])) for byte in word]
    return [tokenizer.tokens[i] for i in tokenizer.merge(ids)]


def _longest(word: bytes, ranks: dict[Merge, int]) -> list[bytes]:
    known = {left + right for left, right in ranks}
    out, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        end = next(e for e in ends if e == start + 1 or word[start:e] in known)
        out.append(word[start:end])
        start = end
    return out


def _merging(choose: Callable[[list[Merge], dict[Merge, int]], Merge], again: bool = True) -> Any:
    """Merge the pair that `choose` takes of those in the word that are known, over and over."""

    def encode_word(word: bytes, ranks: dict[Merge, int]) -> list[bytes]:
        tokens, done = [bytes([byte]) for byte in word], set()
        while True:
            known = [pair for pair in pairwise(tokens) if pair in ranks and pair not in done]
            if not known:
                return tokens
            pair = choose(known, ranks)
            place = list(pairwise(tokens)).index(pair)
            tokens[place : place + 2] = [pair[0] + pair[1]]
            if not again:
                done.add(pair)

    return encode_word


def _earliest(known: list[Merge], ranks: dict[Merge, int]) -> Merge:
    return min(known, key=lambda pair: ranks[pair])


def _ranks(words: dict[str, int], count: int) -> dict[Merge, int]:
    merges = learn_merges({word.encode(): n for word, n in words.items()}, count)
    return {pair: rank for rank, pair in enumerate(merges)}


# ----------------------------------------------------------------------------------- digits


def _digits(text: str) -> list[str]:
    """GPT-2's pieces, and in each of them the digits cut off one by one."""
    parts = [regex.findall(r"\p{N}|[^\p{N}]+", piece) for piece in PATTERN.findall(text)]
    return [part for piece in parts for part in piece]


def _cut(numbers: str) -> Any:
    """GPT-2's regular expression with something else for numbers."""
    return regex.compile(PATTERN.pattern.replace(r" ?\p{N}+", numbers)).findall


# ------------------------------------------------------------------------------------ price


def _price(text: str, encode: Callable[[str], Sequence[int]]) -> float:
    return sum(1 for _ in encode(text)) / sum(1 for _ in text)


def _bytes_of(text: str) -> list[int]:
    return list(text.encode())


def _pairs_of_bytes(text: str) -> list[int]:
    return list(text.encode())[::2]


# ------------------------------------------------------------------------------------ learn


def _learn(words: dict[str, int], count: int) -> list[Merge]:
    return learn_merges({word.encode(): n for word, n in words.items()}, count)


def _learning(weighted: bool = True, fresh: bool = True, last: bool = False) -> Any:
    """Learning with some of its faults: each word counted once, pairs counted only at the start."""

    def repaired(words: dict[str, int], count: int) -> list[Merge]:
        spelled = {tuple(bytes([b]) for b in word.encode()): n for word, n in words.items()}
        ids = {token: i for i, token in enumerate(BYTES)}
        merges: list[Merge] = []
        pairs: dict[Merge, int] = {}
        for _ in range(count):
            if fresh or not merges:
                pairs = {}
                for word, n in spelled.items():
                    for pair in pairwise(word):
                        pairs[pair] = pairs.get(pair, 0) + (n if weighted else 1)
            if not pairs:
                break
            sign = -1 if last else 1
            best = min(pairs, key=lambda p: (-pairs[p], sign * ids[p[0]], sign * ids[p[1]]))
            if not fresh:
                del pairs[best]
            spelled = {_merged(word, best): n for word, n in spelled.items()}
            ids.setdefault(best[0] + best[1], len(ids))
            merges.append(best)
        return merges

    return repaired


def _merged(word: tuple[bytes, ...], pair: Merge) -> tuple[bytes, ...]:
    out: list[bytes] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return tuple(out)


BROKEN = '''
def repaired(words: dict[str, int], count: int) -> list[tuple[bytes, bytes]]:
    """The first `count` merges of words, of which each is given with how often it occurs."""
    spelled = {tuple(bytes([byte]) for byte in word.encode()): n for word, n in words.items()}
    ids = {token: i for i, token in enumerate(BYTES)}
    pairs = Counter(pair for word in spelled for pair in pairwise(word))
    merges = []
    while pairs and len(merges) < count:
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        del pairs[best]
        spelled = {merge(word, best): n for word, n in spelled.items()}
        ids.setdefault(best[0] + best[1], len(ids))
        merges.append(best)
    return merges
'''
DIGITS = """
def cut_digits(text: str) -> list[str]:
    return GPT2.findall(text)
"""

EXERCISES = [
    Exercise(
        "09.by_hand",
        reference=("aa", "ab", "aaab", 5),
        checked="a·a, a·b, aa·ab, and what is left is aaab d aaab a c",
        mistakes={
            "of two pairs that are equally frequent, the one with the older tokens comes first: "
            "a·b is older than aa·a": ("aa", "aaa", "aaab", 5),
            "the merges are right; each is made at every place where its pair stands, so count "
            "the tokens of aaab d aaab a c": ("aa", "ab", "aaab", 8),
            "the third merge joins two tokens, aa and ab; count the pairs of tokens again": (
                "aa",
                "ab",
                "abd",
                6,
            ),
            "a·a stands at four places and a·b at two only": ("ab", "aa", "aaab", 5),
        },
        hints=(
            "Go through the word in steps of one: which two neighbours are there, and how often?",
            "After the first merge the word is aa a b d aa a b a c. Two pairs of it come twice.",
            "Of these, a·b is merged, as both its tokens are letters: aa ab d aa ab a c.",
        ),
    ),
    Exercise(
        "09.decode",
        reference=_decode,
        checked="characters that lie in two tokens are whole again, and half ones are shown",
        cases=[
            ([], _TOKENS),
            ([256, *_ids(" "), 258], _TOKENS),
            ([257], _TOKENS),
            (_ids("é"), _TOKENS),
            (_ids("Ça va? 😀"), _TOKENS),
            (_ids("😀")[:2], _TOKENS),
        ],
        mistakes={
            "a token may hold half a character: join the bytes first, and decode them all at the "
            "end": _decode_as("replace", apart=True),
            "half a character vanishes: show that something is missing, with "
            'errors="replace"': _decode_as("ignore"),
            "these bytes are not Latin-1: a character may take several of them": _decode_as(
                "replace", "latin-1"
            ),
            "half a character becomes backslashes: the sign is \ufffd": _decode_as(
                "backslashreplace"
            ),
        },
        hints=(
            "tokens[i] is a bytes object. b''.join(...) joins many of them.",
            'b"...".decode("utf-8") makes characters of bytes, and raises an error at half ones.',
            'It takes errors="replace".',
        ),
    ),
    Exercise(
        "09.price",
        reference=_price,
        checked="tokens for each character",
        cases=[
            ("a", _bytes_of),
            ("a horse", _pairs_of_bytes),
            ("é", _bytes_of),
            ("马很", _bytes_of),
        ],
        mistakes={
            "that is how many characters a token holds: the other way round": lambda text, encode: (
                len(text) / len(encode(text))
            ),
            "that is per byte: Chinese needs three bytes for one character": lambda text, encode: (
                len(encode(text)) / len(text.encode())
            ),
            "that is per word, and not every language has spaces": lambda text, encode: (
                len(encode(text)) / len(text.split())
            ),
            "that is the number of tokens: divide by the number of characters": lambda t, e: float(
                len(e(t))
            ),
        },
        hints=(
            "How many ids does encode give, and how many characters has the text?",
            "len(text) counts characters, len(text.encode()) bytes.",
        ),
    ),
    Exercise(
        "09.cut_digits",
        reference=_digits,
        checked="each digit is alone, the space before it too, and no character is lost",
        cases=[
            (text,)
            for text in ("1", "17", " 17", "In 1789, or  1790", "x2", "½ a pound, $3.50\n 4", "a b")
        ],
        mistakes={
            "a space is still glued to the digit after it: ' 1' and '1' would be two tokens for "
            "one digit": _cut(r" ?\p{N}"),
            "numbers are cut in groups of three, from the left: 1789 is 178 and 9": _cut(
                r"\p{N}{1,3}"
            ),
            "this leaves the digits of a number together: one at a time, so without the +": _cut(
                r"\p{N}+"
            ),
            "this is GPT-2's pattern still": PATTERN.findall,
            "½ is lost: it is a number for \\p{N}, and none for \\d": _cut(r"\d"),
        },
        hints=(
            "One of the alternatives in the pattern is for numbers. Which characters of it make "
            "it take several digits, and which a space?",
            "What takes the space, if the alternative for numbers does not? The last ones do.",
            r'regex.compile(GPT2.pattern.replace(r" ?\p{N}+", ...)), with a single \p{N}.',
        ),
        stub=DIGITS,
    ),
    Exercise(
        "09.encode_word",
        reference=_encode_word,
        checked="the same tokens as llmkit's, for words with many merges and with none",
        cases=[
            (b"a", {}),
            (b"the", {(b"h", b"e"): 0}),
            (b"aaaaa", {(b"a", b"a"): 0}),
            (b"abcab", {(b"b", b"c"): 0, (b"a", b"b"): 1, (b"ab", b"c"): 2}),
            (b"abc", {(b"a", b"b"): 0, (b"b", b"c"): 1, (b"a", b"bc"): 2}),
            (b"abcd", {(b"a", b"b"): 0, (b"b", b"c"): 1}),
            (b"then", _ranks(FIVE, 3)),
            (b"hence", {(b"h", b"e"): 1, (b"n", b"c"): 0, (b"e", b"nc"): 2, (b"he", b"n"): 3}),
            *((f"{w}{v}".encode(), _ranks(PLAY, 12)) for w in PLAY for v in ("", "the", " hen")),
        ],
        mistakes={
            "this takes the longest known token from the left; the merges do not always lead to "
            "it": _longest,
            "this merges the leftmost pair that is known: take the one that was learned first, "
            "wherever it stands": _merging(lambda known, _: known[0]),
            "this merges each pair at one place only: the pair may come again": _merging(
                _earliest, again=False
            ),
            "this takes the pair that was learned last: a low rank comes first": _merging(
                lambda known, ranks: max(known, key=lambda pair: ranks[pair])
            ),
            "no merge was applied": lambda word, ranks: [bytes([byte]) for byte in word],
        },
        hints=(
            "Start with [bytes([byte]) for byte in word]. `pairwise` gives the pairs in it.",
            "Of those that are in `ranks`, which has the lowest rank? `merge` of the notebook "
            "joins it wherever it stands.",
            "Count again after each merge, and stop when no pair is known.",
        ),
    ),
    Exercise(
        "09.repaired",
        reference=_learn,
        checked="the merges that llmkit learns, and fewer where no pair is left",
        cases=[
            ({"ab": 1}, 1),
            ({"xz": 1, "xy": 1}, 1),
            (FIVE, 4),
            (FEW, 4),
            (PLAY, 12),
            ({"hers": 1, "he": 2}, 9),
        ],
        mistakes={
            "pairs are still counted at the start only: a merge makes new pairs and takes old "
            "ones away": _learning(fresh=False),
            "each word still counts once, however often it occurs: add n, not 1": _learning(
                weighted=False
            ),
            "both faults are there: pairs are counted once for all, and each word once": _learning(
                False, False
            ),
            "of pairs that are equally frequent, the one with the lowest ids comes "
            "first": _learning(last=True),
        },
        hints=(
            "Learn two merges of {'the': 1, 'then': 1}. Can the second one begin with 'he'?",
            "And which pair should be first for {'he': 5, 'cat': 1, 'cats': 1}?",
            "Count the pairs inside the loop, and add n for each pair of a word.",
        ),
        stub=BROKEN,
    ),
]
