"""Every way in which a request can be wrong, as one sentence in OpenAI's shape."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from llmkit.deploy.server.guard import Refusal
from llmkit.deploy.server.schema import Completion, Generate

WANTED = {  # where pydantic would tell what is wrong for each of several kinds
    "prompt": "must be a text, a list of texts, a list of token ids, or a list of such lists; "
    "none of the lists empty, and no text with half a surrogate pair",
    "stop": "must be a string, or a list of up to 4, each of 1 to 256 characters",
}


def add(app: FastAPI) -> None:
    """Let the application answer its errors so."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return from_validation(error.errors()[0]).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        sentences = {
            404: f"there is nothing at {request.url.path[:80]!r}",
            405: f"{request.url.path[:80]} does not take {request.method[:20]}",
            400: "the body cannot be read: send JSON in UTF-8",
        }
        sentence = sentences.get(error.status_code, str(error.detail))
        return Refusal(error.status_code, sentence).response(error.headers)

    @app.exception_handler(ConnectionError)
    async def gone(request: Request, error: ConnectionError) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return Refusal(500, "the server failed on this request: its log has more").response()


def from_validation(error: dict[str, Any]) -> Refusal:
    """The first of pydantic's errors, as one sentence with the field in it."""
    place = [str(part) for part in error["loc"][1:]]
    param = place[0] if place else None
    message, kind = error["msg"].removeprefix("Value error, "), error["type"]
    if kind == "json_invalid":
        return Refusal(400, f"the body is not JSON: {error['ctx']['error']}")
    if kind == "string_unicode" and param is None:
        return Refusal(400, "a name in the body has half a surrogate pair: there is none like it")
    if param is None and kind == "value_error":  # two fields that do not go together
        return Refusal(400, message, message.partition(":")[0])
    if param is None:
        return Refusal(400, "the body must be a JSON object")
    param = param[:80]
    if kind == "extra_forbidden":
        known = {*Completion.model_fields, *Generate.model_fields}
        close = get_close_matches(param, known, n=1)
        advice = f"did you mean {close[0]}?" if close else "leave it out"
        return Refusal(400, f"there is no argument {'.'.join(place)[:160]!r}: {advice}", param)
    if kind == "missing":
        return Refusal(400, f"{param} is missing", param)
    if param in WANTED:
        return Refusal(400, f"{param} {WANTED[param]}", param)
    if param in ("suffix", "logprobs", "logit_bias", "frequency_penalty", "presence_penalty"):
        return Refusal(400, f"{param} is not supported here: leave it out", param)
    return Refusal(400, f"{param}: {message[0].lower()}{message[1:]}", param)
