"""Byte-level BPE, the tokenizer of GPT-2 and of most models since: text to integers and back.

A text is cut into words by a regular expression, each word becomes its bytes in UTF-8, and pairs of
neighbours are merged in the order in which the merges were learned. Every text has ids, for the 256
bytes are tokens. Here live encoding and decoding; how merges are learned: `training`; the files
of others: `files`.

Sources: Sennrich et al. 2016 (https://arxiv.org/abs/1508.07909), Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex
import torch

from llmkit.arguments import check_each, check_number, check_type, shown
from llmkit.bpe import files
from llmkit.bpe.files import BYTES, END_OF_TEXT, Merges, spell
from llmkit.bpe.long_words import LONG, LongWords
from llmkit.bpe.training import learn_merges
from llmkit.files import as_path, reading
from llmkit.tokenizer import BLOCK, BaseTokenizer

# GPT-2's: an ending such as 's; a run of letters, of digits or of other marks, each with the space
# before it; white space, of which the last before a word is left to the word.
PATTERN = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
# The same, but each digit is a word of its own, and nothing before it is left to it.
DIGITS = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
)
REMEMBERED = 1 << 18  # words whose ids are kept from one text to the next


class BPETokenizer(BaseTokenizer):
    """Byte-level byte-pair encoding with GPT-2's regular expression.

    `.merges`: pairs of tokens (bytes) in the order in which they were learned and are applied.
    `.tokens`: bytes, in id order. `.special_tokens`: {text: id}, of tokens that no text leads to
    unless `encode` is told to look for them.

    Args:
        merges: pairs of bytes.
        special_tokens: str, such as "<|endoftext|>"; those that `tokens` lacks get the last ids.
        tokens: all of them in id order, special ones in UTF-8; None: the 256 bytes in GPT-2's
            order, then what each merge makes, then the special tokens. They may lack bytes that
            texts hardly have, if there is "<|endoftext|>" to stand for these.
        digits: whether each digit of a number is a word of its own, as for SmolLM2.
    """

    kind = "bpe"
    tokens: list[bytes]

    def __init__(
        self,
        merges: Iterable[Sequence[bytes]],
        special_tokens: Iterable[str] = (),
        tokens: Iterable[bytes] | None = None,
        digits: bool = False,
    ):
        check_type("digits", digits, bool)
        self.digits = digits
        self._pattern = DIGITS if digits else PATTERN
        pairs = check_each("merges", merges, list, tuple, wanted="pairs of bytes")
        if not all(len(pair) == 2 and all(isinstance(b, bytes) for b in pair) for pair in pairs):
            raise ValueError("merges must be pairs, each of two bytes")
        self.merges: Merges = [(left, right) for left, right in pairs]
        special_tokens = check_each("special_tokens", special_tokens, str)
        # A dict, since two merges may make the same token: "a" + "bc" and "ab" + "c".
        made = dict.fromkeys([*BYTES, *(left + right for left, right in self.merges)])
        self.tokens = list(made if tokens is None else tokens)
        ids = {token: i for i, token in enumerate(self.tokens)}
        self.special_tokens: dict[str, int] = {}
        for text in special_tokens:
            if not text or text.encode() in made:
                raise ValueError(f"{text!r} cannot be a special token: take a text of its own")
            if text.encode() not in ids:
                ids[text.encode()] = len(self.tokens)
                self.tokens.append(text.encode())
            self.special_tokens[text] = ids[text.encode()]
        self._check(made, ids)
        # What the merge of two ids makes, and its rank: the lowest is applied first.
        self._ranks: dict[tuple[int, int], int] = {}
        for rank, (left, right) in enumerate(self.merges):
            self._ranks.setdefault((ids[left], ids[right]), rank)
        self._products = [ids[left + right] for left, right in self.merges]
        self._byte_ids = [ids.get(bytes([b]), ids.get(END_OF_TEXT.encode(), 0)) for b in range(256)]
        self._word_ids = _WordIds(self)

    def _check(self, made: Iterable[bytes], ids: Mapping[bytes, int]) -> None:
        """ValueError where merges and tokens do not belong together."""
        if len(ids) < len(self.tokens):
            raise ValueError("the tokens of a BPETokenizer must be distinct")
        spare = BYTES if END_OF_TEXT in self.special_tokens else []  # which it then stands for
        for token in chain(made, *self.merges):
            if token not in ids and token not in spare:
                raise ValueError(
                    f"merges and tokens do not belong together: the merges need {shown(token)}, "
                    "which is not among the tokens"
                )
        known = {*made, *(text.encode() for text in self.special_tokens)}
        if extra := [token for token in self.tokens if token not in known]:
            raise ValueError(
                f"merges and tokens do not belong together: no merge makes {len(extra)} of the "
                f"tokens, {shown(extra[0])} for one; perhaps the merges are cut short"
            )

    @classmethod
    def train(cls, text: str, vocab_size: int, special_tokens: Sequence[str] = ()) -> BPETokenizer:
        """Learn merges: of all pairs of neighbours in the text's words the most frequent is merged,
        and again, until there are `vocab_size` tokens (fewer where no pair is left).

        Of equally frequent pairs, the one whose left token has the lowest id is merged, then whose
        right one has (as Hugging Face's trainer does). Special tokens in the text are left out.
        """
        check_type("text", text, str)
        check_number("vocab_size", vocab_size, int)
        special_tokens = check_each("special_tokens", special_tokens, str)
        room = vocab_size - len(BYTES) - len(special_tokens)
        if room < 0:
            raise ValueError(
                f"vocab_size {vocab_size} has no room for the 256 bytes and "
                f"{len(special_tokens)} special tokens; take {vocab_size - room} or more"
            )
        words: Counter[str] = Counter()
        for part in _split(text, special_tokens)[::2]:
            words.update(PATTERN.findall(part))
        try:
            in_bytes = {word.encode(): count for word, count in words.items()}
        except UnicodeEncodeError:
            raise _surrogate(text) from None
        return cls(learn_merges(in_bytes, room), special_tokens)

    def first(self, count: int) -> BPETokenizer:
        """A tokenizer with the first `count` merges only, and the ids that they lead to."""
        check_number("count", count, int, least=0, most=len(self.merges))
        return BPETokenizer(self.merges[:count], self.special_tokens, digits=self.digits)

    def encode(self, text: str, allowed_special: Iterable[str] | str = ()) -> torch.Tensor:
        """The ids of `text`, a LongTensor (N,).

        allowed_special: which special tokens are to be found in the text, "all" for all; the others
        are read as the characters that they are. So a stranger's text cannot end a document.

        Raises ValueError for half a surrogate pair, and for a special token that there is not.
        """
        check_type("text", text, str)
        if allowed_special != "all":
            check_each("allowed_special", allowed_special, str)
        allowed = self.special_tokens if allowed_special == "all" else set(allowed_special)
        for token in allowed:
            if token not in self.special_tokens:
                raise ValueError(
                    f"{token!r} is not one of the special tokens {list(self.special_tokens)}"
                )
        if len(self._word_ids) > REMEMBERED:
            self._word_ids.clear()
        arrays = [np.empty(0, np.int64)]
        try:
            for n, part in enumerate(_split(text, allowed)):
                if n % 2:  # every second part is a special token
                    arrays.append(np.array([self.special_tokens[part]]))
                else:
                    arrays.extend(self._encode(part))
        except UnicodeEncodeError:
            raise _surrogate(text) from None
        return torch.from_numpy(np.concatenate(arrays))

    def _encode(self, text: str) -> Iterator[np.ndarray]:
        """The ids of a text without special tokens, a block at a time: a long text has too many
        words for a list of all of them."""
        start, cut = 0, re.compile(self.cut)
        while start < len(text):
            found = cut.search(text, start + BLOCK)
            end = found.start() if found else len(text)
            words = self._pattern.findall(text, start, end)
            ids = chain.from_iterable(map(self._word_ids.__getitem__, words))
            yield np.fromiter(ids, np.int64)
            start = end

    def merge(self, ids: Sequence[int]) -> list[int]:
        """Apply the merges to the ids of one word: the earliest first, and of several places the
        leftmost. Time n log n, however long the word."""
        if len(ids) >= LONG and self._long_words.in_order:
            return self._long_words.merge(ids)
        ranks, n = self._ranks, len(ids)
        tokens = list(ids)  # -1 where a token has become part of the one before it
        after = list(range(1, n + 1))  # for each place, the next and the last that hold a token
        before = list(range(-1, n - 1))
        pairs = enumerate(pairwise(tokens))
        queue = [(ranks[pair], place, pair) for place, pair in pairs if pair in ranks]
        heapify(queue)
        while queue:
            rank, left, pair = heappop(queue)
            right = after[left]
            if right == n or (tokens[left], tokens[right]) != pair:
                continue  # one of the two has become part of another token
            tokens[left], tokens[right] = self._products[rank], -1
            after[left] = after[right]
            if after[left] < n:
                before[after[left]] = left
            for i, j in ((before[left], left), (left, after[left])):  # its pairs with neighbours
                if i >= 0 and j < n and (tokens[i], tokens[j]) in ranks:
                    pair = (tokens[i], tokens[j])
                    heappush(queue, (ranks[pair], i, pair))
        return [token for token in tokens if token >= 0]

    @cached_property
    def _long_words(self) -> LongWords:
        pairs = sorted(self._ranks, key=self._ranks.__getitem__)
        return LongWords(pairs, [self._products[self._ranks[pair]] for pair in pairs])

    def join(self, ids: np.ndarray) -> str:
        # bytes that are no UTF-8, such as half a character, become U+FFFD
        return b"".join([self.tokens[i] for i in ids.tolist()]).decode("utf-8", "replace")

    def to_json(self) -> str:
        default = BPETokenizer(self.merges, self.special_tokens).tokens
        spelled = None if self.tokens == default else [spell(token) for token in self.tokens]
        fields = {
            "kind": self.kind,
            "special_tokens": list(self.special_tokens),
            "tokens": spelled,
            "merges": [f"{spell(left)} {spell(right)}" for left, right in self.merges],
            **({"digits": True} if self.digits else {}),
        }
        return json.dumps(fields)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> BPETokenizer:
        merges = files.unspell_merges(fields["merges"], "merges")
        spelled = fields["tokens"]
        tokens = None if spelled is None else [files.unspell(token) for token in spelled]
        return cls(merges, fields["special_tokens"], tokens, fields.get("digits", False))

    @classmethod
    def gpt2(cls, folder: str | Path) -> BPETokenizer:
        """GPT-2's own: a folder with encoder.json and vocab.bpe, or vocab.json and merges.txt.

        Raises FileNotFoundError, or ValueError for files cut short or that do not belong together.
        """
        folder = as_path(folder, "folder")
        with reading(folder):
            return cls(*files.read_gpt2(folder))

    @classmethod
    def from_huggingface(cls, path: str | Path) -> BPETokenizer:
        """From a tokenizer.json; ValueError where that is of another kind than GPT-2's.

        Added tokens become special tokens; a post-processor (which adds tokens) is left out.
        """
        path = as_path(path)
        with reading(path):
            return cls(*files.read_huggingface(path))

    def save_huggingface(self, path: str | Path) -> None:
        """Write a tokenizer.json, which `tokenizers` and `transformers` load."""
        fields = files.huggingface_fields(
            self.merges, self.tokens, self.special_tokens, self.digits
        )
        as_path(path).write_text(json.dumps(fields, ensure_ascii=False) + "\n", encoding="utf-8")

    def __reduce__(self) -> tuple[Any, ...]:  # pickled without the words that it has met
        return type(self), (self.merges, list(self.special_tokens), self.tokens, self.digits)

    def __repr__(self) -> str:
        special = list(self.special_tokens)
        return f"BPETokenizer(vocab_size={self.vocab_size}, special_tokens={special})"


class _WordIds(dict[str, list[int]]):
    """The ids of the words met so far; a new one is merged when it is asked for."""

    def __init__(self, tokenizer: BPETokenizer):
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        byte_ids = self.tokenizer._byte_ids
        self[word] = ids = self.tokenizer.merge([byte_ids[byte] for byte in word.encode()])
        return ids


def _split(text: str, special: Iterable[str]) -> list[str]:
    """Text, special token, text and so on; the longer one where two could start."""
    longest_first = sorted(special, key=len, reverse=True)
    if not longest_first:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def _surrogate(text: str) -> ValueError:
    """What to say of a str that has no UTF-8."""
    place = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    line = text.count("\n", 0, place) + 1
    return ValueError(
        f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} (line {line}) "
        "is half a surrogate pair, which has no bytes in UTF-8; remove it, as "
        "text.encode('utf-8', 'ignore').decode() does"
    )
