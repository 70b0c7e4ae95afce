"""A model that many ask at once: one worker thread, a bounded queue, answers as pieces of text.

All that is asked is drawn together, a token of each text at a time (`batch`): a request's rows
(several prompts, or several answers to one) begin in the order in which they came, as soon as there
is room in the batch, and leave when they end. A text depends on its own request alone, not on what
else is asked: same seed, same text. What makes HTTP of it is `llmkit.deploy.server`; nothing here
knows of the web.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from llmkit.arguments import LanguageModel, Tokenizer, check_number, check_type
from llmkit.deploy.batch import Batch, Row
from llmkit.deploy.text_stream import TextStream, end_of_text
from llmkit.evaluation import vocab_size_of


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


@dataclass(eq=False)
class _Text:
    """A row of a job, while it is drawn."""

    job: Job
    row: int
    stream: TextStream
    drawn: int = 0


class Engine:
    """A model and its tokenizer at work for many.

    Args:
        queue: how many requests may wait, besides those that are being answered.
        timeout: seconds from a request's coming to its last token. What was drawn until then is
            its answer; a request whose turn never came gets Unavailable.
        batch: how many texts are drawn together, each with a cache of its own; 1: one after the
            other.

    Raises ValueError for a model and a tokenizer that are not a pair.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        queue: int = 32,
        timeout: float = 60.0,
        batch: int = 16,
    ):
        check_type("tokenizer", tokenizer, Tokenizer)
        vocab_size_of(model)  # or it is no model
        check_number("queue", queue, int, least=1)
        check_number("timeout", timeout, above=0)
        check_number("batch", batch, int, least=1)
        V = getattr(model.config, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size != V:
            raise ValueError(
                f"the model scores {V} tokens, the tokenizer has {tokenizer.vocab_size}: not a pair"
            )
        self.model, self.tokenizer = model, tokenizer
        self.queue, self.timeout, self.batch = queue, timeout, batch
        self.end = end_of_text(tokenizer)
        self.running, self.served = 0, 0  # how many requests
        self.closing = False
        self._deadline = float("inf")  # when all must end
        self._jobs: deque[Job] = deque()  # those that wait
        self._begun: deque[tuple[Job, int]] = deque()  # rows of others, yet to be drawn
        self._texts: dict[Row, _Text] = {}  # those that are
        self._batch = Batch(model, batch)
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
        """The worker's thread: a token of each text, again and again, until closing finds none."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._texts or self.closing)
                if not (self._jobs or self._texts):
                    return
            self._fill()
            for row, token in self._batch.step():
                self._beat = time.monotonic()
                if text := self._texts.get(row):  # its job may have failed in this step
                    with self._blamed_on(text.job):
                        if not isinstance(token, int):
                            raise token
                        self._take(row, text, token)

    def _fill(self) -> None:
        """Begin what waits, the first that came first, until the batch is full or nothing waits."""
        while len(self._texts) < self.batch:
            if self._begun:
                job, b = self._begun.popleft()
                with self._blamed_on(job):
                    self._begin(job, b)
                continue
            with self._change:
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._beat = job.started = time.monotonic()
                self.running += 1
            with self._blamed_on(job):
                if self._late(job):
                    sentence = "the server was too busy to begin in time: try again in a moment"
                    raise Unavailable("timeout", sentence)
                self._begun.extend((job, b) for b in range(len(job.request.prompts)))

    def _begin(self, job: Job, b: int) -> None:
        """Row b of a request joins the batch."""
        r, text = job.request, _Text(job, b, TextStream(self.tokenizer, job.request.stop))
        check_number("max_new_tokens", r.max_new_tokens, int, least=0)
        # Of a request whose time is up or whose client left, rows yet to begin get no token.
        if r.max_new_tokens == 0 or job.cancelled or (b > 0 and self._late(job)):
            return self._deliver(text, "", "length")
        row = self._batch.join(r.prompts[b], r.temperature, r.top_k, r.top_p, job.seed + b)
        self._texts[row] = text

    def _take(self, row: Row, text: _Text, token: int) -> None:
        """Hand a token on as text; where it is the last one, the row leaves the batch."""
        job, stream = text.job, text.stream
        text.drawn += 1
        job.first_token = job.first_token or self._beat
        ended = token == self.end
        piece = stream.end() if ended else stream.push(token)
        stopped = ended or stream.stopped
        enough = text.drawn == job.request.max_new_tokens or job.cancelled or self._late(job)
        if stopped or enough:
            self._leave(row)
        if stopped:
            return self._deliver(text, piece, "stop")
        if piece:
            self._deliver(text, piece)
        if enough:
            self._deliver(text, stream.end(), "length")

    def _leave(self, row: Row) -> None:
        del self._texts[row]
        self._batch.leave(row)

    def _late(self, job: Job) -> bool:
        return time.monotonic() >= min(job.deadline, self._deadline)

    def _deliver(self, text: _Text, piece: str, finish_reason: str | None = None) -> None:
        job = text.job
        if finish_reason:
            job.rows_left -= 1
            if job.rows_left == 0:  # counted before its client can know
                self.running -= 1
                self.served += not job.cancelled
        job.deliver(Piece(text.row, piece, finish_reason, text.drawn if finish_reason else 0))

    @contextmanager
    def _blamed_on(self, job: Job) -> Iterator[None]:
        """What fails inside the ``with``, even by an exit, is this job's failure, and its end."""
        try:
            yield
        except BaseException as error:
            self._begun = deque(each for each in self._begun if each[0] is not job)
            for row in [row for row, text in self._texts.items() if text.job is job]:
                self._leave(row)
            self.running -= job.rows_left > 0  # or its last piece was counted already
            known = error if isinstance(error, Exception) else RuntimeError(repr(error))
            with suppress(Exception):  # nor is it the worker's that nobody hears of it
                job.deliver(known)
