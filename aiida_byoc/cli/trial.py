"""A trial of a runtime on this machine: a container of almost nothing, started as a job's is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aiida_byoc.commands.data import Caps
from aiida_byoc.runtimes import RUNTIMES, Container, in_job, missing

__all__ = ["trial"]

_STATUS = 47
_SECONDS = 120
_LONGEST = 300
_PROGRAM = f"""
import json
from {in_job.PROGRAM}.container import Container
from {in_job.PROGRAM}.spawn import adopt_orphans
adopt_orphans()
with open("{in_job.SPECIFICATION}") as file:
    print(json.dumps(Container(json.load(file)).run()))
"""
"""The program of the job without its story: no fence, no record."""


def trial(name: str, place: Path) -> str | None:
    """What is wrong with a runtime, in one sentence; `None` if its container ran.

    Args:
        place: where images and jobs are: not every runtime works on every file system.
    """
    lacking = missing(name)
    if lacking:
        return f"{', '.join(lacking)} missing ({RUNTIMES[name].HELP})"
    if RUNTIMES[name].PROGRAMS[0] == "srun":  # Slurm starts it, in a job alone
        return None
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=place) as scratch:
        rootfs = _root(Path(scratch))
        code, message = _run(name, rootfs, Path(scratch) / "job")
    return None if code == _STATUS else message or f"its container ended with {code}"


def _root(scratch: Path) -> Path:
    """A root with this machine's shell, and what that needs, in it."""
    root = scratch / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "work"):
        (root / name).mkdir(parents=True)
    shell = os.path.realpath("/bin/sh")
    shutil.copy(shell, root / "bin" / "sh")
    linked = subprocess.run(["ldd", shell], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    return root


def _run(name: str, rootfs: Path, directory: Path) -> tuple[int | None, str | None]:
    """The exit status of its program, or `None` and why there was none."""
    directory.mkdir()
    launch = RUNTIMES[name].launch(Container(rootfs=str(rootfs), memory_mib=64))
    specification = {
        "runtime": launch.to_json(),
        "rootfs": str(rootfs),
        "processes": 64,
        "argv": ["/bin/sh", "-c", f"exit {_STATUS}"],
        "env": {"PATH": "/bin"},
        "caps": Caps().model_dump(),
    }
    (directory / in_job.SPECIFICATION).write_text(json.dumps(specification))
    (directory / in_job.WORK).mkdir()
    cached = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(in_job.__file__).parent, directory / in_job.PROGRAM, ignore=cached)
    with (directory / "stderr").open("wb") as err:
        ran = subprocess.run(
            [sys.executable, "-B", "-c", _PROGRAM],
            cwd=directory,
            env={**os.environ, "SLURM_CLUSTER_NAME": "trial", "SLURM_JOB_ID": str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            timeout=_SECONDS,
            check=False,
        )
    try:
        code, message, _ = json.loads(ran.stdout)
    except ValueError:
        return None, (directory / "stderr").read_text()[-_LONGEST:] or "it did not say why"
    return code, message
