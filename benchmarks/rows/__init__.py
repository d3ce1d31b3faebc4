"""The rows of the table, in the order in which they share a lab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Measure
from benchmarks.laboratory import Bench
from benchmarks.rows import (
    acceptance,
    arrays,
    breakdown,
    events,
    growth,
    idle,
    jobs,
    latency,
    slurm,
)

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True)
class Row:
    """What a row measures, and how long it may take: in full, and for a look (seconds)."""

    measure: Callable[[Bench], list[Measure]]
    about: str
    seconds: float
    quick_seconds: float


ROWS = {
    "idle": Row(idle.measure, "what a node costs that has nothing to do", 900, 120),
    "breakdown": Row(breakdown.measure, "where the CPU and SQL of one job go", 600, 240),
    "jobs": Row(jobs.measure, "jobs per second, against plain AiiDA", 1200, 300),
    "latency": Row(latency.measure, "from the job's end until it is seen", 1200, 300),
    "acceptance": Row(acceptance.measure, "commands per second, and how long each takes", 600, 240),
    "events": Row(events.measure, "a backlog of events to the product", 1200, 240),
    "growth": Row(growth.measure, "the same with a full ledger", 1800, 300),
    "arrays": Row(arrays.measure, "short tasks per second, as one job", 2400, 300),
    "slurm": Row(slurm.measure, "what Slurm is asked, and how soon it is told", 1200, 420),
}
