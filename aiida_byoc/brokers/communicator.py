"""kiwipy over Postgres: tasks from the queue; calls, replies and broadcasts as notifications.

One thread per process listens, and, in a worker, claims tasks and renews the lease. Callbacks of AiiDA only schedule
work on its event loop, so they run here.
"""

from __future__ import annotations

import logging
import os
import select
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
from aiida_byoc.brokers.notices import Session
from aiida_byoc.brokers.sender import Connect, Sender
from aiida_byoc.brokers.slots import Slots

__all__ = ["PostgresCommunicator"]

_LOGGER = logging.getLogger(__name__)
_CALLS_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class PostgresCommunicator(kiwipy.CommunicatorHelper):
    """A communicator of one process.

    Args:
        connect: opens connections.
        joined: the connection of AiiDA's transaction, if one is open: a task sent then is part of it.
        slots: how many tasks this process takes on at a time, once it subscribes to tasks.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        joined: Callable[[], psycopg.Connection | None],
        slots: int,
    ) -> None:
        super().__init__()
        self._connect, self._joined = connect, joined
        self._closed: bool = False
        self._send = Sender(connect, self._lost)
        self._calls: dict[str, tuple[Future[Any], Session | None]] = {}
        self._subscriptions: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._slots = Slots(slots, begin=self._begin, is_here=self._is_here, wake=self._wake)
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="byoc-broker", daemon=True)
        self._thread.start()

    # What AiiDA calls, from any thread.

    def task_send(self, task: Any, no_reply: bool = False) -> Future[Any]:
        """Ask for a process to be continued; durable when this returns, or with the transaction that is open.

        `nowait` would let the task end before its process does; ours ends with it. The future ends now: whoever wants
        to know what became of the process asks the database.
        """
        self._ensure_open()
        arguments = {**task["args"], "nowait": False}
        process_pk = int(arguments["pid"])
        body = {**task, "args": arguments}
        joined = self._joined()
        if joined is not None:
            queue.send(joined, process_pk, body)
        else:
            self._send(lambda connection: queue.send(connection, process_pk, body))
        return _done(_done(process_pk))

    def rpc_send(self, recipient_id: Any, msg: Any) -> Future[Any]:
        """Call the process with this id wherever it runs; the future ends with its answer.

        Raises:
            kiwipy.UnroutableError: it runs nowhere now. The future has this error if it stops running before it
                has answered.
        """
        self._ensure_open()
        identifier = str(recipient_id)
        session = self._send(lambda connection: notices.recipient(connection, identifier))
        if session is None and identifier not in self._rpc_subscribers:
            raise kiwipy.UnroutableError(f"nobody runs process {identifier} now")
        self._listening.wait(_CLOSE_SECONDS)
        call = uuid.uuid4().hex
        future: Future[Any] = Future()
        self._calls[call] = (future, session)
        future.add_done_callback(lambda _: self._calls.pop(call, None))
        self._notify({"kind": "rpc", "to": identifier, "call": call, "body": msg})
        self._wake()
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
        named = super().add_rpc_subscriber(
            subscriber, identifier if identifier is None else str(identifier)
        )
        self._subscriptions.put((named, True))
        self._wake()
        return named

    def remove_rpc_subscriber(self, identifier: Any) -> None:
        """Answer them no longer."""
        self._rpc_subscribers.pop(str(identifier), None)
        self._subscriptions.put((str(identifier), False))

    def remove_broadcast_subscriber(self, identifier: Any) -> None:
        """Hear broadcasts no longer."""
        self._broadcast_subscribers.pop(identifier, None)

    def add_task_subscriber(self, subscriber: Any, identifier: Any = None) -> Any:
        """Become a worker."""
        identifier = super().add_task_subscriber(subscriber, identifier)
        if not self._slots.are_open:
            self._send(self._slots.open)
        return identifier

    def close(self) -> None:
        """Listen no longer; a worker's tasks are due for others at once."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)
        if self._slots.are_open:
            self._send(self._slots.close)
        for future, _ in list(self._calls.values()):
            future.cancel()
        self._send.close()

    # The thread.

    def _run(self) -> None:
        while not self._closed:
            try:
                with self._connect() as connection:
                    connection.execute(notices.LISTEN)
                    self._listening.set()
                    self._serve(connection)
            except Exception as error:
                self._listening.clear()
                if self._slots.are_open:
                    worker.die(f"the broker's thread cannot go on: {error}")
                _LOGGER.warning("Broker connection lost event=broker_lost: %s", error)
                time.sleep(_RECONNECT_SECONDS)

    def _serve(self, connection: psycopg.Connection) -> None:
        for identifier in list(self._rpc_subscribers):
            self._subscriptions.put((identifier, True))
        is_worker = False
        while not self._closed:
            due = worker.now() + _CALLS_SECONDS if self._calls else None
            if self._slots.are_open:
                if not is_worker:
                    worker.take_name(connection)
                    is_worker = True
                work = self._slots.step(connection)
                due = work if due is None else min(due, work)
            self._subscribe(connection)
            heard = list(connection.notifies(timeout=0))
            for notice in heard:
                self._hear(connection, notice.payload)
            if not heard:
                self._wait(connection, due)
                self._give_up_calls(connection)

    def _wait(self, connection: psycopg.Connection, due: float | None) -> None:
        """Until something is heard, somebody wakes us, or something is due."""
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        poll.poll(None if due is None else max(0.0, due - worker.now()) * 1000)
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            return

    def _wake(self) -> None:
        try:
            os.write(self._waker, b"\0")
        except BlockingIOError:
            return  # it has been told often enough

    def _subscribe(self, connection: psycopg.Connection) -> None:
        changes: dict[str, bool] = {}
        try:
            while True:
                identifier, answers = self._subscriptions.get_nowait()
                changes[identifier] = answers
        except Empty:
            if changes:
                notices.subscribe(connection, changes.items())

    def _hear(self, connection: psycopg.Connection, payload: str) -> None:
        said = notices.read(connection, payload)
        if said is None:
            return
        try:
            self._act(said)
        except Exception:  # one message, of whatever origin, is not all of them
            _LOGGER.exception("Message failed event=message_failed kind=%s", said["kind"])

    def _act(self, said: dict[str, Any]) -> None:
        kind = said["kind"]
        if kind == "task":
            self._slots.look()
        elif kind == "broadcast":
            for subscriber in list(self._broadcast_subscribers.values()):
                subscriber(
                    self, said["body"], said["sender"], said["subject"], said["correlation_id"]
                )
        elif kind == "rpc" and (subscriber := self._rpc_subscribers.get(said["to"])):
            self._answer(subscriber, said)
        elif kind == "reply" and said["call"] in self._calls:
            waiting, _ = self._calls[said["call"]]
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

    def _give_up_calls(self, connection: psycopg.Connection) -> None:
        for future, session in list(self._calls.values()):
            if session is not None and not notices.is_open(connection, session):
                future.set_exception(kiwipy.UnroutableError("nobody runs the process any more"))

    # Tasks.

    def _begin(self, body: dict[str, Any]) -> Any:
        for subscriber in list(self._task_subscribers.values()):
            try:
                return subscriber(self, body)
            except kiwipy.TaskRejected:
                continue
        raise kiwipy.TaskRejected("no subscriber takes the task")

    def _is_here(self, process_pk: int) -> bool:
        return str(process_pk) in self._rpc_subscribers

    # Sending.

    def _notify(self, said: dict[str, Any]) -> None:
        self._send(lambda connection: notices.write(connection, said))

    def _lost(self, error: Exception) -> None:
        if self._slots.are_open:
            worker.die(f"the database connection is lost: {error}")


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = kiwipy.Future()
    future.set_result(value)
    return future
