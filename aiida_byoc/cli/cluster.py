"""`verdi data byoc node epilog|runtimes`: what the machines of a cluster need for the runtimes."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import node_settings, one_sentence, show

__all__ = ["epilog", "runtimes"]


@click.command()
def epilog() -> None:
    """Print the Epilog for Slurm that removes what a job's container left; podman needs it."""
    from aiida_byoc.cli.checks import EPILOG

    click.echo(EPILOG.read_text(), nl=False)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def runtimes(as_json: bool) -> None:
    """Run a trivial container in every runtime that is installed here."""
    from aiida_byoc.cli.trial import trial
    from aiida_byoc.commands.policy import Policy
    from aiida_byoc.runtimes import RUNTIMES, missing

    settings = node_settings()
    used = Policy.load(settings.policy_file).runtimes
    rows = []
    for name in RUNTIMES:
        lacking = missing(name)
        wrong = None if lacking else trial(name, settings.image_store)
        state = f"{', '.join(lacking)} missing" if lacking else wrong or "works"
        rows.append({"runtime": name, "policy": "yes" if name in used else "", "state": state})
    show(rows, ["runtime", "policy", "state"], as_json=as_json)
