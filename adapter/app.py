"""The composition root: settings in, application out. Nothing happens at import time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from adapter.auth import ClientGuard, NodeGuard
from adapter.channel import Channel
from adapter.convex import Convex
from adapter.declarations import describe
from adapter.delivery import Delivery
from adapter.problems import install_problems
from adapter.routes.jobs import jobs_router
from adapter.routes.logs import logs_router
from adapter.routes.node import node_router
from adapter.routes.operation import operation_router
from adapter.settings import Settings
from aiida_byoc import __version__

__all__ = ["create_app"]


def create_app(settings: Settings) -> FastAPI:
    """Wire the adapter. `app.state.channel` is there for the server to close before it stops."""
    channel = Channel(
        settings.nodes,
        verdict_timeout=settings.verdict_timeout_seconds,
        redelivery=settings.redelivery_seconds,
        presence=settings.presence_seconds,
    )
    convex = Convex(settings.convex)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await convex.close()

    app = FastAPI(
        title="aiida-byoc adapter",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url="/docs" if settings.expose_docs else None,
        redoc_url=None,
    )
    app.state.channel = channel
    install_problems(app)
    app.include_router(jobs_router(ClientGuard(settings), channel))
    app.include_router(logs_router(ClientGuard(settings), channel, settings))
    app.include_router(node_router(NodeGuard(settings), channel, Delivery(convex), convex))
    app.include_router(operation_router(settings))
    describe(app, settings.public_url)
    return app
