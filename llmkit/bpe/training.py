"""Learning the merges of byte-pair encoding from counted words. What they are for: `tokenizer`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from llmkit.bpe.files import BYTES, Merges

Pair = tuple[int, int]


def learn_merges(words: Mapping[bytes, int], count: int) -> Merges:
    """The merges that make `count` new tokens (or all there are), from {word: how often it occurs}.

    Ties as `BPETokenizer.train` says. Counting all pairs again for each merge would take hours; a
    merge changes only the words that have its pair, so only these are counted again.
    """
    tokens = list(BYTES)  # in id order
    ids = {token: i for i, token in enumerate(tokens)}
    spelled = [[ids[bytes([byte])] for byte in word] for word in words]
    times = list(words.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # in which words a pair occurs, or did
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
        left, right = tokens[pair[0]], tokens[pair[1]]
        merges.append((left, right))
        if left + right not in ids:  # another pair may have made the same token
            ids[left + right] = len(tokens)
            tokens.append(left + right)
        new = ids[left + right]
        risen = set()
        for w in where.pop(pair):
            for other in pairwise(spelled[w]):
                counts[other] -= times[w]
            spelled[w] = replace_pair(spelled[w], pair, new)
            for other in pairwise(spelled[w]):
                counts[other] += times[w]
                if new in other:
                    where[other].add(w)
                    risen.add(other)
        for other in risen:
            heappush(queue, (-counts[other], other))
    return merges


def replace_pair(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """`ids` with `new` in place of the pair, wherever it stands, from the left."""
    out = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out
