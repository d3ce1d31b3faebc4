"""`verdi data byoc init`: check the machine, make our tables, write the node's settings. Safe to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_byoc.cli.common import one_sentence, profile_storage, settings_path
from aiida_byoc.cli.setup import examine, make, settings_of, setup_options

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
    "--product-keys-file",
    type=click.Path(path_type=Path),
    help="Public keys that the product signs commands with (a JWK Set); without them no signed command is taken.",
)
@setup_options(required=True)
@click.option("--offline", is_flag=True, help="Do not ask the adapter whether it is there.")
@one_sentence
def init(
    node_id: str,
    adapter_url: str,
    key_file: Path,
    product_keys_file: Path | None,
    offline: bool,
    **wishes: Any,
) -> None:
    """Make this machine and profile a management node whose key the adapter's operator knows.

    `node enroll` does it with a token of the product's instead.
    """
    from aiida_byoc.agent.keys import private_key, public_key
    from aiida_byoc.cli import checks

    profile, storage_config = profile_storage()
    policy = examine(wishes["policy_file"])
    key = private_key(key_file)
    identity = {"node_id": node_id, "key_file": key_file, "product_keys_file": product_keys_file}
    settings = settings_of(wishes, url=("--adapter-url", adapter_url), **identity)
    _examine_keys(settings.product_keys_file)
    settings = _still_enrolled(settings, settings_path(profile))
    if not offline:
        checks.adapter(settings)
    told = make(profile, storage_config, settings, policy, wishes)
    settings.save(settings_path(profile))
    for sentence in told:
        click.echo(sentence)
    click.echo(f"Settings: {settings_path(profile)}")
    if not settings.enrolled:
        click.echo(f"Public key, for the adapter's settings: {public_key(key).model_dump_json()}")
    click.echo(
        f"The profile {profile} is the management node {node_id}; next: verdi data byoc agent run"
    )


def _examine_keys(file: Path | None) -> None:
    from aiida_byoc.commands.signatures import KeysError, load_product_keys
    from aiida_byoc.node import SettingsError

    try:
        if file is not None:
            load_product_keys(file)
    except KeysError as error:
        raise SettingsError(f"--product-keys-file: {error}") from error


def _still_enrolled(settings: Any, path: Path) -> Any:
    """An enrolled node stays one when it is set up again with the same name, address and key."""
    from aiida_byoc.node import NodeSettings, SettingsError

    try:
        known = NodeSettings.load(path)
    except SettingsError:
        return settings
    names = ("node_id", "adapter_url", "key_file")
    if any(getattr(known, name) != getattr(settings, name) for name in names):
        return settings
    kept = {name: getattr(known, name) for name in ("enrolled", "audience")}
    keys = settings.product_keys_file or known.product_keys_file
    return settings.model_copy(update={**kept, "product_keys_file": keys})
