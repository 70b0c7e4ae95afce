"""Making a file in several processes: each makes pieces of it and stores them itself, one behind
the other in the order of the pieces, although how long one is shows only when it is made.

The processes start from a clean one, not as copies of this one, whose threads (PyTorch's, a
notebook's, a GPU's) a copy would lack. What a piece is, is decided in `pieces` and `tokenfile`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any, Protocol

PATIENCE = 1.0  # seconds of work after which other processes are started to share it


class Job(Protocol):
    """What is done with each piece. Sent to each process once, pickled: a class of a module."""

    def make(self, piece: Any) -> tuple[bytes, Any]:
        """The bytes of a piece, and what else there is to say of it."""

    def store(self, data: bytes, place: int) -> None:
        """Put the bytes where they belong, from byte `place` on."""


def in_order(
    job: Job, pieces: Iterable[tuple[Any, Any]], workers: int | None = None, place: int = 0
) -> Iterator[tuple[Any, int, Any]]:
    """Make and store each of the (label, piece) in `pieces`; yields, in their order, the label, how
    many bytes it became, and what `make` said of it. Few pieces are held at a time.

    workers: 1 does the work here. None takes one for each core that this process may use, but does
    the first second of work here: a small job ends before processes have started. place: of the
    first byte.

    Raises what the job raises for the first piece with an error, RuntimeError for a killed process.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more, or None for all cores, not {workers}")
    pieces, count = iter(pieces), workers or cores()
    alone = float("inf") if count == 1 else PATIENCE if workers is None else 0.0
    start = time.monotonic()
    while time.monotonic() - start < alone:
        label, piece = next(pieces, (None, None))
        if label is None:
            return
        data, said = job.make(piece)
        job.store(data, place)
        place += len(data)
        yield label, len(data), said
    # Linux: processes split off from one clean process, which has done their imports once.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["llmkit"])
    pool = ProcessPoolExecutor(count, context, _start, (job, _Turns(context, place)))
    waiting: deque[tuple[Any, Future]] = deque()
    try:
        for number, (label, piece) in enumerate(pieces):
            with _no_main_module():
                waiting.append((label, pool.submit(_work, number, piece)))
            if len(waiting) > 2 * count:  # one in work and one in reserve for each
                label, future = waiting.popleft()
                yield label, *future.result()
        while waiting:
            label, future = waiting.popleft()
            yield label, *future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory; try again with workers=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def _no_main_module() -> Iterator[None]:
    """New processes would run the caller's script again, and fail where it lacks an
    ``if __name__ == "__main__"``. They need nothing from it, so let them find an empty one."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Turns:
    """Shared by all workers: which piece is stored next, and at which byte."""

    OVER = -1  # a piece had an error: none is next

    def __init__(self, context: BaseContext, place: int):
        self.changed = context.Condition()
        self.number = context.Value("q", 0, lock=False)
        self.place = context.Value("q", place, lock=False)

    def take(self, number: int, size: int | None) -> int:
        """Wait until it is a piece's turn, and get the place for its `size` bytes. None: it has
        none, nor has any piece behind it."""
        with self.changed:
            self.changed.wait_for(lambda: self.number.value in (number, self.OVER))
            if size is None or self.number.value == self.OVER:
                self.number.value = self.OVER
                self.changed.notify_all()
                raise RuntimeError("this piece, or one before it, had an error")
            place = self.place.value
            self.number.value, self.place.value = number + 1, place + size
            self.changed.notify_all()
            return place


def _start(job: Job, turns: _Turns) -> None:
    """In a new process: heed no Ctrl-C, which is for the parent, and end when that has ended."""
    global _job, _turns
    _job, _turns = job, turns
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(number: int, piece: Any) -> tuple[int, Any]:
    """In a worker: make a piece, and store it behind those before it."""
    try:
        data, said = _job.make(piece)
    except Exception as error:
        with suppress(RuntimeError):
            _turns.take(number, None)
        raise error from None
    _job.store(data, _turns.take(number, len(data)))
    return len(data), said
