"""A model that many ask at once: one worker thread, a bounded queue, answers as streams of text.

Requests run one after the other in the order in which they came, so a text depends on its own
request alone, not on what else is asked: same seed, same text. The rows of one request (several
prompts, or several answers to one) are drawn together where neighbours are equally long. The web
stands above, in `serve`; here is nothing of it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import groupby
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from llmkit import generation
from llmkit.bpe.files import END_OF_TEXT
from llmkit.deploy.text_stream import TextStream

GREEDY = 1e-6  # a temperature below it is one of 0


class QueueFull(Exception):
    """So many requests wait already that another is refused."""


class Closing(Exception):
    """The engine is shutting down: it finishes what it has and takes nothing new."""


class Expired(Exception):
    """The time limit of a request passed before its turn came."""


@dataclass(frozen=True)
class Request:
    """What to draw: rows of ids, each with a text to follow, and how, as `generation.stream` says.

    prompts: one row of ids or more, none empty. stop: strings, see `TextStream`. seed: row b is
    drawn with seed + b; None: one is drawn, and told in the job. whole: no pieces on the way, each
    row's text in one.
    """

    prompts: Sequence[Sequence[int]]
    max_new_tokens: int = 100
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Piece:
    """Some text of a row. The row's last piece, and it alone, says why the row ended ("stop": by a
    stop string or the end-of-text token; "length": by a limit) and how many tokens were drawn."""

    row: int
    text: str
    finish_reason: str | None = None
    tokens: int = 0


@dataclass(eq=False)
class Job:
    """A request on its way. Times in seconds of `time.monotonic`, None before they come."""

    request: Request
    seed: int
    deliver: Callable[[Piece | Exception], None]
    submitted: float
    deadline: float
    started: float | None = None
    first_token: float | None = None
    finished: float | None = None
    cancelled: bool = False
    ended: int = 0  # rows
    texts: list[list[str]] = field(default_factory=list)  # of each row, not yet delivered


class Engine:
    """A model and its tokenizer at work for many.

    Args:
        queue: how many requests may wait, besides the one that runs.
        timeout: seconds from a request's coming to its last token. What was drawn until then is
            its answer; a request whose turn never came is told by Expired.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, queue: int = 32, timeout: float = 60.0):
        V = getattr(model.config, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size != V:
            raise ValueError(
                f"the model scores {V} tokens, the tokenizer has {tokenizer.vocab_size}: not a pair"
            )
        self.model, self.tokenizer, self.queue, self.timeout = model, tokenizer, queue, timeout
        self.served, self.running, self.closing = 0, 0, False
        special = getattr(tokenizer, "special_tokens", {})
        self.end = special.get(END_OF_TEXT)  # the id after which a text is over
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._deadline = float("inf")  # when all must end
        self._worker = threading.Thread(target=self._work, name="llmkit engine", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    def submit(self, request: Request, deliver: Callable[[Piece | Exception], None]) -> Job:
        """Put a request into the queue; deliver is called in the worker's thread with each piece,
        or with an exception, after which nothing comes.

        Raises ValueError for a request that cannot be run, QueueFull and Closing at once.
        """
        self._check(request)
        now = time.monotonic()
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        job = Job(request, seed, deliver, now, now + self.timeout)
        job.texts = [[] for _ in request.prompts]
        with self._changed:
            if self.closing:
                raise Closing("the server is shutting down: it takes no new requests")
            if len(self._waiting) >= self.queue:
                raise QueueFull(f"{self.queue} requests wait already: try again in a moment")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: take it from the queue, or end it at its next token."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def stream(self, request: Request) -> Iterator[Piece]:
        """The pieces of a request as they come, in this thread; leaving the loop cancels it."""
        pieces: SimpleQueue[Piece | Exception] = SimpleQueue()
        job = self.submit(request, pieces.put)
        try:
            left = len(request.prompts)
            while left:
                piece = pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                left -= piece.finish_reason is not None
                yield piece
        finally:
            self.cancel(job)

    def refuse_new(self, grace: float) -> None:
        """Take nothing new; what is there has so many seconds to end."""
        with self._changed:
            self.closing = True
            self._deadline = min(self._deadline, time.monotonic() + grace)
            self._changed.notify_all()

    def close(self, grace: float = 10.0) -> None:
        """`refuse_new`, and wait until all has ended."""
        self.refuse_new(grace)
        self._worker.join()

    def _check(self, request: Request) -> None:
        V = self.tokenizer.vocab_size
        if not request.prompts or not all(len(row) for row in request.prompts):
            raise ValueError("the prompt is empty: a model predicts from one token or more")
        wrong = [i for row in request.prompts for i in row if not 0 <= i < V]
        if wrong:
            raise ValueError(f"token {wrong[0]} is not one of the ids 0 to {V - 1}")
        if request.top_k is not None and not 1 <= request.top_k <= V:
            raise ValueError(f"top_k must be from 1 to the vocabulary's {V}, not {request.top_k}")
        if not all(request.stop):
            raise ValueError("a stop string must have a character or more")

    def _work(self) -> None:
        """What the thread does: the next job, and the next, until there is none and never will."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.closing)
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self.running = 1
            try:
                self._run(job)
            except Exception as error:  # one request's failure is its own
                with suppress(Exception):  # nor is it the worker's that nobody hears of it
                    job.deliver(error)
            finally:
                job.finished = time.monotonic()
                self.running = 0

    def _run(self, job: Job) -> None:
        job.started = time.monotonic()
        if self._late(job):
            raise Expired("the server was too busy to begin in time: try again in a moment")
        first = 0
        for _, rows in groupby(job.request.prompts, key=len):
            rows = list(rows)
            self._draw(job, first, rows)
            first += len(rows)

    def _late(self, job: Job) -> bool:
        return time.monotonic() >= min(job.deadline, self._deadline)

    def _draw(self, job: Job, first: int, rows: list[Sequence[int]]) -> None:
        """Rows of one length, the first of which is row `first` of the request."""
        r, B = job.request, len(rows)
        temperature = 0 if r.temperature < GREEDY else r.temperature
        choices = (temperature, r.top_k, r.top_p, None, job.seed + first)
        texts = {first + b: TextStream(self.tokenizer, r.stop) for b in range(B)}  # still drawn
        drawn, late = 0, first > 0 and self._late(job)
        ids = torch.tensor(rows)  # (B, T)
        with closing(generation.stream(self.model, ids, r.max_new_tokens, *choices)) as tokens:
            while texts and not late and not job.cancelled:
                new = next(tokens, None)  # (B,)
                if new is None:
                    break
                drawn, late = drawn + 1, self._late(job)
                job.first_token = job.first_token or time.monotonic()
                for row, token in zip(range(first, first + B), new.tolist(), strict=True):
                    if row not in texts:
                        continue
                    text = texts[row]
                    ended = token == self.end
                    piece = text.end() if ended else text.push(token)
                    if ended or text.stopped:
                        del texts[row]
                        self._emit(job, row, piece, "stop", drawn)
                    else:
                        self._emit(job, row, piece)
        for row, text in texts.items():
            self._emit(job, row, text.end(), "length", drawn)

    def _emit(
        self, job: Job, row: int, text: str, reason: str | None = None, tokens: int = 0
    ) -> None:
        """Deliver a piece, or keep it where the text is wanted whole, or there is none."""
        job.texts[row].append(text)
        if reason is None and (job.request.whole or not text):
            return
        text, job.texts[row] = "".join(job.texts[row]), []
        if reason:
            job.ended += 1
            self.served += job.ended == len(job.request.prompts) and not job.cancelled
        job.deliver(Piece(row, text, reason, tokens))
