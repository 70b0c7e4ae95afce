"""The HTTP server: one model for many, over our own `/generate` and OpenAI's `/v1/completions`.

`create_app` makes the application, `run` serves it until it is told to stop, `background` serves it
beside a notebook or a test. What a request may say is in `serve_schema`, who is let in is decided
in `serve_guard`, how requests are queued and run in `engine`.
"""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmkit.engine import Engine

try:
    import uvicorn
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool

    from llmkit import serve_docs, serve_errors
    from llmkit.serve_guard import Guard
    from llmkit.serve_routes import Endpoints
except ImportError as error:
    raise ImportError("serving needs fastapi and uvicorn: pip install 'llmkit[serve]'") from error

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Settings:
    """The limits of a server, and what it is called.

    Args:
        name: of the model, as clients say it.
        queue: how many requests may wait; one more is told 429.
        max_prompt, max_tokens: tokens of a prompt, and to draw for it.
        max_choices: texts that one request may ask for, prompts times n.
        max_body: bytes of a request.
        timeout: seconds from a request's coming to its last token.
        grace: seconds that running requests have when the server is told to stop.
        api_key: what clients must send, None: nothing.
        hosts: the names under which the server may be addressed, None: any.
    """

    name: str = "llmkit"
    queue: int = 32
    max_prompt: int = 4096
    max_tokens: int = 1024
    max_choices: int = 16
    max_body: int = 2**18
    timeout: float = 60.0
    grace: float = 10.0
    api_key: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK

    def __post_init__(self):
        for name in ("queue", "max_prompt", "max_tokens", "max_choices", "max_body", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.grace < 0:
            raise ValueError(f"grace must be 0 seconds or more, not {self.grace}")
        if not self.name or "/" in self.name:
            raise ValueError(f"a model's name is one character or more, no '/': {self.name!r}")
        if self.api_key is not None and (not self.api_key or not self.api_key.isascii()):
            raise ValueError("an API key is one ASCII character or more; None for no key")


def create_app(model: nn.Module, tokenizer: Any, settings: Settings | None = None) -> FastAPI:
    """The application, for any ASGI server; its engine is ``app.state.engine``.

    Raises ValueError for a model and a tokenizer that are not a pair.
    """
    settings = settings or Settings()
    engine = Engine(model, tokenizer, settings.queue, settings.timeout)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close, settings.grace)

    app = FastAPI(
        title="llmkit", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.engine, app.state.settings = engine, settings
    serve_docs.add(app, Endpoints(engine, settings))
    serve_errors.add(app)
    app.add_middleware(
        Guard, api_key=settings.api_key, max_body=settings.max_body, hosts=settings.hosts
    )
    return app


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
    app = create_app(model, tokenizer, Settings(**settings))
    listener = listen("127.0.0.1", port)
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
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
        return listener
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use: stop what uses it, or choose another port"
        raise OSError(f"cannot listen on port {port} of {host}: {reason}") from None
    except OverflowError:
        raise OSError(f"there is no port {port}: take one from 0 (any) to 65535") from None


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
