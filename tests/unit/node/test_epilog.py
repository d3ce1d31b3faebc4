"""What the Epilog ends on a compute node, and what spares it looking: the note of a job that has no process left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aiida_byoc.cli.checks import EPILOG
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job import packed
from tests.eventually import eventually
from tests.unit.node.inside import SLURM, Job
from tests.unit.node.test_in_job_array import array, element

ID, OTHER = SLURM["SLURM_JOB_ID"], "18"
NAME = f"{SLURM['SLURM_CLUSTER_NAME']}-{ID}"
"""What a container of the job calls its machine."""
ANSWERS = "while line := __import__('sys').stdin.readline(): print(line, end='', flush=True)"


@contextmanager
def left_behind(*words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers for as long as it lives."""
    with subprocess.Popen(
        [sys.executable, "-c", ANSWERS, *words],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            assert lives(process)
            yield process
        finally:
            process.kill()


def lives(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(b"yes\n")
    return process.stdout.readline() == b"yes\n"


def epilog(directory: Path | None) -> None:
    """Run it as slurmd does; the older ones do not say where a job worked."""
    where = {} if directory is None else {"SLURM_JOB_WORK_DIR": str(directory)}
    asked = {**SLURM, **where, "SLURM_JOB_UID": str(os.getuid())}
    subprocess.run(["sh", str(EPILOG)], env=asked, check=True, timeout=60)


def note(directory: Path, slurm_id: str) -> Path:
    return directory / in_job.NONE_LEFT / slurm_id


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job")


@pytest.mark.parametrize("noted", [None, OTHER], ids=["no note", "another's note"])
@pytest.mark.parametrize(
    ("words", "environment"), [([NAME], {}), ([], {"HOSTNAME": NAME})], ids=["word", "HOSTNAME"]
)
def test_what_is_left_of_a_job_is_ended(
    tmp_path: Path, noted: str | None, words: list[str], environment: dict[str, str]
) -> None:
    if noted:
        note(tmp_path, noted).parent.mkdir()
        note(tmp_path, noted).touch()

    with left_behind(*words, **environment) as left, left_behind(f"{NAME}0") as another:
        epilog(tmp_path)

        assert not lives(left)
        assert lives(another)


def test_it_is_looked_for_where_slurm_does_not_say_where_the_job_worked() -> None:
    with left_behind(NAME) as left:
        epilog(None)

        assert not lives(left)


def test_nothing_is_looked_for_where_the_job_says_that_none_is_left(tmp_path: Path) -> None:
    note(tmp_path, ID).parent.mkdir()
    note(tmp_path, ID).touch()

    with left_behind(NAME) as unlooked:
        epilog(tmp_path)

        assert lives(unlooked)


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_that_ends_in_order_says_that_none_is_left(job: Job, status: int) -> None:
    assert job.sh(f"exit {status}") == status

    assert note(job.directory, ID).exists()


def test_a_job_that_is_killed_does_not(job: Job) -> None:
    job.sh("kill -KILL $PPID")

    assert not note(job.directory, ID).exists()


@pytest.mark.parametrize("pack", [1, 2])
def test_each_element_of_an_array_says_it_of_itself(job: Job, pack: int) -> None:
    job.words = packed.START
    array(job, "true", [("a",)] * 2 * pack, pack=pack, elements=2)

    assert element(job, 0) == 0
    assert [each.name for each in note(job.directory, ID).parent.iterdir()] == [ID]
    second = job.go(SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="1", SLURM_JOB_ID=OTHER)
    assert second.wait(60) == 0

    assert note(job.directory, OTHER).exists()


def test_an_element_with_a_process_left_does_not(job: Job, tmp_path: Path) -> None:
    """A task's worker that is killed leaves the element what it had started, which is not waited for."""
    go, count = tmp_path / "go", Path(f"/sys/fs/cgroup/pids/byoc-{NAME}")
    job.words = packed.START
    script = f"kill -KILL $PPID; until [ -e {go} ]; do sleep 0.05; done"
    array(job, script, [("a",), ("b",)], workers=1)

    assert element(job) == 1
    assert not note(job.directory, ID).exists()

    def is_gone() -> bool:
        epilog(job.directory)
        return not count.exists()

    go.touch()
    eventually(is_gone, "what counts the processes to be removed")
