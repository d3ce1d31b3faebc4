"""`verdi data byoc node show|rotate-key`: by what the adapter knows this node."""

from __future__ import annotations

import json
from typing import Any

import click

from aiida_byoc.cli.common import node_settings, node_tables, one_sentence

__all__ = ["rotate_key", "show_node"]


@click.command("rotate-key")
@one_sentence
def rotate_key() -> None:
    """Change the node's key; the running agent goes on with the new one. Safe to repeat."""
    from aiida_byoc.agent.link import link
    from aiida_byoc.agent.rotation import rotate
    from aiida_byoc.node import SettingsError

    settings = node_settings()
    if not settings.enrolled:
        raise SettingsError(
            "this node's key stands in the adapter's settings, where its operator changes it; a node that was"
            " enrolled (`verdi data byoc node enroll`) changes its key by itself"
        )
    with link(settings) as http:
        name = rotate(http, settings)
    click.echo(f"The node's key is now {name}; the former one is known no longer.")


@click.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--public-key", is_flag=True, help="Print the public key alone (JWK): it checks receipts."
)
@one_sentence
def show_node(as_json: bool, public_key: bool) -> None:
    """Show who this node is to the product, and whether it takes jobs."""
    from aiida_byoc.commands.draining import draining_since

    settings = node_settings()
    if public_key:
        click.echo(_public_key(settings).model_dump_json())
        return
    with node_tables() as connection:
        since = draining_since(connection)
    told = {
        "node_id": settings.node_id,
        "adapter_url": str(settings.adapter_url),
        "enrolled": settings.enrolled,
        "key_id": _key_id(settings),
        "key_file": str(settings.key_file),
        "product_keys": _product_keys(settings),
        "draining_since": since.isoformat(timespec="seconds") if since else None,
    }
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name:<15} {'-' if shown in {None, ''} else shown}")


def _public_key(settings: Any) -> Any:
    from aiida_byoc.agent.keys import private_key, public_key

    return public_key(private_key(settings.key_file))


def _key_id(settings: Any) -> str | None:
    from aiida_byoc.node import SettingsError

    try:
        return str(_public_key(settings).key_id)
    except SettingsError:  # told by the doctor
        return None


def _product_keys(settings: Any) -> list[str]:
    from aiida_byoc.commands.signatures import KeysError, load_product_keys

    if settings.product_keys_file is None:
        return []
    try:
        return sorted(load_product_keys(settings.product_keys_file))
    except KeysError:  # told by the doctor
        return []
