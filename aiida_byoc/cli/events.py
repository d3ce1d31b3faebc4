"""`verdi data byoc events …`: the outbox, for reading."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import one_sentence, profile_storage, show

__all__ = ["events"]

_LIST = """
SELECT event.occurred_at::text, job.tenant_id, job.job_id, event.seq, event.body #>> '{data,state}' AS state,
       event.body #>> '{data,attempt}' AS attempt,
       CASE WHEN event.seq <= stream.acked_seq THEN 'delivered'
            WHEN stream.quarantine IS NOT NULL THEN 'quarantined' ELSE 'waiting' END AS delivery,
       coalesce(event.body #>> '{data,reason}', event.body #>> '{data,error,message}') AS note
FROM byoc.event JOIN byoc.job USING (submission_id) JOIN byoc.stream USING (submission_id)
WHERE (%(job)s::text IS NULL OR job.job_id = %(job)s) AND (%(tenant)s::text IS NULL OR job.tenant_id = %(tenant)s)
ORDER BY event.occurred_at DESC, event.seq DESC LIMIT %(limit)s
"""
_COLUMNS = ["occurred_at", "tenant_id", "job_id", "seq", "state", "attempt", "delivery", "note"]


@click.group()
def events() -> None:
    """Execution events that this node emitted."""


@events.command("list")
@click.option("--job", help="Only events of this job.")
@click.option("--tenant", help="Only events of this tenant.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def list_events(job: str | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """List events, oldest of the newest first."""
    from psycopg.rows import dict_row

    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import check

    _, storage_config = profile_storage()
    with connect(storage_config, application="verdi") as connection:
        check(connection)
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_LIST, {"job": job, "tenant": tenant, "limit": limit}).fetchall()
    show(reversed(rows), _COLUMNS, as_json=as_json)
