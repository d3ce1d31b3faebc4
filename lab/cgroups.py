"""Control groups of a lab's Slurm: the machine's, since there is one tree of them for all."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lab import process
from lab.paths import LabPaths

__all__ = ["CONF", "are_there", "remove"]

# CgroupPlugin: slurmd initialises one even if nothing uses it, and finds none on some machines.
CONF = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
"""

_TOP = Path("/sys/fs/cgroup")
_USED = ("freezer", "memory")
_REMOVE_SECONDS = 10.0


def are_there() -> bool:
    """Whether this user's Slurm can use them: 22.05 works with version 1 of a machine without systemd, as root."""
    return os.geteuid() == 0 and all(
        (_TOP / each / "cgroup.procs").exists() and os.access(_TOP / each, os.W_OK)
        for each in _USED
    )


def remove(paths: LabPaths) -> None:
    """Remove what a stopped cluster left, with the jobs in it that lost their slurmd.

    Raises:
        LabError: something of it is still there.
    """
    process.wait_until(lambda: _remove(paths), _REMOVE_SECONDS, "no control groups")


def _remove(paths: LabPaths) -> bool:
    places = [
        place
        for kind in _USED
        for top in _TOP.glob(f"{kind}/slurm_{paths.name}n*")
        for place in (*sorted(top.rglob("*/"), reverse=True), top)
    ]
    for place in places:
        with contextlib.suppress(OSError):
            for pid in (place / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            place.rmdir()
    return not any(place.exists() for place in places)
