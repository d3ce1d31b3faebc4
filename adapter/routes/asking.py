"""What the routes of clients share: the command for the node, and what its verdict means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import uuid4

from fastapi import Request

from adapter.auth import ClientGuard, ClientIdentity
from adapter.channel import Channel
from aiida_byoc.contracts import (
    CancelJobCommand,
    Command,
    JobAcceptance,
    JobCancellation,
    JobView,
    LogChunk,
    LogRequest,
    SubmitJobCommand,
    Verdict,
)
from aiida_byoc.contracts.identity import NAME
from aiida_byoc.contracts.problems import PROBLEM_BASE, ProblemError
from aiida_byoc.contracts.receipt.envelope import Envelope

__all__ = ["ASKING", "Reading", "Signed", "check_name", "decided", "order_for"]

ASKING = (
    "unauthenticated",
    "forbidden",
    "not-found",
    "node-unreachable",
    "node-failed",
    "product-unavailable",
    "outcome-unknown",
)
"""The problems that every one of these routes may answer."""

_OURS = {
    "unauthenticated",
    "payload-too-large",
    "unsupported-media-type",
    "too-many-requests",
    "operation-unsupported",
    "product-unavailable",
    "node-unreachable",
    "outcome-unknown",
}
"""Only the adapter can know these: no node may answer them."""

_Decision = TypeVar("_Decision", JobAcceptance, JobCancellation, JobView, LogChunk, Envelope)


@dataclass(frozen=True, slots=True)
class Signed:
    """A body as the product sent it, and its signature under that."""

    body: dict[str, Any]
    signature: str


def check_name(job_id: str) -> None:
    """Raise `not-found` for what can be no job's name."""
    if not re.fullmatch(NAME, job_id):
        raise ProblemError("not-found")


def order_for(
    operation: Literal["submit", "cancel", "inspect", "logs", "receipt"],
    client: ClientIdentity,
    job_id: str,
    command: SubmitJobCommand | CancelJobCommand | LogRequest | None = None,
    key: str | None = None,
    *,
    signed: Signed | None = None,
) -> Command:
    """The command as it goes to the node, for the tenant whose credential was verified.

    What was signed travels as it was signed: the node validates it again, and fills in the defaults itself.
    """
    body = command.model_dump(mode="json", exclude_none=True) if command else None
    return Command(
        command_id=str(uuid4()),
        operation=operation,
        tenant_id=client.tenant_id,
        job_id=job_id,
        idempotency_key=key,
        body=signed.body if signed else body,
        signature=signed.signature if signed else None,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """Asks a node about one job, for clients that may read it."""

    guard: ClientGuard
    channel: Channel

    async def ask(
        self, operation: Literal["inspect", "receipt"], request: Request, node_id: str, job_id: str
    ) -> Verdict:
        """What the node says; who may not read, or names no job, hears of no node."""
        client = await self.guard.admit(request, node_id, scope="jobs:read")
        check_name(job_id)
        return await self.channel.submit(node_id, order_for(operation, client, job_id))


def decided(verdict: Verdict, decision: _Decision | None, declared: tuple[str, ...]) -> _Decision:
    """What the node decided; a refusal that is not the node's to make here becomes `internal-error`."""
    if verdict.problem is not None and verdict.outcome == "rejected":
        name = verdict.problem.type.removeprefix(PROBLEM_BASE)
        if name not in declared or name in _OURS:
            raise ProblemError("internal-error")
        raise ProblemError.of(verdict.problem)
    if decision is None:
        raise ProblemError("internal-error")
    return decision
