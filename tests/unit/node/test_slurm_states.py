"""What `byoc.slurm` makes of Slurm's answers. The samples are of Slurm 22.05, shortened."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from aiida.engine import ExitCode
from aiida.schedulers.datastructures import JobState
from aiida.schedulers.scheduler import SchedulerError

from aiida_byoc.schedulers.slurm import REFUSED, ByocSlurmScheduler
from tests.unit.node.fake_slurm import FakeSlurm

SHOWN = (
    "JobId=17 JobName=b-0123-1 UserId=alice(1000) GroupId=alice(1000) Priority=4294901757 Nice=0"
    " Account=(null) QOS=(null) JobState={} Reason=None Dependency=(null) Requeue=0 Restarts=0"
    " ExitCode=0:0 RunTime=00:00:01 TimeLimit=00:01:00\n"
)
SEPARATOR = "^^^"


@pytest.fixture
def scheduler() -> ByocSlurmScheduler:
    return ByocSlurmScheduler()


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("OUT_OF_MEMORY", 110),
        ("TIMEOUT", 120),
        ("DEADLINE", 144),
        ("NODE_FAIL", 140),
        ("BOOT_FAIL", 143),
        ("PREEMPTED", 141),
        ("CANCELLED", 142),
        ("COMPLETED", None),
        ("FAILED", None),
        ("RUNNING", None),
        ("SOMETHING_NEW", None),
    ],
)
def test_the_final_state_becomes_an_exit_code(
    scheduler: ByocSlurmScheduler, state: str, status: int | None
) -> None:
    for said in (SHOWN.format(state), f"{state}|0:0\n"):
        info: dict[str, str | int] = {"retval": 0, "stdout": said, "stderr": ""}
        code = scheduler.parse_output(info, "", "")
        assert (code.status if code else None) == status


@pytest.mark.parametrize(
    ("state", "status"), [("FAILED", 110), ("COMPLETED", None), ("TIMEOUT", 120), (None, 110)]
)
def test_words_about_memory_count_unless_slurm_contradicts(
    scheduler: ByocSlurmScheduler, state: str | None, status: int | None
) -> None:
    """Where no cgroup reports it, slurmd says so on the stream that is the program's too."""
    said = "slurmstepd: error: Step 17.batch exceeded memory, Exceeded job memory limit\n"
    info: dict[str, str | int] | None = {"stdout": SHOWN.format(state)} if state else None

    code = scheduler.parse_output(info, "", said)

    assert (code.status if code else None) == status


def test_without_an_answer_slurm_says_nothing(scheduler: ByocSlurmScheduler) -> None:
    assert scheduler.parse_output(None, None, None) is None
    assert scheduler.parse_output({"retval": 1}, None, None) is None
    assert scheduler.parse_output({"retval": 1, "stdout": "", "stderr": "x"}, "", "") is None


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination",
        "sbatch: error: invalid partition specified: nowhere",
        "sbatch: error: Batch job submission failed: Invalid qos specification",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: CPU count per node can not be satisfied\nMore processors requested than permitted",
        "sbatch: error: Memory specification can not be satisfied",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        "sbatch: error: Batch job submission failed: Invalid generic resource (gres) specification",
        "sbatch: error: Batch job submission failed: Invalid job array specification",
        "sbatch: error: Batch job submission failed: Access/permission denied",
        "sbatch: error: User's group not permitted to use this partition",
        "SBATCH: ERROR: INVALID ACCOUNT",
    ],
)
def test_a_refusal_for_good_ends_the_job(scheduler: ByocSlurmScheduler, said: str) -> None:
    code = scheduler._parse_submit_output(1, "", said)

    assert isinstance(code, ExitCode)
    assert code.status == REFUSED
    assert code.message is not None
    assert said.splitlines()[0] in code.message


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "",
    ],
)
def test_what_may_pass_is_tried_again(scheduler: ByocSlurmScheduler, said: str) -> None:
    with pytest.raises(SchedulerError):
        scheduler._parse_submit_output(1, "", said)


def test_words_of_a_refusal_in_a_success_are_none(scheduler: ByocSlurmScheduler) -> None:
    warning = "sbatch: warning: Invalid account, using the default"

    said = "byoc job name b-0123-1\nSubmitted batch job 17\n"
    assert scheduler._parse_submit_output(0, said, warning) == "17/b-0123-1"
    with pytest.raises(SchedulerError, match="could not retrieve the jobID"):
        scheduler._parse_submit_output(0, "queued\n", "")
    with pytest.raises(SchedulerError, match="did not name its job"):
        scheduler._parse_submit_output(0, "Submitted batch job 17\n", "")


