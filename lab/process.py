"""The daemons of a lab: started with a log and a mark, recorded at once, stopped or swept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from lab.paths import LabPaths, as_user
from lab.proctable import MARK, POLL_SECONDS, Process, belonging, end

LOG_TAIL_LINES = 40
PROCESS_COUNTS = Path("/sys/fs/cgroup/pids")

T = TypeVar("T")

_children: set[int] = set()  # spawned by this process, which alone can reap them


class LabError(Exception):
    """A part of the lab did not start or stop; the message holds the end of its logs."""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A daemon of the lab; the start time guards against another process with its pid."""

    name: str
    pid: int
    started: int
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        _reap()
        process = Process.read(self.pid)
        return process is not None and process.started == self.started


def spawn(
    paths: LabPaths,
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: Path | None = None,
) -> Daemon:
    """Start a daemon in a session of its own; its output is appended to `logs/<name>.log`.

    Args:
        name: unique in the lab.
        argv: a command that stays in the foreground.
        env: added to the environment of this process.
        user: the account to run it as (root only).
        cwd: its working directory, by default that of this process.

    Raises:
        FileNotFoundError: there is no such command.
    """
    command = [executable(str(argv[0])), *map(str, argv[1:])]
    if cwd is not None:
        command = [executable("env"), f"--chdir={cwd}", *command]
    if user is not None:
        command = [executable("setpriv"), *as_user(user), *command]
    log = paths.logs / f"{name}.log"
    _reap()  # a predecessor that was killed looks alive to whoever reads its pid file
    # Not subprocess: the daemon outlives this process, and nobody waits for its exit code.
    pid = os.posix_spawn(
        command[0],
        command,
        {**os.environ, **(env or {}), MARK: str(paths.root)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT],
    )
    _children.add(pid)
    process = Process.read(pid)
    daemon = Daemon(name=name, pid=pid, started=process.started if process else 0, log=log)
    record = {**asdict(daemon), "log": str(log)}
    draft = paths.root / f"{name}.new"
    draft.write_text(json.dumps(record))
    draft.replace(_records(paths) / name)  # whole at any time: others may be reading
    return daemon


def recorded(paths: LabPaths) -> dict[str, Daemon]:
    """Every daemon that was spawned in this lab and not stopped since, dead or alive, by name."""
    daemons = {}
    for record in sorted(_records(paths).iterdir()):
        content = json.loads(record.read_text())
        daemons[record.name] = Daemon(**{**content, "log": Path(content["log"])})
    return daemons


def wait_until(
    condition: Callable[[], T],
    deadline: float,
    what: str,
    *,
    logs: Iterable[Path] = (),
    needs: Iterable[Daemon] = (),
    every: float = POLL_SECONDS,
) -> T:
    """Poll until the condition returns something true, and return that.

    Args:
        deadline: seconds from now.
        what: as in "waited 5 s in vain for <what>".
        logs: their ends go into the error.
        needs: daemons without which it is no use to wait.
        every: seconds between two looks.

    Raises:
        LabError: the deadline passed, or a needed daemon ended.
    """
    needs = tuple(needs)
    logs = dict.fromkeys([*logs, *(daemon.log for daemon in needs)])
    until = time.monotonic() + deadline
    while True:
        if result := condition():
            return result
        if ended := [daemon.name for daemon in needs if not daemon.alive]:
            raise LabError(f"waited for {what}, but {', '.join(ended)} ended{tails(logs)}")
        if time.monotonic() > until:
            raise LabError(f"waited {deadline:g} s in vain for {what}{tails(logs)}")
        time.sleep(every)


def stop(
    paths: LabPaths, *names: str, first: signal.Signals = signal.SIGTERM, patience: float = 10
) -> None:
    """End recorded daemons together: the first signal, and after `patience` seconds SIGKILL.

    A name that is not recorded, or whose daemon is dead, is no error.
    """
    daemons = [daemon for name, daemon in recorded(paths).items() if name in names]
    end({daemon.pid: daemon.started for daemon in daemons}, first, patience)
    _reap()
    for daemon in daemons:
        (_records(paths) / daemon.name).unlink(missing_ok=True)


def sweep(paths: LabPaths, patience: float = 5) -> list[str]:
    """End every process of the lab, recorded or not: SIGTERM, after `patience` seconds SIGKILL.

    Returns:
        The names of the processes that were found.

    Raises:
        LabError: some survive even SIGKILL.
    """
    found: dict[int, Process] = {}
    # A supervisor may replace a child while it is looked for, so there is more than one look.
    for seconds in (patience, 0.0, 0.0):
        if not (present := belonging(paths)):
            break
        found |= present
        end({pid: process.started for pid, process in present.items()}, signal.SIGTERM, seconds)
        _reap()
    stop(paths, *recorded(paths), patience=patience)  # nginx writes over its mark
    if left := belonging(paths):
        raise LabError(f"processes of the lab that do not end: {sorted(left)}")
    for record in _records(paths).iterdir():
        record.unlink()
    for count in PROCESS_COUNTS.glob(f"byoc-{paths.name}-*"):  # of jobs without an Epilog
        with contextlib.suppress(OSError):
            count.rmdir()
    return sorted(process.command for process in found.values())


def executable(command: str) -> str:
    """The command's path; an ordinary user's PATH lacks where Debian keeps daemons.

    Raises:
        FileNotFoundError: there is no such command.
    """
    places = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    found = shutil.which(command, path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(f"there is no command {command}: run make bootstrap")
    return found


def _records(paths: LabPaths) -> Path:
    return paths.directory("processes")


def _reap() -> None:
    for pid in tuple(_children):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _children.discard(pid)


def tails(logs: Iterable[Path]) -> str:
    """The last lines of each log, under its path."""
    parts = []
    for log in logs:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        parts.append("\n".join([f"\n--- {log}", *lines[-LOG_TAIL_LINES:]]))
    return "".join(parts)
