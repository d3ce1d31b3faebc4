"""`verdi data byoc events …`: the outbox, for reading, and for sending again."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import node_tables, one_sentence, show
from aiida_byoc.cli.quarantine import quarantine

__all__ = ["events"]

_LIST = """
SELECT event.occurred_at::text, job.tenant_id, job.job_id, event.seq, event.body #>> '{data,state}' AS state,
       event.body #>> '{data,attempt}' AS attempt,
       CASE WHEN dropped.seq IS NOT NULL THEN 'dropped'
            WHEN event.seq <= stream.acked_seq THEN 'delivered'
            WHEN stream.quarantine IS NOT NULL THEN 'quarantined' ELSE 'waiting' END AS delivery,
       coalesce(event.body #>> '{data,reason}', event.body #>> '{data,error,message}') AS note
FROM byoc.event JOIN byoc.job USING (submission_id) JOIN byoc.stream USING (submission_id)
    LEFT JOIN byoc.dropped ON dropped.submission_id = event.submission_id AND dropped.seq = event.seq
WHERE (%(job)s::text IS NULL OR job.job_id = %(job)s) AND (%(tenant)s::text IS NULL OR job.tenant_id = %(tenant)s)
ORDER BY event.occurred_at DESC, event.seq DESC LIMIT %(limit)s
"""
_COLUMNS = ["occurred_at", "tenant_id", "job_id", "seq", "state", "attempt", "delivery", "note"]


@click.group()
def events() -> None:
    """Execution events that this node emitted."""


events.add_command(quarantine)


@events.command("list")
@click.option("--job", help="Only events of this job.")
@click.option("--tenant", help="Only events of this tenant.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def list_events(job: str | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """List events, oldest of the newest first."""
    from psycopg.rows import dict_row

    with node_tables() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_LIST, {"job": job, "tenant": tenant, "limit": limit}).fetchall()
    show(reversed(rows), _COLUMNS, as_json=as_json)


@events.command("replay")
@click.option("--job", help="All events of this job; needs --tenant.")
@click.option(
    "--since",
    help="Of each job, from its first event at or after this time (RFC 3339, with offset).",
)
@click.option("--all", "everything", is_flag=True, help="Every event that is kept.")
@click.option("--tenant", help="Only jobs of this tenant.")
@one_sentence
def replay_events(job: str | None, since: str | None, everything: bool, tenant: str | None) -> None:
    """Send delivered events once more; the product takes what it lacks."""
    from datetime import datetime

    from aiida_byoc.events.redelivery import replay

    if [bool(job), bool(since), everything].count(True) != 1 or (job and not tenant):
        raise click.UsageError("name one of --job (with --tenant), --since and --all")
    try:
        moment = datetime.fromisoformat(since) if since else None
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    if moment is not None and moment.tzinfo is None:
        raise click.UsageError("--since needs an offset, for example 2026-01-31T12:00:00Z")
    with node_tables() as connection:
        done = replay(connection, tenant=tenant, job=job, since=moment)
    click.echo(f"{done.events} event(s) of {done.jobs} job(s) are sent once more")
    if done.quarantined:
        click.echo(f"{done.quarantined} of the jobs are quarantined: see `events quarantine list`")


@events.command("epoch")
@click.option(
    "--new", is_flag=True, help="Begin a new one: this database was copied or restored by files."
)
@click.option(
    "--history", is_flag=True, help="List the epochs of all kept events, the oldest first."
)
@one_sentence
def show_epoch(new: bool, history: bool) -> None:
    """Show which history of this node's database events belong to."""
    from aiida_byoc.events.redelivery import epoch, epochs

    with node_tables() as connection:
        current = epoch(connection, new=new)
        if history:
            show(
                epochs(connection), ["epoch", "first_event", "last_event", "events"], as_json=False
            )
        else:
            click.echo(current)
    if new:
        click.echo("the product's operator must accept it before anything is delivered", err=True)
