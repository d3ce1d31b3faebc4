"""Events: a backlog from the outbox to the product, against the product alone with the same batches.

The lab's product slows down as it fills (`benchmarks.taking`), so it begins anew before each of the two. The long
backlog goes to one that takes no time: what the relay and the adapter can do at most, and whether their memory stays.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
from lab.chaos.parts import Parts

__all__ = ["measure"]

AT_ONCE = 4
"""Batches of one node that the adapter lets be at the product at a time."""
BACKLOG_SECONDS = 900.0
START_SECONDS = 30.0
SAMPLES = 50
MEASURED_PARTS = ("agent", "adapter")
UNTOLD = "SELECT coalesce(sum(latest_seq - acked_seq), 0) FROM byoc.stream"

Sample = dict[str, float]
"""`at` (monotonic, seconds), `untold` events, MiB of the parts whose memory counts, CPU seconds of all."""


def measure(bench: Bench) -> list[Measure]:
    """Events per second to the lab's product and to one that takes no time; memory meanwhile."""
    short, long = bench.scale(3_000, 1_000), bench.scale(100_000, 5_000)
    lab = bench.lab.without_work()
    parts = Parts(bench.lab.paths, lab, random.Random(0))  # noqa: S311  (chooses nothing)
    bench.lab.stop_agent()
    with bench.lab.database() as connection:
        bulk.empty(connection)
        model = bulk.tell_one(connection, bench.lab.paths, lab)
        bodies = _bodies(connection, model)
        connection.execute("UPDATE byoc.stream SET acked_seq = latest_seq")
        _begin_anew(parts)
        alone = asyncio.run(_alone(bench.lab.paths.root, lab, bodies, short))
        _begin_anew(parts)
        ours = _delivered(bench, connection, model, short // len(bodies))
        parts.kill("convex")
        _take_over(bench, lab)
        at_most_alone = asyncio.run(_alone(bench.lab.paths.root, lab, bodies, long // 5))
        free = _delivered(bench, connection, model, long // len(bodies))
        process.stop(bench.lab.paths, "taking")
        parts.start("convex")
        bench.lab.start_agent()
    bench.keep.raw("events", "seen", {"product": ours, "no time": free})
    bench.keep.raw("events", "alone", {"product": alone, "no time": at_most_alone})
    batches = f"batches of {MAX_EVENT_BATCH}, {AT_ONCE} at a time"
    return [
        Measure(
            what=f"events delivered, backlog of {short:,}",
            value=_rate(ours),
            unit="/s",
            baseline=alone,
            against=f"the lab's Convex alone, {batches}",
            target=at_least(0.8),
        ),
        Measure(
            what=f"events delivered to a product that takes no time, backlog of {long:,}",
            value=_rate(free),
            unit="/s",
            baseline=at_most_alone,
            against=f"the same alone, {batches}",
        ),
        *(_memory(name, free, long) for name in MEASURED_PARTS),
    ]


def _rate(seen: list[Sample]) -> float:
    first, last = seen[0], seen[-1]
    return per_second(first["untold"] - last["untold"], last["at"] - first["at"])


def _memory(name: str, seen: list[Sample], long: int) -> Measure:
    total = seen[0]["untold"]
    early = next(each for each in seen if each["untold"] <= 0.8 * total)
    return Measure(
        what=f"memory of {name} at the end of the backlog of {long:,}",
        value=seen[-1][name],
        unit="MiB",
        baseline=early[name],
        against="after a fifth of it",
        target=at_most(1.1),
    )


def _begin_anew(parts: Parts) -> None:
    parts.kill("convex")
    parts.start("convex")


def _take_over(bench: Bench, lab: Mapping[str, Any]) -> None:
    """Let the product that takes no time answer where the lab's did."""
    port = urlsplit(lab["convex"]["url"]).port
    command = [sys.executable, "-m", "benchmarks.taking", str(port)]
    daemon = process.spawn(bench.lab.paths, "taking", command)

    def answers() -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", port)) == 0

    process.wait_until(answers, START_SECONDS, "the quick product", needs=[daemon])


def _bodies(connection: psycopg.Connection, model: str) -> list[dict[str, Any]]:
    query = "SELECT body FROM byoc.event WHERE submission_id = %s ORDER BY seq"
    return [row[0] for row in connection.execute(query, (model,))]


def _delivered(bench: Bench, connection: psycopg.Connection, model: str, jobs: int) -> list[Sample]:
    """Samples while an agent that was just started delivers the events of so many jobs."""
    bulk.copy(connection, model, f"backlog-{uuid.uuid4().hex[:8]}-", jobs, told=False)
    total = _untold(connection)
    bench.lab.start_agent()
    seen = list(_watched(bench, connection, total))
    bench.lab.stop_agent()
    return seen


def _watched(bench: Bench, connection: psycopg.Connection, total: int) -> Iterator[Sample]:
    """From the first delivery that is seen to the last."""
    process.wait_until(lambda: _untold(connection) < total, BACKLOG_SECONDS, "the relay to deliver")
    deadline = time.monotonic() + BACKLOG_SECONDS
    accounts = bench.lab.accounts()
    shown = total
    while True:
        untold, at = _untold(connection), time.monotonic()
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
        if at > deadline:
            raise process.LabError(f"{untold} events are undelivered after {BACKLOG_SECONDS:g} s")
        time.sleep(0.1)


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
