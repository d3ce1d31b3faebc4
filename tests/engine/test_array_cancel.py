"""A cancel of some tasks: real Slurm, real containers, the launcher's own step. The others go on as if nothing was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiida.manage import get_manager

from aiida_byoc.arrays.rules import Arrays
from aiida_byoc.commands import ledger
from aiida_byoc.commands.task_stopping import TaskStopper
from aiida_byoc.contracts.commands import CancelJobCommand
from aiida_byoc.contracts.validation import validated
from aiida_byoc.runtimes import in_job
from aiida_byoc.runtimes.in_job.array_task import directory_of
from tests.builders import NOW, cancel_body
from tests.engine.driving import Underway, squeue
from tests.engine.test_arrays import array, attempts, table


def cancel_tasks(node: Any, submission: str, *ranges: tuple[int, int]) -> tuple[str, bool]:
    """As the agent does; the status, and whether it was known."""
    accepted = node.events(submission)[0]
    body = cancel_body(
        **{name: accepted[name] for name in ("tenant_id", "workspace_id", "job_id")},
        tasks=[{"first": first, "last": last} for first, last in ranges],
    )
    with node.connection.transaction():
        told, repeated = ledger.cancel(
            node.connection, validated(CancelJobCommand, body), serve=lambda _: None, now=NOW
        )
    return told.status, repeated


def untold(node: Any, submission: str) -> int:
    query = "SELECT count(*) FROM byoc.task_cancel WHERE submission_id = %s AND told IS NULL"
    return int(node.connection.execute(query, (submission,)).fetchone()[0])


def test_tasks_cancelled_before_the_launch_are_never_dealt_out(node: Any, tmp_path: Path) -> None:
    submission = node.accept(**array("exit $1", [["0"], ["1"], ["0"], ["1"]], pack=1))
    assert cancel_tasks(node, submission, (1, 1), (3, 3)) == ("cancelling", False)
    assert cancel_tasks(node, submission, (3, 3), (1, 1)) == ("cancelling", True)

    chain = node.run(submission)

    assert chain.is_finished_ok, chain.exit_message
    (attempt,) = attempts(chain)
    assert "--array=0-1" in attempt.base.repository.get_object_content("_aiidasubmit.sh")
    states = [row["state"] for row in table(attempt, tmp_path)]
    assert states == ["succeeded", "cancelled", "succeeded", "cancelled"]
    told = node.events(submission)[-1]
    assert (told["state"], told["result"]["exit_code"]) == ("succeeded", 0)
    assert told["result"]["tasks"] == {
        "total": 4,
        "succeeded": 2,
        "failed": 0,
        "interrupted": 0,
        "cancelled": 2,
        "first_failed": [],
    }
    assert told["progress"]["fraction"] == 1.0


def test_a_cancel_reaches_tasks_inside_an_element_and_elements_that_wait(
    node: Any, tmp_path: Path
) -> None:
    """The first element runs two tasks, of which one is ended; the second is closed before it begins. Told twice."""
    gate = tmp_path / "go"
    stays = f'test "$1" != stays || exec sleep 300; until test -e {gate.name}; do sleep 0.05; done'
    rows = [["stays"], ["goes"], ["stays"], ["stays"], ["goes"]]
    submission = node.accept(**array(stays, rows, pack=2), placed={"arrays": Arrays(at_a_time=1)})
    job = Underway(node, submission)
    job.until_state("running")
    (calculation,) = attempts(job.process.node)
    place = Path(calculation.get_remote_workdir())
    job.until((place / directory_of(1) / "work").exists, "the second task")
    stopper = TaskStopper(get_manager().get_profile_storage())

    cancel_tasks(node, submission, (0, 0), (2, 3))
    job.until(lambda: stopper.step() or not untold(node, submission), "the array to be told")
    node.connection.execute("UPDATE byoc.task_cancel SET told = NULL")
    job.until(lambda: stopper.step() or not untold(node, submission), "the same once more")
    assert (place / in_job.ELEMENTS / "1" / in_job.ENDED).exists()
    assert "_1 " not in squeue(f"--name=byoc-{submission}-1", "--states=pending", "--format=%i ")
    for number in (1, 4):
        work = place / directory_of(number) / "work"
        job.until(work.exists, "a task that is wanted")
        (work / gate.name).touch()
    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    assert [row["state"] for row in table(attempts(chain)[0], tmp_path)] == [
        *("cancelled", "succeeded", "cancelled", "cancelled", "succeeded")
    ]
    assert not (place / directory_of(2)).exists()
    assert node.events(submission)[-1]["result"]["tasks"]["cancelled"] == 3


def test_an_array_can_be_told_of_any_number_of_ranges(node: Any) -> None:
    """More than one argument of a command may hold (128 KiB, execve(2))."""
    each = {"tasks": {"count": 24_000}, "argv": ["sleep", "300"]}
    submission = node.accept(**array("", [[""]], pack=12_000, **each))
    job = Underway(node, submission)
    job.until_state("running")
    (calculation,) = attempts(job.process.node)
    stopper = TaskStopper(get_manager().get_profile_storage())
    ranges = [(number, number) for number in range(0, 24_000, 2)]

    for first in range(0, len(ranges), 1000):
        cancel_tasks(node, submission, *ranges[first : first + 1000])
    job.until(lambda: stopper.step() or not untold(node, submission), "the array to be told")

    told = Path(calculation.get_remote_workdir(), in_job.CANCELLED).read_text()
    assert len(told) > 128 << 10
    assert json.loads(told) == [list(each) for each in ranges]
    job.stop()


def test_elements_that_were_closed_say_nothing_about_the_others_end(
    node: Any, tmp_path: Path
) -> None:
    """The last that wait are closed, and somebody kills the one that runs: that is no cancel by a stranger."""
    rows = [["a"], ["b"], ["c"], ["d"]]
    submission = node.accept(
        **array("exec sleep 300", rows, cpu=1, pack=1), placed={"arrays": Arrays(at_a_time=1)}
    )
    job = Underway(node, submission)
    job.until_state("running")
    (calculation,) = attempts(job.process.node)
    place = calculation.get_remote_workdir()
    job.until(Path(place, directory_of(0), "work").exists, "the first task")
    stopper = TaskStopper(get_manager().get_profile_storage())
    cancel_tasks(node, submission, (1, 3))
    job.until(lambda: stopper.step() or not untold(node, submission), "the array to be told")

    for pid in programs(place):
        with contextlib.suppress(ProcessLookupError):  # it went with the one before
            os.kill(pid, signal.SIGKILL)
    job.finish()

    states = [row["state"] for row in table(calculation, tmp_path)]
    assert states == ["interrupted", "cancelled", "cancelled", "cancelled"]
    assert job.last["error"]["code"] == "lost"


def programs(place: str) -> list[int]:
    """The in-job programs of the elements that run: they work in the attempt's directory, which no container sees."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(place):
                found.append(int(process.name))
    assert found
    return found


