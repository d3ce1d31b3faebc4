"""Breakdown: where the CPU and the SQL statements of one job go, part by part."""

from __future__ import annotations

import time
from collections.abc import Mapping

from benchmarks import jobs, statements
from benchmarks.figures import Measure
from benchmarks.laboratory import Bench
from benchmarks.usage import Part

__all__ = ["measure"]

END_SECONDS = 400.0
WARM = 3
LEAST = 0.005
"""CPU seconds per job below which a part is not listed."""

Counts = dict[str, dict[str, int]]


def measure(bench: Bench) -> list[Measure]:
    """CPU milliseconds and statements per job; what the same parts use in as long a time without jobs is taken off."""
    count = bench.scale(30, 8)
    lab = bench.lab.up()
    with bench.lab.database() as connection:
        jobs.wait_until_told(connection, jobs.submit(lab, WARM), END_SECONDS)
        accounts = bench.lab.accounts()
        began = time.monotonic()
        jobs.wait_until_told(connection, jobs.submit(lab, count), END_SECONDS)
        busy, took = accounts.parts(), time.monotonic() - began
        idle_seconds = min(took, bench.scale(60, 10))
        accounts.restart()
        time.sleep(idle_seconds)
        idle = accounts.parts()
    (sql, frequent), alone = _statements(bench, count), _idle_statements(bench, idle_seconds)
    bench.keep.raw(
        "breakdown",
        "parts",
        {
            "jobs": count,
            "seconds": took,
            "busy": {name: vars(part) for name, part in busy.items()},
            "idle": {name: vars(part) for name, part in idle.items()},
            "idle_seconds": idle_seconds,
            "statements": sql,
            "most_frequent": frequent,
            "statements_idle": alone,
        },
    )
    return [
        *_cpu(busy, idle, count, took / idle_seconds),
        *(
            Measure(
                what=f"SQL statements: {part}",
                value=told["statements"] / count,
                unit="per job",
            )
            for part, told in sorted(sql.items(), key=lambda pair: -pair[1]["statements"])
        ),
        *(
            Measure(
                what=f"SQL statements without jobs: {part}",
                value=told["statements"] / idle_seconds,
                unit="/s",
            )
            for part, told in sorted(alone.items(), key=lambda pair: -pair[1]["statements"])
        ),
    ]


def _cpu(
    busy: Mapping[str, Part], idle: Mapping[str, Part], count: int, longer: float
) -> list[Measure]:
    costs = {
        name: (part.cpu - longer * idle.get(name, Part()).cpu) / count
        for name, part in busy.items()
    }
    total = sum(part.cpu for part in busy.values()) / count
    shown = sorted((cost, name) for name, cost in costs.items() if cost >= LEAST)
    return [
        Measure(what="CPU of a job, with what idles meanwhile", value=1000 * total, unit="ms"),
        *(
            Measure(what=f"CPU: {name}", value=1000 * cost, unit="ms per job")
            for cost, name in reversed(shown)
        ),
    ]


def _statements(bench: Bench, count: int) -> tuple[Counts, Counts]:
    """Of as many jobs again: writing every statement to a log costs CPU, so it is not done while that is measured."""
    lab = bench.lab.up()
    log = bench.lab.paths.logs / "postgres.log"
    with bench.lab.superuser() as superuser, bench.lab.database() as connection:
        offset = log.stat().st_size
        with statements.logged(superuser):
            jobs.wait_until_told(connection, jobs.submit(lab, count), END_SECONDS)
    return statements.counted(log, offset), statements.most_frequent(log, offset)


def _idle_statements(bench: Bench, seconds: float) -> Counts:
    log = bench.lab.paths.logs / "postgres.log"
    with bench.lab.superuser() as superuser:
        offset = log.stat().st_size
        with statements.logged(superuser):
            time.sleep(seconds)
    return statements.counted(log, offset)
