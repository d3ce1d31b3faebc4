"""The tasks of a profile, in Postgres: sent once, owned by one living worker, gone when its process has ended."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from aiida_byoc import crashpoints
from aiida_byoc.brokers import worker

__all__ = ["claim", "fence_the_dead", "is_waiting", "release", "renew", "send", "settle", "tasks"]

_SEND = """
INSERT INTO byoc.task (process_pk, body) VALUES (%s, %s) ON CONFLICT (process_pk) DO NOTHING
"""

_CLAIM = """
UPDATE byoc.task SET owner = %s, attempts = attempts + 1 WHERE task_id IN (
    SELECT task_id FROM byoc.task WHERE owner IS NULL AND not_before <= now()
    ORDER BY not_before, task_id LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING process_pk, body
"""

_ENDED = """
DELETE FROM byoc.task WHERE process_pk = %s AND NOT EXISTS (
    SELECT FROM db_dbnode WHERE id = process_pk
    AND coalesce(attributes ->> 'process_state', '') NOT IN ('finished', 'excepted', 'killed')
)
"""
"""A task is done when its process has ended, whatever the worker says of it."""

_GIVE_BACK = """
UPDATE byoc.task SET owner = NULL,
    not_before = now() + least(300, 5 * 2 ^ least(attempts - 1, 10)) * interval '1 second'
WHERE process_pk = %s AND owner = %s
"""

_EXPIRED = """
UPDATE byoc.worker SET fenced_at = now() WHERE worker_id IN (
    SELECT worker_id FROM byoc.worker
    WHERE worker_id <> %s AND (lease_until < clock_timestamp() OR worker_id = ANY(%s::uuid[]))
    FOR UPDATE SKIP LOCKED
) RETURNING worker_id
"""

_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()
"""

_SESSIONS_END_SECONDS = 10.0


def send(connection: psycopg.Connection, process_pk: int, body: dict[str, Any]) -> None:
    """Ask for a process to be continued; nothing happens if that is asked for already."""
    connection.execute(_SEND, (process_pk, Jsonb(body)))


def is_waiting(connection: psycopg.Connection, process_pk: str) -> bool:
    """Whether a process waits for a worker: nobody could answer for it."""
    if not process_pk.isdigit():
        return False
    row = connection.execute(
        "SELECT owner IS NULL FROM byoc.task WHERE process_pk = %s", (int(process_pk),)
    ).fetchone()
    return row is not None and bool(row[0])


def tasks(connection: psycopg.Connection) -> list[tuple[int, dict[str, Any]]]:
    """Process and body of every task there is, whoever owns it."""
    return connection.execute("SELECT process_pk, body FROM byoc.task ORDER BY task_id").fetchall()


def claim(connection: psycopg.Connection, most: int) -> list[tuple[int, dict[str, Any]]]:
    """Become the owner of up to so many due tasks; return process and body of each."""
    if most <= 0:
        return []
    claimed = connection.execute(_CLAIM, (worker.me(), most)).fetchall()
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


def release(connection: psycopg.Connection, owner: uuid.UUID) -> int:
    """Make all tasks of a worker that works no longer due for others; return how many there were."""
    with connection.transaction():
        released = connection.execute(
            "UPDATE byoc.task SET owner = NULL, not_before = now() WHERE owner = %s", (owner,)
        ).rowcount
        connection.execute("DELETE FROM byoc.worker WHERE worker_id = %s", (owner,))
    return released


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


def fence_the_dead(connection: psycopg.Connection) -> list[uuid.UUID]:
    """Take over from workers that may work no longer; return those whose tasks are due for others now.

    One whose lease has run out may still be alive, and is fenced first: its sessions are ended, and are gone before
    anybody gets its tasks. For a process of this machine that is no more, nobody need wait until its lease runs out.
    """
    dead = list(_dead_here(connection))
    fenced = [row[0] for row in connection.execute(_EXPIRED, (worker.me(), dead)).fetchall()]
    released = []
    for worker_id in fenced:
        deadline = time.monotonic() + _SESSIONS_END_SECONDS
        name = worker.application_name(worker_id)
        while _count(connection.execute(_END_SESSIONS, (name,))) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not _count(connection.execute(_END_SESSIONS, (name,))):
            release(connection, worker_id)
            released.append(worker_id)
    return released


def _dead_here(connection: psycopg.Connection) -> Iterable[uuid.UUID]:
    rows = connection.execute(
        "SELECT worker_id, pid, pid_started FROM byoc.worker WHERE host = %s AND boot_id = %s",
        (socket.gethostname(), worker.boot_id()),
    ).fetchall()
    for worker_id, pid, started in rows:
        if worker.started(pid) != started:
            yield worker_id


def _count(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    return int(row[0]) if row else 0
