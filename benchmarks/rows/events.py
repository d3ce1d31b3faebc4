"""Events: a backlog from the outbox to the product, against the product alone with the same batches.

The lab's product begins anew each time. It is given the backlog alone, by us, and alone again, of which the quicker
counts: it differs by a tenth from time to time, and by a half over a backlog of two seconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
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
from benchmarks.usage import Accounts
from lab import process
from lab.chaos.parts import Parts

__all__ = ["measure"]

AT_ONCE = 4
"""Batches of one node that the adapter lets be at the product at a time: as many as the relay has lanes."""
BACKLOG_SECONDS = 900.0
START_SECONDS = 30.0
SAMPLES = 50
FEWEST_SAMPLES = 10
MEASURED_PARTS = ("agent", "adapter")

_LOOK = """
SELECT coalesce(sum(latest_seq - acked_seq), 0)::integer, extract(epoch FROM clock_timestamp())::float8 FROM byoc.stream
"""
_HELD = """
SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'byoc-relay-%' AND wait_event_type = 'Lock'
"""
_LAST = "SELECT extract(epoch FROM max(not_before))::float8 FROM byoc.stream"
"""When the last batch was settled: a job that made headway is due again from then on."""

Sample = dict[str, float]
"""`at` (PostgreSQL's clock, seconds), `untold` events, MiB of the parts whose memory counts, CPU seconds of all."""


@dataclass(frozen=True)
class Delivery:
    """How a backlog went.

    Attributes:
        events: how many there were.
        seconds: from when the relay was let to them until the last acknowledgement was noted.
        samples: meanwhile, in the order of time.
    """

    events: int
    seconds: float
    samples: list[Sample]


def measure(bench: Bench) -> list[Measure]:
    """Events per second to the product; memory meanwhile."""
    count = bench.scale(100_000, 20_000)
    lab = bench.lab.without_work()
    parts = Parts(bench.lab.paths, lab, random.Random(0))  # noqa: S311  (chooses nothing)
    bench.lab.stop_agent()
    with bench.lab.database() as connection:
        bulk.empty(connection)
        model = bulk.tell_one(connection, bench.lab.paths, lab)
        bodies = _bodies(connection, model)
        connection.execute("UPDATE byoc.stream SET acked_seq = latest_seq")

        def alone() -> float:
            _begin_anew(parts)
            return asyncio.run(_alone(bench.lab.paths.root, lab, bodies, count))

        before = alone()
        _begin_anew(parts)
        ours = _delivered(bench, connection, model, count // len(bodies))
        rates = [before, alone()]
        bench.lab.start_agent()
    bench.keep.raw("events", "seen", asdict(ours))
    bench.keep.raw("events", "alone", rates)
    return [
        Measure(
            what=f"events delivered, backlog of {count:,}",
            value=per_second(ours.events, ours.seconds),
            unit="/s",
            baseline=max(rates),
            against=f"the lab's Convex alone, batches of {MAX_EVENT_BATCH}, {AT_ONCE} at a time",
            target=at_least(0.8),
        ),
        *(_memory(name, ours) for name in MEASURED_PARTS),
    ]


def _memory(name: str, delivery: Delivery) -> Measure:
    seen = delivery.samples
    if len(seen) < FEWEST_SAMPLES:
        raise process.LabError(f"the backlog was gone after {len(seen)} looks at the memory")
    early = next(each for each in seen if each["untold"] <= 0.8 * delivery.events)
    return Measure(
        what=f"memory of {name} at the end of the backlog of {delivery.events:,}",
        value=seen[-1][name],
        unit="MiB",
        baseline=early[name],
        against="after a fifth of it",
        target=at_most(1.1),
    )


def _begin_anew(parts: Parts) -> None:
    parts.kill("convex")
    parts.start("convex")


def _bodies(connection: psycopg.Connection, model: str) -> list[dict[str, Any]]:
    query = "SELECT body FROM byoc.event WHERE submission_id = %s ORDER BY seq"
    return [row[0] for row in connection.execute(query, (model,))]


def _delivered(bench: Bench, connection: psycopg.Connection, model: str, jobs: int) -> Delivery:
    """What it takes an agent to deliver the events of so many jobs, all its lanes from the same moment on.

    Until then a lock holds the lanes where they ask for work: starting agent and launcher takes longer than a backlog.
    """
    bulk.copy(connection, model, f"backlog-{uuid.uuid4().hex[:8]}-", jobs, told=False)
    with bench.lab.database() as holder, holder.transaction():
        holder.execute("LOCK TABLE byoc.stream IN EXCLUSIVE MODE")
        bench.lab.start_agent()
        bench.lab.without_work()
        process.wait_until(
            lambda: connection.execute(_HELD).fetchone() == (AT_ONCE,), START_SECONDS, "all lanes"
        )
        accounts = bench.lab.accounts()
        total, began = _look(connection)
    samples = list(_watched(accounts, connection, total))
    row = connection.execute(_LAST).fetchone()
    assert row is not None
    bench.lab.stop_agent()
    return Delivery(total, row[0] - began, samples)


def _watched(accounts: Accounts, connection: psycopg.Connection, total: int) -> Iterator[Sample]:
    """Now and then, until nothing is left."""
    deadline = time.monotonic() + BACKLOG_SECONDS
    shown = total
    while True:
        untold, at = _look(connection)
        if untold == 0 or untold <= shown - total / SAMPLES:
            shown = untold
            parts = accounts.parts()
            yield {
                "at": at,
                "untold": untold,
                **{name: parts[name].largest for name in MEASURED_PARTS},
                **{f"{name} CPU": part.cpu for name, part in parts.items()},
            }
        if untold == 0:
            return
        if time.monotonic() > deadline:
            raise process.LabError(f"{untold} events are undelivered after {BACKLOG_SECONDS:g} s")
        time.sleep(0.1)


def _look(connection: psycopg.Connection) -> tuple[int, float]:
    """How many events are undelivered, and when that was."""
    row = connection.execute(_LOOK).fetchone()
    assert row is not None
    return row


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
