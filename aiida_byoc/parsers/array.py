"""`byoc.array`: what the elements wrote of their tasks, and Slurm's word, to a table of all tasks and one named end."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict, RemoteData, SinglefileData
from aiida.parsers import Parser

from aiida_byoc.arrays.summing import Beginning, summed
from aiida_byoc.arrays.table import FILENAME
from aiida_byoc.contracts.events import TaskCounts
from aiida_byoc.parsers.container import stderr_of
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.ending import ending
from aiida_byoc.schedulers.ends import ENDS, Record
from aiida_byoc.schedulers.failures import explain
from aiida_byoc.schedulers.options import job_name

__all__ = ["ArrayParser"]


class ArrayParser(Parser):
    """Leave the table of all tasks as `tasks`, their sum as `record`, and say how the attempt ended."""

    def parse(self, **kwargs: Any) -> ExitCode:
        """Return the end that the truth table names; without tasks that did not succeed there is none."""
        retrieved = Path(kwargs.get("retrieved_temporary_folder") or "/nonexistent")
        name = job_name(self.node.get_option("custom_scheduler_commands"))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, FILENAME)
            path.write_bytes(self.node.inputs.tasks.get_content(mode="rb"))
            try:
                left = summed(
                    path, retrieved, attempt=self._specification["attempt"], job_name=name
                )
            except ValueError as error:
                return _exit("record_invalid", reason=error)
            self.out("tasks", SinglefileData(path, filename=FILENAME))
        if left.record is not None:
            self.out("record", Dict(left.record))
        if left.has_outputs:
            place = f"{self.node.get_remote_workdir()}/{in_job.ARRAY}"
            self.out("remote_outputs", RemoteData(computer=self.node.computer, remote_path=place))
        return self._end(left.counts, left.beginnings)

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
