"""What a program of this machine says when it is asked: Slurm's commands, a runtime, the package manager."""

from __future__ import annotations

import subprocess

__all__ = ["said", "slurm_configuration"]

_SECONDS = 30


def said(*command: str) -> str:
    """What it writes to stdout; it is asked nothing back, and given half a minute.

    Raises:
        OSError, subprocess.SubprocessError: it is not there, fails, or takes too long.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=True,
    ).stdout


def slurm_configuration() -> str:
    """What Slurm's controller goes by, as `said` raises."""
    return said("scontrol", "show", "config")
