"""Whether the node takes new jobs. A draining one finishes what it has accepted, and answers everything else."""

from __future__ import annotations

from datetime import datetime

import psycopg

from aiida_byoc.commands import image_use
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["draining_since", "is_draining", "refuse_since", "refuse_while_draining", "set_draining"]

_RETRY_AFTER_SECONDS = 300
"""A drain is a matter of hours; whoever asks oftener learns nothing."""


def draining_since(connection: psycopg.Connection) -> datetime | None:
    """Since when the node takes no new jobs; `None`: it takes them."""
    row = connection.execute("SELECT draining_since FROM byoc.node_state").fetchone()
    return row[0] if row else None


def is_draining(connection: psycopg.Connection) -> bool:
    """Whether the node takes no new jobs."""
    return draining_since(connection) is not None


def set_draining(connection: psycopg.Connection, draining: bool) -> bool:
    """Stop taking jobs, or take them again; return whether that is a change.

    Waits for acceptances under way: once this has returned and is committed, no further job is accepted.
    """
    with connection.transaction():
        image_use.while_nothing_is_accepted(connection)
        changed = connection.execute(
            "UPDATE byoc.node_state SET draining_since = CASE WHEN %(draining)s THEN now() END"
            " WHERE (draining_since IS NOT NULL) <> %(draining)s",
            {"draining": draining},
        )
    return changed.rowcount == 1


def refuse_since(draining: datetime | None) -> None:
    """Raise `node-draining` if the node takes no jobs since then, as the acceptance's transaction read it."""
    if draining is not None:
        raise ProblemError("node-draining", retry_after=_RETRY_AFTER_SECONDS)


def refuse_while_draining(connection: psycopg.Connection) -> None:
    """Raise `node-draining` unless the node takes jobs."""
    refuse_since(draining_since(connection))
