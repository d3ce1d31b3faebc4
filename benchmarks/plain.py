"""The baseline: aiida-core as it comes, on the same Slurm, server of databases and machine, in a profile of its own.

Storage `core.psql_dos`, broker `core.zeromq`, scheduler `core.slurm`, as many workers as the lab's node has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.laboratory import Laboratory
from benchmarks.plain_node import COMPUTER
from lab import node, process

__all__ = ["Plain", "image"]

PROFILE = "plain"
DATABASE = "plain"
ROOT = Path(__file__).parents[1]

_OPEN = """
SELECT id, attributes ->> 'process_state', (attributes ->> 'exit_status')::integer FROM db_dbnode WHERE id = ANY(%s)
"""
_FOLDERS = """
SELECT link.input_id, child.attributes ->> 'remote_workdir' FROM db_dblink AS link
JOIN db_dbnode AS child ON child.id = link.output_id WHERE link.input_id = ANY(%s) AND link.type = 'call_calc'
"""


class Plain:
    """A stock profile beside the lab's node; made once, started and stopped as rows need it."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self._submitter: subprocess.Popen[str] | None = None
        self._content = lab.up()
        home = lab.paths.directory("plain")
        ours = self._content["node"]["environment"]
        self._environment = {
            "AIIDA_PATH": str(home),
            "PYTHONPATH": os.pathsep.join([str(ROOT), ours["PYTHONPATH"]]),
        }
        if not (home / ".aiida" / "config.json").exists():
            self._make(home)

    @contextmanager
    def at_work(self, interval: float) -> Iterator[None]:
        """Workers that look at the queue no more often than once in so many seconds, and who submits; for the block."""
        self._node("interval", PROFILE, str(interval))
        self._verdi("daemon", "start", str(node.WORKERS))
        try:
            command = (sys.executable, "-m", "benchmarks.plain_node", "submit", PROFILE)
            with self._lab.talk(*command, environment=self._environment) as self._submitter:
                self._heard()
                yield
        finally:
            self._verdi("daemon", "stop")

    def database(self) -> psycopg.Connection:
        """A connection to the profile's database."""
        return self._lab.database(DATABASE)

    def submit(self, count: int, script: str) -> list[int]:
        """Submit jobs one after the other; their work chains' pks. Must be at work."""
        assert self._submitter is not None, "not at work"
        assert self._submitter.stdin is not None
        print(json.dumps([count, script]), file=self._submitter.stdin, flush=True)
        pks: list[int] = json.loads(self._heard())
        return pks

    def _heard(self) -> str:
        assert self._submitter is not None, "not at work"
        assert self._submitter.stdout is not None
        while line := self._submitter.stdout.readline():
            if line.startswith(("[", "ready")):
                return line
        raise process.LabError("the submitting program of the baseline has ended")

    @staticmethod
    def ended(connection: psycopg.Connection, pks: list[int]) -> set[int]:
        """Those of the work chains that have ended.

        Raises:
            LabError: one ended otherwise than well.
        """
        rows = connection.execute(_OPEN, (pks,)).fetchall()
        over = [row for row in rows if row[1] in {"finished", "excepted", "killed"}]
        if bad := [row for row in over if row[1:] != ("finished", 0)]:
            raise process.LabError(f"work chains of the baseline that did not end well: {bad}")
        return {row[0] for row in over}

    @staticmethod
    def folders(connection: psycopg.Connection, pks: list[int]) -> Mapping[int, Path]:
        """Where the job of each work chain ran."""
        return {row[0]: Path(row[1]) for row in connection.execute(_FOLDERS, (pks,)) if row[1]}

    def _make(self, home: Path) -> None:
        with self._lab.superuser() as connection:
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER aiida")
        dsn = psycopg.conninfo.conninfo_to_dict(self._content["postgres"]["dsn"])
        repository = home / "repository"
        self._lab.run(
            *(_verdi_program(), "profile", "setup", "core.psql_dos", "-n", "-p", PROFILE),
            *("--email", "bench@localhost", "--first-name", "B", "--last-name", "B"),
            *("--institution", "B", "--broker", "core.zeromq", "--set-as-default"),
            *("--database-hostname", str(dsn["host"]), "--database-port", str(dsn["port"])),
            *("--database-username", str(dsn["user"]), "--database-password", str(dsn["password"])),
            *("--database-name", DATABASE, "--repository-uri", repository.as_uri()),
            environment=self._environment,
        )
        work = home / "work"
        work.mkdir()
        self._verdi(
            *("computer", "setup", "-n", "--label", COMPUTER, "--hostname", "localhost"),
            *("--transport", "core.local", "--scheduler", "core.slurm", "--work-dir", str(work)),
            *("--mpirun-command", "", "--mpiprocs-per-machine", "1"),
        )
        login = ("--safe-interval", "0", "--no-use-login-shell")
        self._verdi("computer", "configure", "core.local", "-n", *login, COMPUTER)
        # Parents wait for their children by broadcast; this only is when it is lost. As the lab's node has it.
        self._verdi("config", "set", "runner.poll.interval", "5")
        self._verdi("config", "set", "daemon.timeout", "30")
        self._node("code", PROFILE, str(image(self._content)))

    def _verdi(self, *arguments: str) -> str:
        return self._lab.run(
            _verdi_program(), "-p", PROFILE, *arguments, environment=self._environment
        )

    def _node(self, *arguments: str) -> str:
        command: list[str] = [sys.executable, "-m", "benchmarks.plain_node", *arguments]
        return self._lab.run(*command, environment=self._environment)


def _verdi_program() -> str:
    return str(Path(sys.executable).with_name("verdi"))


def image(lab: Mapping[str, Any]) -> Path:
    """The demonstration image as the node has unpacked it."""
    store = Path(lab["node"]["aiida_path"]).with_name("store")
    digest = str(lab["images"][0]["digest"]).removeprefix("sha256:")
    return store / "unpacked" / digest / "rootfs"
