"""The relay's lanes: how many work side by side, and how long they leave an adapter alone that does not answer."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable

import psycopg

from aiida_byoc.agent.backoff import Backoff
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.database import notifications
from aiida_byoc.events.relay import BatchRefused, deliver
from aiida_byoc.events.stream import FULL

__all__ = ["Destination", "relay_lanes"]

_LOGGER = logging.getLogger(__name__)
_LANES = 4
_IDLE_SECONDS = 1.0
"""Of the first lane, which hears of every new event: for what comes due with time, after a failure."""
_GATHER_SECONDS = 0.1
"""A batch of one event costs nearly as much as a full one, on the cores where commands are accepted meanwhile: while
jobs come one after the other, their events go together."""
_OTHERS_IDLE_SECONDS = 2.0
_MOST_SECONDS = 60.0
_OPERATORS = {401, 403, 404, 405, 409, 415}
"""Answers that no waiting cures: credentials, addresses, an epoch that the product does not know."""

_TROUBLE = """
INSERT INTO byoc.relay_trouble AS known (problem, message) VALUES (%(problem)s, %(message)s)
ON CONFLICT (singleton) DO UPDATE SET problem = %(problem)s, message = %(message)s,
    since = CASE WHEN known.problem = %(problem)s THEN known.since ELSE now() END
"""


class Destination:
    """What the lanes know together of the adapter, so that one failure is one failure, and a pause is everybody's."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._backoff = Backoff(most=_MOST_SECONDS)
        self._failed_at, self._closed_until = 0.0, 0.0
        self._trouble: str | None = ""  # what the table says; "" before anybody looked

    def pause(self) -> float:
        """How long to leave it alone from now on, in seconds; 0 when it may be asked."""
        return max(0.0, self._closed_until - time.monotonic())

    def failed(
        self, connection: psycopg.Connection, error: AdapterUnavailable, asked_at: float
    ) -> float:
        """Note that what was asked at that time (monotonic, seconds) failed; return how long to wait."""
        with self._guard:
            if asked_at >= self._failed_at:  # otherwise another lane has met the same outage before
                self._failed_at = time.monotonic()
                self._closed_until = self._failed_at + self._backoff.failed(error.retry_after)
                self._tell(connection, error)
            return self.pause()

    def succeeded(self, connection: psycopg.Connection) -> None:
        """Note that it works."""
        with self._guard:
            self._backoff.succeeded()
            if self._trouble is not None:
                connection.execute("DELETE FROM byoc.relay_trouble")
                self._trouble = None

    def _tell(self, connection: psycopg.Connection, error: AdapterUnavailable) -> None:
        answered = f"http-{error.status}" if error.status else "unreachable"
        problem = error.problem or answered
        level = logging.ERROR if error.status in _OPERATORS else logging.WARNING
        _LOGGER.log(
            level,
            "No events are delivered event=adapter_unavailable loop=relay problem=%s wait=%.1f: %s",
            problem,
            self.pause(),
            error,
        )
        if problem != self._trouble:
            connection.execute(_TROUBLE, {"problem": problem, "message": str(error)})
            self._trouble = problem


def relay_lanes() -> dict[str, Callable[[psycopg.Connection, AdapterClient], float]]:
    """One step per lane, by its name: deliver a batch, and return how long to wait before the next, in seconds.

    Names are the same in every agent (there is one per profile): what a dead agent had claimed is taken up at once.
    """
    destination = Destination()
    names = [f"relay-{number}" for number in range(1, _LANES + 1)]
    return {
        name: functools.partial(
            _step,
            destination=destination,
            lane=name,
            is_first=name == names[0],
        )
        for name in names
    }


def _step(
    connection: psycopg.Connection,
    client: AdapterClient,
    *,
    destination: Destination,
    lane: str,
    is_first: bool,
) -> float:
    if pause := destination.pause():
        return pause
    asked_at = time.monotonic()
    try:
        settled = deliver(connection, client, lane=lane)
    except AdapterUnavailable as error:
        return destination.failed(connection, error, asked_at)
    except (
        BatchRefused
    ) as error:  # by a proxy: the adapter's own refusal stops one job, and is no failure
        return destination.failed(connection, AdapterUnavailable(str(error), status=400), asked_at)
    if settled:
        destination.succeeded(connection)
    return _rest(connection, settled, is_first=is_first)


def _rest(connection: psycopg.Connection, settled: int, *, is_first: bool) -> float:
    """Seconds to wait after so many events. After none, the first lane waits here until it hears of one."""
    if settled > FULL:
        return 0
    if not is_first:  # one lane is enough for a few events at a time
        return _OTHERS_IDLE_SECONDS
    if settled:
        return _GATHER_SECONDS
    notifications.wait(connection, notifications.RELAY, _IDLE_SECONDS)
    return 0
