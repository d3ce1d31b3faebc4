"""`verdi data byoc jobs …`: the ledger, for reading; what goes out of it, signed or packed, is in `receipts`."""

from __future__ import annotations

import json

import click

from aiida_byoc.cli.common import LateGroup, node_tables, one_sentence, profile_storage, show
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["jobs", "list_jobs", "list_tasks", "show_job"]

_LIST = """
SELECT job.tenant_id, job.job_id, job.state::text, job.attempt, job.seq, job.process_pk AS pk,
       event.body #>> '{data,scheduler,job_id}' AS slurm, job.accepted_at::timestamptz(0)::text AS accepted_at,
       event.body #>> '{data,error,code}' AS error
FROM byoc.job JOIN byoc.event USING (submission_id, seq)
WHERE (%(state)s::text IS NULL OR job.state::text = %(state)s)
  AND (%(tenant)s::text IS NULL OR job.tenant_id = %(tenant)s)
ORDER BY job.accepted_at DESC LIMIT %(limit)s
"""
_COLUMNS = ["tenant_id", "job_id", "state", "attempt", "seq", "pk", "slurm", "accepted_at", "error"]

_TASK_COLUMNS = [
    *("number", "id", "state", "attempt", "exit_code", "cpu_seconds", "peak_rss_mib", "node"),
    "message",
]


@click.group(
    cls=LateGroup,
    late={
        "list": "aiida_byoc.cli.jobs:list_jobs",
        "show": "aiida_byoc.cli.jobs:show_job",
        "tasks": "aiida_byoc.cli.jobs:list_tasks",
        "cancel": "aiida_byoc.cli.job_orders:cancel_job",
        "log": "aiida_byoc.cli.job_orders:print_log",
        "receipt": "aiida_byoc.cli.receipts:receipt",
        "verify-receipt": "aiida_byoc.cli.receipts:verify_receipt",
        "export-crate": "aiida_byoc.cli.receipts:export_crate",
    },
)
def jobs() -> None:
    """Jobs that this node accepted."""


@click.command("list")
@click.option("--state", help="Only jobs in this execution state.")
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def list_jobs(state: str | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    from psycopg.rows import dict_row

    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import check

    _, storage_config = profile_storage()
    with connect(storage_config, application="verdi") as connection:
        check(connection)
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_LIST, {"state": state, "tenant": tenant, "limit": limit}).fetchall()
    show(rows, _COLUMNS, as_json=as_json)


@click.command("show")
@click.argument("job_id")
@click.option(
    "--tenant", required=True, help="The tenant whose job it is: job ids are unique per tenant."
)
@one_sentence
def show_job(job_id: str, tenant: str) -> None:
    """Show all that the node knows about one job, as JSON."""
    from aiida_byoc.commands.viewing import view
    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import check

    _, storage_config = profile_storage()
    with connect(storage_config, application="verdi") as connection:
        check(connection)
        found = view(connection, tenant, job_id)
    click.echo(json.dumps(found.model_dump(mode="json", exclude_none=True), indent=2))


@click.command("tasks")
@click.argument("job_id")
@click.option(
    "--tenant", required=True, help="The tenant whose job it is: job ids are unique per tenant."
)
@click.option("--failed", is_flag=True, help="Only tasks that have not succeeded.")
@click.option("--after", default=-1, help="Only tasks with a larger number: the next page.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with values and outputs.")
@one_sentence
def list_tasks(
    job_id: str, *, tenant: str, failed: bool, after: int, limit: int, as_json: bool
) -> None:
    """List the tasks of an array, as its newest attempt that has ended left them."""
    from aiida.manage import get_manager

    from aiida_byoc.cli.tasks import tasks_page

    with node_tables() as connection:
        row = connection.execute(
            "SELECT process_pk FROM byoc.job WHERE tenant_id = %s AND job_id = %s AND state IS NOT NULL",
            (tenant, job_id),
        ).fetchone()
    if row is None:
        raise ProblemError("not-found")
    get_manager().get_profile_storage()
    rows = tasks_page(row[0], only_failed=failed, after=after, most=limit) if row[0] else None
    if rows is None:
        raise click.ClickException("no attempt of this job has left a table of tasks")
    show(rows, _TASK_COLUMNS, as_json=as_json)
    if not as_json and len(rows) == limit:
        click.echo(f"more: --after {rows[-1]['number']}")
