"""Work that waits in the database is heard of from the commit that makes it (PostgreSQL's LISTEN and NOTIFY).

Triggers notify (migration 0013), so it does not matter who writes. A notification says only "look": one that is lost,
with the connection, costs the time until the next look.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

__all__ = ["LAUNCHER", "RELAY", "wait"]

RELAY = "byoc_relay"
"""There may be events to deliver."""
LAUNCHER = "byoc_launcher"
"""There may be jobs to launch."""


def wait(connection: psycopg.Connection, channel: str, seconds: float) -> bool:
    """Wait until something is committed that notifies the channel, at most so long; return whether it was.

    What was committed since the wait before counts too. The first one of a connection hears of nothing earlier.

    Raises:
        psycopg.OperationalError: the connection is lost.
    """
    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    # It takes all that have gathered, which say the same.
    return bool(list(connection.notifies(timeout=seconds, stop_after=1)))
