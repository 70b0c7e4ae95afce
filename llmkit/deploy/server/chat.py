"""OpenAI's `/v1/chat/completions`: a conversation goes on, by the template of `finetune.chatml`.

(No `from __future__ import annotations` here, as in `app`: the request has this server's limits.)
"""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from pydantic import Field, StrictInt
from starlette.concurrency import run_in_threadpool

from llmkit.deploy.engine import Engine
from llmkit.deploy.server import errors, schema
from llmkit.deploy.server.answer import Answer, Event, event_stream, usage
from llmkit.deploy.server.errors import Refusal
from llmkit.deploy.server.settings import Settings
from llmkit.finetune import chatml

NO_CHAT = f"this model knows no conversations, for want of {chatml.START}: use /v1/completions"


def add(app: FastAPI, engine: Engine, settings: Settings) -> None:
    """The endpoint. A conversation is never cut: one that leaves no room for an answer is refused,
    and an answer ends where the model's window does."""
    most, V = settings.max_tokens, engine.tokenizer.vocab_size

    class Chat(schema.Chat):
        """POST /v1/chat/completions, as OpenAI's clients send it; top_k is ours."""

        top_k: StrictInt | None = Field(
            None, ge=1, le=V, description="draw from the likeliest k tokens only"
        )
        max_tokens: StrictInt | None = Field(None, ge=0, le=most)
        max_completion_tokens: StrictInt | None = Field(
            None, ge=0, le=most, description="the newer name of max_tokens"
        )

    def read(turns: list[dict[str, str]]) -> list[int]:
        """A conversation as ids, within the limits."""
        if not chatml.can_chat(engine.tokenizer):
            raise Refusal(400, NO_CHAT, "messages")
        try:
            ids = chatml.encode(turns, engine.tokenizer, settings.system)[0].tolist()
        except ValueError as error:
            raise Refusal(400, str(error), "messages") from None
        limit = min(settings.max_prompt, engine.model.config.block_size - 1)
        if len(ids) > limit:
            sentence = f"the conversation has {len(ids)} tokens: {limit} at most"
            raise Refusal(400, sentence, "messages", "context_length_exceeded")
        return ids

    @app.post(
        "/v1/chat/completions",
        response_model=schema.ChatCompleted,
        responses={200: schema.STREAM},
    )
    async def chat_completions(body: Chat, http: Request) -> Any:
        errors.check(body, settings.name)
        if None not in (body.max_tokens, body.max_completion_tokens):
            sentence = "max_tokens and max_completion_tokens are the same: give one of them"
            raise Refusal(400, sentence, "max_tokens")
        if body.n > settings.max_choices:
            raise Refusal(400, f"n is {body.n}: {settings.max_choices} at most", "n")
        ids = await run_in_threadpool(read, body.turns())
        wanted = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
        room = engine.model.config.block_size - len(ids)
        asked = body.request([ids] * body.n, min(most if wanted is None else wanted, room))
        asked = replace(asked, stop=[*asked.stop, chatml.END])
        answer = Answer(engine, asked, http, whole=not body.stream)
        about = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if body.stream else "chat.completion",
            "created": int(time.time()),
            "model": settings.name,
            "seed": answer.job.seed,
        }

        async def events() -> AsyncIterator[Event]:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            none_yet = {"usage": None} if with_usage else {}
            begun = set()

            def chunk(row: int, delta: dict[str, str], reason: str | None = None) -> Event:
                choice = {"index": row, "delta": delta, "logprobs": None, "finish_reason": reason}
                return {**about, "choices": [choice], **none_yet}

            async for piece in answer:
                if piece.row not in begun:
                    begun.add(piece.row)
                    yield chunk(piece.row, {"role": "assistant", "content": ""})
                if piece.text:
                    yield chunk(piece.row, {"content": piece.text})
                if piece.finish_reason:
                    yield chunk(piece.row, {}, piece.finish_reason)
            if with_usage:
                yield {**about, "choices": [], "usage": usage(len(ids), answer.tokens)}
            yield "[DONE]"

        if body.stream:
            return await event_stream(events(), http)
        choices: list[Any] = []
        async for piece in answer:
            message = {"role": "assistant", "content": piece.text, "refusal": None}
            choices.append(
                {
                    "index": piece.row,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": piece.finish_reason,
                }
            )
        choices.sort(key=lambda each: each["index"])
        return {**about, "choices": choices, "usage": usage(len(ids), answer.tokens)}
