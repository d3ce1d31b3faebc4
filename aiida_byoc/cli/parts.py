"""The parts of a management node, asked one by one; each answer is `None`, or one sentence with what helps."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from aiida_byoc.agent.link import AdapterUnavailable, reach
from aiida_byoc.asking import slurm_configuration
from aiida_byoc.cli import checks, policy_machine, profile, surroundings
from aiida_byoc.cli.advisories import advisories
from aiida_byoc.cli.part import Database, Part, ask
from aiida_byoc.cli.trial import trial
from aiida_byoc.commands.policy import Policy
from aiida_byoc.events import witness
from aiida_byoc.node import NodeSettings, SettingsError

__all__ = ["ask", "has_agent", "parts", "versions", "work_chains"]

_SESSION = (
    "SELECT true FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
)
_DURABLE = """
SELECT name || ' = ' || setting FROM pg_settings
WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes') AND setting = 'off' ORDER BY name
"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float"
_WORKERS = "SELECT count(*) FROM byoc.worker WHERE lease_until > now() AND fenced_at IS NULL"
_TROUBLE = "SELECT problem || ' since ' || since::timestamptz(0) || ': ' || message FROM byoc.relay_trouble"

_SKEW_SECONDS = 30.0
"""Half of what the adapter forgives a token."""
_MIN_JOB_AGE_SECONDS = 60
"""So long Slurm must remember an ended job: looks at it are up to this far apart while there are doubts."""


def has_agent(connection: psycopg.Connection) -> bool:
    """Whether an agent is connected to the database."""
    return _has_session(connection, "byoc-agent")


def parts(
    connection: psycopg.Connection | None, settings: NodeSettings, broker: str
) -> dict[str, Part]:
    """What to ask, by its name, in the order of DESIGN's boxes.

    Args:
        connection: to the profile's database; `None` where that does not answer, which whoever asked tells.
    """
    database = Database(connection)

    def loaded() -> Policy:
        return Policy.load(settings.policy_file)

    return {
        "database": database.asked(_database),
        "tables": database.asked(lambda _: database.tables),
        "exposure": database.asked(surroundings.exposure),
        "disk": lambda: surroundings.disk(_places(settings)),
        "clock": lambda: _clock(connection, settings),
        "versions": lambda: _versions(connection),
        "witness": database.with_tables(_witness),
        "profile": lambda: profile.check(loaded().limits),
        "policy": lambda: _policy(loaded(), settings),
        "broker": lambda: _broker(broker),
        "agent": database.asked(_agent),
        "launcher": database.asked(functools.partial(_process_of_agent, name="launcher")),
        "reader": database.asked(functools.partial(_process_of_agent, name="reader")),
        "workers": database.with_tables(functools.partial(_workers, broker=broker)),
        "adapter": lambda: checks.adapter(settings),
        "identity": lambda: _identity(settings),
        "relay": database.with_tables(_relay),
        "slurm": _slurm,
        "accounting": surroundings.accounting,
        "transport": database.asked(lambda _: _transport(settings.code)),
        "runtime": lambda: _runtime(loaded(), settings),
        "epilog": lambda: _epilog(loaded()),
        "work chains": database.asked(lambda _: work_chains(loaded())),
    }


def versions() -> dict[str, str]:
    """Of what is installed here."""
    return {name: version(name) for name in ("aiida-byoc", "aiida-core", "psycopg")}


def _has_session(connection: psycopg.Connection, application: str) -> bool:
    return connection.execute(_SESSION, (application,)).fetchone() is not None


def _process_of_agent(connection: psycopg.Connection, name: str) -> str | None:
    if _has_session(connection, f"byoc-{name}"):
        return None
    return "not running; the agent starts it anew, and its log says why it ended"


def _agent(connection: psycopg.Connection) -> str | None:
    return None if has_agent(connection) else "not running; start `verdi data byoc agent run`"


def _identity(settings: NodeSettings) -> str | None:
    surroundings.identity(settings)
    return surroundings.private(settings.registry_auth_file, "the registries' credentials")


def _runtime(policy: Policy, settings: NodeSettings) -> str | None:
    for name in policy.runtimes:
        if wrong := trial(name, settings.image_store):
            return f"{name} does not work on this machine: {wrong}"
    return None


def _epilog(policy: Policy) -> None:
    if "podman" in policy.runtimes:
        checks.epilog()


def _versions(connection: psycopg.Connection | None) -> str | None:
    """What is open here, and in the server of the profile's database."""
    server = connection.info.server_version if connection else None
    # A whole number: the release, and four digits for its minor one.
    also = {"postgresql": f"{server // 10_000}.{server % 10_000}"} if server else {}
    found = advisories(also)
    if not found:
        return None
    return f"{', '.join(each.wrong for each in found)}; {', '.join(each.remedy for each in found)}"


