"""What a program of this machine says when it is asked: Slurm's commands, a runtime, the package manager."""

from __future__ import annotations

import re
import subprocess

__all__ = ["largest_array", "said", "slurm_configuration"]

_SECONDS = 30.0
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d{1,9})\s*$", re.MULTILINE)


def said(*command: str, seconds: float = _SECONDS) -> str:
    """What it writes to stdout; it is asked nothing back.

    Args:
        seconds: that it is given.

    Raises:
        OSError, subprocess.SubprocessError: it is not there, fails, or takes too long.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=True,
    ).stdout


def slurm_configuration(*, seconds: float = _SECONDS) -> str:
    """What Slurm's controller goes by, as `said` raises."""
    return said("scontrol", "show", "config", seconds=seconds)


def largest_array(*, seconds: float = _SECONDS) -> int | None:
    """How many elements an array may have in Slurm; `None` where it does not say, or is not to be asked.

    `MaxArraySize` is one more than the largest index (slurm.conf(5)), and ours begin with 0.
    """
    try:
        found = _MAX_ARRAY_SIZE.search(slurm_configuration(seconds=seconds))
    except (OSError, subprocess.SubprocessError):
        return None
    return int(found[1]) if found else None