def test_no_later_attempt_runs_a_cancelled_task(node: Any, tmp_path: Path) -> None:
    """A task that failed is not tried again once it was cancelled; what else failed decides about the job."""
    gate = "go"
    script = f"case $1 in waits) until test -e {gate}; do sleep 0.05; done ;; *) exit $1 ;; esac"
    submission = node.accept(
        **array(script, [["3"], ["waits"], ["0"]], pack=3),
        retry_policy={"max_attempts": 2, "on": ["tasks_failed"]},
    )
    job = Underway(node, submission)
    job.until_state("running")
    (calculation,) = attempts(job.process.node)
    place = Path(calculation.get_remote_workdir())
    job.until((place / directory_of(0) / "record.json").exists, "the failure")
    work = place / directory_of(1) / "work"
    job.until(work.exists, "the task that waits")

    cancel_tasks(node, submission, (0, 0))
    (work / gate).touch()
    chain = job.finish()

    assert chain.is_finished_ok, chain.exit_message
    states = [row["state"] for row in table(attempts(chain)[-1], tmp_path)]
    assert states == ["cancelled", "succeeded", "succeeded"]
    assert [each.exit_status for each in attempts(chain)] == [410, 0]


@pytest.mark.parametrize("ranges", [[(0, 1)], [(0, 0), (1, 1)]])
def test_with_no_task_left_the_job_is_cancelled(node: Any, ranges: list[tuple[int, int]]) -> None:
    submission = node.accept(**array("exec sleep 300", [["a"], ["b"]], pack=1))

    for each in ranges:
        cancel_tasks(node, submission, each)

    assert node.states(submission) == ["accepted", "cancelled"]
