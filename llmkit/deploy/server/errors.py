"""Every way in which a request can be wrong, as one sentence in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llmkit.deploy.engine import Unavailable
from llmkit.deploy.server.schema import Chat, Completion, OpenAI

NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
OURS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
NAMES = sorted({*Completion.model_fields, *Chat.model_fields, *OURS})
WANTED = {  # where pydantic would say what is wrong for each of several kinds
    "prompt": "must be a text, a list of texts, a list of token ids, or a list of such lists; "
    "none of the lists empty, and no text with half a surrogate pair",
    "messages": "must be a list of turns, each with a role and a content: a text, or a list of "
    "parts of type text",
    "stop": "must be a string, or a list of up to 4, each of 1 to 256 characters",
}


class Json(JSONResponse):
    """An answer in JSON, which nobody keeps."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers({**NOT_KEPT, **(headers or {})})


@dataclass(eq=False)
class Refusal(Exception):
    """An error as the client is told it: an HTTP status and a sentence; which parameter is at
    fault, and a word for programs, where there is one."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def fields(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        about = {"type": kind, "param": self.param, "code": self.code}
        return {"error": {"message": self.message, **about}}

    def response(self, headers: Mapping[str, str] | None = None) -> Json:
        """The answer to send."""
        response = Json(self.fields(), self.status, headers)
        if self.status in (429, 503):
            response.headers["Retry-After"] = "1"  # second
        if self.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def no_model(wanted: str, name: str) -> Refusal:
    """What a client is told that asks for another model than the one of this name."""
    sentence = f"there is no model {wanted[:80]!r}: this server has {name!r}"
    return Refusal(404, sentence, "model", "model_not_found")


def check(body: OpenAI, name: str) -> None:
    """Refuse a request of OpenAI's for another model, or with options of a stream that is none."""
    if body.model not in (None, name):
        raise no_model(body.model, name)
    if body.stream_options and not body.stream:
        sentence = "stream_options: only a stream has them; set stream to true"
        raise Refusal(400, sentence, "stream_options")


def add(app: FastAPI) -> None:
    """Let the application answer its errors so."""

    async def answer(http: Request, error: Exception) -> Json:
        headers = error.headers if isinstance(error, HTTPException) else None
        return refusal(error, http).response(headers)

    for kind in (Refusal, RequestValidationError, HTTPException, Unavailable, Exception):
        app.add_exception_handler(kind, answer)


def refusal(error: Exception, http: Request) -> Refusal:
    """What a client is told of an error; what is not its own fault, in general words."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors()[0])
    if isinstance(error, Unavailable):
        return Refusal(429 if error.code == "queue_full" else 503, str(error), code=error.code)
    if isinstance(error, HTTPException):
        sentences = {
            400: "the body cannot be read: send JSON in UTF-8, no deep nests or huge numbers in it",
            404: f"there is nothing at {http.url.path[:80]!r}",
            405: f"{http.url.path[:80]} does not take {http.method[:20]}",
        }
        return Refusal(error.status_code, sentences.get(error.status_code, str(error.detail)))
    return Refusal(500, "the server failed on this request: its log has more")


def from_validation(error: dict[str, Any]) -> Refusal:
    """The first of pydantic's errors, as one sentence with the parameter in it."""
    kind, message, place = error["type"], error["msg"], [str(part) for part in error["loc"][1:]]
    if kind == "json_invalid":
        return Refusal(400, f"the body is not JSON: {error['ctx']['error']}")
    if not place:
        return Refusal(400, "the body must be a JSON object, no name in it half a surrogate pair")
    param = place[0][:80]
    if kind == "extra_forbidden":
        close = [name for name in get_close_matches(place[-1], NAMES) if name != param]
        advice = f"did you mean {close[0]}?" if close else "leave it out"
        return Refusal(400, f"there is no argument {'.'.join(place)[:160]!r}: {advice}", param)
    if kind == "missing":
        return Refusal(400, f"{'.'.join(place)[:160]} is missing", param)
    if param in WANTED:
        return Refusal(400, f"{param} {WANTED[param]}", param)
    got = repr(error["input"])[:40]
    return Refusal(400, f"{param}: {message[0].lower()}{message[1:]}, not {got}", param)
