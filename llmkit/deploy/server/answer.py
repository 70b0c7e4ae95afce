"""A request on its way: from the engine's thread into the event loop, and out to its client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from fastapi import Request
from starlette.responses import Response

from llmkit.deploy import engine as engines
from llmkit.deploy.engine import Engine, Piece
from llmkit.deploy.server.guard import Refusal, dump

LOG = logging.getLogger("uvicorn.error")
SSE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may hold it back


class EventStream(Response):
    """Server-sent events: each an object in JSON, or a word."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any] | str, None]):
        super().__init__(headers=SSE)
        del self.headers["content-length"]
        self.events = events

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.events) as events:
            with suppress(ConnectionError):  # the client left: nobody waits for the rest
                async for event in events:
                    line = event.encode() if isinstance(event, str) else dump(event)
                    body = b"data: " + line + b"\n\n"
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})


class Answer:
    """A request in the engine, and its pieces as they come into the event loop."""

    def __init__(self, engine: Engine, request: engines.Request, http: Request):
        self.engine, self.http = engine, http
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()
        try:
            self.job = engine.submit(request, self._deliver)
        except Exception as error:
            raise refusal(error) from error
        self.tokens = [0] * len(request.prompts)

    def _deliver(self, piece: Piece | Exception) -> None:
        """Called in the engine's thread."""
        with suppress(RuntimeError):  # a loop that is closed has no clients
            self.loop.call_soon_threadsafe(self.queue.put_nowait, piece)

    async def _watch(self) -> None:
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
        self.queue.put_nowait(ConnectionError("the client left"))

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces; ConnectionError where the client leaves, Refusal where the engine fails. To
        leave before the end cancels the request."""
        watcher, left = asyncio.create_task(self._watch()), len(self.tokens)
        try:
            while left:
                piece = await self.queue.get()
                if isinstance(piece, ConnectionError):
                    raise piece
                if isinstance(piece, engines.Expired):
                    raise refusal(piece)
                if isinstance(piece, Exception):
                    LOG.error("the model failed on a request", exc_info=piece)
                    sentence = "the model failed on this request: the server's log has more"
                    raise Refusal(500, sentence)
                if piece.finish_reason:
                    self.tokens[piece.row] = piece.tokens
                    left -= 1
                yield piece
        finally:
            watcher.cancel()
            self.engine.cancel(self.job)

    async def begun(self) -> AsyncGenerator[Piece, None]:
        """`pieces`, once there is a first one: until then an error can have an HTTP status."""
        pieces = self.pieces()
        try:
            first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return _after(first, pieces)

    def timings(self) -> dict[str, float | None]:
        """Seconds from the request's coming."""
        job, now = self.job, time.monotonic()
        times = {"waited": job.started, "first_token": job.first_token, "total": now}
        return {k: None if t is None else round(t - job.submitted, 6) for k, t in times.items()}


async def _after(first: Piece, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


def refusal(error: Exception) -> Refusal:
    """How a client is told why the engine does not take a request."""
    if isinstance(error, engines.QueueFull):
        return Refusal(429, str(error), code="queue_full")
    if isinstance(error, engines.Closing):
        return Refusal(503, str(error), code="shutting_down")
    if isinstance(error, engines.Expired):
        return Refusal(503, str(error), code="timeout")
    param = next((p for p in ("top_k", "stop") if p in str(error)), "prompt")
    return Refusal(400, str(error), param)
