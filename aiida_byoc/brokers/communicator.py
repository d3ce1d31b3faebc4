"""kiwipy over Postgres: tasks from the queue; calls, replies and broadcasts as notifications.

One thread per process listens, and, in a worker, claims tasks and renews the lease. Callbacks of AiiDA only schedule
work on its event loop, so they run here.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import kiwipy
import psycopg

from aiida_byoc.brokers import notices, queue, worker

__all__ = ["PostgresCommunicator"]

_LOGGER = logging.getLogger(__name__)
_IDLE_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_CLOSE_SECONDS = 5.0

Connect = Callable[[], psycopg.Connection]
"""Open an autocommit connection to the profile's database."""


class PostgresCommunicator(kiwipy.CommunicatorHelper):
    """A communicator of one process.

    Args:
        connect: opens connections. They need no fencing: what a fenced worker does here has no effect.
        joined: the connection of AiiDA's transaction, if one is open: a task sent then is part of it.
        slots: how many tasks this process takes on at a time, once it subscribes to tasks.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        joined: Callable[[], psycopg.Connection | None],
        slots: int,
    ) -> None:
        super().__init__()
        self._connect, self._joined, self._slots = connect, joined, slots
        self._sender: psycopg.Connection | None = None
        self._sending = threading.RLock()
        self._calls: dict[str, Future[Any]] = {}
        self._running: set[int] = set()
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._until: float | None = None
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="byoc-broker", daemon=True)
        self._thread.start()

    # What AiiDA calls, from any thread.

    def task_send(self, task: Any, no_reply: bool = False) -> Future[Any]:
        """Ask for a process to be continued; durable when this returns, or with the transaction that is open.

        `nowait` would let the task end before its process does; ours ends with it.
        """
        self._ensure_open()
        arguments = {**task["args"], "nowait": False}
        process_pk = int(arguments["pid"])
        body = {**task, "args": arguments}
        joined = self._joined()
        if joined is not None:
            queue.send(joined, process_pk, body)
        else:
            self._with_sender(lambda connection: queue.send(connection, process_pk, body))
            self._notify({"kind": "task"})
        return _done(_done(process_pk))

    def rpc_send(self, recipient_id: Any, msg: Any) -> Future[Any]:
        """Call the process with this id wherever it runs; the future ends with its answer.

        Raises:
            kiwipy.UnroutableError: no worker runs the process now.
        """
        self._ensure_open()
        recipient = str(recipient_id)
        if recipient not in self._rpc_subscribers and self._with_sender(
            lambda connection: queue.is_waiting(connection, recipient)
        ):
            raise kiwipy.UnroutableError(f"no worker runs process {recipient} now")
        self._listening.wait(_CLOSE_SECONDS)
        call = uuid.uuid4().hex
        future: Future[Any] = Future()
        self._calls[call] = future
        future.add_done_callback(lambda _: self._calls.pop(call, None))
        self._notify({"kind": "rpc", "to": recipient, "call": call, "body": msg})
        return future

    def broadcast_send(
        self, body: Any, sender: Any = None, subject: Any = None, correlation_id: Any = None
    ) -> bool:
        """Tell every subscriber of every process; whoever does not listen now never hears it."""
        self._ensure_open()
        said = {
            "body": body,
            "sender": sender,
            "subject": subject,
            "correlation_id": correlation_id,
        }
        self._notify({"kind": "broadcast", **said})
        return True

    def add_rpc_subscriber(self, subscriber: Any, identifier: Any = None) -> Any:
        """Answer calls under an id."""
        named = identifier if identifier is None else str(identifier)
        return super().add_rpc_subscriber(subscriber, named)

    def remove_rpc_subscriber(self, identifier: Any) -> None:
        """Answer them no longer."""
        super().remove_rpc_subscriber(str(identifier))

    def add_task_subscriber(self, subscriber: Any, identifier: Any = None) -> Any:
        """Become a worker."""
        identifier = super().add_task_subscriber(subscriber, identifier)
        if self._until is None:
            self._until = self._with_sender(worker.register)
            threading.Thread(target=self._watch, name="byoc-lease", daemon=True).start()
        return identifier

    def close(self) -> None:
        """Listen no longer; a worker's tasks are due for others at once."""
        if self.is_closed():
            return
        was_worker = self._until is not None
        super().close()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)
        if was_worker:
            self._with_sender(lambda connection: queue.release(connection, worker.me()))
            self._until = None
        with self._sending:
            if self._sender is not None:
                self._sender.close()

    # The thread.

    def _run(self) -> None:
        while not self.is_closed():
            try:
                with self._connect() as connection:
                    connection.execute(notices.LISTEN)
                    self._listening.set()
                    self._serve(connection)
            except psycopg.Error as error:
                self._listening.clear()
                if self._until is not None:
                    worker.die(f"the database connection is lost: {error}")
                _LOGGER.warning("Broker connection lost event=broker_lost: %s", error)
                time.sleep(_RECONNECT_SECONDS)

    def _serve(self, connection: psycopg.Connection) -> None:
        renew_at = look_at = 0.0
        while not self.is_closed():
            now = worker.now()
            if self._until is not None and now >= renew_at:
                self._until = queue.renew(connection)
                renew_at = now + worker.LEASE_SECONDS / 3
                queue.fence_the_dead(connection)
                notices.sweep(connection)
            if self._until is not None and now >= look_at:
                self._settle(connection)
                self._claim(connection)
                look_at = now + _IDLE_SECONDS
            for notice in connection.notifies(timeout=_IDLE_SECONDS, stop_after=1):
                said = notices.read(connection, notice.payload)
                if said is not None and said["kind"] in {"task", "done"}:
                    look_at = 0.0
                elif said is not None:
                    self._hear(said)

    def _claim(self, connection: psycopg.Connection) -> None:
        for process_pk, body in queue.claim(connection, self._slots - len(self._running)):
            if str(process_pk) in self._rpc_subscribers:
                # Its task ended although it had not: what is left of it here must not go on beside a second one.
                worker.die(f"process {process_pk} was given back, and is still here")
            self._running.add(process_pk)
            future = self._begin(body)
            if future is None:
                self._ended.put(process_pk)
            else:
                future.add_done_callback(functools.partial(self._end, process_pk))

    def _begin(self, body: dict[str, Any]) -> Future[Any] | None:
        for subscriber in list(self._task_subscribers.values()):
            try:
                result = subscriber(self, body)
            except kiwipy.TaskRejected:
                continue
            except Exception:
                _LOGGER.exception("Task failed event=task_failed: %s", body)
                return None
            return notices.innermost(result)
        return None

    def _end(self, process_pk: int, _: Future[Any]) -> None:
        self._ended.put(process_pk)
        if not self.is_closed():
            self._notify({"kind": "done"})

    def _settle(self, connection: psycopg.Connection) -> None:
        while True:
            try:
                process_pk = self._ended.get_nowait()
            except Empty:
                return
            if not queue.settle(connection, process_pk):
                _LOGGER.warning("Task given back event=task_given_back process=%s", process_pk)
            self._running.discard(process_pk)

    def _hear(self, said: dict[str, Any]) -> None:
        kind = said["kind"]
        if kind == "broadcast":
            for subscriber in list(self._broadcast_subscribers.values()):
                subscriber(
                    self, said["body"], said["sender"], said["subject"], said["correlation_id"]
                )
        elif kind == "rpc" and (subscriber := self._rpc_subscribers.get(said["to"])):
            self._answer(subscriber, said)
        elif kind == "reply" and (waiting := self._calls.get(said["call"])) and not waiting.done():
            if "error" in said:
                waiting.set_exception(kiwipy.RemoteException(said["error"]))
            else:
                waiting.set_result(said["result"])

    def _answer(self, subscriber: Any, said: dict[str, Any]) -> None:
        def reply(done: Future[Any]) -> None:
            try:
                answer = {"result": done.result()}
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self._notify({"kind": "reply", "call": said["call"], **answer})

        try:
            result = notices.innermost(subscriber(self, said["body"]))
        except Exception as error:
            result = Future()
            result.set_exception(error)
        result.add_done_callback(reply)

    def _watch(self) -> None:
        while self._until is not None and not self.is_closed():
            if worker.now() > self._until:
                worker.die("the lease was not renewed in time")
            time.sleep(0.25)

    # Sending.

    def _notify(self, said: dict[str, Any]) -> None:
        self._with_sender(lambda connection: notices.write(connection, said))

    def _with_sender(self, use: Callable[[psycopg.Connection], Any]) -> Any:
        """Use the connection for sending; a worker that lost it ends, others try once more on a new one."""
        with self._sending:
            for attempt in (1, 2):
                try:
                    if self._sender is None or self._sender.closed:
                        self._sender = self._connect()
                    return use(self._sender)
                except psycopg.OperationalError as error:
                    if self._until is not None:
                        worker.die(f"the database connection is lost: {error}")
                    if attempt == 2:
                        raise
                    if self._sender is not None:
                        self._sender.close()
        raise AssertionError("unreachable")


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = kiwipy.Future()
    future.set_result(value)
    return future
