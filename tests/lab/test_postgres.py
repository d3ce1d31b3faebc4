"""A real PostgreSQL server, started, stopped, crashed and started again."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from lab import postgres
from lab.paths import LabPaths
from lab.process import LabError, wait_until
from lab.proctable import belonging


def test_the_role_owns_its_database(paths: LabPaths) -> None:
    """The password is asked for by TCP; nothing was traded for speed."""
    server = postgres.start(paths)

    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(
            "SELECT current_user, pg_get_userbyid(datdba), current_setting('fsync'),"
            " current_setting('synchronous_commit')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert row == ("aiida", "aiida", "on", "on")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn.replace(server.password, "guess"))


def test_data_survive_a_stop_and_a_crash(paths: LabPaths) -> None:
    """A lab that comes up again finds what it committed, at the same address."""
    first = postgres.start(paths)
    with psycopg.connect(first.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    postgres.stop(paths)
    assert belonging(paths) == {}

    second = postgres.start(paths)
    with psycopg.connect(second.dsn) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    os.kill(second.pid, signal.SIGKILL)
    wait_until(lambda: not belonging(paths), 10, "the orphaned backends to leave")

    third = postgres.start(paths)
    with psycopg.connect(third.dsn) as connection:
        assert connection.execute("SELECT * FROM kept").fetchall() == [(1,), (2,)]
    assert first.dsn == second.dsn == third.dsn


def test_an_open_session_does_not_delay_the_stop(paths: LabPaths) -> None:
    """A worker that hangs on its connection is broken off, and no socket is left."""
    server = postgres.start(paths)

    with psycopg.connect(server.dsn) as connection:
        postgres.stop(paths)

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert belonging(paths) == {}
    assert list(server.socket_directory.iterdir()) == []


def test_a_server_that_cannot_start_says_why(paths: LabPaths) -> None:
    """The error holds the end of the server's log."""
    postgres.start(paths)
    postgres.stop(paths)
    (paths.service_directory("postgres") / "data" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(LabError, match=r"(?s)postgres ended.*not compatible"):
        postgres.start(paths)
