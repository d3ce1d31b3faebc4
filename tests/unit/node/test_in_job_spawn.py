"""How the runtime's process is started: with what is for it, and nothing else, and held to its parent's life."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from aiida_byoc.runtimes import Container, Launch, bubblewrap
from aiida_byoc.runtimes.in_job.placeholders import Placeholders
from tests.unit.node.inside import Job
from tests.unit.node.test_in_job import contained, needs_bubblewrap
from tests.unit.node.test_in_job_array import array, element, results

WITH_DESCRIPTOR = ["bash", "-c", 'exec 7< /etc/passwd; exec "$@"', "bash"]
"""Starts the job with a descriptor that whoever started it has left open."""
LEASHED = Launch(programs=["env"], command=["env"], leashed=True)
"""A runtime that holds itself to its parent's life, as far as it says."""


SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGALRM)
"""What Python ignores, and what the job listens to or holds back at times."""
LOOK = "for each in /proc/$$/fd/*; do if test -e $each; then echo ${each##*/}; fi; done"
"""What the shell has open, but for the directory that it looks into."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job", as_user=WITH_DESCRIPTOR)


def test_a_program_gets_no_descriptor_of_those_before(job: Job) -> None:
    assert job.sh(LOOK) == 0

    assert job.said().split() == ["0", "1", "2"]


@needs_bubblewrap
def test_nor_does_a_container(job: Job, rootfs: Path) -> None:
    assert job.run("sh", "-c", LOOK, **contained(rootfs)) == 0

    assert job.said().split() == ["0", "1", "2"]


@pytest.mark.parametrize("launch", [None, LEASHED])
def test_nor_does_a_task(job: Job, launch: Launch | None) -> None:
    array(job, LOOK, [("a",), ("b",)], launch=launch)

    assert element(job) == 0

    for number in range(2):
        said = (job.directory / f"byoc_array/tasks/0/{number}/stdout").read_text()
        assert said.split() == ["0", "1", "2"]


@pytest.mark.parametrize("launch", [None, LEASHED])
def test_a_program_has_no_input_and_the_usual_signals(job: Job, launch: Launch | None) -> None:
    """Python ignores SIGPIPE, and what is ignored stays so in the programs that it starts."""
    # A shell that waits blocks signals; so whoever looks takes its place.
    look = "test ! -t 0 && cat; exec grep -E '^Sig(Ign|Blk)' /proc/self/status"
    array(job, look, [("a",), ("b",)], launch=launch)

    assert element(job) == 0

    said = (job.directory / "byoc_array/tasks/0/0/stdout").read_text().split()
    ours = sum(1 << number - 1 for number in SIGNALS)
    assert [int(mask, 16) & ours for mask in said[1::2]] == [0, 0]


@pytest.mark.parametrize("leashed", [True, False])
@pytest.mark.parametrize(
    ("program", "reason"),
    [("/no-such", "No such file or directory: '/no-such'"), ("/etc", "denied")],
)
def test_what_cannot_be_started_says_why(
    job: Job, program: str, reason: str, leashed: bool
) -> None:
    launch = Launch(programs=[], command=[program], leashed=leashed)
    array(job, "true", [("a",), ("b",)], launch=launch)

    assert element(job) == 1

    assert reason in results(job)["t0"]["message"]


@needs_bubblewrap
def test_a_container_whose_gate_nobody_can_open_any_more_waits(
    rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the program of the job is killed before it has set the container's limits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    (told, status), (waiting, gate) = os.pipe(), os.pipe()
    words = Placeholders({"rootfs": str(rootfs), "processes": 64})
    words.name(status_fd=status, gate_fd=waiting, key_fd=gate)
    launch = bubblewrap.launch(Container(rootfs=str(rootfs), memory_mib=64))
    command = [*words.words(launch.command), "/bin/sh", "-c", "test -e /work/allowed"]
    given = [each for each in (status, waiting, gate) if str(each) in command]
    container = subprocess.Popen(command, pass_fds=given)
    os.close(status)
    os.close(gate)
    said = b""
    while b"\n" not in said:
        said += os.read(told, 4096)

    assert b"child-pid" in said
    assert select.select([told], [], [], 0.5)[0] == []  # no end, and nothing of one
    (tmp_path / "work" / "allowed").touch()
    Path(f"/proc/self/fd/{waiting}").write_bytes(b".")  # the pipe, opened once more
    assert container.wait(30) == 0
    os.close(told)
    os.close(waiting)
