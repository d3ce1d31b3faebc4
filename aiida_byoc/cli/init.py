"""`verdi data byoc init`: check the machine, make our tables, write the node's settings. Safe to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_byoc.cli.common import one_sentence, profile_storage, settings_path
from aiida_byoc.cli.profile import BROKERS, adapt, check_slots

if TYPE_CHECKING:
    import psycopg
    from aiida.orm import Computer

__all__ = ["init"]


@click.command()
@click.option("--node-id", required=True, help="Name by which the product knows this node.")
@click.option("--adapter-url", required=True, help="Where the adapter listens (https://…).")
@click.option(
    "--key-file",
    required=True,
    type=click.Path(path_type=Path),
    help="Ed25519 private key, PEM, mode 0600.",
)
@click.option(
    "--policy",
    "policy_file",
    required=True,
    type=click.Path(path_type=Path),
    help="The owner's policy.toml.",
)
@click.option(
    "--image-store",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory shared with the compute nodes.",
)
@click.option(
    "--fetched",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for fetched inputs, shared with the compute nodes.  [default: fetched, beside the images]",
)
@click.option(
    "--registry-auth-file",
    type=click.Path(path_type=Path),
    help="Credentials for registries, mode 0600.  [default: where docker, podman or skopeo keep them]",
)
@click.option(
    "--computer", default="localhost", show_default=True, help="AiiDA computer of the cluster."
)
@click.option(
    "--python", default="/usr/bin/python3", show_default=True, help="Python 3 on the compute nodes."
)
@click.option(
    "--broker",
    type=click.Choice(BROKERS),
    default=BROKERS[0],
    show_default=True,
    help="What carries tasks to AiiDA's workers.",
)
@click.option(
    "--job-poll-seconds",
    type=click.FloatRange(0.1),
    help="Longest time between two looks at Slurm's queue; what jobs do themselves is seen at once.  "
    "[default: leave the computer's, 10 s in AiiDA]",
)
@click.option("--offline", is_flag=True, help="Do not ask the adapter whether it is there.")
@one_sentence
def init(  # noqa: PLR0917
    node_id: str,
    adapter_url: str,
    key_file: Path,
    policy_file: Path,
    image_store: Path,
    fetched: Path | None,
    registry_auth_file: Path | None,
    computer: str,
    python: str,
    broker: str,
    job_poll_seconds: float | None,
    offline: bool,
) -> None:
    """Make this machine and profile a management node."""
    from pydantic import ValidationError

    from aiida_byoc.agent.client import private_key, public_jwk
    from aiida_byoc.cli import checks
    from aiida_byoc.commands.policy import Policy
    from aiida_byoc.contracts.validation import field_errors
    from aiida_byoc.database.connection import connect
    from aiida_byoc.database.migrate import migrate
    from aiida_byoc.events import witness
    from aiida_byoc.node import NodeSettings, SettingsError

    profile, storage_config = profile_storage()
    checks.slurm()
    policy = Policy.load(policy_file)
    for name in policy.runtimes:
        checks.runtime(name)
    key = private_key(key_file)
    try:
        settings = NodeSettings.model_validate(
            {
                "node_id": node_id,
                "adapter_url": adapter_url,
                "key_file": key_file.absolute(),
                "policy_file": policy_file.absolute(),
                "image_store": image_store.absolute(),
                "fetched": fetched and fetched.absolute(),
                "registry_auth_file": registry_auth_file and registry_auth_file.absolute(),
                "code": f"byoc-in-job@{computer}",
            }
        )
    except ValidationError as error:
        first = field_errors(error)[0]
        raise SettingsError(f"--{first.field.replace('_', '-')}: {first.message}") from error
    if not offline:
        checks.adapter(adapter_url)
    told = adapt(profile, broker)
    check_slots(policy.limits, workers=1)
    cluster = checks.computer(computer)
    if job_poll_seconds is not None:
        cluster.set_minimum_job_poll_interval(job_poll_seconds)
    _make_code(cluster, settings.code, python)
    image_store.mkdir(parents=True, exist_ok=True)
    with connect(storage_config, application="init") as connection:
        applied = migrate(connection)
        witness.install(connection)
        _name_node(connection, node_id)
    settings.save(settings_path(profile))
    for sentence in told:
        click.echo(sentence)
    click.echo(f"Tables: {', '.join(applied) if applied else 'up to date'}")
    click.echo(f"Settings: {settings_path(profile)}")
    click.echo(f"Public key, for the adapter's settings: {public_jwk(key)}")
    click.echo(
        f"The profile {profile} is the management node {node_id}; next: verdi data byoc agent run"
    )


def _make_code(cluster: Computer, label: str, python: str) -> None:
    from aiida.common import NotExistent
    from aiida.orm import InstalledCode, load_code

    try:
        load_code(label)
    except NotExistent:
        name = label.partition("@")[0]
        InstalledCode(label=name, computer=cluster, filepath_executable=python).store()


def _name_node(connection: psycopg.Connection, node_id: str) -> None:
    from aiida_byoc.node import SettingsError

    connection.execute(
        "INSERT INTO byoc.node (node_id) VALUES (%s) ON CONFLICT DO NOTHING", (node_id,)
    )
    row = connection.execute("SELECT node_id FROM byoc.node").fetchone()
    if row is None or row[0] != node_id:
        raise SettingsError(
            f"this profile's ledger belongs to the node {row[0] if row else '?'};"
            " use that --node-id, or another profile"
        )
