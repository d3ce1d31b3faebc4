"""A cancel is recorded once and wins over everything that has not been launched."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import NODE, NOW, cancel
from tests.postgres.jobs import accept, report, served, walk
from tests.postgres.reading import events, nothing_written, row, states

LATER = NOW + timedelta(minutes=1)
PATHS = {
    "launched": ["launched"],
    "queued": ["launched", "queued"],
    "running": ["launched", "queued", "running"],
    "held": ["launched", "queued", "held"],
}
OTHER_KEY = "key-fedcba9876543210"
TO_LAUNCH = "SELECT count(*) FROM byoc.job WHERE state = 'accepted'"


def refused(_: object) -> None:
    raise ProblemError("not-found")


def test_i6_a_cancel_before_its_submit_refuses_the_submit(connection: psycopg.Connection) -> None:
    cancellation, repeated = ledger.cancel(connection, cancel(), serve=served, now=NOW)
    assert (cancellation.status, cancellation.requested_at, repeated) == ("cancelled", NOW, False)
    assert cancellation.node_id == NODE

    with pytest.raises(ProblemError) as caught:
        accept(connection)
    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (409, "job-cancelled")
    kept = row(connection)
    assert kept is not None
    assert (kept["state"], kept["command"]) == (None, None)
    assert connection.execute("SELECT count(*) FROM byoc.event").fetchone() == (0,)


def test_i6_a_job_that_was_not_launched_ends_at_once(connection: psycopg.Connection) -> None:
    submission = accept(connection)

    cancellation, repeated = ledger.cancel(
        connection, cancel(reason="no longer needed"), serve=served, now=LATER
    )

    assert (cancellation.status, repeated) == ("cancelled", False)
    _, last = events(connection, submission)
    assert (last.data.state, last.data.reason) == ("cancelled", "no longer needed")
    assert last.data.occurred_at == LATER
    assert connection.execute(TO_LAUNCH).fetchone() == (0,)
    assert report(connection, submission, "launched") is None


@pytest.mark.parametrize("state", PATHS)
def test_a_job_under_way_is_being_cancelled(connection: psycopg.Connection, state: str) -> None:
    """The intent is kept for the launcher; the end is told when it has come."""
    submission = accept(connection)
    walk(connection, submission, *PATHS[state])

    cancellation, _ = ledger.cancel(connection, cancel(reason="enough"), serve=served, now=LATER)

    assert (cancellation.status, cancellation.requested_at) == ("cancelling", LATER)
    kept = row(connection)
    assert kept is not None
    assert (kept["state"], kept["cancel_requested_at"]) == (state, LATER)
    assert kept["cancel_reason"] == "enough"
    assert states(connection, submission)[-1] == state


@pytest.mark.parametrize("known", [False, True], ids=["unknown job", "accepted job"])
def test_a_repeated_cancel_hears_the_same(connection: psycopg.Connection, known: bool) -> None:
    if known:
        accept(connection)
    first, _ = ledger.cancel(connection, cancel(reason="first"), serve=served, now=NOW)

    again, repeated = ledger.cancel(connection, cancel(reason="second"), serve=served, now=LATER)

    assert repeated
    assert again == first
    kept = row(connection)
    assert kept is not None
    assert (kept["cancel_requested_at"], kept["cancel_reason"]) == (NOW, "first")
    assert kept["seq"] == (2 if known else 0)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_cancel_after_the_end_keeps_only_its_time(
    connection: psycopg.Connection, state: str
) -> None:
    """The end stays what it was; a repetition hears the same."""
    submission = accept(connection)
    walk(connection, submission, "launched", "queued", state)

    first, new = ledger.cancel(connection, cancel(), serve=served, now=NOW)
    again, repeated = ledger.cancel(connection, cancel(), serve=served, now=LATER)

    assert (first.status, first.requested_at, new) == ("already_ended", NOW, False)
    assert (again, repeated) == (first, True)
    assert states(connection, submission) == ["accepted", "launched", "queued", state]


def test_a_cancel_that_the_end_overtook_keeps_its_time(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched")
    ledger.cancel(connection, cancel(), serve=served, now=NOW)
    walk(connection, submission, "cancelled")

    again, repeated = ledger.cancel(connection, cancel(), serve=served, now=LATER)

    assert (again.status, again.requested_at, repeated) == ("cancelled", NOW, True)


def test_a_job_of_another_workspace_is_not_there(connection: psycopg.Connection) -> None:
    submission = accept(connection)

    with pytest.raises(ProblemError) as caught:
        ledger.cancel(connection, cancel(workspace_id="other"), serve=served, now=LATER)

    assert caught.value.kind.name == "not-found"
    assert "other" not in str(caught.value)
    assert states(connection, submission) == ["accepted"]
    kept = row(connection)
    assert kept is not None
    assert kept["cancel_requested_at"] is None


def test_a_cancel_from_another_workspace_buries_nothing(connection: psycopg.Connection) -> None:
    """Nobody knows the workspace of an unknown job; only the one that was named is refused later."""
    foreign, _ = ledger.cancel(connection, cancel(workspace_id="other"), serve=served, now=NOW)
    submission = accept(connection)

    again, repeated = ledger.cancel(
        connection, cancel(workspace_id="other"), serve=served, now=LATER
    )

    assert (again, repeated) == (foreign, True)
    assert states(connection, submission) == ["accepted"]
    with pytest.raises(ProblemError, match="job-cancelled"):
        accept(connection, key=OTHER_KEY, workspace_id="other")
    own, _ = ledger.cancel(connection, cancel(), serve=served, now=LATER)
    assert (own.status, own.requested_at) == ("cancelled", LATER)
    assert states(connection, submission) == ["accepted", "cancelled"]


def test_each_workspace_has_its_own_tombstone(connection: psycopg.Connection) -> None:
    for workspace in ("lab", "other"):
        cancellation, repeated = ledger.cancel(
            connection, cancel(workspace_id=workspace), serve=served, now=NOW
        )
        assert (cancellation.status, repeated) == ("cancelled", False)

    for workspace in ("lab", "other"):
        with pytest.raises(ProblemError, match="job-cancelled"):
            accept(connection, workspace_id=workspace)


def test_a_tenant_that_is_not_served_leaves_no_tombstone(connection: psycopg.Connection) -> None:
    with pytest.raises(ProblemError, match="not-found"):
        ledger.cancel(connection, cancel(), serve=refused, now=NOW)

    assert nothing_written(connection)


def test_a_tenant_that_is_served_no_more_may_stop_its_jobs(connection: psycopg.Connection) -> None:
    submission = accept(connection)

    cancellation, _ = ledger.cancel(connection, cancel(), serve=refused, now=LATER)

    assert cancellation.status == "cancelled"
    assert states(connection, submission) == ["accepted", "cancelled"]


def test_i7_a_cancel_of_another_tenant_touches_only_its_own(
    connection: psycopg.Connection,
) -> None:
    submission = accept(connection)

    cancellation, _ = ledger.cancel(connection, cancel(tenant_id="globex"), serve=served, now=LATER)

    assert cancellation.status == "cancelled"
    assert states(connection, submission) == ["accepted"]
    tombstone = row(connection, tenant="globex")
    assert tombstone is not None
    assert tombstone["command"] is None


def test_the_callers_rollback_leaves_no_tombstone(connection: psycopg.Connection) -> None:
    with connection.transaction(force_rollback=True):
        ledger.cancel(connection, cancel(), serve=served, now=NOW)

    assert nothing_written(connection)
