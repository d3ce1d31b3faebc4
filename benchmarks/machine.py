"""On what was measured, and how busy it was."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab import postgres

__all__ = ["describe", "load", "sentence"]

_PACKAGES = ("aiida-core", "fastapi", "uvicorn", "pydantic", "psycopg", "SQLAlchemy")


def describe() -> dict[str, Any]:
    """CPU, cores, memory and versions, as far as the machine tells them."""
    return {
        "cpu": _first(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(
            int(_first(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())) / 2**20, 1
        ),
        "kernel": platform.release(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            "postgresql": _said(postgres.binary("postgres"), "--version"),
            "slurm": _said("slurmctld", "-V"),
            "node": _said("node", "--version"),
        },
    }


def load() -> float:
    """Processes that ran or wanted to, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def sentence(machine: dict[str, Any]) -> str:
    """The same in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}; "
        f"{versions}"
    )


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else ""


def _said(program: str, option: str) -> str:
    """The version that a program tells of itself; `none` where it is not installed."""
    if shutil.which(program) is None:
        return "none"
    told = subprocess.run([program, option], capture_output=True, text=True, check=False).stdout
    return _first(r"v?(\d+[\d.]*\d)", told) or "unknown"
