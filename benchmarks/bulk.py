"""Many jobs at once in the ledger and the outbox: copies of one that really went through them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg

from aiida_byoc.commands import ledger
from aiida_byoc.commands.policy import Policy
from aiida_byoc.contracts import SubmitJobCommand
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.validation import validated
from aiida_byoc.events import outbox
from aiida_byoc.events.outbox import Report
from benchmarks import jobs
from lab.paths import LabPaths

__all__ = ["copy", "empty", "nodes", "tell_one", "tidy", "waiting", "withdraw"]

CHUNK = 50_000
_MARK = "made by the benchmark"
MANY = 1000
"""So many new rows change what PostgreSQL should know of the tables."""

_COPY = """
WITH one AS (SELECT * FROM byoc.job WHERE submission_id = %(model)s), made AS (
    INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint, command,
                          placement, trace_id, accepted_at, node_seconds, state, attempt, seq, snapshot, process_pk)
    SELECT gen_random_uuid(), tenant_id, workspace_id, %(name)s || n, %(name)s || '-key-of-sixteen-' || n, fingerprint,
           command, placement, trace_id, accepted_at + n * interval '1 millisecond', node_seconds, state, attempt, seq,
           snapshot, NULL
    FROM one, generate_series(%(first)s::integer, %(last)s::integer) AS n
    RETURNING submission_id, job_id
), told AS (
    INSERT INTO byoc.stream (submission_id, latest_seq, acked_seq)
    SELECT made.submission_id, one.seq, CASE WHEN %(told)s::boolean THEN one.seq ELSE 0 END FROM made, one
)
INSERT INTO byoc.event (submission_id, seq, event_id, body, occurred_at)
SELECT made.submission_id, seq, made.submission_id || '-' || seq,
       jsonb_set(jsonb_set(body || jsonb_build_object('id', made.submission_id || '-' || seq, 'subject', made.job_id),
                           '{data,job_id}', to_jsonb(made.job_id)),
                 '{data,submission_id}', to_jsonb(made.submission_id::text)),
       occurred_at
FROM made, byoc.event WHERE event.submission_id = %(model)s
"""
_WAITING = """
INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key, fingerprint, command, placement,
                      trace_id, accepted_at, node_seconds, state, seq)
SELECT gen_random_uuid(), tenant_id, workspace_id, 'waits-' || n, 'waits-key-of-sixteen-' || n, fingerprint, command,
       placement, trace_id, accepted_at + n * interval '1 millisecond', node_seconds, 'accepted', 1
FROM byoc.job, generate_series(1, %(count)s::integer) AS n WHERE submission_id = %(model)s
"""
_NODES = """
INSERT INTO db_dbnode (uuid, node_type, process_type, label, description, ctime, mtime, attributes, extras,
                       repository_metadata, user_id)
SELECT gen_random_uuid(), 'process.workflow.workchain.WorkChainNode.', 'aiida.workflows:byoc.job', '', %(mark)s, now(),
       now(), '{"process_state": "finished", "exit_status": 0, "sealed": true, "version": {"core": "2.9.4"}}', '{}',
       '{}', (SELECT min(id) FROM db_dbuser)
FROM generate_series(1, %(count)s::integer)
"""


def tell_one(connection: psycopg.Connection, paths: LabPaths, lab: Mapping[str, Any]) -> str:
    """Put a job into the ledger and tell its whole life; return its submission.

    Its name is a new one: a product that is not begun anew may remember another's.
    """
    place = Policy.load(paths.root / "policy.toml").place
    name = f"model-{uuid.uuid4().hex[:8]}"
    order = validated(SubmitJobCommand, jobs.command(lab, name), what="command")
    now = datetime.now(UTC)
    acceptance, _ = ledger.accept(connection, order, f"key-of-{name}", place=place, now=now)
    slurm = {"job_id": "4711", "name": f"byoc-{acceptance.submission_id}-1", "queue": "main"}
    moment = utc_now_text(now)
    life: list[tuple[ExecutionState, dict[str, Any]]] = [
        (ExecutionState.LAUNCHED, {"execution_id": acceptance.submission_id}),
        (ExecutionState.QUEUED, {"scheduler": slurm, "timings": {"queued": moment}}),
        (ExecutionState.RUNNING, {"scheduler": {"nodes": ["n1"]}, "timings": {"started": moment}}),
        (
            ExecutionState.SUCCEEDED,
            {"timings": {"ended": moment}, "result": {"exit_code": 0, "outputs": []}},
        ),
    ]
    for state, facts in life:
        report = Report(state=state, occurred_at=now, facts=facts)
        assert outbox.append(connection, acceptance.submission_id, report) is not None, state
    return acceptance.submission_id


def copy(connection: psycopg.Connection, model: str, name: str, count: int, *, told: bool) -> None:
    """Copy the model job so many times, `<name>1` and so on, with all its events.

    Args:
        told: whether the product has them; else they are the relay's to deliver.
    """
    for first in range(1, count + 1, CHUNK):
        last = min(first + CHUNK - 1, count)
        values = {"model": model, "name": name, "first": first, "last": last, "told": told}
        connection.execute(_COPY, values)
    if count >= MANY:
        tidy(connection)


def tidy(connection: psycopg.Connection) -> None:
    """Vacuum and analyze, as PostgreSQL would by itself within minutes, but not while something is measured."""
    connection.execute("VACUUM (ANALYZE) byoc.job, byoc.event, byoc.stream")


def waiting(connection: psycopg.Connection, model: str, count: int) -> None:
    """Let so many copies of the model job wait for their launch, without their events."""
    connection.execute(_WAITING, {"model": model, "count": count})


def withdraw(connection: psycopg.Connection) -> None:
    """End every job that waits for its launch; nobody is told."""
    connection.execute("UPDATE byoc.job SET state = 'cancelled' WHERE state = 'accepted'")


def nodes(connection: psycopg.Connection, count: int) -> None:
    """Put finished work chains into AiiDA's database, as many jobs leave them; `empty` forgets them."""
    connection.execute(_NODES, {"mark": _MARK, "count": count})
    connection.execute("VACUUM (ANALYZE) db_dbnode")


def empty(connection: psycopg.Connection) -> None:
    """Forget every job, and the nodes that `nodes` made, as no operator ever should."""
    connection.execute("TRUNCATE byoc.job CASCADE")
    connection.execute("DELETE FROM db_dbnode WHERE description = %s", (_MARK,))
