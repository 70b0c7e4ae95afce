"""The server's OpenAPI description, and the endpoints put into an application."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse

from llmkit.deploy.server import schema
from llmkit.deploy.server.routes import Endpoints

PAGE = Path(__file__).with_name("page.html")
ERRORS = {
    400: "what was asked for is not possible; the sentence says why",
    401: "the API key is missing or wrong",
    403: "the Host header names another server",
    404: "there is no such model",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not application/json",
    429: "so many requests wait that another is refused; Retry-After says when to come back",
    500: "the model failed",
    503: "the server is shutting down, or was too busy to begin in time",
}
SENT = (400, 401, 403, 408, 413, 415, 429, 500, 503)  # where a body is sent
EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAM = {  # each event's data is JSON, but for OpenAI's last one, which is [DONE]
    "description": "the text; with stream, piece by piece",
    "content": {"text/event-stream": {"itemSchema": EVENT}},
}


def add(app: FastAPI, endpoints: Endpoints) -> None:
    """Put the endpoints into the application, each with all that it may answer."""

    def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
        return {s: {"model": schema.ErrorReply, "description": ERRORS[s]} for s in statuses}

    def answers(model: Any, *statuses: int) -> dict[str, Any]:
        return {"response_model": model, "responses": errors(*statuses)}

    def streams(model: Any, *statuses: int) -> dict[str, Any]:
        return {"response_model": model, "responses": errors(*statuses) | {200: STREAM}}

    post, get = app.post, app.get
    post("/generate", **streams(schema.Generated, *SENT))(endpoints.generate)
    post("/v1/completions", **streams(schema.Completed, 404, *SENT))(endpoints.completions)
    get("/v1/models", **answers(schema.Models, 401, 403))(endpoints.models)
    get("/v1/models/{name}", **answers(schema.Model, 401, 403, 404))(endpoints.model)
    stopping = {503: {"model": schema.Health, "description": ERRORS[503]}}
    get("/health", response_model=schema.Health, responses=errors(403) | stopping)(endpoints.health)
    html, headers = page()
    get("/", response_class=HTMLResponse, responses=errors(403))(
        lambda: HTMLResponse(html, headers=headers)
    )
    limits = {"max_new_tokens": endpoints.settings.max_tokens}
    limits |= {"max_tokens": endpoints.settings.max_tokens}
    limits |= {"top_k": endpoints.engine.tokenizer.vocab_size}
    app.openapi = lambda: _openapi(app, limits)


def page() -> tuple[str, dict[str, str]]:
    """The web page, and headers by which a browser runs its own script and style and nothing else,
    and talks to this server alone."""
    html = PAGE.read_text(encoding="utf-8")
    hashes = {}
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[tag] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _openapi(app: FastAPI, limits: dict[str, int]) -> dict[str, Any]:
    """FastAPI's description without the 422 that it adds everywhere, as ours are 400, and with the
    greatest number that this server takes in a field."""
    if app.openapi_schema is None:
        described = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in described["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schemas = described["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for model in (schemas["Generate"], schemas["Completion"]):
            for name in limits.keys() & model["properties"].keys():
                field = model["properties"][name]
                kinds = [kind for kind in field.get("anyOf", [field]) if kind["type"] == "integer"]
                for kind in kinds:
                    kind.pop("exclusiveMaximum", None)
                    kind["maximum"] = limits[name]
        app.openapi_schema = described
    return app.openapi_schema
