"""Answers to notebook 01's exercises as readers would write them, and what each is told."""

import re

import llmkit


def no_quotes_at_all(string):
    for typeset in "“”‘’":
        string = string.replace(typeset, "")
    return string.replace("—", "--").replace("…", "...")


def opening_only(string):
    return string.replace("“", "'").replace("‘", "'").replace("—", "--").replace("…", "...")


def ascii_only(string):
    return string.encode("ascii", "ignore").decode("ascii")


def straight_double(string):
    return string.translate(str.maketrans("“”‘’", "\"\"''")).replace("—", "--").replace("…", "...")


def mark_forgotten(raw):
    return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").strip() + "\n"


def order_forgotten(raw):
    text = raw.decode("utf-8-sig")
    return text.replace("\r", "\n").replace("\r\n", "\n").strip() + "\n"


def old_line_ends_forgotten(raw):
    return raw.decode("utf-8-sig").replace("\r\n", "\n").strip() + "\n"


def still_ignoring(raw):
    return "\n".join(raw.decode("utf-8-sig", errors="ignore").splitlines()).strip() + "\n"


def line_end_forgotten(raw):
    return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").strip()


def look_back(text, val_fraction=0.1):
    cut = text.rindex("\n\n", 0, int((1 - val_fraction) * len(text))) + 2
    return text[:cut], text[cut:]


def look_ahead(text, val_fraction=0.1):
    cut = text.find("\n\n", int((1 - val_fraction) * len(text))) + 2
    return text[:cut], text[cut:]


def before_the_empty_line(text, val_fraction=0.1):
    wanted = (1 - val_fraction) * len(text)
    starts = [m.start() for m in re.finditer("\n\n", text)]
    cut = min(starts, key=lambda start: abs(start + 2 - wanted))
    return text[:cut], text[cut:]


def empty_line_lost(text, val_fraction=0.1):
    speeches = text.split("\n\n")
    first = speeches[:1]
    while len("\n\n".join(first)) < (1 - val_fraction) * len(text) - 30:
        first.append(speeches[len(first)])
    return "\n\n".join(first), "\n\n".join(speeches[len(first) :])


def in_words(one, other):
    words = [word for word in one.split() if word in other.split()]
    return max(words, key=len) if words else ""


def doubled(one, other):
    k, found = 1, ""
    while both := {one[i : i + k] for i in range(len(one) - k + 1)} & {
        other[i : i + k] for i in range(len(other) - k + 1)
    }:
        k, found = 2 * k, min(both)
    return found


def at_least_one(one, other):
    ends = [(i, j) for j in range(len(one) + 1) for i in range(j)]
    shared = [one[i:j] for i, j in ends if one[i:j] in other]
    return max(shared, key=len)


def length_only(one, other):
    return 1 if set(one) & set(other) else 0


def remember(text, k):
    return {text[i : i + k]: text[i + k] for i in range(len(text) - k)}


def backing(text_of, order):
    def back_off(train, held_out, most):
        memories = {k: remember(text_of(train, held_out), k) for k in range(1, most + 1)}
        right = 0
        for i in range(most, len(held_out)):
            for k in order(most):
                piece = held_out[i - k : i]
                if piece in memories[k]:
                    right += memories[k][piece] == held_out[i]
                    break
        return right / (len(held_out) - most)

    return back_off


def any_length_right(train, held_out, most):
    memories = {k: remember(train, k) for k in range(1, most + 1)}
    places = range(most, len(held_out))
    right = [
        any(memories[k].get(held_out[i - k : i]) == held_out[i] for k in range(1, most + 1))
        for i in places
    ]
    return sum(right) / len(right)


WRONG = {
    "01.how_many": [
        ((15, 2, 1), "the last window has nothing after it"),
        ((3, 1, 0), "windows may overlap"),
        ((14, 1), "there are 2 items, not 3"),
        ((14, 1, 1), "item 2: another number is wanted"),
        (14, "a tuple is wanted, not an int"),
    ],
    "01.plain": [
        (no_quotes_at_all, "plain('’twas')"),
        (opening_only, "plain('’twas')"),
        (ascii_only, "the characters are dropped"),
        (straight_double, "our text has no double quote"),
    ],
    "01.repaired": [
        (mark_forgotten, "the byte-order mark stays"),
        (order_forgotten, "each \\r\\n becomes two line ends"),
        (old_line_ends_forgotten, r"repaired(b'a\rb\nc')"),
        (still_ignoring, "vanish without a word"),
        (line_end_forgotten, "expected 'a\\n'\ngot      'a'"),
    ],
    "01.split_at_speech": [
        (look_back, "it raised ValueError: substring not found"),
        (look_ahead, "split_at_speech('A:\\nx\\n\\nB:\\ny', 0.5)"),
        (before_the_empty_line, "the empty line went into the second part"),
        (empty_line_lost, "item 0: another result is wanted"),
        (lambda text, val_fraction=0.1: llmkit.split(text, val_fraction), "item 0"),
    ],
    "01.longest_echo": [
        (in_words, "that is the longest word"),
        (doubled, "longest_echo('abcd', 'xabcx')"),
        (at_least_one, "longest_echo('a', 'b'): it raised ValueError"),
        (length_only, "another result is wanted"),
    ],
    "01.back_off": [
        (backing(lambda train, _: train, lambda most: [most]), "it gives up where"),
        (
            backing(lambda train, _: train, lambda most: range(1, most + 1)),
            "begin with the longest",
        ),
        (
            backing(lambda train, held: train + held, lambda n: range(n, 0, -1)),
            "it has seen the answers",
        ),
        (any_length_right, "back_off('abcbd', 'abd', 2)"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "01.longest_echo": {
        "(-1, 1)": "the empty string is shared, so low becomes 0 at the first halving",
        "(0, 2)": "the range may begin wider: it is halved all the same",
        "(high, 3 * high)": "likewise: tripled in place of doubled",
    },
    "01.back_off": {
        "range(0, most + 1)": "a memory more, of no characters, that is never asked",
        "range(1, most + 2)": "likewise, of more characters",
    },
}
