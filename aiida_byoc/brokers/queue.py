"""The tasks of a profile, in Postgres: sent once, owned by one living worker, gone when its process has ended."""

from __future__ import annotations

import logging
import socket
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from aiida_byoc import crashpoints
from aiida_byoc.brokers import worker

__all__ = ["claim", "fence_the_dead", "release", "renew", "send", "settle", "tasks"]

_LOGGER = logging.getLogger(__name__)

# The notification is a hint, heard with the commit: a worker that misses it looks within a second.
_SEND = """
WITH sent AS (
    INSERT INTO byoc.task (process_pk, body) VALUES (%s, %s) ON CONFLICT (process_pk) DO NOTHING RETURNING task_id
) SELECT pg_notify('byoc_broker', '{"kind": "task"}') FROM sent
"""

# A worker that is being fenced at this moment either claims before, and gives back with the rest, or claims nothing.
_CLAIM = """
UPDATE byoc.task SET owner = %(me)s, claimed_at = now(), attempts = attempts + 1 WHERE task_id IN (
    SELECT task_id FROM byoc.task WHERE owner IS NULL AND not_before <= now()
    ORDER BY not_before, task_id LIMIT %(most)s FOR UPDATE SKIP LOCKED
) AND EXISTS (SELECT FROM byoc.worker WHERE worker_id = %(me)s AND fenced_at IS NULL FOR SHARE)
RETURNING process_pk, body
"""

_ENDED = """
DELETE FROM byoc.task WHERE process_pk = %s AND NOT EXISTS (
    SELECT FROM db_dbnode WHERE id = process_pk
    AND coalesce(attributes ->> 'process_state', '') NOT IN ('finished', 'excepted', 'killed')
)
"""
"""A task is done when its process has ended, whatever the worker says of it."""

_GIVE_BACK = """
UPDATE byoc.task SET owner = NULL, claimed_at = NULL,
    not_before = now() + least(300, 5 * 2 ^ least(attempts - 1, 10)) * interval '1 second'
WHERE process_pk = %s AND owner = %s
"""

_HAND_ON = (
    "UPDATE byoc.task SET owner = NULL, claimed_at = NULL, not_before = now() WHERE owner = %s"
)

# One of a dead worker's tasks may be what kills workers. So from the fourth time on they wait, each for another time,
# that the others get on meanwhile. Who ran for ten minutes is not to blame.
_TAKE_OVER = """
UPDATE byoc.task SET owner = NULL, claimed_at = NULL,
    attempts = CASE WHEN claimed_at < now() - interval '10 minutes' THEN 1 ELSE attempts END,
    not_before = now() + CASE WHEN attempts <= 3 OR claimed_at < now() - interval '10 minutes' THEN interval '0'
        ELSE least(300, 5 * 2 ^ least(attempts - 4, 10)) * (0.5 + random() / 2) * interval '1 second' END
WHERE owner = %s
"""

_FENCE = """
UPDATE byoc.worker SET fenced_at = now()
WHERE worker_id <> %s AND fenced_at IS NULL AND (lease_until < clock_timestamp() OR worker_id = ANY(%s::uuid[]))
"""

_FENCED = "SELECT worker_id FROM byoc.worker WHERE fenced_at IS NOT NULL"

# Several may take over at once; one does.
_LOCK = "SELECT FROM byoc.worker WHERE worker_id = %s FOR UPDATE SKIP LOCKED"

_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid, 200)) FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()
"""

_SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()
"""


def send(connection: psycopg.Connection, process_pk: int, body: dict[str, Any]) -> None:
    """Ask for a process to be continued; nothing happens if that is asked for already."""
    connection.execute(_SEND, (process_pk, Jsonb(body)))


def tasks(connection: psycopg.Connection) -> list[tuple[int, dict[str, Any]]]:
    """Process and body of every task there is, whoever owns it."""
    return connection.execute("SELECT process_pk, body FROM byoc.task ORDER BY task_id").fetchall()


def claim(connection: psycopg.Connection, most: int) -> list[tuple[int, dict[str, Any]]]:
    """Become the owner of up to so many due tasks; return process and body of each."""
    claimed = connection.execute(_CLAIM, {"me": worker.me(), "most": most}).fetchall()
    if claimed:
        crashpoints.reached("task.claimed")
    return claimed


def settle(connection: psycopg.Connection, process_pk: int) -> bool:
    """Delete the task if its process has ended, else give it back for later; say whether it is done."""
    with connection.transaction():
        if connection.execute(_ENDED, (process_pk,)).rowcount == 1:
            return True
        connection.execute(_GIVE_BACK, (process_pk, worker.me()))
    return False


def release(connection: psycopg.Connection) -> None:
    """This worker works no longer: all its tasks are due for others."""
    with connection.transaction():
        connection.execute(_HAND_ON, (worker.me(),))
        connection.execute("DELETE FROM byoc.worker WHERE worker_id = %s", (worker.me(),))


def renew(connection: psycopg.Connection) -> float:
    """Prolong this worker's lease; return until when it may work. A fenced one ends here."""
    asked = worker.now()
    renewed = connection.execute(
        "UPDATE byoc.worker SET lease_until = clock_timestamp() + %s * interval '1 second'"
        " WHERE worker_id = %s AND fenced_at IS NULL",
        (worker.LEASE_SECONDS, worker.me()),
    )
    if renewed.rowcount == 0:
        worker.die("another worker has taken over")
    return asked + worker.LEASE_SECONDS


def fence_the_dead(connection: psycopg.Connection) -> None:
    """Take over from workers that may work no longer.

    One whose lease has run out may still be alive, and is fenced first: its sessions are ended, and are gone before
    anybody gets its tasks. One whose sessions do not end at once stays fenced for the next call. For a process of this
    machine that is no more, nobody need wait until its lease runs out.
    """
    connection.execute(_FENCE, (worker.me(), _dead_here(connection)))
    for (worker_id,) in connection.execute(_FENCED).fetchall():
        name = (worker.application_name(worker_id),)
        connection.execute(_END_SESSIONS, name)
        if _count(connection.execute(_SESSIONS, name)) == 0:
            _take_over(connection, worker_id)


def _take_over(connection: psycopg.Connection, worker_id: uuid.UUID) -> None:
    with connection.transaction():
        if connection.execute(_LOCK, (worker_id,)).rowcount == 1:
            taken = connection.execute(_TAKE_OVER, (worker_id,)).rowcount
            connection.execute("DELETE FROM byoc.worker WHERE worker_id = %s", (worker_id,))
            _LOGGER.warning(
                "Worker gone event=worker_gone worker=%s: its %d task(s) are due", worker_id, taken
            )


def _dead_here(connection: psycopg.Connection) -> list[uuid.UUID]:
    rows = connection.execute(
        "SELECT worker_id, pid, pid_started FROM byoc.worker WHERE host = %s AND boot_id = %s",
        (socket.gethostname(), worker.boot_id()),
    ).fetchall()
    return [worker_id for worker_id, pid, started in rows if worker.started(pid) != started]


def _count(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    return int(row[0]) if row else 0
