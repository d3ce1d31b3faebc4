"""What a test reads back from the node's tables."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.contracts.events import ExecutionEvent
from aiida_byoc.contracts.validation import validated
from tests.eventually import eventually

__all__ = ["events", "nothing_written", "row", "states", "stream", "submission_of", "wait_for_lock"]


def row(
    connection: psycopg.Connection, *, tenant: str = "acme", job: str = "job-1"
) -> dict[str, Any] | None:
    """The ledger's row of a job."""
    return (
        connection.cursor(row_factory=dict_row)
        .execute("SELECT * FROM byoc.job WHERE tenant_id = %s AND job_id = %s", (tenant, job))
        .fetchone()
    )


def submission_of(connection: psycopg.Connection, **job: str) -> str:
    found = row(connection, **job)
    assert found is not None
    return str(found["submission_id"])


def stream(connection: psycopg.Connection, submission: str) -> dict[str, Any]:
    """How far the product has the job."""
    found = (
        connection.cursor(row_factory=dict_row)
        .execute("SELECT * FROM byoc.stream WHERE submission_id = %s", (submission,))
        .fetchone()
    )
    assert found is not None
    return found


def events(connection: psycopg.Connection, submission: str) -> list[ExecutionEvent]:
    """The job's events in order; each must be valid, and must agree with its columns."""
    found = connection.execute(
        "SELECT seq, event_id, body FROM byoc.event WHERE submission_id = %s ORDER BY seq",
        (submission,),
    ).fetchall()
    read = [validated(ExecutionEvent, body) for _, _, body in found]
    assert [(each.data.seq, each.id) for each in read] == [(seq, name) for seq, name, _ in found]
    assert [each.data.seq for each in read] == list(range(1, len(read) + 1))
    return read


def states(connection: psycopg.Connection, submission: str) -> list[str]:
    return [each.data.state.value for each in events(connection, submission)]


def nothing_written(connection: psycopg.Connection) -> bool:
    counts = connection.execute(
        "SELECT (SELECT count(*) FROM byoc.job), (SELECT count(*) FROM byoc.event),"
        " (SELECT count(*) FROM byoc.stream)"
    ).fetchone()
    return counts == (0, 0, 0)


def wait_for_lock(watcher: psycopg.Connection, waiting: psycopg.Connection) -> None:
    """Wait until the other connection waits for a lock."""
    eventually(
        lambda: watcher.execute(
            "SELECT true FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
            (waiting.info.backend_pid,),
        ).fetchone(),
        "the other connection to wait for a lock",
    )
