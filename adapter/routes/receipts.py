"""What clients may keep of a job: its receipt, signed by the node; the adapter passes it on and keeps nothing."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from adapter.auth import ClientGuard
from adapter.channel import Channel
from adapter.declarations import answer, declare
from adapter.routes.asking import ASKING, Reading, decided
from aiida_byoc.contracts.receipt.envelope import Envelope

__all__ = ["RECEIPT_PROBLEMS", "receipts_router"]

RECEIPT_PROBLEMS = (*ASKING, "operation-unsupported", "job-not-ended", "receipt-unavailable")


def receipts_router(guard: ClientGuard, channel: Channel) -> APIRouter:
    """The route of receipts."""
    router = APIRouter(prefix="/v1/nodes/{node_id}/jobs", tags=["client"])
    reading = Reading(guard, channel)

    @router.get(
        "/{job_id}/receipt",
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

    return router
