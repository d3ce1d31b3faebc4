"""The elements of an array in Slurm's queue, each a job of its own there; AiiDA knows the array as one."""

from __future__ import annotations

from collections.abc import Iterable

from aiida.schedulers.datastructures import JobInfo, JobState
from aiida.schedulers.plugins.slurm import _FIELD_SEPARATOR

__all__ = ["folded", "one_for_each_array"]

_WAITING = frozenset({JobState.QUEUED, JobState.QUEUED_HELD})
_SPEAKS = {
    state: place
    for place, state in enumerate(
        (
            JobState.RUNNING,
            JobState.SUSPENDED,
            JobState.UNDETERMINED,
            JobState.QUEUED,
            JobState.QUEUED_HELD,
        )
    )
}
"""Which element of an array speaks for it: the first in this order; one that has ended comes last."""


def folded(queue: str) -> str:
    """What `squeue` printed for AiiDA, with one line for all elements of an array that are in the same state.

    AiiDA takes 0.1 ms to read a line, and there may be ten thousand.
    """
    found: dict[tuple[str, ...], str] = {}
    for line in queue.splitlines():
        job, *rest = line.split(_FIELD_SEPARATOR, 3)
        array, is_element, _ = job.partition("_")
        # State and reason, as AiiDA asks for them; the other fields are those of the first.
        found.setdefault((array, *rest[:2]) if is_element else (line,), line)
    return "\n".join(found.values())


def one_for_each_array(jobs: Iterable[JobInfo]) -> list[JobInfo]:
    """The jobs, and of an array's elements one that speaks for all: it runs as soon as one of them does, or did."""
    found: dict[str, JobInfo] = {}
    for job in jobs:
        other = found.setdefault(job.job_id, job)
        states = {job.job_state, other.job_state}
        if other is job or len(states) == 1:
            continue
        speaks = min(job, other, key=lambda each: _SPEAKS.get(each.job_state, len(_SPEAKS)))
        if states == {JobState.DONE, speaks.job_state} and speaks.job_state in _WAITING:
            speaks.job_state = JobState.RUNNING
        found[job.job_id] = speaks
    return list(found.values())
