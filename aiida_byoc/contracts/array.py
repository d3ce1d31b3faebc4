"""A workload that is many containers: one command line with parameters, and a table of their values.

The templates are put together on the compute node; what the values hold is never read by anything but the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aiida_byoc.contracts.base import PLAIN, Order
from aiida_byoc.contracts.container import EnvironmentName, Image, check_names
from aiida_byoc.contracts.files import HttpsUrl, InputFile, PromisedOutput, Sha256
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated

__all__ = [
    "BUILT_IN",
    "MAX_TABLE_BYTES",
    "MAX_TASKS",
    "ArrayTasks",
    "ArrayWorkload",
    "TaskFile",
    "parts",
]

MAX_TASKS = 100_000
MAX_TABLE_BYTES = 256 * 2**20
"""Of a table that is fetched: a worker holds it in memory for a moment."""

BUILT_IN = ("task_id", "task_number")
"""Parameters that every task has, beside those of its table."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")

Cell = Annotated[str, Field(max_length=4096), PLAIN]
"""What stands for one parameter in one task: text, whatever the program takes it for."""


def _parameter(name: str) -> str:
    if name in BUILT_IN:
        raise ValueError("is a parameter that every task has already")
    return name


ParameterName = Annotated[
    str, StringConstraints(pattern=f"^{_NAME.pattern}$"), AfterValidator(_parameter)
]


class TaskFile(Order):
    """A table that the node fetches: a JSON object with `rows` and perhaps `ids`, as in the command."""

    url: HttpsUrl
    sha256: Sha256


class ArrayTasks(Order):
    """The tasks: a row of values for each, here or in a file, or a number of them that differ by nothing else."""

    columns: Annotated[
        list[ParameterName], Field(max_length=64, description="names of the parameters")
    ] = []
    rows: (
        Annotated[
            list[list[Cell]],
            Field(min_length=1, max_length=MAX_TASKS, description="a value for each column"),
        ]
        | None
    ) = None
    ids: (
        Annotated[
            list[Name],
            Field(max_length=MAX_TASKS, description="one for each task; default: their numbers"),
        ]
        | None
    ) = None
    count: Annotated[int, Field(ge=1, le=MAX_TASKS)] | None = None
    file: TaskFile | None = None

    @field_validator("columns")
    @classmethod
    def _columns_differ(cls, columns: list[str]) -> list[str]:
        for place, name in enumerate(columns):
            if columns.index(name) != place:
                raise ValueError(
                    f"column {place} has the name of column {columns.index(name)}: {name}"
                )
        return columns

    @field_validator("rows")
    @classmethod
    def _no_row_is_ragged(
        cls, rows: list[list[str]] | None, others: ValidationInfo
    ) -> list[list[str]] | None:
        columns: list[str] | None = others.data.get("columns")
        if rows is None or columns is None:
            return rows
        for number, row in enumerate(rows):
            if len(row) < len(columns):
                raise ValueError(
                    f"row {number} has no value in column {len(row)}, {columns[len(row)]}"
                )
            if len(row) > len(columns):
                raise ValueError(
                    f"row {number} has a value in column {len(columns)}, but there is none"
                )
        return rows

    @field_validator("ids")
    @classmethod
    def _ids_differ(cls, ids: list[str] | None) -> list[str] | None:
        seen: dict[str, int] = {}
        for number, each in enumerate(ids or ()):
            if seen.setdefault(each, number) != number:
                raise ValueError(f"row {number} has the id of row {seen[each]}")
        return ids

    @model_validator(mode="after")
    def _is_a_table_or_a_number(self) -> ArrayTasks:
        if (self.rows is None) == (self.count is None):
            raise ValueError("must have exactly one of rows or count")
        if self.file is not None and (self.count is None or self.ids is not None):
            raise ValueError("with a file must have count, and ids in the file alone")
        if self.count is not None and self.columns and self.file is None:
            raise ValueError("columns have values only in rows or a file")
        if self.ids is not None and len(self.ids) != len(self):
            tasks, ids = len(self), len(self.ids)
            which = f"row {ids} has none" if ids < tasks else f"id {tasks} has no row"
            raise ValueError(f"has {tasks} tasks and {ids} ids: {which}")
        return self

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else self.count or 0

    @property
    def parameters(self) -> tuple[str, ...]:
        """What templates may name, in the order of a task's values."""
        return (*self.columns, *BUILT_IN)

    def read(self, content: bytes) -> ArrayTasks:
        """The same tasks with the rows of their file.

        Raises:
            ValueError: it is none, or holds others than were promised; the message names row and column.
        """
        if len(content) > MAX_TABLE_BYTES:
            raise ValueError(f"has more than {MAX_TABLE_BYTES >> 20} MiB")
        try:
            told = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError("is not JSON, or is nested too deeply") from error
        if not isinstance(told, dict) or not set(told) <= {"rows", "ids"}:
            raise ValueError("must be an object with rows, and perhaps ids")
        try:
            whole = validated(ArrayTasks, {**told, "columns": self.columns}, what="table")
        except ProblemError as error:
            first = error.errors[0]
            raise ValueError(f"{first.field}: {first.message}") from error
        if len(whole) != self.count:
            raise ValueError(f"has {len(whole)} rows, not {self.count}")
        return whole

    def tasks(self) -> Iterator[tuple[int, str, list[str]]]:
        """Number, id and values of each."""
        for number in range(len(self)):
            task_id = self.ids[number] if self.ids else str(number)
            row = self.rows[number] if self.rows else []
            yield number, task_id, [*row, task_id, str(number)]


