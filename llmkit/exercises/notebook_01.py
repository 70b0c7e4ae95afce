"""Notebook 01, data."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

from llmkit.exercises.examining import Exercise

TYPESET = "“Well—a day…” said he; ’twas but 3 o’clock"
KEPT = "; fix, vamp, quiz, jog, or bring & $3-4!\n"  # with TYPESET, all small letters
SPEECHES = (
    "A:\nOne.\n\nB:\nTwo or three.\n\nC:\n" + "Four. " * 10 + "\n\nD:\nFive.\n\nE:\n6.\n\nF:\n7."
)
ECHO = "the time is out of joint"
LESSON = "to be or not to be, to see or not to see. "


def _plain(quotes: str = "'", dash: str = "--", ellipsis: str = "...") -> Any:
    """Typeset characters replaced by these."""

    def plain(string: str) -> str:
        string = re.sub("[“”‘’]", quotes, string)
        return string.replace("—", dash).replace("…", ellipsis)

    return plain


def _clean(*faults: str, errors: str = "strict") -> Any:
    """Bytes to clean text, with some of the faults of the broken one."""

    def clean(raw: bytes) -> str:
        codec = "utf-8" if "mark" in faults else "utf-8-sig"
        text = raw.decode(codec, "ignore" if "bytes" in faults else errors)
        if "ends" in faults:
            text = text.replace("\r", "\n")
        else:
            text = "\n".join(re.split("\r\n|\r|\n", text))
        return text.strip() + "\n"

    return clean


def _refusing(clean: Any) -> Any:
    """What it makes of bytes, where it refuses them too."""

    def cleaned(raw: bytes) -> str:
        try:
            return clean(raw)
        except ValueError:
            return "(refused with a ValueError)"

    return cleaned


FAULTS = {
    "mark": "the byte-order mark stays: strip() takes off white space only, 'utf-8-sig' takes it",
    "ends": "each \\r\\n becomes two line ends: replace \\r\\n first, and then what is left of \\r",
    "bytes": "bytes that are not UTF-8 vanish without a word: leave errors='ignore' out",
}


def _split(choose: str = "nearest", step: int = 0, by_speech: bool = False) -> Any:
    """A cut between two speeches, and other cuts."""

    def split_at_speech(text: str, val_fraction: float = 0.1) -> tuple[str, str]:
        lengths = [len(speech) + 2 for speech in text.split("\n\n")]
        starts = list(itertools.accumulate(lengths))[:-1]  # of all speeches but the first
        wanted = int((1 - val_fraction) * len(text))
        before = [start for start in starts if start <= wanted] or starts[:1]
        after = [start for start in starts if start >= wanted] or starts[-1:]
        near = before[-1] if wanted - before[-1] < after[0] - wanted else after[0]
        cut = {"nearest": near, "before": before[-1], "after": after[0]}[choose]
        if by_speech:
            cut = starts[int((1 - val_fraction) * len(lengths)) - 1]
        return text[: cut + step], text[cut + step :]

    return split_at_speech


def _longest_echo(one: str, other: str) -> str:
    longest = ""
    for i in range(len(one)):
        while i + len(longest) < len(one) and one[i : i + len(longest) + 1] in other:
            longest = one[i : i + len(longest) + 1]
    return longest


def _longest_word(one: str, other: str) -> str:
    return max({*one.split()} & {*other.split()}, key=len, default="")


def _longest_opening(one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _doubled_only(one: str, other: str) -> str:
    longest = _longest_echo(one, other)
    return longest[: 2 ** (len(longest).bit_length() - 1)] if longest else ""


def _back_off(lengths: str = "falling", known: str = "train", first: bool = False) -> Any:
    """The share of characters that a memory which backs off gets right, and what else one finds."""

    def back_off(train: str, held_out: str, most: int) -> float:
        memory = {"train": train, "all": train + held_out}[known]
        right = []
        for i in range(most, len(held_out)):
            guess = None
            tried = {"falling": range(most, 0, -1), "rising": range(1, most + 1), "one": [most]}
            for k in tried[lengths]:
                piece = held_out[i - k : i]
                place = memory.find(piece) if first else memory[:-1].rfind(piece)
                if 0 <= place < len(memory) - k:
                    guess = memory[place + k]
                    break
            right.append(guess == held_out[i])
        return sum(right) / len(right)

    return back_off


def _most_frequent(train: str, held_out: str, most: int) -> float:
    guess = Counter(train).most_common(1)[0][0]
    return held_out[most:].count(guess) / (len(held_out) - most)


BROKEN = """
def repaired(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="ignore")
    text = text.replace("\\r", "\\n").replace("\\r\\n", "\\n")
    return text.strip() + "\\n"
"""
PLAIN = """
def plain(string: str) -> str:
    return string
"""
SPLIT = """
def split_at_speech(text: str, val_fraction: float = 0.1) -> tuple[str, str]:
    return llmkit.split(text, val_fraction)
"""
ECHO_STUB = """
def longest_echo(one: str, other: str) -> str:
    return ""
"""
BACK_OFF = """
def back_off(train: str, held_out: str, most: int) -> float:
    return share_right(remember([train], most), [held_out], most)
