"""The submit command of `byoc.slurm`, run by bash against a Slurm of a few lines."""

from __future__ import annotations

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiida.engine import ExitCode
from aiida.schedulers.scheduler import SchedulerError

from aiida_byoc.schedulers.options import job_directives, job_name
from aiida_byoc.schedulers.slurm import REFUSED, ByocSlurmScheduler
from tests.unit.node.fake_slurm import SCRIPT, FakeSlurm

ASKED = "sbatch --export=ALL --job-name=b-0123-1 --dependency=singleton"
SBATCH = 'env | grep ^SBATCH_ >> "$LOG"; echo "Submitted batch job 99"'
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
KNOWN_ONCE_SUBMITTED = "grep -q '^sbatch' \"$LOG\" && echo '99 PENDING'; exit 0"
NOWHERE = (
    "sbatch: error: Batch job submission failed: Requested node configuration is not available"
)
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    """A Slurm that knows no job, at a site without accounting."""
    fake = FakeSlurm(tmp_path)
    fake.answer("squeue", "exit 0")
    fake.answer("sacct", DISABLED)
    fake.answer("sbatch", SBATCH)
    (tmp_path / SCRIPT).write_text(f"#!/bin/bash\n{job_directives('b-0123-1')}\n\nrun\n")
    (tmp_path / "byoc_job.json").write_text("{}")
    return fake


def fence(slurm: FakeSlurm, owner: str) -> None:
    (slurm.directory / "byoc_fence").mkdir()
    (slurm.directory / "byoc_fence" / "owner").write_text(f"{owner}\n")


def job_id(outcome: subprocess.CompletedProcess[str]) -> object:
    return ByocSlurmScheduler()._parse_submit_output(
        outcome.returncode, outcome.stdout, outcome.stderr
    )


@pytest.mark.parametrize("name", [SCRIPT, "a b.sh", "$(reboot).sh", "it's.sh"])
def test_the_command_is_one_that_bash_can_read(name: str) -> None:
    command = ByocSlurmScheduler()._get_submit_command(shlex.quote(name))

    outcome = subprocess.run(
        ["bash", "-n"], input=command, capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_a_job_that_slurm_does_not_know_is_submitted(slurm: FakeSlurm) -> None:
    """The controller and accounting were asked by the attempt's name; the id that is kept holds it."""
    outcome = slurm.submit()

    assert job_id(outcome) == "99/b-0123-1"
    queue, accounting, submitted = slurm.asked
    assert queue == "squeue --noheader --me --states=all --format=%F %T %j %r --name=b-0123-1"
    assert "--name=b-0123-1" in accounting.split()
    assert any(word.startswith("--starttime=20") for word in accounting.split())
    assert submitted == f"{ASKED} {SCRIPT}"


@pytest.mark.parametrize(
    ("known", "adopted"),
    [("17 PENDING", "17"), ("17 COMPLETED", "17"), ("18 PENDING\\n9 RUNNING", "9")],
    ids=["waiting", "ended", "two"],
)
def test_i17_a_job_that_slurm_knows_is_adopted(slurm: FakeSlurm, known: str, adopted: str) -> None:
    slurm.answer("squeue", f"printf '{known}\\n'")

    assert job_id(slurm.submit()) == f"{adopted}/b-0123-1"
    assert slurm.programs == ["squeue"]


def test_i17_a_job_that_only_accounting_knows_is_adopted(slurm: FakeSlurm) -> None:
    """The controller forgets a job MinJobAge after its end."""
    slurm.answer("sacct", "echo '17|CANCELLED by 1000|None assigned'")

    assert job_id(slurm.submit()) == "17/b-0123-1"
    assert "sbatch" not in slurm.programs


def test_i17_a_job_that_left_its_fence_is_adopted(slurm: FakeSlurm) -> None:
    """It ran, or runs, whatever Slurm remembers of it."""
    fence(slurm, "17")

    assert job_id(slurm.submit()) == "17/b-0123-1"
    assert slurm.programs == []


def test_an_attempt_that_the_node_closed_is_refused(slurm: FakeSlurm) -> None:
    """It was found lost or stopped: nothing is submitted for it any more."""
    fence(slurm, "node")

    code = job_id(slurm.submit())

    assert isinstance(code, ExitCode)
    assert code.status == REFUSED
    assert slurm.programs == []


def test_i17_a_submission_that_timed_out_and_was_carried_out_is_adopted(slurm: FakeSlurm) -> None:
    """Five calls, one job: AiiDA tries again after every failure it hears of."""
    slurm.answer("sbatch", f"echo '{TIMED_OUT}' >&2; exit 1")
    slurm.answer("squeue", KNOWN_ONCE_SUBMITTED)

    assert [job_id(slurm.submit()) for _ in range(5)] == ["99/b-0123-1"] * 5
    assert slurm.programs.count("sbatch") == 1


def test_a_submission_that_failed_and_left_nothing_is_an_error(slurm: FakeSlurm) -> None:
    slurm.answer("sbatch", f"echo '{TIMED_OUT}' >&2; exit 1")

    outcome = slurm.submit()

    assert outcome.returncode == 1
    with pytest.raises(SchedulerError, match="Socket timed out"):
        job_id(outcome)


def test_i17_two_submissions_at_once_make_one_job(slurm: FakeSlurm) -> None:
    """A worker that was taken for dead may still be at it."""
    slurm.answer("squeue", KNOWN_ONCE_SUBMITTED)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: slurm.submit(), range(8)))

    assert {job_id(outcome) for outcome in outcomes} == {"99/b-0123-1"}
    assert slurm.programs.count("sbatch") == 1


