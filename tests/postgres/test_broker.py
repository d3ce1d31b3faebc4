"""Workers of `byoc.postgres`: a task is run by one living worker at a time, until its process has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from aiida_byoc.brokers import worker
from tests.eventually import eventually
from tests.postgres.brokers import Broker, prepare

LEASE_SECONDS = 1.5
MANY = 1000


@dataclass
class Worker:
    """A running worker."""

    process: subprocess.Popen[str]
    worker_id: str

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def broker(storage: dict[str, Any], connection: psycopg.Connection) -> Broker:
    """A profile's database with processes for rows."""
    return prepare(storage, connection)


@pytest.fixture
def start(broker: Broker) -> Iterator[Callable[..., Worker]]:
    """Start workers; those that are left are killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(slots: int = 100) -> Worker:
        command = [sys.executable, "-m", "tests.postgres.broker_worker"]
        process = subprocess.Popen(
            [*command, json.dumps(broker.storage), str(slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "BYOC_LEASE_SECONDS": str(LEASE_SECONDS)},
        )
        started.append(process)
        assert process.stdout is not None
        return Worker(process, process.stdout.readline().strip())

    yield run
    for process in started:
        with process:
            process.kill()


def test_two_workers_contend_for_many_tasks_and_each_is_run_once(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    """1,000 tasks, two workers: every process is run, by one of them, and both had work."""
    pks = range(1, MANY + 1)
    broker.let_end(*pks)
    broker.submit(*pks)

    workers = [start(slots=8), start(slots=8)]

    eventually(broker.is_empty, "all tasks to be done", seconds=120)
    assert broker.count("SELECT count(*) FROM wrote") == MANY
    assert broker.count("SELECT count(DISTINCT process_pk) FROM wrote") == MANY
    shares = [
        broker.count("SELECT count(*) FROM wrote WHERE worker_id = %s", each.worker_id)
        for each in workers
    ]
    assert min(shares) > 0


def test_a_killed_workers_task_goes_to_another(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    """The second worker takes the process over; nothing is lost, and the dead one wrote nothing afterwards."""
    broker.submit(1)
    first = start()
    eventually(lambda: broker.workers_of(1), "the process to run")
    second = start()

    first.end()
    eventually(lambda: second.worker_id in broker.workers_of(1), "the process to be taken over")
    broker.let_end(1)

    eventually(broker.is_empty, "the task to be done")
    assert broker.workers_of(1) == [first.worker_id, second.worker_id]


def test_a_worker_that_slept_past_its_lease_writes_nothing_any_more(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    """Stopped and resumed, it finds itself fenced and ends; the other worker's process is undisturbed."""
    broker.submit(1)
    first = start()
    eventually(lambda: broker.workers_of(1), "the process to run")
    second = start()

    first.process.send_signal(signal.SIGSTOP)
    eventually(
        lambda: second.worker_id in broker.workers_of(1), "the process to be taken over", seconds=30
    )
    status = first.end(signal.SIGCONT)
    broker.let_end(1)

    eventually(broker.is_empty, "the task to be done")
    assert status in {worker.FENCED, 70}
    assert broker.workers_of(1) == [first.worker_id, second.worker_id]


def test_a_worker_whose_lease_is_taken_ends(broker: Broker, start: Callable[..., Worker]) -> None:
    """Also one that was never asleep: what it may do is decided in the database."""
    first = start()

    broker.connection.execute("UPDATE byoc.worker SET fenced_at = now()")

    assert first.process.wait(30) == worker.FENCED


def test_a_worker_that_cannot_renew_its_lease_ends(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    """The database does not refuse, it only does not answer."""
    first = start()

    with broker.connection.transaction():
        broker.connection.execute("LOCK TABLE byoc.worker IN EXCLUSIVE MODE")

        assert first.process.wait(30) == worker.FENCED


def test_a_worker_without_its_database_ends(broker: Broker, start: Callable[..., Worker]) -> None:
    """It is started anew by its supervisor; its tasks wait for it."""
    broker.submit(1)
    first = start()
    eventually(lambda: broker.workers_of(1), "the process to run")

    broker.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    assert first.process.wait(30) in {worker.FENCED, 70}
    second = start()
    eventually(lambda: second.worker_id in broker.workers_of(1), "the process to be taken over")
    broker.let_end(1)
    eventually(broker.is_empty, "the task to be done")


def test_a_worker_that_stops_hands_its_tasks_on_at_once(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    """No lease has to run out first."""
    broker.submit(1)
    first = start()
    eventually(lambda: broker.workers_of(1), "the process to run")

    assert first.process.stdin is not None
    first.process.stdin.close()
    assert first.process.wait(30) == 0

    assert broker.count("SELECT count(*) FROM byoc.worker") == 0
    assert broker.count("SELECT count(*) FROM byoc.task WHERE owner IS NULL") == 1


def test_slots_bound_what_a_worker_takes_on(broker: Broker, start: Callable[..., Worker]) -> None:
    """Five tasks, two slots: three wait, until one of the others ends."""
    broker.submit(1, 2, 3, 4, 5)
    start(slots=2)

    eventually(lambda: broker.workers_of(2), "two processes to run")
    assert broker.count("SELECT count(*) FROM byoc.task WHERE owner IS NULL") == 3
    broker.let_end(1)
    eventually(lambda: broker.workers_of(3), "the third to run")
    broker.let_end(2, 3, 4, 5)
    eventually(broker.is_empty, "all tasks to be done")
