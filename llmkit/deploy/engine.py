"""A model that many ask at once: one worker thread, a bounded queue, answers as pieces of text.

Requests run one after the other in the order in which they came, so a text depends on its own
request alone, not on what else is asked: same seed, same text. The rows of one request (several
prompts, or several answers to one) are drawn together where neighbours are equally long. What makes
HTTP of it is `llmkit.deploy.server`; nothing here knows of the web.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import torch

from llmkit import generation
from llmkit.arguments import check_number, check_type
from llmkit.deploy.text_stream import TextStream, end_of_text
from llmkit.evaluation import vocab_size_of
from llmkit.speed.decoding import quick
from llmkit.types import LanguageModel, Tokenizer


class Unavailable(Exception):
    """The engine does not take a request, or could not begin it; a moment later it may.

    code: "queue_full", "shutting_down", "model_failed", or "timeout" for a request whose turn never
    came.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """What to draw: rows of ids, each with a text to follow, and how, as `generation.stream` says.

    stop: strings, see `TextStream`. seed: row b is drawn with seed + b; None: one is chosen, which
    the job has.
    """

    prompts: Sequence[Sequence[int]]
    max_new_tokens: int = 100
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None


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
    rows_left: int
    started: float | None = None
    first_token: float | None = None
    cancelled: bool = False


class Engine:
    """A model and its tokenizer at work for many.

    Args:
        queue: how many requests may wait, besides the one that runs.
        timeout: seconds from a request's coming to its last token. What was drawn until then is
            its answer; a request whose turn never came gets Unavailable.

    Raises ValueError for a model and a tokenizer that are not a pair.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, queue: int = 32, timeout: float = 60.0
    ):
        check_type("tokenizer", tokenizer, Tokenizer)
        vocab_size_of(model)  # or it is no model
        check_number("queue", queue, int, least=1)
        check_number("timeout", timeout, above=0)
        V = getattr(model.config, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size != V:
            raise ValueError(
                f"the model scores {V} tokens, the tokenizer has {tokenizer.vocab_size}: not a pair"
            )
        self.model = quick(model)
        self.tokenizer, self.queue, self.timeout = tokenizer, queue, timeout
        self.end = end_of_text(tokenizer)
        self.running, self.served = 0, 0  # how many requests
        self.closing = False
        self._deadline = float("inf")  # when all must end
        self._jobs: deque[Job] = deque()  # those that wait
        self._change = threading.Condition()
        self._beat = 0.0  # when the worker last got on, by a job or a token
        # A daemon: a model that never returns must not keep the process from ending.
        self._worker = threading.Thread(target=self._work, name="llmkit engine", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._jobs)

    @property
    def failed(self) -> str | None:
        """What is wrong with the worker, as a sentence; None while it works."""
        if not self._worker.is_alive() and (self._jobs or not self.closing):
            return "the model's thread has ended: the server must be started again"
        if self.running and time.monotonic() - self._beat > self.timeout:
            return f"the model has made no token for {self.timeout:g} seconds: it may be stuck"
        return None

    def submit(self, request: Request, deliver: Callable[[Piece | Exception], None]) -> Job:
        """Put a request into the queue; deliver is called in the worker's thread with each piece,
        or with an exception, after which nothing comes. Raises Unavailable, ValueError at once.
        """
        now, rows = time.monotonic(), len(request.prompts)
        if rows == 0:
            raise ValueError("a request needs a prompt or more")
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        job = Job(request, seed, deliver, now, now + self.timeout, rows)
        with self._change:
            if self.closing:
                raise Unavailable("shutting_down", "the server is shutting down: ask another")
            if failed := self.failed:
                raise Unavailable("model_failed", failed)
            if self.waiting >= self.queue:
                sentence = f"{self.queue} requests wait already: try again in a moment"
                raise Unavailable("queue_full", sentence)
            self._jobs.append(job)
            self._change.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: take it from the queue, or end it at its next token."""
        with self._change:
            job.cancelled = True
            if job in self._jobs:
                self._jobs.remove(job)

    def refuse_new(self, grace: float) -> None:
        """Take nothing new; what is there has `grace` seconds to end."""
        with self._change:
            self.closing = True
            self._deadline = min(self._deadline, time.monotonic() + grace)
            self._change.notify()

    def close(self, grace: float = 10.0) -> None:
        """`refuse_new`, and wait until all has ended; a last token may take 5 seconds more."""
        self.refuse_new(grace)
        self._worker.join(max(0.0, self._deadline + 5 - time.monotonic()))

    def _work(self) -> None:
        """The worker's thread: one job after the other, until closing finds none left."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self.closing)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._beat, self.running = time.monotonic(), 1
            try:
                self._run(job)
            except BaseException as error:  # one request's failure is its own, an exit too
                known = error if isinstance(error, Exception) else RuntimeError(repr(error))
                with suppress(Exception):  # nor is it the worker's that nobody hears of it
                    job.deliver(known)
            finally:
                self.running = 0

    def _run(self, job: Job) -> None:
        job.started = time.monotonic()
        if self._late(job):
            sentence = "the server was too busy to begin in time: try again in a moment"
            raise Unavailable("timeout", sentence)
        first = 0
        for _, neighbours in groupby(job.request.prompts, key=len):
            rows = list(neighbours)
            self._draw(job, first, rows)
            first += len(rows)

    def _late(self, job: Job) -> bool:
        return time.monotonic() >= min(job.deadline, self._deadline)

    def _draw(self, job: Job, first: int, rows: list[Sequence[int]]) -> None:
        """Rows of one length, the first of which is row `first` of the request."""
        r = job.request
        texts = {first + b: TextStream(self.tokenizer, r.stop) for b in range(len(rows))}
        # Of a request whose time is up or whose client left, rows yet to begin get no token.
        over = job.cancelled or (first > 0 and self._late(job))
        tokens = generation.stream(
            self.model,
            torch.tensor(rows),  # (B, T)
            0 if over else r.max_new_tokens,
            r.temperature,
            r.top_k,
            r.top_p,
            seed=job.seed + first,
        )
        drawn = 0
        for new in tokens:  # (B,)
            drawn += 1
            self._beat = time.monotonic()
            job.first_token = job.first_token or self._beat
            for row, token in enumerate(torch.as_tensor(new).tolist(), first):
                if row not in texts:
                    continue  # it ended before its neighbours
                ended = token == self.end
                piece = texts[row].end() if ended else texts[row].push(token)
                if ended or texts[row].stopped:
                    del texts[row]
                    self._deliver(job, Piece(row, piece, "stop", drawn))
                elif piece:
                    self._deliver(job, Piece(row, piece))
            if not texts or job.cancelled or self._late(job):
                break
        for row, text in texts.items():
            self._deliver(job, Piece(row, text.end(), "length", drawn))

    def _deliver(self, job: Job, piece: Piece) -> None:
        if piece.finish_reason:
            job.rows_left -= 1
            if job.rows_left == 0 and not job.cancelled:
                self.served += 1  # before its client can know
        job.deliver(piece)
