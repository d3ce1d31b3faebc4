"""How the runtime's process is started: with what is for it, and nothing else, and held to its parent's life."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from aiida_byoc.runtimes import Launch
from tests.unit.node.inside import Job
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
