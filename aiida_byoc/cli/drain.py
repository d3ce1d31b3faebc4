"""`verdi data byoc node drain|resume`: whether the node takes new jobs."""

from __future__ import annotations

import click

from aiida_byoc.cli.common import node_tables, one_sentence

__all__ = ["drain", "resume"]

_ACTIVE = "SELECT count(*) FROM byoc.job WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held')"


@click.command()
@one_sentence
def drain() -> None:
    """Take no new jobs; those that were accepted run to their end. Cancels and questions are answered as ever."""
    _turn(draining=True)


@click.command()
@one_sentence
def resume() -> None:
    """Take new jobs again."""
    _turn(draining=False)


def _turn(*, draining: bool) -> None:
    from aiida_byoc.commands.draining import set_draining

    with node_tables() as connection:
        changed = set_draining(connection, draining)
        row = connection.execute(_ACTIVE).fetchone()
    state = "takes no new jobs" if draining else "takes new jobs"
    click.echo(
        f"The node {state}{'' if changed else ', as before'}; {row[0] if row else 0} of its jobs have not ended."
    )
