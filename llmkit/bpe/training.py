"""Learning the merges of byte-pair encoding from counted words. What they are for: `bpe`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from llmkit.bpe.files import BYTES, Merges


def learn_merges(words: Mapping[bytes, int], count: int) -> Merges:
    """At most so many merges as make `count` new tokens, learned from {word: how often it occurs}.

    Ties as `BPETokenizer.train` says. Only the words that have the merged pair are looked at.
    """
    tokens, ids = list(BYTES), {token: i for i, token in enumerate(BYTES)}
    spelled = [[ids[word[i : i + 1]] for i in range(len(word))] for word in words]
    times = list(words.values())
    counts: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for w, word in enumerate(spelled):
        for pair in pairwise(word):
            counts[pair] += times[w]
            where[pair].add(w)
    queue = [(-n, pair) for pair, n in counts.items()]  # the most frequent first, then low ids
    heapify(queue)
    merges: Merges = []
    while queue and len(tokens) < len(BYTES) + count:
        n, pair = heappop(queue)
        if counts[pair] != -n:  # no longer: some of them were merged with other neighbours
            if counts[pair] > 0:
                heappush(queue, (-counts[pair], pair))
            continue
        left, right = (tokens[i] for i in pair)
        merges.append((left, right))
        new = ids.setdefault(left + right, len(tokens))
        tokens += [left + right] * (new == len(tokens))
        risen = set()
        for w in where.pop(pair):
            old = spelled[w]
            spelled[w] = word = replace_pair(old, pair, new)
            for other in pairwise(old):
                counts[other] -= times[w]
            for other in pairwise(word):
                counts[other] += times[w]
                if new in other:
                    where[other].add(w)
                    risen.add(other)
        for other in risen:
            heappush(queue, (-counts[other], other))
    return merges


def replace_pair(ids: Sequence[int], pair: tuple[int, int], new: int) -> list[int]:
    """`ids` with `new` in place of the pair, wherever it stands, from the left."""
    out, i = [], 0
    while i < len(ids):
        both = i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair
        out.append(new if both else ids[i])
        i += 1 + both
    return out
