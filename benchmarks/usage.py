"""CPU time and memory of the lab's processes, by the part that they belong to, from /proc.

A process that ended is found in the time of the children of whoever waited for it. Slurm's step daemons let go of their
parent; so that nobody else takes them in, whoever measures adopts them (PR_SET_CHILD_SUBREAPER) and reads their time
before they are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.paths import LabPaths
from lab.proctable import belonging

__all__ = ["ADOPTED", "Accounts", "Part", "part_of"]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SUBREAPER = 36
_COLLECT_SECONDS = 0.2
_STEP = "slurmstepd"

Key = tuple[int, int]
"""Process id and start time."""

_PARTS = (
    ("agent launch", "launcher"),
    ("agent read", "reader of logs"),
    ("agent run", "agent"),
    ("daemon worker", "AiiDA's workers"),
    ("daemon start-circus", "AiiDA's supervisor"),
    ("circus", "AiiDA's supervisor"),
    ("broker", "AiiDA's broker"),
    ("-m adapter", "adapter"),
    ("benchmarks.answering", "bare route"),
    ("convex_server", "Convex (the lab's)"),
    ("slurmctld", "Slurm's controller"),
    (_STEP, "Slurm's steps"),
    ("slurmd", "Slurm's node daemons"),
    ("postgres", "PostgreSQL"),
)
COMMANDS = "commands of workers (sbatch, squeue, …)"
CONTAINERS = "job: in-job program, runtime, container"
_LEFT = {_STEP: dict(_PARTS)[_STEP], "bwrap": CONTAINERS}
"""Whose parents end first, by the name of the program: bubblewrap's process in the container is let go of, too."""


@dataclass
class Part:
    """What one part used.

    Attributes:
        cpu: seconds.
        rss: MiB, resident now, of all its processes.
        largest: MiB, of the largest of them.
        processes: how many live.
    """

    cpu: float = 0.0
    rss: float = 0.0
    largest: float = 0.0
    processes: int = 0


class Adopted:
    """Step daemons and containers that were adopted, and what those used that have ended.

    They are collected while others work: for each step that starts or ends Slurm looks through all of /proc, as our
    Epilog does, so a thousand that are left there slow down all that follow.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._guard = threading.Lock()

    def adopt(self) -> None:
        """Let this process be the parent of its descendants whose own parent has ended, and collect them."""
        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
        threading.Thread(target=self._collect_on, daemon=True).start()

    def used(self) -> dict[str, float]:
        """CPU seconds of those that have ended so far, and of what they had started, by part."""
        with self._guard:
            self._collect()
            return dict(self._used)

    def _collect_on(self) -> None:
        while True:
            time.sleep(_COLLECT_SECONDS)
            with self._guard:
                self._collect()

    def _collect(self) -> None:
        for pid in _children():
            try:
                command = Path(f"/proc/{pid}/comm").read_text().strip()
                fields = _stat(pid)
                if fields[0] != "Z" or command not in _LEFT:
                    continue
                own, theirs = _times(fields)
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue
            for name, cpu in ((_LEFT[command], own), (CONTAINERS, theirs)):
                self._used[name] = self._used.get(name, 0.0) + cpu


ADOPTED = Adopted()


def part_of(command: str) -> str:
    """To which part a command line belongs."""
    return next((part for mark, part in _PARTS if mark in command), "other")


@dataclass
class Accounts:
    """The books of one lab; CPU counts from when they were opened, or `restart` was called."""

    paths: LabPaths
    _before: dict[Key, tuple[float, float]] = field(default_factory=dict)
    _adopted_before: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Count from now."""
        self._adopted_before = ADOPTED.used()
        self._before = {key: (own, theirs) for key, _, own, theirs, _ in self._living()}

    def parts(self) -> dict[str, Part]:
        """What each part used since, and holds now."""
        found = {
            name: Part(cpu=cpu - self._adopted_before.get(name, 0.0))
            for name, cpu in ADOPTED.used().items()
        }
        for key, name, own, theirs, rss in self._living():
            own_before, theirs_before = self._before.get(key, (0.0, 0.0))
            part = found.setdefault(name, Part())
            part.cpu += own - own_before
            part.rss += rss
            part.largest = max(part.largest, rss)
            part.processes += 1
            children = found.setdefault(_children_of(name), Part())
            children.cpu += theirs - theirs_before
        return found

    def cpu(self) -> float:
        """Seconds of all parts together."""
        return sum(part.cpu for part in self.parts().values())

    def _living(self) -> list[tuple[Key, str, float, float, float]]:
        found = []
        for pid in belonging(self.paths):
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                name = CONTAINERS if _in_a_step(pid) else part_of(command)
                own, theirs = _times(fields)
                rss = int(fields[21]) * _PAGE / 2**20
                found.append(((pid, int(fields[19])), name, own, theirs, rss))
        return found


def _children() -> list[int]:
    """Of this process; what it adopts is one thread's child."""
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _children_of(name: str) -> str:
    return {"AiiDA's workers": COMMANDS, part_of(_STEP): CONTAINERS}.get(name, name)


def _in_a_step(pid: int) -> bool:
    """Whether a step daemon is among the ancestors: it is what a job runs."""
    parent = int(_stat(pid)[1])
    while parent > 1:
        if _STEP in Path(f"/proc/{parent}/comm").read_text():
            return True
        parent = int(_stat(parent)[1])
    return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc_pid_stat(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _times(fields: list[str]) -> tuple[float, float]:
    own, theirs = (sum(map(int, fields[first : first + 2])) / _TICK for first in (11, 13))
    return own, theirs
