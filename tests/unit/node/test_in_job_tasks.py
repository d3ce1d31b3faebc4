"""A parallel job, with a `srun` of a few lines that starts its tasks here: how it ends, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.runtimes import Launch, in_job
from tests.unit.node.inside import Job

SRUN = """\
#!/bin/bash
echo "$@" > asked
while [ "${1#--}" != "$1" ]; do shift; done
status=0
for number in $(seq 0 $((TASKS - 1))); do
  SLURM_PROCID=$number SLURMD_NODENAME=c$number PMI_RANK=$number "$@" & pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; ended=$?; [ $ended -le $status ] || status=$ended; done
exit $status
"""
BURN = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(tmp_path / "job")


@pytest.fixture
def run(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a shell script as each of three tasks; return the job's exit status."""

    def run(script: str, srun: str = SRUN, **options: Any) -> int:
        place = tmp_path / "bin"
        place.mkdir()
        (place / "srun").write_text(srun)
        (place / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("TASKS", "3")
        asked = {"tasks": {"count": 3, "per_node": 1, "cpus": 2}}
        return job.run("/bin/sh", "-c", script, job=asked, **options)

    return run


def test_every_task_runs_and_the_record_is_one(job: Job, run: Callable[..., int]) -> None:
    assert run("echo task $SLURM_PROCID $PMI_RANK $SLURM_JOB_ID; touch work/$SLURM_PROCID") == 0

    assert sorted(job.said().splitlines()) == ["task 0 0", "task 1 1", "task 2 2"]
    assert (job.record["container_started"], job.record["exit_code"]) == (True, 0)
    assert job.record["message"] is None
    asked = (job.directory / "asked").read_text().split()
    assert {"--mpi=pmi2", "--kill-on-bad-exit=1", "--input=none", "--cpus-per-task=2"} <= set(asked)


def test_nobody_says_that_no_process_is_left(job: Job, run: Callable[..., int]) -> None:
    """Tasks are children of Slurm's steps, on other machines too: the Epilog has to look."""
    assert run("true") == 0

    assert not (job.directory / in_job.NONE_LEFT).exists()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit $SLURM_PROCID", 2),
        ("exit $((3 - SLURM_PROCID))", 3),
        ("[ $SLURM_PROCID != 1 ] || exit 7; kill -TERM $$", 7),
        ("[ $SLURM_PROCID != 1 ] || kill -KILL $$; kill -TERM $$", 137),
        ("kill -TERM $$", 143),
    ],
)
def test_the_worst_of_those_that_ended_by_themselves_counts(
    job: Job, run: Callable[..., int], script: str, status: int
) -> None:
    assert run(script) == status
    assert job.record["exit_code"] == status


def test_usage_is_that_of_all_tasks(job: Job, run: Callable[..., int]) -> None:
    run(f"[ $SLURM_PROCID = 0 ] || exit 0; {BURN}")
    alone = job.record["usage"]["cpu_seconds"]

    assert alone > 0.01
    assert job.record["usage"]["peak_rss_mib"] > 0.5


def test_a_task_whose_program_is_not_there_is_named(job: Job, run: Callable[..., int]) -> None:
    launch = Launch(
        programs=[],
        command=["sh", "-c", 'echo "bad: $SLURM_PROCID" >&2; exit 1'],
        started="status",
        not_started="^bad",
    )

    assert run("true", launch=launch) == in_job.NOT_STARTED
    assert job.record["container_started"] is False
    assert job.record["message"].startswith("task 0 on c0: /bin/sh: bad")


def test_an_srun_that_starts_nothing_is_told(job: Job, run: Callable[..., int]) -> None:
    said = "#!/bin/sh\necho 'srun: error: Couldnt find the specified plugin' >&2\nexit 1\n"

    assert run("true", srun=said) == in_job.UNUSABLE
    assert job.record["exit_code"] is None
    assert "Couldnt find the specified plugin" in job.record["message"]


def test_a_machine_without_srun_is_told(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    status = job.run("true", job={"tasks": {"count": 3, "per_node": 1, "cpus": 2}})

    assert status == in_job.UNUSABLE
    assert job.record["message"] == "srun is not on the compute node's PATH"


def test_i17_a_second_copy_starts_no_task(job: Job, run: Callable[..., int]) -> None:
    (job.directory / in_job.FENCE).mkdir()

    assert run("true") == in_job.FENCED
    assert not (job.directory / "asked").exists()
