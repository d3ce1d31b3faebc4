"""`verdi data byoc jobs receipt|verify-receipt|export-crate`: what outsiders get of a job, and how they check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_byoc.cli.common import node_settings, node_tables, one_sentence

__all__ = ["export_crate", "receipt", "verify_receipt"]

_tenant = click.option(
    "--tenant", required=True, help="The tenant whose job it is: job ids are unique per tenant."
)


@click.command("receipt")
@click.argument("job_id")
@_tenant
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file."
)
@one_sentence
def receipt(job_id: str, tenant: str, output: Path | None) -> None:
    """Write the receipt of an ended job, signed with the node's key."""
    from aiida_byoc.contracts.receipt.verification import envelope_text

    text = envelope_text(_issued(job_id, tenant))
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


@click.command("verify-receipt")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Public key, a JWK.")
@click.option(
    "--keys", help="Public keys, a JWK Set: a file, or the adapter's URL (token in BYOC_TOKEN)."
)
@click.option(
    "--outputs", type=click.Path(path_type=Path, file_okay=False), help="Compare these files too."
)
@click.option("--job", help="The job that the receipt has to be of.")
@one_sentence
def verify_receipt(
    file: Path, key: Path | None, keys: str | None, outputs: Path | None, job: str | None
) -> None:
    """Check a receipt with the node's public key; needs neither node nor profile."""
    from aiida_byoc.contracts.receipt.keys import keys_from
    from aiida_byoc.contracts.receipt.report import check, told

    if (key is None) == (keys is None):
        raise click.UsageError("give either --key or --keys")
    known = keys_from(str(key or keys))
    for line in told(check(file, known, outputs=outputs, job_id=job), outputs=outputs):
        click.echo(line)


@click.command("export-crate")
@click.argument("job_id")
@click.argument("target", type=click.Path(path_type=Path))
@_tenant
@one_sentence
def export_crate(job_id: str, target: Path, tenant: str) -> None:
    """Pack an ended job as an RO-Crate: a directory, or a file whose name ends with .zip."""
    from aiida_byoc.receipts.export import export

    export(_issued(job_id, tenant), target)
    click.echo(f"The job is in {target}.")


def _issued(job_id: str, tenant: str) -> Any:
    from aiida_byoc.agent.keys import private_key
    from aiida_byoc.receipts.issue import issue

    key = private_key(node_settings().key_file)
    with node_tables() as connection:
        return issue(connection, key, tenant, job_id)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
