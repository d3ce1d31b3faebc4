"""The machine's process table: what lives, what belongs to a lab, and how to end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.paths import LabPaths

MARK = "BYOC_LAB"
"""Environment variable that names the lab directory in every process of a lab."""

POLL_SECONDS = 0.02

KILL_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """A living process; `started` (clock ticks since boot) tells it from a later one with its pid."""

    pid: int
    parent: int
    started: int
    command: str

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """The process, or None if it is gone or a zombie."""
        try:
            content = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        head, _, tail = content.rpartition(")")  # the command itself may hold a parenthesis
        fields = tail.split()
        if fields[0] in "ZX":
            return None
        command = head.partition("(")[2]
        return cls(pid=pid, parent=int(fields[1]), started=int(fields[19]), command=command)


def belonging(paths: LabPaths) -> dict[int, Process]:
    """The living processes of this lab, by pid, without the calling process and its ancestors.

    A process belongs if its environment carries the lab's mark or the name of its cluster (a batch
    job may have been submitted from outside); if it has overwritten its environment, as servers do
    to show a title, and works in the lab; or if it descends from one that belongs (a container
    starts with an empty environment).
    """
    processes = {pid: process for pid in _pids() if (process := Process.read(pid))}
    lineage = set()
    pid = os.getpid()
    while pid in processes:
        lineage.add(pid)
        pid = processes[pid].parent
    marks = {f"{MARK}={paths.root}".encode(), f"SLURM_CLUSTER_NAME={paths.name}".encode()}
    places = paths.places()
    members = {
        pid
        for pid in processes.keys() - lineage
        if (environment := _environment(pid)) & marks
        or (not any(b"=" in entry for entry in environment) and _works_in(pid, places))
    }
    while heirs := {
        pid
        for pid, process in processes.items()
        if process.parent in members and pid not in members | lineage
    }:
        members |= heirs
    return {pid: processes[pid] for pid in members}


def end(targets: Mapping[int, int], first: signal.Signals, patience: float) -> None:
    """Send a signal to each process, and after `patience` seconds SIGKILL to those that live.

    Args:
        targets: pid to start time; a pid that another process has by now is left alone.
    """
    for number, seconds in ((first, patience), (signal.SIGKILL, KILL_SECONDS)):
        for pid in _living(targets):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while _living(targets) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def _living(targets: Mapping[int, int]) -> list[int]:
    return [
        pid
        for pid, started in targets.items()
        if (process := Process.read(pid)) and process.started == started
    ]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _works_in(pid: int, places: list[Path]) -> bool:
    try:
        directory = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return any(directory.is_relative_to(place) for place in places)


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:  # it is gone, or belongs to a user whose processes are not ours
        return set()
