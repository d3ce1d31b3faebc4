"""What a receipt says: an in-toto Statement v1 about the files that a job left, with its run as the predicate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from aiida_byoc.contracts.base import Fact, UtcTime
from aiida_byoc.contracts.canonical import canonical_json
from aiida_byoc.contracts.events import Epoch, ImageRecord, JobError, OutputRecord, Usage, Uuid
from aiida_byoc.contracts.identity import Digest, Name

__all__ = [
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "Calculation",
    "JobRun",
    "JobRunInput",
    "SlurmRun",
    "Statement",
    "Subject",
    "job_subject",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://aiida-byoc.org/receipt/v1"
"""Which words the predicate is in; an identifier, not necessarily a page."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Line = Annotated[str, Field(max_length=2000)]


class Subject(Fact):
    """One file that the receipt is about, or, where a job left none, the job itself."""

    name: Annotated[str, Field(min_length=1, max_length=512)]
    digest: Annotated[dict[Literal["sha256"], Sha256], Field(min_length=1)]


class JobRunInput(Fact):
    """One input: the job found this content, or did not start."""

    name: Annotated[str, Field(max_length=512)]
    origin: Literal["text", "job", "path", "url"]
    source: (
        Annotated[str, Field(max_length=4096, description="path, URL, or <job_id>/<output>")] | None
    ) = None
    sha256: Sha256 | None = None


class SlurmRun(Fact):
    """A calculation as Slurm knows it, and its word on how that ended. Ids are re-used, names are not."""

    cluster: Annotated[str, Field(max_length=255)] | None = None
    job_id: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(max_length=128)] | None = None
    partition: Annotated[str, Field(max_length=128)] | None = None
    node_list: (
        Annotated[str, Field(max_length=65_536, description="hostlist expression of Slurm")] | None
    ) = None
    said_by: Literal["scontrol", "sacct"] | None = None
    state: Annotated[str, Field(max_length=64)] | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: Annotated[str, Field(max_length=256)] | None = None
    restarts: Annotated[int, Field(ge=0)] | None = None


class Calculation(Fact):
    """One AiiDA calculation of the job: an attempt, or whatever an approved work chain called."""

    uuid: Uuid
    process_type: Annotated[str, Field(max_length=255)] | None = None
    attempt: Annotated[int, Field(ge=1)] | None = None
    exit_status: int | None = None
    exit_message: _Line | None = None
    versions: dict[str, str] = {}
    script: Annotated[Sha256, Field(description="of the batch script")] | None = None
    specification: Annotated[Sha256, Field(description="of what the script was told")] | None = None
    program: Annotated[Sha256, Field(description="of the in-job program's files")] | None = None
    record: Annotated[Sha256, Field(description="of the completion record")] | None = None
    image_digest: Digest | None = None
    container_exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    scheduler: SlurmRun | None = None
    started: UtcTime | None = None
    ended: UtcTime | None = None
    usage: Usage | None = None
    node_seconds: Annotated[float, Field(ge=0)] | None = None
    stdout: Sha256 | None = None
    stderr: Sha256 | None = None
    outputs: list[OutputRecord] = []


class JobRun(Fact):
    """The run of one job, from the node's ledger and AiiDA's provenance."""

    node_id: Name
    tenant_id: Name
    workspace_id: Name
    job_id: Name
    submission_id: Uuid
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    epoch: Epoch | None = None
    state: Literal["succeeded", "failed", "cancelled"]
    error: JobError | None = None
    accepted_at: UtcTime
    ended_at: UtcTime
    fingerprint: Annotated[Sha256, Field(description="of the accepted command")]
    execution_id: Annotated[Uuid, Field(description="AiiDA UUID of the work chain")] | None = None
    process_type: Annotated[str, Field(max_length=255)] | None = None
    exit_status: int | None = None
    versions: dict[str, str] = {}
    image: ImageRecord | None = None
    runtime: Annotated[str, Field(max_length=64)] | None = None
    inputs: list[JobRunInput] = []
    calculations: list[Calculation] = []


class Statement(Fact):
    """in-toto Statement v1: these files are what that run left."""

    model_config = ConfigDict(serialize_by_alias=True)

    statement_type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[list[Subject], Field(min_length=1)]
    predicate_type: Annotated[
        Literal["https://aiida-byoc.org/receipt/v1"], Field(alias="predicateType")
    ]
    predicate: JobRun

    @model_validator(mode="after")
    def _subjects_are_told_apart(self) -> Statement:
        names = [each.name for each in self.subject]
        if len(set(names)) != len(names):
            raise ValueError("subject must not name the same file twice")
        return self

    @property
    def outputs(self) -> dict[str, str]:
        """The files by name, each with its SHA-256; empty where the subject is the job itself."""
        itself = job_subject(self.predicate.submission_id, self.predicate.fingerprint)
        return {
            each.name: each.digest["sha256"] for each in self.subject if each.model_dump() != itself
        }

    def payload(self) -> bytes:
        """The bytes that are signed: canonical JSON (RFC 8785), so the same facts are the same bytes."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))


def job_subject(submission_id: str, fingerprint: str) -> Mapping[str, Any]:
    """The subject of a job that left no file: in-toto wants one."""
    return {"name": f"urn:uuid:{submission_id}", "digest": {"sha256": fingerprint}}
