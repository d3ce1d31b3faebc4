"""What the adapter asks the product to show. `docs/contracts/projection-update.md`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from aiida_byoc.contracts.base import Fact, UtcTime
from aiida_byoc.contracts.events import (
    Epoch,
    ImageRecord,
    JobError,
    JobRecovery,
    JobResult,
    Line,
    Progress,
    SchedulerRecord,
    Timings,
    Uuid,
)
from aiida_byoc.contracts.identity import Name
from aiida_byoc.contracts.lifecycle import ExecutionState, ProductState

__all__ = ["MAX_PROJECTION_BATCH", "REJECTIONS", "ProjectionOutcome", "ProjectionUpdate"]

MAX_PROJECTION_BATCH = 100
"""Updates in one `applyProjections` call (facts: 200 documents and ~51 kB written per 100)."""

REJECTIONS = {
    "invalid": "a rule of the contract that validators cannot say",
    "too_large": "more than 64 Ki characters of JSON",
    "forbidden": "this node may not write that job",
    "inconsistent": "state against execution_state, or another workspace or submission than stored",
    "seq_conflict": "that epoch and seq are stored with other content",
    "terminal": "in this epoch the job has ended otherwise",
}
"""Why the product refuses one update, by code; none of them is cured by sending the same update again."""


class ProjectionUpdate(Fact):
    """One event as the product stores it. Idempotency key: (tenant_id, job_id, epoch, seq)."""

    schema_version: Literal["1"] = "1"
    projection_id: Annotated[
        str,
        StringConstraints(pattern=r"^[0-9a-f-]{36}:[1-9][0-9]*$"),
        Field(description="<submission_id>:<seq>"),
    ]
    tenant_id: Name
    workspace_id: Name
    job_id: Name
    node_id: Name
    execution_id: Uuid | None = None
    epoch: Epoch | None = None
    seq: Annotated[int, Field(ge=1)]
    state: ProductState = Field(strict=False)
    execution_state: ExecutionState = Field(strict=False)
    attempt: Annotated[int, Field(ge=1)]
    message: Line | None = None
    image: ImageRecord | None = None
    scheduler: SchedulerRecord | None = None
    timings: Timings | None = None
    progress: Progress | None = None
    result: JobResult | None = None
    error: JobError | None = None
    recovery: JobRecovery | None = None
    occurred_at: UtcTime
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

    def wire(self) -> dict[str, Any]:
        """The JSON object to send; Convex tells a missing field from null, so absent stays absent."""
        return self.model_dump(mode="json", exclude_none=True)


class ProjectionOutcome(Fact):
    """Convex's answer per update; `rejected` alone carries a code."""

    projection_id: str
    outcome: Literal["applied", "duplicate", "superseded", "rejected"]
    code: str | None = None
    missing_from: (
        Annotated[
            int, Field(ge=1, description="lowest seq the product lacks below the newest it has")
        ]
        | None
    ) = None
