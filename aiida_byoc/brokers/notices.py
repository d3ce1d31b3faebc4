"""Notifications as messages: JSON in NOTIFY, or in a row of `byoc.message` when it is too long for one."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

__all__ = ["LISTEN", "innermost", "read", "sweep", "write"]

LISTEN = "LISTEN byoc_broker"
_MOST_BYTES = 7900
"""PostgreSQL takes less than 8000 bytes in its default configuration (NOTIFY, Notes)."""
_SWEEP = "DELETE FROM byoc.message WHERE sent_at < now() - interval '10 minutes'"


def write(connection: psycopg.Connection, said: dict[str, Any]) -> None:
    """Tell every listener."""
    text = json.dumps(said, default=str)
    if len(text.encode()) > _MOST_BYTES:
        row = connection.execute(
            "INSERT INTO byoc.message (body) VALUES (%s) RETURNING message_id",
            (Jsonb(json.loads(text)),),
        ).fetchone()
        text = json.dumps({"message": row[0] if row else 0})
    connection.execute("SELECT pg_notify('byoc_broker', %s)", (text,))


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


def sweep(connection: psycopg.Connection) -> None:
    """Forget long messages that everybody has read."""
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
