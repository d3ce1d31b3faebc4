"""`byoc.psql_dos`: what becomes of a process whose database connection is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiida_byoc.brokers.worker import FENCED
from aiida_byoc.storage.crash_only import DISCONNECTED
from lab import postgres

# Loses its session at the named moment, then tries to go on.
PROCESS = """
import sys
from aiida import load_profile
from aiida.manage import get_manager
from aiida_byoc.brokers import worker
from aiida_byoc.database.connection import connect
from aiida_byoc.events.hooks import transaction
from aiida_byoc.storage import crash_only
from sqlalchemy import exc, text

moment, role = sys.argv[1:3]
if role == "worker":
    sys.argv = ["verdi", "-p", "some", "daemon", "worker"]
elif role == "launcher":
    crash_only.declare("launcher")
profile = load_profile()
storage = get_manager().get_profile_storage()
session = storage.get_session()


def lose_the_session(pid):
    with connect(profile.storage_config, application="test") as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


def ask():
    answer = session.execute(text("SELECT pg_backend_pid(), current_setting('application_name')")).one()
    session.commit()
    return answer


pid, name = ask()
print(name, flush=True)
if moment == "between":
    lose_the_session(pid)
    ask()
elif moment == "within":
    try:
        with transaction(storage) as connection:
            lose_the_session(pid)
            connection.execute("SELECT 1")
    except Exception as error:
        print(type(error).__name__, flush=True)
    ask()
elif moment == "fenced":
    with connect(profile.storage_config, application="test") as other:
        worker.register(other)
        other.execute("UPDATE byoc.worker SET fenced_at = now() WHERE worker_id = %s", (worker.me(),))
    session.get_bind().dispose()
    ask()
elif moment == "connecting":
    session.get_bind().dispose()
    print("disposed", flush=True)
    sys.stdin.readline()
    try:
        ask()
    except exc.OperationalError as error:
        print(type(error).__name__, flush=True)
print("went on", flush=True)
"""


def command(moment: str, role: str) -> list[str]:
    """Run the process as a role and lose its session at a moment."""
    return [sys.executable, "-W", "ignore", "-c", PROCESS, moment, role]


def live(moment: str, role: str) -> subprocess.CompletedProcess[str]:
    """Run the process to its end."""
    return subprocess.run(
        command(moment, role), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("role", ["worker", "launcher"])
@pytest.mark.parametrize("moment", ["between", "within"])
def test_an_unattended_process_dies_with_its_session(role: str, moment: str) -> None:
    """Between two transactions, and within one whose statements pass AiiDA by."""
    process = live(moment, role)

    assert process.returncode == DISCONNECTED, process.stderr
    assert "went on" not in process.stdout
    assert "event=database_lost" in process.stderr
    assert process.stdout.splitlines()[0].startswith(f"byoc-{role}")


@pytest.mark.usefixtures("node")
def test_a_fenced_worker_gets_no_new_session() -> None:
    """Another one has its tasks: it must not write again."""
    process = live("fenced", "worker")

    assert process.returncode == FENCED, process.stderr
    assert "went on" not in process.stdout


@pytest.mark.usefixtures("profile")
def test_any_other_process_goes_on_with_a_new_session() -> None:
    """What was lost between two transactions is replaced without a word."""
    process = live("between", "verdi")

    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["byoc-verdi", "went on"]


@contextmanager
def closed(server: postgres.Postgres) -> Iterator[None]:
    """Let nobody into the database."""
    statement = f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS "
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"{statement} false")
        try:
            yield
        finally:
            connection.execute(f"{statement} true")


@pytest.mark.usefixtures("profile")
def test_an_unattended_process_dies_when_it_cannot_connect(server: postgres.Postgres) -> None:
    """It may hold no connection at the moment the server goes away."""
    process = subprocess.Popen(
        command("connecting", "launcher"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["byoc-launcher\n", "disposed\n"]
    with closed(server):
        rest, _ = process.communicate("\n", timeout=60)

    assert (process.returncode, rest) == (DISCONNECTED, "")


def test_verdi_works_on_the_storage(profile: Any) -> None:
    """The storage is known by its own name, and its schema is AiiDA's."""
    verdi = [str(Path(sys.executable).parent / "verdi"), "-p", profile.name]
    for arguments in (["version"], ["info"], ["maintain", "--force"]):
        done = subprocess.run(
            [*verdi, "storage", *arguments],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
