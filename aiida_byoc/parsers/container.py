"""`byoc.container`: the completion record and Slurm's word, through the truth table; absence is never success."""

from __future__ import annotations

import functools
import hashlib
import json
import signal
from pathlib import Path
from typing import Annotated, Any

from aiida.engine import ExitCode
from aiida.orm import Dict, FolderData, RemoteData
from aiida.parsers import Parser
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aiida_byoc.contracts.events import OutputRecord, Progress, Usage
from aiida_byoc.runtimes import in_job
from aiida_byoc.schedulers.ending import ending
from aiida_byoc.schedulers.ends import Record
from aiida_byoc.schedulers.failures import explain
from aiida_byoc.schedulers.options import job_name

__all__ = ["CompletionRecord", "ContainerParser", "stderr_of"]

_MOST_RECORD_BYTES = 32 * 2**20
"""More than a record about as many outputs as a policy can allow, with the longest names."""

_MOST_STDERR_BYTES = 2**20
_SIGNALLED = {128 + signal.SIGKILL, 128 + signal.SIGTERM}


class CompletionRecord(BaseModel):
    """What `runtimes/in_job` writes."""

    model_config = ConfigDict(frozen=True, strict=True)

    submission_id: str
    attempt: int
    image_digest: str | None
    scheduler_job_id: str
    scheduler_job_name: str
    scheduler_cluster: str | None = None
    scheduler_nodes: str | None = None
    """As Slurm writes several: `c[1-3]`."""
    container_started: bool
    runtime_usable: bool = True
    inputs_placed: bool = True
    exit_code: int | None = Field(ge=0, le=255)
    stopped: bool = False
    """Slurm asked the program to end (SIGTERM) before it did."""
    message: str | None
    signals: list[str] = []
    """What the program was sent from outside before it ended."""
    carried: dict[str, int] | None = None
    """What was taken up of an earlier attempt: `files`, their `bytes`, and how many were `left_out`."""
    started_at: float
    ended_at: float
    outputs: list[OutputRecord]
    missing: list[str]
    too_large: list[str] = []
    changing: list[str] = []
    surplus: int = Field(ge=0, default=0)
    reasons: dict[str, str] = {}
    usage: Usage
    progress: Annotated[Progress | None, BeforeValidator(Progress.read)] = None
    progress_skipped: int = 0


class ContainerParser(Parser):
    """Turn what a job left, and what Slurm says of it, into outputs or a named exit code."""

    def parse(self, **kwargs: Any) -> ExitCode:
        """Attach `record` and `outputs`; return the end that the truth table names."""
        temporary = Path(kwargs.get("retrieved_temporary_folder") or "/nonexistent")
        facts: dict[str, object] = {}
        said = self._record_says(temporary, facts)
        seen = ending(str((self.node.get_detailed_job_info() or {}).get("stdout", "")))
        end = explain(seen, said, stderr=stderr_of(self))
        return ExitCode(end.status, end.told(seen, **facts)) if end else ExitCode(0)

    def _record_says(self, retrieved: Path, facts: dict[str, object]) -> Record:
        """The record in the table's words; what a message may name of it goes into `facts`."""
        try:
            record = self._record()
        except FileNotFoundError:
            return Record.NONE
        except ValueError as error:
            facts["reason"] = error
            return Record.INVALID
        self.out("record", Dict(record.model_dump(mode="json", exclude_none=True)))
        if record.image_digest is None:
            facts["reason"] = record.message
            return Record.NO_IMAGE
        if record.image_digest != self._specification["image_digest"]:
            facts["reason"] = record.message
            return Record.OTHER_IMAGE
        altered = self._keep(record.outputs, retrieved)
        if altered:
            facts["names"] = ", ".join(altered)
            return Record.ALTERED
        facts |= {"reason": record.message, "status": record.exit_code, "surplus": record.surplus}
        fault = next((fault for fault, is_there in _faults(record) if is_there), None)
        if fault in _NAMED:
            facts["names"] = _told(record, getattr(record, _NAMED[fault]))
        if fault is None:
            return Record.TOLD_TO_END if record.stopped else Record.COMPLETE
        if fault in _UNFINISHED and self._specification.get("signal") in record.signals:
            return Record.CHECKPOINTED
        if fault is Record.FAILED and record.exit_code in _SIGNALLED and not record.stopped:
            return Record.SIGNALLED
        return Record.STOPPED if record.stopped else fault

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

    @functools.cached_property
    def _specification(self) -> dict[str, Any]:
        """What the job was told."""
        text = self.node.base.repository.get_object_content(in_job.SPECIFICATION, mode="rb")
        specification: dict[str, Any] = json.loads(text)
        return specification

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
        for name in ("submission_id", "attempt"):
            if getattr(record, name) != self._specification[name]:
                raise ValueError(f"its {name} is not this job's")
        # By name: of two copies that `sbatch` made of one attempt, whichever came first has run it.
        if record.scheduler_job_name != job_name(self.node.get_option("custom_scheduler_commands")):
            raise ValueError("another Slurm job wrote it")
        return record


def stderr_of(parser: Parser) -> str:
    """What Slurm's own daemons wrote about the batch job."""
    name = parser.node.get_option("scheduler_stderr")
    try:
        with parser.retrieved.base.repository.open(name, mode="rb") as file:
            text: bytes = file.read(_MOST_STDERR_BYTES)
    except (FileNotFoundError, TypeError):
        return ""
    return text.decode(errors="replace")


_NAMED = {
    Record.CHANGING: "changing",
    Record.TOO_LARGE: "too_large",
    Record.INCOMPLETE: "missing",
}
"""What a message names of the record."""

_UNFINISHED = {Record.FAILED, Record.CHANGING, Record.INCOMPLETE}
"""How a program may look that was told to end."""


def _faults(record: CompletionRecord) -> list[tuple[Record, bool]]:
    """What may be wrong with what a true record tells; what hides the others comes first."""
    return [
        (Record.NO_INPUT, not record.inputs_placed),
        (Record.UNUSABLE, not record.runtime_usable),
        (Record.NOT_STARTED, not record.container_started),
        (Record.FAILED, record.exit_code != 0),
        (Record.CHANGING, bool(record.changing)),
        (Record.TOO_MANY, record.surplus > 0),
        (Record.TOO_LARGE, bool(record.too_large)),
        (Record.INCOMPLETE, bool(record.missing)),
    ]


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
