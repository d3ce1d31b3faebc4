"""State and event are one write; what the life cycle has no place for leaves no trace."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.lifecycle import SUCCESSORS, TERMINAL, ExecutionState
from aiida_byoc.events import outbox
from tests.builders import DIGEST, NOW, cancel
from tests.postgres.jobs import accept, report, served, walk
from tests.postgres.reading import events, row, states, stream

PATHS = {
    "accepted": [],
    "launched": ["launched"],
    "queued": ["launched", "queued"],
    "running": ["launched", "queued", "running"],
    "held": ["launched", "queued", "held"],
    "succeeded": ["launched", "queued", "succeeded"],
    "failed": ["failed"],
    "cancelled": ["cancelled"],
}
UUID = "22222222-2222-4222-8222-222222222222"


def possible(current: str, following: str) -> bool:
    """The life cycle, for reports of the attempt under way that bring nothing new."""
    if current == following == "running":
        return False
    if current == "held":
        return following in {"queued", *TERMINAL}
    if following == "queued":
        return current == "launched"
    return following in SUCCESSORS[ExecutionState(current)]


@pytest.mark.parametrize("current", PATHS)
def test_i13_only_what_may_follow_is_told(connection: psycopg.Connection, current: str) -> None:
    """Repetitions after a crash, late news and anything after the end are dropped whole."""
    submission = accept(connection)
    walk(connection, submission, *PATHS[current])
    told = ["accepted", *PATHS[current]]
    before = (row(connection), stream(connection, submission))

    for following in (state.value for state in ExecutionState):
        with connection.transaction(force_rollback=True):
            seq = report(connection, submission, following)
            if possible(current, following):
                assert seq == len(told) + 1
                assert states(connection, submission) == [*told, following]
                kept = row(connection)
                assert kept is not None
                assert (kept["state"], kept["seq"]) == (following, seq)
                assert stream(connection, submission)["latest_seq"] == seq
            else:
                assert seq is None, following
                assert states(connection, submission) == told
                assert (row(connection), stream(connection, submission)) == before


def test_every_event_carries_the_full_state(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    report(connection, submission, "launched", facts={"execution_id": UUID})
    queued = {"scheduler": {"job_id": "17", "name": "b-1", "wait_reason": "Priority"}}
    queued["timings"] = {"queued": "2026-02-15T10:00:01.000Z"}
    report(connection, submission, "queued", facts=queued)
    report(connection, submission, "running", facts={"scheduler": {"nodes": ["c1"]}})
    ended = {
        "timings": {"started": "2026-02-15T10:00:02.000Z", "ended": "2026-02-15T10:00:03.000Z"},
        "result": {"exit_code": 0, "outputs": [{"name": "a", "size": 1, "sha256": "a" * 64}]},
    }
    report(connection, submission, "succeeded", facts=ended)

    accepted, launched, queued_, running, succeeded = events(connection, submission)
    assert accepted.data.execution_id is None
    assert launched.data.execution_id == queued_.data.execution_id == UUID
    assert queued_.data.scheduler is not None
    assert queued_.data.scheduler.nodes is None
    data = succeeded.wire()["data"]
    assert data["execution_id"] == UUID
    assert data["image"] == accepted.wire()["data"]["image"]
    assert data["scheduler"] == running.wire()["data"]["scheduler"]
    assert data["scheduler"] == {**queued["scheduler"], "nodes": ["c1"]}
    assert sorted(data["timings"]) == ["accepted", "ended", "queued", "started"]
    assert data["result"] == ended["result"]


def test_a_new_wait_reason_is_told_once(connection: psycopg.Connection) -> None:
    """While the job waits; the same reason again is a repetition after a crash."""
    submission = accept(connection)
    walk(connection, submission, "launched")

    def wait(reason: str) -> int | None:
        facts = {"scheduler": {"job_id": "17", "wait_reason": reason}}
        return report(connection, submission, "queued", attempt=1, facts=facts)

    told = [wait(reason) for reason in ("Priority", "Priority", "Resources", "Resources")]
    report(connection, submission, "running", attempt=1)

    assert told == [3, None, 4, None]
    assert wait("Priority") is None
    assert events(connection, submission)[3].wire()["data"]["scheduler"] == {
        "job_id": "17",
        "wait_reason": "Resources",
    }


def test_new_progress_is_told_once(connection: psycopg.Connection) -> None:
    """While the job runs, and in every event until a new attempt; it takes a job nowhere by itself."""
    submission = accept(connection)

    def tell(state: str, step: int, attempt: int = 1) -> int | None:
        facts = {"progress": {"step": step, "reported_at": "2026-02-15T10:00:01.000Z"}}
        return report(connection, submission, state, attempt=attempt, facts=facts)

    walk(connection, submission, "launched", "queued")
    assert tell("queued", 1) is None
    walk(connection, submission, "running")
    told = [tell("running", step) for step in (1, 1, 2, 2)]
    walk(connection, submission, "held")
    assert tell("held", 3) is None
    walk(connection, submission, "running")
    report(connection, submission, "queued", attempt=2)
    assert tell("running", 3, attempt=1) is None
    report(connection, submission, "running", attempt=2)

    steps = [
        each.data.progress.step if each.data.progress else 0
        for each in events(connection, submission)
    ]
    assert told == [5, None, 6, None]
    assert steps == [0, 0, 0, 0, 1, 2, 2, 2, 0, 0]


def test_a_new_attempt_forgets_the_last_one(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched")
    first = {
        "scheduler": {"job_id": "17", "nodes": ["c1"]},
        "timings": {"queued": "2026-02-15T10:00:01.000Z"},
        "error": {"code": "oom", "message": "out of memory", "retryable": True},
        "result": {"exit_code": 137},
    }
    report(connection, submission, "queued", attempt=1, facts=first)
    report(connection, submission, "running", attempt=1)

    cause = {"attempt": 1, "code": "oom", "message": "out of memory", "action": "starts anew"}
    again = report(
        connection,
        submission,
        "queued",
        attempt=2,
        facts={"scheduler": {"job_id": "18"}, "recovery": cause},
    )

    assert again == 5
    data = events(connection, submission)[-1].wire()["data"]
    assert (data["attempt"], data["state"]) == (2, "queued")
    assert data["image"]["digest"] == DIGEST
    assert data["scheduler"] == {"job_id": "18"}
    assert sorted(data["timings"]) == ["accepted"]
    assert not {"error", "result"} & data.keys()
    assert data["recovery"] == cause


def test_the_cause_of_an_attempt_stays_with_all_its_events(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched", "queued")
    cause = {"attempt": 1, "code": "oom", "message": "out of memory", "action": "starts anew"}
    report(connection, submission, "queued", attempt=2, facts={"recovery": cause})
    report(connection, submission, "running", attempt=2)
    report(connection, submission, "queued", attempt=3)

    told = [each.wire()["data"].get("recovery") for each in events(connection, submission)]

    assert told == [None, None, None, cause, cause, None]


def test_late_news_of_an_attempt_that_is_over_are_dropped(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched", "queued")
    assert report(connection, submission, "queued", attempt=2) == 4

    for late in ("running", "succeeded", "failed", "held"):
        assert report(connection, submission, late, attempt=1) is None
    assert report(connection, submission, "running", attempt=2) == 5
    assert [each.data.attempt for each in events(connection, submission)] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("origin", ["launched", "queued", "running"])
def test_a_held_job_returns_to_where_it_was(connection: psycopg.Connection, origin: str) -> None:
    submission = accept(connection)
    walk(connection, submission, *PATHS[origin], "held")
    held = events(connection, submission)[-1]
    assert held.data.reason == "the transport is down"

    for wrong in {"launched", "queued", "running"} - {origin}:
        assert report(connection, submission, wrong) is None
    seq = outbox.resume(connection, submission, NOW)

    assert seq == held.data.seq + 1
    resumed = events(connection, submission)[-1]
    assert (resumed.data.state, resumed.data.reason) == (origin, None)
    assert outbox.resume(connection, submission, NOW) is None
    kept = row(connection)
    assert kept is not None
    assert kept["held_from"] is None


def test_a_job_can_be_held_again(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, *PATHS["queued"], "held", "queued", "running", "held", "running")

    assert states(connection, submission)[-2:] == ["held", "running"]


def test_a_long_reason_is_cut_and_told_all_the_same(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    walk(connection, submission, "launched")
    told = outbox.Report(state=ExecutionState.HELD, occurred_at=NOW, reason="x" * 5000)

    assert outbox.append(connection, submission, told) == 3
    assert events(connection, submission)[-1].data.reason == "x" * 2000


def test_an_event_keeps_its_time_and_identity(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    when = NOW + timedelta(seconds=1, milliseconds=5)
    launched = outbox.Report(state=ExecutionState.LAUNCHED, occurred_at=when)
    outbox.append(connection, submission, launched)

    first, second = events(connection, submission)
    assert first.id != second.id
    assert second.time == second.data.occurred_at == when
    assert (second.subject, second.data.trace_id) == ("job-1", first.data.trace_id)


def test_a_report_that_is_no_valid_event_is_an_error_and_leaves_nothing(
    connection: psycopg.Connection,
) -> None:
    submission = accept(connection)
    walk(connection, submission, *PATHS["queued"])
    unproven = outbox.Report(state=ExecutionState.SUCCEEDED, occurred_at=NOW)

    with pytest.raises(ValueError, match="succeeded needs a result"):
        outbox.append(connection, submission, unproven)
    assert states(connection, submission) == ["accepted", "launched", "queued"]


def test_the_callers_rollback_takes_state_and_event(connection: psycopg.Connection) -> None:
    submission = accept(connection)
    with connection.transaction(force_rollback=True):
        walk(connection, submission, "launched", "queued")

    assert states(connection, submission) == ["accepted"]
    assert stream(connection, submission)["latest_seq"] == 1
    walk(connection, submission, "launched")
    assert states(connection, submission) == ["accepted", "launched"]


def test_a_tombstone_has_no_life(connection: psycopg.Connection) -> None:
    ledger.cancel(connection, cancel(), serve=served, now=NOW)
    tombstone = row(connection)
    assert tombstone is not None

    for state in ExecutionState:
        assert report(connection, str(tombstone["submission_id"]), state) is None
    assert connection.execute("SELECT count(*) FROM byoc.event").fetchone() == (0,)


def test_a_job_that_is_not_in_the_ledger_is_an_error(connection: psycopg.Connection) -> None:
    with pytest.raises(LookupError, match=UUID):
        report(connection, UUID, "launched")
    assert outbox.resume(connection, UUID, NOW) is None
