"""How soon the node knows what happens in Slurm, and what it asks Slurm for that: the row `slurm`.

In a lab of its own: a worker watches jobs that wait in the queue, and a worker runs jobs, one after the other. Both are
done twice, on our schedule and on that of AiiDA's own list of jobs, one question to Slurm every 10 s whatever happens.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import median
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


@dataclass(frozen=True)
class Cost:
    """Per minute, with jobs that wait since `age` seconds: questions, how long they keep the controller busy, CPU."""

    age: float
    mode: str
    questions: float
    controller_ms: float
    worker_seconds: float


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        question_ms: how long Slurm takes to answer, by what it is asked about.
        told: by schedule, of each job the seconds until its start is told, its end is known, its end is told.
    """

    question_ms: Mapping[str, float]
    costs: Sequence[Cost]
    told: Mapping[str, list[list[float]]]


def measure(*, jobs: int, pending: int, seconds: float) -> Found:
    """Measure both, in a lab of its own.

    Args:
        jobs: to run, on each schedule.
        pending: jobs in the queue meanwhile.
        seconds: to watch those.
    """
    with _lab() as (paths, lab):
        ids = _fill_the_queue(pending)
        asked = _questions(ids)
        costs = [_cost(mode, age, seconds) for age, mode in itertools.product((0, 3600), MODES)]
        told = {mode: _told(paths, lab, mode, jobs) for mode in MODES}
    return Found(asked, costs, told)


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


def _questions(ids: Sequence[str]) -> dict[str, float]:
    """How long Slurm takes to answer."""

    def ask(jobs: Sequence[str]) -> float:
        command = ByocSlurmScheduler()._get_joblist_command(jobs=list(jobs))
        took = []
        for _ in range(REPEATED):
            began = time.monotonic()
            _run("bash", "-c", command)
            took.append(1000 * (time.monotonic() - began))
        return median(took)

    return {"one job": ask(ids[:1]), f"all {len(ids)}": ask(ids)}


def _cost(mode: str, age: float, seconds: float) -> Cost:
    """Let a worker watch the queue; what that costs, per minute."""
    before = _asked()
    busy = float(_run(*WORKER, "watch", mode, str(seconds), str(age)).split()[-1])
    count, spent = (now - then for now, then in zip(_asked(), before, strict=True))
    per_minute = 60 / seconds
    return Cost(
        age=age,
        mode=mode,
        questions=count * per_minute,
        controller_ms=spent * per_minute / 1000,
        worker_seconds=busy * per_minute,
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
