"""What no hook could tell, the sweep tells once and counts; what the hooks told, it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiida.manage import get_manager

from aiida_byoc.database.connection import connect
from aiida_byoc.events import reconcile
from aiida_byoc.events.reconcile import Sweep
from tests.engine.driving import Underway

Repairs = Callable[[], dict[str, int]]
EXCEPTED = {"process_state": "excepted", "sealed": True}


@pytest.fixture
def sweep(node: Any) -> Sweep:
    """A sweep that has seen everything so far; the witness is in place."""
    sweep = Sweep(get_manager().get_profile_storage())
    sweep.full()
    sweep.marked()
    return sweep


@pytest.fixture
def repairs(node: Any, sweep: Sweep) -> Repairs:
    """How many repairs of each kind this test took."""

    def counts() -> dict[str, int]:
        return dict(node.connection.execute("SELECT kind, count FROM byoc.repair").fetchall())

    before = counts()
    return lambda: {
        kind: count - before.get(kind, 0)
        for kind, count in counts().items()
        if count > before.get(kind, 0)
    }


@pytest.fixture
def other(profile: Any) -> Any:
    """A second connection to the database."""
    with connect(profile.storage_config, application="test") as connection:
        yield connection


def edit(connection: Any, pk: int, **attributes: Any) -> None:
    """Change a node as an operator does in the database; `None` removes an attribute."""
    connection.execute(
        "UPDATE db_dbnode SET attributes = jsonb_strip_nulls(attributes || %s::jsonb) WHERE id = %s",
        (json.dumps(attributes), pk),
    )


def marks(node: Any) -> int:
    """How many marks there are."""
    return int(node.connection.execute("SELECT count(*) FROM byoc.witness").fetchone()[0])


def test_an_undisturbed_job_needs_no_repair(node: Any, sweep: Sweep, repairs: Repairs) -> None:
    """I8: whenever somebody looks, the last event says what the nodes say; no mark is left over."""
    job = Underway(node, node.accept("sleep", "1"))

    def ended() -> bool:
        sweep.marked()
        sweep.full()
        return bool(job.process.has_terminated())

    job.until(ended, "the job to end")
    sweep.marked()

    assert job.states[-1] == "succeeded"
    assert (repairs(), marks(node)) == ({}, 0)


def test_a_job_that_was_paused_played_and_killed_needs_no_repair(
    node: Any, sweep: Sweep, repairs: Repairs
) -> None:
    """The hooks tell all of it; the end of a job without anything in Slurm as well."""
    submission = node.accept()
    process = node.load(node.launch(submission))
    for action in (process.pause, process.play, process.kill):
        action()
        sweep.marked()

    assert node.states(submission) == ["accepted", "launched", "held", "launched", "cancelled"]
    assert repairs() == {}


def test_an_end_by_an_edit_is_told_once(node: Any, sweep: Sweep, repairs: Repairs) -> None:
    """AiiDA's launcher makes such an edit when it cannot load a checkpoint."""
    submission = node.accept()
    edit(node.connection, node.launch(submission), **EXCEPTED)

    told = [sweep.marked(), sweep.marked(), sweep.full()]

    assert told == [1, 0, 0]
    assert node.states(submission) == ["accepted", "launched", "failed"]
    assert (repairs(), marks(node)) == ({"ended": 1}, 0)


def test_a_pause_by_an_edit_is_held_until_the_edit_is_undone(
    node: Any, sweep: Sweep, repairs: Repairs
) -> None:
    """With the node's own words as the reason."""
    submission = node.accept()
    pk = node.launch(submission)
    edit(node.connection, pk, paused=True, process_status="for a while")
    sweep.marked()
    held = node.events(submission)[-1]
    edit(node.connection, pk, paused=None)
    sweep.marked()

    assert (held["state"], held["reason"]) == ("held", "for a while")
    assert node.states(submission) == ["accepted", "launched", "held", "launched"]
    assert repairs() == {"held": 1, "resumed": 1}


def test_what_an_attempt_reached_in_slurm_is_told_by_the_full_pass(
    node: Any, sweep: Sweep, repairs: Repairs, scontrol: Callable[..., str]
) -> None:
    """Should it ever be in the node without its event; the job goes on as if nothing had been."""
    scontrol("update", "PartitionName=main", "State=DOWN")
    try:
        job = Underway(node, node.accept())
        job.until_state("queued")
        told = job.last["scheduler"]
        edit(node.connection, job.attempt.pk, scheduler_state="running")
        sweep.full()
    finally:
        scontrol("update", "PartitionName=main", "State=UP")

    assert job.states[-1] == "running"
    assert job.last["scheduler"].items() >= told.items()
    assert repairs() == {"running": 1}
    job.finish()
    assert job.states[-1] == "succeeded"


