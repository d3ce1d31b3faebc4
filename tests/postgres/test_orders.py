"""I6: submit, cancel, launch and their repetitions all at once; `test_model.py` has them one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox
from tests.builders import KEY, NOW, cancel, placement, submit
from tests.postgres.conftest import Connect
from tests.postgres.jobs import served
from tests.postgres.reading import row, states, wait_for_lock

Step = Callable[[psycopg.Connection], str]
STEPS = ("submit", "submit again", "cancel", "cancel again", "launch")


def do_submit(connection: psycopg.Connection) -> str:
    try:
        _, replayed = ledger.accept(connection, submit(), KEY, place=lambda _: placement(), now=NOW)
    except ProblemError as problem:
        return problem.kind.name
    return "replayed" if replayed else "accepted"


def do_cancel(connection: psycopg.Connection) -> str:
    cancellation, _ = ledger.cancel(connection, cancel(), serve=served, now=NOW)
    return cancellation.status


def claim(connection: psycopg.Connection) -> str | None:
    """As the launcher does: lock what is accepted, and what nobody else has locked."""
    found = connection.execute(
        "SELECT submission_id::text FROM byoc.job WHERE state = 'accepted' FOR UPDATE SKIP LOCKED"
    ).fetchone()
    return found[0] if found else None


def launch(connection: psycopg.Connection, submission: str) -> None:
    launched = outbox.Report(state=ExecutionState.LAUNCHED, occurred_at=NOW)
    assert outbox.append(connection, submission, launched) is not None


def do_launch(connection: psycopg.Connection) -> str:
    with connection.transaction():
        submission = claim(connection)
        if submission is None:
            return "nothing to launch"
        launch(connection, submission)
        return "launched"


ACTIONS: dict[str, Step] = {
    "submit": do_submit,
    "submit again": do_submit,
    "cancel": do_cancel,
    "cancel again": do_cancel,
    "launch": do_launch,
}


def check_end(connection: psycopg.Connection, outcomes: dict[str, str]) -> None:
    """What everybody was told must be true of the one row that is left."""
    kept = row(connection)
    assert kept is not None
    submits = {outcomes["submit"], outcomes["submit again"]}
    cancels = {outcomes["cancel"], outcomes["cancel again"]}
    if kept["command"] is None:
        assert submits == {"job-cancelled"}
        assert cancels == {"cancelled"}
        assert outcomes["launch"] == "nothing to launch"
        return
    assert submits == {"accepted", "replayed"}
    told = states(connection, str(kept["submission_id"]))
    if outcomes["launch"] == "launched":
        assert told == ["accepted", "launched"]
        assert cancels == {"cancelling"}
        assert kept["cancel_requested_at"] is not None
    else:
        assert told == ["accepted", "cancelled"]
        assert cancels == {"cancelled"}


def test_i6_all_at_once_ends_consistent(
    open_connection: Connect, connection: psycopg.Connection
) -> None:
    connections = {step: open_connection() for step in STEPS}
    together = threading.Barrier(len(STEPS), timeout=30)

    def act(step: str) -> str:
        together.wait()
        return ACTIONS[step](connections[step])

    with ThreadPoolExecutor(len(STEPS)) as pool:
        for _ in range(40):
            outcomes = dict(zip(STEPS, pool.map(act, STEPS), strict=True))
            check_end(connection, outcomes)
            connection.execute("TRUNCATE byoc.job CASCADE")


def test_i6_a_cancel_waits_for_a_launch_under_way(
    open_connection: Connect, connection: psycopg.Connection
) -> None:
    """What it says must be true once the launch has committed: the job runs, and is to be stopped."""
    launcher, canceller = open_connection(), open_connection()
    do_submit(connection)
    with ThreadPoolExecutor(1) as pool:
        with launcher.transaction():
            submission = claim(launcher)
            assert submission is not None
            waiting = pool.submit(do_cancel, canceller)
            wait_for_lock(connection, canceller)
            launch(launcher, submission)
        assert waiting.result(timeout=30) == "cancelling"

    kept = row(connection)
    assert kept is not None
    assert states(connection, submission) == ["accepted", "launched"]
    assert kept["cancel_requested_at"] is not None
