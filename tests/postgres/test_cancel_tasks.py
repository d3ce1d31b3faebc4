"""A cancel of some tasks of an array: kept once as a set, refused where the job has no such tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from aiida_byoc.arrays.cancelled import cancelled_tasks
from aiida_byoc.commands import ledger
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import NOW, cancel
from tests.postgres.jobs import accept, served, walk
from tests.postgres.reading import nothing_written, row, states

LATER = NOW + timedelta(minutes=1)


def array(connection: psycopg.Connection, **tasks: Any) -> str:
    """An array of ten tasks in the ledger."""
    workload = {
        "kind": "array",
        "image": "localhost/byoc/demo:1",
        "argv": ["true"],
        "tasks": tasks or {"count": 10},
    }
    return accept(connection, workload=workload)


def cancel_tasks(
    connection: psycopg.Connection, *ranges: tuple[int, int], now: Any = NOW, **command: Any
) -> Any:
    tasks = [{"first": first, "last": last} for first, last in ranges]
    return ledger.cancel(connection, cancel(tasks=tasks, **command), serve=served, now=now)


def test_the_job_goes_on_without_them(connection: psycopg.Connection) -> None:
    submission = array(connection)

    cancellation, repeated = cancel_tasks(connection, (0, 3), (5, 5))

    assert (cancellation.status, cancellation.requested_at, repeated) == ("cancelling", NOW, False)
    assert cancelled_tasks(connection, submission) == ((0, 3), (5, 5))
    assert states(connection, submission) == ["accepted"]
    kept = row(connection)
    assert kept is not None
    assert kept["cancel_requested_at"] is None


def test_the_same_tasks_hear_the_same(connection: psycopg.Connection) -> None:
    """However their ranges are written."""
    array(connection)
    first, _ = cancel_tasks(connection, (0, 5))

    again, repeated = cancel_tasks(connection, (3, 5), (0, 2), (1, 4), now=LATER)

    assert (again, repeated) == (first, True)


def test_sets_add_up_until_no_task_is_left(connection: psycopg.Connection) -> None:
    submission = array(connection)
    cancel_tasks(connection, (0, 3))

    cancellation, repeated = cancel_tasks(connection, (2, 9), now=LATER)

    assert (cancellation.status, cancellation.requested_at, repeated) == ("cancelled", LATER, False)
    assert states(connection, submission) == ["accepted", "cancelled"]
    again, repeated = cancel_tasks(connection, (2, 9), now=LATER + timedelta(minutes=1))
    assert (again, repeated) == (cancellation, True)


def test_tasks_of_a_job_that_has_ended_change_nothing(connection: psycopg.Connection) -> None:
    submission = array(connection)
    walk(connection, submission, "launched", "queued", "succeeded")

    cancellation, _ = cancel_tasks(connection, (0, 0))

    assert cancellation.status == "already_ended"
    assert states(connection, submission)[-1] == "succeeded"


@pytest.mark.parametrize(
    ("tasks", "field", "says", "remedy"),
    [
        ([(0, 3), (8, 10)], "tasks.1.last", "beyond the last task of the job, 9", "at most 9"),
        ([(10, 10)], "tasks.0.last", "beyond the last task", "at most 9"),
    ],
)
def test_tasks_beyond_the_table_are_refused(
    connection: psycopg.Connection,
    tasks: list[tuple[int, int]],
    field: str,
    says: str,
    remedy: str,
) -> None:
    submission = array(connection, columns=["a"], rows=[[str(n)] for n in range(10)])

    with pytest.raises(ProblemError) as refused:
        cancel_tasks(connection, *tasks)

    (error,) = refused.value.errors
    assert refused.value.kind.name == "validation-failed"
    assert error.field == field
    assert says in error.message
    assert error.remedy is not None
    assert remedy in error.remedy
    assert cancelled_tasks(connection, submission) == ()


def test_what_is_no_array_has_no_tasks(connection: psycopg.Connection) -> None:
    submission = accept(connection)

    with pytest.raises(ProblemError) as refused:
        cancel_tasks(connection, (0, 0))

    assert [error.field for error in refused.value.errors] == ["tasks"]
    assert states(connection, submission) == ["accepted"]


@pytest.mark.parametrize("command", [{"tenant_id": "globex"}, {"workspace_id": "other"}])
def test_tasks_of_a_job_of_somebody_else_are_not_there(
    connection: psycopg.Connection, command: dict[str, Any]
) -> None:
    submission = array(connection)

    with pytest.raises(ProblemError, match="not-found"):
        cancel_tasks(connection, (0, 9), **command)

    assert cancelled_tasks(connection, submission) == ()


def test_tasks_of_an_unknown_job_leave_no_tombstone(connection: psycopg.Connection) -> None:
    with pytest.raises(ProblemError, match="not-found"):
        cancel_tasks(connection, (0, 0))

    assert nothing_written(connection)
