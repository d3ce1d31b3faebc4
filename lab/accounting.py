"""Slurm's accounting for a lab's cluster: slurmdbd on a private MariaDB. Only where BYOC_LAB_ACCOUNTING=slurmdbd asks.

Many sites have none, so the lab has none either unless it is told to; the same tests pass with it and without.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

from lab import process
from lab.paths import LabPaths

__all__ = ["CONF", "HOST", "NAME", "is_installed", "is_wanted", "port", "start", "stop"]

HOST = "127.0.0.1"
NAME = "slurmdbd"
_DATABASE = "mariadb"
START_SECONDS = 60.0

CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={port}
AccountingStoragePass=socket={munge_socket}
"""
"""Lines of slurm.conf."""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={munge_socket}
DbdHost={name}
DbdAddr={host}
DbdPort={port}
SlurmUser={user}
LogFile={logs}/slurmdbd.main.log
PidFile={run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm
"""


def is_wanted() -> bool:
    """Whether the cluster of this process's labs keeps accounts."""
    return os.environ.get("BYOC_LAB_ACCOUNTING") == "slurmdbd"


def is_installed() -> bool:
    """Whether this machine has both programs."""
    try:
        return all(process.executable(program) for program in ("slurmdbd", "mariadbd"))
    except FileNotFoundError:
        return False


def port(paths: LabPaths) -> int:
    """Where slurmdbd listens."""
    return paths.ports(NAME)[0]


def start(paths: LabPaths, conf: Path, munge_socket: Path) -> None:
    """Start both on new or existing data; munged must run, and the controller not yet.

    Args:
        conf: slurm.conf; that of slurmdbd lies beside it.

    Raises:
        LabError: a part did not start; the message holds the ends of the logs.
        FileNotFoundError: a part is not installed.
    """
    if not is_installed():
        raise FileNotFoundError(
            "there is no slurmdbd or no MariaDB: run BYOC_LAB_ACCOUNTING=slurmdbd make bootstrap"
        )
    user = pwd.getpwuid(os.geteuid()).pw_name
    place = paths.run_directory(_DATABASE) / "socket"
    mariadb = _start_mariadb(paths, user, place)
    slurmdbd_conf = conf.with_name("slurmdbd.conf")
    slurmdbd_conf.touch(mode=0o600)
    slurmdbd_conf.write_text(
        _SLURMDBD_CONF.format(
            name=socket.gethostname().partition(".")[0],
            host=HOST,
            port=port(paths),
            munge_socket=munge_socket,
            user=user,
            logs=paths.logs,
            run=munge_socket.parent,
        )
    )
    environment = {"SLURM_CONF": str(conf), "MYSQL_UNIX_PORT": str(place)}
    slurmdbd = process.spawn(paths, NAME, ["slurmdbd", "-D"], env=environment)
    process.wait_until(
        lambda: _listens(port(paths)),
        START_SECONDS,
        "slurmdbd to listen",
        logs=[paths.logs / "slurmdbd.main.log"],
        needs=[mariadb, slurmdbd],
    )


def stop(paths: LabPaths) -> None:
    """Stop both, if they run; the accounts stay."""
    there = process.recorded(paths)
    for name in (NAME, _DATABASE):
        if name in there:
            process.stop(paths, name, patience=30)


def _start_mariadb(paths: LabPaths, user: str, place: Path) -> process.Daemon:
    home = paths.directory(_DATABASE)
    data = home / "data"
    if not data.exists():
        draft = home / "draft"  # an initialisation that was cut short must not look like data
        shutil.rmtree(draft, ignore_errors=True)
        command = [
            *(
                process.executable("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={draft}",
                f"--user={user}",
            ),
            *("--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}"),
            "--skip-test-db",
        ]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            raise process.LabError(f"mariadb-install-db failed:\n{outcome.stdout}{outcome.stderr}")
        draft.rename(data)
    options = [f"--datadir={data}", f"--socket={place}", "--skip-networking", f"--user={user}"]
    server = process.spawn(paths, _DATABASE, ["mariadbd", "--no-defaults", *options])
    ping = [
        process.executable("mariadb-admin"),
        "--no-defaults",
        f"--socket={place}",
        "--silent",
        "ping",
    ]
    process.wait_until(
        lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0,
        START_SECONDS,
        "MariaDB to answer",
        needs=[server],
    )
    return server


def _listens(number: int) -> bool:
    try:
        socket.create_connection((HOST, number), timeout=5).close()
    except OSError:
        return False
    return True
