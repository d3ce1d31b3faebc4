"""The witness: a trigger on AiiDA's nodes that marks each process of ours whose state changes, whoever changes it.

No hook runs where AiiDA's launcher writes `excepted`, or an operator edits a node; the mark is in that very commit.
AiiDA owns the table, and its migrations may make it anew, so the trigger is no migration of ours: it is installed when
`byoc init` runs and at each full pass of the sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from importlib import resources

import psycopg

__all__ = ["check", "forget", "install", "marks"]

_SQL = (resources.files("aiida_byoc.events") / "witness.sql").read_text()
_VERSION = hashlib.sha256(_SQL.encode()).hexdigest()
_LOCK = 0x62796F64
_MOST_MARKS = 1000

_INSTALLED = """
SELECT tgenabled = 'O', obj_description(pg_trigger.oid, 'pg_trigger'), prosrc,
       current_setting('session_replication_role') = 'origin'
FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = to_regclass('public.db_dbnode') AND tgname = 'byoc_witness'
"""
_MARKS = """
SELECT process_pk, array_agg(mark) FROM (SELECT * FROM byoc.witness ORDER BY mark LIMIT %s) AS oldest
GROUP BY process_pk
"""


def install(connection: psycopg.Connection) -> bool:
    """See to it that the witness of this version is there and awake; return whether anything had to be done.

    Needs AiiDA's tables, waits for those who write to them, and joins an open transaction.

    Raises:
        psycopg.errors.LockNotAvailable: somebody has been writing for longer than ten seconds.
    """
    if check(connection) is None:
        return False
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("SET LOCAL lock_timeout = '10s'")
        connection.execute(_SQL.encode())  # bytes: ours, and no template
        connection.execute("ALTER TABLE public.db_dbnode ENABLE TRIGGER byoc_witness")
        connection.execute(
            f"COMMENT ON TRIGGER byoc_witness ON public.db_dbnode IS '{_VERSION}'".encode()
        )
        connection.execute("SET LOCAL lock_timeout TO DEFAULT")
    return True


def check(connection: psycopg.Connection) -> str | None:
    """Say in one sentence what is wrong with the witness; `None` when nothing is."""
    row = connection.execute(_INSTALLED).fetchone()
    if row is None:
        return "the trigger byoc_witness on AiiDA's nodes is missing"
    is_enabled, version, body, fires = row
    if not is_enabled:
        return "the trigger byoc_witness on AiiDA's nodes is disabled"
    if version != _VERSION or body not in _SQL:
        return "the trigger byoc_witness on AiiDA's nodes is of another version"
    if not fires:
        return "session_replication_role keeps this database's triggers from firing"
    return None


def marks(connection: psycopg.Connection) -> dict[int, list[int]]:
    """The oldest marks, by the pk of their process."""
    return dict(connection.execute(_MARKS, (_MOST_MARKS,)).fetchall())


def forget(connection: psycopg.Connection, seen: Collection[int]) -> None:
    """Delete marks that were seen; those made since stay."""
    connection.execute("DELETE FROM byoc.witness WHERE mark = ANY(%s)", (list(seen),))
