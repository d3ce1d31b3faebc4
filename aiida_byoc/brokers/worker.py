"""Who this process is among the workers, and until when it may work.

A worker may work while its lease runs. Whoever takes its work over first *fences* it: says so in its row, and ends all
its database sessions. A worker that slept meanwhile (SIGSTOP, a paused machine) finds its sessions closed, learns on a
new one that it is fenced, and ends before it can write anything. Its work is handed on when no session of it is left.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import NoReturn

import psycopg

__all__ = [
    "FENCED",
    "LEASE_SECONDS",
    "application_name",
    "boot_id",
    "check",
    "die",
    "me",
    "now",
    "register",
    "started",
    "take_name",
]

FENCED = 71
"""Exit status of a worker that may work no longer."""

LEASE_SECONDS = float(os.environ.get("BYOC_LEASE_SECONDS", "15"))
"""How long a worker may go without renewing its lease. Three renewals fit in."""

_LOGGER = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

_me = uuid.uuid4()
_registered = False

_REGISTER = """
INSERT INTO byoc.worker (worker_id, host, boot_id, pid, pid_started, lease_until)
VALUES (%s, %s, %s, %s, %s, clock_timestamp() + %s * interval '1 second')
"""


def me() -> uuid.UUID:
    """The identity of this process as a worker; new with every process."""
    return _me


def application_name(worker: uuid.UUID | None = None) -> str:
    """How a worker's sessions are called in `pg_stat_activity`: by this name they are ended when it is fenced."""
    return f"byoc-worker-{worker or _me}"


def register(connection: psycopg.Connection) -> float:
    """Enter this process as a worker; return until when it may work, on the clock of `now`."""
    global _registered  # noqa: PLW0603  (one process, one worker)
    asked = now()
    pid = os.getpid()
    take_name(connection)
    connection.execute(
        _REGISTER,
        (_me, socket.gethostname(), boot_id(), pid, started(pid), LEASE_SECONDS),
    )
    _registered = True
    return asked + LEASE_SECONDS


def take_name(connection: psycopg.Connection) -> None:
    """Let a session that is open already be one of this worker's."""
    connection.execute("SELECT set_config('application_name', %s, false)", (application_name(),))


def check(connection: psycopg.Connection) -> None:
    """End this process if it is a worker that was fenced; to be asked on every new session."""
    if not _registered:
        return
    row = connection.execute(
        "SELECT fenced_at IS NULL FROM byoc.worker WHERE worker_id = %s", (_me,)
    ).fetchone()
    if row is None or not row[0]:
        die("another worker has taken over")


def now() -> float:
    """Seconds on a clock that runs on while the machine sleeps (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which life of which machine or container this is: process ids mean something only within one."""
    return f"{_BOOT_ID.read_text().strip()} {_PID_NAMESPACE.readlink()}"


def started(pid: int) -> int | None:
    """When a process of this machine started (proc_pid_stat(5), starttime); `None` when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def die(reason: str) -> NoReturn:
    """End at once, running no handler: each could write to the database."""
    _LOGGER.critical("Worker ends event=worker_ended pid=%s: %s", os.getpid(), reason)
    os._exit(FENCED)
