"""Versioned migrations of the schema `byoc`, applied in order, each in the one transaction of `migrate`."""

from __future__ import annotations

from importlib import resources

import psycopg

__all__ = ["SchemaError", "check", "migrate"]

_LOCK = 0x62796F63  # "byoc": two operators running `init` at once must not interleave


class SchemaError(Exception):
    """The schema is missing or of another version; the message names the command that helps."""


def migrate(connection: psycopg.Connection) -> list[str]:
    """Bring the schema to the newest version; return the names of the migrations applied now."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS byoc")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS byoc.migration (version integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row[0] for row in connection.execute("SELECT version FROM byoc.migration")}
        applied = []
        for version, name, sql in _migrations():
            if version in done:
                continue
            connection.execute(sql.encode())  # bytes: ours, and no template
            connection.execute(
                "INSERT INTO byoc.migration (version, name) VALUES (%s, %s)", (version, name)
            )
            applied.append(name)
    return applied


def check(connection: psycopg.Connection) -> None:
    """Raise `SchemaError` unless the schema is exactly the one this package was written for."""
    known = [version for version, _, _ in _migrations()]
    present = connection.execute("SELECT to_regclass('byoc.migration') IS NOT NULL").fetchone()
    if present is None or not present[0]:
        raise SchemaError("the profile's database has no byoc tables; run `verdi data byoc init`")
    found = [
        row[0] for row in connection.execute("SELECT version FROM byoc.migration ORDER BY version")
    ]
    if found != known:
        raise SchemaError(
            f"the byoc tables have versions {found}, this package needs {known}; run `verdi data byoc init`"
            " with the newer package"
        )


def _migrations() -> list[tuple[int, str, str]]:
    folder = resources.files("aiida_byoc.database") / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            version, _, _ = file.name.partition("_")
            found.append((int(version), file.name.removesuffix(".sql"), file.read_text()))
    return sorted(found)
