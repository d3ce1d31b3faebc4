"""What statements cost, in pages: the same on every machine, as time is not."""

from __future__ import annotations

import psycopg

__all__ = ["touched"]


def touched(connection: psycopg.Connection) -> int:
    """Pages of our tables and their indexes that were looked at so far."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint"
        " FROM pg_statio_user_tables WHERE schemaname = 'byoc'"
    ).fetchone()
    assert row is not None
    return int(row[0])
