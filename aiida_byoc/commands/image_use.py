"""Moments in which no job is accepted: to know for certain which images jobs need, before others are removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

__all__ = ["used_digests", "while_accepting", "while_nothing_is_accepted"]

_ACCEPTING = 0x62796F66
_USED = """
SELECT DISTINCT placement ->> 'image_digest' FROM byoc.job
WHERE state IN ('accepted', 'launched', 'queued', 'running', 'held') AND placement ? 'image_digest'
"""


def while_accepting(connection: psycopg.Connection) -> None:
    """Let nobody look until the transaction ends: what the policy says from now on holds until the job is committed."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (_ACCEPTING,))


def while_nothing_is_accepted(connection: psycopg.Connection) -> None:
    """Wait for acceptances under way, and let none begin until the transaction ends, so be quick."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ACCEPTING,))


@contextlib.contextmanager
def used_digests(connection: psycopg.Connection) -> Iterator[set[str]]:
    """The images of all jobs that have not ended; until the block ends, none is accepted, so be quick.

    Read the policy inside the block: a job that is accepted later is accepted under that one, or a younger one.
    """
    with connection.transaction():
        while_nothing_is_accepted(connection)
        yield {digest for (digest,) in connection.execute(_USED)}
