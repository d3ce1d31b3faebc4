"""A cancel reaches Slurm within seconds though AiiDA's workers are stopped, dead or frozen, and is told as well."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lab.chaos.parts import WORKER, Parts
from lab.paths import LabPaths
from lab.process import wait_until

SLURM_SECONDS = 10.0
"""To Slurm's confirmation; two or three on an idle machine."""
TOLD_SECONDS = 30.0


@pytest.fixture
def parts(lab: dict[str, Any], lab_paths: LabPaths) -> Parts:
    """The processes of the lab."""
    return Parts(lab_paths, lab, random.Random(1))  # noqa: S311  (chooses nothing here)


@pytest.fixture
def asleep(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Any]:
    """Puts the workers to sleep as the test's parameter says; they wake after it."""
    how = request.param
    frozen = []

    def fall_asleep() -> None:
        if how == "stopped":
            parts.verdi("daemon", "stop")
        elif how == "killed":
            parts.kill_daemon()
        else:
            frozen.extend(parts.find(WORKER))
            for worker in frozen:
                parts.freeze(worker)

    def wake() -> None:
        for worker in frozen:
            parts.thaw(worker)
        if not parts.find(WORKER):
            parts.start_daemon()

    yield fall_asleep, wake
    wake()


def in_slurm(lab: dict[str, Any], name: str) -> set[str]:
    """The states of the Slurm jobs of that name."""
    shown = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--format=%T", f"--name={name}"],
        env={**os.environ, "SLURM_CONF": lab["slurm"]["conf"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


@pytest.mark.parametrize("asleep", ["stopped", "killed", "frozen"], indirect=True)
def test_a_cancel_survives_sleeping_workers(
    acme: Any, lab: dict[str, Any], database: psycopg.Connection, asleep: Any
) -> None:
    """Stopped in Slurm, told to the product, killed in AiiDA once there are workers again: nothing starts anew."""
    fall_asleep, wake = asleep
    retry = {"max_attempts": 3, "on": ["oom", "timeout", "node_fail", "preempted"]}
    command = acme.command("sleep", "600", retry_policy=retry)
    submission = acme.submit(command).json()["submission_id"]
    acme.wait(command["job_id"], "running")
    name = f"byoc-{submission}-1"
    fall_asleep()

    began = time.monotonic()
    assert acme.cancel(command["job_id"]).json()["status"] == "cancelling"
    wait_until(lambda: in_slurm(lab, name) == {"CANCELLED"}, SLURM_SECONDS, "Slurm to stop it")
    slurm_seconds = time.monotonic() - began
    told = acme.wait(command["job_id"], seconds=TOLD_SECONDS)
    told_seconds = time.monotonic() - began
    print(f"stopped in Slurm after {slurm_seconds:.1f} s, told after {told_seconds:.1f} s")

    assert told["state"] == "cancelled"
    assert acme.cancel(command["job_id"]).json()["status"] == "cancelled"
    wake()

    def processes() -> list[str]:
        """How the work chain and all that it called stand."""
        rows = database.execute(
            "SELECT node.attributes ->> 'process_state' FROM byoc.job JOIN db_dbnode AS node"
            " ON node.id = job.process_pk OR node.id IN (SELECT output_id FROM db_dblink"
            " WHERE input_id = job.process_pk AND type = 'call_calc') WHERE submission_id = %s",
            (submission,),
        )
        return [row[0] for row in rows]

    wait_until(lambda: set(processes()) == {"killed"}, 90, "the processes to be killed")
    assert len(processes()) == 2
    assert in_slurm(lab, name) == {"CANCELLED"}
    assert in_slurm(lab, f"byoc-{submission}-2") == set()
    rows = database.execute(
        "SELECT body #>> '{data,state}' FROM byoc.event WHERE submission_id = %s ORDER BY seq",
        (submission,),
    ).fetchall()
    assert [row[0] for row in rows] == ["accepted", "launched", "queued", "running", "cancelled"]
