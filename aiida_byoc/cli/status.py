"""`verdi data byoc status`: the node at a glance; exit status 1 when something needs attention."""

from __future__ import annotations

from collections.abc import Callable

import click

from aiida_byoc.cli.common import node_settings, one_sentence, profile_storage

__all__ = ["status"]

_AGENT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'byoc-agent' AND datname = current_database()"
_STATES = "SELECT state::text, count(*) FROM byoc.job WHERE state IS NOT NULL GROUP BY state ORDER BY state"
_RELAY = "SELECT problem || ' since ' || since::timestamptz(0) || ': ' || message FROM byoc.relay_trouble"


@click.command()
@one_sentence
def status() -> None:
    """Show whether agent, daemon, Slurm and adapter are there, and what the ledger and the outbox hold."""
    from aiida.engine.daemon.client import get_daemon_client

    from aiida_byoc.agent.heartbeat import Pulse
    from aiida_byoc.agent.link import AdapterUnavailable
    from aiida_byoc.cli import checks, surroundings
    from aiida_byoc.cli.profile import check as check_profile
    from aiida_byoc.commands.draining import draining_since
    from aiida_byoc.commands.policy import Policy, PolicyError
    from aiida_byoc.commands.signatures import KeysError
    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import check
    from aiida_byoc.events import witness
    from aiida_byoc.node import SettingsError

    profile, storage_config = profile_storage()
    settings = node_settings()
    with connect(storage_config, application="verdi") as connection:
        check(connection)
        agents = connection.execute(_AGENT).fetchone()
        states = connection.execute(_STATES).fetchall()
        trouble = connection.execute(_RELAY).fetchone()
        blindness = witness.check(connection)
        draining = draining_since(connection)
        beat = Pulse(settings).heartbeat(connection)
    findings = {
        "agent": None if agents and agents[0] else "not running; start `verdi data byoc agent run`",
        "daemon": None
        if get_daemon_client(profile).is_daemon_running
        else "not running; start `verdi daemon start`",
        "relay": trouble[0] if trouble else None,
        "witness": blindness,
    }
    probes: dict[str, Callable[[], None]] = {
        "profile": lambda: check_profile(Policy.load(settings.policy_file).limits),
        "slurm": checks.slurm,
        "adapter": lambda: checks.adapter(settings),
        "identity": lambda: surroundings.identity(settings),
    }
    for name, probe in probes.items():
        try:
            probe()
            findings[name] = None
        except (AdapterUnavailable, KeysError, PolicyError, SettingsError) as error:
            findings[name] = str(error)
    click.echo(f"node      {settings.node_id} (profile {profile})")
    for name, finding in findings.items():
        click.echo(f"{name:<9} {finding or 'ok'}")
    if draining:
        click.echo(f"draining  since {draining:%Y-%m-%d %H:%M:%S %Z}; takes no new jobs")
    click.echo("jobs      " + (", ".join(f"{count} {state}" for state, count in states) or "none"))
    repairs = ", ".join(f"{count} {kind}" for kind, count in (beat.repairs or {}).items())
    click.echo(f"repairs   {repairs or 'none'}")
    click.echo(
        f"outbox    {beat.events_undelivered} undelivered, oldest {beat.oldest_undelivered_seconds} s"
    )
    if any(findings.values()):
        raise SystemExit(1)
