"""One valid example of each message; a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.events import ExecutionEvent, event_type
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.validation import validated

__all__ = [
    "DIGEST",
    "KEY",
    "NODE",
    "NOW",
    "POLICY",
    "cancel",
    "cancel_body",
    "event",
    "placement",
    "proof",
    "submit",
    "submit_body",
]

NODE = "n1"
KEY = "key-0123456789abcdef"
NOW = datetime(2026, 2, 15, 10, 0, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
POLICY = f"""\
tenants = ["acme", "globex"]
runtime = "bubblewrap"

[ceilings]
cpu = 4
memory_mib = 4096
walltime_seconds = 3600

[queues.main]
partition = "batch"

[queues.night]
partition = "batch"
accounts = {{ chemistry = "chem-42" }}
qos = {{ low = "scavenger" }}

[images."localhost/byoc/demo"]
digests = ["{DIGEST}"]
tags = {{ "1" = "{DIGEST}" }}
"""
SUBMISSION = "11111111-1111-4111-8111-111111111111"


def submit_body(**changes: Any) -> dict[str, Any]:
    """A SubmitJobCommand as it travels; keywords replace whole fields, `None` removes one."""
    return _changed(
        {
            "schema_version": "1",
            "tenant_id": "acme",
            "workspace_id": "lab",
            "job_id": "job-1",
            "management_node_id": NODE,
            "execution_profile": {"queue_name": "main"},
            "resource_shape": {"cpu": 1, "memory_mib": 256, "walltime_seconds": 60},
            "workload": {
                "kind": "container",
                "image": f"localhost/byoc/demo@{DIGEST}",
                "argv": ["echo", "hello"],
            },
            "requested_by": {"user_id": "user-1"},
        },
        changes,
    )


def submit(**changes: Any) -> SubmitJobCommand:
    """A valid SubmitJobCommand."""
    return validated(SubmitJobCommand, submit_body(**changes))


def cancel_body(**changes: Any) -> dict[str, Any]:
    """A CancelJobCommand of the same job as it travels."""
    return _changed(
        {
            "schema_version": "1",
            "tenant_id": "acme",
            "workspace_id": "lab",
            "job_id": "job-1",
            "management_node_id": NODE,
            "requested_by": {"user_id": "user-1"},
        },
        changes,
    )


def cancel(**changes: Any) -> CancelJobCommand:
    """A valid CancelJobCommand."""
    return validated(CancelJobCommand, cancel_body(**changes))


def placement(**changes: Any) -> Placement:
    """Where the policy would put the command."""
    values = {"partition": "main", "image_digest": DIGEST, "runtime": "bubblewrap"}
    return Placement(**{**values, **changes})


def proof(state: ExecutionState) -> dict[str, Any]:
    """What an event of this state must carry."""
    return {
        ExecutionState.HELD: {"reason": "the transport is down"},
        ExecutionState.SUCCEEDED: {"result": {"exit_code": 0}},
        ExecutionState.FAILED: {
            "error": {"code": "container_failed", "message": "exit 3", "retryable": False}
        },
    }.get(state, {})


def event(state: str = "accepted", *, seq: int = 1, **data: Any) -> ExecutionEvent:
    """A valid ExecutionEvent; keywords change its data."""
    known = ExecutionState(state)
    content = {
        "tenant_id": "acme",
        "workspace_id": "lab",
        "job_id": "job-1",
        "submission_id": SUBMISSION,
        "seq": seq,
        "attempt": 1,
        "state": state,
        "occurred_at": "2026-02-15T10:00:00.000Z",
        "trace_id": "a" * 32,
        **proof(known),
    }
    content = _changed(content, data)
    return validated(
        ExecutionEvent,
        {
            "specversion": "1.0",
            "id": f"{content['submission_id']}-{seq}",
            "source": f"/nodes/{NODE}",
            "type": event_type(known),
            "subject": content["job_id"],
            "time": content["occurred_at"],
            "data": content,
        },
    )


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **changes}.items() if value is not None}
