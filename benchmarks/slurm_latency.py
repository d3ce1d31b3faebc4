"""How soon the node knows what happens in Slurm, and what it asks Slurm for that.

    .venv/bin/python -m benchmarks.slurm_latency [--jobs 20] [--pending 1000] [--seconds 60]

In a lab of its own: a worker watches jobs that wait in the queue, and a worker runs jobs, one after the other. Both are
done twice, on our schedule and on that of AiiDA's own list of jobs, one question to Slurm every 10 s whatever happens.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import psycopg

from aiida_byoc.schedulers.slurm import ByocSlurmScheduler
from lab import process, stack
from lab.chaos.load import Load
from lab.node import COMPUTER, PROFILE
from lab.paths import LabPaths

STOCK, OURS = MODES = ("every 10 s", "byoc.slurm")
INTERVAL = 10.0
"""Seconds: AiiDA's default of a computer's shortest time between two looks."""
WORKER = (sys.executable, "-m", "benchmarks.slurm_worker")
BETWEEN_JOBS = (1.0, 5.0)
AT_ONCE = 3
"""Jobs: a worker needs one CPU-second for each start and end, which is not what is measured here."""
LENGTHS = (11.0, 16.0)
"""Seconds: so long that each start is seen also by who looks every 10 s."""
END_SECONDS = 180.0
REPEATED = 10
_RPC = re.compile(
    r"(REQUEST_JOB_(?:USER_)?INFO\w*)\s.*count:(\d+)\s+ave_time:\d+\s+total_time:(\d+)"
)


def main() -> int:
    """Measure; print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20, help="to run, on each schedule")
    parser.add_argument("--pending", type=int, default=1000, help="jobs in the queue meanwhile")
    parser.add_argument("--seconds", type=float, default=60, help="to watch those; 0: do not")
    asked = parser.parse_args()
    with _lab() as (paths, lab):
        ids = _fill_the_queue(asked.pending)
        _show(("one question about", "ms"), _questions(ids))
        if asked.seconds:
            costs = [
                _cost(mode, age, asked.seconds) for age, mode in itertools.product((0, 3600), MODES)
            ]
            _show(
                ("pending for, s", "asked", "questions", "controller, ms", "worker, CPU s"), costs
            )
        told = {mode: _told(paths, lab, mode, asked.jobs) for mode in MODES}
        _show(("after it", *(f"{mode}: p50, p95, s" for mode in MODES), "p50"), _ratios(told))
    return 0


@contextmanager
def _lab() -> Iterator[tuple[LabPaths, dict[str, Any]]]:
    with tempfile.TemporaryDirectory(prefix="byoc-bench-") as parent:
        Path(parent).chmod(0o755)
        paths = LabPaths(Path(parent) / "lab")
        try:
            lab = stack.up(paths)
            os.environ.update(lab["node"]["environment"])
            _run("verdi", "-p", PROFILE, "daemon", "stop")
            _run(sys.executable, "-c", _SET_INTERVAL)
            yield paths, lab
        finally:
            stack.down(paths)


