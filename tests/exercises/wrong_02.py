"""Answers to notebook 02's exercises as readers would write them, and what each is told."""

import torch

import llmkit


def without_modulo(string, n, characters):
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode(tokenizer.encode(string) + n)


def code_points(string, n, characters):
    return "".join([chr(ord(character) + n) for character in string])


def backwards(string, n, characters):
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode((tokenizer.encode(string) - n) % tokenizer.vocab_size)


def one_short(string, n, characters):
    tokenizer = llmkit.CharTokenizer(characters)
    return tokenizer.decode((tokenizer.encode(string) + n) % (tokenizer.vocab_size - 1))


def sorted_again(string, n, characters):
    tokenizer = llmkit.CharTokenizer.from_text(string)
    return tokenizer.decode((tokenizer.encode(string) + n) % tokenizer.vocab_size)


def capitals_as_ids(text):
    capitals = [character for character in text if character.isupper()]
    return len(set(capitals)), len(capitals) / len(text)


def distinct_for_occurrences(text):
    characters, small = set(text), set(text.lower())
    return len(characters) - len(small), sum(c.isupper() for c in characters) / len(characters)


def among_letters(text):
    letters = [character for character in text if character.isalpha()]
    saved = len(set(text)) - len(set(text.lower()))
    return saved, sum(character.isupper() for character in letters) / len(letters)


def in_percent(text):
    saved = len(set(text)) - len(set(text.lower()))
    return saved, 100 * sum(character.isupper() for character in text) / len(text)


def larger_table_only(string, characters):
    table = torch.full((0x110000,), -1)
    table[[ord(character) for character in characters]] = torch.arange(len(characters))
    if not string:
        return table[:0]
    return table[torch.tensor([ord(character) for character in string])]


def still_no_empty_string(string, characters):
    table = torch.full((0x110000,), -1)
    table[[ord(character) for character in characters]] = torch.arange(len(characters))
    buffer = bytearray(string, "utf-32-le")
    ids = table[torch.frombuffer(buffer, dtype=torch.int32)]
    if (ids == -1).any():
        raise ValueError("unknown character")
    return ids


def float_when_empty(string, characters):
    for character in string:
        if character not in characters:
            raise ValueError(f"unknown: {character}")
    return torch.tensor([characters.index(character) for character in string])


def skipping(string, characters):
    known = [characters.index(character) for character in string if character in characters]
    return torch.tensor(known, dtype=torch.int64)


def by_dictionary(string, characters):
    to_id = {character: i for i, character in enumerate(characters)}
    return torch.tensor([to_id[character] for character in string], dtype=torch.int64)


class Ord:
    vocab_size = 256

    def encode(self, string):
        return torch.tensor([ord(character) for character in string], dtype=torch.long)

    def decode(self, ids):
        return "".join(chr(i) for i in ids)


class Remainder(Ord):
    def encode(self, string):
        return torch.tensor([ord(character) % 256 for character in string], dtype=torch.long)


class NoDtype(Ord):
    def encode(self, string):
        return torch.tensor(list(string.encode("utf-8")))

    def decode(self, ids):
        return bytes(ids.long().tolist()).decode("utf-8")


class ByteByByte(NoDtype):
    def encode(self, string):
        return torch.tensor(list(string.encode("utf-8")), dtype=torch.long)

    def decode(self, ids):
        return "".join(chr(i) for i in ids.tolist())


class Bound(ByteByByte):
    vocab_size = 255

    def decode(self, ids):
        return bytes(ids.tolist()).decode()


def wide(ids, characters):
    table = torch.tensor([ord(character) for character in characters])
    return table[ids].numpy().tobytes().decode("utf-32-le")


def narrow(ids, characters):
    table = torch.tensor([ord(character) for character in characters], dtype=torch.uint8)
    return table[ids].numpy().tobytes().decode("latin-1")


def ids_as_bytes(ids, characters):
    return bytes(ids.tolist()).decode("utf-8")


def no_look_up(ids, characters):
    table = torch.tensor([ord(character) for character in characters], dtype=torch.int32)
    return table.numpy().tobytes().decode("utf-32-le")


WRONG = {
    "02.small_vocabulary": [
        ((7, [2, 5, 7], "on b"), "counted from 0"),
        ((6, [0, 3, 5], "tren"), "the space is a character too"),
        ((7, (1, 4, 6), "ROBE"), "item 2: another result is wanted"),
        ((7, "146", "robe"), "item 1: a list is wanted, not a str"),
        (7, "a tuple is wanted, not an int"),
    ],
    "02.caesar": [
        (without_modulo, "caesar('b', 1, 'ab'): it raised ValueError: id 2"),
        (code_points, "that moves code points"),
        (backwards, "it moves the other way"),
        (one_short, "the last of the list is never reached"),
        (sorted_again, "caesar('b', 1, 'ab')"),
    ],
    "02.without_capitals": [
        (capitals_as_ids, "its small letter may be new"),
        (distinct_for_occurrences, "each time that a capital stands in the text"),
        (among_letters, "not of the letters alone"),
        (in_percent, "item 1: another number is wanted"),
    ],
    "02.repaired": [
        (larger_table_only, "-1 goes out still"),
        (still_no_empty_string, "repaired('', 'ab'): a tensor is wanted"),
        (float_when_empty, "the numbers are torch.float32, not torch.int64"),
        (skipping, "what is unknown is left out"),
        (by_dictionary, "it raised KeyError"),
    ],
    "02.ByteTokenizer": [
        (Ord, "those are code points"),
        (Remainder, "code points % 256 lose text"),
        (NoDtype, "at 'encode': the numbers are torch.float32"),
        (ByteByByte, "at 'decode(encode)'"),
        (Bound, "at 'vocab_size'"),
    ],
    "02.decode_by_table": [
        (wide, "the table is int64"),
        (narrow, "it raised RuntimeError"),
        (ids_as_bytes, "the ids were taken for code points"),
        (no_look_up, "that is the text of the table"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {
    "02.without_capitals": {"strict=False": "in each case the small letters are as many"},
    "02.repaired": {
        "torch.ones(0": "an empty tensor holds neither zeros nor ones",
        "(sys.maxunicode + 2,)": "a place more, of no code point",
        ", -2)": "any number below 0 says that there is no id",
    },
}
