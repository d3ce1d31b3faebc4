"""`verdi data byoc jobs cancel` and `jobs log`: what an operator does with one job of a tenant."""

from __future__ import annotations

import re
from typing import Any

import click

from aiida_byoc.cli.common import node_tables, one_sentence
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["cancel_job", "print_log"]

_JOB = """
SELECT workspace_id, process_pk, command, node_id FROM byoc.job, byoc.node
WHERE tenant_id = %s AND job_id = %s AND state IS NOT NULL
"""
_TENANT = click.option(
    "--tenant", required=True, help="The tenant whose job it is: job ids are unique per tenant."
)
_PART = 1 << 20


def _ranges(_: click.Context, __: click.Parameter, text: str | None) -> list[dict[str, int]] | None:
    """`0-9,42` in the words of the contract."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text):
        raise click.BadParameter("is not of the form 0-9,42")
    ends = [each.split("-") for each in text.split(",")]
    return [{"first": int(each[0]), "last": int(each[-1])} for each in ends]


@click.command("cancel")
@click.argument("job_id")
@_TENANT
@click.option("--tasks", callback=_ranges, help="Only these tasks of an array, by number: 0-9,42.")
@click.option("--reason", help="For people.")
@one_sentence
def cancel_job(
    job_id: str, *, tenant: str, tasks: list[dict[str, int]] | None, reason: str | None
) -> None:
    """Cancel a job, or tasks of an array, as its tenant may."""
    from datetime import UTC, datetime

    from aiida_byoc.commands import ledger
    from aiida_byoc.contracts.commands import CancelJobCommand
    from aiida_byoc.contracts.validation import validated

    with node_tables() as connection:
        workspace_id, _, _, node_id = _job(connection, tenant, job_id)
        body = {
            "schema_version": "1",
            "tenant_id": tenant,
            "workspace_id": workspace_id,
            "job_id": job_id,
            "management_node_id": node_id,
            "tasks": tasks,
            "reason": reason,
            "requested_by": {"user_id": "operator"},
        }
        order = {name: value for name, value in body.items() if value is not None}
        told, _ = ledger.cancel(
            connection,
            validated(CancelJobCommand, order, what="command"),
            serve=lambda _: None,
            now=datetime.now(UTC),
        )
    click.echo(told.status)


@click.command("log")
@click.argument("job_id")
@_TENANT
@click.option("--task", type=click.IntRange(0), help="Number of a task of an array.")
@click.option("--stderr", is_flag=True, help="Its stderr, not its stdout.")
@click.option("--attempt", type=click.IntRange(1), help="Default: the newest.")
@one_sentence
def print_log(
    job_id: str, *, tenant: str, task: int | None, stderr: bool, attempt: int | None
) -> None:
    """Print what a job's program, or a task's, has written so far, byte for byte."""
    from aiida.manage import get_manager
    from aiida.orm import CalcJobNode, load_node

    from aiida_byoc.arrays.cancelled import check_task
    from aiida_byoc.logs.source import Source

    with node_tables() as connection:
        _, pk, command, _ = _job(connection, tenant, job_id)
    if task is not None and command is not None:
        check_task(command, task)
    storage = get_manager().get_profile_storage()
    called = load_node(pk).called if pk is not None else []
    attempts = sorted(each.pk or 0 for each in called if isinstance(each, CalcJobNode))
    if not 1 <= (attempt or len(attempts)) <= len(attempts):
        raise click.ClickException("there is no such attempt")
    source, offset = Source(storage), 0
    while True:
        part = source.read(
            attempts[(attempt or 0) - 1],
            "stderr" if stderr else "stdout",
            offset=offset,
            limit=_PART,
            task=task,
        )
        click.get_binary_stream("stdout").write(part.content)
        offset += len(part.content)
        if not part.content or offset >= part.size:
            return


def _job(connection: Any, tenant: str, job_id: str) -> Any:
    row = connection.execute(_JOB, (tenant, job_id)).fetchone()
    if row is None:
        raise ProblemError("not-found")
    return row
