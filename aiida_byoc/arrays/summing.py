"""What the elements of an array left, brought to a table of all tasks and their sum."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aiida_byoc.arrays.gathering import lines
from aiida_byoc.arrays.table import Table, opened
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.events import OutputRecord, TaskCounts
from aiida_byoc.contracts.identity import Name
from aiida_byoc.runtimes import in_job

__all__ = ["Beginning", "Left", "TaskRecord", "summed"]


class TaskRecord(BaseModel):
    """What `runtimes/in_job/array_task.py` writes of a task."""

    model_config = ConfigDict(frozen=True, strict=True)

    number: int = Field(ge=0)
    id: Name
    state: str = Field(pattern="^(succeeded|failed|interrupted|cancelled)$")
    attempt: int
    exit_code: int | None = Field(ge=0, le=255)
    started_at: float
    ended_at: float
    cpu_seconds: float | None
    peak_rss_mib: float | None
    message: str | None = Field(max_length=300)
    outputs: list[OutputRecord]
    node: str = Field(max_length=256)


class Beginning(BaseModel):
    """What an element writes first."""

    model_config = ConfigDict(frozen=True, strict=True)

    element: int
    image_digest: str | None
    scheduler_job_id: str
    scheduler_job_name: str
    started_at: float
    message: str | None


@dataclass(frozen=True, kw_only=True)
class Left:
    """What an attempt left.

    Attributes:
        beginnings: of its elements, as many as began.
        counts: of all tasks, those of earlier attempts among them.
        record: what the events tell of it, as `ContainerJob.record`; `None` if no element began, and somebody may want
            the tasks still.
        has_outputs: whether a task of this attempt left any.
    """

    beginnings: list[Beginning]
    counts: TaskCounts
    record: dict[str, Any] | None
    has_outputs: bool


def summed(
    path: Path, retrieved: Path, *, attempt: int, job_name: str, stopped: bool = False
) -> Left:
    """Write what an attempt left into the table that it began with.

    Args:
        path: the table.
        retrieved: where the elements' words are.
        job_name: who may have written them.
        stopped: nobody wants what has not ended any more: the job was cancelled.

    Raises:
        ValueError: what is there cannot be believed.
    """
    beginnings, results = _read(retrieved)
    cancelled = _cancelled(retrieved)
    if any(each.scheduler_job_name != job_name for each in beginnings):
        raise ValueError("another Slurm job wrote it")
    with opened(path) as table:
        table.begin()
        table.take(each.model_dump() for each in results)
        table.cancel([(0, len(table))] if stopped else cancelled, unended=True)
        table.close_attempt(attempt)
        counts = _counts(table)
        record = _record(table, counts, beginnings, results) if beginnings or stopped else None
    return Left(
        beginnings=beginnings,
        counts=counts,
        record=record,
        has_outputs=any(each.outputs for each in results),
    )


def _record(
    table: Table, counts: TaskCounts, beginnings: list[Beginning], results: list[TaskRecord]
) -> dict[str, Any]:
    now = datetime.now(UTC).timestamp()
    started = min((each.started_at for each in beginnings), default=now)
    ended = max([started, *(each.ended_at for each in results)])
    over = counts.total - counts.interrupted
    ran = (
        {
            "scheduler_job_id": beginnings[0].scheduler_job_id,
            "started_at": started,
            "ended_at": ended,
            "image_digest": beginnings[0].image_digest,
        }
        if beginnings
        else {}
    )
    record = {
        **ran,
        "exit_code": table.worst_exit_code(),
        "outputs": [],
        "usage": {**table.usage(), "walltime_seconds": round(ended - started, 3)},
        "tasks": counts.model_dump(exclude_none=True),
        "progress": {
            "step": over,
            "steps": counts.total,
            "fraction": over / counts.total,
            "reported_at": utc_now_text(datetime.fromtimestamp(ended, UTC)),
        },
    }
    return {name: each for name, each in record.items() if each is not None}


def _read(retrieved: Path) -> tuple[list[Beginning], list[TaskRecord]]:
    """What all elements wrote; `ValueError` for what cannot be believed."""
    beginnings, results = [], []
    for line in lines(retrieved):
        try:
            if "id" in line:
                results.append(TaskRecord.model_validate(line))
            elif "element" in line:
                beginnings.append(Beginning.model_validate(line))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
            raise ValueError(f"{where} of element {line.get('element')} is wrong") from error
    return beginnings, results


def _cancelled(retrieved: Path) -> list[tuple[int, int]]:
    """The ranges that the array was told of; `ValueError` if that is not what they are."""
    try:
        content = (retrieved / Path(in_job.CANCELLED).name).read_bytes()
    except FileNotFoundError:
        return []
    return TypeAdapter(list[tuple[int, int]]).validate_json(content)


def _counts(table: Table) -> TaskCounts:
    counts = table.counts()
    return TaskCounts.model_validate(
        {
            "total": len(table),
            "succeeded": counts["succeeded"],
            "failed": counts["failed"],
            "interrupted": counts["interrupted"],
            "cancelled": counts["cancelled"] or None,
            "first_failed": table.failures(),
        }
    )
