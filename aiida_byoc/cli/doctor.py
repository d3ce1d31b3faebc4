"""`verdi data byoc doctor`: what is wrong with the node, which jobs are stuck, why, and what helps; changes nothing."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import node_settings, node_tables, one_sentence, show

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
    except PolicyError:  # told as the profile's
        limits, quotas, repair = Limits(), Quotas(), Repair()
    with node_tables() as connection:
        found = {name: ask(part) for name, part in parts(connection, settings, broker).items()}
        situation = Situation(
            limits=limits,
            quotas=quotas,
            max_plays=repair.max_plays,
            has_agent=has_agent(connection),
            has_tasks=broker == "byoc.postgres",
            trouble=found["relay"],
        )
        stuck = [asdict(finding) for finding in overdue(connection, situation)]
    if as_json:
        report = {"versions": versions(), "broker": broker, "parts": found, "jobs": stuck}
        click.echo(json.dumps(report, indent=2))
    else:
        for name, wrong in found.items():
            click.echo(f"{name:<10} {wrong or 'ok'}")
        click.echo()
        if stuck:
            show(stuck, _COLUMNS, as_json=False)
        else:
            click.echo("no job needs attention")
    if stuck or any(found.values()):
        raise SystemExit(1)
