"""Jobs: single container jobs from submission to their end, against the same work with plain AiiDA, in turns."""

from __future__ import annotations

import time

from benchmarks import jobs
from benchmarks.figures import Measure, at_least, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain
from benchmarks.rounds import END_SECONDS, WARM, Round, alone

__all__ = ["measure"]


def measure(bench: Bench) -> list[Measure]:
    """Jobs per second and CPU per job; the one's parts are stopped while the other works."""
    count, rounds = bench.scale(40, 16), bench.scale(3, 1)
    plain = Plain(bench.lab)
    theirs: list[Round] = []
    ours: list[Round] = []
    for _ in range(rounds):
        theirs.append(alone(bench, plain, count))
        ours.append(_ours(bench, count))
    bench.keep.raw("jobs", "rounds", {"plain": [*map(vars, theirs)], "ours": [*map(vars, ours)]})
    against = "aiida-core alone"
    return [
        Measure(
            what=f"jobs end to end, {count} at once",
            value=quantile([each.rate for each in ours], 0.5),
            unit="/s",
            baseline=quantile([each.rate for each in theirs], 0.5),
            against=against,
            target=at_least(1),
        ),
        Measure(
            what="CPU per job, of all parts",
            value=quantile([each.cost for each in ours], 0.5),
            unit="s",
            baseline=quantile([each.cost for each in theirs], 0.5),
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
