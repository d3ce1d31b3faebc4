"""Plain connections to the profile's Postgres, for the parts of the node that hold no AiiDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

__all__ = ["connect"]


def connect(storage_config: Mapping[str, Any], *, application: str) -> psycopg.Connection:
    """Open an autocommit connection by a profile's storage configuration (`core.psql_dos`).

    Transactions are explicit (`connection.transaction()`); `application` shows in `pg_stat_activity`.
    """
    return psycopg.connect(
        host=storage_config["database_hostname"],
        port=storage_config["database_port"],
        user=storage_config["database_username"],
        password=storage_config["database_password"],
        dbname=storage_config["database_name"],
        application_name=f"byoc-{application}",
        connect_timeout=10,
        autocommit=True,
    )
