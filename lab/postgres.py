"""A private PostgreSQL server with one role and its database, as durable as by default."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.paths import LabPaths, as_user

NAME = "postgres"
ROLE = "aiida"
DATABASE = "aiida_byoc"
HOST = "127.0.0.1"
START_SECONDS = 60.0

# Idempotent: psql runs each line that a query before \gexec returns.
PROVISION = """
SELECT 'CREATE ROLE {role} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec
ALTER ROLE {role} PASSWORD '{password}';
SELECT 'CREATE DATABASE {database} OWNER {role}'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec
"""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server. The role owns the database; it logs in by TCP with the password alone."""

    pid: int
    host: str
    port: int
    user: str
    password: str
    database: str
    socket_directory: Path

    @property
    def dsn(self) -> str:
        """The role's connection to its database."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def superuser_dsn(self) -> str:
        """The superuser's connection, through the private socket."""
        return f"postgresql://postgres@/postgres?host={self.socket_directory}&port={self.port}"


def start(paths: LabPaths) -> Postgres:
    """Start the server on new or existing data, and wait until it accepts connections.

    Raises:
        LabError: it did not start; the message holds the end of its log.
    """
    home = paths.service_directory(NAME)
    socket_directory = paths.service_run("pg")
    port = paths.ports(NAME)[0]
    data = home / "data"
    if not data.exists():
        _initialise(paths, data)
    options = [
        *("-D", str(data), "-p", str(port), "-k", str(socket_directory)),
        *("-c", f"listen_addresses={HOST}", "-c", "unix_socket_permissions=0700"),
    ]
    server = process.spawn(
        paths, NAME, [binary("postgres"), *options], user=paths.service_user, cwd=home
    )
    probe = [binary("pg_isready"), "--quiet", "-h", str(socket_directory), "-p", str(port)]
    process.wait_until(
        lambda: subprocess.run(probe, check=False).returncode == 0,
        START_SECONDS,
        "Postgres to accept connections",
        needs=[server],
    )
    postgres = Postgres(
        pid=server.pid,
        host=HOST,
        port=port,
        user=ROLE,
        password=_password(paths),
        database=DATABASE,
        socket_directory=socket_directory,
    )
    _run_sql(postgres, PROVISION.format(role=ROLE, database=DATABASE, password=postgres.password))
    return postgres


def stop(paths: LabPaths, *, crash: bool = False) -> None:
    """Stop the server, breaking off its sessions; its data stay.

    Args:
        crash: without a goodbye and a checkpoint, so that the next start recovers from the log.
    """
    process.stop(paths, NAME, first=signal.SIGQUIT if crash else signal.SIGINT, patience=30)


def binary(name: str) -> str:
    """The path of a program of the newest installed server.

    Raises:
        FileNotFoundError: no server is installed.
    """
    versions = sorted(
        Path("/usr/lib/postgresql").glob("[0-9]*"), key=lambda path: int(path.name), reverse=True
    )
    for version in versions:
        if (version / "bin" / "postgres").exists():
            return str(version / "bin" / name)
    raise FileNotFoundError("there is no PostgreSQL server: run make bootstrap")


def _initialise(paths: LabPaths, data: Path) -> None:
    draft = data.with_name("draft")  # an initialisation that was cut short must not look like data
    shutil.rmtree(draft, ignore_errors=True)
    command = [
        *(binary("initdb"), "-D", str(draft), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"),
        *("--auth-local=trust", "--auth-host=scram-sha-256"),
    ]
    if paths.service_user is not None:
        command = ["setpriv", *as_user(paths.service_user), *command]
    outcome = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise process.LabError(f"initdb failed:\n{outcome.stdout}{outcome.stderr}")
    draft.rename(data)


def _password(paths: LabPaths) -> str:
    file = paths.root / "postgres-password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(24))
    return file.read_text()


def _run_sql(postgres: Postgres, statements: str) -> None:
    command = [binary("psql"), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]
    outcome = subprocess.run(
        [*command, postgres.superuser_dsn],
        input=statements,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        raise process.LabError(f"the database could not be set up:\n{outcome.stderr}")
