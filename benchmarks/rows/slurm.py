"""Slurm: what it is asked, and how soon it is told, by `benchmarks.slurm_latency`."""

from __future__ import annotations

from statistics import median

from benchmarks import slurm_latency
from benchmarks.figures import Measure, quantile
from benchmarks.laboratory import Bench
from benchmarks.slurm_latency import OURS, STOCK

__all__ = ["measure"]

MOMENTS = ("start told", "end known", "end told")


def measure(bench: Bench) -> list[Measure]:
    """Questions per minute with jobs pending, and seconds from what happens in a job until it is known and told."""
    pending, seconds = bench.scale(1000, 100), bench.scale(60, 10)
    found = slurm_latency.measure(jobs=bench.scale(20, 4), pending=pending, seconds=float(seconds))
    bench.keep.raw("slurm", "found", {"told": found.told, "costs": [vars(c) for c in found.costs]})
    measures = []
    for age in sorted({cost.age for cost in found.costs}):
        by_mode = {cost.mode: cost for cost in found.costs if cost.age == age}
        for what, unit in (("questions", "/min"), ("controller_ms", "ms/min")):
            measures.append(
                Measure(
                    what=f"{what.replace('_ms', ' busy')}, {pending:,} jobs pending for {age:g} s",
                    value=getattr(by_mode[OURS], what),
                    unit=unit,
                    baseline=getattr(by_mode[STOCK], what),
                    against=STOCK,
                )
            )
    for index, moment in enumerate(MOMENTS):
        ours, stock = ([each[index] for each in found.told[mode]] for mode in (OURS, STOCK))
        measures += [
            Measure(
                what=f"{moment}, p50",
                value=median(ours),
                unit="s",
                baseline=median(stock),
                against=STOCK,
            ),
            Measure(
                what=f"{moment}, p95",
                value=quantile(ours, 0.95),
                unit="s",
                baseline=quantile(stock, 0.95),
                against=STOCK,
            ),
        ]
    return measures
