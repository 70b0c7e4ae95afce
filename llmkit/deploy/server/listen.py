"""A server that listens: until it is stopped (`run`), beside a notebook until it is closed
(`start`), or inside a ``with`` (`background`)."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import uvicorn
from fastapi import FastAPI

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.deploy.engine import Engine
from llmkit.deploy.server.app import Settings, create_app
from llmkit.deploy.server.connection import Connection


@dataclass(frozen=True)
class Running:
    """A server in the background: where it is, its engine, and `close`, which lets requests that
    run finish (as `run` does) and returns when all is over. To close it twice does no harm."""

    url: str
    engine: Engine
    close: Callable[[], None]


def start(model: LanguageModel, tokenizer: Tokenizer, *, port: int = 0, **settings: Any) -> Running:
    """Serve on 127.0.0.1 in threads of this process, until `close` is called or the process ends;
    port 0: one that is free. settings: those of `Settings`."""
    with ExitStack() as opened:
        listener = opened.enter_context(listen("127.0.0.1", port))
        app = create_app(model, tokenizer, Settings(**settings))
        server = _Server(app)
        # A daemon, so that a process whose notebook never closed it can end; atexit closes it then.
        thread = threading.Thread(
            target=server.run, args=([listener],), name="llmkit server", daemon=True
        )
        thread.start()
        opened = opened.pop_all()  # from here on `close` closes what was opened

    def close() -> None:
        atexit.unregister(close)
        server.should_exit = True
        thread.join()
        opened.close()

    atexit.register(close)
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    return Running(address(listener), app.state.engine, close)


@contextmanager
def background(
    model: LanguageModel, tokenizer: Tokenizer, *, port: int = 0, **settings: Any
) -> Iterator[Running]:
    """`start` inside the ``with``, and `close` at its end."""
    running = start(model, tokenizer, port=port, **settings)
    try:
        yield running
    finally:
        running.close()


def run(
    app: FastAPI, host: str, port: int, announce: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what runs; a second one ends the process at once,
    with the status that a shell gives to one killed by it: 130, 143.

    announce: given the address once clients can connect. OSError for a port that is not to be had.
    """
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, frame: Any) -> None:
        if server.should_exit:
            os._exit(128 + number)
        server.should_exit = True

    with listen(host, port) as listener:
        server = _Server(app)
        before = {each: signal.signal(each, stop) for each in signals}
        try:
            announce(address(listener))
            server.run([listener])
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket to which others can connect. Raises OSError, with what to do about it."""
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
    return all(ip_address(str(where[0]).partition("%")[0]).is_loopback for *_, where in found)


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a client left while its answer was being written: clients do, and the answer ends
    as soon as asyncio tells the server, after a line of log for each piece until then."""
    return record.getMessage() != "socket.send() raised exception."


class _Server(uvicorn.Server):
    """uvicorn's, whose engine hears at once that the end comes; signals are `run`'s work."""

    def __init__(self, app: FastAPI):
        self.engine, self.grace = app.state.engine, app.state.settings.grace
        logging.getLogger("asyncio").addFilter(_is_news)
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=Connection,
                ws="none",
                backlog=8,  # connections that asyncio accepts before it looks at one of them
                log_level="error",  # warnings are of what strangers send, as often as they like
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(self.grace + 5),  # for clients, after the engine
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(1024)  # again: to the system, too, asyncio has said that 8 may wait

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls it ten times a second."""
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            connection.drop_if_late()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.engine.refuse_new(self.grace)
        await super().shutdown(sockets)

    def capture_signals(self) -> Any:
        return nullcontext()
