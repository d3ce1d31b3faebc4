"""How tasks are dealt out to Slurm, and what the owner's bounds refuse."""

from __future__ import annotations

from typing import Any

import pytest

from aiida_byoc.arrays.rules import Arrays, Plan, plan, refusals
from aiida_byoc.contracts.array import ArrayWorkload
from aiida_byoc.contracts.commands import ResourceShape
from tests.builders import submit

RULES = Arrays(tasks=1000, elements=50, at_a_time=10, element_seconds=60)


def workload(count: int, **changes: Any) -> ArrayWorkload:
    kind = {"kind": "array", "image": "localhost/byoc/demo:1", "argv": ["{task_id}"]}
    asked = {**kind, "tasks": {"count": count}, **changes}
    found = submit(workload=asked, resource_shape=shape().model_dump(exclude_none=True)).workload
    assert isinstance(found, ArrayWorkload)
    return found


def shape(cpu: int = 2, walltime_seconds: int = 3600) -> ResourceShape:
    return ResourceShape(cpu=cpu, memory_mib=1, walltime_seconds=walltime_seconds)


@pytest.mark.parametrize(
    ("tasks", "asked", "dealt"),
    [
        (1, {}, Plan(elements=1, at_a_time=10, pack=1, workers=1)),
        (10, {}, Plan(elements=5, at_a_time=10, pack=2, workers=2)),  # all of an element's cpus
        (10, {"pack": 1}, Plan(elements=10, at_a_time=10, pack=1, workers=1)),
        (100, {}, Plan(elements=10, at_a_time=10, pack=10, workers=2)),
        (100, {"pack": 4}, Plan(elements=25, at_a_time=10, pack=4, workers=2)),
        (101, {"pack": 4}, Plan(elements=26, at_a_time=10, pack=4, workers=2)),
        (1000, {"concurrency": 4}, Plan(elements=2, at_a_time=2, pack=500, workers=2)),
        (100, {"concurrency": 8, "pack": 1}, Plan(elements=100, at_a_time=8, pack=1, workers=1)),
        (1000, {"concurrency": 1}, Plan(elements=1, at_a_time=1, pack=1000, workers=1)),
    ],
)
def test_tasks_are_dealt_out(tasks: int, asked: dict[str, Any], dealt: Plan) -> None:
    assert plan(tasks, workload(tasks, **asked), shape(), RULES) == dealt


@pytest.mark.parametrize(
    ("tasks", "seconds", "walltime", "pack"),
    [
        (1000, 0.5, 3600, 240),  # 60 s of two at a time
        (20, 0.5, 3600, 240),  # one element for all: they are that short
        (1000, 30, 3600, 100),  # as many elements as may run at a time
        (1000, 600, 3600, 20),  # not all of the hundred would end in time, but elements are bounded
        (100, 600, 3600, 8),  # four times two, in 0.8 of an hour
        (100, 50, 60, 2),  # two at a time, and no more
    ],
)
def test_declared_durations_count(tasks: int, seconds: float, walltime: int, pack: int) -> None:
    asked = workload(tasks, task_seconds=seconds)

    assert plan(tasks, asked, shape(walltime_seconds=walltime), RULES).pack == pack


def test_what_was_measured_counts_more_than_what_was_declared() -> None:
    asked = workload(1000, task_seconds=0.5)

    assert plan(1000, asked, shape(), RULES, measured=1.0).pack == 120


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"count": 1001}, "workload.tasks.count", "ask for at most 1000"),
        ({"count": 1000, "pack": 19}, "workload.pack", "use 20 or more"),
        ({"count": 100, "concurrency": 21}, "workload.concurrency", "ask for at most 20"),
        ({"count": 9, "pack": 9, "task_seconds": 900}, "workload.pack", "use at most 8"),
        (
            {"count": 1000, "task_seconds": 600},
            "resource_shape.walltime_seconds",
            "ask for 6000 or more, or for fewer tasks",
        ),
    ],
)
def test_what_is_beyond_the_bounds_is_refused(asked: dict[str, Any], field: str, says: str) -> None:
    (refused,) = refusals(workload(**asked), shape(), RULES)

    assert (refused.field, refused.remedy) == (field, says)


def test_what_helps_against_one_refusal_is_not_refused_by_the_next() -> None:
    """With the least pack that makes few enough elements, these cannot end in time."""
    asked = workload(count=1000, pack=19, task_seconds=900)

    found = {each.field: each.remedy for each in refusals(asked, shape(), RULES)}

    assert found == {
        "workload.pack": "use 20 or more",
        "resource_shape.walltime_seconds": "ask for 9000 or more, or for fewer tasks",
    }
    again = workload(count=1000, pack=20, task_seconds=900)
    assert refusals(again, shape(walltime_seconds=9000), RULES) == []


def test_what_is_within_them_is_not() -> None:
    for asked in (
        {"count": 1000},
        {"count": 1000, "pack": 20},
        {"count": 50, "concurrency": 20},
        {"count": 8, "pack": 8, "task_seconds": 900},
        {"count": 1, "task_seconds": 3600},
    ):
        assert refusals(workload(**asked), shape(), RULES) == []
