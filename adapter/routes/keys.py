"""How a node changes the key that it signs with, without a gap: add the new one, use it, retire the old one."""

from __future__ import annotations

import logging
import re

import jwt
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from adapter.assertions import Assertions
from adapter.auth import NodeGuard, NodeIdentity
from adapter.declarations import answer, declare
from adapter.product import Product
from adapter.reading import json_body
from adapter.registry import LiveKey, Registry
from aiida_byoc.contracts.enrolment import KeyAddition, NodeKey, NodeKeys
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = ["keys_router"]

_MAX_KEY_BYTES = 8 * 1024
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_CHANGING = ("unauthenticated", "forbidden", "not-found", "product-unavailable")
_log = logging.getLogger(__name__)


def keys_router(
    guard: NodeGuard, registry: Registry, product: Product, assertions: Assertions
) -> APIRouter:
    """The routes of a node's keys."""
    router = APIRouter(prefix="/v1/nodes/{node_id}/keys", tags=["node"])

    @router.post(
        "",
        status_code=201,
        **declare(
            "addKey",
            credential="node",
            body=KeyAddition,
            answer=answer(201, NodeKeys),
            problems=(
                *_CHANGING,
                "malformed-request",
                "payload-too-large",
                "unsupported-media-type",
                "validation-failed",
                "too-many-keys",
                "too-many-requests",
            ),
        ),
    )
    async def add_key(node_id: str, request: Request) -> JSONResponse:
        """Add a second key, which must sign for itself. Repeating it is safe."""
        node = await guard.admit(request, node_id)
        _check_changeable(registry, node)
        body = await json_body(request, _MAX_KEY_BYTES)
        wish = validated(KeyAddition, body, what="key")
        key_id = wish.public_key.key_id
        _check_proof(assertions, node_id, wish)
        outcome = await product.add_key(node_id, wish.public_key, node.key_id)
        if outcome == "too_many":
            raise ProblemError("too-many-keys")
        registry.forget(node_id)
        _check_known(outcome)
        _told("A node added a key.", "node.key_added", node_id, key_id)
        return await _live_keys(registry, node_id, 201)

    @router.post(
        "/{key_id}/retire",
        **declare(
            "retireKey",
            credential="node",
            answer=answer(200, NodeKeys),
            problems=(*_CHANGING, "validation-failed"),
        ),
    )
    async def retire_key(node_id: str, key_id: str, request: Request) -> JSONResponse:
        """Let a key be good for nothing any more; a node keeps at least one. Repeating it is safe."""
        node = await guard.admit(request, node_id)
        if not _THUMBPRINT.fullmatch(key_id):
            raise ProblemError("not-found")
        _check_changeable(registry, node)
        outcome = await product.retire_key(node_id, key_id, node.key_id)
        if outcome == "last":
            fault = FieldError(
                field="key_id",
                message="is the node's only live key",
                remedy="add another key first, or let the owner revoke the node",
            )
            raise ProblemError(
                "validation-failed", "A node keeps at least one key.", errors=[fault]
            )
        registry.forget(node_id)
        _check_known(outcome)
        if outcome == "retired":
            _told("A node retired a key.", "node.key_retired", node_id, key_id)
        return await _live_keys(registry, node_id, 200)

    return router


def _check_changeable(registry: Registry, node: NodeIdentity) -> None:
    if registry.is_declared(node.node_id):
        raise ProblemError(
            "forbidden",
            "The adapter's settings declare this node and its keys; its operator changes them there.",
        )


def _check_known(outcome: str) -> None:
    if outcome == "unknown":  # a moment ago the key that asks was still live
        raise ProblemError("unauthenticated")


def _check_proof(assertions: Assertions, node_id: str, wish: KeyAddition) -> None:
    key_id = wish.public_key.key_id
    try:
        public = jwt.PyJWK(wish.public_key.model_dump())
        assertions.verify(wish.proof, node_id, [LiveKey(key_id, frozenset({key_id}), public)])
    except (jwt.PyJWTError, ValueError) as error:
        raise _unproven() from error
    except ProblemError as error:
        if error.kind.name != "unauthenticated":
            raise
        raise _unproven() from error


def _unproven() -> ProblemError:
    fault = FieldError(
        field="proof",
        message="is not an assertion signed with this public key",
        remedy="sign a new one: kid the key's thumbprint, iss and sub the node, aud the adapter's, at most 300 s",
    )
    return ProblemError("validation-failed", "The key did not sign for itself.", errors=[fault])


def _told(sentence: str, event: str, node_id: str, key_id: str) -> None:
    _log.info(sentence, extra={"event": event, "node_id": node_id, "key_id": key_id})


async def _live_keys(registry: Registry, node_id: str, status: int) -> JSONResponse:
    node = await registry.find(node_id)
    keys = [
        NodeKey(key_id=key.key_id, added_at=key.added_at)
        for key in (node.keys if node is not None else ())
        if key.added_at is not None
    ]
    return JSONResponse(NodeKeys(keys=keys).model_dump(mode="json"), status)
