"""Latency: from the moment a container ends until its outcome is to be seen, against plain AiiDA as it comes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any

from benchmarks import jobs
from benchmarks.figures import Measure, at_most, quantile
from benchmarks.laboratory import Bench
from benchmarks.plain import Plain
from lab import process
from lab.watch import TERMINAL, projection

__all__ = ["measure"]

DEFAULT_INTERVAL = 10.0
"""AiiDA's, in seconds."""
LENGTHS = (2.0, 12.0)
"""Seconds, at random: the end falls anywhere in an interval."""
LOOK_SECONDS = 0.05
END_SECONDS = 180.0
ASKED = 10


def measure(bench: Bench) -> list[Measure]:
    """p50 and p95 in seconds, one job at a time; beside them what one question to Slurm takes."""
    count = bench.scale(20, 4)
    ours = _ours(bench, count)
    alone = _plain(bench, count)
    what, asked = _question(bench)
    bench.keep.raw("latency", "seconds", {"ours": ours, "plain": alone, what: asked})
    middle = quantile(ours, 0.5)
    against = f"aiida-core alone, looking every {DEFAULT_INTERVAL:g} s"
    return [
        Measure(
            what="end to projection, p50",
            value=middle,
            unit="s",
            baseline=quantile(alone, 0.5),
            against=against,
            target=at_most(0.2),
        ),
        Measure(
            what="end to projection, p50", value=middle, unit="s", target=at_most(1.5, "value")
        ),
        Measure(
            what="end to projection, p95",
            value=quantile(ours, 0.95),
            unit="s",
            baseline=quantile(alone, 0.95),
            against=against,
        ),
        Measure(
            what="end to projection, p50",
            value=middle,
            unit="s",
            baseline=quantile(asked, 0.5),
            against=f"{what} once",
        ),
    ]


def _ours(bench: Bench, count: int) -> list[float]:
    lab = bench.lab.up()
    _set_interval(bench, DEFAULT_INTERVAL)
    chance, took = Random(7), []  # noqa: S311  (no secret)
    for _ in range(count):
        [name] = jobs.submit(lab, 1, f"sleep {chance.uniform(*LENGTHS):.2f}; {jobs.SCRIPT}")
        took.append(_until_seen(lab, name))
    return took


def _until_seen(lab: Mapping[str, Any], name: str) -> float:
    return process.wait_until(lambda: _seen(lab, name), END_SECONDS, f"{name} to be seen") or 0.0


def _seen(lab: Mapping[str, Any], name: str) -> float | None:
    """Seconds from the container's own end until now, once the user sees it succeeded."""
    time.sleep(LOOK_SECONDS)  # the product is looked at, not beaten
    shown = projection(lab, name)
    if shown.get("state") not in TERMINAL:
        return None
    now = time.time()
    if shown["state"] != "succeeded":
        raise process.LabError(f"{name} ended {shown['state']}: {shown.get('error')}")
    return now - datetime.fromisoformat(shown["timings"]["ended"]).timestamp()


def _set_interval(bench: Bench, seconds: float) -> None:
    """As a node has it that was set up without wishes; the lab's own is shorter."""
    code = (
        "import aiida, sys; from lab.node import COMPUTER, PROFILE; from aiida.orm import load_computer\n"
        "aiida.load_profile(PROFILE)\n"
        "load_computer(COMPUTER).set_minimum_job_poll_interval(float(sys.argv[1]))"
    )
    bench.lab.run(sys.executable, "-c", code, str(seconds))


def _plain(bench: Bench, count: int) -> list[float]:
    plain = Plain(bench.lab)
    bench.lab.without_work()
    chance = Random(7)  # noqa: S311  (no secret)
    took = []
    with plain.at_work(DEFAULT_INTERVAL), plain.database() as connection:
        for _ in range(count):
            # The clock of the kernel, which container and machine share.
            stamp = "read up idle < /proc/uptime; echo $up > result"
            pks = plain.submit(1, f"sleep {chance.uniform(*LENGTHS):.2f}; {stamp}")
            process.wait_until(
                lambda pks=pks: plain.ended(connection, pks),  # type: ignore[misc]
                END_SECONDS,
                "a work chain of the baseline to end",
            )
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            [folder] = plain.folders(connection, pks).values()
            took.append(now - float((folder / "result").read_text()))
    return took


def _question(bench: Bench) -> tuple[str, list[float]]:
    """What the accounting is asked with, or without one the controller, and the seconds that takes."""
    environment = bench.lab.up()["node"]["environment"]
    accounts = "AccountingStorageType=accounting_storage/slurmdbd"
    keeps_accounts = accounts in bench.lab.run("cat", environment["SLURM_CONF"])
    command = ["sacct", "--parsable", "--jobs=1"] if keeps_accounts else ["squeue", "--jobs=1"]
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        subprocess.run(command, env=environment, capture_output=True, check=False)
        took.append(time.perf_counter() - began)
    return command[0], took
