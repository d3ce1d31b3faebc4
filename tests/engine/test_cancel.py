"""A cancel reaches Slurm within seconds and ends the job, whoever sleeps; who wakes later starts nothing more.

The worker of these tests works only while a test lets it: else it is as dead or as frozen as a worker can be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiida.common.datastructures import CalcJobState
from aiida.manage import get_manager

from aiida_byoc.commands import ledger
from aiida_byoc.commands.stopping import Stopper
from aiida_byoc.contracts import CancelJobCommand
from aiida_byoc.contracts.validation import validated
from lab.process import wait_until
from tests.engine.driving import RUN_LOG, Underway

SECONDS = 10.0
"""A look, a `scancel`, and a look a second later; the rest is for a slow machine."""
AGAIN = {"max_attempts": 3, "on": ["oom", "timeout", "node_fail", "preempted"]}
KILLED = ["killed", "killed"]

pytestmark = pytest.mark.usefixtures("little_patience")


def cancel(node: Any, submission: str) -> None:
    """Cancel as the channel does."""
    names = ("tenant_id", "workspace_id", "job_id")
    query = f"SELECT {', '.join(names)} FROM byoc.job WHERE submission_id = %s"  # noqa: S608
    row = node.connection.execute(query, (submission,)).fetchone()
    order = {"schema_version": "1", "management_node_id": "n", "requested_by": {"user_id": "u"}}
    command = validated(CancelJobCommand, {**order, **dict(zip(names, row, strict=True))})
    ledger.cancel(node.connection, command, serve=lambda _: None, now=datetime.now(UTC))


def stop(node: Any, submission: str) -> float:
    """Cancel, and let the launcher's stopper alone work until the end is told; return how many seconds that took."""
    stopper = Stopper(get_manager().get_profile_storage())
    began = time.monotonic()
    cancel(node, submission)

    def told() -> bool:
        stopper.step()
        return bool(node.states(submission)[-1] == "cancelled")

    wait_until(told, 30, "the cancel to be told")
    return time.monotonic() - began


def ends(job: Underway) -> list[str]:
    """How the work chain and its attempts ended, once they have."""
    job.finish()
    nodes = [job.process.node, *job.process.node.called]
    job.until(lambda: all(each.is_terminated for each in nodes), "the attempts to end")
    return [each.process_state.value for each in nodes]


@pytest.fixture
def closed(scontrol: Callable[..., str]) -> Any:
    """A partition that starts nothing."""
    scontrol("update", "PartitionName=main", "State=DOWN")
    yield
    scontrol("update", "PartitionName=main", "State=UP")


def test_a_running_job_is_stopped_though_no_worker_lives(node: Any) -> None:
    """In Slurm, and told; its processes end as killed once a worker has them, and nothing is tried again."""
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 300", retry_policy=AGAIN)
    job = Underway(node, submission, mortal=True)
    job.until_state("running")

    seconds = stop(node, submission)

    assert set(job.jobs.values()) == {"CANCELLED"}
    assert seconds < SECONDS
    assert not job.process.node.is_terminated
    job.take_over()
    assert ends(job) == KILLED
    assert job.states == ["accepted", "launched", "queued", "running", "cancelled"]
    assert job.runs == 1


def test_a_frozen_worker_that_wakes_after_the_end_tries_nothing_again(node: Any) -> None:
    """No call has reached it; to its eyes the attempt has failed."""
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 300", retry_policy=AGAIN)
    job = Underway(node, submission)
    job.until_state("running")

    assert stop(node, submission) < SECONDS

    assert ends(job)[1:] == ["killed"]
    assert job.states[-1] == "cancelled"
    assert job.runs == 1


@pytest.mark.usefixtures("closed")
def test_a_queued_job_is_stopped_though_no_worker_lives(node: Any) -> None:
    submission = node.accept("sh", "-c", RUN_LOG)
    job = Underway(node, submission, mortal=True)
    job.until_state("queued")

    assert stop(node, submission) < SECONDS

    assert set(job.jobs.values()) == {"CANCELLED"}
    job.take_over()
    assert ends(job) == KILLED
    assert job.runs == 0


