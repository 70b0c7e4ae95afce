"""The application: its endpoints, and what guards them. (Those of conversations: `chat`.)

(No `from __future__ import annotations` here: FastAPI must see the requests' models, which are made
in a function, because they have this server's limits.)
"""

import base64
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import Field, StrictInt
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.deploy.engine import Engine, Piece
from llmkit.deploy.server import chat, errors, schema
from llmkit.deploy.server.answer import Answer, Event, Mail, event_stream, usage
from llmkit.deploy.server.errors import Json, Refusal
from llmkit.deploy.server.guard import Guard
from llmkit.deploy.server.settings import Settings

# What an answer may be instead; without "4XX", FastAPI would describe a 422 that nobody sends.
ERRORS: tuple[int | str, ...] = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, "4XX")


def create_app(
    model: LanguageModel, tokenizer: Tokenizer, settings: Settings | None = None
) -> FastAPI:
    """The application, for any ASGI server; its engine is ``app.state.engine``.

    Raises ValueError for a model and a tokenizer that are not a pair.
    """
    settings = settings or Settings()
    engine = Engine(model, tokenizer, settings.queue, settings.timeout, settings.batch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close, settings.grace)

    app = FastAPI(
        title="llmkit",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=Json,
        responses={status: {"model": schema.ErrorReply} for status in ERRORS},
    )
    app.state.engine, app.state.settings, app.state.mail = engine, settings, Mail()
    _add_texts(app, engine, settings)
    chat.add(app, engine, settings)
    _add_rest(app, engine, settings)
    errors.add(app)
    app.add_middleware(
        Guard, api_key=settings.api_key, max_body=settings.max_body, hosts=settings.hosts
    )
    return app


def _add_texts(app: FastAPI, engine: Engine, settings: Settings) -> None:
    """The endpoints that draw. What they answer whole is made of the same pieces as a stream."""
    most, V = settings.max_tokens, engine.tokenizer.vocab_size
    from_k = "draw from the likeliest k tokens only"

    class Generate(schema.Generate):
        """POST /generate: go on from a text."""

        top_k: StrictInt | None = Field(None, ge=1, le=V, description=from_k)
        max_new_tokens: StrictInt = Field(min(100, most), ge=0, le=most)

    class Completion(schema.Completion):
        """POST /v1/completions, as OpenAI's clients send it; top_k is ours."""

        top_k: StrictInt | None = Field(None, ge=1, le=V, description=from_k)
        max_tokens: StrictInt = Field(min(16, most), ge=0, le=most)

    async def read(prompt: str | list[int]) -> list[int]:
        """A prompt as ids, within the limits; an empty text is the end-of-text token, if there is
        one, after which a new text begins."""
        if isinstance(prompt, list):
            ids = prompt
        elif prompt == "" and engine.end is not None:
            ids = [engine.end]
        else:
            try:
                ids = (await run_in_threadpool(engine.tokenizer.encode, prompt)).tolist()
            except ValueError as error:
                raise Refusal(400, f"prompt: {error}".partition(";")[0], "prompt") from None
        wrong = [i for i in ids if i >= V]
        if not ids:
            sentence = "the prompt is empty: a model predicts from one token or more"
        elif len(ids) > settings.max_prompt:
            sentence = f"prompt has {len(ids)} tokens: {settings.max_prompt} at most"
        elif wrong:
            sentence = f"token {wrong[0]} is not one of the ids 0 to {V - 1}"
        else:
            return ids
        raise Refusal(400, sentence, "prompt")

    @app.post("/generate", response_model=schema.Generated, responses={200: schema.STREAM})
    async def generate(body: Generate, http: Request) -> Any:
        ids = await read(body.prompt)
        asked = body.request([ids], body.max_new_tokens)
        answer = Answer(engine, asked, http, whole=not body.stream)

        def event(piece: Piece) -> Event:
            if piece.finish_reason is None:
                return {"text": piece.text}
            return {
                "text": piece.text,
                "prompt_tokens": len(ids),
                "tokens": piece.tokens,
                "seed": answer.job.seed,
                "finish_reason": piece.finish_reason,
                "timings": answer.timings(),
            }

        events = (event(piece) async for piece in answer)
        return await event_stream(events, http) if body.stream else await anext(events)

    @app.post("/v1/completions", response_model=schema.Completed, responses={200: schema.STREAM})
    async def completions(body: Completion, http: Request) -> Any:
        errors.check(body, settings.name)
        prompts, n = body.prompts(), body.n
        if len(prompts) * n > settings.max_choices:
            sentence = f"n × prompts is {len(prompts) * n}: {settings.max_choices} at most"
            raise Refusal(400, sentence, "n")
        ids = [await read(prompt) for prompt in prompts]
        asked = body.request([row for row in ids for _ in range(n)], body.max_tokens)
        answer = Answer(engine, asked, http, whole=not body.stream)
        texts = [p if isinstance(p, str) else engine.tokenizer.decode(p) for p in prompts]
        echo = [text if body.echo else "" for text in texts for _ in range(n)]  # yet to be sent
        about = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": settings.name,
            "seed": answer.job.seed,
        }

        def choice(piece: Piece) -> dict[str, Any]:
            text, echo[piece.row] = echo[piece.row] + piece.text, ""
            reason = piece.finish_reason
            return {"index": piece.row, "text": text, "logprobs": None, "finish_reason": reason}

        def used() -> dict[str, int]:
            return usage(sum(map(len, ids)), answer.tokens)

        async def events() -> AsyncIterator[Event]:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            none_yet = {"usage": None} if with_usage else {}
            async for piece in answer:
                yield {**about, "choices": [choice(piece)], **none_yet}
            if with_usage:
                yield {**about, "choices": [], "usage": used()}
            yield "[DONE]"

        if body.stream:
            return await event_stream(events(), http)
        choices = [choice(piece) async for piece in answer]
        choices.sort(key=lambda each: each["index"])
        return {**about, "choices": choices, "usage": used()}


def _add_rest(app: FastAPI, engine: Engine, settings: Settings) -> None:
    """What the server says of itself, and the page."""
    html, headers = page()
    started = int(time.time())
    about = {"id": settings.name, "object": "model", "created": started, "owned_by": "llmkit"}

    @app.get("/v1/models", response_model=schema.Models)
    async def models() -> Any:
        return {"object": "list", "data": [about]}

    @app.get("/v1/models/{name}", response_model=schema.Model)
    async def model(name: str) -> Any:
        if name != settings.name:
            raise errors.no_model(name, settings.name)
        return about

    @app.get("/health", response_model=schema.Health, responses={503: {"model": schema.Health}})
    async def health() -> Json:
        content = schema.Health(
            status="failed" if engine.failed else "stopping" if engine.closing else "ok",
            message=engine.failed,
            model=settings.name,
            waiting=engine.waiting,
            running=engine.running,
            served=engine.served,
            queue=settings.queue,
            max_prompt=settings.max_prompt,
            max_tokens=settings.max_tokens,
            needs_key=settings.api_key is not None,
        )
        return Json(content.model_dump(), 200 if content.status == "ok" else 503)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)


def page() -> tuple[str, dict[str, str]]:
    """The web page, and headers by which a browser runs its own script and style and nothing else,
    and talks to this server alone."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
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
