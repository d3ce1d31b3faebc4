"""Plain connections to the profile's Postgres, for the parts of the node that hold no AiiDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

__all__ = ["KEEP_ALIVE", "connect"]

KEEP_ALIVE: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,
}
"""libpq's words for: a server that is gone without a goodbye is noticed within a minute."""

_SHORT_STATEMENTS = "-c jit=off"
"""The statistics of a queue are always stale: an estimate that is far off must not have a statement compiled, which
takes longer than to run it."""


def connect(storage_config: Mapping[str, Any], *, application: str) -> psycopg.Connection:
    """Open an autocommit connection by a profile's storage configuration (`core.psql_dos` or `byoc.psql_dos`).

    Transactions are explicit (`connection.transaction()`); `application` shows in `pg_stat_activity`.
    """
    return psycopg.connect(
        host=storage_config["database_hostname"],
        port=storage_config["database_port"],
        user=storage_config["database_username"],
        password=storage_config["database_password"],
        dbname=storage_config["database_name"],
        application_name=f"byoc-{application}",
        autocommit=True,
        options=_SHORT_STATEMENTS,
        **KEEP_ALIVE,
    )
