"""bubblewrap's command line, and what a container started by it can and cannot do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aiida_byoc.runtimes import RUNTIMES, Container, bubblewrap
from aiida_byoc.runtimes.in_job import STATUS_FD
from aiida_byoc.runtimes.in_job.container import exit_code_told

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap on PATH")


def command_line(rootfs: str, argv: list[str]) -> list[str]:
    return bubblewrap.command_line(Container(rootfs=rootfs, argv=argv))


def test_the_programs_words_come_last_and_literally() -> None:
    argv = ["--bind", "/", "$(id)", "a b", "", "{status_fd}", "--"]

    command = command_line("/images/x", argv)

    end = command.index("--")
    assert command[end + 1 :] == argv
    assert command[0] == RUNTIMES["bubblewrap"].program == "bwrap"


def test_the_container_gets_its_work_and_nothing_else_of_the_machine() -> None:
    options = command_line("/images/x", ["true"])
    options = options[: options.index("--")]

    binds = [options[at : at + 3] for at, word in enumerate(options) if "bind" in word]
    assert binds == [["--ro-bind", "/images/x", "/"], ["--bind", "work", "/work"]]
    for wanted in ("--unshare-all", "--die-with-parent", "--new-session"):
        assert wanted in options
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert options[options.index("--json-status-fd") + 1] == STATUS_FD
    assert not [word for word in options if word in {"--share-net", "--setenv", "--dev-bind"}]


def run(
    place: Path, rootfs: Path, *argv: str
) -> tuple[subprocess.CompletedProcess[str], int | None]:
    """Run a container as the job does; return what it said, and the status that bubblewrap told."""
    (place / "work").mkdir(exist_ok=True)
    told = place / "told"
    with told.open("wb") as status:
        command = [str(shutil.which("bwrap")), *command_line(str(rootfs), [*argv])[1:]]
        command[command.index(STATUS_FD)] = str(status.fileno())
        outcome = subprocess.run(
            command,
            cwd=place,
            env={"PATH": "/bin"},
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[status.fileno()],
        )
    return outcome, exit_code_told(told.read_bytes())


@needs_bubblewrap
@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_the_programs_status_is_told(
    tmp_path: Path, rootfs: Path, script: str, status: int
) -> None:
    outcome, told = run(tmp_path, rootfs, "sh", "-c", script)

    assert (outcome.returncode, told) == (status, status)


@needs_bubblewrap
def test_a_program_that_is_not_there_has_no_status(tmp_path: Path, rootfs: Path) -> None:
    outcome, told = run(tmp_path, rootfs, "no-such-program")

    assert outcome.returncode != 0
    assert told is None
    assert "no-such-program" in outcome.stderr


@needs_bubblewrap
@pytest.mark.parametrize(
    ("place", "possible"),
    [("/work", True), ("/tmp", True), ("/", False), ("/bin", False), ("/proc/sys", False)],
)
def test_i26_only_work_and_tmp_can_be_written(
    tmp_path: Path, rootfs: Path, place: str, possible: bool
) -> None:
    outcome, _ = run(tmp_path, rootfs, "sh", "-c", f"echo x > {place}/f")

    assert (outcome.returncode == 0) == possible
    assert not (rootfs / place.lstrip("/") / "f").exists()
    assert (tmp_path / "work" / "f").exists() == (place == "/work")


@needs_bubblewrap
def test_i26_the_container_has_no_privileges(tmp_path: Path, rootfs: Path) -> None:
    outcome, _ = run(tmp_path, rootfs, "cat", "/proc/self/status")

    fields = dict(re.findall(r"^(\w+):\s*(\S+)", outcome.stdout, re.MULTILINE))
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["Pid"]) < 10  # in a process namespace of its own


@needs_bubblewrap
def test_i26_the_container_has_no_network(tmp_path: Path, rootfs: Path) -> None:
    outcome, _ = run(tmp_path, rootfs, "cat", "/proc/net/dev")

    assert re.findall(r"^\s*(\w+):", outcome.stdout, re.MULTILINE) in ([], ["lo"])
    assert "Inter-" in outcome.stdout


@needs_bubblewrap
def test_the_environment_is_the_given_one(tmp_path: Path, rootfs: Path) -> None:
    outcome, _ = run(tmp_path, rootfs, "env")

    assert set(re.findall(r"^(\w+)=", outcome.stdout, re.MULTILINE)) <= {"PATH", "PWD"}