_SET_INTERVAL = f"""
import aiida
from aiida.orm import load_computer
aiida.load_profile({PROFILE!r})
load_computer({COMPUTER!r}).set_minimum_job_poll_interval({INTERVAL})
"""


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise process.LabError(f"{' '.join(command)[:200]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _fill_the_queue(pending: int) -> list[str]:
    held = "sbatch --hold --parsable --job-name=bench-$0 --output=/dev/null --wrap=true"
    submit = f"seq {pending} | xargs -P 4 -I N sh -c '{held}' N"
    return _run("bash", "-c", submit).split()


def _questions(ids: Sequence[str]) -> list[tuple[str, str]]:
    """How long Slurm takes to answer."""

    def ask(jobs: Sequence[str]) -> float:
        command = ByocSlurmScheduler()._get_joblist_command(jobs=list(jobs))
        took = []
        for _ in range(REPEATED):
            began = time.monotonic()
            _run("bash", "-c", command)
            took.append(1000 * (time.monotonic() - began))
        return median(took)

    return [("one job", f"{ask(ids[:1]):.0f}"), (f"all {len(ids)}", f"{ask(ids):.0f}")]


def _cost(mode: str, age: float, seconds: float) -> tuple[str, ...]:
    """Let a worker watch the queue for a minute; what that costs, per minute."""
    before = _asked()
    busy = float(_run(*WORKER, "watch", mode, str(seconds), str(age)).split()[-1])
    count, spent = (now - then for now, then in zip(_asked(), before, strict=True))
    per_minute = 60 / seconds
    return (
        f"{age:.0f}",
        mode,
        f"{count * per_minute:.0f}",
        f"{spent * per_minute / 1000:.1f}",
        f"{busy * per_minute:.1f}",
    )


def _asked() -> tuple[int, int]:
    """How often the controller was asked for jobs, and for how many µs that kept it busy."""
    found = _RPC.findall(_run("sdiag"))
    return sum(int(count) for _, count, _ in found), sum(int(spent) for _, _, spent in found)


def _told(paths: LabPaths, lab: Mapping[str, Any], mode: str, jobs: int) -> list[list[float]]:
    """Run jobs; seconds from the container's start or end until it is known and told."""
    chance, load = Random(4), Load(lab)  # noqa: S311  (no secret)
    worker = process.spawn(paths, "worker", [*WORKER, "work", mode])
    with psycopg.connect(lab["postgres"]["dsn"], autocommit=True) as connection:
        for _ in range(jobs):
            process.wait_until(
                lambda: _under_way(connection) < AT_ONCE, END_SECONDS, "a job to end"
            )
            load.succeeds(chance.uniform(*LENGTHS))
            time.sleep(chance.uniform(*BETWEEN_JOBS))
        ended = [_events(connection, job.job_id) for job in load.jobs]
    process.stop(paths, "worker")
    known = dict(re.findall(r"^known byoc-(\S+)-1 (\S+)$", worker.log.read_text(), re.MULTILINE))
    return [
        _latencies(events, float(known[events["succeeded"]["submission_id"]])) for events in ended
    ]


def _under_way(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM byoc.job WHERE state <> 'succeeded'").fetchone()
    return int(row[0]) if row else 0


def _events(connection: psycopg.Connection, job: str) -> dict[str, Any]:
    """The data of a job's last event of each state, once it has succeeded."""

    def events() -> dict[str, Any] | None:
        rows = connection.execute(
            "SELECT body #>> '{data,state}', body -> 'data' FROM byoc.event JOIN byoc.job USING (submission_id)"
            " WHERE job_id = %s ORDER BY event.seq",
            (job,),
        )
        told: dict[str, Any] = dict(rows.fetchall())
        return told if "succeeded" in told else None

    return process.wait_until(events, END_SECONDS, f"{job} to succeed") or {}


def _latencies(told: Mapping[str, Any], known: float) -> list[float]:
    started, ended = (_at(told["succeeded"]["timings"][moment]) for moment in ("started", "ended"))
    return [
        _at(told["running"]["occurred_at"]) - started,
        known - ended,
        _at(told["succeeded"]["occurred_at"]) - ended,
    ]


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _ratios(told: Mapping[str, list[list[float]]]) -> list[tuple[str, ...]]:
    rows = []
    for index, what in enumerate(("start told", "end known", "end told")):
        columns = {mode: [each[index] for each in told[mode]] for mode in MODES}
        shown = [f"{median(c):.2f}, {quantiles(c, n=20)[-1]:.2f}" for c in columns.values()]
        ratio = median(columns[STOCK]) / median(columns[OURS])
        rows.append((what, *shown, f"{ratio:.1f} : 1"))
    return rows


def _show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
