"""A trial of a runtime on this machine: a container of almost nothing, started as a job's is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiida_byoc.commands.data import Caps
from aiida_byoc.runtimes import RUNTIMES, Container, in_job, missing

__all__ = ["trial"]

_STATUS = 47
_SECONDS = 120
_MANIFEST = b"{}"


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
        record = _run(name, rootfs, Path(scratch) / "job")
    if record.get("exit_code") == _STATUS:
        return None
    return str(record.get("message") or f"its container ended with {record.get('exit_code')}")


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
    (scratch / "manifest").write_bytes(_MANIFEST)
    return root


def _run(name: str, rootfs: Path, directory: Path) -> dict[str, Any]:
    directory.mkdir()
    launch = RUNTIMES[name].launch(Container(rootfs=str(rootfs), memory_mib=64))
    specification = {
        "submission_id": "trial",
        "attempt": 1,
        "image_digest": f"sha256:{hashlib.sha256(_MANIFEST).hexdigest()}",
        "runtime": launch.to_json(),
        "rootfs": str(rootfs),
        "processes": 64,
        "argv": ["/bin/sh", "-c", f"exit {_STATUS}"],
        "env": {"PATH": "/bin"},
        "outputs": [],
        "caps": Caps().model_dump(),
    }
    (directory / in_job.SPECIFICATION).write_text(json.dumps(specification))
    program = Path(in_job.__file__).parent
    cached = shutil.ignore_patterns("__pycache__")
    shutil.copytree(program, directory / in_job.PROGRAM, ignore=cached)
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        subprocess.run(
            [sys.executable, "-B", "-m", in_job.PROGRAM],
            cwd=directory,
            env={**os.environ, "SLURM_CLUSTER_NAME": "trial", "SLURM_JOB_ID": str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=_SECONDS,
            check=False,
        )
    try:
        record: dict[str, Any] = json.loads((directory / in_job.RECORD).read_text())
    except OSError:
        return {"message": (directory / "stderr").read_text()[-300:] or "it left no record"}
    return record
