"""Texts drawn together: each joins at any token, leaves at any token, and is drawn in its own way.

This is continuous batching (Yu and others 2022, Orca). Most of what a step costs is the products
with the weights, and these the texts share; everything else is each text's own: its length, its
cache, its settings, and a generator for its seed. Who asks, and when it is over: see `engine`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from llmkit.arguments import LanguageModel
from llmkit.data import check_ids
from llmkit.evaluation import eval_mode, vocab_size_of
from llmkit.generation import fitting, next_token_probabilities, sample, stream
from llmkit.modern.decoding import quick
from llmkit.runtime import seeded
from llmkit.speed.decoding import Decoder, Slots

Drawn = int | BaseException  # a token, or why there is none


class Row:
    """A text on its way."""

    def __init__(self, window: list[int], settings: tuple[Any, ...], seed: int):
        self.window = window  # what the model sees, the newest token last
        self.settings = settings  # temperature, top_k, top_p
        self.generator = seeded(seed)
        self.unread = 0  # since which step it waits to be read; 0: it has been


class Batch:
    """A model, and the texts that it draws at present, `size` of them at most.

    A text is the one that `generation.generate` draws with its settings and its seed, whatever else
    is drawn beside it: what rounding makes of this is told in `speed.decoding.Slots`. A model that
    `Decoder` does not know (`FastGPT`, ONNX, a stranger's) draws a token of each in turn, and so
    does a `Modern` with a sliding window or with experts.
    """

    def __init__(self, model: LanguageModel, size: int):
        self.model = quick(model)
        self.rows: list[Row] = []  # each in the slot of its place here
        self._room = model.config.block_size
        together = isinstance(self.model, Decoder) and self.model.in_slots
        self._slots = Slots(cast(Decoder, self.model), size) if together else None
        self._streams: dict[Row, Iterator[Any]] = {}  # where there are no slots
        self._steps = 0

    def join(
        self,
        ids: Sequence[int],
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Row:
        """A text to go on from ids (T,), of any length; ValueError where they are no tokens."""
        prompt = check_ids(torch.tensor(ids), vocab_size_of(self.model), 1, "prompt_ids")
        window = prompt[-fitting(len(prompt), self._room) :].tolist()
        row = Row(window, (temperature, top_k, top_p), seed)
        if self._slots is None:
            new = sys.maxsize  # until it leaves
            self._streams[row] = stream(
                self.model, prompt, new, temperature, top_k, top_p, seed=seed
            )
        row.unread = self._steps + 1
        self.rows.append(row)
        return row

    def leave(self, row: Row) -> None:
        """It gets no more tokens, and there is room for another."""
        slot, last = self.rows.index(row), self.rows.pop()
        if last is not row:
            self.rows[slot] = last
            if self._slots:  # a text in the last one would be worth a step of all
                self._slots.move(len(self.rows), slot)
        self._streams.pop(row, None)

    def step(self) -> Iterator[tuple[Row, Drawn]]:
        """One more token of each text, or what went wrong with it, as it comes; until the last has
        been asked for, texts may leave, and none may join.

        Texts that are new, or whose window was full, are read one after the other: in a step no
        more than a window's worth of tokens, so that the others are not held up for longer. Those
        whose turn has not come are left out.
        """
        self._steps += 1
        if self._slots is None:
            work, reading = self._next, [*self.rows]
        else:
            work, reading = self._read, self._to_read()
            if going := [row for row in self.rows if not row.unread]:
                yield from _attempt(self._decode, going)
        for row in reading:
            if row in self.rows:
                yield from _attempt(work, [row])

    def _next(self, rows: list[Row]) -> list[Drawn]:
        with eval_mode(self.model):
            return [next(self._streams[row]) for row in rows]

    def _to_read(self) -> list[Row]:
        """Those that have waited longest, as many as fit."""
        waiting = sorted((row for row in self.rows if row.unread), key=lambda row: row.unread)
        sums = accumulate(len(row.window) for row in waiting)
        return [row for row, total in zip(waiting, sums, strict=True) if total <= self._room]

    def _read(self, rows: list[Row]) -> list[Drawn]:
        [row] = rows  # alone, so that its scores are its own
        with eval_mode(self.model):
            scores = cast(Slots, self._slots).read(self.rows.index(row), row.window)
        row.unread = 0
        return self._choose(rows, scores)

    def _decode(self, rows: list[Row]) -> list[Drawn]:
        newest = {s: row.window[-1] for s, row in enumerate(self.rows) if row in rows}
        return self._choose(rows, cast(Slots, self._slots).step(newest))

    def _choose(self, rows: list[Row], scores: Tensor) -> list[Drawn]:
        """A token for each row by its scores (B, V): those of the same settings at once; but those
        with a top_p apart, as how its sums are rounded depends on the neighbours."""
        alike = defaultdict(list)
        for b, row in enumerate(rows):
            alike[row.settings, None if row.settings[2] is None else b].append(b)
        found: dict[int, Drawn] = {}
        for places in alike.values():
            at = torch.tensor(places, device=scores.device)
            chosen = _draw([rows[b] for b in places], scores.index_select(0, at))
            found |= zip(places, chosen, strict=True)
        for b, row in enumerate(rows):
            if isinstance(token := found[b], int):
                self._append(row, token)
        return [found[b] for b in range(len(rows))]

    def _append(self, row: Row, token: int) -> None:
        """Where the window was full, what of it `fitting` keeps is read anew."""
        row.window.append(token)
        if len(row.window) > self._room:
            row.window = row.window[-fitting(len(row.window), self._room) :]
            row.unread = self._steps + 1


def _attempt(work: Callable[[list[Row]], list[Drawn]], rows: list[Row]) -> list[tuple[Row, Drawn]]:
    """What the work gives for each row; where it fails, even by an exit, the failure for each."""
    try:
        return list(zip(rows, work(rows), strict=True))
    except BaseException as error:
        return [(row, error) for row in rows]


def _draw(rows: list[Row], scores: Tensor) -> list[Drawn]:
    """Tokens of rows with the same settings; one's error (its scores are NaN) is its own."""
    try:
        p = next_token_probabilities(scores, *rows[0].settings)
        greedy = rows[0].settings[0] == 0
        new = p.argmax(dim=-1) if greedy else sample(p, [row.generator for row in rows])
        return new.cpu().tolist()
    except ValueError as error:
        if len(rows) == 1:
            return [error]
        return [each for b, row in enumerate(rows) for each in _draw([row], scores[b : b + 1])]
