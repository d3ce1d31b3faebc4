"""What clients may ask of a node: submit, cancel, look."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from adapter.answers import written
from adapter.auth import ClientGuard, ClientIdentity
from adapter.channel import Channel
from adapter.declarations import answer, declare
from adapter.reading import (
    idempotency_key,
    json_body,
    signature_header,
    traceparent_header,
)
from adapter.routes.asking import ASKING, Reading, Signed, check_name, decided, order_for
from aiida_byoc.contracts import (
    CancelJobCommand,
    JobAcceptance,
    JobCancellation,
    JobView,
    SubmitJobCommand,
)
from aiida_byoc.contracts.commands import MAX_COMMAND_BYTES
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.signature import SIGNATURE_HEADER
from aiida_byoc.contracts.validation import validated

__all__ = ["jobs_router"]

_log = logging.getLogger(__name__)

_COMMANDING = (
    *ASKING,
    "malformed-request",
    "tenant-mismatch",
    "signature-invalid",
    "payload-too-large",
    "unsupported-media-type",
    "validation-failed",
    "node-mismatch",
)
INSPECT_PROBLEMS = ASKING
CANCEL_PROBLEMS = _COMMANDING
SUBMIT_PROBLEMS = (
    *_COMMANDING,
    "idempotency-key-invalid",
    "idempotency-key-reused",
    "job-id-conflict",
    "job-cancelled",
    "command-expired",
    "policy-refused",
    "image-not-allowed",
    "node-draining",
    "quota-exceeded",
    "input-not-found",
)
"""The last eight, and `signature-invalid`, are the node's to decide, see `aiida_byoc.contracts.catalogue`."""

_Addressed = TypeVar("_Addressed", SubmitJobCommand, CancelJobCommand)


def jobs_router(guard: ClientGuard, channel: Channel) -> APIRouter:
    """The routes of clients."""
    router = APIRouter(prefix="/v1/nodes/{node_id}/jobs", tags=["client"])
    reading = Reading(guard, channel)

    @router.post(
        "",
        status_code=202,
        **declare(
            "submitJob",
            credential="client",
            scope="jobs:submit",
            body=SubmitJobCommand,
            answer=answer(202, JobAcceptance, headers=("Location", "Idempotency-Replayed")),
            problems=SUBMIT_PROBLEMS,
            parameters=("Idempotency-Key", SIGNATURE_HEADER, "traceparent"),
        ),
    )
    async def submit_job(node_id: str, request: Request) -> Response:
        """Run a workload once. 202 only after the node has committed the command."""
        client = await guard.admit(request, node_id, scope="jobs:submit")
        key = idempotency_key(request.headers)
        signature = signature_header(request.headers)
        body = await json_body(request, MAX_COMMAND_BYTES)
        command = validated(SubmitJobCommand, body, what="command")
        command = _traced(_addressed(command, client, node_id), request)
        verdict = await channel.submit(
            node_id,
            order_for(
                "submit", client, command.job_id, command, key, signed=_signed(body, signature)
            ),
        )
        acceptance = decided(verdict, verdict.acceptance, SUBMIT_PROBLEMS)
        _log.info(
            "The node accepted a job.",
            extra={
                "event": "job.accepted" if verdict.outcome == "accepted" else "job.replayed",
                "node_id": node_id,
                "tenant_id": client.tenant_id,
                "job_id": acceptance.job_id,
                "submission_id": acceptance.submission_id,
                "trace_id": acceptance.trace_id,
            },
        )
        headers = {"Location": f"/v1/nodes/{node_id}/jobs/{acceptance.job_id}"}
        if verdict.outcome == "replayed":
            headers["Idempotency-Replayed"] = "true"
        return written(acceptance, 202, headers)

    @router.post(
        "/{job_id}/cancel",
        status_code=202,
        **declare(
            "cancelJob",
            credential="client",
            scope="jobs:cancel",
            body=CancelJobCommand,
            answer=answer(202, JobCancellation),
            problems=CANCEL_PROBLEMS,
            parameters=(SIGNATURE_HEADER, "traceparent"),
        ),
    )
    async def cancel_job(node_id: str, job_id: str, request: Request) -> Response:
        """Stop a job, idempotently; a cancel that arrives before its submit wins."""
        client = await guard.admit(request, node_id, scope="jobs:cancel")
        check_name(job_id)
        signature = signature_header(request.headers)
        body = await json_body(request, MAX_COMMAND_BYTES)
        command = validated(CancelJobCommand, body, what="command")
        command = _traced(_addressed(command, client, node_id), request)
        if command.job_id != job_id:
            raise ProblemError(
                "validation-failed",
                "job_id must equal the job in the path.",
                errors=[
                    FieldError(
                        field="job_id",
                        message="must equal the job in the path",
                        remedy="send the same job_id in path and body",
                    )
                ],
            )
        order = order_for("cancel", client, job_id, command, signed=_signed(body, signature))
        verdict = await channel.submit(node_id, order)
        cancellation = decided(verdict, verdict.cancellation, CANCEL_PROBLEMS)
        _log.info(
            "The node took the cancellation of a job.",
            extra={
                "event": "job.cancel_requested",
                "node_id": node_id,
                "tenant_id": client.tenant_id,
                "job_id": job_id,
            },
        )
        return written(cancellation, 202)

    @router.get(
        "/{job_id}",
        **declare(
            "inspectJob",
            credential="client",
            scope="jobs:read",
            answer=answer(200, JobView),
            problems=INSPECT_PROBLEMS,
        ),
    )
    async def inspect_job(node_id: str, job_id: str, request: Request) -> Response:
        """A job as its node knows it now; for users' reads the product is the source."""
        verdict = await reading.ask("inspect", request, node_id, job_id)
        view = decided(verdict, verdict.job, INSPECT_PROBLEMS)
        return written(view)

    return router


def _addressed(command: _Addressed, client: ClientIdentity, node_id: str) -> _Addressed:
    """Hold the command against the credential first, then against the path."""
    if command.tenant_id != client.tenant_id:
        raise ProblemError("tenant-mismatch", errors=[_unequal("tenant_id", "the credential's")])
    if command.management_node_id != node_id:
        raise ProblemError(
            "node-mismatch", errors=[_unequal("management_node_id", "the node in the path")]
        )
    return command


def _signed(body: dict[str, Any], signature: str | None) -> Signed | None:
    return Signed(body, signature) if signature is not None else None


def _unequal(field: str, other: str) -> FieldError:
    return FieldError(field=field, message=f"must equal {other}", remedy=f"set it to {other}")


def _traced(command: _Addressed, request: Request) -> _Addressed:
    """Carry the caller's trace on when the body names none."""
    traceparent = command.traceparent or traceparent_header(request.headers)
    return command.model_copy(update={"traceparent": traceparent})
