"""A server that listens: until it is told to stop (`run`), or beside a notebook (`background`)."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import uvicorn
from fastapi import FastAPI
from torch import nn

from llmkit.deploy.engine import Engine
from llmkit.deploy.server.app import create_app
from llmkit.deploy.server.settings import Settings


@dataclass(frozen=True)
class Running:
    """A server in the background: where it is, and its engine."""

    url: str
    engine: Engine


@contextmanager
def background(
    model: nn.Module, tokenizer: Any, *, port: int = 0, **settings: Any
) -> Iterator[Running]:
    """Serve on 127.0.0.1 inside the ``with``, in threads of this process; port 0: one that is free.

    settings: those of `Settings`. At the end running requests finish, as with `run`.
    """
    with listen("127.0.0.1", port) as listener:
        app = create_app(model, tokenizer, Settings(**settings))
        server = _Server(app)
        thread = threading.Thread(target=server.run, args=([listener],), name="llmkit server")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield Running(address(listener), app.state.engine)
        finally:
            server.should_exit = True
            thread.join()


def run(
    app: FastAPI, host: str, port: int, announce: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what runs; a second one ends the process at once.

    announce: told the address once requests are taken. OSError for a port that is not to be had.
    """
    listener = listen(host, port)
    server = _Server(app, lambda: announce(address(listener)))
    server.run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket on which others can knock. Raises OSError, with what to do about it."""
    if not 0 <= port <= 65535:
        raise OSError(f"there is no port {port}: take one from 0 (any that is free) to 65535")
    try:
        *kind, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(*kind)  # family, type and protocol: TCP by name, else asyncio
        # leaves Nagle's algorithm on, and each small answer waits 40 ms for the client's ACK
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
        return listener
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use: stop what uses it, or choose another port"
        raise OSError(f"cannot listen on port {port} of {host}: {reason}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there; OSError for a name of no address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"cannot listen on {host}: {error.strerror or error}") from None
    return all(ip_address(where[0].partition("%")[0]).is_loopback for *_, where in found)


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's, with an engine that is told at once when the end comes."""

    def __init__(self, app: FastAPI, announce: Callable[[], None] = lambda: None):
        self.state, self.announce = app.state, announce
        grace = app.state.settings.grace + 5  # which the engine keeps: this is for clients
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=round(grace),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.state.engine.refuse_new(self.state.settings.grace)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal is ours; it gives the next one back to the system, which kills."""
        signals = (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self.should_exit = True
            for each in signals:
                signal.signal(each, signal.SIG_DFL)

        before = {each: signal.signal(each, stop) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
