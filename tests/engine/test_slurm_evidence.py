"""A job ends when its witnesses agree: what becomes of doubts. Real Slurm, whose controller is killed and stopped."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from lab import accounting, slurm
from lab.paths import LabPaths
from lab.process import recorded, wait_until
from lab.process import stop as stop_daemons
from tests.engine.driving import RUN_LOG, SHORT, Underway, nothing_starts, run, squeue

THEIRS = (
    "sbatch",
    "--parsable",
    "--hold",
    "--job-name=theirs",
    "--output=/dev/null",
    "--wrap=true",
)

pytestmark = pytest.mark.usefixtures("little_patience")


@pytest.fixture
def amnesia(paths: LabPaths, cluster: slurm.Slurm, node: Any) -> Iterator[Callable[..., str]]:
    """Kill the controller and let it forget a job, as when it dies within 5 s of a state save.

    The saved state is put back to what it was before the job; so the job's id is the next to be given away, and
    somebody else gets it at once. Give back that other job's id.
    """
    state, kept = paths.root / "slurm" / "state", paths.root / "slurm" / "kept"
    wait_until(lambda: not squeue("--format=%i"), 30, "an idle cluster")
    stop_daemons(paths, "slurmctld")  # which saves everything
    shutil.copytree(state, kept)
    slurm.start_controller(paths)
    others = []

    def forget(meanwhile: Callable[[], object] = lambda: None) -> str:
        controller = recorded(paths)["slurmctld"]
        os.kill(controller.pid, signal.SIGKILL)
        wait_until(lambda: not controller.alive, 10, "the controller to die")
        meanwhile()
        shutil.rmtree(state)
        shutil.copytree(kept, state)
        slurm.start_controller(paths)
        others.append(run(*THEIRS).strip())
        return others[-1]

    yield forget
    shutil.rmtree(kept)
    run("scancel", *others)


def test_i18_a_forgotten_job_ends_by_its_record(node: Any, amnesia: Callable[..., str]) -> None:
    """Somebody else's job has its id by then, and is neither polled nor touched."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 1"))
    ours = job.until_state("running")["scheduler"]["job_id"]

    record = job.directory / "byoc_record.json"
    theirs = amnesia(lambda: wait_until(record.exists, 30, "the job to end by itself"))
    chain = job.finish()

    assert theirs == ours
    assert chain.is_finished_ok, chain.exit_message
    assert job.runs == 1
    assert job.states[-1] == "succeeded"
    assert squeue(f"--jobs={theirs}", "--format=%j") == "theirs"


def test_i18_a_forgotten_job_without_a_record_is_held_and_lost(
    node: Any, amnesia: Callable[..., str]
) -> None:
    """It took the fence and left no record: nobody knows whether it runs, until its walltime has passed."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 60", resource_shape=SHORT))
    ours = job.until_state("running")["scheduler"]["job_id"]

    theirs = amnesia()
    held = job.until_state("held")
    job.finish()

    assert theirs == ours
    assert f"does not know job {ours}" in held["reason"]
    assert job.runs == 1
    error = job.last["error"]
    assert (job.last["state"], error["code"], error["retryable"]) == ("failed", "lost", True)
    assert squeue(f"--jobs={theirs}", "--format=%j") == "theirs"


def test_i18_a_cancel_leaves_the_job_that_got_our_id(
    node: Any, amnesia: Callable[..., str]
) -> None:
    """`scancel` goes by id, name and user; the end is told once nothing of ours can be left."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 60", resource_shape=SHORT))
    job.until_state("running")

    theirs = amnesia()
    job.stop()

    assert job.last["state"] == "cancelled"
    assert squeue(f"--jobs={theirs}", "--format=%j") == "theirs"


