"""The queue of `byoc.postgres`: a task is kept until its process has ended, and taken only from the fenced."""

from __future__ import annotations

import os
import signal
import uuid
from typing import Any

import psycopg
import pytest

from aiida_byoc.brokers import queue, worker
from aiida_byoc.database.connection import connect
from tests.postgres.brokers import Broker, communicating, prepare

ENDED = '{"process_state": "finished"}'


@pytest.fixture
def broker(storage: dict[str, Any], connection: psycopg.Connection) -> Broker:
    """A profile's database with processes for rows."""
    return prepare(storage, connection)


def test_a_task_sent_twice_is_one(broker: Broker) -> None:
    """A repetition after a crash, or an operator's repair, adds nothing."""
    task = {"task": "continue", "args": {"pid": 7, "nowait": True, "tag": None}}

    with communicating(broker.storage) as communicator:
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


def leave(broker: Broker, *, attempts: int, ran: str = "1 minute") -> str:
    """A worker of another machine whose lease ran out while it had a task; return what its sessions are called."""
    worker_id = uuid.uuid4()
    broker.connection.execute(
        "INSERT INTO byoc.worker (worker_id, host, boot_id, pid, pid_started, lease_until)"
        " VALUES (%s, 'elsewhere', '', 1, 1, now() - interval '1 second')",
        (worker_id,),
    )
    broker.connection.execute(
        "UPDATE byoc.task SET owner = %s, attempts = %s, claimed_at = now() - %s::interval",
        (worker_id, attempts, ran),
    )
    return worker.application_name(worker_id)


@pytest.mark.parametrize(
    ("attempts", "ran", "due"),
    [(1, "1 minute", 1), (3, "1 minute", 1), (4, "1 minute", 0), (9, "1 hour", 1)],
)
def test_a_task_whose_workers_die_again_and_again_is_put_off(
    broker: Broker, attempts: int, ran: str, due: int
) -> None:
    """It may be what kills them; it is kept all the same. Who ran long is not to blame."""
    broker.submit(1)
    leave(broker, attempts=attempts, ran=ran)

    queue.fence_the_dead(broker.connection)

    assert broker.count("SELECT count(*) FROM byoc.task WHERE owner IS NULL") == 1
    assert broker.count("SELECT count(*) FROM byoc.task WHERE not_before <= now()") == due


def test_work_is_taken_over_only_when_no_session_of_its_worker_is_left(
    broker: Broker, storage: dict[str, Any]
) -> None:
    """The session is ended by whoever takes over, and can write no more."""
    broker.submit(1)
    name = leave(broker, attempts=1)
    with connect(storage, application=name.removeprefix("byoc-")) as session:
        queue.fence_the_dead(broker.connection)

        assert broker.count("SELECT count(*) FROM byoc.task WHERE owner IS NULL") == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_work_is_not_taken_over_while_a_session_of_its_worker_does_not_end(
    broker: Broker, storage: dict[str, Any]
) -> None:
    """It may still commit: its worker is fenced, its work waits."""
    broker.submit(1)
    name = leave(broker, attempts=1)
    owned = "SELECT count(*) FROM byoc.task JOIN byoc.worker ON worker_id = owner WHERE fenced_at IS NOT NULL"
    with connect(storage, application=name.removeprefix("byoc-")) as session:
        os.kill(session.info.backend_pid, signal.SIGSTOP)
        try:
            queue.fence_the_dead(broker.connection)
            assert broker.count(owned) == 1
        finally:
            os.kill(session.info.backend_pid, signal.SIGCONT)

        queue.fence_the_dead(broker.connection)

    assert broker.count("SELECT count(*) FROM byoc.task WHERE owner IS NULL") == 1


def test_a_fenced_worker_claims_nothing(broker: Broker) -> None:
    """Also while its row is still there."""
    broker.submit(1)
    worker.register(broker.connection)
    broker.connection.execute("UPDATE byoc.worker SET fenced_at = now()")

    assert queue.claim(broker.connection, 1) == []

    queue.release(broker.connection)