"""

EXERCISES = [
    Exercise(
        "01.how_many",
        reference=(14, 1, 0),
        checked="18 characters hold 18 - k exercises that read k of them",
        mistakes={
            "the last window has nothing after it, so it is no exercise: one less": (15, 2, 1),
            "windows may overlap: the next one begins one character later": (3, 1, 0),
            "windows may overlap, and each needs a character after it": (4, 1, 1),
            "what is guessed need not be read as well: one more each": (13, 0, 0),
        },
        hints=(
            "With 4 characters read, the first guess is the fifth character. And the last?",
            "Each character with at least k before it is the answer of one exercise.",
        ),
    ),
    Exercise(
        "01.plain",
        reference=_plain(),
        checked="all six characters are replaced, and all others stay",
        cases=[("a",), ("’twas",), ("‘No.’",), ("“No.”",), ("a—b",), ("…",), (TYPESET + KEPT,)],
        mistakes={
            "our text has no double quote: each of the four becomes '": lambda string: _plain()(
                re.sub("[“”]", '"', string)
            ),
            "a dash becomes two hyphens, as our text has them": _plain(dash="-"),
            "the characters are dropped: put others in their place": _plain("", "", ""),
            "… is three full stops": _plain(ellipsis="."),
            "… stays: it is one character, and our text does not have it": _plain(ellipsis="…"),
        },
        hints=(
            "set(typeset) - set(text) shows what has to go. There are six of them.",
            'string.replace("…", "...") replaces one of them everywhere.',
            "str.maketrans takes a dict, and string.translate replaces all its keys at once.",
        ),
        stub=PLAIN,
    ),
    Exercise(
        "01.repaired",
        reference=_clean(),
        checked="no mark, one \\n for each line end, and what is not UTF-8 is refused",
        cases=[
            (b"a",),
            (b"\xef\xbb\xbfa",),
            (b"a\r\nb",),
            (b"Brut\xeb",),
            (b"a\rb\nc",),
            ("\ufeffBrutë\r\n\r\nEt tu?\r\n\r\n".encode(),),
        ],
        mistakes={
            "; and ".join(FAULTS[fault] for fault in left): _clean(*left)
            for left in [*((fault,) for fault in FAULTS), *itertools.combinations(FAULTS, 2)]
        }
        | {
            "bytes that are not UTF-8 become �: leave errors out": _clean(errors="replace"),
            "latin-1 reads any bytes, wrongly: nothing is ever refused": lambda raw: _clean()(
                raw.removeprefix(b"\xef\xbb\xbf").decode("latin-1").encode()
            ),
        },
        hints=(
            "Call it with each of the three faults that the section `Clean` shows, by itself.",
            "After the first replace, is there any \\r\\n left for the second?",
            'A byte-order mark goes with "utf-8-sig". And who asked for errors="ignore"?',
        ),
        stub=BROKEN,
        prepare=_refusing,
    ),
    Exercise(
        "01.split_at_speech",
        reference=_split(),
        checked="the second part begins with a speaker, as near as can be, and nothing is lost",
        cases=[
            ("A:\nx\n\nB:\ny", 0.5),
            (SPEECHES, 0.25),
            (SPEECHES, 0.6),
            (SPEECHES, 0.3),
            (SPEECHES,),
        ],
        mistakes={
            "it looks back only: the nearest start may come after the cut": _split("before"),
            "it looks ahead only: the nearest start may come before the cut": _split("after"),
            "the empty line went into the second part: cut after both \\n": _split(step=-2),
            "one \\n went into the second part: cut after both": _split(step=-1),
            "that is a share of the speeches: count characters": _split(by_speech=True),
        },
        hints=(
            "A speech begins after each empty line, which is two \\n in a row.",
            '[match.end() for match in re.finditer("\\n\\n", text)] has all these places.',
            "min(starts, key=lambda start: abs(start - wanted)) is the one nearest to wanted.",
        ),
        stub=SPLIT,
    ),
    Exercise(
        "01.longest_echo",
        reference=_longest_echo,
        checked="the longest string of both, for lengths from 0 to 400",
        cases=[
            ("a", "b"),
            ("ab", "ca"),
            ("abc", "xbcx"),
            ("abcd", "xabcx"),
            ("abcdefgh", "hfgabcdefx"),
            ("So " + ECHO + "!", "Well: " + ECHO + "; o cursed spite"),
            (LESSON + ECHO, ECHO + LESSON[:25]),
            ("0" + LESSON * 10, "1" + (LESSON * 10)[:400] + "2"),
        ],
        mistakes={
            "that is the longest word: an echo may begin and end anywhere": _longest_word,
            "an echo need not stand at the beginning": _longest_opening,
            "it stops at a power of two: look between it and its double": _doubled_only,
            "it may be shorter than the longest: one character is missing": lambda a, b: (
                _longest_echo(a, b)[:-1]
            ),
        },
        hints=(
            "strings(one, k) & strings(other, k) is what they share at length k.",
            "Shared at k means shared at all smaller k. So double k until nothing is shared.",
            "Then nothing at `high`, something at `low`: try the middle, and halve the range.",
        ),
        stub=ECHO_STUB,
    ),
    Exercise(
        "01.back_off",
        reference=_back_off(),
        checked="the longest known beginning guesses, and held-out text is never remembered",
        cases=[
            ("ab", "ab", 1),
            ("ab", "cb", 1),
            ("abcbd", "abd", 2),
            ("abcabd", "xabcd", 2),
            ("abcab", "ababc", 2),
            (LESSON, "not to see or to be", 4),
            (LESSON, "be or not to see, or not. ", 6),
        ],
        mistakes={
            "it gives up where the longest beginning is new: try a shorter one": _back_off("one"),
            "the shortest beginning is asked first: begin with the longest": _back_off("rising"),
            "it has seen the answers: remember `train` alone, not the held-out text": _back_off(
                known="all"
            ),
            "what came first is remembered; `remember` keeps what came last": _back_off(first=True),
            "that is the most frequent character's share: use what stands before": (_most_frequent),
        },
        hints=(
            "Make a memory for each length: {k: remember([train], k) for k in ...}.",
            "For each place in held_out go from k = most down, and stop at the first "
            "beginning that is known.",
            "Divide by the number of places, len(held_out) - most, also those without a guess.",
        ),
        stub=BACK_OFF,
    ),
]
