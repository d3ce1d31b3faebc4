"""A database that may lose what it has committed is named by the doctor, by each setting that lets it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pgtest.pgtest import PGTest
from psycopg import sql

from aiida_byoc.cli.parts import ask, parts
from aiida_byoc.node import NodeSettings
from tests.eventually import eventually

DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


@pytest.fixture
def server(postgres: PGTest, connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A connection that may change the server, which is as before afterwards."""
    yield connection
    for setting in DURABLE:
        connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(setting)))
    connection.execute("SELECT pg_reload_conf()")


def has(connection: psycopg.Connection, setting: str, value: str) -> bool:
    return connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() == (value,)


@pytest.mark.parametrize("careless", DURABLE)
def test_each_setting_that_makes_it_forget_is_named(
    careless: str, server: psycopg.Connection, settings: NodeSettings
) -> None:
    for setting in DURABLE:
        value = "off" if setting == careless else "on"
        server.execute(
            sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(setting), sql.Literal(value))
        )
    server.execute("SELECT pg_reload_conf()")
    eventually(lambda: has(server, careless, "off"), "the server to read its settings anew")

    told = ask(parts(server, settings, "byoc.postgres")["database"])

    # The server of these tests is told by its command line to do without `fsync`, which nothing else overrides.
    off = ", ".join(f"{name} = off" for name in DURABLE if has(server, name, "off"))
    assert f"{careless} = off" in off
    assert told == (
        f"PostgreSQL may lose what it has committed ({off}); switch that on in postgresql.conf"
    )
