"""Commands as the adapter hands them to the node, and what a refusal says."""

from __future__ import annotations

from typing import Any

from aiida_byoc.contracts.delivery import Command, Verdict
from tests.builders import KEY, cancel_body, submit_body

__all__ = ["COMMAND_ID", "envelope", "problem_of"]

COMMAND_ID = "33333333-3333-4333-8333-333333333333"


def envelope(operation: str = "submit", **changes: Any) -> Command:
    """A command as the adapter hands it over; keywords change the envelope."""
    bodies = {"submit": submit_body(), "cancel": cancel_body(), "inspect": None}
    values = {
        "command_id": COMMAND_ID,
        "operation": operation,
        "tenant_id": "acme",
        "job_id": "job-1",
        "idempotency_key": KEY if operation == "submit" else None,
        "body": bodies[operation],
    }
    return Command.model_validate({**values, **changes})


def problem_of(verdict: Verdict) -> str:
    assert verdict.outcome == "rejected"
    assert verdict.problem is not None
    return verdict.problem.type.rpartition("/")[2]