def _policy(policy: Policy, settings: NodeSettings) -> str | None:
    """What the policy names and the site has not; what else there is of it has a part of its own."""
    lacking, _ = policy_machine.findings(policy, settings, policy_machine.OF_THE_SITE)
    if not lacking:
        return None
    first, *others = lacking
    more = f"; and {len(others)} more, which `verdi data byoc policy check` names" if others else ""
    return f"{first.field} {first.message}; {first.remedy or 'correct it'}{more}"


def _database(connection: psycopg.Connection) -> str | None:
    careless = [row[0] for row in connection.execute(_DURABLE)]
    if not careless:
        return None
    return f"PostgreSQL may lose what it has committed ({', '.join(careless)}); switch that on in postgresql.conf"


def _places(settings: NodeSettings) -> list[Path]:
    from aiida.manage import get_config
    from aiida.manage.configuration import get_profile

    repository = urlsplit(get_profile().storage_config.get("repository_uri", "")).path
    return [
        settings.image_store,
        Path(get_config().dirpath),
        *([Path(repository)] if repository else []),
    ]


def _broker_settings() -> Mapping[str, Any]:
    from aiida.manage.configuration import get_profile

    return get_profile().process_control_config or {}


def _clock(connection: psycopg.Connection | None, settings: NodeSettings) -> str | None:
    before = time.time()
    row = connection.execute(_CLOCK).fetchone() if connection else None
    skew = abs((row[0] if row else before) - before)
    if skew > _SKEW_SECONDS:
        return f"this machine and the database disagree by {skew:.0f} s; synchronise their clocks (NTP)"
    try:
        ahead = reach(settings)
    except AdapterUnavailable:  # told as the adapter's
        return None
    if ahead is None or abs(ahead) <= _SKEW_SECONDS:
        return None
    return f"this machine and the adapter disagree by {abs(ahead):.0f} s; synchronise this machine's clock (NTP)"


def _witness(connection: psycopg.Connection) -> str | None:
    wrong = witness.check(connection)
    return f"{wrong}; `verdi data byoc init` installs it" if wrong else None


def _broker(broker: str) -> str | None:
    if broker == "core.zeromq":
        return (
            "core.zeromq forgets tasks when it dies; `verdi daemon stop`, then `verdi data byoc init` with"
            " --broker byoc.postgres"
        )
    return surroundings.rabbitmq(_broker_settings()) if broker == "core.rabbitmq" else None


def _workers(connection: psycopg.Connection, broker: str) -> str | None:
    from aiida.engine.daemon.client import get_daemon_client

    if broker == "byoc.postgres":
        row = connection.execute(_WORKERS).fetchone()
        alive = bool(row and row[0])
    else:
        alive = get_daemon_client().is_daemon_running
    return None if alive else "none is alive; start `verdi daemon start`"


def _relay(connection: psycopg.Connection) -> str | None:
    row = connection.execute(_TROUBLE).fetchone()
    if row is None:
        return None
    helps = "; docs/restore.md says what to do" if row[0].startswith("epoch-mismatch") else ""
    return f"nothing is delivered, {row[0]}{helps}"


def _slurm() -> str | None:
    checks.slurm()
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", slurm_configuration(), re.MULTILINE)
    if age and int(age[1]) < _MIN_JOB_AGE_SECONDS:
        return (
            f"Slurm forgets ended jobs after {age[1]} s; set MinJobAge in slurm.conf to"
            f" {_MIN_JOB_AGE_SECONDS} or more"
        )
    return None


def _transport(code: str) -> str | None:
    from aiida.orm import load_code

    from aiida_byoc.commands.repair import answers

    computer: Any = load_code(code).computer
    if computer is None or not computer.is_configured:
        raise SettingsError(
            f"the computer of {code} is not configured; run `verdi computer configure`"
        )
    if answers(computer.get_authinfo(computer.backend.default_user)):
        return None
    return (
        f"the cluster does not answer AiiDA's transport; run `verdi computer test {computer.label}`"
    )


def work_chains(policy: Policy) -> str | None:
    """What the owner approved can be loaded, with the codes that it may use."""
    from aiida.common import EntryPointError, NotExistent
    from aiida.orm import load_code
    from aiida.plugins import WorkflowFactory

    for name, approved in policy.workchains.items():
        try:
            WorkflowFactory(name)
            for label in approved.codes:
                load_code(label)
        except (EntryPointError, NotExistent) as error:
            return f"the approved work chain {name} cannot run: {error}; install its plugin, or make the code"
    return None
