"""The table of an array's tasks that an attempt begins with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiida.common import NotExistent
from aiida.orm import CalcJobNode, SinglefileData

from aiida_byoc.arrays.cancelled import Ranges
from aiida_byoc.arrays.table import FILENAME, created, opened
from aiida_byoc.contracts.array import MAX_TABLE_BYTES, ArrayTasks, ArrayWorkload
from aiida_byoc.workflows.inputs import InputUnavailable

__all__ = ["Tasks", "tasks_of"]


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What an attempt has to do.

    Attributes:
        table: of all tasks.
        total: how many there are; `to_run`: how many of them have not succeeded and are wanted; `cancelled`: how many
            are not wanted, of the others.
        seconds: how long one took that has; `None` while none has.
    """

    table: SinglefileData
    total: int
    to_run: int
    cancelled: int = 0
    seconds: float | None = None


def tasks_of(
    workload: ArrayWorkload,
    tried: Sequence[CalcJobNode],
    file: Path | None,
    cancelled: Ranges = (),
) -> Tasks:
    """The newest table that an attempt left; at first, and where none came so far, the command's own.

    Args:
        file: where the node has fetched the command's table, if that names one.
        cancelled: tasks that are not wanted any more.

    Raises:
        InputUnavailable: the file does not hold the tasks that the command promises.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, FILENAME)
        for attempt in reversed(tried):
            try:
                node: SinglefileData = attempt.outputs.tasks
            except (NotExistent, AttributeError):
                continue
            path.write_bytes(node.get_content(mode="rb"))
            with opened(path) as table:
                changed = table.cancel(cancelled)
                counts, seconds = table.counts(), table.mean_seconds()
            return _tasks(counts, seconds, SinglefileData(path, FILENAME) if changed else node)
        with created(path, _whole(workload, file)) as table:
            table.cancel(cancelled)
            counts = table.counts()
        return _tasks(counts, None, SinglefileData(path, FILENAME))


def _tasks(counts: Mapping[str, int], seconds: float | None, table: SinglefileData) -> Tasks:
    total = sum(counts.values())
    return Tasks(
        table=table,
        total=total,
        to_run=total - counts["succeeded"] - counts["cancelled"],
        cancelled=counts["cancelled"],
        seconds=seconds,
    )


def _whole(workload: ArrayWorkload, file: Path | None) -> ArrayTasks:
    if file is None:
        return workload.tasks
    try:
        with file.open("rb") as opened_file:
            content = opened_file.read(MAX_TABLE_BYTES + 1)
        return workload.tasks.read(content)
    except OSError as error:
        raise InputUnavailable(f"the table of tasks is not there: {error.strerror}") from error
    except ValueError as error:
        raise InputUnavailable(f"the table of tasks {error}") from error
