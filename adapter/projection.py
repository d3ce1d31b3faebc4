"""What the product shows of an event: a pure function of that one event."""

from __future__ import annotations

from aiida_byoc.contracts import ExecutionEvent, ProjectionUpdate
from aiida_byoc.contracts.lifecycle import PRODUCT_STATE

__all__ = ["project"]


def project(event: ExecutionEvent) -> ProjectionUpdate:
    """Translate the full state an event carries; the same event always gives the same update."""
    data = event.data
    return ProjectionUpdate(
        projection_id=f"{data.submission_id}:{data.seq}",
        tenant_id=data.tenant_id,
        workspace_id=data.workspace_id,
        job_id=data.job_id,
        node_id=event.source.removeprefix("/nodes/"),
        execution_id=data.execution_id,
        epoch=data.epoch,
        seq=data.seq,
        state=PRODUCT_STATE[data.state],
        execution_state=data.state,
        attempt=data.attempt,
        message=data.reason or (data.error.message if data.error else None),
        image=data.image,
        scheduler=data.scheduler,
        timings=data.timings,
        progress=data.progress,
        result=data.result,
        error=data.error,
        recovery=data.recovery,
        occurred_at=data.occurred_at,
        trace_id=data.trace_id,
    )
