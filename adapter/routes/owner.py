"""What a node's owner may do to it over the wire."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response

from adapter.auth import ClientGuard
from adapter.declarations import answer, declare
from adapter.product import Product
from adapter.registry import Registry
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["owner_router"]

_SCOPE = "nodes:manage"
_log = logging.getLogger(__name__)


def owner_router(guard: ClientGuard, registry: Registry, product: Product) -> APIRouter:
    """The routes of owners of nodes."""
    router = APIRouter(prefix="/v1/nodes/{node_id}", tags=["client"])

    @router.post(
        "/revoke",
        status_code=204,
        **declare(
            "revokeNode",
            credential="client",
            scope=_SCOPE,
            answer=answer(204),
            problems=("unauthenticated", "forbidden", "not-found", "product-unavailable"),
        ),
    )
    async def revoke_node(node_id: str, request: Request) -> Response:
        """Take a node's credentials away, for the tenant that owns it; an open poll ends. Repeating it is safe."""
        client = await guard.admit(request, node_id, scope=_SCOPE)
        if registry.is_declared(node_id):
            raise ProblemError(
                "forbidden",
                "The adapter's settings declare this node; its operator removes it there.",
            )
        if not await product.revoke(node_id, client.tenant_id, client.subject):
            raise ProblemError("not-found")
        registry.forget(node_id)
        _log.warning(
            "A node was revoked.",
            extra={
                "event": "node.revoked",
                "node_id": node_id,
                "tenant_id": client.tenant_id,
            },
        )
        return Response(status_code=204)

    return router
