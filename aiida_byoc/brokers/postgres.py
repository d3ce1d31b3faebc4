"""`byoc.postgres`: AiiDA's broker on the profile's own PostgreSQL; no further service, and no task is ever lost.

A task is a row, committed with the node it is for (inside AiiDA's transaction, where one is open), owned by at most one
living worker, and deleted only when its process has ended. `docs/broker.md` tells what was wrong with the others.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
from aiida.brokers import Broker
from aiida.manage import get_manager
from aiida.manage.configuration import get_config_option
from aiida.manage.configuration.profile import Profile

from aiida_byoc.brokers import queue
from aiida_byoc.brokers.communicator import PostgresCommunicator
from aiida_byoc.database.connection import connect

__all__ = ["PostgresBroker"]

_COUNTS = """
SELECT (SELECT count(*) FROM byoc.task), (SELECT count(*) FROM byoc.task WHERE owner IS NULL),
       (SELECT count(*) FROM byoc.worker WHERE lease_until > now() AND fenced_at IS NULL)
"""


class PostgresBroker(Broker):
    """The broker of a profile whose storage is on PostgreSQL."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._held: list[PostgresCommunicator] = []
        self._finalizer = weakref.finalize(self, _close, self._held)

    def __str__(self) -> str:
        config = self._profile.storage_config
        where = f"{config['database_hostname']}:{config['database_port']}/{config['database_name']}"
        return f"PostgreSQL broker @ {where}"

    def get_communicator(self) -> PostgresCommunicator:
        """The communicator of this process."""
        if not self._held:
            self._held.append(
                PostgresCommunicator(
                    self._connect,
                    joined=_open_transaction,
                    slots=get_config_option("daemon.worker_process_slots"),
                )
            )
        return self._held[0]

    def iterate_tasks(self) -> Iterator[_Task]:
        """Every task, also of workers that are at work or dead: none is ever invisible."""
        with self._connect() as connection:
            for process_pk, body in queue.tasks(connection):
                yield _Task(self, process_pk, body)

    def check_service_reachable(self) -> bool:
        """Whether the database answers."""
        return bool(self.probe_service_status()["connected"])

    def probe_service_status(self) -> dict[str, Any]:
        """How many tasks and workers there are."""
        try:
            with self._connect() as connection:
                counted = connection.execute(_COUNTS).fetchone()
        except psycopg.Error as error:
            return {"connected": False, "error": str(error).strip()}
        tasks, waiting, workers = counted or (0, 0, 0)
        return {"connected": True, "tasks": tasks, "tasks_waiting": waiting, "workers": workers}

    def close(self) -> None:
        """Close the communicator."""
        _close(self._held)

    def _connect(self) -> psycopg.Connection:
        return connect(self._profile.storage_config, application="broker")


class _Task:
    """A task as `verdi process repair` handles it."""

    def __init__(self, broker: PostgresBroker, process_pk: int, body: dict[str, Any]) -> None:
        self._broker, self._process_pk, self.body = broker, process_pk, body

    @contextlib.contextmanager
    def processing(self) -> Iterator[_Outcome]:
        """Take the task away, once an outcome is set."""
        outcome = _Outcome()
        yield outcome
        if outcome.is_set:
            with self._broker._connect() as connection:
                queue.settle(connection, self._process_pk)


class _Outcome:
    is_set = False

    def set_result(self, _: Any) -> None:
        self.is_set = True


def _open_transaction() -> psycopg.Connection | None:
    storage = get_manager().get_profile_storage()
    if not storage.in_transaction:
        return None
    connection = storage.get_session().connection().connection.driver_connection
    return connection if isinstance(connection, psycopg.Connection) else None


def _close(held: list[PostgresCommunicator]) -> None:
    while held:
        held.pop().close()
