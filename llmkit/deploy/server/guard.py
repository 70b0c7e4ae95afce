"""What stands before the server's endpoints: who and what is let in, and until when.

Host name, origin, API key, content type and the size of the body are looked at before anything is
parsed. No header that would let another site's page read answers (CORS) is ever sent.
"""

from __future__ import annotations

import hmac
import re
from contextlib import ExitStack

import anyio
from anyio.abc import TaskGroup
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmkit.deploy.server.errors import Refusal

READ_SECONDS = 15.0  # within which headers must have come, and a body; and an answer be taken
OPEN = {"/", "/health", "/openapi.json"}  # what needs no key


def host_name(host: str) -> str:
    """The name in a Host header, without the port; IPv6 in brackets, as browsers have it."""
    bare = host.count(":") > 1 and not host.startswith("[")
    return f"[{host}]".lower() if bare else re.sub(r":\d*$", "", host).lower()


class Guard:
    """ASGI middleware.

    hosts: names under which the server may be addressed, None for any. A page of another site can
    have its name lead to 127.0.0.1 (DNS rebinding), but the Host header then still has that name.
    (Starlette's TrustedHostMiddleware answers in plain text, and its older ones know no IPv6.)
    """

    def __init__(
        self, app: ASGIApp, api_key: str | None, max_body: int, hosts: tuple[str, ...] | None
    ):
        self.app, self.api_key, self.max_body = app, api_key, max_body
        self.hosts = None if hosts is None else [host_name(host) for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            self._check(scope, Headers(scope=scope))
            if scope["method"] == "POST":
                body = await self._read(scope, receive)
                return await self._work(body, scope, receive, send)
        except Refusal as refusal:
            return await refusal.response()(scope, receive, send)
        except ClientDisconnect:
            return None  # nobody waits for an answer
        return await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refusal by what the headers say."""
        host = headers.get("host", "").lower()
        name = host_name(host)
        if self.hosts is not None and name not in self.hosts:
            raise Refusal(403, f"this server is not called {name[:80]!r}: use {self.hosts[0]}")
        # A browser says from which page a request comes, and leaves the usual port out.
        own = {"http://" + host.removesuffix(":80"), "https://" + host.removesuffix(":443")}
        for origin in headers.getlist("origin") if scope["method"] not in ("GET", "HEAD") else ():
            if origin.lower() not in own:
                raise Refusal(403, f"a page of {origin[:80]!r} may not ask here: use this server's")
        if self.api_key is not None and scope["path"] not in OPEN:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(key.strip().encode(), self.api_key.encode())
            if scheme.lower() != "bearer" or not same:
                sentence = "the API key is missing or wrong: send it as Authorization: Bearer KEY"
                raise Refusal(401, sentence, code="invalid_api_key")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                said = kind[:80] or "without a type"
                raise Refusal(415, f"the body must be application/json, not {said}")
            length = headers.get("content-length", "")
            if length.isdecimal():
                self._check_size(int(length[:20]))

    def _check_size(self, size: int) -> None:
        if size > self.max_body:
            raise Refusal(413, f"the body is too large: {self.max_body:,} bytes at most")

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within its limits of size and time."""
        body = bytearray()
        try:
            with anyio.fail_after(READ_SECONDS):
                async for part in Request(scope, receive).stream():
                    body += part
                    self._check_size(len(body))
        except TimeoutError:
            sentence = f"the body did not come within {READ_SECONDS:.0f} seconds: send it at once"
            raise Refusal(408, sentence) from None
        return bytes(body)

    async def _work(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer to a body; when its client leaves, cancel what it does."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            if not messages:
                await anyio.sleep_forever()  # that the client leaves is seen below
            return messages.pop()

        async def watch(group: TaskGroup) -> None:
            await receive()  # the body has been read: only that the client leaves can come
            group.cancel_scope.cancel()

        with ExitStack() as scope["over"]:  # what an endpoint wants done at the end of it all
            async with anyio.create_task_group() as group:
                group.start_soon(watch, group)
                await self.app(scope, again, send)
                group.cancel_scope.cancel()
