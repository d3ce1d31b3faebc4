"""Parts stop and come back: nothing is lost, nothing is doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

from lab import adapter, node, process
from lab.paths import LabPaths


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A part that does not answer, with nothing of its memory lost."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_adapter_that_dies_loses_nothing(acme: Any, lab_paths: LabPaths) -> None:
    """SIGKILL while jobs are under way; a new adapter goes on, a retry with the same key is a replay."""
    command, key = acme.command("sleep", "2"), str(uuid.uuid4())
    first = acme.submit(command, key)

    os.kill(process.recorded(lab_paths)["adapter"].pid, signal.SIGKILL)
    adapter.spawn(lab_paths)
    again = process.wait_until(
        lambda: (answer := _submitted(acme, command, key)) and answer.status_code == 202 and answer,
        60,
        "the node to be connected again",
    )

    assert again.json() == first.json()
    assert acme.wait(command["job_id"])["state"] == "succeeded"


def test_an_agent_that_dies_loses_nothing(
    acme: Any, lab: dict[str, Any], lab_paths: LabPaths
) -> None:
    """Without an agent a submission is a 503 and nothing is stored; running jobs go on and are told later."""
    command, key = acme.command("sleep", "2"), str(uuid.uuid4())
    acme.submit(command)
    late = acme.command("true")

    os.kill(process.recorded(lab_paths)["agent"].pid, signal.SIGKILL)
    refused = process.wait_until(
        lambda: (answer := acme.submit(late, key)).status_code in {503, 504} and answer,
        90,
        "the adapter to notice",
    )
    node.spawn_agent(lab_paths, lab["node"]["environment"])
    accepted = process.wait_until(
        lambda: (answer := acme.submit(late, key)).status_code == 202 and answer,
        60,
        "the node to be back",
    )

    assert refused.json()["retry"] is True
    assert refused.headers["Retry-After"].isdigit()
    assert accepted.json()["job_id"] == late["job_id"]
    assert acme.wait(command["job_id"])["state"] == "succeeded"
    assert acme.wait(late["job_id"])["state"] == "succeeded"


def test_a_daemon_that_is_restarted_loses_nothing(acme: Any) -> None:
    """What was accepted meanwhile runs when it is back, and so does what was running."""
    running, waiting = acme.command("sleep", "3"), acme.command("true")
    acme.submit(running)
    acme.wait(running["job_id"], "running")

    _verdi(acme, "daemon", "stop")
    accepted = acme.submit(waiting)
    _verdi(acme, "daemon", "start", "1")

    assert accepted.status_code == 202
    assert acme.wait(waiting["job_id"])["state"] == "succeeded"
    assert acme.wait(running["job_id"])["state"] == "succeeded"


def test_a_product_that_is_away_gets_everything_later(
    acme: Any, lab: dict[str, Any], database: psycopg.Connection
) -> None:
    """Events wait in the outbox while Convex does not answer; then they arrive, in order."""
    with stopped(lab["convex"]["pid"]):
        command = acme.command("true")
        submission = acme.submit(command).json()["submission_id"]
        process.wait_until(
            lambda: _state(database, submission) == "succeeded", 90, "the node to finish the job"
        )
        acknowledged = database.execute(
            "SELECT acked_seq < latest_seq FROM byoc.stream WHERE submission_id = %s", (submission,)
        ).fetchone()

    assert acknowledged == (True,)
    assert acme.wait(command["job_id"])["state"] == "succeeded"
    timeline = acme.query(
        "jobs:timeline", job_id=command["job_id"], paginationOpts={"numItems": 100, "cursor": None}
    )["page"]
    latest = max(entry["seq"] for entry in timeline)
    assert sorted(entry["seq"] for entry in timeline) == list(range(1, latest + 1))


def _verdi(acme: Any, *words: str) -> None:
    environment = {**os.environ, **acme.lab["node"]["environment"]}
    subprocess.run(
        ["verdi", "-p", "byoc", *words],
        env=environment,
        check=True,
        capture_output=True,
        timeout=90,
    )


def _submitted(acme: Any, command: dict[str, Any], key: str) -> httpx.Response | None:
    try:
        answer: httpx.Response = acme.submit(command, key)
    except httpx.TransportError:
        return None
    return answer


def _state(database: psycopg.Connection, submission: str) -> str:
    row = database.execute(
        "SELECT state::text FROM byoc.job WHERE submission_id = %s", (submission,)
    ).fetchone()
    assert row is not None
    return str(row[0])
