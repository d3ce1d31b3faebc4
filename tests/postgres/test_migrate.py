"""The schema's versions: once, in order, whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from aiida_byoc.database import migrate as module
from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import SchemaError, check, migrate

NAMES = [name for _, name, _ in module._migrations()]


@pytest.fixture
def bare(bare_storage: dict[str, Any]) -> psycopg.Connection:
    with connect(bare_storage, application="init") as connection:
        yield connection


def tables(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'byoc'")
    return {row[0] for row in rows}


def test_a_fresh_database_gets_every_table(bare: psycopg.Connection) -> None:
    assert migrate(bare) == NAMES
    assert {"migration", "node", "job", "event", "stream", "dropped"} <= tables(bare)
    check(bare)


def test_a_second_run_changes_nothing(bare: psycopg.Connection) -> None:
    migrate(bare)
    bare.execute("INSERT INTO byoc.node (node_id) VALUES ('n1')")

    assert migrate(bare) == []
    assert bare.execute("SELECT node_id FROM byoc.node").fetchall() == [("n1",)]


def test_operators_who_run_it_at_once_do_not_interleave(bare_storage: dict[str, Any]) -> None:
    def run(_: int) -> list[str]:
        with connect(bare_storage, application="init") as connection:
            return migrate(connection)

    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(run, range(6)))

    assert sorted(applied) == [[]] * 5 + [NAMES]


def test_a_migration_that_fails_leaves_nothing(
    bare: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = [*module._migrations(), (9999, "9999_wrong", "CREATE TABLE byoc.half (); SELEC 1")]
    monkeypatch.setattr(module, "_migrations", lambda: migrations)

    with pytest.raises(psycopg.errors.SyntaxError):
        migrate(bare)
    assert tables(bare) == set()


def test_a_database_without_our_tables_names_the_command_that_helps(
    bare: psycopg.Connection,
) -> None:
    with pytest.raises(SchemaError, match=r"no byoc tables; run `verdi data byoc init`"):
        check(bare)


def test_a_newer_schema_is_refused_and_left_alone(bare: psycopg.Connection) -> None:
    migrate(bare)
    bare.execute("INSERT INTO byoc.migration (version, name) VALUES (9999, '9999_of_the_future')")

    assert migrate(bare) == []
    with pytest.raises(
        SchemaError, match=r"versions \[1, .*9999\], this package needs \[1, .*\]; run"
    ):
        check(bare)


def test_a_node_has_one_identity(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO byoc.node (node_id) VALUES ('n2')")
