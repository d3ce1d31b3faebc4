"""The lab that rows share: started when the first asks for it, and what can be stopped in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from aiida_byoc.database.migrate import migrate
from benchmarks import bulk
from benchmarks.keeping import Keeper
from benchmarks.usage import ADOPTED, Accounts
from lab import node, postgres, process, stack
from lab.paths import LabPaths

__all__ = ["Bench", "Laboratory"]

COMMAND_SECONDS = 120.0
HALT_SECONDS = 30.0

_LAUNCHER_IDLES = (
    "SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE application_name = 'byoc-launcher'"
)


class Laboratory:
    """A lab of the benchmarks' own, in a directory that goes with it."""

    def __init__(self) -> None:
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self._paths: LabPaths | None = None
        self._content: dict[str, Any] = {}
        self._workers_run = self._launcher_runs = True

    def up(self) -> Mapping[str, Any]:
        """What `lab.json` holds; everything runs."""
        if self._paths is None:
            ADOPTED.adopt()
            self._place = tempfile.TemporaryDirectory(prefix="byoc-bench-")
            Path(self._place.name).chmod(0o755)
            self._paths = LabPaths(Path(self._place.name) / "lab")
            try:
                self._content = stack.up(self._paths)
            except BaseException:
                self.down()  # whoever asks next begins anew
                raise
        if not (self._launcher_runs and self._workers_run):
            # What rows without work had accepted is nobody's: launched, it would be in the way of the next row.
            with self.database() as connection:
                bulk.empty(connection)
        if not self._launcher_runs:
            self._signal_launcher(signal.SIGCONT)
        if not self._workers_run:
            self.verdi("daemon", "start", str(node.WORKERS))
            self._workers_run = True
        return self._content

    def without_work(self) -> Mapping[str, Any]:
        """The same, but accepted jobs stay where they are: AiiDA's workers are stopped, the launcher stands still."""
        if self._paths is None:
            self.up()
        if self._workers_run:
            self.stop_workers()
        if self._launcher_runs:
            self._halt_launcher()
        return self._content

    def down(self) -> None:
        """Stop everything, and remove it."""
        if self._paths is not None:
            if not self._launcher_runs:
                self._signal_launcher(signal.SIGCONT)
            stack.down(self._paths)
        if self._place is not None:
            self._place.cleanup()
        self._paths = self._place = None

    @property
    def paths(self) -> LabPaths:
        """Where it is; it must be up."""
        assert self._paths is not None, "the lab is not up"
        return self._paths

    def accounts(self) -> Accounts:
        """Books of what its parts use, opened now."""
        accounts = Accounts(self.paths)
        accounts.restart()
        return accounts

    def verdi(self, *arguments: str, profile: str = node.PROFILE, **environment: str) -> str:
        """Run a command of the node.

        Raises:
            LabError: it failed; the message holds what it said.
        """
        return self.run(
            str(Path(sys.executable).with_name("verdi")),
            "-p",
            profile,
            *arguments,
            environment=environment,
        )

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a command in the node's environment; return what it printed."""
        done = subprocess.run(
            command,
            env={**os.environ, **self._content["node"]["environment"], **(environment or {})},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            shown = " ".join(command)[:200]
            raise process.LabError(f"{shown} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def talk(
        self, *command: str, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """A program in the node's environment that answers lines with lines; it ends when nothing more is said."""
        with subprocess.Popen(
            command,
            env={**os.environ, **self._content["node"]["environment"], **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            yield program

    def database(self, name: str | None = None) -> psycopg.Connection:
        """A connection to the node's database, or another one of its server, that compiles nothing, as the node's."""
        dsn = str(self._content["postgres"]["dsn"])
        if name is not None:
            dsn = f"{dsn.rpartition('/')[0]}/{name}"
        return psycopg.connect(dsn, autocommit=True, options="-c jit=off")

    @contextmanager
    def another_ledger(self) -> Iterator[psycopg.Connection]:
        """A connection to a ledger and outbox in the same server that are new, and nobody's; they go with it.

        PostgreSQL makes no statistics of them by itself: where it knows of few rows it reads them all, and goes on with
        such a plan when they have become more. Without statistics it goes by the indexes.
        """
        name = "another_ledger"
        with self.superuser() as superuser:
            superuser.execute(f"CREATE DATABASE {name} OWNER {postgres.ROLE}".encode())
            try:
                with self.database(name) as connection:
                    migrate(connection)
                    connection.execute(
                        "INSERT INTO byoc.node (node_id) VALUES (%s)", (node.NODE_ID,)
                    )
                    for table in ("job", "event", "stream"):
                        connection.execute(
                            f"ALTER TABLE byoc.{table} SET (autovacuum_enabled = off)".encode()
                        )
                    yield connection
            finally:
                superuser.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def superuser(self) -> psycopg.Connection:
        """A connection of the database's superuser."""
        port = str(self._content["postgres"]["dsn"]).rpartition(":")[2].partition("/")[0]
        where = f"host={self.paths.service_run('pg')} port={port} dbname=postgres user=postgres"
        return psycopg.connect(where, autocommit=True)

    def stop_workers(self) -> None:
        """Stop AiiDA's workers; `up` starts them again."""
        self.verdi("daemon", "stop")
        self._workers_run = False

    def stop_agent(self) -> None:
        """Stop the agent, and with it its launcher."""
        if not self._launcher_runs:
            self._signal_launcher(signal.SIGCONT)
        process.stop(self.paths, "agent")

    def start_agent(self) -> None:
        """Start the agent (again)."""
        node.spawn_agent(self.paths, self._content["node"]["environment"])

    @contextmanager
    def without_agent(self) -> Iterator[None]:
        """Meanwhile nobody but us is at work on the ledger; a launcher that stood still does so again."""
        ran = self._launcher_runs
        self.stop_agent()
        try:
            yield
        finally:
            self.start_agent()
            if not ran:
                self._halt_launcher()

    def _launcher(self) -> int:
        for stat in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = stat.read_bytes().replace(b"\0", b" ")
                mark = f"BYOC_LAB={self.paths.root}".encode()
                ours = mark in (stat.parent / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"agent launch" in command and ours:
                return int(stat.parent.name)
        raise process.LabError("the agent has no launcher")

    def _halt_launcher(self) -> None:
        """Stop the launcher where it holds no transaction: one that is open for long keeps dead rows alive."""

        def halted() -> bool:
            self._signal_launcher(signal.SIGSTOP)
            with self.database() as connection:
                row = connection.execute(_LAUNCHER_IDLES).fetchone()
            if row == (True,):
                return True
            self._signal_launcher(signal.SIGCONT)
            return False

        process.wait_until(halted, HALT_SECONDS, "the launcher to do nothing")

    def _signal_launcher(self, number: signal.Signals) -> None:
        os.kill(self._launcher(), number)
        self._launcher_runs = number != signal.SIGSTOP


@dataclass(frozen=True)
class Bench:
    """What a row has at hand.

    Attributes:
        lab: shared by the rows.
        keep: takes raw data.
        quick: whether a look will do: the same things, fewer and shorter.
    """

    lab: Laboratory
    keep: Keeper
    quick: bool

    def scale(self, full: int, quick: int) -> int:
        """How many, or how long."""
        return quick if self.quick else full