def test_a_job_that_no_worker_took_up_never_comes_to_slurm(node: Any) -> None:
    """Its work chain asks before it does anything."""
    submission = node.accept("true")
    pk = node.launch(submission)
    node.connection.execute(
        "UPDATE byoc.job SET dispatched_at = now() WHERE process_pk = %s", (pk,)
    )

    assert stop(node, submission) < SECONDS

    process = node.load(pk)
    node.runner.loop.run_until_complete(process.step_until_terminated())
    assert process.node.called == []
    assert node.states(submission) == ["accepted", "launched", "cancelled"]


MOMENTS: dict[str, Callable[[Underway], object]] = {
    "created": lambda job: job.process.node.called,
    "uploaded": lambda job: job.process.node.called and job.attempt.get_remote_workdir(),
}


@pytest.mark.parametrize("worker", ["dead", "frozen"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_attempt_on_its_way_to_slurm_does_not_arrive(
    node: Any, moment: str, worker: str
) -> None:
    """The worker sleeps before the attempt has its directory, or between that and `sbatch`."""
    submission = node.accept("sh", "-c", RUN_LOG)
    job = Underway(node, submission, mortal=True)
    job.fall_asleep(lambda: MOMENTS[moment](job), moment)
    assert (job.attempt.get_remote_workdir() is None) == (moment == "created")

    assert stop(node, submission) < SECONDS
    if worker == "dead":
        job.take_over()

    # One that has asked already, and sleeps right before `sbatch`, finds the fence taken.
    assert ends(job)[1:] in (["killed"], ["finished"])
    assert job.jobs == {}
    assert job.states == ["accepted", "launched", "cancelled"]


@pytest.mark.parametrize("worker", ["dead", "frozen"])
def test_a_job_whose_files_are_being_fetched_is_stopped(node: Any, worker: str) -> None:
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 2")
    job = Underway(node, submission, mortal=True)
    job.until_state("running")
    job.fall_asleep(
        lambda: job.attempt.get_state() in {CalcJobState.STASHING, CalcJobState.RETRIEVING},
        "the job to end",
    )

    assert stop(node, submission) < SECONDS
    if worker == "dead":
        job.take_over()

    # One that is at it, and that no call reaches, fetches them to the end; that tells nothing any more.
    assert ends(job)[1:] in (["killed"], ["finished"])
    assert job.states[-1] == "cancelled"
    assert job.runs == 1


def test_a_held_job_is_stopped(node: Any) -> None:
    """Paused, while it runs in Slurm."""
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 300")
    job = Underway(node, submission)
    job.until_state("running")
    job.attempt_process.pause("by an operator")
    job.until_state("held")

    assert stop(node, submission) < SECONDS

    assert set(job.jobs.values()) == {"CANCELLED"}
    assert job.states[-2:] == ["held", "cancelled"]
    job.kill_attempt()


@pytest.mark.parametrize("worker", ["dead", "frozen"])
def test_a_job_between_two_attempts_gets_no_other(
    node: Any, scontrol: Callable[..., str], worker: str
) -> None:
    """The first has failed in a way that the command wants tried again; the worker sleeps then."""
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 300", retry_policy=AGAIN)
    job = Underway(node, submission, mortal=True)
    job.until_state("running")
    machine = job.last["scheduler"]["nodes"][0]
    scontrol("update", f"NodeName={machine}", "State=DOWN", "Reason=test")
    try:
        job.fall_asleep(lambda: job.attempt.is_terminated, "the first attempt to fail")
        assert (job.attempt.exit_status, len(job.process.node.called)) == (140, 1)
        assert stop(node, submission) < SECONDS
        if worker == "dead":
            job.take_over()
        ended = ends(job)
    finally:
        scontrol("update", f"NodeName={machine}", "State=RESUME")

    assert ended[1:] == ["finished"]
    assert job.last["state"] == "cancelled"


def test_an_attempt_that_slurm_stopped_before_its_worker_heard_is_no_failure(node: Any) -> None:
    """The end comes from the work chain then; nobody calls the attempt."""
    submission = node.accept("sh", "-c", f"{RUN_LOG}; sleep 300", retry_policy=AGAIN)
    job = Underway(node, submission)
    job.until_state("running")
    cancel(node, submission)
    stopper = Stopper(get_manager().get_profile_storage())
    stopper.step()

    assert ends(job)[1:] == ["killed"]

    def told() -> bool:
        stopper.step()
        return bool(job.states[-1] == "cancelled")

    wait_until(told, 20, "the end to be told")
