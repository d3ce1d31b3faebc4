"""The ledger of accepted commands: one row per job, claimed once, in the caller's transaction.

The claim is an INSERT guarded by two unique constraints, (tenant, key) and (tenant, job). A loser of the race looks
again in a *new* statement, whose snapshot sees the winner's commit; `INSERT … UNION ALL SELECT` in one
statement would show most losers nothing.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from aiida_byoc import crashpoints
from aiida_byoc.arrays.cancelled import record
from aiida_byoc.commands import allowance, image_use, inputs, pulls
from aiida_byoc.commands.draining import refuse_while_draining
from aiida_byoc.commands.placement import Placement, WorkchainPlacement
from aiida_byoc.commands.quotas import Quota, asked_node_seconds
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.canonical import fingerprint
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.delivery import JobAcceptance, JobCancellation
from aiida_byoc.contracts.identity import trace_id_of
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox

__all__ = ["accept", "cancel"]

_CANCEL: dict[str | None, Literal["cancelled", "already_ended"]] = {
    None: "cancelled",
    ExecutionState.ACCEPTED: "cancelled",
    ExecutionState.CANCELLED: "cancelled",
    ExecutionState.SUCCEEDED: "already_ended",
    ExecutionState.FAILED: "already_ended",
}
"""What a cancel answers that finds a job in this state, or none; any other job is being cancelled."""


def accept(
    connection: psycopg.Connection,
    command: SubmitJobCommand,
    key: str,
    *,
    place: Callable[[SubmitJobCommand], Placement | WorkchainPlacement],
    quota: Callable[[str], Quota] = lambda _: Quota(),
    now: datetime,
) -> tuple[JobAcceptance, bool]:
    """Claim the command; return its acceptance and whether it is a replay.

    A replay is answered alike for ever: before the deadline, the policy and everything else that may have changed.
    `quota` says how much of the node a tenant may have.

    Raises:
        ProblemError: `idempotency-key-reused`, `job-id-conflict`, `job-cancelled`, `command-expired`,
            `node-draining`, `quota-exceeded`, `input-not-found`, or what `place` refuses. Nothing is written then.
    """
    intent = fingerprint("submit", command)
    with connection.transaction():
        earlier = _earlier_claim(connection, command, key, intent)
        if earlier is not None:
            return earlier, True
        if command.deadline is not None and command.deadline <= now:
            raise ProblemError("command-expired")
        image_use.while_accepting(connection)
        placement = place(command)
        refuse_while_draining(connection)
        bounds = quota(command.tenant_id)
        if bounds.bounds_acceptance:
            allowance.one_at_a_time(connection, command.tenant_id)
            earlier = _earlier_claim(connection, command, key, intent)
            if earlier is not None:  # it came meanwhile, and may have taken the last place
                return earlier, True
            allowance.refuse_beyond(connection, command, bounds, now, elements=placement.elements)
        submission_id = _claim(
            connection, command, key=key, intent=intent, placement=placement, now=now
        )
        if submission_id is None:
            # Somebody else's commit came between: this statement sees it.
            earlier = _earlier_claim(connection, command, key, intent)
            if earlier is None:
                raise ProblemError("node-failed", retry_after=1)
            return earlier, True
        if isinstance(placement, Placement):
            pulls.want(connection, placement)
        inputs.want(connection, submission_id, command)
        outbox.append(
            connection,
            submission_id,
            outbox.Report(
                state=ExecutionState.ACCEPTED,
                occurred_at=now,
                facts={
                    "timings": {"accepted": utc_now_text(now)},
                    **_image_of(command, placement),
                },
            ),
        )
        row = _job(connection, command)
        assert row is not None  # noqa: S101  (we have just inserted it)
        crashpoints.reached("ledger.claimed")
    crashpoints.reached("ledger.committed")
    return _acceptance(row), False


def cancel(
    connection: psycopg.Connection,
    command: CancelJobCommand,
    *,
    serve: Callable[[CancelJobCommand], None],
    now: datetime,
) -> tuple[JobCancellation, bool]:
    """Record the intent to cancel; return it and whether it is a repetition.

    A job that is not launched ends here and now. An unknown job leaves a tombstone, so that a submission that
    comes late is refused. With no task left that is wanted, the job is cancelled.

    Raises:
        ProblemError: `not-found` for a job of another workspace, tasks of an unknown job, or, for an unknown job, what
            `serve` refuses; `validation-failed` for tasks that the job does not have. Nothing is written then.
    """
    with connection.transaction():
        row = _job(connection, command, lock=True)
        if row is None and command.tasks is None:
            serve(command)
            row = _bury(connection, command, now)
        if row is None or row["workspace_id"] != command.workspace_id:
            raise ProblemError("not-found")
        status: Literal["cancelling", "cancelled", "already_ended"]
        status = _CANCEL.get(row["state"], "cancelling")
        if command.tasks is None:
            requested_at, repeated = _cancel_all(connection, row, command, now)
        elif row["state"] is None:
            raise ProblemError("not-found")
        else:
            requested_at, repeated, goes_on = record(connection, row, command.tasks, now)
            if not goes_on:
                _cancel_all(connection, row, command, now)
            elif row["state"] == ExecutionState.ACCEPTED:
                status = "cancelling"
        cancellation = JobCancellation(
            job_id=row["job_id"],
            node_id=row["node_id"],
            requested_at=requested_at,
            status=status,
        )
    return cancellation, repeated


def _cancel_all(
    connection: psycopg.Connection, row: Mapping[str, Any], command: CancelJobCommand, now: datetime
) -> tuple[datetime, bool]:
    """Record it for the whole job; when it was first asked for, and whether that was before."""
    if row["cancel_requested_at"] is not None:
        return row["cancel_requested_at"], True
    connection.execute(
        "UPDATE byoc.job SET cancel_requested_at = %s, cancel_reason = %s WHERE submission_id = %s",
        (now, command.reason, row["submission_id"]),
    )
    if row["state"] == ExecutionState.ACCEPTED:
        report = outbox.Report(
            state=ExecutionState.CANCELLED, occurred_at=now, reason=command.reason
        )
        outbox.append(connection, str(row["submission_id"]), report)
    return now, False


def _job(
    connection: psycopg.Connection,
    command: SubmitJobCommand | CancelJobCommand,
    *,
    lock: bool = False,
) -> dict[str, Any] | None:
    """The job, or the tombstone, of the command's workspace; else the job of another one."""
    query = (
        "SELECT job.*, node.node_id FROM byoc.job, byoc.node WHERE tenant_id = %s AND job_id = %s"
        " AND (state IS NOT NULL OR workspace_id = %s) ORDER BY workspace_id = %s DESC LIMIT 1"
    )
    named = (command.tenant_id, command.job_id, command.workspace_id, command.workspace_id)
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(query + " FOR NO KEY UPDATE OF job" if lock else query, named).fetchone()


