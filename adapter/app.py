"""The composition root: settings in, application out. Nothing happens at import time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from adapter.assertions import Assertions
from adapter.auth import ClientGuard, NodeGuard
from adapter.channel import Channel
from adapter.clients import Issuers, OpaqueTokens
from adapter.convex import Convex
from adapter.cors import Cors
from adapter.declarations import describe
from adapter.delivery import Delivery
from adapter.deployment import Deployment
from adapter.pace import Pace
from adapter.problems import install_problems
from adapter.product import Product
from adapter.registry import Registry
from adapter.routes.enrolment import enrolment_router
from adapter.routes.jobs import jobs_router
from adapter.routes.keys import keys_router
from adapter.routes.logs import logs_router
from adapter.routes.node import node_router
from adapter.routes.operation import operation_router
from adapter.routes.owner import owner_router
from adapter.routes.receipts import receipts_router
from adapter.settings import Settings
from adapter.tokens import AccessTokens
from aiida_byoc import __version__

__all__ = ["create_app"]


def create_app(settings: Settings) -> FastAPI:
    """Wire the adapter. `app.state.channel` is there for the server to close before it stops."""
    channel = Channel(
        verdict_timeout=settings.verdict_timeout_seconds,
        redelivery=settings.redelivery_seconds,
        presence=settings.presence_seconds,
    )
    deployment = Deployment(settings.convex)
    convex, product = Convex(deployment), Product(deployment)
    known = product if settings.registry else None
    registry = Registry(settings.nodes, known, seconds=settings.registry_seconds)
    issuers, tokens = Issuers(settings), AccessTokens(settings.convex, settings.audience)
    opaque = OpaqueTokens(known, seconds=settings.registry_seconds)
    assertions = Assertions(settings.audience)
    clients = ClientGuard(issuers, opaque, registry)
    nodes = NodeGuard(registry, tokens, settings.audience)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await deployment.close()
        await issuers.close()

    app = FastAPI(
        title="aiida-byoc adapter",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.expose_docs else None,
        docs_url="/docs" if settings.expose_docs else None,
        redoc_url=None,
    )
    app.state.channel = channel
    app.add_middleware(Pace, seconds=settings.request_seconds)
    install_problems(app)
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.include_router(jobs_router(clients, channel))
    app.include_router(logs_router(clients, channel, settings))
    app.include_router(receipts_router(clients, registry, channel))
    app.include_router(node_router(nodes, channel, Delivery(convex), convex))
    app.include_router(enrolment_router(registry, known, tokens, assertions, settings.audience))
    app.include_router(keys_router(nodes, registry, product, assertions))
    app.include_router(owner_router(clients, registry, product))
    app.include_router(operation_router(settings))
    describe(app, settings.public_url)
    return app
