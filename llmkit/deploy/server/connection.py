"""Connections: how many there may be, and for how long one may keep the server waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llmkit.deploy.server import guard
from llmkit.deploy.server.errors import Refusal

MOST = 1000  # connections at a time, where the system allows them
RESERVE = 64  # file descriptors for all else: files, and connections that come or go just now


def room() -> int:
    """How many connections this process may have."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MOST
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if files == resource.RLIM_INFINITY else max(8, min(MOST, files - RESERVE))


class Connection(H11Protocol):
    """uvicorn's, which alone would wait for headers, or for an answer to be taken, for ever."""

    connections: set[Any]  # all of the server's
    since: float  # when it last became the client's turn, on the event loop's clock

    @property
    def idle(self) -> bool:
        """Whether no request has come, or the client does not take its answer."""
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > room() and not self.drop_oldest():
            busy = Refusal(503, "too many connections: try again in a moment", code="busy")
            self.app = busy.response({"Connection": "close"})

    def drop_oldest(self) -> bool:
        """Close another one that waits for its client; False where all are at work."""
        others = [c for c in self.connections if c is not self and (c.idle or c.cycle.more_body)]
        if others:
            min(others, key=lambda each: each.since).drop()
        return bool(others)

    def drop_if_late(self) -> None:
        """Close it if it is the client's turn, and has been for too long. (For a body, the guard
        has the time, and an answer.)"""
        if self.idle and self.loop.time() - self.since > guard.READ_SECONDS:
            self.drop()

    def drop(self) -> None:
        """Close it at once, whatever its client has yet to take."""
        self.connections.discard(self)
        self.transport.abort()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP; in the middle of an answer or after it, there is only the end."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        self.since = self.loop.time()
        super().pause_writing()