@pytest.mark.parametrize(
    "script",
    [
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        "echo '17 RUNNING'; exit 1",
    ],
    ids=["silent", "says something"],
)
def test_i17_a_queue_that_cannot_be_asked_stops_the_submission(
    slurm: FakeSlurm, script: str
) -> None:
    """The job may be there; whoever cannot know must not submit it again."""
    slurm.answer("squeue", script)

    outcome = slurm.submit()

    assert outcome.returncode == 1
    assert slurm.programs == ["squeue"]
    with pytest.raises(SchedulerError):
        job_id(outcome)


def test_i24_the_daemons_environment_changes_no_limit(slurm: FakeSlurm) -> None:
    slurm.submit(SBATCH_PARTITION="other", SBATCH_TIMELIMIT="1", SBATCH_EXCLUSIVE="")

    assert [line for line in slurm.asked if line.startswith("SBATCH_")] == []
    assert slurm.asked[-1] == f"{ASKED} {SCRIPT}"


def test_a_refusal_by_sbatch_is_the_commands(slurm: FakeSlurm) -> None:
    slurm.answer("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")

    code = job_id(slurm.submit())

    assert isinstance(code, ExitCode)
    assert code.status == REFUSED


@pytest.mark.parametrize(
    ("program", "known"),
    [
        ("squeue", "17 FAILED b-0123-1 BadConstraints"),
        ("sacct", "17|FAILED|None assigned"),
    ],
)
def test_a_job_that_sbatch_was_refused_is_not_adopted(
    slurm: FakeSlurm, program: str, known: str
) -> None:
    """Slurm keeps a record of it, as if it had been a job that failed."""
    slurm.answer("sbatch", f"echo '{NOWHERE}' >&2; exit 1")
    slurm.answer(program, f"echo '{known}'")

    code = job_id(slurm.submit())

    assert isinstance(code, ExitCode)
    assert (code.status, "node configuration" in (code.message or "")) == (REFUSED, True)


def test_a_job_that_failed_on_its_node_is_adopted(slurm: FakeSlurm) -> None:
    slurm.answer("sacct", "echo '17|FAILED|n1'")

    assert job_id(slurm.submit()) == "17/b-0123-1"


def test_a_script_with_an_odd_name_is_read_and_submitted(slurm: FakeSlurm) -> None:
    odd = "a 'b' $(touch broken).sh"
    (slurm.directory / SCRIPT).rename(slurm.directory / odd)

    assert job_id(slurm.submit(odd)) == "99/b-0123-1"
    assert slurm.asked[-1] == f"{ASKED} {odd}"
    assert not (slurm.directory / "broken").exists()


def test_a_job_without_a_name_of_its_own_is_refused(slurm: FakeSlurm) -> None:
    """AiiDA's `aiida-12` may be another profile's: it identifies nothing, and is not in the script."""
    (slurm.directory / SCRIPT).write_text("#!/bin/bash\n#SBATCH --nodes=1\n\nrun\n")

    code = job_id(slurm.submit())

    assert isinstance(code, ExitCode)
    assert code.status == REFUSED
    assert slurm.programs == []


def test_directives_name_the_attempt_and_allow_one_of_it() -> None:
    assert job_directives("b-1").splitlines() == [
        "#SBATCH --job-name=b-1",
        "#SBATCH --dependency=singleton",
    ]
    asked = job_directives("b-1", gres="gpu:2", scratch_mib=7)
    assert asked.splitlines()[2:] == ["#SBATCH --gres=gpu:2", "#SBATCH --tmp=7"]
    assert job_name(asked) == "b-1"
