"""Jobs for a lab: the commands, and who submits them and waits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import psycopg

from lab import process
from lab.proctable import POLL_SECONDS

__all__ = ["SCRIPT", "are_told", "command", "send", "slurm_id", "submit", "wait_until_told"]

SCRIPT = "echo ok > result"
"""The work of the single container jobs, here and in the baseline."""

_UNTOLD = """
SELECT count(*) FROM byoc.job JOIN byoc.stream USING (submission_id)
WHERE job_id = ANY(%s) AND (state NOT IN ('succeeded', 'failed', 'cancelled') OR acked_seq < latest_seq)
"""
_STATES = "SELECT job_id, state::text FROM byoc.job WHERE job_id = ANY(%s) AND state <> 'succeeded'"

_SLURM_ID = """
SELECT body #>> '{data,scheduler,job_id}' FROM byoc.event JOIN byoc.job USING (submission_id)
WHERE job_id = %s AND body #>> '{data,scheduler,job_id}' IS NOT NULL ORDER BY event.seq LIMIT 1
"""


def command(lab: Mapping[str, Any], name: str, script: str = SCRIPT) -> dict[str, Any]:
    """A SubmitJobCommand of the first tenant; the script runs in the demonstration image."""
    tenant = lab["tenants"][0]
    return {
        "schema_version": "1",
        "tenant_id": tenant["tenant_id"],
        "workspace_id": tenant["workspace_id"],
        "job_id": name,
        "management_node_id": lab["node"]["node_id"],
        "execution_profile": {"queue_name": lab["queue_name"]},
        "resource_shape": {"cpu": 1, "memory_mib": 64, "walltime_seconds": 120},
        "workload": {
            "kind": "container",
            "image": lab["images"][0]["ref"],
            "argv": ["sh", "-c", script],
            "outputs": [{"name": "result"}],
        },
        "requested_by": {"user_id": tenant["user_id"]},
    }


def submit(lab: Mapping[str, Any], count: int, script: str = SCRIPT) -> list[str]:
    """Submit jobs one after the other; return their names."""
    names = [f"bench-{uuid.uuid4().hex[:12]}" for _ in range(count)]
    return send(lab, [command(lab, name, script) for name in names])


def send(lab: Mapping[str, Any], commands: Sequence[Mapping[str, Any]]) -> list[str]:
    """Submit commands one after the other; return their jobs' names."""
    with httpx.Client(base_url=lab["adapter"]["url"], timeout=30) as client:
        for each in commands:
            client.post(
                f"/v1/nodes/{lab['node']['node_id']}/jobs",
                json=each,
                headers={
                    "Authorization": f"Bearer {lab['tenants'][0]['token']}",
                    "Idempotency-Key": f'"{uuid.uuid4()}"',
                },
            ).raise_for_status()
    return [each["job_id"] for each in commands]


def slurm_id(connection: psycopg.Connection, name: str) -> str:
    """A job's id in Slurm, empty before the node has told of it. To ask Slurm takes CPU that the job waits for."""
    row = connection.execute(_SLURM_ID, (name,)).fetchone()
    return str(row[0]) if row is not None else ""


def are_told(connection: psycopg.Connection, names: Sequence[str]) -> bool:
    """Whether the product has the end of every job.

    Raises:
        LabError: it has, and one did not succeed.
    """
    row = connection.execute(_UNTOLD, (list(names),)).fetchone()
    if row != (0,):
        return False
    if others := connection.execute(_STATES, (list(names),)).fetchall():
        raise process.LabError(f"jobs that did not succeed: {others}")
    return True


def wait_until_told(
    connection: psycopg.Connection,
    names: Sequence[str],
    seconds: float,
    *,
    every: float = POLL_SECONDS,
) -> None:
    """Wait until the product has the end of every job; look for it so often, in seconds.

    Raises:
        LabError: that took too long, or a job did not succeed.
    """
    what = f"{len(names)} jobs to end, and the product to know it"
    process.wait_until(lambda: are_told(connection, names), seconds, what, every=every)
