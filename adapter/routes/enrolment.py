"""How a node becomes known and gets its access tokens: routes that need no credential, for they bring one."""

from __future__ import annotations

import hashlib
import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from adapter.assertions import Assertions
from adapter.caching import Allowance
from adapter.declarations import answer, declare
from adapter.product import Product
from adapter.reading import FORM, form_body, json_body
from adapter.registry import Node, Registry
from adapter.tokens import AccessTokens, Holder, claimed, header
from aiida_byoc.contracts.enrolment import (
    AccessToken,
    Enrolment,
    EnrolmentRequest,
    TokenRequest,
)
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = ["enrolment_router"]

_MAX_ENROLMENT_BYTES = 4 * 1024
_MAX_TOKEN_BYTES = 8 * 1024
_ENROLMENTS_A_SECOND = 20.0
_ENROLMENTS_AT_ONCE = 200
_NO_STORE = {"Cache-Control": "no-store"}
_READING = (
    "malformed-request",
    "payload-too-large",
    "unsupported-media-type",
    "validation-failed",
    "product-unavailable",
)
_log = logging.getLogger(__name__)


def enrolment_router(
    registry: Registry,
    product: Product | None,
    tokens: AccessTokens,
    assertions: Assertions,
    audience: str,
) -> APIRouter:
    """The routes of nodes that have no access token yet.

    Args:
        product: `None` when no node may enrol.
    """
    router = APIRouter(tags=["node"])
    attempts = Allowance(rate=_ENROLMENTS_A_SECOND, burst=_ENROLMENTS_AT_ONCE)

    @router.post(
        "/v1/nodes:enroll",
        status_code=201,
        **declare(
            "enrollNode",
            body=EnrolmentRequest,
            answer=answer(201, Enrolment, headers=("Cache-Control",)),
            problems=("enrolment-refused", *_READING),
        ),
    )
    async def enroll_node(request: Request) -> JSONResponse:
        """Make a node known by its public key, for a one-time secret. Repeating it with the same key is safe."""
        body = await json_body(request, _MAX_ENROLMENT_BYTES)
        wish = validated(EnrolmentRequest, body, what="enrolment")
        node_id, key_id = wish.node_id, wish.public_key.key_id
        if product is None or registry.is_declared(node_id):
            raise _refused(node_id, key_id, "declared")
        if not attempts.take():
            raise ProblemError("product-unavailable", "Too many enrolments at a time; retry.")
        # What could fail comes before the secret is used up.
        keys = await product.signing_keys(node_id)
        secret_hash = hashlib.sha256(wish.secret.encode()).hexdigest()
        redemption = await product.redeem(node_id, secret_hash, wish.public_key)
        if redemption.outcome != "enrolled":
            raise _refused(node_id, key_id, "refused")
        registry.forget(node_id)
        _log.info(
            "A node was enrolled.",
            extra={"event": "node.enrolled", "node_id": node_id, "key_id": key_id},
        )
        enrolment = Enrolment(
            node_id=node_id,
            key_id=key_id,
            tenants=redemption.tenants,
            audience=audience,
            product_keys=keys,
        )
        return JSONResponse(enrolment.model_dump(mode="json"), 201, _NO_STORE)

    @router.post(
        "/v1/nodes/{node_id}/token",
        **declare(
            "issueToken",
            body=TokenRequest,
            media_types=FORM,
            answer=answer(200, AccessToken, headers=("Cache-Control",)),
            problems=("unauthenticated", "too-many-requests", *_READING),
        ),
    )
    async def issue_token(node_id: str, request: Request) -> JSONResponse:
        """An access token for an assertion that the node signed with one of its live keys; each is good once."""
        form = await form_body(request, _MAX_TOKEN_BYTES)
        assertion = validated(TokenRequest, form, what="request").client_assertion
        node = await _named(assertion, node_id)
        key = assertions.verify(assertion, node_id, node.keys)
        _log.info(
            "A node got an access token.",
            extra={"event": "token.issued", "node_id": node_id, "key_id": key.key_id},
        )
        token = tokens.issue(Holder(node_id, key.key_id))
        return JSONResponse(token.model_dump(mode="json"), headers=_NO_STORE)

    async def _named(assertion: str, node_id: str) -> Node:
        """The node that the assertion says it is from, at its own path."""
        if claimed(assertion, "iss") != node_id:
            raise ProblemError("unauthenticated")
        node, kid = await registry.find(node_id), header(assertion, "kid")
        if node is not None and not node.candidates(kid):
            node = await registry.find(node_id, anew=True)
        if node is None:
            raise ProblemError("unauthenticated")
        return node

    return router


def _refused(node_id: str, key_id: str, code: str) -> ProblemError:
    """The one answer to every enrolment that is not to be; the reason is for the log."""
    _log.warning(
        "An enrolment was refused.",
        extra={
            "event": "node.enrolment_refused",
            "node_id": node_id,
            "key_id": key_id,
            "code": code,
        },
    )
    return ProblemError("enrolment-refused")
