"""What clients may keep of a job: its receipt, signed by the node, and the node's keys that check it."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from adapter.auth import ClientGuard
from adapter.channel import Channel
from adapter.declarations import answer, declare
from adapter.registry import Node, Registry
from adapter.routes.asking import ASKING, Reading, decided
from aiida_byoc.contracts.enrolment import PublicKey, SigningKey, SigningKeys
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.receipt.envelope import Envelope

__all__ = ["RECEIPT_PROBLEMS", "receipts_router"]

RECEIPT_PROBLEMS = (*ASKING, "operation-unsupported", "job-not-ended", "receipt-unavailable")


def receipts_router(guard: ClientGuard, registry: Registry, channel: Channel) -> APIRouter:
    """The routes of receipts."""
    router = APIRouter(prefix="/v1/nodes/{node_id}", tags=["client"])
    reading = Reading(guard, channel)

    @router.get(
        "/jobs/{job_id}/receipt",
        **declare(
            "readReceipt",
            credential="client",
            scope="jobs:read",
            answer=answer(200, Envelope),
            problems=RECEIPT_PROBLEMS,
        ),
    )
    async def read_receipt(node_id: str, job_id: str, request: Request) -> JSONResponse:
        """The receipt of an ended job; whoever has the node's public key can check it, without the adapter."""
        verdict = await reading.ask("receipt", request, node_id, job_id)
        receipt = decided(verdict, verdict.receipt, RECEIPT_PROBLEMS)
        return JSONResponse(receipt.model_dump(mode="json"))

    @router.get(
        "/keys",
        **declare(
            "readKeys",
            credential="client",
            scope="jobs:read",
            answer=answer(200, SigningKeys),
            problems=("unauthenticated", "forbidden", "not-found", "product-unavailable"),
        ),
    )
    async def read_keys(node_id: str, request: Request) -> JSONResponse:
        """The node's live keys, which check its receipts. The node is not asked, and need not be there."""
        await guard.admit(request, node_id, scope="jobs:read")
        node = await registry.find(node_id, anew=True)  # it may sign with a new key already
        if node is None:
            raise ProblemError("not-found")
        return JSONResponse(SigningKeys(keys=_signing(node)).model_dump(mode="json"))

    return router


def _signing(node: Node) -> list[SigningKey]:
    """A node signs receipts with Ed25519; the settings may also name keys that sign its tokens alone."""
    kept = [key.public.key for key in node.keys]
    raw = [key.public_bytes_raw() for key in kept if isinstance(key, Ed25519PublicKey)]
    texts = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in raw]
    return [SigningKey.of(PublicKey(kty="OKP", crv="Ed25519", x=text)) for text in texts]
