"""The log of one task of an array: while it runs and after its end, and only of a task that the job has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from aiida_byoc.cli import byoc
from aiida_byoc.runtimes.in_job.array_task import directory_of
from tests.engine.driving import Underway
from tests.engine.test_arrays import array
from tests.engine.test_logs import GO, MakeDesk, make_desk
from tests.eventually import eventually

__all__ = ["make_desk"]


def test_each_task_has_its_log(node: Any, make_desk: MakeDesk) -> None:
    script = f'echo "out of $1"; echo "err of $1" >&2; test "$1" = a && exit; {GO}'
    submission = node.accept(**array(script, [["a"], ["b"]], pack=2))
    desk, job = make_desk(), Underway(node, submission)
    job.until_state("running")
    job.until(lambda: desk.read(submission, task=0).complete, "the end of the first task")

    first, second = desk.read(submission, task=0), desk.read(submission, task=1, stream="stderr")

    assert (first.task, first.data, first.state) == (0, "out of a\n", "running")
    assert (second.task, second.data, second.complete) == (1, "err of b\n", False)
    place = Path(job.attempt.get_remote_workdir(), directory_of(1), "work")
    (place / "go").touch()
    assert job.finish().is_finished_ok
    ended = desk.read(submission, task=1, offset=4, limit=2)
    assert (ended.data, ended.size, ended.complete) == ("of", 9, False)
    assert desk.read(submission, task=1, offset=6).complete
    for name, wanted in (("task", {"task": 2}), ("attempt", {"task": 0, "attempt": 0})):
        problem = desk.ask(submission, **wanted).problem
        assert problem is not None
        assert [error.field for error in problem.errors] == [name]
    assert desk.ask(submission, tenant="globex", task=0).problem.type.endswith("/not-found")

    told = node.events(submission)[0]
    words = ["jobs", "log", told["job_id"], "--tenant", told["tenant_id"], "--task"]
    assert CliRunner().invoke(byoc, [*words, "0"]).output == "out of a\n"
    assert CliRunner().invoke(byoc, [*words, "1", "--stderr"]).output == "err of b\n"
    assert "Error" in CliRunner().invoke(byoc, [*words, "2"]).output


def test_the_log_of_a_task_that_said_nothing_is_whole_when_it_has_ended(
    node: Any, make_desk: MakeDesk
) -> None:
    submission = node.accept(**array(GO, [["a"]]))
    desk, job = make_desk(), Underway(node, submission)
    job.until_state("running")
    place = Path(job.attempt.get_remote_workdir(), directory_of(0))
    job.until((place / "work").exists, "the task")

    silent = desk.read(submission, task=0)

    assert (silent.data, silent.size, silent.complete) == ("", 0, False)
    (place / "work" / "go").touch()
    assert job.finish().is_finished_ok
    silent = desk.read(submission, task=0)
    assert (silent.data, silent.size, silent.complete) == ("", 0, True)
    assert not (place / "stdout").exists()


def test_a_task_is_not_read_through_a_link(node: Any, make_desk: MakeDesk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    submission = node.accept(**array("echo $1", [["a"]]))
    job = Underway(node, submission)
    assert job.finish().is_finished_ok
    stdout = Path(job.attempt.get_remote_workdir(), directory_of(0), "stdout")
    stdout.unlink()
    stdout.symlink_to(secret)

    assert make_desk().read(submission, task=0).data == ""


def test_a_job_that_is_no_array_has_no_tasks(node: Any, make_desk: MakeDesk) -> None:
    desk = make_desk()
    submission = node.accept("true")
    eventually(lambda: desk.read(submission).state == "accepted", "the reader", seconds=60)

    problem = desk.ask(submission, task=0).problem

    assert problem is not None
    assert problem.errors[0].message == "the job is no array: it has no tasks"


def test_an_operator_cancels_tasks(node: Any) -> None:
    submission = node.accept(**array("true", [["a"], ["b"], ["c"]]))
    told = node.events(submission)[0]
    words = ["jobs", "cancel", told["job_id"], "--tenant", told["tenant_id"]]

    def said(*options: str) -> str:
        return CliRunner().invoke(byoc, [*words, *options]).output.strip()

    assert said("--tasks", "0,1-1") == "cancelling"
    assert "tasks.0.last is beyond the last task of the job, 2" in said("--tasks", "3")
    assert "0-9,42" in said("--tasks", "one")
    assert said("--reason", "enough") == "cancelled"
