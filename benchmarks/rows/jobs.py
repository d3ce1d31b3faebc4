"""Jobs: single container jobs from submission to their end, against the same work with plain AiiDA, in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import jobs
from benchmarks.figures import Measure, at_least, at_most, per_second, quantile
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain
from lab import process

__all__ = ["measure"]

INTERVAL = 0.5
"""Seconds between two looks of plain AiiDA at the queue: as the lab's node, and twenty times its own default."""
END_SECONDS = 600.0
WARM = 8
"""Each worker has had several, so that what it does once, imports above all, is paid for."""


@dataclass(frozen=True)
class Round:
    """So many jobs: how long all took, and what CPU they cost on all of the machine that is ours to measure."""

    count: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return per_second(self.count, self.seconds)

    @property
    def cost(self) -> float:
        """CPU seconds per job."""
        return self.cpu / self.count


def measure(bench: Bench) -> list[Measure]:
    """Jobs per second and CPU per job; the one's parts are stopped while the other works."""
    count, rounds = bench.scale(40, 16), bench.scale(3, 1)
    plain = Plain(bench.lab)
    alone: list[Round] = []
    ours: list[Round] = []
    for _ in range(rounds):
        alone.append(_plain(bench, plain, count))
        ours.append(_ours(bench, count))
    bench.keep.raw("jobs", "rounds", {"plain": [*map(vars, alone)], "ours": [*map(vars, ours)]})
    against = "aiida-core alone"
    return [
        Measure(
            what=f"jobs end to end, {count} at once",
            value=quantile([each.rate for each in ours], 0.5),
            unit="/s",
            baseline=quantile([each.rate for each in alone], 0.5),
            against=against,
            target=at_least(1),
        ),
        Measure(
            what="CPU per job, of all parts",
            value=quantile([each.cost for each in ours], 0.5),
            unit="s",
            baseline=quantile([each.cost for each in alone], 0.5),
            against=against,
            target=at_most(1),
        ),
    ]


def _ours(bench: Bench, count: int) -> Round:
    lab = bench.lab.up()
    with bench.lab.database() as connection:
        jobs.wait_until_told(connection, jobs.submit(lab, WARM), END_SECONDS)
        accounts = bench.lab.accounts()
        began = time.monotonic()
        jobs.wait_until_told(connection, jobs.submit(lab, count), END_SECONDS)
        return Round(count, time.monotonic() - began, accounts.cpu())


def _plain(bench: Bench, plain: Plain, count: int) -> Round:
    bench.lab.without_work()
    bench.lab.stop_agent()  # it would look about meanwhile, which is no part of the baseline
    try:
        with plain.at_work(INTERVAL), plain.database() as connection:

            def run(count: int) -> None:
                pks = plain.submit(count, jobs.SCRIPT)
                process.wait_until(
                    lambda: len(plain.ended(connection, pks)) == count,
                    END_SECONDS,
                    f"{count} work chains of the baseline to end",
                )

            run(WARM)
            accounts = bench.lab.accounts()
            began = time.monotonic()
            run(count)
            return Round(count, time.monotonic() - began, accounts.cpu())
    finally:
        bench.lab.start_agent()
