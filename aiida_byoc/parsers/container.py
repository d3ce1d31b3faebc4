"""`byoc.container`: believe the completion record, nothing else; absence is never success."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from aiida.engine import CalcJob, ExitCode
from aiida.orm import Dict, FolderData, RemoteData
from aiida.parsers import Parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiida_byoc.contracts.events import OutputRecord, Usage
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.options import job_name

__all__ = ["CompletionRecord", "ContainerParser"]

_MOST_RECORD_BYTES = 32 * 2**20
"""More than a record about as many outputs as a policy can allow, with the longest names."""
_OUT_OF_MEMORY = CalcJob.exit_codes.ERROR_SCHEDULER_OUT_OF_MEMORY.status


class CompletionRecord(BaseModel):
    """What `runtimes/in_job` writes."""

    model_config = ConfigDict(frozen=True, strict=True)

    submission_id: str
    attempt: int
    image_digest: str | None
    scheduler_job_id: str
    scheduler_job_name: str
    container_started: bool
    runtime_usable: bool = True
    inputs_placed: bool = True
    exit_code: int | None = Field(ge=0, le=255)
    stopped: bool = False
    """Slurm asked the program to end (SIGTERM) before it did."""
    message: str | None
    started_at: float
    ended_at: float
    outputs: list[OutputRecord]
    missing: list[str]
    too_large: list[str] = []
    changing: list[str] = []
    surplus: int = Field(ge=0, default=0)
    reasons: dict[str, str] = {}
    usage: Usage


class ContainerParser(Parser):
    """Turn the retrieved files of a `ContainerJob` into outputs or a named exit code."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach `record` and `outputs`; return the exit code of the first thing that is wrong; `None`: Slurm's counts.

        Slurm's own verdict (out of memory, walltime, node failure) is on the node already. It explains a missing record
        better than its absence does, and the end of a program that was asked to end. What Slurm does to a job whose
        program has ended by itself says nothing about it: a controller that forgot the end may begin the job again, or
        let it be cancelled. Only memory may have run out without the program's noticing.
        """
        slurm = self.node.exit_status
        try:
            record = self._record()
        except FileNotFoundError:
            return None if slurm else self._exit("ERROR_NO_COMPLETION_RECORD")
        except ValueError as error:
            return self._exit("ERROR_COMPLETION_RECORD_INVALID", reason=error)
        self.out("record", Dict(record.model_dump(mode="json", exclude_none=True)))
        if other := self._other_image(record):
            return other
        altered = self._keep(
            record.outputs, Path(kwargs.get("retrieved_temporary_folder") or "/nonexistent")
        )
        if altered:
            return self._exit("ERROR_OUTPUT_ALTERED", names=", ".join(altered))
        if slurm and (record.stopped or slurm == _OUT_OF_MEMORY):
            return None
        return self._fault(record)

    def _other_image(self, record: CompletionRecord) -> ExitCode | None:
        """Whether another image was there than was accepted; nothing of it was run."""
        if record.image_digest is None:
            return self._exit("ERROR_IMAGE_NOT_THERE", reason=record.message)
        if record.image_digest != self._specification()["image_digest"]:
            return self._exit("ERROR_IMAGE_MISMATCH", reason=record.message)
        return None

    def _fault(self, record: CompletionRecord) -> ExitCode:
        """The exit code of a true record: what hides the others comes first."""
        if not record.inputs_placed:
            return self._exit("ERROR_INPUT_UNAVAILABLE", reason=record.message)
        if not record.runtime_usable:
            return self._exit("ERROR_RUNTIME_UNUSABLE", reason=record.message)
        if not record.container_started:
            return self._exit("ERROR_CONTAINER_NOT_STARTED", reason=record.message)
        if record.exit_code != 0:
            return self._exit("ERROR_COMMAND_FAILED", status=record.exit_code)
        if record.changing:
            return self._exit("ERROR_OUTPUT_ALTERED", names=_told(record, record.changing))
        if record.surplus:
            return self._exit("ERROR_TOO_MANY_OUTPUTS", surplus=record.surplus)
        if record.too_large:
            return self._exit("ERROR_OUTPUT_TOO_LARGE", names=_told(record, record.too_large))
        if record.missing:
            names = _told(record, record.missing)
            return self._exit("ERROR_OUTPUT_FILEPATHS_MISSING", missing_filepaths=names)
        return ExitCode(0)

    def _keep(self, outputs: list[OutputRecord], retrieved: Path) -> list[str]:
        """Attach what the record tells of, and nothing else; return the names of what is not as it says."""
        here = [each for each in outputs if each.location != "remote"]
        folder = retrieved / in_job.OUTPUTS
        altered = [each.name for each in here if not _intact(folder, each)]
        if altered:
            return altered
        if here:
            kept = FolderData()
            for each in here:
                with (folder / each.name).open("rb") as file:
                    kept.base.repository.put_object_from_filelike(file, each.name)
            self.out("outputs", kept)
        if len(here) < len(outputs):
            place = f"{self.node.get_remote_workdir()}/{in_job.IN_PLACE}"
            self.out("remote_outputs", RemoteData(computer=self.node.computer, remote_path=place))
        return []

    def _record(self) -> CompletionRecord:
        """The record, if it is this job's; `FileNotFoundError` without one, `ValueError` when it cannot be believed."""
        with self.retrieved.base.repository.open(in_job.RECORD, mode="rb") as file:
            text = file.read(_MOST_RECORD_BYTES + 1)
        if len(text) > _MOST_RECORD_BYTES:
            raise ValueError(f"it has more than {_MOST_RECORD_BYTES >> 20} MiB")
        try:
            record = CompletionRecord.model_validate_json(text)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
            raise ValueError(f"{where} is wrong") from error
        specification = self._specification()
        for name in ("submission_id", "attempt"):
            if getattr(record, name) != specification[name]:
                raise ValueError(f"its {name} is not this job's")
        # By name: of two copies that `sbatch` made of one attempt, whichever came first has run it.
        if record.scheduler_job_name != job_name(self.node.get_option("custom_scheduler_commands")):
            raise ValueError("another Slurm job wrote it")
        return record

    def _specification(self) -> dict[str, Any]:
        content = self.node.base.repository.get_object_content(in_job.SPECIFICATION, mode="rb")
        return cast("dict[str, Any]", json.loads(content))

    def _exit(self, name: str, **facts: Any) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, name)
        return code.format(**facts) if facts else code


def _told(record: CompletionRecord, names: list[str]) -> str:
    """The names, each with its reason."""
    reasons = record.reasons
    return ", ".join(f"{name} ({reasons[name]})" if name in reasons else name for name in names)


def _intact(folder: Path, output: OutputRecord) -> bool:
    path = folder / output.name
    leads_away = {"", ".", ".."} & set(output.name.split("/"))
    if leads_away or path.resolve() != folder.resolve() / output.name or not path.is_file():
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == output.sha256
