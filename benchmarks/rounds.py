"""Rounds of single container jobs, and those of aiida-core alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import jobs
from benchmarks.figures import per_second
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain
from lab import process

__all__ = ["END_SECONDS", "WARM", "Round", "alone"]

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


def alone(bench: Bench, plain: Plain, count: int) -> Round:
    """aiida-core alone has so many at once; none of ours looks about meanwhile, which is no part of the baseline."""
    bench.lab.without_work()
    bench.lab.stop_agent()
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