def _bury(
    connection: psycopg.Connection, command: CancelJobCommand, now: datetime
) -> dict[str, Any]:
    """Make a tombstone, unless somebody else's commit came between; return what is there."""
    connection.execute(
        "INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, trace_id, accepted_at)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            uuid.uuid4(),
            command.tenant_id,
            command.workspace_id,
            command.job_id,
            _trace_id(command.traceparent),
            now,
        ),
    )
    row = _job(connection, command, lock=True)
    assert row is not None  # noqa: S101  (nobody deletes rows of the ledger)
    return row


def _earlier_claim(
    connection: psycopg.Connection, command: SubmitJobCommand, key: str, intent: str
) -> JobAcceptance | None:
    # Key and job in one statement: between two, the same command's own claim could commit and look like a conflict.
    rows = (
        connection.cursor(row_factory=dict_row)
        .execute(
            "SELECT job.*, node.node_id FROM byoc.job, byoc.node"
            " WHERE tenant_id = %s AND (idempotency_key = %s"
            " OR job_id = %s AND (state IS NOT NULL OR workspace_id = %s))"
            " ORDER BY workspace_id = %s DESC",
            (
                command.tenant_id,
                key,
                command.job_id,
                command.workspace_id,
                command.workspace_id,
            ),
        )
        .fetchall()
    )
    for row in rows:
        if row["idempotency_key"] == key:
            if row["fingerprint"] != intent:
                raise ProblemError("idempotency-key-reused")
            return _acceptance(row)
    if rows:
        raise ProblemError("job-cancelled" if rows[0]["state"] is None else "job-id-conflict")
    return None


def _claim(
    connection: psycopg.Connection,
    command: SubmitJobCommand,
    *,
    key: str,
    intent: str,
    placement: Placement | WorkchainPlacement,
    now: datetime,
) -> str | None:
    row = connection.execute(
        "INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint,"
        " command, placement, trace_id, accepted_at, deadline, node_seconds, state)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'accepted')"
        " ON CONFLICT DO NOTHING RETURNING submission_id::text",
        (
            uuid.uuid4(),
            command.tenant_id,
            command.workspace_id,
            command.job_id,
            key,
            intent,
            Jsonb(command.model_dump(mode="json", exclude_none=True)),
            Jsonb(placement.model_dump(mode="json", exclude_none=True)),
            _trace_id(command.traceparent),
            now,
            command.deadline,
            asked_node_seconds(command, placement.elements),
        ),
    ).fetchone()
    return row[0] if row else None


def _image_of(
    command: SubmitJobCommand, placement: Placement | WorkchainPlacement
) -> dict[str, Any]:
    """What is to run, in the words of the contract; nothing of a work chain."""
    if not isinstance(placement, Placement):
        return {}
    return {"image": {"reference": command.container.image, "digest": placement.image_digest}}


def _acceptance(row: Mapping[str, Any]) -> JobAcceptance:
    return JobAcceptance(
        job_id=row["job_id"],
        submission_id=str(row["submission_id"]),
        node_id=row["node_id"],
        accepted_at=row["accepted_at"],
        trace_id=row["trace_id"],
    )


def _trace_id(traceparent: str | None) -> str:
    return trace_id_of(traceparent) if traceparent else secrets.token_hex(16)
