"""The outbox: a job's state and the event that tells it, written in the caller's transaction.

`seq` is allocated under the job's row lock, so it is contiguous per job and its order is the commit order.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from aiida_byoc import crashpoints
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.events import ExecutionEvent, event_type, one_line
from aiida_byoc.contracts.lifecycle import ExecutionState, may_follow
from aiida_byoc.events.usage import note_ended

__all__ = ["Report", "append", "first", "resume"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What somebody saw of a job.

    Attributes:
        state: the state it is in now.
        occurred_at: when (aware).
        attempt: which attempt it is about; `None` for the job as a whole.
        reason: one sentence, required when `held`.
        facts: parts of the full state that became known: `execution_id`, `image`, `scheduler`, `timings`, `progress`,
            `result`, `error`, `recovery`, in the words of the contract. They stay in every later event.
    """

    state: ExecutionState
    occurred_at: datetime
    attempt: int | None = None
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def first(job: Mapping[str, Any], snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """The event that tells of a job's acceptance; whoever writes the job's row writes it in the same statement.

    Args:
        job: the row, with `node_id` and `epoch` of the node.
        snapshot: the full state that becomes known with it.
    """
    report = Report(state=ExecutionState.ACCEPTED, occurred_at=job["accepted_at"])
    return _event(job, report, seq=1, attempt=1, snapshot=snapshot)


def append(connection: psycopg.Connection, submission_id: str, report: Report) -> int | None:
    """Record the state and its event; return the event's `seq`.

    Returns `None`, and writes nothing, when the life cycle has no place for the report: a repetition after a crash,
    news of an attempt that is over, anything after a terminal state. The caller owns the transaction.
    """
    cursor = connection.cursor(row_factory=dict_row)
    job = cursor.execute(
        "SELECT job.*, node.node_id, byoc.epoch() AS epoch FROM byoc.job, byoc.node"
        " WHERE submission_id = %s FOR NO KEY UPDATE OF job",
        (submission_id,),
    ).fetchone()
    if job is None:
        raise LookupError(f"no job has submission {submission_id} in this node's ledger")
    attempt = report.attempt or job["attempt"]
    if not _has_place(job, report, attempt):
        return None
    seq: int = job["seq"] + 1
    snapshot = _merged(job["snapshot"], report.facts, new_attempt=attempt > job["attempt"])
    body = _event(job, report, seq=seq, attempt=attempt, snapshot=snapshot)
    note_ended(
        connection,
        job,
        attempt=attempt,
        state=report.state,
        snapshot=snapshot,
        occurred_at=report.occurred_at,
    )
    held_from = job["state"] if report.state is ExecutionState.HELD else None
    cursor.execute(
        "UPDATE byoc.job SET state = %s, held_from = %s, attempt = %s, seq = %s, snapshot = %s"
        " WHERE submission_id = %s",
        (report.state, held_from, attempt, seq, Jsonb(snapshot), submission_id),
    )
    cursor.execute(
        "INSERT INTO byoc.event (submission_id, seq, event_id, body, occurred_at) VALUES (%s, %s, %s, %s, %s)",
        (submission_id, seq, body["id"], Jsonb(body), report.occurred_at),
    )
    cursor.execute(
        "INSERT INTO byoc.stream (submission_id, latest_seq) VALUES (%s, %s)"
        " ON CONFLICT (submission_id) DO UPDATE SET latest_seq = excluded.latest_seq",
        (submission_id, seq),
    )
    crashpoints.reached("event.appended")
    return seq


def resume(connection: psycopg.Connection, submission_id: str, occurred_at: datetime) -> int | None:
    """Take a held job back to the state it was held from; do nothing when it is not held."""
    row = connection.execute(
        "SELECT held_from FROM byoc.job WHERE submission_id = %s AND state = 'held' FOR NO KEY UPDATE",
        (submission_id,),
    ).fetchone()
    if row is None:
        return None
    return append(
        connection, submission_id, Report(state=ExecutionState(row[0]), occurred_at=occurred_at)
    )


def _has_place(job: Mapping[str, Any], report: Report, attempt: int) -> bool:
    if job["state"] is None:
        return False  # a tombstone has no life
    if attempt < job["attempt"]:
        return False
    held_from = job["held_from"]
    told, known = report.facts.get("scheduler", {}), job["snapshot"].get("scheduler", {})
    return may_follow(
        ExecutionState(job["state"]),
        report.state,
        held_from=ExecutionState(held_from) if held_from else None,
        new_attempt=attempt > job["attempt"],
        new_place=told.get("wait_reason") not in {None, known.get("wait_reason")}
        or ("job_id" in told and "job_id" not in known),
        new_progress=report.facts.get("progress") not in (None, job["snapshot"].get("progress")),
    )


def _merged(
    snapshot: Mapping[str, Any], facts: Mapping[str, Any], *, new_attempt: bool
) -> dict[str, Any]:
    merged = dict(snapshot)
    if new_attempt:
        for part in ("scheduler", "progress", "result", "error", "recovery"):
            merged.pop(part, None)
        merged["timings"] = {
            name: time for name, time in merged.get("timings", {}).items() if name == "accepted"
        }
    for part, value in facts.items():
        nested = isinstance(value, Mapping) and part in {"timings", "scheduler"}
        merged[part] = {**merged.get(part, {}), **value} if nested else value
    return merged


def _event(
    job: Mapping[str, Any], report: Report, *, seq: int, attempt: int, snapshot: Mapping[str, Any]
) -> dict[str, Any]:
    occurred_at = utc_now_text(report.occurred_at)
    data = {
        "tenant_id": job["tenant_id"],
        "workspace_id": job["workspace_id"],
        "job_id": job["job_id"],
        "submission_id": str(job["submission_id"]),
        "epoch": job["epoch"],
        "seq": seq,
        "attempt": attempt,
        "state": report.state.value,
        "reason": one_line(report.reason) if report.reason else None,
        "occurred_at": occurred_at,
        "trace_id": job["trace_id"],
        **snapshot,
    }
    return ExecutionEvent.model_validate(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": f"/nodes/{job['node_id']}",
            "type": event_type(report.state),
            "subject": job["job_id"],
            "time": occurred_at,
            "data": data,
        }
    ).wire()
