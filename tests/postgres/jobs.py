"""Jobs in the ledger, and reports about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.events import outbox
from tests.builders import NOW, placement, proof, submit

__all__ = ["accept", "report", "served", "walk"]


def served(_: object) -> None:
    """The policy names every tenant."""


def accept(
    connection: psycopg.Connection, job: str = "job-1", *, key: str | None = None, **command: Any
) -> str:
    """Put a job into the ledger; return its submission."""
    acceptance, _ = ledger.accept(
        connection,
        submit(job_id=job, **command),
        key or f"key-of-sixteen-{job}",
        place=lambda _: placement(),
        now=NOW,
    )
    return acceptance.submission_id


def report(
    connection: psycopg.Connection,
    submission: str,
    state: str,
    *,
    attempt: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> int | None:
    """Report a state with what it must carry."""
    needed = proof(ExecutionState(state))
    told = outbox.Report(
        state=ExecutionState(state),
        occurred_at=NOW,
        attempt=attempt,
        reason=needed.pop("reason", None),
        facts={**needed, **(facts or {})},
    )
    return outbox.append(connection, submission, told)


def walk(connection: psycopg.Connection, submission: str, *states: str) -> None:
    """Report one state after the other; each must find its place."""
    for state in states:
        assert report(connection, submission, state) is not None, state
