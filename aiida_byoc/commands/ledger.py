"""The ledger of accepted commands: one row per job, claimed once, cancelled at any time, seen as it is now."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.commands.accepting import Asked, accept, accept_all, trace_of
from aiida_byoc.contracts.commands import CancelJobCommand
from aiida_byoc.contracts.delivery import JobCancellation, JobView
from aiida_byoc.contracts.events import JobState
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox

__all__ = ["Asked", "accept", "accept_all", "cancel", "view"]

_CANCEL: dict[str | None, Literal["cancelled", "already_ended"]] = {
    None: "cancelled",
    ExecutionState.ACCEPTED: "cancelled",
    ExecutionState.CANCELLED: "cancelled",
    ExecutionState.SUCCEEDED: "already_ended",
    ExecutionState.FAILED: "already_ended",
}
"""What a cancel answers that finds a job in this state, or none; any other job is being cancelled."""


def cancel(
    connection: psycopg.Connection,
    command: CancelJobCommand,
    *,
    serve: Callable[[CancelJobCommand], None],
    now: datetime,
) -> tuple[JobCancellation, bool]:
    """Record the intent to cancel; return it and whether it is a repetition.

    A job that is not launched ends here and now. An unknown job leaves a tombstone, so that a submission that
    comes late is refused.

    Raises:
        ProblemError: `not-found` for a job of another workspace, or, for an unknown job, what `serve` refuses.
            Nothing is written then.
    """
    with connection.transaction():
        row = _job(connection, command)
        if row is None:
            serve(command)
            row = _bury(connection, command, now)
        if row["workspace_id"] != command.workspace_id:
            raise ProblemError("not-found")
        requested_at = row["cancel_requested_at"] or now
        repeated = row["cancel_requested_at"] is not None
        if not repeated:
            connection.execute(
                "UPDATE byoc.job SET cancel_requested_at = %s, cancel_reason = %s WHERE submission_id = %s",
                (now, command.reason, row["submission_id"]),
            )
        if row["state"] == ExecutionState.ACCEPTED:
            report = outbox.Report(
                state=ExecutionState.CANCELLED, occurred_at=now, reason=command.reason
            )
            outbox.append(connection, str(row["submission_id"]), report)
        cancellation = JobCancellation(
            job_id=row["job_id"],
            node_id=row["node_id"],
            requested_at=requested_at,
            status=_CANCEL.get(row["state"], "cancelling"),
        )
    return cancellation, repeated


def view(connection: psycopg.Connection, tenant_id: str, job_id: str) -> JobView:
    """What the node knows about a job now; `not-found` for a job of nobody or of another tenant."""
    row = (
        connection.cursor(row_factory=dict_row)
        .execute(
            "SELECT node.node_id, job.cancel_requested_at, stream.acked_seq, event.body"
            " FROM byoc.node, byoc.job JOIN byoc.event USING (submission_id, seq)"
            " JOIN byoc.stream USING (submission_id) WHERE tenant_id = %s AND job_id = %s",
            (tenant_id, job_id),
        )
        .fetchone()
    )
    if row is None:
        raise ProblemError("not-found")
    return JobView(
        node_id=row["node_id"],
        job=JobState.model_validate(row["body"]["data"]),
        cancel_requested_at=row["cancel_requested_at"],
        delivered_seq=row["acked_seq"],
    )


def _job(connection: psycopg.Connection, command: CancelJobCommand) -> dict[str, Any] | None:
    """The job, or the tombstone, of the command's workspace, locked; else the job of another one."""
    query = (
        "SELECT submission_id, job_id, workspace_id, state::text, cancel_requested_at, node.node_id"
        " FROM byoc.job, byoc.node WHERE tenant_id = %s AND job_id = %s"
        " AND (state IS NOT NULL OR workspace_id = %s) ORDER BY workspace_id = %s DESC LIMIT 1"
        " FOR NO KEY UPDATE OF job"
    )
    named = (command.tenant_id, command.job_id, command.workspace_id, command.workspace_id)
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(query, named).fetchone()


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
            trace_of(command.traceparent),
            now,
        ),
    )
    row = _job(connection, command)
    assert row is not None  # noqa: S101  (nobody deletes rows of the ledger)
    return row
