"""What an accepted job has to wait for: earlier jobs whose outputs it reads, and files that are to be fetched.

Noted in the transaction of the acceptance, so that no job is launched without its inputs, whoever dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import class_row

from aiida_byoc.contracts.commands import (
    CONTAINED,
    ArrayWorkload,
    JobInput,
    SubmitJobCommand,
    UrlInput,
)
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.runtimes.in_job.globs import Pattern

__all__ = ["UNAVAILABLE", "Earlier", "Needed", "earlier_jobs", "needed", "want"]

UNAVAILABLE = "input_unavailable"
"""The code of a job that fails because one of its inputs cannot be had."""

_FIND = """
SELECT submission_id, job_id, state::text, process_pk, command FROM byoc.job
WHERE tenant_id = %s AND workspace_id = %s AND job_id = %s AND state IS NOT NULL
"""

_EARLIER = """
SELECT earlier.submission_id, earlier.job_id, earlier.state::text, earlier.process_pk, earlier.command
FROM byoc.depends JOIN byoc.job AS earlier ON earlier.submission_id = depends.earlier_id
WHERE depends.submission_id = %s ORDER BY earlier.accepted_at
"""

_DEPEND = (
    "INSERT INTO byoc.depends (submission_id, earlier_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
)
_READS = "UPDATE byoc.job SET reads_jobs = true WHERE submission_id = %s AND NOT reads_jobs"
_FETCH = "INSERT INTO byoc.input_fetch (submission_id, sha256, url) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"


@dataclass(frozen=True)
class Needed:
    """What a job that is to be accepted will have to wait for.

    Attributes:
        files: to be fetched, by SHA-256 (hex) and URL.
        jobs: the submissions whose outputs it reads.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    jobs: list[object] = field(default_factory=list)


@dataclass(frozen=True)
class Earlier:
    """A job whose outputs another one reads.

    Attributes:
        command: `None` once the node has forgotten it.
    """

    submission_id: object
    job_id: str
    state: str
    process_pk: int | None
    command: Mapping[str, Any] | None

    def promises(self, output: str) -> bool:
        """Whether the job may leave a file of that name; of one that is forgotten nobody knows."""
        if self.command is None:
            return True
        if self.command["workload"]["kind"] == "array":
            return False  # its tasks do, each for itself
        promised = self.command["workload"].get("outputs", [])
        if not isinstance(promised, list):
            return False
        return any(
            each["name"] == output if "name" in each else Pattern(each["glob"]).matches(output)
            for each in promised
        )


def needed(connection: psycopg.Connection, command: SubmitJobCommand) -> Needed:
    """What the job will have to wait for; nothing is written.

    Raises:
        ProblemError: `input-not-found`, for a job that its workspace does not have on this node, or that promises no
            such output.
    """
    workload, found, errors = command.workload, Needed(), []
    if not isinstance(workload, CONTAINED):
        return found
    if isinstance(workload, ArrayWorkload) and (table := workload.tasks.file):
        found.files.append((table.sha256, table.url))
    for index, file in enumerate(workload.inputs):
        if isinstance(file, UrlInput):
            found.files.append((file.sha256, file.url))
        if not isinstance(file, JobInput):
            continue
        named = (command.tenant_id, command.workspace_id, file.job.job_id)
        earlier = connection.cursor(row_factory=class_row(Earlier)).execute(_FIND, named).fetchone()
        if earlier is None:
            errors.append(_no_such_job(index))
        elif not earlier.promises(file.job.output):
            errors.append(_no_such_output(index))
        else:
            found.jobs.append(earlier.submission_id)
    if errors:
        raise ProblemError("input-not-found", errors=errors)
    return found


def want(connection: psycopg.Connection, submission_id: str, needed: Needed) -> None:
    """Note what the job waits for, in the transaction of its acceptance."""
    for sha256, url in needed.files:
        connection.execute(_FETCH, (submission_id, sha256, url))
    for earlier in needed.jobs:
        connection.execute(_DEPEND, (submission_id, earlier))
    if needed.jobs:
        connection.execute(_READS, (submission_id,))


def earlier_jobs(connection: psycopg.Connection, submission_id: object) -> list[Earlier]:
    """The jobs whose outputs the job reads."""
    rows = connection.cursor(row_factory=class_row(Earlier))
    return rows.execute(_EARLIER, (submission_id,)).fetchall()


def _no_such_job(index: int) -> FieldError:
    return FieldError(
        field=f"workload.inputs.{index}.job.job_id",
        message="names no job that this workspace has on this node",
        remedy="submit that job first, to this node",
    )


def _no_such_output(index: int) -> FieldError:
    return FieldError(
        field=f"workload.inputs.{index}.job.output",
        message="names no output that the job promises",
        remedy="name one of its outputs, or a file that one of its patterns means",
    )
