"""Calls and broadcasts of `byoc.postgres`: they reach whoever runs the process, or fail clearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any

import kiwipy
import psycopg
import pytest

from aiida_byoc.brokers.communicator import PostgresCommunicator
from tests.eventually import eventually
from tests.postgres.brokers import communicating

END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE application_name = 'byoc-broker' AND datname = current_database()
"""


@pytest.fixture
def communicator(storage: dict[str, Any]) -> Iterator[PostgresCommunicator]:
    """The process that calls."""
    with communicating(storage) as communicator:
        yield communicator


@pytest.fixture
def other(storage: dict[str, Any]) -> Iterator[PostgresCommunicator]:
    """The process that is called."""
    with communicating(storage) as other:
        yield other


def echo(_: Any, message: Any) -> Any:
    """Answer with the question."""
    return message


def reach(communicator: PostgresCommunicator, pk: int, message: Any = "hello") -> Future[Any]:
    """Call a process as soon as it is known."""

    def call() -> Future[Any] | None:
        try:
            return communicator.rpc_send(pk, message)
        except kiwipy.UnroutableError:
            return None

    answer = eventually(call, "the process to be known")
    assert answer is not None
    return answer


def test_a_call_reaches_the_process_wherever_it_runs(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """Question and answer may be too long for a notification."""
    other.add_rpc_subscriber(echo, 5)

    assert reach(communicator, 5, "ab" * 10_000).result(10) == "ab" * 10_000


def test_the_answer_of_a_call_may_come_later(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """AiiDA's answers are futures of futures."""
    outer: Future[Any] = Future()
    inner: Future[Any] = Future()
    other.add_rpc_subscriber(lambda *_: outer, 5)

    answer = reach(communicator, 5)
    outer.set_result(inner)
    inner.set_result(True)

    assert answer.result(10) is True


def test_an_error_of_a_call_is_its_answer(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """With its type and message; the callee goes on."""

    def fail(_: Any, message: Any) -> Any:
        raise RuntimeError(message)

    other.add_rpc_subscriber(fail, 5)

    for _ in range(2):
        with pytest.raises(kiwipy.RemoteException, match="RuntimeError: no"):
            reach(communicator, 5, "no").result(10)


def test_a_call_to_a_process_that_runs_nowhere_fails_at_once(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """Never known, or known no longer: better to know than to wait."""
    with pytest.raises(kiwipy.UnroutableError):
        communicator.rpc_send(5, {})
    other.add_rpc_subscriber(echo, 5)
    assert reach(communicator, 5).result(10) == "hello"

    other.close()

    with pytest.raises(kiwipy.UnroutableError):
        eventually(lambda: communicator.rpc_send(5, {}) is None, "the process to be gone")


def test_a_call_ends_with_the_process_that_was_called(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """Nobody waits for the answer of the dead."""
    called: Future[None] = Future()

    def never_answer(*_: Any) -> Future[Any]:
        called.set_result(None)
        return Future()

    other.add_rpc_subscriber(never_answer, 5)
    answer = reach(communicator, 5)
    called.result(10)

    other.close()

    with pytest.raises(kiwipy.UnroutableError):
        answer.result(30)


def test_who_is_no_worker_goes_on_with_new_sessions(
    connection: psycopg.Connection, communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """After a restart of the server it is known again under its ids, and can call."""
    other.add_rpc_subscriber(echo, 5)
    assert reach(communicator, 5).result(10) == "hello"

    connection.execute(END_SESSIONS)

    def answered() -> bool:
        try:
            return reach(communicator, 5).result(0.5) == "hello"
        except (NoAnswer, kiwipy.UnroutableError):
            return False

    eventually(answered, "an answer", seconds=30)


@pytest.mark.parametrize(
    "payload", ["junk", "[]", '{"kind": "rpc"}', '{"message": 1}', '{"kind": "reply", "call": 1}']
)
def test_what_others_notify_disturbs_nobody(
    connection: psycopg.Connection,
    communicator: PostgresCommunicator,
    other: PostgresCommunicator,
    payload: str,
) -> None:
    """The channel is open to everybody who may connect."""
    other.add_rpc_subscriber(echo, 5)
    assert reach(communicator, 5).result(10) == "hello"

    connection.execute("SELECT pg_notify('byoc_broker', %s)", (payload,))

    assert reach(communicator, 5).result(10) == "hello"


def test_a_broadcast_reaches_everybody(
    communicator: PostgresCommunicator, other: PostgresCommunicator
) -> None:
    """In this process and in others, with sender and subject."""
    heard: dict[str, Future[Any]] = {"here": Future(), "there": Future()}

    def hear(name: str) -> Callable[..., None]:
        def subscriber(_: Any, body: Any, sender: Any, subject: Any, correlation_id: Any) -> None:
            heard[name].set_result((body, sender, subject, correlation_id))

        return subscriber

    for name, each in {"here": communicator, "there": other}.items():
        each.add_broadcast_subscriber(hear(name))
        eventually(each._listening.is_set, "everybody to listen")

    communicator.broadcast_send(None, sender=3, subject="state_changed.a.b")

    said = {name: each.result(10) for name, each in heard.items()}
    assert said == dict.fromkeys(heard, (None, 3, "state_changed.a.b", None))
