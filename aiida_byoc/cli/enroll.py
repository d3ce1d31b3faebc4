"""`verdi data byoc node enroll`: from a one-time token of the product's to a node that is ready. Safe to repeat."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_byoc.cli.common import one_sentence, profile_storage, settings_path
from aiida_byoc.cli.profile import BROKERS
from aiida_byoc.cli.setup import check_ledger, examine, make, settings_of, setup_options

if TYPE_CHECKING:
    from aiida_byoc.contracts.enrolment import EnrolmentToken

__all__ = ["enroll", "read_token"]


@click.command()
@click.option("--url", required=True, help="Where the adapter listens (https://…).")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="Where the node's new private key goes.  [default: beside the node's settings]",
)
@setup_options(required=False)
@click.pass_context
@one_sentence
def enroll(context: click.Context, /, url: str, key_file: Path | None, **wishes: Any) -> None:
    """Make this machine and profile a management node of the product that gave you a token.

    The token is asked for, or read from standard input; it is good once, for 15 minutes.
    """
    from aiida_byoc.agent.enrolment import check_url, enrol, vouched_keys
    from aiida_byoc.agent.keys import made_key
    from aiida_byoc.agent.link import link
    from aiida_byoc.cli.doctor import doctor
    from aiida_byoc.database.connection import connect
    from aiida_byoc.private_file import write_private

    profile, storage_config = profile_storage()
    path = settings_path(profile)
    kept = _complete(wishes, path)
    policy = examine(wishes["policy_file"])
    token = read_token()
    places = {
        "key_file": path.with_suffix(".pem"),
        "product_keys_file": path.with_name(f"{path.stem}.product-keys.json"),
        **kept,
        **({"key_file": key_file} if key_file else {}),
    }
    settings = settings_of(
        wishes, url=("--url", url), node_id=token.node_id, enrolled=True, **places
    )
    check_url(settings)
    with connect(storage_config, application="init") as connection:
        check_ledger(connection, settings.node_id)
    # A key for each token, kept until all is written: a lost answer is asked for again with the same.
    mark = hashlib.sha256(token.secret.encode()).hexdigest()[:16]
    pending = settings.key_file.with_name(f"{settings.key_file.name}.{mark}")
    key = made_key(pending)
    with link(settings) as http:
        enrolment = enrol(http, token, key)
    keys = vouched_keys(enrolment, token)
    settings = settings.model_copy(update={"audience": enrolment.audience})
    told = make(profile, storage_config, settings, policy, wishes)
    assert settings.product_keys_file is not None  # noqa: S101  (just named)
    write_private(settings.product_keys_file, json.dumps(keys).encode())
    write_private(settings.key_file, pending.read_bytes())
    settings.save(path)
    _tidy(settings.key_file)
    for sentence in told:
        click.echo(sentence)
    click.echo(f"Settings: {path}")
    click.echo(f"Key: {settings.key_file}, known to the product as {enrolment.key_id}")
    click.echo(f"Tenants: {', '.join(enrolment.tenants) or 'none'}")
    if strangers := sorted(set(enrolment.tenants) ^ set(policy.tenants)):
        click.echo(
            f"The product and the policy do not name the same tenants; one of them lacks: {', '.join(strangers)}"
        )
    click.echo(
        f"The profile {profile} is the management node {token.node_id}; next: verdi daemon start,"
        " verdi data byoc agent run. As the doctor sees it now:\n"
    )
    try:
        context.invoke(doctor)
    except SystemExit:  # what it found is on the screen, and the node is enrolled all the same
        return


def _tidy(key_file: Path) -> None:
    """Remove keys of tokens that came to nothing, and of rotations before the enrolment: nobody knows them any more."""
    for file in key_file.parent.glob(f"{key_file.name}.*"):
        if re.fullmatch(r"[0-9a-f]{16}|next|old", file.name.removeprefix(f"{key_file.name}.")):
            file.unlink()


def _complete(wishes: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was left out is as the node's settings say: a node that is enrolled again stays as it was set up.

    Returns:
        The settings for which there are no options.
    """
    from aiida.manage import get_manager

    from aiida_byoc.node import NodeSettings, SettingsError

    names = ("policy_file", "image_store", "fetched", "registry_auth_file", "ca_file", "proxy")
    kept: dict[str, Any] = {}
    if path.exists():
        known = NodeSettings.load(path)
        kept = {name: getattr(known, name) for name in ("poll_seconds", "heartbeat_seconds")}
        if known.enrolled:  # where a running agent looks
            kept["key_file"] = known.key_file
            if known.product_keys_file:
                kept["product_keys_file"] = known.product_keys_file
        broker = get_manager().get_profile().process_control_backend
        if _is_default("broker") and broker in BROKERS:
            wishes["broker"] = broker
        for name in names:
            if wishes[name] is None:
                wishes[name] = getattr(known, name)
        if _is_default("computer"):
            wishes["computer"] = known.code.partition("@")[2]
    for name, option in (("policy_file", "--policy"), ("image_store", "--image-store")):
        if wishes[name] is None:
            raise SettingsError(f"{option} is missing: this profile has not been a node before")
    return kept


def _is_default(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.DEFAULT


def read_token() -> EnrolmentToken:
    """The token from a terminal, which does not show it, or from standard input; never from the command line."""
    from aiida_byoc.contracts.enrolment import EnrolmentToken
    from aiida_byoc.node import SettingsError

    if sys.stdin.isatty():
        text = click.prompt("Enrolment token", hide_input=True, err=True)
    else:
        text = sys.stdin.readline(4096)
    try:
        return EnrolmentToken.parse(text)
    except ValueError as error:
        raise SettingsError(f"what was given {error}") from error
