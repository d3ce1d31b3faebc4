"""`byoc.container`: believe the completion record, nothing else; absence is never success."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict, FolderData
from aiida.parsers import Parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiida_byoc.contracts.events import OutputRecord, Usage
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.options import job_name

__all__ = ["CompletionRecord", "ContainerParser"]


class CompletionRecord(BaseModel):
    """What `runtimes/in_job` writes."""

    model_config = ConfigDict(frozen=True, strict=True)

    submission_id: str
    attempt: int
    image_digest: str
    scheduler_job_id: str
    scheduler_job_name: str
    container_started: bool
    runtime_usable: bool = True
    exit_code: int | None = Field(ge=0, le=255)
    message: str | None
    started_at: float
    ended_at: float
    outputs: list[OutputRecord]
    missing: list[str]
    usage: Usage


class ContainerParser(Parser):
    """Turn the retrieved files of a `ContainerJob` into outputs or a named exit code."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach `record` and `outputs`; return the exit code of the first thing that is wrong.

        Slurm's own verdict (out of memory, walltime, node failure) is on the node already, and explains a missing
        record better than its absence does.
        """
        slurm = self.node.exit_status
        try:
            record = self._record()
        except FileNotFoundError:
            return None if slurm else self._exit("ERROR_NO_COMPLETION_RECORD")
        except ValueError as error:
            return self._exit("ERROR_COMPLETION_RECORD_INVALID", reason=error)
        self.out("record", Dict(record.model_dump(mode="json", exclude_none=True)))
        temporary = Path(kwargs.get("retrieved_temporary_folder") or "/nonexistent")
        outputs = temporary / in_job.OUTPUTS
        if record.outputs:
            altered = [each.name for each in record.outputs if not _intact(outputs, each)]
            if altered:
                return self._exit("ERROR_OUTPUT_ALTERED", names=", ".join(altered))
            self.out("outputs", FolderData(tree=str(outputs)))
        if slurm:
            return None
        if not record.runtime_usable:
            return self._exit("ERROR_RUNTIME_UNUSABLE", reason=record.message)
        if not record.container_started:
            return self._exit("ERROR_CONTAINER_NOT_STARTED", reason=record.message)
        if record.exit_code != 0:
            return self._exit("ERROR_COMMAND_FAILED", status=record.exit_code)
        if record.missing:
            return self._exit(
                "ERROR_OUTPUT_FILEPATHS_MISSING", missing_filepaths=", ".join(record.missing)
            )
        return None

    def _record(self) -> CompletionRecord:
        """The record, if it is this job's; `FileNotFoundError` without one, `ValueError` when it cannot be believed."""
        text = self.retrieved.base.repository.get_object_content(in_job.RECORD, mode="rb")
        try:
            record = CompletionRecord.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
            raise ValueError(f"{where} is wrong") from error
        specification = json.loads(
            self.node.base.repository.get_object_content(in_job.SPECIFICATION, mode="rb")
        )
        for name in ("submission_id", "attempt", "image_digest"):
            if getattr(record, name) != specification[name]:
                raise ValueError(f"its {name} is not this job's")
        # By name: of two copies that `sbatch` made of one attempt, whichever came first has run it.
        if record.scheduler_job_name != job_name(self.node.get_option("custom_scheduler_commands")):
            raise ValueError("another Slurm job wrote it")
        return record

    def _exit(self, name: str, **facts: Any) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, name)
        return code.format(**facts) if facts else code


def _intact(folder: Path, output: OutputRecord) -> bool:
    path = folder / output.name
    if path.is_symlink() or not path.is_file():
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == output.sha256
