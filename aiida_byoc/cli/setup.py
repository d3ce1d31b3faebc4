"""What `init` and `node enroll` have in common: the options, the checks that change nothing, and what is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_byoc.cli.profile import BROKERS, adapt, check_slots

if TYPE_CHECKING:
    import psycopg
    from aiida.orm import Computer

    from aiida_byoc.commands.policy import Policy
    from aiida_byoc.node import NodeSettings

__all__ = ["check_ledger", "examine", "make", "settings_of", "setup_options"]

_FILE = click.Path(path_type=Path)


def setup_options(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that say how this machine is a node.

    Args:
        required: whether policy and image store must be named; otherwise those of the node's settings count.
    """
    kept = "" if required else "  [default: as the node's settings say, if there are any]"
    options = [
        click.option(
            "--policy",
            "policy_file",
            required=required,
            type=_FILE,
            help=f"The owner's policy.toml.{kept}",
        ),
        click.option(
            "--image-store",
            required=required,
            type=_FILE,
            help=f"Directory shared with the compute nodes.{kept}",
        ),
        click.option(
            "--fetched",
            type=click.Path(file_okay=False, path_type=Path),
            help="Directory for fetched inputs, shared with the compute nodes.  "
            "[default: fetched, beside the images]",
        ),
        click.option(
            "--registry-auth-file",
            type=_FILE,
            help="Credentials for registries, mode 0600.  [default: where docker, podman or skopeo keep them]",
        ),
        click.option(
            "--ca-file",
            type=_FILE,
            help="Certificates (PEM) of authorities of your own, to check the adapter's by.",
        ),
        click.option(
            "--proxy",
            help="HTTP proxy on the way to the adapter (http://…).  [default: HTTPS_PROXY and NO_PROXY]",
        ),
        click.option(
            "--computer",
            default="localhost",
            show_default=True,
            help="AiiDA computer of the cluster.",
        ),
        click.option(
            "--python",
            default="/usr/bin/python3",
            show_default=True,
            help="Python 3 on the compute nodes.",
        ),
        click.option(
            "--broker",
            type=click.Choice(BROKERS),
            default=BROKERS[0],
            show_default=True,
            help="What carries tasks to AiiDA's workers.",
        ),
        click.option(
            "--job-poll-seconds",
            type=click.FloatRange(0.1),
            help="Longest time between two looks at Slurm's queue; what jobs do themselves is seen at once.  "
            "[default: leave the computer's, 10 s in AiiDA]",
        ),
    ]

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def settings_of(
    wishes: Mapping[str, Any], *, url: tuple[str, str], **identity: Any
) -> NodeSettings:
    """The node's settings from the options; a path is taken from here, and what was left out, from the defaults.

    Args:
        wishes: the options that the commands share, by name.
        url: the option that names the adapter, and its value.
        identity: the other settings.

    Raises:
        SettingsError: an option does not fit; it is named.
    """
    from pydantic import ValidationError

    from aiida_byoc.contracts.validation import field_errors
    from aiida_byoc.node import NodeSettings, SettingsError

    files = ("policy_file", "image_store", "fetched", "registry_auth_file", "ca_file")
    given = {name: wishes[name] for name in (*files, "proxy") if wishes.get(name) is not None}
    values = {
        **identity,
        **given,
        "adapter_url": url[1],
        "code": f"byoc-in-job@{wishes['computer']}",
    }
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = value.absolute()
    try:
        return NodeSettings.model_validate(values)
    except ValidationError as error:
        first = field_errors(error)[0]
        named = {"adapter_url": url[0], "policy_file": "--policy"}
        option = named.get(first.field, f"--{first.field.replace('_', '-')}")
        raise SettingsError(f"{option}: {first.message}") from error


def examine(policy_file: Path) -> Policy:
    """Slurm answers, the policy can be used, and its runtimes are here; changes nothing.

    Raises:
        SettingsError, PolicyError: what is not so.
    """
    from aiida_byoc.cli import checks
    from aiida_byoc.commands.policy import Policy

    checks.slurm()
    policy = Policy.load(policy_file)
    for name in policy.runtimes:
        checks.runtime(name)
    return policy


def make(
    profile: str,
    storage_config: Mapping[str, Any],
    settings: NodeSettings,
    policy: Policy,
    wishes: Mapping[str, Any],
) -> list[str]:
    """Put the profile on our storage, make code, tables and directories; return what to tell of it. May be repeated.

    Raises:
        SettingsError: something does not fit this machine.
    """
    from aiida_byoc.cli import checks
    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import migrate
    from aiida_byoc.events import witness

    told = adapt(profile, wishes["broker"])
    check_slots(policy.limits, workers=1)
    cluster = checks.computer(wishes["computer"])
    if wishes["job_poll_seconds"] is not None:
        cluster.set_minimum_job_poll_interval(wishes["job_poll_seconds"])
    _make_code(cluster, settings.code, wishes["python"])
    settings.image_store.mkdir(parents=True, exist_ok=True)
    with connect(storage_config, application="init") as connection:
        applied = migrate(connection)
        witness.install(connection)
        connection.execute(
            "INSERT INTO byoc.node (node_id) VALUES (%s) ON CONFLICT DO NOTHING",
            (settings.node_id,),
        )
        check_ledger(connection, settings.node_id)
    return [*told, f"Tables: {', '.join(applied) if applied else 'up to date'}"]


def check_ledger(connection: psycopg.Connection, node_id: str) -> None:
    """Raise `SettingsError` if the profile's ledger is another node's; without tables it is nobody's."""
    from aiida_byoc.node import SettingsError

    if connection.execute("SELECT to_regclass('byoc.node')").fetchone() == (None,):
        return
    row = connection.execute("SELECT node_id FROM byoc.node").fetchone()
    if row is not None and row[0] != node_id:
        raise SettingsError(
            f"this profile's ledger belongs to the node {row[0]}; use that node's name, or another profile"
        )


def _make_code(cluster: Computer, label: str, python: str) -> None:
    from aiida.common import NotExistent
    from aiida.orm import InstalledCode, load_code

    try:
        load_code(label)
    except NotExistent:
        name = label.partition("@")[0]
        InstalledCode(label=name, computer=cluster, filepath_executable=python).store()
