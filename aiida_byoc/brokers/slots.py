"""What a worker does with tasks: claim, begin, settle; and hold the lease under which it may."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import psycopg

from aiida_byoc.brokers import notices, queue, worker

__all__ = ["Slots"]

_LOGGER = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_BATCH = 10
"""Tasks claimed at a time, so that workers share a burst."""
_NEXT_BATCH_SECONDS = 0.05
_WATCH_SECONDS = 0.5


class Slots:
    """The tasks this process has taken on. `step` is called by one thread, all else by any.

    Args:
        number: how many at a time.
        begin: starts a task; what it returns ends, if it is a future, when the task does.
        is_here: whether a process runs in this one.
        wake: called when `step` has something to do before it said.
    """

    def __init__(
        self,
        number: int,
        *,
        begin: Callable[[dict[str, Any]], Any],
        is_here: Callable[[int], bool],
        wake: Callable[[], None],
    ) -> None:
        self._number, self._begin, self._is_here, self._wake = number, begin, is_here, wake
        self._running: set[int] = set()
        self._ended: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._until: float | None = None
        self._renew_at = 0.0
        self._look_at = 0.0

    @property
    def are_open(self) -> bool:
        """Whether this process is a worker."""
        return self._until is not None

    def open(self, connection: psycopg.Connection) -> None:
        """Become a worker."""
        self._until = worker.register(connection)
        threading.Thread(target=self._watch, name="byoc-lease", daemon=True).start()
        self._wake()

    def close(self, connection: psycopg.Connection) -> None:
        """Be one no longer; to be called when no process runs here any more."""
        queue.release(connection)
        self._until = None

    def look(self) -> None:
        """There may be a task; does not wake."""
        self._look_at = 0.0

    def step(self, connection: psycopg.Connection) -> float:
        """Renew, settle and claim what is due; return when to come again, on the clock of `worker.now`."""
        now = worker.now()
        if now >= self._renew_at:
            self._until = queue.renew(connection)
            self._renew_at = now + worker.LEASE_SECONDS / 3
            queue.fence_the_dead(connection)
            notices.sweep(connection)
        self._settle(connection)
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            if self._claim(connection) == _BATCH:
                self._look_at = now + _NEXT_BATCH_SECONDS
        return min(self._renew_at, self._look_at)

    def _claim(self, connection: psycopg.Connection) -> int:
        free = self._number - len(self._running)
        claimed = queue.claim(connection, min(free, _BATCH)) if free > 0 else []
        for process_pk, body in claimed:
            if self._is_here(process_pk):
                # Its task ended although it had not: what is left of it here must not go on beside a second one.
                worker.die(f"process {process_pk} was given back, and is still here")
            self._running.add(process_pk)
            try:
                future = notices.innermost(self._begin(body))
            except Exception as error:
                future = Future()
                future.set_exception(error)
            future.add_done_callback(functools.partial(self._end, process_pk))
        return len(claimed)

    def _end(self, process_pk: int, done: Future[Any]) -> None:
        error = done.exception()
        self._ended.put((process_pk, f"{type(error).__name__}: {error}" if error else "no error"))
        self._wake()

    def _settle(self, connection: psycopg.Connection) -> None:
        while True:
            try:
                process_pk, why = self._ended.get_nowait()
            except Empty:
                return
            if not queue.settle(connection, process_pk):
                _LOGGER.warning(
                    "Task given back event=task_given_back process=%s: %s", process_pk, why
                )
            if len(self._running) == self._number:
                self.look()
            self._running.discard(process_pk)

    def _watch(self) -> None:
        """End the process when its lease does, whatever the thread that renews it waits for."""
        while self._until is not None:
            if worker.now() > self._until:
                worker.die("the lease was not renewed in time")
            time.sleep(_WATCH_SECONDS)
