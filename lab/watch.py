"""Look at a job from both ends while it runs: the node's outbox, and the product's projection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from lab import convex, process

__all__ = ["Story", "follow", "jobs_of_key", "projection"]

POLL_SECONDS = 0.05
TERMINAL = {"succeeded", "failed", "cancelled"}


@dataclass
class Story:
    """What was seen of a job: when each state occurred, the last projection, and when that became visible."""

    occurred: dict[str, datetime] = field(default_factory=dict)
    projection: dict[str, Any] = field(default_factory=dict)
    visible: datetime | None = None


def follow(lab: Mapping[str, Any], submission_id: str, job_id: str, seconds: float) -> Story:
    """Print events and projections as they appear until the projection is terminal.

    Raises:
        LabError: it did not become terminal in time; the message holds the ends of the logs.
    """
    story, seen = Story(), 0
    deadline = time.monotonic() + seconds
    with psycopg.connect(lab["postgres"]["dsn"], autocommit=True) as connection:
        while story.projection.get("state") not in TERMINAL:
            for seq, body in connection.execute(
                "SELECT seq, body FROM byoc.event WHERE submission_id = %s AND seq > %s ORDER BY seq",
                (submission_id, seen),
            ):
                seen, data = seq, body["data"]
                story.occurred[data["state"]] = datetime.fromisoformat(data["occurred_at"])
                print(f"   {_clock()}  event       {seq}  {data['state']:<10} {_note(data)}")
            shown = projection(lab, job_id)
            if shown.get("seq", 0) > story.projection.get("seq", 0):
                story.projection, story.visible = shown, datetime.now(UTC)
                print(
                    f"   {_clock()}  projection  {shown['seq']}  {shown['state']:<10} {_note(shown)}"
                )
            if time.monotonic() > deadline:
                logs = [lab["node"][name] for name in ("log", "daemon_log")] + [
                    lab["adapter"]["log"]
                ]
                raise process.LabError(
                    f"waited {seconds:g} s in vain for {job_id} to end" + process.tails(logs)
                )
            time.sleep(POLL_SECONDS)
    return story


def projection(lab: Mapping[str, Any], job_id: str, tenant: int = 0) -> dict[str, Any]:
    """What the tenant's user sees of the job; empty before the first event has arrived."""
    product = convex.Convex(
        url=lab["convex"]["url"],
        site_url=lab["convex"]["site_url"],
        admin_key=lab["convex"]["admin_key"],
    )
    user = lab["tenants"][tenant]
    try:
        found: dict[str, Any] = convex.call(
            product,
            "query",
            "jobs:get",
            {"tenant_id": user["tenant_id"], "job_id": job_id},
            authorization=f"Bearer {user['token']}",
        )
    except RuntimeError:  # not found, yet
        return {}
    return found


def jobs_of_key(lab: Mapping[str, Any], key: str) -> int:
    """How many jobs the node's ledger holds for an idempotency key."""
    with psycopg.connect(lab["postgres"]["dsn"]) as connection:
        row = connection.execute(
            "SELECT count(*) FROM byoc.job WHERE idempotency_key = %s", (key,)
        ).fetchone()
    return int(row[0]) if row else 0


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def _note(state: Mapping[str, Any]) -> str:
    scheduler, error = state.get("scheduler", {}), state.get("error", {})
    parts = [
        f"Slurm {scheduler['job_id']}" if scheduler else "",
        scheduler.get("wait_reason", "") if state.get("state") == "queued" else "",
        error.get("code", ""),
    ]
    return " · ".join(part for part in parts if part)
