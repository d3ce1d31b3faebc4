"""CPU time and memory of the lab's processes, by the part that they belong to, from /proc.

A process that ended is found in the time of the children of whoever waited for it. Slurm's step daemons let go of their
parent; so that nobody else takes them in, whoever measures adopts them (PR_SET_CHILD_SUBREAPER) and reads their time
before they are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass, field
from pathlib import Path

from lab.paths import LabPaths
from lab.proctable import belonging

__all__ = ["Accounts", "Part", "adopt", "part_of"]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SUBREAPER = 36
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


def adopt() -> None:
    """Let this process be the parent of its descendants whose own parent has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)


def part_of(command: str) -> str:
    """To which part a command line belongs."""
    return next((part for mark, part in _PARTS if mark in command), "other")


@dataclass
class Accounts:
    """The books of one lab; CPU counts from when they were opened, or `restart` was called."""

    paths: LabPaths
    _before: dict[Key, tuple[float, float]] = field(default_factory=dict)
    _gone: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Count from now."""
        self._collect_steps()
        self._gone = {}
        self._before = {key: (own, theirs) for key, _, own, theirs, _ in self._living()}

    def parts(self) -> dict[str, Part]:
        """What each part used since, and holds now."""
        self._collect_steps()
        found: dict[str, Part] = {name: Part(cpu=cpu) for name, cpu in self._gone.items()}
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

    def _collect_steps(self) -> None:
        """Note what ended step daemons used, and let them go."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = _stat(int(stat.parent.name))
                ended = fields[0] == "Z" and int(fields[1]) == os.getpid()
                if not ended or _STEP not in stat.read_text():
                    continue
                own, theirs = _times(fields)
                os.waitpid(int(stat.parent.name), os.WNOHANG)
            except OSError:
                continue
            for name, used in ((part_of(_STEP), own), (CONTAINERS, theirs)):
                self._gone[name] = self._gone.get(name, 0.0) + used


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
