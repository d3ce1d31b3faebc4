"""The look at Slurm and at the job's directory, run by bash against a Slurm of a few lines."""

from __future__ import annotations

import fcntl
import shlex
from pathlib import Path

import pytest

from aiida_byoc.schedulers import witnesses
from aiida_byoc.schedulers.slurm import ByocSlurmScheduler
from aiida_byoc.schedulers.witnesses import (
    NODE,
    Evidence,
    close_command,
    evidence,
    look_command,
)
from tests.unit.node.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    """A Slurm that knows no job, at a site without accounting."""
    fake = FakeSlurm(tmp_path)
    fake.answer("squeue", "exit 0")
    fake.answer("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return fake


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a job; its name is one that a shell could trip over."""
    place = tmp_path / "it's $(a) job"
    place.mkdir()
    (place / "byoc_job.json").write_text("{}")
    return place


def look(slurm: FakeSlurm, place: Path) -> Evidence:
    return evidence(slurm.run(look_command({"b-1": str(place)})).stdout)["b-1"]


def test_a_job_that_nobody_knows(slurm: FakeSlurm, place: Path) -> None:
    assert look(slurm, place) == Evidence(
        controller=True, jobs={}, accounts={}, directory=True, fence=None, record=False
    )
    assert slurm.asked[0] == "squeue --noheader --me --states=all --format=%F %T %j %r --name=b-1"


def test_jobs_of_the_controller(slurm: FakeSlurm, place: Path) -> None:
    """Accounting is not asked: it is older."""
    slurm.answer("squeue", "echo '17 RUNNING b-1'; echo '18 PENDING b-1'")

    found = look(slurm, place)

    assert (found.jobs, found.accounts) == ({"17": "RUNNING", "18": "PENDING"}, {})
    assert slurm.programs == ["squeue"]


def test_accounting_remembers_what_the_controller_forgot(slurm: FakeSlurm, place: Path) -> None:
    slurm.answer("sacct", "echo '17|CANCELLED by 1000|None assigned'; echo '18|COMPLETED|n[1-2]'")

    found = look(slurm, place)

    assert (found.jobs, found.accounts) == ({}, {"17": "CANCELLED", "18": "COMPLETED"})


def test_a_controller_that_does_not_answer(slurm: FakeSlurm, place: Path) -> None:
    """Accounting is not asked: it may know of an end, whether a copy runs it cannot know."""
    slurm.answer("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")

    assert look(slurm, place).controller is False
    assert slurm.programs == ["squeue"]


def test_what_the_job_wrote(slurm: FakeSlurm, place: Path) -> None:
    (place / "byoc_fence").mkdir()
    assert look(slurm, place).fence == ""
    (place / "byoc_fence/owner").write_text("17\n")
    (place / "byoc_record.json").write_text("{}")

    found = look(slurm, place)

    assert (found.fence, found.record) == ("17", True)


def test_a_directory_that_is_gone(slurm: FakeSlurm, place: Path) -> None:
    """What lies where the command happens to run is not the job's."""
    (slurm.directory / "byoc_record.json").write_text("{}")

    found = look(slurm, place / "gone")

    assert (found.directory, found.fence, found.record) == (False, None, False)


def test_an_answer_that_broke_off_says_nothing(slurm: FakeSlurm, place: Path) -> None:
    output = slurm.run(look_command({"b-1": str(place), "b-2": "/gone"})).stdout

    for length in range(len(output) - 1):
        with pytest.raises(ValueError, match="broke off"):
            evidence(output[:length])


def test_many_jobs_are_one_question_to_slurm(slurm: FakeSlurm, place: Path, tmp_path: Path) -> None:
    """Each keeps what is its own; accounting is asked about those that the controller does not know."""
    other = tmp_path / "other"
    (other / "byoc_fence").mkdir(parents=True)
    (other / "byoc_fence/owner").write_text("18\n")
    slurm.answer("squeue", "echo '18 COMPLETING b-12'; echo '19 PENDING b-12'")
    slurm.answer("sacct", "echo '17|TIMEOUT|n1'")

    command = look_command({"b-1": str(place), "b-12": str(other), "b-3": "/gone"})
    found = evidence(slurm.run(command).stdout)

    assert [line for line in slurm.asked if line.startswith("squeue")] == [
        "squeue --noheader --me --states=all --format=%F %T %j %r --name=b-1,b-12,b-3"
    ]
    assert {name: dict(each.jobs) for name, each in found.items()} == {
        "b-1": {},
        "b-12": {"18": "COMPLETING", "19": "PENDING"},
        "b-3": {},
    }
    accounts = [dict(each.accounts) for each in found.values()]
    assert accounts == [{"17": "TIMEOUT"}, {}, {}]
    assert [each.fence for each in found.values()] == [None, "18", None]
    assert [each.directory for each in found.values()] == [True, True, False]


def test_the_fence_is_taken_once(slurm: FakeSlurm, place: Path) -> None:
    assert slurm.run(close_command(str(place))).returncode == 0
    assert look(slurm, place).fence == NODE
    assert slurm.run(close_command(str(place))).returncode != 0


def test_the_fence_of_a_job_stays_its_own(slurm: FakeSlurm, place: Path) -> None:
    (place / "byoc_fence").mkdir()
    (place / "byoc_fence/owner").write_text("17\n")

    assert slurm.run(close_command(str(place))).returncode != 0
    assert look(slurm, place).fence == "17"


def test_the_fence_is_not_taken_behind_the_back_of_a_submission(
    slurm: FakeSlurm, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job would wait in Slurm's queue, and nobody know of it."""
    monkeypatch.setattr(witnesses, "PATIENCE", 0)
    with (place / "byoc_submit.lock").open("w") as submitting:
        fcntl.flock(submitting, fcntl.LOCK_EX)
        assert slurm.run(close_command(str(place))).returncode != 0
        assert look(slurm, place).fence is None

    assert slurm.run(close_command(str(place))).returncode == 0


def test_i18_details_are_those_of_our_job(slurm: FakeSlurm) -> None:
    """A job that got the id of ours is not described; accounting is asked by id, name and user."""
    shown = "JobId=17 JobName={} UserId={}(0) JobState=FAILED"
    command = ByocSlurmScheduler()._get_detailed_job_info_command("17/b-1")
    user = slurm.run("id -un").stdout.strip()

    for name, owner in [("b-1", user), ("b-12", user), ("b-1", "eve"), ("x", user)]:
        slurm.answer("scontrol", f"echo {shlex.quote(shown.format(name, owner))}")
        slurm.answer("sacct", "echo 'TIMEOUT|0:0'")
        ours = (name, owner) == ("b-1", user)
        assert ("FAILED" in slurm.run(command).stdout) is ours
    assert {"--jobs=17", "--name=b-1", f"--user={user}"} <= set(slurm.asked[-1].split())
