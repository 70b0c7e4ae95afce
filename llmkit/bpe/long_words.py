"""The merges of BPE in a word of thousands of bytes: a text without spaces, or a DNA.

`BPETokenizer.merge` takes one place after the other. Here all places of a merge are taken at once,
in NumPy, one merge after the other, which is the same as long as what a merge makes is used by
later merges alone (as in everything that was learned by counting: `in_order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

LONG = 100_000  # bytes from which this is the faster way
BLOCK = 1 << 18  # places looked at in one go


class LongWords:
    """Merges as arrays. pairs: (M, 2), the ids that each merge joins, in the order of the merges;
    products: (M,), what it makes of them."""

    def __init__(self, pairs: Sequence[tuple[int, int]], products: Sequence[int]) -> None:
        self.pairs = np.array(pairs, np.int64).reshape(-1, 2)
        self.products = np.array(products, np.int64)
        self.base = int(max(self.pairs.max(initial=0), self.products.max(initial=0))) + 1
        keys = self.pairs[:, 0] * self.base + self.pairs[:, 1]
        self.keys, self.ranks = np.unique(keys, return_index=True)  # of the same pair, the first
        first_use = np.full(self.base, len(products))
        np.minimum.at(first_use, self.pairs.ravel(), np.arange(len(products)).repeat(2))
        self.in_order = bool((first_use[self.products] > np.arange(len(products))).all())

    def merge(self, ids: Sequence[int]) -> list[int]:
        """Apply the merges to the ids of one word."""
        n = len(ids)
        tokens = np.array(ids, np.int32)  # -1 where a token has become part of the one before it
        # for each place, the next and the last that hold a token
        after, before = np.arange(1, n + 1, dtype=np.int32), np.arange(-1, n - 1, dtype=np.int32)
        waiting: dict[int, list[np.ndarray]] = {}  # the places at which a merge may apply
        queue: list[int] = []  # the ranks of those

        def look(left: np.ndarray) -> None:
            """Note the merges that apply at these places and the next ones."""
            left = left[(left >= 0) & (after[left] < n)]
            keys = tokens[left].astype(np.int64) * self.base + tokens[after[left]]
            found = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
            known = self.keys[found] == keys
            left, ranks = left[known], self.ranks[found[known]]
            order = np.argsort(ranks, kind="stable")
            left, ranks = left[order], ranks[order]
            starts = np.flatnonzero(np.diff(ranks, prepend=-1))
            places_of = np.split(left, starts[1:])
            for rank, places in zip(ranks[starts].tolist(), places_of, strict=False):
                if rank not in waiting:
                    heappush(queue, rank)
                waiting.setdefault(rank, []).append(places)

        for start in range(0, n if len(self.keys) else 0, BLOCK):
            look(np.arange(start, min(start + BLOCK, n), dtype=np.int32))
        while queue:
            rank = heappop(queue)
            one, other = self.pairs[rank]
            left = np.unique(np.concatenate(waiting.pop(rank)))
            left = left[tokens[left] == one]
            left = left[after[left] < n]
            left = left[tokens[after[left]] == other]
            if one == other:  # in "aaaa" the places overlap: take the first, the third ...
                left = _every_second(left, after)
            right = after[left]
            tokens[left], tokens[right] = self.products[rank], -1
            after[left] = after[right]
            inside = left[after[left] < n]
            before[after[inside]] = inside
            look(np.union1d(before[left], left))
        return tokens[tokens >= 0].tolist()


def _every_second(left: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of places that follow one another directly, the first, the third and so on."""
    starts = np.ones(len(left), bool)
    starts[1:] = after[left[:-1]] != left[1:]
    run = np.maximum.accumulate(np.where(starts, np.arange(len(left)), 0))
    return left[(np.arange(len(left)) - run) % 2 == 0]
