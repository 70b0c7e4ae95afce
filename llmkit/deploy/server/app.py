"""The application: the endpoints, what guards them, and the engine behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from torch import nn

from llmkit.deploy.engine import Engine
from llmkit.deploy.server import docs, errors
from llmkit.deploy.server.guard import Guard
from llmkit.deploy.server.routes import Endpoints
from llmkit.deploy.server.settings import Settings


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
    docs.add(app, Endpoints(engine, settings))
    errors.add(app)
    app.add_middleware(
        Guard, api_key=settings.api_key, max_body=settings.max_body, hosts=settings.hosts
    )
    return app
