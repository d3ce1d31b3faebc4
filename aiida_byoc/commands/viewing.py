"""What the node knows about one job now."""

from __future__ import annotations

import psycopg
from psycopg.rows import dict_row

from aiida_byoc.contracts.delivery import JobView
from aiida_byoc.contracts.events import JobState
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["view"]


def view(connection: psycopg.Connection, tenant_id: str, job_id: str) -> JobView:
    """What the node knows about a job now; `not-found` for a job of nobody or of another tenant."""
    row = (
        connection.cursor(row_factory=dict_row)
        .execute(
            "SELECT node.node_id, job.cancel_requested_at, stream.acked_seq, event.body"
            " FROM byoc.node, byoc.job JOIN byoc.event USING (submission_id, seq)"
            " JOIN byoc.stream USING (submission_id) WHERE tenant_id = %s AND job_id = %s",
            (tenant_id, job_id),
        )
        .fetchone()
    )
    if row is None:
        raise ProblemError("not-found")
    return JobView(
        node_id=row["node_id"],
        job=JobState.model_validate(row["body"]["data"]),
        cancel_requested_at=row["cancel_requested_at"],
        delivered_seq=row["acked_seq"],
    )