def test_a_job_is_held_while_any_of_its_processes_is_paused(
    node: Any, sweep: Sweep, repairs: Repairs, scontrol: Callable[..., str]
) -> None:
    """And when it goes on, what it reached meanwhile is told as well."""
    scontrol("update", "PartitionName=main", "State=DOWN")
    try:
        job = Underway(node, node.accept("sleep", "5"))
        job.until_state("queued")
        job.process.pause("the work chain")
        job.until_state("held")
    finally:
        scontrol("update", "PartitionName=main", "State=UP")
    job.until(lambda: job.attempt.get_scheduler_state().value == "running", "Slurm to start it")
    unchanged = job.states[-1]
    job.process.play()
    resumed = job.states[-3:]
    attempt = job.attempt_process
    for process in (job.process, attempt):
        process.pause("both")
        job.until(lambda process=process: process.paused, "the pause")
    job.process.play()
    sweep.marked()
    still = job.states[-1]
    attempt.play()
    at_last = job.states[-2:]
    job.finish()

    assert unchanged == "held"
    assert resumed == ["held", "queued", "running"]
    assert still == "held"
    assert at_last == ["held", "running"]
    assert job.states[-1] == "succeeded"
    assert repairs() == {}


def test_an_attempt_that_ends_while_it_is_paused_holds_nothing_any_more(
    node: Any, sweep: Sweep, repairs: Repairs
) -> None:
    """Killing it makes the job go on, and then end."""
    job = Underway(node, node.accept("sleep", "60"))
    job.until_state("running")
    attempt = job.attempt_process
    attempt.pause("soon dead")
    job.until_state("held")

    job.kill_attempt()

    assert job.states[-2:] == ["held", "running"]
    job.finish()
    job.until(lambda: node.launcher.step() or job.states[-1] == "failed", "Slurm's word")
    assert repairs() == {}


def test_a_job_whose_work_chain_is_gone_is_held(node: Any, sweep: Sweep, repairs: Repairs) -> None:
    """Nothing can be told of it any more, but it does not stay silent."""
    submission = node.accept()
    node.launch(submission)
    node.connection.execute(
        "UPDATE byoc.job SET process_pk = -1 WHERE submission_id = %s", (submission,)
    )

    sweep.full()

    assert node.states(submission)[-1] == "held"
    assert "no longer in AiiDA" in node.events(submission)[-1]["reason"]


def test_one_that_cannot_be_told_of_keeps_nobody_from_the_others(
    node: Any, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again with the next full pass."""
    submissions = [node.accept(), node.accept()]
    pks = [node.launch(submission) for submission in submissions]
    judged = reconcile.outcome

    def fails(chain: Any, state: Any, **known: Any) -> Any:
        if chain.pk == pks[0]:
            raise RuntimeError("an output is not there")
        return judged(chain, state, **known)

    monkeypatch.setattr(reconcile, "outcome", fails)
    for pk in pks:
        edit(node.connection, pk, **EXCEPTED)
    sweep.marked()
    first = [node.states(submission)[-1] for submission in submissions]
    monkeypatch.undo()
    sweep.full()

    assert first == ["launched", "failed"]
    assert node.states(submissions[0])[-1] == "failed"


def test_a_job_that_somebody_has_is_left_alone_and_looked_at_again(
    node: Any, sweep: Sweep, other: Any
) -> None:
    """A stopped worker may have it: the sweep waits for nobody."""
    submission = node.accept()
    pk = node.launch(submission)
    sweep.marked()
    with other.transaction():
        other.execute("SELECT FROM byoc.job WHERE submission_id = %s FOR UPDATE", (submission,))
        edit(node.connection, pk, **EXCEPTED)
        meanwhile = sweep.marked(), marks(node)

    assert meanwhile == (0, 1)
    assert (sweep.marked(), marks(node)) == (1, 0)


def test_a_change_that_is_committed_after_the_sweep_looked_is_not_lost(
    node: Any, sweep: Sweep, other: Any
) -> None:
    """A later change of another process has a later mark; the sweep forgets only what it saw."""
    late, early = node.accept(), node.accept()
    pk, seen = node.launch(late), node.launch(early)
    sweep.marked()
    with other.transaction():
        edit(other, pk, **EXCEPTED)
        edit(node.connection, seen, **EXCEPTED)
        assert sweep.marked() == 1

    assert sweep.marked() == 1
    assert node.states(late)[-1] == node.states(early)[-1] == "failed"
