"""What the tasks of arrays say: each of them succeeded once or failed, whatever died, and the table knows which."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from lab.chaos.evidence import Evidence
from lab.chaos.load import OK, Job

__all__ = ["of_arrays"]

ENDED_BY_ITSELF = ("succeeded", "tasks_failed")
"""Ends of an array all of whose tasks have ended."""


def of_arrays(jobs: Collection[Job], evidence: Evidence) -> Iterator[tuple[str, str, str]]:
    """Compare what each task wrote with the table that was left, and with what the events say."""
    for job in jobs:
        submission = job.submission_id or ""
        if not job.tasks or not evidence.events.get(submission):
            continue
        last = evidence.events[submission][-1]
        end = last.get("error", {}).get("code") or last["state"]
        table = evidence.tables.get(submission, {})
        wrote = evidence.tasks.get(submission, {})
        for number in range(job.tasks):
            for kind, told in _of_task(wrote.get(number, []), number in job.failing):
                yield kind, submission, f"task {number}: {told}"
            if end in ENDED_BY_ITSELF:
                yield from _in_table(job, number, table.get(number), wrote.get(number, []))
        if end in ENDED_BY_ITSELF:
            yield from _told(job, last.get("result", {}).get("tasks") or {})


def _of_task(logs: list[list[str]], fails: bool) -> Iterator[tuple[str, str]]:
    """By what the task itself wrote, in a directory for each attempt, in their order."""
    if any(log.count("start") > 1 for log in logs):
        yield "executed twice", f"twice in one attempt: {logs}"
    if any(OK in log for log in logs[:-1]):
        yield "executed twice", f"again after it had succeeded: {logs}"
    if fails and any(OK in log for log in logs):
        yield "untrue", f"succeeded, though it cannot: {logs}"


def _in_table(
    job: Job, number: int, state: str | None, logs: list[list[str]]
) -> Iterator[tuple[str, str, str]]:
    """The table has every task, with the end that it came to."""
    submission, came_to = (
        job.submission_id or "",
        "failed" if number in job.failing else "succeeded",
    )
    if state is None:
        yield "lost", submission, f"task {number} is not in the table"
    elif state != came_to:
        yield "untrue", submission, f"task {number} is {state}, not {came_to}: {logs}"
    elif not logs or "end" not in logs[-1]:
        yield "untrue", submission, f"task {number} is {state}, but it wrote {logs}"


def _told(job: Job, counts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The last event counts the tasks as they ended."""
    told = [counts.get(name) for name in ("total", "succeeded", "failed", "interrupted")]
    ended = [job.tasks, job.tasks - len(job.failing), len(job.failing), 0]
    if told != ended:
        yield "untrue", job.submission_id or "", f"the event counts {told}, not {ended}"
