"""Answers to notebook 09's exercises as readers would write them, and what each is told."""

from collections import Counter
from itertools import pairwise

import regex

from llmkit.bpe.files import BYTES
from llmkit.bpe.tokenizer import PATTERN


def merge(word, pair):
    out = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return tuple(out)


def each_token(ids, tokens):
    return "".join(tokens[i].decode("utf-8", errors="replace") for i in ids)


def strict(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode()


def ignoring(ids, tokens):
    return b"".join(tokens[i] for i in ids).decode(errors="ignore")


def ids_as_characters(ids, tokens):
    return bytes(i for i in ids if i < 256).decode("latin-1")


def inverse(text, encode):
    return len(text) / len(encode(text))


def per_byte(text, encode):
    return len(encode(text)) / len(text.encode())


def per_word(text, encode):
    return len(encode(text)) / len(text.split(" "))


def with_space(text):
    return regex.findall(PATTERN.pattern.replace(r"\p{N}+", r"\p{N}"), text)


def in_threes(text):
    return regex.findall(PATTERN.pattern.replace(r" ?\p{N}+", r"\p{N}{1,3}"), text)


def only_ascii(text):
    return regex.findall(PATTERN.pattern.replace(r" ?\p{N}+", r"\d"), text)


def without_spaces(text):
    return [part for piece in PATTERN.findall(text) for part in regex.findall(r"\d|\w+|\S", piece)]


def longest_match(word, ranks):
    tokens = {left + right for left, right in ranks}
    out = []
    while word:
        n = max(n for n in range(1, len(word) + 1) if n == 1 or word[:n] in tokens)
        out.append(word[:n])
        word = word[n:]
    return out


def from_the_left(word, ranks):
    out = [bytes([byte]) for byte in word]
    i = 0
    while i < len(out) - 1:
        if (out[i], out[i + 1]) in ranks:
            out[i : i + 2] = [out[i] + out[i + 1]]
            i = 0
        else:
            i += 1
    return out


def once(word, ranks):
    out = [bytes([byte]) for byte in word]
    for pair in sorted(ranks, key=ranks.get):
        for i in range(len(out) - 1):
            if (out[i], out[i + 1]) == pair:
                out[i : i + 2] = [pair[0] + pair[1]]
                break
    return out


def last_first(word, ranks):
    tokens = tuple(bytes([byte]) for byte in word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        tokens = merge(tokens, max(known, key=ranks.get))
    return list(tokens)


def start(words):
    spelled = {tuple(bytes([byte]) for byte in word.encode()): n for word, n in words.items()}
    return spelled, {token: i for i, token in enumerate(BYTES)}


def order(pairs, ids):
    return lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]])


def stale(words, count):
    spelled, ids = start(words)
    pairs = Counter()
    for word, n in spelled.items():
        for pair in pairwise(word):
            pairs[pair] += n
    return sorted(pairs, key=order(pairs, ids))[:count]


def unweighted(words, count):
    spelled, ids = start(words)
    merges = []
    while len(merges) < count:
        pairs = Counter(pair for word in spelled for pair in pairwise(word))
        if not pairs:
            break
        best = min(pairs, key=order(pairs, ids))
        spelled = {merge(word, best): n for word, n in spelled.items()}
        ids.setdefault(best[0] + best[1], len(ids))
        merges.append(best)
    return merges


def never_ending_pairs(words, count):
    spelled, ids = start(words)
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, n in spelled.items():
            for pair in pairwise(word):
                pairs[pair] += n
        best = min(pairs, key=order(pairs, ids))
        spelled = {merge(word, best): n for word, n in spelled.items()}
        ids.setdefault(best[0] + best[1], len(ids))
        merges.append(best)
    return merges


def not_merged(words, count):
    spelled, ids = start(words)
    pairs = Counter()
    for word, n in spelled.items():
        for pair in pairwise(word):
            pairs[pair] += n
    return [min(pairs, key=order(pairs, ids))] * count


WRONG = {
    "09.by_hand": [
        (("aa", "aaa", "aaab", 5), "the one with the older tokens comes first"),
        (("aa", "ab", "aaab", 8), "count the tokens of aaab d aaab a c"),
        (("ab", "aa", "aaab", 5), "a·b at two only"),
        (("aa", "ab", "aaab"), "there are 3 items, not 4"),
    ],
    "09.decode": [
        (each_token, "join the bytes first"),
        (strict, "it raised UnicodeDecodeError"),
        (ignoring, "half a character vanishes"),
        (ids_as_characters, "another result is wanted"),
    ],
    "09.price": [
        (inverse, "the other way round"),
        (per_byte, "that is per byte"),
        (per_word, "that is per word"),
    ],
    "09.cut_digits": [
        (with_space, "a space is still glued to the digit"),
        (in_threes, "groups of three"),
        (only_ascii, "½ is lost"),
        (without_spaces, "cut_digits(' 17')"),
    ],
    "09.encode_word": [
        (longest_match, "this takes the longest known token"),
        (from_the_left, "this merges the leftmost pair"),
        (once, "this merges each pair at one place only"),
        (last_first, "this takes the pair that was learned last"),
    ],
    "09.repaired": [
        (stale, "pairs are still counted at the start only"),
        (unweighted, "each word still counts once"),
        (never_ending_pairs, "it raised ValueError"),
        (not_merged, "another result is wanted"),
    ],
}

# Changes of a solution that leave it right, and why.
EQUIVALENT = {}
