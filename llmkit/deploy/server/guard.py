"""What stands before the server's endpoints: how errors look, and who and what is let in.

Host name, API key, content type and the size of the body are looked at before anything is parsed.
No header that would let another site's page read answers (CORS) is ever sent.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_SECONDS = 15.0  # within which a body must have come
OPEN = {"/", "/health", "/openapi.json"}  # what needs no key
RETRY_AFTER = {429: "1", 503: "1"}  # seconds


class Refusal(Exception):
    """An error as the client is told it: an HTTP status and a sentence; which parameter is at
    fault, and a word for programs, where there is one."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def fields(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        about = {"type": kind, "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **about}}

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The answer to send."""
        headers = dict(headers or {})
        if self.status in RETRY_AFTER:
            headers["Retry-After"] = RETRY_AFTER[self.status]
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return reply(self.fields(), self.status, headers)


def dump(content: Any) -> bytes:
    """JSON in ASCII, so that any str can be sent, half a surrogate pair included."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, which nobody keeps."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} | (headers or {})
    return Response(dump(content), status, headers, "application/json")


class Guard:
    """ASGI middleware.

    hosts: names under which the server may be addressed, None for any. A page of another site can
    have its name lead to 127.0.0.1 (DNS rebinding), but the Host header then still has that name.
    """

    def __init__(
        self, app: ASGIApp, api_key: str | None, max_body: int, hosts: tuple[str, ...] | None
    ):
        self.app, self.api_key, self.max_body, self.hosts = app, api_key, max_body, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
                if scope["method"] == "POST":
                    receive = await self._read(receive)
            except Refusal as refusal:
                return await refusal.response()(scope, receive, send)
            except ConnectionError:  # the client left: nobody waits for an answer
                return None
        return await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refusal by what the headers say."""
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[2].isdecimal() else "".join(host)
        if self.hosts is not None and name.lower() not in self.hosts:
            raise Refusal(403, f"this server is not called {name[:80]!r}: use {self.hosts[0]}")
        if self.api_key is not None and scope["path"] not in OPEN:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(key.strip().encode(), self.api_key.encode())
            if scheme.lower() != "bearer" or not same:
                sentence = "the API key is missing or wrong: send it as Authorization: Bearer KEY"
                raise Refusal(401, sentence, code="invalid_api_key")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                sentence = f"the body must be application/json, not {kind[:80] or 'untold'}"
                raise Refusal(415, sentence)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > self.max_body:
                raise self._too_large()

    async def _read(self, receive: Receive) -> Receive:
        """Read the body whole, within its limits, and give a `receive` that has it once more."""
        try:
            body = await asyncio.wait_for(self._body(receive), READ_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            sentence = f"the body did not come within {READ_SECONDS:.0f} seconds: send it at once"
            raise Refusal(408, sentence) from None
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return again

    async def _body(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_body:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is too large: {self.max_body:,} bytes at most")
