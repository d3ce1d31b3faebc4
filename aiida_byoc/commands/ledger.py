"""The ledger of accepted commands: one row per job, claimed once, cancelled at any time, seen as it is now."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.arrays.cancelled import record
from aiida_byoc.commands.accepting import Asked, accept, accept_all, trace_of
from aiida_byoc.contracts.commands import CancelJobCommand
from aiida_byoc.contracts.delivery import JobCancellation
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox

__all__ = ["Asked", "accept", "accept_all", "cancel"]

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
    comes late is refused. With no task left that is wanted, the job is cancelled.

    Raises:
        ProblemError: `not-found` for a job of another workspace, tasks of an unknown job, or, for an unknown job, what
            `serve` refuses; `validation-failed` for tasks that the job does not have. Nothing is written then.
    """
    with connection.transaction():
        row = _job(connection, command)
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


def _job(connection: psycopg.Connection, command: CancelJobCommand) -> dict[str, Any] | None:
    """The job, or the tombstone, of the command's workspace, locked; else the job of another one."""
    query = (
        "SELECT submission_id, job_id, workspace_id, command, state::text, cancel_requested_at, node.node_id"
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
