"""`byoc.array`: what the elements wrote of their tasks, and Slurm's word, to a table of all tasks and one named end."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict, RemoteData, SinglefileData
from aiida.parsers import Parser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aiida_byoc.arrays.gathering import lines
from aiida_byoc.arrays.table import FILENAME, Table, opened
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.events import OutputRecord, TaskCounts
from aiida_byoc.contracts.identity import Name
from aiida_byoc.parsers.container import stderr_of
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.ending import ending
from aiida_byoc.schedulers.ends import ENDS, Record
from aiida_byoc.schedulers.failures import explain
from aiida_byoc.schedulers.options import job_name

__all__ = ["ArrayParser", "Beginning", "TaskRecord"]


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


class ArrayParser(Parser):
    """Leave the table of all tasks as `tasks`, their sum as `record`, and say how the attempt ended."""

    def parse(self, **kwargs: Any) -> ExitCode:
        """Return the end that the truth table names; without tasks that did not succeed there is none."""
        retrieved = Path(kwargs.get("retrieved_temporary_folder") or "/nonexistent")
        try:
            beginnings, results = _read(retrieved)
            cancelled = _cancelled(retrieved)
        except ValueError as error:
            return _exit("record_invalid", reason=error)
        name = job_name(self.node.get_option("custom_scheduler_commands"))
        if any(each.scheduler_job_name != name for each in beginnings):
            return _exit("record_invalid", reason="another Slurm job wrote it")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, FILENAME)
            path.write_bytes(self.node.inputs.tasks.get_content(mode="rb"))
            with opened(path) as table:
                table.begin()
                table.take(each.model_dump() for each in results)
                table.cancel(cancelled, waiting=True)
                table.close_attempt(self._attempt)
                counts = _counts(table)
                self._keep_record(table, counts, beginnings, results)
            self.out("tasks", SinglefileData(path, filename=FILENAME))
        if any(each.outputs for each in results):
            place = f"{self.node.get_remote_workdir()}/{in_job.ARRAY}"
            self.out("remote_outputs", RemoteData(computer=self.node.computer, remote_path=place))
        return self._end(counts, beginnings)

    @property
    def _attempt(self) -> int:
        return int(self._specification["attempt"])

    @property
    def _specification(self) -> dict[str, Any]:
        text = self.node.base.repository.get_object_content(in_job.SPECIFICATION, mode="rb")
        specification: dict[str, Any] = json.loads(text)
        return specification

    def _end(self, counts: TaskCounts, beginnings: list[Beginning]) -> ExitCode:
        if counts.succeeded + (counts.cancelled or 0) == counts.total:
            return ExitCode(0)
        seen = ending(str((self.node.get_detailed_job_info() or {}).get("stdout", "")))
        record, reason = _said(counts, beginnings, self._specification["image_digest"])
        end = explain(seen, record, stderr=stderr_of(self))
        end = end or ENDS["tasks_failed"]
        told = end.told(seen, **counts.model_dump(), first=_first(counts), reason=reason)
        if end.code == "tasks_failed":
            return ExitCode(end.status, told)
        told = told.rstrip(".")
        return ExitCode(
            end.status, f"{told}; {counts.succeeded} of {counts.total} tasks succeeded."
        )

    def _keep_record(
        self,
        table: Table,
        counts: TaskCounts,
        beginnings: list[Beginning],
        results: list[TaskRecord],
    ) -> None:
        """What the events tell of it; nothing if no element began."""
        if not beginnings:
            return
        started = min(each.started_at for each in beginnings)
        ended = max((each.ended_at for each in results), default=started)
        record = {
            "scheduler_job_id": beginnings[0].scheduler_job_id,
            "started_at": started,
            "ended_at": max(started, ended),
            "exit_code": table.worst_exit_code(),
            "image_digest": beginnings[0].image_digest,
            "outputs": [],
            "usage": {**table.usage(), "walltime_seconds": round(max(0.0, ended - started), 3)},
            "tasks": counts.model_dump(exclude_none=True),
            "progress": {
                "step": counts.total - counts.interrupted,
                "steps": counts.total,
                "fraction": (counts.total - counts.interrupted) / counts.total,
                "reported_at": utc_now_text(datetime.fromtimestamp(max(started, ended), UTC)),
            },
        }
        self.out("record", Dict({name: each for name, each in record.items() if each is not None}))


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


def _said(counts: TaskCounts, beginnings: list[Beginning], image: str) -> tuple[Record, str | None]:
    """The elements' words in those of the truth table, and a reason if they give one."""
    for each in beginnings:
        if each.image_digest is None:
            return Record.NO_IMAGE, each.message
        if each.image_digest != image:
            return Record.OTHER_IMAGE, each.message
        if each.message is not None:
            return Record.NO_INPUT, each.message
    return (Record.NONE if counts.interrupted else Record.TASKS_FAILED), None


def _first(counts: TaskCounts) -> str:
    task = counts.first_failed[0]
    status = f" with status {task.exit_code}" if task.exit_code is not None else ""
    said = f": {task.message}" if task.message else ""
    return f"{task.id} {task.state}{status}{said}".rstrip(".")


def _exit(code: str, **facts: object) -> ExitCode:
    end = ENDS[code]
    return ExitCode(end.status, end.told(ending(""), **facts))
