"""`byoc.postgres`: a task is run by one living worker at a time, until its process has ended, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import kiwipy
import psycopg
import pytest

from aiida_byoc.brokers import queue, worker
from aiida_byoc.brokers.communicator import PostgresCommunicator
from aiida_byoc.database.connection import connect
from tests.eventually import eventually

LEASE_SECONDS = 1.5
MANY = 1000
ENDED = '{"process_state": "finished"}'


@dataclass
class Broker:
    """The database of a profile, and what a test does to it."""

    storage: dict[str, Any]
    connection: psycopg.Connection

    def submit(self, *pks: int) -> None:
        """Make processes and ask for them to be continued."""
        for pk in pks:
            with self.connection.transaction():
                self.connection.execute(
                    'INSERT INTO db_dbnode VALUES (%s, \'{"process_state": "created"}\')', (pk,)
                )
                queue.send(self.connection, pk, {"task": "continue", "args": {"pid": pk}})

    def let_end(self, *pks: int) -> None:
        """Let the processes end when they next look."""
        self.connection.cursor().executemany(
            "INSERT INTO may_end VALUES (%s)", [(pk,) for pk in pks]
        )

    def count(self, query: str, *values: Any) -> int:
        """The number that a query gives."""
        row = self.connection.execute(query.encode(), values).fetchone()
        return int(row[0]) if row else 0

    def is_empty(self) -> bool:
        """Whether every task is done."""
        return self.count("SELECT count(*) FROM byoc.task") == 0

    def workers_of(self, pk: int) -> list[str]:
        """Which workers ran a process, in the order of what they wrote."""
        rows = self.connection.execute(
            "SELECT worker_id::text FROM wrote WHERE process_pk = %s ORDER BY id", (pk,)
        )
        ids = [row[0] for row in rows]
        return [each for index, each in enumerate(ids) if index == 0 or ids[index - 1] != each]


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
    connection.execute("CREATE TABLE db_dbnode (id bigint PRIMARY KEY, attributes jsonb NOT NULL)")
    connection.execute(
        "CREATE TABLE wrote (id bigserial PRIMARY KEY, process_pk bigint, worker_id uuid)"
    )
    connection.execute("CREATE TABLE may_end (process_pk bigint PRIMARY KEY)")
    return Broker(storage, connection)


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


@pytest.fixture
def communicator(storage: dict[str, Any]) -> Iterator[PostgresCommunicator]:
    """The broker in a process that is no worker."""
    made = PostgresCommunicator(
        lambda: connect(storage, application="broker"), joined=lambda: None, slots=1
    )
    yield made
    made.close()


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


def test_a_task_sent_twice_is_one(broker: Broker, communicator: PostgresCommunicator) -> None:
    """A repetition after a crash, or an operator's repair, adds nothing."""
    task = {"task": "continue", "args": {"pid": 7, "nowait": True, "tag": None}}

    communicator.task_send(task, no_reply=True)
    communicator.task_send(task, no_reply=True)

    assert queue.tasks(broker.connection) == [
        (7, {"task": "continue", "args": {"pid": 7, "nowait": False, "tag": None}})
    ]


def test_a_task_is_done_only_when_its_process_has_ended(broker: Broker) -> None:
    """Whatever a worker says: a process that has not ended is due again later; one that is gone is done."""
    broker.submit(1, 2)
    broker.connection.execute("DELETE FROM db_dbnode WHERE id = 2")
    worker.register(broker.connection)
    assert len(queue.claim(broker.connection, 2)) == 2

    assert not queue.settle(broker.connection, 1)
    assert queue.settle(broker.connection, 2)

    again = "SELECT count(*) FROM byoc.task WHERE owner IS NULL AND not_before > now()"
    assert broker.count(again) == 1
    broker.connection.execute("UPDATE db_dbnode SET attributes = %s", (ENDED,))
    assert queue.settle(broker.connection, 1)
    queue.release(broker.connection)


def test_a_call_reaches_the_process_wherever_it_runs(
    communicator: PostgresCommunicator, storage: dict[str, Any]
) -> None:
    """The answer comes back, also one that is too long for a notification, and so does an error."""
    other = PostgresCommunicator(
        lambda: connect(storage, application="broker"), joined=lambda: None, slots=1
    )
    try:
        other.add_rpc_subscriber(lambda _, message: message * 10_000, 5)

        def fail(_: Any, message: Any) -> Any:
            raise RuntimeError(message)

        other.add_rpc_subscriber(fail, 6)
        eventually(other._listening.is_set, "the other to listen")

        assert communicator.rpc_send(5, "ab").result(10) == "ab" * 10_000
        with pytest.raises(kiwipy.RemoteException, match="RuntimeError: no"):
            communicator.rpc_send(6, "no").result(10)
    finally:
        other.close()


def test_a_call_to_a_process_without_a_worker_fails_at_once(
    broker: Broker, communicator: PostgresCommunicator
) -> None:
    """Nobody could answer: better to know than to wait."""
    broker.submit(1)

    with pytest.raises(kiwipy.UnroutableError):
        communicator.rpc_send(1, {})


def test_a_broadcast_reaches_everybody(
    communicator: PostgresCommunicator, storage: dict[str, Any]
) -> None:
    """In this process and in others, with sender and subject."""
    other = PostgresCommunicator(
        lambda: connect(storage, application="broker"), joined=lambda: None, slots=1
    )
    heard: list[tuple[str, Any]] = []
    arrived: Future[None] = Future()

    def hear(name: str) -> Callable[..., None]:
        def subscriber(_: Any, body: Any, sender: Any, subject: Any, correlation_id: Any) -> None:
            heard.append((name, (body, sender, subject, correlation_id)))
            if len(heard) == 2:
                arrived.set_result(None)

        return subscriber

    try:
        for name, each in {"here": communicator, "there": other}.items():
            each.add_broadcast_subscriber(hear(name))
            eventually(each._listening.is_set, "everybody to listen")

        communicator.broadcast_send(None, sender=3, subject="state_changed.a.b")

        arrived.result(10)
        assert sorted(heard) == [
            ("here", (None, 3, "state_changed.a.b", None)),
            ("there", (None, 3, "state_changed.a.b", None)),
        ]
    finally:
        other.close()