def parts(template: str, parameters: Sequence[str]) -> list[str | int]:
    """Cut a template into literal texts and numbers of parameters; `{{` and `}}` are braces.

    Raises:
        ValueError: it names a parameter that there is not, or has a brace that means nothing.
    """
    found: list[str | int] = []
    for piece in _PIECE.finditer(template):
        text, name = piece.group(), piece.group(1)
        if name is not None:
            if name not in parameters:
                known = ", ".join(parameters)
                named = f" {name}" if _NAME.fullmatch(name) else ""
                raise ValueError(
                    f"names a parameter{named} that is neither a column nor one of {known}"
                    " (write {{ or }} for a brace)"
                )
            found.append(list(parameters).index(name))
        elif text in {"{", "}"}:
            raise ValueError(
                "has a single brace: write {name} for a parameter, {{ or }} for a brace"
            )
        else:
            found.append({"{{": "{", "}}": "}"}.get(text, text))
    return found


def _template(value: str, others: ValidationInfo) -> str:
    tasks = others.data.get("tasks")
    if tasks is not None:
        parts(value, tasks.parameters)
    return value


Template = Annotated[str, Field(max_length=32 * 1024), PLAIN, AfterValidator(_template)]
"""Text with parameters: `{name}` stands for a task's value."""


class ArrayWorkload(Order):
    """Many tasks, a container each, as one job: `resource_shape` is what a part of them may use that runs together."""

    kind: Literal["array"]
    image: Image
    tasks: ArrayTasks
    argv: Annotated[
        list[Template],
        Field(min_length=1, max_length=256, description="program and arguments of every task"),
    ]
    env: Annotated[dict[EnvironmentName, Template], Field(max_length=256)] = {}
    inputs: Annotated[
        list[InputFile], Field(max_length=256, description="every task has them, read-only")
    ] = []
    outputs: Annotated[list[PromisedOutput], Field(max_length=64, description="of every task")] = []
    network: Literal["none", "host"] = "none"
    concurrency: (
        Annotated[int, Field(ge=1, le=MAX_TASKS, description="most tasks at a time")] | None
    ) = None
    pack: Annotated[int, Field(ge=1, le=MAX_TASKS, description="tasks in one Slurm job")] | None = (
        None
    )
    task_seconds: (
        Annotated[float, Field(gt=0, le=31_536_000, description="how long one takes, about")] | None
    ) = None

    @model_validator(mode="after")
    def _names_do_not_collide(self) -> ArrayWorkload:
        check_names(self.inputs, self.outputs, texts_are_fixed=True)
        return self

    @property
    def checkpoint(self) -> None:
        """Tasks get no signal: what has not ended is run again."""
        return None
