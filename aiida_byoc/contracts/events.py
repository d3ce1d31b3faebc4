"""What happened to a job, told by its node. `docs/contracts/event-execution-lifecycle.md`.

An event is a CloudEvent 1.0 (structured mode) whose data carry the *full* state of the job: whoever holds the
newest one needs none of the others.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from aiida_byoc.contracts.base import Fact, UtcTime
from aiida_byoc.contracts.identity import Digest, Name
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.progress import Progress

__all__ = [
    "MAX_FAILURES",
    "MAX_OUTPUTS",
    "Epoch",
    "ExecutionEvent",
    "ImageRecord",
    "JobError",
    "JobRecovery",
    "JobResult",
    "JobState",
    "OutputRecord",
    "OutputValue",
    "Progress",
    "SchedulerRecord",
    "TaskCounts",
    "TaskFailure",
    "Timings",
    "Usage",
    "event_type",
    "one_line",
]

Uuid = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
]
Epoch = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{16}$"),
    Field(description="which history of the node's database this belongs to"),
]
"""Changes when a node's database is restored or copied: only within one epoch does `seq` name one fact."""

MAX_OUTPUTS = 64
"""So many outputs are told in an event; the others are counted."""
MAX_FAILURES = 20
"""So many tasks that failed are told in an event."""
_LINE = 2000
Line = Annotated[str, Field(max_length=_LINE)]


def one_line(text: str) -> str:
    """Make text of whatever origin fit for `reason` and `error.message`: printable, one line, not too long."""
    return "".join(each if each.isprintable() else " " for each in text[:_LINE])


class ImageRecord(Fact):
    """The image as it was asked for, and what that stood for when the job was accepted; neither changes later."""

    reference: Annotated[str, Field(max_length=255)]
    digest: Digest


class SchedulerRecord(Fact):
    """The job as Slurm knows it. `job_id` alone is no identity: ids are re-used, the name is not."""

    job_id: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(max_length=128)] | None = None
    queue: Annotated[str, Field(max_length=128)] | None = None
    nodes: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=64)] | None = (
        None
    )
    wait_reason: Annotated[str, Field(max_length=256)] | None = None


class Timings(Fact):
    """When things happened: `accepted` and `queued` by the node's clock, `started` and `ended` by the job's."""

    accepted: UtcTime | None = None
    queued: UtcTime | None = None
    started: UtcTime | None = None
    ended: UtcTime | None = None


class OutputRecord(Fact):
    """One declared output as the job left it. Without a location: in the node's repository."""

    name: Annotated[str, Field(max_length=512)]
    size: Annotated[int, Field(ge=0, description="bytes")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    location: Literal["repository", "remote"] | None = None


class Usage(Fact):
    """What the container used: getrusage(2) of its process tree."""

    cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    peak_rss_mib: Annotated[float, Field(ge=0)] | None = None
    walltime_seconds: Annotated[float, Field(ge=0)] | None = None


class OutputValue(Fact):
    """A small output of a work chain. As text: a product's database may not know all that JSON knows."""

    name: Annotated[str, Field(max_length=255)]
    json_text: Annotated[str, Field(max_length=4096, description="RFC 8785")]


class TaskFailure(Fact):
    """A task of an array that did not succeed: by `number` in its table."""

    number: Annotated[int, Field(ge=0)]
    id: Name
    state: Literal["failed", "interrupted", "waiting"]
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    message: Annotated[str, Field(max_length=300)] | None = None


class TaskCounts(Fact):
    """What became of the tasks of an array, over all attempts; they are `total` in sum."""

    total: Annotated[int, Field(ge=1)]
    succeeded: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0, description="ended, and not well")]
    interrupted: Annotated[int, Field(ge=0, description="begun or not, and not ended")]
    cancelled: (
        Annotated[
            int, Field(ge=1, description="before they had ended, by themselves or with the job")
        ]
        | None
    ) = None
    first_failed: Annotated[list[TaskFailure], Field(max_length=MAX_FAILURES)] = []


class JobResult(Fact):
    """What the completion record says, which the job itself wrote; of a work chain, what AiiDA keeps.

    Of an array `exit_code` is the largest of its tasks', its usage their sum, and the largest of their processes.
    """

    exit_code: Annotated[int, Field(ge=0, le=255, description="128 + n for signal n")]
    image_digest: Digest | None = None
    outputs: Annotated[list[OutputRecord], Field(max_length=MAX_OUTPUTS)] = []
    outputs_omitted: (
        Annotated[int, Field(ge=1, description="how many more there are than told")] | None
    ) = None
    usage: Usage | None = None
    values: Annotated[list[OutputValue], Field(max_length=64)] | None = None
    tasks: TaskCounts | None = None


ErrorCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class JobError(Fact):
    """Why the job failed, and whether submitting it again (as a new job) can help."""

    code: ErrorCode
    message: Line
    retryable: bool
    remedy: Line | None = None


class JobRecovery(Fact):
    """Why there is another attempt: how the one before it ended, and what is different now."""

    attempt: Annotated[int, Field(ge=1, description="the one that ended")]
    code: ErrorCode
    message: Line
    action: Line


class JobState(Fact):
    """The full state of one job at one moment."""

    tenant_id: Name
    workspace_id: Name
    job_id: Name
    submission_id: Uuid
    execution_id: Annotated[Uuid, Field(description="AiiDA UUID of the work chain")] | None = None
    epoch: Epoch | None = None
    seq: Annotated[int, Field(ge=1, description="contiguous per job, from 1")]
    attempt: Annotated[int, Field(ge=1)]
    state: ExecutionState = Field(strict=False)
    reason: Line | None = None
    occurred_at: UtcTime
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    image: ImageRecord | None = None
    scheduler: SchedulerRecord | None = None
    timings: Timings | None = None
    progress: Progress | None = None
    result: JobResult | None = None
    error: JobError | None = None
    recovery: JobRecovery | None = None

    @model_validator(mode="after")
    def _terminal_states_have_their_proof(self) -> JobState:
        if self.state is ExecutionState.SUCCEEDED and (
            self.result is None or self.result.exit_code != 0 or self.error is not None
        ):
            raise ValueError("succeeded needs a result with exit_code 0 and no error")
        if self.state is ExecutionState.FAILED and self.error is None:
            raise ValueError("failed needs an error")
        if self.state is ExecutionState.HELD and self.reason is None:
            raise ValueError("held needs a reason")
        return self


def event_type(state: ExecutionState) -> str:
    """The CloudEvents `type` of a state."""
    return f"org.aiida-byoc.execution.{state}.v1"


class ExecutionEvent(Fact):
    """CloudEvents 1.0 envelope. Identity: (`source`, `id`); order: (`subject`, `data.seq`)."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=128)]
    source: Annotated[str, StringConstraints(pattern=r"^/nodes/[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    type: Annotated[str, StringConstraints(pattern=r"^org\.aiida-byoc\.execution\.[a-z]+\.v1$")]
    subject: Name
    time: UtcTime
    datacontenttype: Literal["application/json"] = "application/json"
    data: JobState

    @model_validator(mode="after")
    def _envelope_agrees_with_data(self) -> ExecutionEvent:
        if self.subject != self.data.job_id:
            raise ValueError("subject must equal data.job_id")
        if self.type != event_type(self.data.state):
            raise ValueError("type must name data.state")
        if self.time != self.data.occurred_at:
            raise ValueError("time must equal data.occurred_at")
        return self

    def wire(self) -> dict[str, Any]:
        """The JSON object to send; absent optional fields stay absent."""
        return self.model_dump(mode="json", exclude_none=True)
