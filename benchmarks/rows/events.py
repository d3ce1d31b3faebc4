"""Events: a backlog from the outbox to the product, against the product alone with the same batches."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from adapter.deployment import Deployment
from adapter.projection import project
from adapter.settings import ConvexSettings
from aiida_byoc.contracts import ExecutionEvent
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH
from benchmarks import bulk
from benchmarks.figures import Measure, at_least, at_most, per_second
from benchmarks.laboratory import Bench
from lab import process

__all__ = ["measure"]

AT_ONCE = 4
"""Batches of one node that the adapter lets be at the product at a time."""
BACKLOG_SECONDS = 900.0
SAMPLE_SECONDS = 1.0
MEASURED_PARTS = ("agent", "adapter")
UNTOLD = "SELECT coalesce(sum(latest_seq - acked_seq), 0) FROM byoc.stream"


def measure(bench: Bench) -> list[Measure]:
    """Events per second, and how the memory of agent and adapter goes while they flow."""
    count = bench.scale(100_000, 5_000)
    each = max(count // 10, MAX_EVENT_BATCH)
    lab = bench.lab.without_work()
    bench.lab.stop_agent()
    with bench.lab.database() as connection:
        bulk.empty(connection)
        model = bulk.tell_one(connection, bench.lab.paths, lab)
        bodies = _bodies(connection, model)
        # The lab's product is in memory and slows down as it fills: the baseline is taken before and after.
        before = asyncio.run(_alone(bench.lab.paths.root, lab, bodies, each))
        bulk.copy(connection, model, "backlog", count // len(bodies), told=False)
        bench.lab.start_agent()
        seen = list(_watched(bench, connection))
        after = asyncio.run(_alone(bench.lab.paths.root, lab, bodies, each))
    bench.keep.raw("events", "seen", seen)
    bench.keep.raw("events", "alone", {"before": before, "after": after})
    first, last = seen[0], seen[-1]
    delivered = per_second(first["untold"] - last["untold"], last["at"] - first["at"])
    found = [
        Measure(
            what=f"events delivered, backlog of {count:,}",
            value=delivered,
            unit="/s",
            baseline=(before + after) / 2,
            against=f"Convex alone, batches of {MAX_EVENT_BATCH}, {AT_ONCE} at a time",
            target=at_least(0.8),
        )
    ]
    early = seen[max(1, len(seen) // 5)] if len(seen) > 2 else first
    for name in MEASURED_PARTS:
        found.append(
            Measure(
                what=f"memory of {name} at the end of the backlog",
                value=last[name],
                unit="MiB",
                baseline=early[name],
                against="after a fifth of it",
                target=at_most(1.1),
            )
        )
    return found


def _bodies(connection: psycopg.Connection, model: str) -> list[dict[str, Any]]:
    query = "SELECT body FROM byoc.event WHERE submission_id = %s ORDER BY seq"
    return [row[0] for row in connection.execute(query, (model,))]


def _watched(bench: Bench, connection: psycopg.Connection) -> Iterator[dict[str, float]]:
    """What is untold, and what memory is held, once a second from the first delivery to the last."""
    total = _untold(connection)
    process.wait_until(lambda: _untold(connection) < total, BACKLOG_SECONDS, "the relay to deliver")
    deadline = time.monotonic() + BACKLOG_SECONDS
    accounts = bench.lab.accounts()
    while True:
        untold, at = _untold(connection), time.monotonic()
        parts = accounts.parts()
        yield {
            "at": at,
            "untold": untold,
            **{name: parts[name].largest for name in MEASURED_PARTS},
            **{f"{name} CPU": part.cpu for name, part in parts.items()},
        }
        if not untold:
            return
        if at > deadline:
            raise process.LabError(f"{untold} events are undelivered after {BACKLOG_SECONDS:g} s")
        time.sleep(min(SAMPLE_SECONDS, BACKLOG_SECONDS) if total > 20_000 else 0.1)


def _untold(connection: psycopg.Connection) -> int:
    row = connection.execute(UNTOLD).fetchone()
    return int(row[0]) if row else 0


async def _alone(
    root: Path, lab: Mapping[str, Any], bodies: list[dict[str, Any]], count: int
) -> float:
    """Events per second that the product takes, over the adapter's own client, from nobody but us."""
    settings = json.loads((root / "adapter.json").read_text())["convex"]
    deployment = Deployment(ConvexSettings.model_validate(settings))
    node_id = lab["node"]["node_id"]
    batches = list(_batches(bodies, count))
    waiting = iter(batches)

    async def lane() -> None:
        for batch in waiting:
            answer = await deployment.call(
                "mutation", node_id, "projections:applyProjections", {"updates": batch}
            )
            outcomes = {each["outcome"] for each in (answer.value or {}).get("outcomes", [])}
            if outcomes != {"applied"}:
                raise process.LabError(f"the product answered {answer}"[:500])

    began = time.monotonic()
    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    rate = per_second(sum(map(len, batches)), time.monotonic() - began)
    await deployment.close()
    return rate


def _batches(bodies: list[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    """What the adapter makes of as many copies of the model: whole jobs, as the relay sends them."""
    jobs_each = MAX_EVENT_BATCH // len(bodies)
    for _ in range(count // (jobs_each * len(bodies))):
        batch = []
        for _ in range(jobs_each):
            submission = str(uuid.uuid4())
            named = {"job_id": f"alone-{submission}", "submission_id": submission}
            for body in bodies:
                event = {**body, "subject": named["job_id"], "data": {**body["data"], **named}}
                batch.append(project(ExecutionEvent.model_validate(event)).wire())
        yield batch
