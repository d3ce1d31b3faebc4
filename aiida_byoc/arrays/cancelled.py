"""Tasks of arrays that were cancelled by themselves: sets of numbers in the ledger, which only ever grow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from aiida_byoc.contracts.commands import TaskRange
from aiida_byoc.contracts.problems import FieldError, ProblemError

__all__ = ["Ranges", "cancelled_tasks", "check_task", "merged", "record", "task_count"]

Ranges = tuple[tuple[int, int], ...]
"""Numbers from the first to the last, both included; in order, with gaps between."""


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same numbers as they are written in one way only."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def task_count(command: Mapping[str, Any]) -> int | None:
    """How many tasks an accepted command has, as the ledger keeps it; `None` if it is no array."""
    workload = command["workload"]
    if workload["kind"] != "array":
        return None
    tasks = workload["tasks"]
    return len(tasks["rows"]) if "rows" in tasks else int(tasks["count"])


def check_task(command: Mapping[str, Any], task: int) -> None:
    """Raise `validation-failed` unless an accepted command has that task."""
    count = task_count(command) or 0
    if task < count:
        return
    message = f"is beyond the last task of the job, {count - 1}"
    remedy = f"use at most {count - 1}"
    if not count:
        message, remedy = "the job is no array: it has no tasks", "leave it out"
    error = FieldError(field="task", message=message, remedy=remedy)
    raise ProblemError("validation-failed", errors=[error])


def record(
    connection: psycopg.Connection,
    job: Mapping[str, Any],
    asked: Iterable[TaskRange],
    now: datetime,
) -> tuple[datetime, bool, bool]:
    """Keep which tasks of the job (its locked row) are not wanted.

    Return when that was first asked for, whether it was before, and whether any task is left that is wanted.

    Raises:
        ProblemError: `validation-failed`: the job has no such tasks. Nothing is written then.
    """
    asked = list(asked)
    count = _checked(job["command"], asked) if job["command"] is not None else None
    tasks = merged((each.first, each.last) for each in asked)
    found = connection.execute(
        "INSERT INTO byoc.task_cancel (submission_id, fingerprint, tasks, requested_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING RETURNING requested_at",
        (job["submission_id"], _fingerprint(tasks), Jsonb(tasks), now),
    ).fetchone()
    requested_at = now if found else _requested_at(connection, job, tasks)
    every = cancelled_tasks(connection, str(job["submission_id"]))
    return requested_at, found is None, every != ((0, (count or 0) - 1),)


def cancelled_tasks(connection: psycopg.Connection, submission_id: str) -> Ranges:
    """All tasks of the job that are not wanted any more."""
    rows = connection.execute(
        "SELECT tasks FROM byoc.task_cancel WHERE submission_id = %s", (submission_id,)
    )
    return merged((first, last) for (tasks,) in rows for first, last in tasks)


def _checked(command: Mapping[str, Any], asked: list[TaskRange]) -> int:
    count = task_count(command)
    if count is None:
        error = FieldError(
            field="tasks",
            message="the job is no array: it has no tasks",
            remedy="leave it out to cancel the job",
        )
        raise ProblemError("validation-failed", errors=[error])
    errors = [
        FieldError(
            field=f"tasks.{place}.last",
            message=f"is beyond the last task of the job, {count - 1}",
            remedy=f"use at most {count - 1}",
        )
        for place, each in enumerate(asked)
        if each.last >= count
    ]
    if errors:
        raise ProblemError("validation-failed", errors=errors[:20])
    return count


def _requested_at(
    connection: psycopg.Connection, job: Mapping[str, Any], tasks: Ranges
) -> datetime:
    row = connection.execute(
        "SELECT requested_at FROM byoc.task_cancel WHERE submission_id = %s AND fingerprint = %s",
        (job["submission_id"], _fingerprint(tasks)),
    ).fetchone()
    assert row is not None  # noqa: S101  (the job's row is locked, and nobody deletes what was asked of it)
    requested_at: datetime = row[0]
    return requested_at


def _fingerprint(tasks: Ranges) -> str:
    return hashlib.sha256(json.dumps(tasks).encode()).hexdigest()
