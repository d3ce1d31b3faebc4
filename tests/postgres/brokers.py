"""The broker's database without AiiDA: its processes are rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from aiida_byoc.brokers import queue
from aiida_byoc.brokers.communicator import PostgresCommunicator
from aiida_byoc.database.connection import connect

__all__ = ["Broker", "communicating", "prepare"]


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


def prepare(storage: dict[str, Any], connection: psycopg.Connection) -> Broker:
    """Make the tables that AiiDA would have, and those of `broker_worker`."""
    connection.execute("CREATE TABLE db_dbnode (id bigint PRIMARY KEY, attributes jsonb NOT NULL)")
    connection.execute(
        "CREATE TABLE wrote (id bigserial PRIMARY KEY, process_pk bigint, worker_id uuid)"
    )
    connection.execute("CREATE TABLE may_end (process_pk bigint PRIMARY KEY)")
    return Broker(storage, connection)


@contextmanager
def communicating(storage: dict[str, Any]) -> Iterator[PostgresCommunicator]:
    """The broker in a process that is no worker."""
    communicator = PostgresCommunicator(
        lambda: connect(storage, application="broker"), joined=lambda: None, slots=1
    )
    try:
        yield communicator
    finally:
        communicator.close()
