"""What operators do to AiiDA's processes, with `verdi` and behind its back: each becomes the right event, once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.eventually import eventually

SECONDS = 120.0
LOAD = 10
STORIES = [
    ["accepted", "launched", "queued", "succeeded"],
    ["accepted", "launched", "queued", "running", "succeeded"],
]


class Job:
    """A submitted job, and what there is of it on the node."""

    def __init__(self, client: Any, database: psycopg.Connection, *argv: str) -> None:
        self._database = database
        self.command = client.command(*argv)
        answer = client.submit(self.command)
        assert answer.status_code == 202, answer.text
        self.submission = answer.json()["submission_id"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of its events; their numbers have no gap."""
        rows = self._database.execute(
            "SELECT body -> 'data' FROM byoc.event WHERE submission_id = %s ORDER BY seq",
            (self.submission,),
        ).fetchall()
        events = [row[0] for row in rows]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        return events

    @property
    def states(self) -> list[str]:
        """The states that were told."""
        return [event["state"] for event in self.events]

    def wait(self, *states: str) -> None:
        """Until it is told in one of these states."""
        eventually(lambda: self.states[-1] in states, f"{' or '.join(states)}", seconds=SECONDS)

    @property
    def chain(self) -> int:
        """The pk of its work chain."""
        return self._pk("SELECT process_pk FROM byoc.job WHERE submission_id = %s", self.submission)

    @property
    def attempt(self) -> int:
        """The pk of its one attempt."""
        return self._pk(
            "SELECT output_id FROM db_dblink WHERE input_id = %s AND type = 'call_calc'", self.chain
        )

    def _pk(self, query: str, value: object) -> int:
        row = self._database.execute(query.encode(), (value,)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def submit(acme: Any, database: psycopg.Connection) -> Callable[..., Job]:
    """Submit a job that runs this."""
    return lambda *argv: Job(acme, database, *argv)


@pytest.fixture
def verdi(lab: dict[str, Any]) -> Callable[..., None]:
    """Do what an operator does."""

    def run(*words: str) -> None:
        done = subprocess.run(
            ["verdi", "-p", lab["node"]["profile"], *words],
            env={**os.environ, **lab["node"]["environment"]},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    return run


@pytest.fixture
def repairs(database: psycopg.Connection) -> Callable[[], dict[str, int]]:
    """How many repairs of each kind this test took."""

    def counts() -> dict[str, int]:
        return dict(database.execute("SELECT kind, count FROM byoc.repair").fetchall())

    before = counts()
    return lambda: {
        kind: count - before.get(kind, 0)
        for kind, count in counts().items()
        if count > before.get(kind, 0)
    }


@pytest.fixture
def stopped(verdi: Callable[..., None]) -> Iterator[None]:
    """The daemon runs again after the test."""
    yield
    verdi("daemon", "start", "1")


def test_pauses_plays_and_kills_are_told(
    submit: Callable[..., Job], verdi: Callable[..., None], repairs: Callable[[], dict[str, int]]
) -> None:
    """Of the work chain as of its attempt; a job is held as long as one of them is paused."""
    job = submit("sleep", "600")
    job.wait("running")
    verdi("process", "pause", str(job.chain))
    job.wait("held")
    verdi("process", "pause", str(job.attempt))
    verdi("process", "play", str(job.chain))
    assert job.states[-1] == "held"
    verdi("process", "play", str(job.attempt))
    job.wait("running")
    verdi("process", "kill", str(job.chain))
    job.wait("cancelled")

    states = job.states
    assert states == ["accepted", "launched", "queued", "running", "held", "running", "cancelled"]
    assert "verdi process pause" in job.events[4]["reason"]
    assert repairs() == {}


def test_an_attempt_that_is_killed_fails_its_job(
    submit: Callable[..., Job], verdi: Callable[..., None], repairs: Callable[[], dict[str, int]]
) -> None:
    """Nobody cancelled the job."""
    job = submit("sleep", "600")
    job.wait("running")
    verdi("process", "kill", str(job.attempt))
    job.wait("failed")

    assert job.states == ["accepted", "launched", "queued", "running", "failed"]
    assert job.events[-1]["error"]["code"] == "killed"
    assert repairs() == {}


@pytest.mark.usefixtures("stopped")
def test_tasks_that_were_lost_are_repaired_and_the_jobs_go_on(
    submit: Callable[..., Job],
    verdi: Callable[..., None],
    database: psycopg.Connection,
    repairs: Callable[[], dict[str, int]],
) -> None:
    """`verdi process repair` with the daemon stopped in the middle of a job: every event once."""
    job = submit("sleep", "2")
    job.wait("running")
    verdi("daemon", "stop")
    database.execute(
        "DELETE FROM byoc.task WHERE process_pk = ANY(%s)", ([job.chain, job.attempt],)
    )
    verdi("process", "repair", "--force")
    verdi("daemon", "start", "1")
    job.wait("succeeded")

    assert job.states in STORIES
    assert repairs() == {}


@pytest.mark.usefixtures("stopped")
def test_a_checkpoint_that_cannot_be_loaded_ends_the_job(
    submit: Callable[..., Job],
    verdi: Callable[..., None],
    database: psycopg.Connection,
    repairs: Callable[[], dict[str, int]],
) -> None:
    """No hook runs where AiiDA's launcher gives a process up; the sweep tells, once Slurm has nothing of it left."""
    job = submit("sleep", "600")
    job.wait("running")
    verdi("daemon", "stop")
    database.execute(
        'UPDATE db_dbnode SET attributes = attributes || \'{"checkpoints": "junk"}\' WHERE id = %s',
        (job.chain,),
    )
    verdi("daemon", "start", "1")
    job.wait("failed")

    assert job.states == ["accepted", "launched", "queued", "running", "failed"]
    assert job.events[-1]["error"]["code"] == "execution_failed"
    assert repairs() == {"ended": 1}


def test_two_workers_under_load_tell_each_job_exactly(
    submit: Callable[..., Job], verdi: Callable[..., None], repairs: Callable[[], dict[str, int]]
) -> None:
    """Work chain and attempt may be in different workers; still no gap, no repetition, and nothing to repair."""
    verdi("daemon", "incr", "1")
    try:
        jobs = [submit("true") for _ in range(LOAD)]
        for job in jobs:
            job.wait("succeeded")
    finally:
        verdi("daemon", "decr", "1")

    assert [job.states for job in jobs if job.states not in STORIES] == []
    assert repairs() == {}
