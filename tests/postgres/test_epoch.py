"""I16: the epoch stays as long as the database remembers everything, and changes when it was set back or copied."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from pgtest.pgtest import PGTest

from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import migrate
from aiida_byoc.events import redelivery
from lab.paths import SERVICE_USER
from tests.postgres.conftest import Connect, storage_of
from tests.postgres.jobs import accept, walk
from tests.postgres.reading import events
from tests.postgres.server import server


def epoch_of(storage: dict[str, Any]) -> str:
    with connect(storage, application="test") as connection:
        return redelivery.epoch(connection)


def test_i16_every_event_carries_the_epoch_of_its_writing(connection: psycopg.Connection) -> None:
    job = accept(connection)
    first = redelivery.epoch(connection)
    second = redelivery.epoch(connection, new=True)
    walk(connection, job, "launched")

    assert first != second
    assert [each.data.epoch for each in events(connection, job)] == [first, second]
    assert redelivery.epoch(connection) == second


def test_i16_the_epoch_stays_over_sessions_and_writes(
    open_connection: Connect, storage: dict[str, Any]
) -> None:
    before = epoch_of(storage)
    connection = open_connection()
    connection.execute("SELECT pg_switch_wal()")
    connection.execute("CHECKPOINT")

    assert epoch_of(storage) == before


def test_i16_a_copied_database_has_another_epoch(
    connection: psycopg.Connection, storage: dict[str, Any]
) -> None:
    """As CREATE DATABASE makes it, or a dump that is restored in the same cluster."""
    before = redelivery.epoch(connection)
    connection.close()
    copy = f"{storage['database_name']}_copy"
    with connect({**storage, "database_name": "postgres"}, application="test") as administrator:
        administrator.execute(f"CREATE DATABASE {copy} TEMPLATE {storage['database_name']}")
        try:
            assert epoch_of({**storage, "database_name": copy}) != before
        finally:
            administrator.execute(f"DROP DATABASE {copy} WITH (FORCE)")
    assert epoch_of(storage) == before


def test_an_ordinary_role_may_ask_for_the_epoch(connection: psycopg.Connection) -> None:
    connection.execute("DROP ROLE IF EXISTS byoc_plain")
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE ROLE byoc_plain NOSUPERUSER")
        connection.execute("GRANT USAGE ON SCHEMA byoc TO byoc_plain")
        connection.execute("GRANT SELECT ON byoc.node TO byoc_plain")
        before = redelivery.epoch(connection)
        connection.execute("SET LOCAL ROLE byoc_plain")
        assert redelivery.epoch(connection) == before


def test_i16_a_restart_keeps_the_epoch_and_a_recovery_ends_it() -> None:
    """A point-in-time recovery, and a standby that is promoted, go on in a new timeline."""
    with server() as running:
        before = migrated(running)
        restart(running)
        after_a_restart = epoch_on(running)
        signal = Path(running.cluster) / "recovery.signal"
        signal.touch()
        if os.geteuid() == 0:
            shutil.chown(signal, SERVICE_USER, SERVICE_USER)
        restart(running, "-c restore_command=false")

        assert after_a_restart == before
        assert epoch_on(running) != before


def migrated(running: PGTest) -> str:
    with connect(storage_of(running, "postgres"), application="test") as connection:
        migrate(connection)
        connection.execute("INSERT INTO byoc.node (node_id) VALUES ('n1')")
    return epoch_on(running)


def epoch_on(running: PGTest) -> str:
    return epoch_of(storage_of(running, "postgres"))


def restart(running: PGTest, options: str = "") -> None:
    cluster = Path(running.cluster)
    settings = f"-F -p {running.port} -k {cluster.parent / 'tmp'} {options}"
    subprocess.run(
        [running.pg_ctl, "restart", "-m", "fast", "-w", "-D", str(cluster), "-o", settings],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
