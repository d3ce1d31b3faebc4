"""The submit command of `byoc.slurm`, run by bash against a Slurm of a few lines."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiida.schedulers.scheduler import SchedulerError

from aiida_byoc.schedulers.slurm import ByocSlurmScheduler, job_directives

SCRIPT = "_aiidasubmit.sh"
SBATCH = 'env | grep ^SBATCH_ >> "$LOG"; echo "sbatch $*" >> "$LOG"; echo "Submitted batch job 99"'


@dataclass
class FakeSlurm:
    """`squeue` and `sbatch` on the PATH; what they are asked is logged."""

    directory: Path

    def answer(self, program: str, script: str) -> None:
        path = self.directory / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def squeue(self, script: str) -> None:
        self.answer("squeue", f'echo "squeue $*" >> "$LOG"\n{script}')

    @property
    def asked(self) -> list[str]:
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []

    def submit(self, name: str = SCRIPT, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the submit command as AiiDA's transport does: by bash, in the job's directory."""
        # AiiDA hands the name over as the shell is to read it.
        command = ByocSlurmScheduler()._get_submit_command(shlex.quote(name))
        path = f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env={"PATH": path, "LOG": str(self.directory / "log"), **env},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    """A Slurm that knows no job."""
    fake = FakeSlurm(tmp_path)
    fake.squeue("exit 0")
    fake.answer("sbatch", SBATCH)
    header = '#!/bin/bash\n#SBATCH --job-name="aiida-12"\n'
    (tmp_path / SCRIPT).write_text(f"{header}{job_directives('b-0123-1')}\nrun\n")
    return fake


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
    outcome = slurm.submit()

    assert job_id(outcome) == "99"
    asked, submitted = slurm.asked
    assert asked == "squeue --noheader --me --states=all --format=%i --name=b-0123-1"
    assert submitted == f"sbatch {SCRIPT}"


@pytest.mark.parametrize("known", ["17", "17\n18"], ids=["one", "two"])
def test_i17_a_job_that_slurm_knows_is_adopted(slurm: FakeSlurm, known: str) -> None:
    slurm.squeue(f"printf '{known}\\n'")

    outcome = slurm.submit()

    assert job_id(outcome) == "17"
    assert [line.split()[0] for line in slurm.asked] == ["squeue"]


def test_i17_a_queue_that_cannot_be_asked_stops_the_submission(slurm: FakeSlurm) -> None:
    """The job may be there; whoever cannot know must not submit it again."""
    slurm.squeue("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")

    outcome = slurm.submit()

    assert outcome.returncode == 1
    assert [line.split()[0] for line in slurm.asked] == ["squeue"]
    with pytest.raises(SchedulerError, match="Unable to contact"):
        job_id(outcome)


def test_a_queue_that_says_something_and_fails_is_not_believed(slurm: FakeSlurm) -> None:
    slurm.squeue("echo 17; exit 1")

    assert slurm.submit().returncode == 1
    assert [line.split()[0] for line in slurm.asked] == ["squeue"]


def test_i24_the_daemons_environment_changes_no_limit(slurm: FakeSlurm) -> None:
    slurm.submit(SBATCH_PARTITION="other", SBATCH_TIMELIMIT="1", SBATCH_EXCLUSIVE="")

    assert [line for line in slurm.asked if line.startswith("SBATCH_")] == []
    assert slurm.asked[-1] == f"sbatch {SCRIPT}"


def test_a_refusal_by_sbatch_is_the_commands(slurm: FakeSlurm) -> None:
    slurm.answer("sbatch", "echo 'sbatch: error: Batch job submission failed' >&2; exit 1")

    outcome = slurm.submit()

    assert outcome.returncode == 1
    assert "Batch job submission failed" in outcome.stderr


def test_a_script_with_an_odd_name_is_read_and_submitted(slurm: FakeSlurm) -> None:
    odd = "a 'b' $(touch broken).sh"
    (slurm.directory / SCRIPT).rename(slurm.directory / odd)

    assert job_id(slurm.submit(odd)) == "99"
    assert slurm.asked[-1] == f"sbatch {odd}"
    assert not (slurm.directory / "broken").exists()


def test_directives_name_the_attempt_and_allow_one_of_it() -> None:
    assert job_directives("b-1").splitlines() == [
        "#SBATCH --job-name=b-1",
        "#SBATCH --dependency=singleton",
    ]
    assert job_directives("b-1", gpus=2).splitlines()[-1] == "#SBATCH --gres=gpu:2"
