"""What is stopped is told as ended once Slurm has confirmed it, and never at the cost of somebody else's job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driving import RUN_LOG, SHORT, Underway, run

pytestmark = pytest.mark.usefixtures("little_patience")


def test_a_cancel_while_held_ends_the_job(node: Any) -> None:
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 1", resource_shape=SHORT))
    job.end_unseen()
    (job.directory / "byoc_record.json").unlink()
    job.until_state("held")

    job.stop()

    assert job.states[-1] == "cancelled"


def test_a_cancel_is_told_once_slurm_has_confirmed_it(node: Any) -> None:
    """The work chain is `killed` long before: that proves nothing."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 300"))
    job.until_state("running")

    job.kill()
    assert job.last["state"] == "running"
    assert "RUNNING" in job.jobs.values()
    job.stop()

    assert job.last["state"] == "cancelled"
    assert set(job.jobs.values()) == {"CANCELLED"}


def test_a_killed_attempt_fails_the_job_once_slurm_has_confirmed_it(node: Any) -> None:
    """An operator killed the calculation; nobody cancelled the job."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 300"))
    job.until_state("running")

    job.kill_attempt()
    job.finish()
    assert job.last["state"] == "running"
    job.stop()

    assert (job.last["state"], job.last["error"]["code"]) == ("failed", "killed")
    assert set(job.jobs.values()) == {"CANCELLED"}


def test_a_twin_of_a_stopped_job_is_stopped_as_well(
    node: Any, scontrol: Callable[..., str]
) -> None:
    """A second copy waits behind the first: AiiDA knows only one."""
    job = Underway(node, node.accept("sh", "-c", f"{RUN_LOG}; sleep 300"))
    job.until_state("running")
    twin = run("sbatch", "--parsable", "_aiidasubmit.sh", cwd=job.directory).strip()
    scontrol("hold", twin)
    assert sorted(job.jobs.values()) == ["PENDING", "RUNNING"]

    job.stop()

    assert set(job.jobs.values()) == {"CANCELLED"}
    assert job.runs == 1


def test_a_cancelled_job_submits_nothing_more(node: Any) -> None:
    """The intent is looked up before each attempt; here no kill ever reaches the process."""
    submission = node.accept("true")
    pk = node.launch(submission)
    node.connection.execute(
        "UPDATE byoc.job SET cancel_requested_at = now() WHERE process_pk = %s", (pk,)
    )
    process = node.load(pk)

    node.runner.loop.run_until_complete(process.step_until_terminated())

    assert process.node.called == []
    assert node.states(submission) == ["accepted", "launched", "cancelled"]
