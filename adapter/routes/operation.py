"""What operators and their load balancers ask."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from adapter.answers import Health
from adapter.declarations import answer, declare
from adapter.settings import Settings

__all__ = ["operation_router"]


def operation_router(settings: Settings) -> APIRouter:
    """The routes of operators; they need no credential and tell nothing about tenants."""
    router = APIRouter(tags=["operator"])

    @router.get("/livez", **declare("livez", answer=answer(200, Health)))
    async def livez() -> JSONResponse:
        """The process answers. Depends on nothing."""
        return JSONResponse(Health(status="ok").model_dump(mode="json"))

    @router.get(
        "/readyz",
        **declare("readyz", answer=answer(200, Health), otherwise=answer(503, Health)),
    )
    async def readyz() -> JSONResponse:
        """Traffic may come: somebody is configured to have access. Never depends on Convex or on nodes."""
        missing = settings.missing()
        health = Health(status="not ready" if missing else "ok", missing=missing)
        return JSONResponse(health.model_dump(mode="json"), 503 if missing else 200)

    return router
