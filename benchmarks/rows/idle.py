"""Idle: what agent and adapter use while nothing happens. The relay is four threads of the agent."""

from __future__ import annotations

import time

from benchmarks.figures import Measure, at_most
from benchmarks.laboratory import Bench

__all__ = ["measure"]

SETTLE_SECONDS = 20
OURS = ("agent", "adapter")
BESIDE = ("launcher", "reader of logs", "AiiDA's workers", "PostgreSQL")


def measure(bench: Bench) -> list[Measure]:
    """CPU as a share of one core, and resident memory of the largest process of each part."""
    seconds = bench.scale(600, 60)
    bench.lab.up()
    time.sleep(SETTLE_SECONDS)
    accounts = bench.lab.accounts()
    began = time.monotonic()
    time.sleep(seconds)
    parts = accounts.parts()
    passed = time.monotonic() - began
    bench.keep.raw("idle", "parts", {"seconds": passed, **{n: vars(p) for n, p in parts.items()}})
    found = []
    for name in (*OURS, *(each for each in BESIDE if each in parts)):
        part, promised = parts[name], name in OURS
        share, memory = 100 * part.cpu / passed, part.largest
        limits = (at_most(1, "value"), at_most(150, "value")) if promised else (None, None)
        found.append(
            Measure(what=f"CPU of {name}", value=share, unit="% of a core", target=limits[0])
        )
        found.append(Measure(what=f"memory of {name}", value=memory, unit="MiB", target=limits[1]))
    return found
