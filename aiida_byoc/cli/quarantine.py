"""`verdi data byoc events quarantine …`: events that the product refused."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import node_tables, one_sentence, show

__all__ = ["quarantine"]

_COLUMNS = [
    "status", "since", "tenant_id", "job_id", "seq", "waiting", "code", "message", "dropped_by", "reason",
]  # fmt: skip


@click.group()
def quarantine() -> None:
    """Events that the product refused; each stops the stream of its own job only."""


@quarantine.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def list_quarantined(as_json: bool) -> None:
    """List refused events, and those that were dropped."""
    from aiida_byoc.events.redelivery import quarantined

    with node_tables() as connection:
        rows = quarantined(connection)
    show(rows, _COLUMNS, as_json=as_json)


@quarantine.command("retry")
@click.option("--job", help="Only this job; needs --tenant.")
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option("--all", "everything", is_flag=True, help="Every quarantined job.")
@one_sentence
def retry_quarantined(job: str | None, tenant: str | None, everything: bool) -> None:
    """Send refused events once more, once the cause is removed."""
    from aiida_byoc.events.redelivery import retry

    if everything == bool(tenant or job) or (job and not tenant):
        raise click.UsageError("name --tenant, --job with --tenant, or --all")
    with node_tables() as connection:
        count = retry(connection, tenant=tenant, job=job)
    click.echo(f"{count} job(s) go on")


@quarantine.command("drop")
@click.option("--job", required=True)
@click.option("--tenant", required=True, help="Job ids are unique per tenant.")
@click.option("--reason", required=True, help="Why; kept with the event.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@one_sentence
def drop_quarantined(job: str, tenant: str, reason: str, yes: bool) -> None:
    """Give up the refused event of a job for good; what follows it is sent."""
    import getpass

    from aiida_byoc.events.redelivery import NotQuarantined, drop

    if not yes:
        click.confirm(f"The product will never get the refused event of {job}. Go on?", abort=True)
    with node_tables() as connection:
        try:
            seq = drop(connection, tenant, job, reason=reason, by=getpass.getuser())
        except NotQuarantined as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"event {seq} of {job} is dropped; the others go on")
