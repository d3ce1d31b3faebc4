"""What the tasks of arrays say: each succeeded once, failed or was cancelled, whatever died; the table knows which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lab.chaos.evidence import Evidence
from lab.chaos.load import OK, Job

__all__ = ["of_arrays"]

ENDED_BY_ITSELF = ("succeeded", "tasks_failed")
"""Ends of an array all of whose tasks have ended."""
_COUNTED = ("total", "succeeded", "failed", "interrupted", "cancelled")


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
        tried = sum(each["submission_id"] == submission for each in evidence.calculations)
        is_known = end in ENDED_BY_ITSELF or (end == "cancelled" and wrote)
        for number in range(job.tasks):
            for kind, told in _of_task(wrote.get(number, []), number in job.failing):
                yield kind, submission, f"task {number}: {told}"
            if is_known:
                may_be = _unended(job, number, end, tried)
                yield from _in_table(job, number, table.get(number), wrote.get(number, []), may_be)
        counts = last.get("result", {}).get("tasks")
        if counts or (is_known and tried == 1):  # a later attempt may not have begun
            yield from _told(job, counts or {}, table)


def _of_task(logs: list[list[str]], fails: bool) -> Iterator[tuple[str, str]]:
    """By what the task itself wrote, in a directory for each attempt, in their order."""
    if any(log.count("start") > 1 for log in logs):
        yield "executed twice", f"twice in one attempt: {logs}"
    if any(OK in log for log in logs[:-1]):
        yield "executed twice", f"again after it had succeeded: {logs}"
    if fails and any(OK in log for log in logs):
        yield "untrue", f"succeeded, though it cannot: {logs}"


def _unended(job: Job, number: int, end: str, tried: int) -> set[str]:
    """How the table may have a task that did not come to its end."""
    cancelled = {"cancelled"} if end == "cancelled" or number in job.withdrawn else set()
    return cancelled | ({"interrupted"} if end == "cancelled" and tried > 1 else set())


def _in_table(
    job: Job, number: int, state: str | None, logs: list[list[str]], unended: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """The table has every task, with the end that it came to, or that somebody put to it."""
    submission = job.submission_id or ""
    came_to = "failed" if number in job.failing else "succeeded"
    if state is None:
        yield "lost", submission, f"task {number} is not in the table"
    elif state not in {came_to, *unended}:
        yield "untrue", submission, f"task {number} is {state}, not {came_to}: {logs}"
    elif state == came_to and (not logs or "end" not in logs[-1]):
        yield "untrue", submission, f"task {number} is {state}, but it wrote {logs}"


def _told(
    job: Job, counts: dict[str, Any], table: Mapping[int, str]
) -> Iterator[tuple[str, str, str]]:
    """The last event counts the tasks as the table has them."""
    states = Counter(table.values())
    told = {name: counts.get(name, 0) for name in _COUNTED}
    ended = {"total": job.tasks, **{name: states[name] for name in _COUNTED[1:]}}
    if told != ended:
        yield "untrue", job.submission_id or "", f"the event counts {told}, not {ended}"
