"""What the node's owner allows of arrays (`[arrays]` in `policy.toml`), and how tasks are dealt out to Slurm.

Slurm starts some tens of jobs a second, and a container starts in a hundredth of one: short tasks are packed, so that
one element of Slurm's array runs many of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.contracts.array import MAX_TASKS, ArrayWorkload
from aiida_byoc.contracts.commands import ResourceShape
from aiida_byoc.contracts.problems import FieldError

__all__ = ["Arrays", "Plan", "plan", "refusals"]

_OF_THE_WALLTIME = 0.8
"""An element whose tasks take as long as declared ends well before its time is over."""


class Arrays(Table):
    """Bounds of one array.

    Attributes:
        tasks: the most that one may have. 0: there are no arrays.
        elements: the most jobs that one is in Slurm; not more than slurm.conf's `MaxArraySize`.
        at_a_time: the most of them that run at a time.
        element_seconds: how long one is to take, where the command says how long a task does.
    """

    tasks: int = Field(ge=0, le=MAX_TASKS, default=10_000)
    elements: int = Field(ge=1, le=MAX_TASKS, default=1000)
    at_a_time: int = Field(ge=1, le=MAX_TASKS, default=100)
    element_seconds: float = Field(ge=1, le=86_400, default=60)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How tasks are dealt out.

    Attributes:
        elements: jobs in Slurm, of which so many run `at_a_time`.
        pack: tasks of each; the last may have fewer.
        workers: tasks that each runs at a time.
    """

    elements: int
    at_a_time: int
    pack: int
    workers: int


def plan(
    tasks: int,
    workload: ArrayWorkload,
    shape: ResourceShape,
    rules: Arrays,
    *,
    measured: float | None = None,
) -> Plan:
    """Deal out so many tasks.

    Where nobody says how many go together, they are spread over as many elements as may run at a time and have work for
    all of their processors; of short ones there are fewer elements, each of which takes `element_seconds`.

    Args:
        measured: seconds that a task took in earlier attempts, where any was measured; what is declared counts less.
    """
    task_seconds = measured or workload.task_seconds
    most = workload.concurrency or MAX_TASKS
    pack = workload.pack
    workers = min(shape.cpu, most, pack or MAX_TASKS)
    at_a_time = min(rules.at_a_time, max(1, most // workers))
    if pack is None:
        pack = max(math.ceil(tasks / at_a_time), min(workers, tasks))
        if task_seconds is not None:
            seconds = min(rules.element_seconds, _OF_THE_WALLTIME * shape.walltime_seconds)
            long_enough = max(1, int(seconds * workers / task_seconds))
            fits = max(1, int(_OF_THE_WALLTIME * shape.walltime_seconds / task_seconds))
            pack = min(max(pack, long_enough), fits * workers)
        pack = max(pack, math.ceil(tasks / rules.elements))
    return Plan(
        elements=math.ceil(tasks / pack), at_a_time=at_a_time, pack=pack, workers=min(workers, pack)
    )


def refusals(workload: ArrayWorkload, shape: ResourceShape, rules: Arrays) -> list[FieldError]:
    """What a command asks for beyond the owner's bounds."""
    tasks = len(workload.tasks)
    field = "workload.tasks.count" if workload.tasks.rows is None else "workload.tasks.rows"
    if tasks > rules.tasks:
        return [
            _beyond(
                field, f"has {tasks} tasks, the node takes {rules.tasks} in one array", rules.tasks
            )
        ]
    found = []
    dealt = plan(tasks, workload, shape, rules)
    least = math.ceil(tasks / rules.elements)
    if dealt.elements > rules.elements:
        message = (
            f"makes {dealt.elements} jobs in Slurm, whose arrays have {rules.elements} at most"
        )
        found.append(
            FieldError(field="workload.pack", message=message, remedy=f"use {least} or more")
        )
    found += _overlong(workload, shape, dealt, least)
    most = rules.at_a_time * dealt.workers
    if workload.concurrency is not None and workload.concurrency > most:
        message = f"exceeds the node's ceiling of {most} with {dealt.workers} at a time in a job"
        found.append(_beyond("workload.concurrency", message, most))
    return found


def _overlong(
    workload: ArrayWorkload, shape: ResourceShape, dealt: Plan, least: int
) -> list[FieldError]:
    """What to do about elements that cannot end in time, by what the command says of a task.

    Args:
        least: tasks that an element must have, so that there are not too many elements.
    """
    if workload.task_seconds is None:
        return []
    pack = max(dealt.pack, least)
    seconds = math.ceil(pack / dealt.workers) * workload.task_seconds
    if seconds <= shape.walltime_seconds:
        return []
    message = (
        f"gives each Slurm job {pack} tasks of {workload.task_seconds:g} s, {dealt.workers} at a time,"
        f" and {shape.walltime_seconds} s for all of them"
    )
    most = int(shape.walltime_seconds / workload.task_seconds) * dealt.workers
    if workload.pack is not None and most >= least:
        return [FieldError(field="workload.pack", message=message, remedy=f"use at most {most}")]
    remedy = f"ask for {math.ceil(seconds)} or more, or for fewer tasks"
    return [FieldError(field="resource_shape.walltime_seconds", message=message, remedy=remedy)]


def _beyond(field: str, message: str, ceiling: int) -> FieldError:
    remedy = f"ask for at most {ceiling}" if ceiling else "the node takes no arrays"
    return FieldError(field=field, message=message, remedy=remedy)
