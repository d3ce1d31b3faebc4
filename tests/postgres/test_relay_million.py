"""A million undelivered events: the relay holds a batch of them, and finds it without looking at the rest."""

from __future__ import annotations

import tracemalloc
from typing import Any, LiteralString

import psycopg
import pytest

from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, Acknowledgement
from aiida_byoc.events.relay import deliver
from tests.postgres.jobs import accept

JOBS = 50_000
EVENTS = 20
BATCHES = 50
MOST_BYTES = 8 * 2**20

# What the planner knows of the tables.
NOTHING: list[LiteralString] = []
MUCH: list[LiteralString] = ["ANALYZE byoc.stream, byoc.event, byoc.job"]
WHAT_IS_NO_LONGER_TRUE: list[LiteralString] = [
    "UPDATE byoc.stream SET claimed_by = 'another', claimed_until = now() + interval '1 hour'",
    "ANALYZE byoc.stream",
    "UPDATE byoc.stream SET claimed_by = NULL, claimed_until = NULL",
]


class Counting:
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        self.batches.append(len(batch))
        wanted = {each["data"]["submission_id"]: each["data"]["seq"] + 1 for each in batch}
        return Acknowledgement(next_seq=wanted)


@pytest.fixture
def backlog(connection: psycopg.Connection) -> psycopg.Connection:
    """A million copies of one event, as if nothing had been delivered for weeks."""
    model = accept(connection)
    values = {"model": model, "jobs": JOBS, "events": EVENTS}
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # the copies are sound
        connection.execute(
            "CREATE TEMP TABLE copy ON COMMIT DROP AS"
            " SELECT gen_random_uuid() AS id, n FROM generate_series(2, %(jobs)s) AS n",
            values,
        )
        connection.execute(
            "INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint,"
            " command, placement, trace_id, accepted_at, state, seq, snapshot)"
            " SELECT copy.id, tenant_id, workspace_id, 'job-' || n, 'key-of-sixteen-' || n, fingerprint, command,"
            " placement, trace_id, accepted_at, state, %(events)s, snapshot"
            " FROM byoc.job, copy WHERE submission_id = %(model)s",
            values,
        )
        connection.execute(
            "INSERT INTO byoc.event SELECT copy.id, one.seq, copy.id || '-' || one.seq,"
            " jsonb_set(body, '{data}', (body -> 'data')"
            " || jsonb_build_object('submission_id', copy.id, 'seq', one.seq)), occurred_at"
            " FROM byoc.event, copy, generate_series(1, %(events)s) AS one (seq) WHERE submission_id = %(model)s",
            values,
        )
        connection.execute(
            "INSERT INTO byoc.stream (submission_id, latest_seq) SELECT id, %(events)s FROM copy",
            values,
        )
    return connection


def test_a_million_events_wait_in_the_database_and_not_in_memory(
    backlog: psycopg.Connection,
) -> None:
    product = Counting()
    deliver(backlog, product)
    tracemalloc.start()
    for _ in range(BATCHES):
        assert deliver(backlog, product) <= MAX_EVENT_BATCH
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(product.batches) >= BATCHES * MAX_EVENT_BATCH * 0.9
    assert peak < MOST_BYTES

    for known in (NOTHING, MUCH, WHAT_IS_NO_LONGER_TRUE):
        for statement in known:
            backlog.execute(statement)
        before = scanned(backlog)
        deliver(backlog, product)
        after = scanned(backlog)
        assert after["seq_scan"] == before["seq_scan"]
        assert after["rows"] - before["rows"] < 50 * MAX_EVENT_BATCH


def scanned(connection: psycopg.Connection) -> dict[str, int]:
    """How often the large tables were read from end to end, and how many rows were fetched by their indexes."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT sum(seq_scan)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_user_tables"
        " WHERE schemaname = 'byoc' AND relname IN ('event', 'stream', 'job')"
    ).fetchone()
    assert row is not None
    return {"seq_scan": row[0], "rows": row[1]}