def line(job: str, state: str, reason: str = "None") -> str:
    fields = [job, state, reason, "c1", "alice", "1", "2", "c1", "main", "1:00", "0:01"]
    fields += ["2026-02-15T10:00:00", "b-0123-1", "2026-02-15T10:00:00"]
    return SEPARATOR.join(fields)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PD", JobState.QUEUED),
        ("R", JobState.RUNNING),
        ("S", JobState.SUSPENDED),
        ("CD", JobState.DONE),
        ("F", JobState.DONE),
        ("TO", JobState.DONE),
        ("NF", JobState.DONE),
        ("CA", JobState.DONE),
        ("OOM", JobState.DONE),
        ("DL", JobState.DONE),
        ("BF", JobState.DONE),
        ("XX", JobState.UNDETERMINED),
    ],
)
def test_states_of_the_queue(scheduler: ByocSlurmScheduler, state: str, expected: JobState) -> None:
    (job,) = scheduler._parse_joblist_output(0, line("17", state) + "\n", "")

    assert (job.job_id, job.job_state) == ("17/b-0123-1", expected)


def test_a_wait_for_the_twin_is_told(scheduler: ByocSlurmScheduler) -> None:
    (job,) = scheduler._parse_joblist_output(0, line("17", "PD", "Dependency"), "")

    assert (job.job_state, job.annotation) == (JobState.QUEUED_HELD, "Dependency")


def test_each_job_has_its_own_line(scheduler: ByocSlurmScheduler) -> None:
    said = "\n".join([line("17", "R"), line("18", "OOM"), "a line of something else"])

    jobs = scheduler._parse_joblist_output(0, said, "")

    assert [(job.job_id, job.job_state) for job in jobs] == [
        ("17/b-0123-1", JobState.RUNNING),
        ("18/b-0123-1", JobState.DONE),
    ]


def test_i18_a_job_under_our_id_with_another_name_is_not_ours(
    scheduler: ByocSlurmScheduler,
) -> None:
    """What AiiDA asks for by "17/b-0123-1" it does not find."""
    (job,) = scheduler._parse_joblist_output(0, line("17", "R").replace("b-0123-1", "theirs"), "")

    assert job.job_id == "17/theirs"


def test_a_job_that_slurm_forgot_is_no_error(scheduler: ByocSlurmScheduler) -> None:
    said = "slurm_load_jobs error: Invalid job id specified\n"

    assert scheduler._parse_joblist_output(1, "", said) == []


def test_a_queue_that_cannot_be_asked_is_an_error(scheduler: ByocSlurmScheduler) -> None:
    """Absence from an answer that never came means nothing."""
    said = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"

    with pytest.raises(SchedulerError):
        scheduler._parse_joblist_output(1, "", said)


def test_jobs_that_ended_are_asked_for_too(scheduler: ByocSlurmScheduler, tmp_path: Path) -> None:
    slurm = FakeSlurm(tmp_path)
    slurm.answer("squeue", "")
    slurm.answer("timeout", '[ "$1" = 20 ] && shift && exec "$@"')

    slurm.run(scheduler._get_joblist_command(jobs=["17/b-1", "18/b-2"]))

    assert slurm.programs == ["timeout", "squeue"]
    assert {"--states=all", "--me", "--jobs=17,18"} <= set(slurm.asked[-1].split())


def test_a_lone_job_is_asked_for_once(scheduler: ByocSlurmScheduler, tmp_path: Path) -> None:
    """Named twice, as AiiDA does, `squeue` has the controller send all jobs that it knows."""
    slurm = FakeSlurm(tmp_path)
    slurm.answer("squeue", "")

    slurm.run(scheduler._get_joblist_command(jobs=["17/b-1"]))

    assert "--jobs=17" in slurm.asked[-1].split()


def test_i18_a_job_is_cancelled_by_id_name_and_user(
    scheduler: ByocSlurmScheduler, tmp_path: Path
) -> None:
    slurm = FakeSlurm(tmp_path)
    slurm.answer("scancel", "")

    slurm.run(scheduler._get_kill_command("17/b-0123-1"))

    user = pwd.getpwuid(os.geteuid()).pw_name
    assert slurm.asked == [f"scancel --name=b-0123-1 --user={user} 17"]
