"""A command is claimed once; every repetition hears the same, everything else is refused without a trace."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from aiida_byoc.commands import ledger
from aiida_byoc.commands.placement import Placement
from aiida_byoc.contracts.commands import SubmitJobCommand
from aiida_byoc.contracts.delivery import JobAcceptance
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import KEY, NODE, NOW, placement, submit, submit_body
from tests.postgres.reading import events, nothing_written, row, stream

OTHER_KEY = "key-fedcba9876543210"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def accept(
    connection: psycopg.Connection, command: SubmitJobCommand, key: str = KEY, **options: object
) -> tuple[JobAcceptance, bool]:
    return ledger.accept(
        connection, command, key, **{"place": lambda _: placement(), "now": NOW, **options}
    )


def refused(_: SubmitJobCommand) -> Placement:
    raise ProblemError("policy-refused")


def test_a_new_command_is_claimed_with_its_first_event(connection: psycopg.Connection) -> None:
    command = submit(traceparent=f"00-{TRACE}-b7ad6b7169203331-01")

    acceptance, replayed = accept(connection, command)

    assert not replayed
    assert acceptance == JobAcceptance(
        job_id="job-1",
        submission_id=acceptance.submission_id,
        node_id=NODE,
        accepted_at=NOW,
        trace_id=TRACE,
    )
    kept = row(connection)
    assert kept is not None
    assert kept["command"] == command.model_dump(mode="json", exclude_none=True)
    assert kept["placement"] == placement().model_dump(exclude_none=True)
    (first,) = events(connection, acceptance.submission_id)
    assert first.source == f"/nodes/{NODE}"
    assert first.data.state == "accepted"
    assert first.data.trace_id == TRACE
    assert first.data.image is not None
    assert first.data.image.reference == command.container.image
    assert first.data.image.digest == placement().image_digest
    assert first.data.timings is not None
    assert first.data.timings.accepted == first.data.occurred_at == NOW
    told = stream(connection, acceptance.submission_id)
    assert (told["latest_seq"], told["acked_seq"]) == (1, 0)


def test_a_command_without_a_trace_gets_one(connection: psycopg.Connection) -> None:
    acceptance, _ = accept(connection, submit())
    other, _ = accept(connection, submit(job_id="job-2"), OTHER_KEY)

    assert len(acceptance.trace_id) == 32
    assert acceptance.trace_id != other.trace_id


def test_i4_a_repetition_hears_the_same_for_ever(connection: psycopg.Connection) -> None:
    """Also after its deadline, after the policy has changed, and observed by another trace."""
    deadline = (NOW + timedelta(hours=1)).isoformat()
    first, _ = accept(connection, submit(deadline=deadline))

    later = submit(deadline=deadline, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    again, replayed = accept(connection, later, place=refused, now=NOW + timedelta(days=400))

    assert replayed
    assert again == first
    assert len(events(connection, first.submission_id)) == 1


def test_i5_a_default_that_is_written_out_is_the_same_command(
    connection: psycopg.Connection,
) -> None:
    first, _ = accept(connection, submit())

    shape = {"cpu": 1, "memory_mib": 256, "walltime_seconds": 60, "nodes": 1}
    again, replayed = accept(
        connection, submit(resource_shape=shape, retry_policy={"max_attempts": 1, "on": []})
    )

    assert replayed
    assert again == first


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": "job-2"},
        {"workspace_id": "other"},
        {"requested_by": {"user_id": "user-2"}},
        {"resource_shape": {"cpu": 2, "memory_mib": 256, "walltime_seconds": 60}},
        {"workload": {**submit_body()["workload"], "argv": ["echo", "goodbye"]}},
        {"deadline": "2026-03-01T00:00:00Z"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_i4_a_key_used_for_another_command_is_refused_without_a_word_of_the_first(
    connection: psycopg.Connection, change: dict[str, object]
) -> None:
    secret = {**submit_body()["workload"], "argv": ["echo", "s3cret"]}
    first, _ = accept(connection, submit(workload=secret))

    with pytest.raises(ProblemError) as caught:
        accept(connection, submit(**{"workload": submit_body()["workload"], **change}))

    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (422, "idempotency-key-reused")
    said = problem.model_dump_json()
    for word in ("s3cret", "job-1", "job-2", first.submission_id, "fingerprint"):
        assert word not in said
    assert len(events(connection, first.submission_id)) == 1
    assert row(connection, job="job-2") is None


def test_a_job_id_under_a_second_key_is_a_conflict(connection: psycopg.Connection) -> None:
    first, _ = accept(connection, submit())

    with pytest.raises(ProblemError) as caught:
        accept(connection, submit(), OTHER_KEY)

    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (409, "job-id-conflict")
    kept = row(connection)
    assert kept is not None
    assert (str(kept["submission_id"]), kept["idempotency_key"]) == (first.submission_id, KEY)


def test_i7_the_keys_and_jobs_of_tenants_are_independent(connection: psycopg.Connection) -> None:
    first, _ = accept(connection, submit())

    other, replayed = accept(connection, submit(tenant_id="globex"))

    assert not replayed
    assert other.submission_id != first.submission_id
    assert [each.data.tenant_id for each in events(connection, other.submission_id)] == ["globex"]


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(-1, False), (0, False), (1, True)], ids=["past", "now", "future"]
)
def test_a_deadline_that_has_passed_is_refused(
    connection: psycopg.Connection, seconds: int, accepted: bool
) -> None:
    command = submit(deadline=(NOW + timedelta(seconds=seconds)).isoformat())

    if accepted:
        accept(connection, command)
        assert row(connection) is not None
        return
    with pytest.raises(ProblemError) as caught:
        accept(connection, command)
    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (410, "command-expired")
    assert nothing_written(connection)


def test_what_the_policy_refuses_leaves_no_trace_and_the_key_free(
    connection: psycopg.Connection,
) -> None:
    with pytest.raises(ProblemError, match="policy-refused"):
        accept(connection, submit(), place=refused)
    assert nothing_written(connection)

    _, replayed = accept(connection, submit(job_id="job-2"))
    assert not replayed


def test_the_caller_may_hold_a_transaction(connection: psycopg.Connection) -> None:
    """A refusal within it undoes itself alone; the caller's rollback undoes the claim."""
    with connection.transaction(force_rollback=True):
        accept(connection, submit())
        with pytest.raises(ProblemError):
            accept(connection, submit(job_id="job-2"))
        assert row(connection) is not None

    assert nothing_written(connection)
