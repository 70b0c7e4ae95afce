"""A request on its way: from the engine's thread into the event loop, and out to its client."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse

from llmkit.deploy import engine as engines
from llmkit.deploy.engine import Engine, Piece, Unavailable
from llmkit.deploy.server.errors import refusal

LOG = logging.getLogger("uvicorn.error")
SSE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may hold it back
Event = dict[str, Any] | str  # JSON, or a word


class Mail:
    """From the engine's thread into the event loop: what is said in one go is told by one wake-up,
    which costs the thread more than all else that it does with a piece."""

    def __init__(self) -> None:
        self.posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self.told = False

    def post(self, loop: asyncio.AbstractEventLoop, take: Callable[[Any], None], it: Any) -> None:
        """In any thread: have the loop call take(it)."""
        self.posted.append((take, it))
        if not self.told:
            self.told = True
            with suppress(RuntimeError):  # a loop that is closed has no clients
                loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self.told = False  # first, so that what is posted from now on is told again
        while self.posted:
            take, it = self.posted.popleft()
            take(it)


class Answer:
    """A request in the engine, and its pieces as they come into the event loop.

    http: when it is over, by an answer or because the client left, the engine's work is, too.
    whole: each row's text in one piece. Raises what `Engine.submit` raises.
    """

    def __init__(self, engine: Engine, request: engines.Request, http: Request, whole: bool):
        self.rows_left, self.tokens, self.whole = len(request.prompts), 0, whole
        self.texts = [""] * self.rows_left
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self.mail: Mail = http.app.state.mail
        self.job = engine.submit(request, self._deliver)
        http.scope["over"].callback(engine.cancel, self.job)
        http.scope["over"].callback(lambda: self.look.cancel())
        self._look_after(engine)

    def _look_after(self, engine: Engine) -> None:
        """Each second: a model that has failed delivers nothing, not even that."""
        if failed := engine.failed:
            self.pieces.put_nowait(Unavailable("model_failed", failed))
        self.look = self.loop.call_later(1, self._look_after, engine)

    def _deliver(self, piece: Piece | Exception) -> None:
        """Called in the engine's thread."""
        if self.whole and isinstance(piece, Piece):
            self.texts[piece.row] += piece.text
            if piece.finish_reason is None:
                return
            piece = replace(piece, text=self.texts[piece.row])
        self.mail.post(self.loop, self.pieces.put_nowait, piece)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self.rows_left:
            piece = await self.pieces.get()
            if isinstance(piece, Exception):
                raise piece
            if piece.finish_reason:
                self.rows_left -= 1
                self.tokens += piece.tokens
            yield piece

    def timings(self) -> dict[str, float | None]:
        """Seconds from the request's coming."""
        job, now = self.job, time.monotonic()
        times = {"waited": job.started, "first_token": job.first_token, "total": now}
        return {k: None if t is None else round(t - job.submitted, 6) for k, t in times.items()}


def usage(seen: int, drawn: int) -> dict[str, int]:
    """How many tokens were read and drawn, as OpenAI tells it."""
    return {"prompt_tokens": seen, "completion_tokens": drawn, "total_tokens": seen + drawn}


async def event_stream(events: AsyncIterator[Event], http: Request) -> StreamingResponse:
    """Server-sent events, from the first one on: until then, an error can have a status."""
    first = await anext(events)

    async def lines() -> AsyncIterator[str]:
        try:
            yield _line(first)
            async for event in events:
                yield _line(event)
        except Exception as error:
            LOG.error("the model failed in the middle of an answer", exc_info=error)
            yield _line(refusal(error, http).fields())

    return StreamingResponse(lines(), media_type="text/event-stream", headers=SSE)


def _line(event: Event) -> str:
    data = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
    return f"data: {data}\n\n"
