"""The connection by which a process sends; shared by its threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

__all__ = ["Connect", "Sender"]

T = TypeVar("T")

Connect = Callable[[], psycopg.Connection]
"""Open an autocommit connection to the profile's database."""


class Sender:
    """One connection, used by one thread at a time.

    Args:
        connect: opens connections.
        lost: told when the connection is lost, before another is opened; a worker does not return from it.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """

    def __init__(self, connect: Connect, lost: Callable[[Exception], None]) -> None:
        self._connect, self._lost = connect, lost
        self._connection = connect()
        self._lock = threading.RLock()

    def __call__(self, use: Callable[[psycopg.Connection], T]) -> T:
        """Use the connection, or once more a new one: what is sent twice does nothing the second time."""
        with self._lock:
            try:
                return use(self._connection)
            except psycopg.OperationalError as error:
                self._lost(error)
                self._connection.close()
                self._connection = self._connect()
                return use(self._connection)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
