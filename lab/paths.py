"""Where a lab keeps its files, sockets and ports."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

SERVICE_USER = "postgres"
"""The account that stands in for root where a server refuses to run as root."""

PORTS = range(20000, 32000)  # below the kernel's ephemeral range

# A Unix socket's path has at most 107 bytes; the longest below `run` is that of a Slurm step,
# "/slurm/slurmd/n1/n1_1234567.4294967295".
LONGEST_RUN_DIRECTORY = 107 - 40

LABEL = ".aiida-byoc-lab"

# Where to borrow: sockets need a short path, data must not lie in memory or be cleaned away.
SHORT_PLACE = "/tmp"  # noqa: S108
LASTING_PLACE = "/var/tmp"  # noqa: S108

# Abstract sockets that hold chosen ports against other labs until this process ends: by then a
# server listens.
_reserved: list[socket.socket] = []


class LabPaths:
    """One lab's private directory, and the few directories elsewhere that it has to borrow.

    What was borrowed and which ports were allotted is recorded in the lab directory, so that every
    later process finds the same and `discard` removes it.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Open the lab directory, or create it.

        Args:
            root: the directory; by default `BYOC_LAB_DIR`, else `.lab` in the working directory.

        Raises:
            FileExistsError: the directory holds something that is not a lab's.
        """
        self.root = (root or Path(os.environ.get("BYOC_LAB_DIR") or ".lab")).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / LABEL).exists():
            if any(self.root.iterdir()):
                raise FileExistsError(f"{self.root} is neither empty nor a lab directory")
            (self.root / LABEL).touch()
        _close(self.root)

    @property
    def name(self) -> str:
        """A short name that no other lab on this machine has; also the name of its cluster."""
        return "byoc" + sha256(bytes(self.root)).hexdigest()[:8]

    @property
    def service_user(self) -> str | None:
        """The user to run a server as that refuses root; None where the invoking user will do."""
        return SERVICE_USER if os.geteuid() == 0 else None

    @property
    def logs(self) -> Path:
        """The log files of all daemons."""
        return self.directory("logs")

    @property
    def run(self) -> Path:
        """The parent of every component's socket directory, at a path short enough for sockets."""
        path = self.root / "run"
        if len(bytes(path)) > LONGEST_RUN_DIRECTORY:
            path = self._borrow("run", SHORT_PLACE)
        path.mkdir(exist_ok=True)
        return _close(path)

    def directory(self, name: str) -> Path:
        """A private directory of the lab, created at first use."""
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def run_directory(self, name: str) -> Path:
        """A private directory for a component's sockets and pid files, created at first use."""
        path = self.run / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def service_directory(self, name: str) -> Path:
        """A directory that the service user owns; in /var/tmp if it cannot reach the lab's own."""
        return self._for_service(self.root, name, LASTING_PLACE)

    def service_run(self, name: str) -> Path:
        """Like `run_directory`, but the service user owns it."""
        return self._for_service(self.run, name, SHORT_PLACE)

    def ports(self, name: str, count: int = 1) -> range:
        """Adjacent TCP ports of 127.0.0.1 that nothing listens on; the same at every later call.

        Raises:
            RuntimeError: no such block is free.
        """
        record = self.root / "ports.json"
        allotted = _read(record)
        if name not in allotted:
            taken = {
                port for first, size in allotted.values() for port in range(first, first + size)
            }
            allotted[name] = [_free_block(count, taken), count]
            _write(record, allotted)
        first, size = allotted[name]
        return range(first, first + size)

    def places(self) -> list[Path]:
        """The lab directory and every directory it has borrowed."""
        return [self.root, *map(Path, _read(self.root / "borrowed.json").values())]

    def discard(self) -> None:
        """Remove the lab's directories, wherever they are. Its processes must have ended."""
        for place in reversed(self.places()):
            shutil.rmtree(place)

    def _for_service(self, parent: Path, name: str, elsewhere: str) -> Path:
        path = parent / name
        user = self.service_user
        if user is not None and not _can_enter(user, parent):
            path = self._borrow(name, elsewhere)
        path.mkdir(exist_ok=True)
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(path, account.pw_uid, account.pw_gid)
        path.chmod(0o700)
        return path

    def _borrow(self, name: str, parent: str) -> Path:
        record = self.root / "borrowed.json"
        borrowed = _read(record)
        key = f"{parent}/{name}"
        if key not in borrowed or not Path(borrowed[key]).is_dir():
            borrowed[key] = tempfile.mkdtemp(prefix="byoc-", dir=parent)
            _write(record, borrowed)
        return Path(borrowed[key])


def _close(path: Path) -> Path:
    """Close a directory to others, but as root let the service user pass through to its own."""
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path


def as_user(user: str) -> list[str]:
    """The options that make setpriv run a command as another user."""
    return [f"--reuid={user}", f"--regid={user}", "--init-groups"]


def _can_enter(user: str, path: Path) -> bool:
    trial = ["setpriv", *as_user(user), "test", "-x", str(path)]
    return subprocess.run(trial, check=False).returncode == 0


def _free_block(count: int, taken: set[int]) -> int:
    starts = list(PORTS[: len(PORTS) - count])
    random.shuffle(starts)
    for first in starts:
        block = range(first, first + count)
        if taken.isdisjoint(block) and all(_reserve(port) for port in block):
            return first
    raise RuntimeError(f"no {count} adjacent free TCP ports between {PORTS.start} and {PORTS.stop}")


def _reserve(port: int) -> bool:
    hold = socket.socket(socket.AF_UNIX)
    try:
        hold.bind(f"\0aiida-byoc-port-{port}")
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("", port))
    except OSError:
        hold.close()
        return False
    _reserved.append(hold)
    return True


# Both records map a name to what was given to it.
def _read(record: Path) -> dict[str, Any]:
    return json.loads(record.read_text()) if record.exists() else {}


def _write(record: Path, content: dict[str, Any]) -> None:
    draft = record.with_suffix(".new")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(record)
