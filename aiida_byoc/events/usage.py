"""What each attempt used of the cluster, in node seconds: written with the event that shows that it is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg

from aiida_byoc.contracts.lifecycle import TERMINAL, ExecutionState

__all__ = ["note_ended"]

_STARTED = """
SELECT min(occurred_at) FROM byoc.event
WHERE submission_id = %s AND body #>> '{data,state}' = 'running' AND (body #>> '{data,attempt}')::integer = %s
"""
_NOTE = """
INSERT INTO byoc.usage (submission_id, attempt, tenant_id, node_seconds, ended_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


def note_ended(
    connection: psycopg.Connection,
    job: Mapping[str, Any],
    *,
    attempt: int,
    state: ExecutionState,
    snapshot: Mapping[str, Any],
    occurred_at: datetime,
) -> None:
    """Note what attempts used that are over now: the one before a new one, the last when the job ends.

    Started and ended are the job's own word where its record came back; else when it was seen running, and this event.
    An attempt of which neither is known has used nothing.

    Args:
        job: the ledger's row before the event.
        attempt: which one the event is about.
        state: what the event says, and `snapshot` the full state with it.
        occurred_at: the event's.
    """
    if attempt > job["attempt"]:
        _note(connection, job, job["attempt"], job["snapshot"], occurred_at)
    if state in TERMINAL:
        _note(connection, job, attempt, snapshot, occurred_at)


def _note(
    connection: psycopg.Connection,
    job: Mapping[str, Any],
    attempt: int,
    snapshot: Mapping[str, Any],
    occurred_at: datetime,
) -> None:
    timings = snapshot.get("timings", {})
    started = _instant(timings.get("started"))
    if started is None:
        row = connection.execute(_STARTED, (job["submission_id"], attempt)).fetchone()
        started = row[0] if row else None
    if started is None:
        return
    ended = _instant(timings.get("ended")) or occurred_at
    # Of an array as if all ran all the time that may at a time.
    nodes = job["command"]["resource_shape"].get("nodes", 1)
    nodes *= (job["placement"] or {}).get("at_a_time", 1)
    used = nodes * max(0.0, (ended - started).total_seconds())
    connection.execute(_NOTE, (job["submission_id"], attempt, job["tenant_id"], used, occurred_at))


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
