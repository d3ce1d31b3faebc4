"""`verdi data byoc doctor`: what is wrong with the node, which jobs are stuck, why, and what helps; changes nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from aiida_byoc.cli.common import node_settings, one_sentence, profile_storage, show, silent

__all__ = ["doctor"]

_COLUMNS = ["tenant_id", "job_id", "state", "age", "cause", "command"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def doctor(as_json: bool) -> None:
    """Examine the node and every job that is older than expected in its state; exit status 1 if one needs attention."""
    import json
    from dataclasses import asdict

    from aiida.manage import get_manager

    from aiida_byoc.cli.findings import finding
    from aiida_byoc.cli.job_facts import Situation
    from aiida_byoc.cli.overdue import overdue
    from aiida_byoc.cli.parts import ask, has_agent, parts, versions
    from aiida_byoc.commands.housekeeping import Limits, Repair
    from aiida_byoc.commands.policy import Policy, PolicyError
    from aiida_byoc.commands.quotas import Quotas

    settings = node_settings()
    broker = get_manager().get_profile().process_control_backend or "none"
    try:
        policy = Policy.load(settings.policy_file)
        limits, quotas, repair = policy.limits, policy.quotas, policy.repair
    except PolicyError:  # told as the policy's
        limits, quotas, repair = Limits(), Quotas(), Repair()
    with contextlib.ExitStack() as stack:
        connection, away = _connected(stack)
        told = {name: ask(part) for name, part in parts(connection, settings, broker).items()}
        told["database"] = away or told["database"]
        found = [finding(name, wrong) for name, wrong in told.items() if wrong]
        stuck: list[dict[str, Any]] | None = None
        if connection is not None and not told["tables"]:
            situation = Situation(
                limits=limits,
                quotas=quotas,
                max_plays=repair.max_plays,
                has_agent=has_agent(connection),
                has_tasks=broker == "byoc.postgres",
                trouble=told["relay"],
            )
            stuck = [asdict(each) for each in overdue(connection, situation)]
    if as_json:
        report = {
            "versions": versions(),
            "broker": broker,
            "parts": dict.fromkeys(told) | {each.part: str(each) for each in found},
            "findings": [asdict(each) for each in found],
            "jobs": stuck,
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for name in told:
            click.echo(f"{name:<11} {next((each for each in found if each.part == name), 'ok')}")
        click.echo()
        if stuck:
            show(stuck, _COLUMNS, as_json=False)
        else:
            click.echo("no job needs attention" if stuck == [] else "jobs cannot be examined")
    if stuck or found:
        raise SystemExit(1)


def _connected(stack: contextlib.ExitStack) -> tuple[Any, str | None]:
    """A connection to the profile's database, or `None` and why there is none."""
    import psycopg

    from aiida_byoc.database.connection import connect

    _, storage_config = profile_storage()
    try:
        return stack.enter_context(connect(storage_config, application="verdi")), None
    except psycopg.OperationalError as error:
        return None, silent(error)