@pytest.mark.skipif(
    not accounting.is_wanted(), reason="a Slurm without accounts; BYOC_LAB_ACCOUNTING=slurmdbd"
)
def test_an_end_that_the_controller_forgot_is_known_to_accounting(
    node: Any, amnesia: Callable[..., str]
) -> None:
    """By name: the newest job of that id is somebody else's."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 60"))
    ours = job.until_state("running")["scheduler"]["job_id"]
    run("scancel", ours)
    ask = ("sacct", "--noheader", "--allocations", f"--name={job.name}", "--format=State%20")
    wait_until(lambda: "CANCELLED" in run(*ask), 30, "accounting to know")

    theirs = amnesia()
    job.finish()

    assert theirs == ours
    assert (job.last["state"], job.last["error"]["code"]) == ("failed", "killed")
    assert "held" not in job.states


def test_a_job_that_vanished_before_it_ran_is_lost_behind_the_fence(
    node: Any, amnesia: Callable[..., str], scontrol: Callable[..., str]
) -> None:
    """The node takes the fence first, so that no copy can run later; then there is nothing to wait for."""
    with nothing_starts(scontrol):
        job = Underway(node, node.accept("sh", "-c", RUN_LOG))
        job.until_state("queued")
        amnesia()
        job.finish()

    assert (job.last["state"], job.last["error"]["code"]) == ("failed", "lost")
    assert (job.directory / "byoc_fence" / "owner").read_text() == "node\n"
    assert "held" not in job.states
    again = run("sbatch", "--parsable", "--wait", "_aiidasubmit.sh", cwd=job.directory, check=False)
    assert again.strip().isdigit()
    assert job.runs == 0


@pytest.mark.parametrize(("status", "end"), [(0, "succeeded"), (3, "failed")])
def test_i19_what_becomes_of_a_forgotten_end_in_slurm_says_nothing_about_it(
    node: Any, paths: LabPaths, scontrol: Callable[..., str], status: int, end: str
) -> None:
    """The controller forgot that the job had begun, and an administrator cancels what still seems to wait."""
    state, kept = paths.root / "slurm" / "state", paths.root / "slurm" / "waiting"
    with nothing_starts(scontrol):
        job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; exit {status}"))
        ours = job.until_state("queued")["scheduler"]["job_id"]
        scontrol("hold", ours)
        stop_daemons(paths, "slurmctld")  # which saves everything
        shutil.copytree(state, kept)
        slurm.start_controller(paths)
    scontrol("release", ours)
    wait_until(lambda: set(job.jobs.values()) <= {"COMPLETED", "FAILED"}, 60, "the job to end")

    stop_daemons(paths, "slurmctld", first=signal.SIGKILL)
    shutil.rmtree(state)
    kept.rename(state)
    slurm.start_controller(paths)
    assert job.jobs == {ours: "PENDING"}
    run("scancel", ours)
    job.finish()

    assert job.jobs == {ours: "CANCELLED"}
    assert (job.last["state"], job.last["result"]["exit_code"]) == (end, status)
    assert job.last.get("error", {}).get("code") == ("container_failed" if status else None)
    assert job.runs == 1


def test_a_controller_that_hangs_is_held_and_resumes(node: Any, paths: LabPaths) -> None:
    """Silence is no end, however long; the job goes on and is seen again."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 2"))
    job.until_state("running")

    controller = recorded(paths)["slurmctld"].pid
    os.kill(controller, signal.SIGSTOP)
    try:
        held = job.until_state("held")
    finally:
        os.kill(controller, signal.SIGCONT)
    chain = job.finish()

    assert "cannot be asked" in held["reason"]
    assert chain.is_finished_ok
    assert job.runs == 1
    assert job.states[-3:] == ["held", "running", "succeeded"]


def test_i19_a_success_without_a_record_is_held_until_the_record_is_there(node: Any) -> None:
    """Slurm alone is not believed; the job resumes by itself once there is evidence."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 1"))
    job.end_unseen()
    record, away = job.directory / "byoc_record.json", job.directory / "away"
    record.rename(away)

    held = job.until_state("held")
    away.rename(record)
    chain = job.finish()

    assert "no completion record" in held["reason"]
    assert chain.is_finished_ok
    assert job.states[-3:] == ["held", "running", "succeeded"]


def test_i19_a_success_whose_record_never_comes_is_lost(node: Any) -> None:
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 1", resource_shape=SHORT))
    job.end_unseen()
    (job.directory / "byoc_record.json").unlink()

    job.finish()

    assert job.states[-3:] == ["held", "running", "failed"]
    assert job.last["error"]["code"] == "lost"


def test_i19_a_record_that_cannot_be_written_is_a_failure(node: Any) -> None:
    """As on a full disk: the program succeeded, nobody can show it. Slurm agrees that the job failed."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 1"))
    job.until_state("running")
    (job.directory / "byoc_record.json.tmp").mkdir()

    job.finish()

    assert (job.last["state"], job.last["error"]["code"]) == ("failed", "lost")
    assert "held" not in job.states


def test_why_a_job_waits_is_told_when_it_changes(
    node: Any, scontrol: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiida_byoc.calculations.waiting._WAIT_REASON_SECONDS", 0.0)
    scontrol("update", "nodename=n1,n2", "state=drain", "reason=test")
    try:
        job = Underway(node, node.accept("sh", "-c", RUN_LOG))

        def waits() -> str | None:
            reason = job.last.get("scheduler", {}).get("wait_reason")
            return str(reason) if reason else None

        first = job.until(waits, "a reason")
        scontrol("hold", job.last["scheduler"]["job_id"])
        job.until(lambda: waits() == "JobHeldAdmin" or waits() == "JobHeldUser", "another reason")
        scontrol("release", job.last["scheduler"]["job_id"])
    finally:
        scontrol("update", "nodename=n1,n2", "state=resume")
    job.finish()

    assert "Nodes" in first or first in {"Resources", "Priority"}
    queued = [event for event in node.events(job.submission) if event["state"] == "queued"]
    reasons = [event["scheduler"].get("wait_reason") for event in queued]
    told = [reason for reason in reasons if reason]
    assert len(told) >= 2
    assert all(one != next_one for one, next_one in pairwise(reasons))
    assert len({event["timings"]["queued"] for event in queued}) == 1
    assert job.last["state"] == "succeeded"
