"""Events as a node sends them."""

from __future__ import annotations

from typing import Any

BATCH = "application/cloudevents-batch+json"


def event(submission: str, seq: int, **changes: Any) -> dict[str, Any]:
    """An event of node n1 and tenant acme; keywords change `data`."""
    when = "2026-02-15T10:00:00.000Z"
    data = {
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": f"job-{submission[:8]}",
        "submission_id": submission,
        "seq": seq,
        "attempt": 1,
        "state": "running",
        "occurred_at": when,
        "trace_id": "a" * 32,
        **changes,
    }
    return {
        "specversion": "1.0",
        "id": f"{submission}-{seq}",
        "source": "/nodes/n1",
        "type": f"org.aiida-byoc.execution.{data['state']}.v1",
        "subject": data["job_id"],
        "time": when,
        "datacontenttype": "application/json",
        "data": data,
    }
