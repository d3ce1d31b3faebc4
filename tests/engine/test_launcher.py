"""From the ledger to AiiDA: everything or nothing."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from aiida.orm import QueryBuilder, WorkChainNode

from aiida_byoc.events import checkpoints
from aiida_byoc.workflows.accepted import node_uuid


def chains(submission: str) -> int:
    """How many work chains carry the submission's label."""
    query = QueryBuilder().append(WorkChainNode, filters={"label": f"byoc:{submission}"})
    return int(query.count())


def test_launching_is_one_step_with_a_known_uuid(node: Any) -> None:
    """The work chain has the submission's UUID, is dispatched once, and the event says `launched`."""
    submission = node.accept()

    pk = node.launch(submission)
    node.launcher.step()

    assert node.load(pk).node.uuid == str(node_uuid(submission))
    assert node.dispatched.count(pk) == 1
    assert node.states(submission) == ["accepted", "launched"]


def test_a_launch_that_fails_leaves_nothing(node: Any) -> None:
    """When the event cannot be written there is no work chain either; later it is launched after all."""
    node.alter(
        "ALTER TABLE byoc.event ADD CONSTRAINT no_launch CHECK (body #>> '{data,state}' <> 'launched') NOT VALID"
    )
    submission = node.accept()
    try:
        node.launcher.step()
    finally:
        node.alter("ALTER TABLE byoc.event DROP CONSTRAINT no_launch")

    assert chains(submission) == 0
    assert node.states(submission) == ["accepted"]
    node.connection.execute(
        "UPDATE byoc.job SET launch_not_before = now() WHERE state = 'accepted'"
    )
    node.launch(submission)
    assert chains(submission) == 1


def test_a_job_that_can_never_be_launched_fails(node: Any) -> None:
    """It blocks nobody and ends with a code."""
    submission = node.accept()
    node.connection.execute(
        "UPDATE byoc.job SET command = '7', launch_failures = 4 WHERE submission_id = %s",
        (submission,),
    )
    behind = node.accept()

    node.launcher.step()
    node.launcher.step()

    assert node.events(submission)[-1]["error"]["code"] == "launch_failed"
    assert node.states(behind) == ["accepted", "launched"]


def test_a_full_disk_fails_no_job(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the machine's fault: the job waits until the disk has room again."""
    submission = node.accept()
    node.connection.execute(
        "UPDATE byoc.job SET launch_failures = 9 WHERE submission_id = %s", (submission,)
    )

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    node.launcher.step()
    monkeypatch.undo()

    assert (chains(submission), node.states(submission)) == (0, ["accepted"])
    node.connection.execute(
        "UPDATE byoc.job SET launch_not_before = now() WHERE submission_id = %s", (submission,)
    )
    node.launch(submission)
    assert node.states(submission) == ["accepted", "launched"]


def test_a_job_past_its_deadline_is_not_launched(node: Any) -> None:
    """Accepted in time, but its time has come and gone."""
    submission = node.accept(deadline="2999-01-01T00:00:00Z")
    node.connection.execute(
        "UPDATE byoc.job SET deadline = now() - interval '1 s' WHERE submission_id = %s",
        (submission,),
    )

    node.launcher.step()

    assert chains(submission) == 0
    assert node.events(submission)[-1]["error"]["code"] == "deadline_exceeded"


def test_a_second_work_chain_for_a_submission_is_refused_by_the_database(node: Any) -> None:
    """Even if the ledger were wrong."""
    submission = node.accept()
    node.launch(submission)
    node.connection.execute(
        "UPDATE byoc.job SET process_uuid = NULL, process_pk = NULL, state = 'accepted' WHERE submission_id = %s",
        (submission,),
    )

    node.launcher.step()

    assert chains(submission) == 1


def test_a_work_chain_that_was_not_dispatched_is_dispatched_later(node: Any) -> None:
    """The launcher died between commit and dispatch."""
    submission = node.accept()
    pk = node.launch(submission)
    node.connection.execute("UPDATE byoc.job SET dispatched_at = NULL WHERE process_pk = %s", (pk,))

    node.launcher.step()

    assert node.dispatched.count(pk) == 2
