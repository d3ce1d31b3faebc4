"""Daemons are found again, and only they."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.paths import LabPaths
from lab.process import Daemon, LabError, recorded, spawn, stop, sweep, wait_until
from lab.proctable import MARK, Process, belonging

IGNORE_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def commands(paths: LabPaths) -> list[str]:
    """The names of the lab's processes."""
    return sorted(process.command for process in belonging(paths).values())


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of nobody's lab."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_stopped_daemon_is_gone_and_forgotten(paths: LabPaths) -> None:
    """Stopping ends the process and removes its record."""
    daemon = spawn(paths, "idle", ["sleep", "600"])
    assert recorded(paths) == {"idle": daemon}
    assert daemon.alive

    stop(paths, "idle")

    assert not daemon.alive
    assert recorded(paths) == {}


def test_a_deaf_daemon_is_killed(paths: LabPaths) -> None:
    """SIGTERM is a request, the deadline is not."""
    daemon = spawn(paths, "deaf", [sys.executable, "-c", IGNORE_SIGTERM])
    wait_until(lambda: "deaf" in daemon.log.read_text(), 10, "the daemon to be deaf")

    stop(paths, "deaf", patience=0.1)

    assert not daemon.alive


def test_a_reused_pid_is_never_signalled(
    paths: LabPaths, bystander: subprocess.Popen[bytes]
) -> None:
    """The record's start time has to match."""
    spawn(paths, "idle", ["sleep", "600"])
    current = Process.read(bystander.pid)
    assert current is not None
    earlier = {"pid": current.pid, "started": current.started - 1}
    record = paths.root / "processes" / "idle"
    record.write_text(json.dumps({**json.loads(record.read_text()), **earlier}))

    stop(paths, "idle", patience=0.1)

    assert bystander.poll() is None


def test_the_sweep_needs_no_mark(paths: LabPaths) -> None:
    """Some programs write over their environment; their record is enough."""
    daemon = spawn(paths, "bare", ["env", "-i", "sleep", "600"])
    wait_until(lambda: not belonging(paths), 10, "the mark to be gone", needs=[daemon])

    sweep(paths)

    assert not daemon.alive


def test_the_sweep_needs_no_record(paths: LabPaths, bystander: subprocess.Popen[bytes]) -> None:
    """The mark finds a daemon and what descends from it, even with an empty environment."""
    script = "env -i sleep 600 & exec sleep 601"
    daemon = spawn(paths, "family", ["sh", "-c", script])
    wait_until(lambda: commands(paths) == ["sleep", "sleep"], 10, "both to run", needs=[daemon])
    (paths.root / "processes" / "family").unlink()

    assert sweep(paths) == ["sleep", "sleep"]
    assert belonging(paths) == {}
    assert bystander.poll() is None


def test_an_orphan_without_environment_belongs_where_it_works(paths: LabPaths) -> None:
    """Postgres overwrites its children's environment; their directory still tells whose they are."""
    mother = spawn(
        paths, "mother", ["sh", "-c", "env -i sleep 600 & exec sleep 601"], cwd=paths.logs
    )
    wait_until(lambda: commands(paths) == ["sleep", "sleep"], 10, "both to run", needs=[mother])

    os.kill(mother.pid, signal.SIGKILL)
    wait_until(lambda: not mother.alive, 10, "the mother's end")

    with subprocess.Popen(["sleep", "600"], env={}, cwd="/") as stranger:
        found = belonging(paths)
        stranger.kill()
    assert len(found) == 1
    assert stranger.pid not in found


def test_the_sweep_spares_its_own_ancestors(paths: LabPaths) -> None:
    """`make down` may be typed in a shell that carries the mark."""
    code = (
        "import sys; from pathlib import Path; from lab.paths import LabPaths; from lab.process import sweep;"
        "print(sweep(LabPaths(Path(sys.argv[1]))))"
    )
    shell = f"'{sys.executable}' -c '{code}' '{paths.root}'; echo survived"
    outcome = subprocess.run(
        ["sh", "-c", shell],
        env={**os.environ, MARK: str(paths.root), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )

    assert outcome.stdout == "[]\nsurvived\n"


def test_waiting_in_vain_shows_the_log(paths: LabPaths) -> None:
    """Who reads the error need not look for the log."""
    daemon = spawn(paths, "talker", ["sh", "-c", "echo the reason; exec sleep 600"])
    wait_until(lambda: daemon.log.stat().st_size, 10, "output")

    with pytest.raises(LabError, match=r"(?s)0\.05 s in vain for Godot.*the reason"):
        wait_until(lambda: False, 0.05, "Godot", logs=[daemon.log])


def test_waiting_ends_when_a_needed_daemon_does(paths: LabPaths) -> None:
    """There is no point in a deadline of minutes if the server is dead."""
    daemon: Daemon = spawn(paths, "brief", ["sh", "-c", "echo cannot bind; exit 1"])

    with pytest.raises(LabError, match=r"(?s)brief ended.*cannot bind"):
        wait_until(lambda: False, 60, "the port", needs=[daemon])


def test_a_daemon_takes_signals_that_this_process_ignores(paths: LabPaths) -> None:
    """Python ignores SIGPIPE, and what is ignored would be inherited."""
    daemon = spawn(paths, "idle", ["sleep", "600"])

    os.kill(daemon.pid, signal.SIGPIPE)

    wait_until(lambda: not daemon.alive, 5, "the daemon to end")
