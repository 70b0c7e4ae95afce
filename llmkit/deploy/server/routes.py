"""The endpoints: from a checked request to the engine's, and from its pieces to answers.

An answer sent whole is made of the same pieces as one that is streamed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmkit.deploy import engine as engines
from llmkit.deploy.engine import Engine, Piece
from llmkit.deploy.server.answer import Answer, EventStream
from llmkit.deploy.server.guard import Refusal, reply
from llmkit.deploy.server.schema import Completion, Generate, Sampling
from llmkit.deploy.server.settings import Settings


class Endpoints:
    """What answers, with what all of it needs."""

    def __init__(self, engine: Engine, settings: Settings):
        self.engine, self.settings, self.created = engine, settings, int(time.time())

    async def ids(self, prompt: str | Sequence[int]) -> list[int]:
        """A prompt as ids, within the limit; an empty text is the end-of-text token, if there is
        one, behind which a new text begins."""
        ids = prompt
        if prompt == "" and self.engine.end is not None:
            ids = [self.engine.end]
        elif isinstance(prompt, str):
            try:
                ids = await run_in_threadpool(self.engine.tokenizer.encode, prompt)
            except ValueError as error:
                raise Refusal(400, f"prompt: {error}".partition(";")[0], "prompt") from None
        if len(ids) > self.settings.max_prompt:
            most = self.settings.max_prompt
            raise Refusal(400, f"prompt has {len(ids)} tokens: {most} at most", "prompt")
        return list(map(int, ids))

    async def ask(
        self, http: Request, body: Sampling, prompts: list[list[int]], new: int, name: str
    ) -> Answer:
        """Put a request into the queue. name: of the field that says how many tokens."""
        if new > self.settings.max_tokens:
            raise Refusal(400, f"{name} is {new}: {self.settings.max_tokens} at most", name)
        request = engines.Request(
            prompts,
            max_new_tokens=new,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            stop=body.stops(),
            seed=body.seed,
            whole=not body.stream,
        )
        return Answer(self.engine, request, http)

    async def generate(self, body: Generate, http: Request) -> Response:
        ids = await self.ids(body.prompt)
        answer = await self.ask(http, body, [ids], body.max_new_tokens, "max_new_tokens")
        pieces = await answer.begun()

        def last(text: str, piece: Piece) -> dict[str, Any]:
            about = {"text": text, "prompt_tokens": len(ids), "tokens": piece.tokens}
            about |= {"seed": answer.job.seed, "finish_reason": piece.finish_reason}
            return about | {"timings": answer.timings()}

        async def events() -> AsyncGenerator[dict[str, Any], None]:
            async with aclosing(pieces):
                try:
                    async for piece in pieces:
                        done = piece.finish_reason is not None
                        yield last(piece.text, piece) if done else {"text": piece.text}
                except Refusal as error:
                    yield error.fields()

        if body.stream:
            return EventStream(events())
        async with aclosing(pieces):
            [piece] = [piece async for piece in pieces]
        return reply(last(piece.text, piece))

    async def completions(self, body: Completion, http: Request) -> Response:
        if body.model not in (None, self.settings.name):
            raise self.no_model(body.model)
        n, texts = body.n or 1, body.prompt if body.prompt is not None else ""
        many = isinstance(texts, list) and not isinstance(texts[0], int)
        texts = texts if many else [texts]
        if len(texts) * n > self.settings.max_choices:
            most = self.settings.max_choices
            raise Refusal(400, f"n × prompts is {len(texts) * n}: {most} at most", "n")
        ids = [await self.ids(text) for text in texts]
        prompts = [row for row in ids for _ in range(n)]
        new = 16 if body.max_tokens is None else body.max_tokens
        answer = await self.ask(http, body, prompts, new, "max_tokens")
        pieces = await answer.begun()
        echo = [""] * len(prompts)
        if body.echo:
            rows = [t if isinstance(t, str) else self.engine.tokenizer.decode(t) for t in texts]
            echo = [row for row in rows for _ in range(n)]
        about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion"}
        about |= {"created": int(time.time()), "model": self.settings.name}
        about |= {"seed": answer.job.seed}

        def usage() -> dict[str, int]:
            read, drawn = sum(map(len, ids)), sum(answer.tokens)
            total = read + drawn
            return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": total}

        def choice(piece: Piece) -> dict[str, Any]:
            text, echo[piece.row] = echo[piece.row] + piece.text, ""
            reason = {"finish_reason": piece.finish_reason}
            return {"index": piece.row, "text": text, "logprobs": None} | reason

        async def events() -> AsyncGenerator[dict[str, Any] | str, None]:
            wanted = bool(body.stream_options and body.stream_options.include_usage)
            empty = {"usage": None} if wanted else {}
            async with aclosing(pieces):
                try:
                    async for piece in pieces:
                        yield about | {"choices": [choice(piece)]} | empty
                    if wanted:
                        yield about | {"choices": [], "usage": usage()}
                    yield "[DONE]"
                except Refusal as error:
                    yield error.fields()

        if body.stream:
            return EventStream(events())
        async with aclosing(pieces):
            choices = [choice(piece) async for piece in pieces]
        choices.sort(key=lambda each: each["index"])
        return reply(about | {"choices": choices, "usage": usage()})

    def no_model(self, name: str) -> Refusal:
        sentence = f"there is no model {name[:80]!r}: this server has {self.settings.name!r}"
        return Refusal(404, sentence, "model", "model_not_found")

    def about_model(self) -> dict[str, Any]:
        about = {"id": self.settings.name, "object": "model", "created": self.created}
        return about | {"owned_by": "llmkit"}

    async def models(self) -> Response:
        return reply({"object": "list", "data": [self.about_model()]})

    async def model(self, name: str) -> Response:
        if name != self.settings.name:
            raise self.no_model(name)
        return reply(self.about_model())

    async def health(self) -> Response:
        engine, settings = self.engine, self.settings
        content = {
            "status": "stopping" if engine.closing else "ok",
            "model": settings.name,
            "waiting": engine.waiting,
            "running": engine.running,
            "served": engine.served,
            "queue": settings.queue,
            "max_prompt": settings.max_prompt,
            "max_tokens": settings.max_tokens,
            "needs_key": settings.api_key is not None,
        }
        return reply(content, 503 if engine.closing else 200)
