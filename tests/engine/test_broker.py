"""`byoc.postgres` under AiiDA: tasks in its transactions, real workers, and control of what they run."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiida.common.exceptions import NotExistent
from aiida.engine import ProcessState
from aiida.engine.persistence import AiiDAPersister
from aiida.engine.runners import Runner
from aiida.manage import get_config, get_manager
from aiida.orm import CalculationNode, Int, WorkChainNode, load_node
from aiida.plugins import BrokerFactory
from plumpy.process_comms import RemoteProcessThreadController

from aiida_byoc.brokers.postgres import PostgresBroker
from aiida_byoc.database.connection import connect
from aiida_byoc.database.migrate import migrate
from tests.engine.waiting_chain import Waits
from tests.eventually import eventually

ANSWER_SECONDS = 30
WORK_SECONDS = 120


class Workers:
    """Real workers of the profile, and what they are given to do."""

    def __init__(
        self, profile: Any, broker: PostgresBroker, connection: psycopg.Connection, logs: Path
    ) -> None:
        self.profile, self.broker, self.connection, self.logs = profile, broker, connection, logs
        self.control = RemoteProcessThreadController(broker.get_communicator())
        self.runner = Runner(
            communicator=broker.get_communicator(), broker_submit=True, persister=AiiDAPersister()
        )
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker as a supervisor does."""
        command = [sys.executable, "-m", "aiida", "-p", self.profile.name, "daemon", "worker"]
        with (self.logs / f"worker-{len(self.started)}.log").open("wb") as log:
            worker = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "BYOC_LEASE_SECONDS": "5", "PYTHONWARNINGS": "ignore"},
            )
        self.started.append(worker)
        return worker

    def submit(self) -> tuple[CalculationNode, WorkChainNode]:
        """Submit a work chain; return what it waits for, and its node."""
        awaited = unfinished()
        return awaited, self.runner.submit(Waits, process_pk=Int(awaited.pk))

    def owner(self, node: WorkChainNode) -> int | None:
        """The process id of the worker that has a process."""
        row = self.connection.execute(
            "SELECT pid FROM byoc.task JOIN byoc.worker ON worker_id = owner WHERE process_pk = %s",
            (node.pk,),
        ).fetchone()
        return row[0] if row else None

    def tasks(self, node: WorkChainNode) -> int:
        """How many tasks there are for a process."""
        return sum(each.body["args"]["pid"] == node.pk for each in self.broker.iterate_tasks())

    def eventually(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for what workers do."""
        logs = [self.logs / f"worker-{index}.log" for index in range(len(self.started))]
        return eventually(condition, what, seconds=WORK_SECONDS, logs=logs)

    def runs(self, node: WorkChainNode) -> bool:
        """Whether the process waits for the other one, and can be called."""
        if node.process_state is not ProcessState.WAITING:
            return False
        row = self.connection.execute(
            "SELECT FROM byoc.recipient WHERE identifier = %s", (str(node.pk),)
        ).fetchone()
        return row is not None


@pytest.fixture
def workers(profile: Any, tmp_path: Path) -> Iterator[Workers]:
    """The profile on the broker, without workers; as it was afterwards."""
    before = copy.deepcopy(profile.dictionary)
    profile.set_process_controller(
        "byoc.postgres", BrokerFactory("byoc.postgres").get_default_config()
    )
    get_config().update_profile(profile).store()
    broker = PostgresBroker(profile)
    with connect(profile.storage_config, application="test") as connection:
        migrate(connection)
        workers = Workers(profile, broker, connection, tmp_path)
        yield workers
        for process in workers.started:
            process.kill()
            process.wait()
        connection.execute("DELETE FROM byoc.task")
        connection.execute("DELETE FROM byoc.worker")
    broker.close()
    profile.dictionary.clear()
    profile.dictionary.update(before)
    get_config().update_profile(profile).store()


def unfinished() -> CalculationNode:
    """A process that nobody runs."""
    node = CalculationNode().store()
    node.set_process_state(ProcessState.WAITING)
    return node


def end(node: CalculationNode) -> None:
    """Let what a work chain waits for end."""
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(0)
    node.seal()


def test_a_task_is_part_of_the_transaction_that_makes_its_process(workers: Workers) -> None:
    """Rolled back, there is neither; before the commit, nobody else sees either; then there are both."""
    storage = get_manager().get_profile_storage()
    pks = []

    def crash() -> None:
        with storage.transaction():
            pks.append(workers.submit()[1].pk)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    with storage.transaction():
        _, node = workers.submit()
        assert workers.tasks(node) == 0

    assert workers.tasks(node) == 1
    with pytest.raises(NotExistent):
        load_node(pks[0])
    assert [each.body["args"]["pid"] for each in workers.broker.iterate_tasks()] == [node.pk]


def test_a_worker_can_be_asked_to_pause_play_and_kill(workers: Workers) -> None:
    """The answers are AiiDA's; the task is done with the process."""
    workers.start()
    _, node = workers.submit()
    workers.eventually(lambda: workers.runs(node), "the process to run")

    assert workers.control.pause_process(node.pk).result(ANSWER_SECONDS) is True
    assert node.paused
    assert workers.control.play_process(node.pk).result(ANSWER_SECONDS) is True
    assert not node.paused
    assert "WAITING" in workers.control.get_status(node.pk).result(ANSWER_SECONDS)["state"]
    assert workers.control.kill_process(node.pk).result(ANSWER_SECONDS) is True

    workers.eventually(lambda: node.is_killed, "the process to be killed")
    workers.eventually(lambda: workers.tasks(node) == 0, "the task to be done")


def test_a_killed_workers_process_goes_on_in_another(workers: Workers) -> None:
    """From its checkpoint, and to its end."""
    first = workers.start()
    awaited, node = workers.submit()
    workers.eventually(lambda: workers.runs(node), "the process to run")
    assert workers.owner(node) == first.pid
    second = workers.start()

    first.kill()
    workers.eventually(lambda: workers.owner(node) == second.pid, "the process to be taken over")
    end(awaited)

    workers.eventually(lambda: node.is_finished_ok, "the process to end")
    workers.eventually(lambda: workers.tasks(node) == 0, "the task to be done")


def test_a_worker_that_is_told_to_stop_hands_its_processes_on(workers: Workers) -> None:
    """SIGTERM: no lease has to run out, nothing has ended."""
    first = workers.start()
    awaited, node = workers.submit()
    workers.eventually(lambda: workers.runs(node), "the process to run")

    first.terminate()
    assert first.wait(ANSWER_SECONDS) == 0

    assert (workers.owner(node), workers.tasks(node)) == (None, 1)
    assert not node.is_terminated
    workers.start()
    end(awaited)
    workers.eventually(lambda: node.is_finished_ok, "the process to end")


def test_a_process_that_cannot_be_loaded_ends_and_so_does_its_task(workers: Workers) -> None:
    """AiiDA says of it that it excepted."""
    _, node = workers.submit()
    node.set_checkpoint("junk")

    workers.start()

    workers.eventually(lambda: node.is_excepted, "the process to except")
    workers.eventually(lambda: workers.tasks(node) == 0, "the task to be done")


def test_repair_sees_the_tasks_there_are_and_makes_those_there_are_not(workers: Workers) -> None:
    """`verdi process repair`: a process without task gets one, and no other process a second one."""
    _, lost = workers.submit()
    _, kept = workers.submit()
    workers.connection.execute("DELETE FROM byoc.task WHERE process_pk = %s", (lost.pk,))

    verdi = [str(Path(sys.executable).parent / "verdi"), "-p", workers.profile.name]
    done = subprocess.run(
        [*verdi, "process", "repair"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"Revived process `{lost.pk}`" in done.stdout
    assert (workers.tasks(lost), workers.tasks(kept)) == (1, 1)
