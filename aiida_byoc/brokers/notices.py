"""Notifications as messages: JSON in NOTIFY, or in a row of `byoc.message` when it is too long for one.

They are hints and conversations, never the only record of anything; so they do not wait for the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import psycopg

__all__ = [
    "LISTEN",
    "Session",
    "innermost",
    "is_open",
    "read",
    "recipient",
    "subscribe",
    "sweep",
    "write",
]

LISTEN = "LISTEN byoc_broker"
_MOST_BYTES = 7900
"""PostgreSQL takes less than 8000 bytes in its default configuration (NOTIFY, Notes)."""

_NOTIFY = """
SELECT set_config('synchronous_commit', 'off', true), pg_notify('byoc_broker', %s)
"""

_NOTIFY_LONG = """
WITH kept AS (INSERT INTO byoc.message (body) VALUES (%s::jsonb) RETURNING message_id)
SELECT set_config('synchronous_commit', 'off', true),
       pg_notify('byoc_broker', json_build_object('message', message_id)::text) FROM kept
"""

_SWEEP = """
WITH old AS (DELETE FROM byoc.message WHERE sent_at < now() - interval '10 minutes')
DELETE FROM byoc.recipient WHERE NOT EXISTS (
    SELECT FROM pg_stat_activity WHERE pid = backend_pid AND pg_stat_activity.backend_start = recipient.backend_start)
"""

_RECIPIENT = """
SELECT backend_pid, backend_start FROM byoc.recipient JOIN pg_stat_activity USING (backend_start)
WHERE identifier = %s AND pid = backend_pid LIMIT 1
"""

_SUBSCRIBE = """
INSERT INTO byoc.recipient SELECT %s, pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
ON CONFLICT (identifier, backend_pid) DO UPDATE SET backend_start = excluded.backend_start
"""

_UNSUBSCRIBE = "DELETE FROM byoc.recipient WHERE identifier = %s AND backend_pid = pg_backend_pid()"


class Session(NamedTuple):
    """One session of the server, for as long as it serves; its process id alone may be given to another."""

    backend_pid: int
    backend_start: object


def write(connection: psycopg.Connection, said: Mapping[str, Any]) -> None:
    """Tell every listener."""
    text = json.dumps(said, default=str)
    connection.execute(_NOTIFY_LONG if len(text.encode()) > _MOST_BYTES else _NOTIFY, (text,))


def read(connection: psycopg.Connection, payload: str) -> dict[str, Any] | None:
    """What was said; `None` for what is no message of ours, or no longer kept."""
    try:
        said = json.loads(payload)
    except ValueError:
        return None
    if isinstance(said, dict) and "message" in said:
        row = connection.execute(
            "SELECT body FROM byoc.message WHERE message_id = %s", (said["message"],)
        ).fetchone()
        said = row[0] if row else None
    return said if isinstance(said, dict) and "kind" in said else None


def subscribe(connection: psycopg.Connection, changes: Iterable[tuple[str, bool]]) -> None:
    """From now on this session answers for these identifiers, or (`False`) no longer does."""
    with connection.transaction(), connection.pipeline():
        for identifier, answers in changes:
            connection.execute(_SUBSCRIBE if answers else _UNSUBSCRIBE, (identifier,))


def recipient(connection: psycopg.Connection, identifier: str) -> Session | None:
    """The living session that answers for an identifier, if there is one."""
    row = connection.execute(_RECIPIENT, (identifier,)).fetchone()
    return Session(*row) if row else None


def is_open(connection: psycopg.Connection, session: Session) -> bool:
    """Whether a session is still there."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s", session
    ).fetchone()
    return row is not None and row[0] > 0


def sweep(connection: psycopg.Connection) -> None:
    """Forget long messages that everybody has read, and recipients that are gone."""
    connection.execute(_SWEEP)


def innermost(value: Any) -> Future[Any]:
    """A future that ends when the last of the futures nested in `value` does, with its result."""
    outcome: Future[Any] = Future()

    def follow(current: Any) -> None:
        if not isinstance(current, Future):
            outcome.set_result(current)
            return
        current.add_done_callback(unwrap)

    def unwrap(done: Future[Any]) -> None:
        try:
            follow(done.result())
        except BaseException as error:
            outcome.set_exception(error)

    follow(value)
    return outcome
