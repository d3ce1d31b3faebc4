"""Commands in, verdicts out: nothing in the envelope is trusted, and no verdict is given without the database."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent.channel import decide
from aiida_byoc.node import NodeSettings
from tests.array_faults import FAULTS
from tests.builders import KEY, cancel_body, submit_body
from tests.postgres.envelopes import COMMAND_ID, envelope, problem_of
from tests.postgres.reading import nothing_written, row, states


def test_submit_replay_inspect_and_cancel(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    first = decide(connection, settings, envelope())
    again = decide(connection, settings, envelope())
    seen = decide(connection, settings, envelope("inspect"))
    stopped = decide(connection, settings, envelope("cancel"))
    stopped_again = decide(connection, settings, envelope("cancel"))

    assert (first.outcome, again.outcome) == ("accepted", "replayed")
    assert first.acceptance == again.acceptance
    assert first.acceptance is not None
    assert seen.outcome == "answered"
    assert seen.job is not None
    assert seen.job.job.submission_id == first.acceptance.submission_id
    assert (stopped.outcome, stopped_again.outcome) == ("accepted", "replayed")
    assert stopped.cancellation is not None
    assert stopped.cancellation.status == "cancelled"
    assert states(connection, first.acceptance.submission_id) == ["accepted", "cancelled"]


def test_the_verdict_comes_after_the_commit(
    connection: psycopg.Connection, settings: NodeSettings, open_connection: Any
) -> None:
    decide(connection, settings, envelope())

    assert row(open_connection()) is not None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_array_is_refused_also_here(
    connection: psycopg.Connection, settings: NodeSettings, fault: str
) -> None:
    """The node trusts no adapter: the same field, row and column."""
    workload, field, says = FAULTS[fault]

    verdict = decide(connection, settings, envelope(body=submit_body(workload=workload)))

    assert problem_of(verdict) == "validation-failed"
    assert verdict.problem is not None
    (error,) = verdict.problem.errors
    assert error.field == field
    assert says in error.message
    assert nothing_written(connection)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tenant_id": "globex"}, "tenant-mismatch"),
        ({"body": submit_body(management_node_id="n2")}, "node-mismatch"),
        ({"job_id": "job-2"}, "validation-failed"),
        ({"idempotency_key": None}, "idempotency-key-invalid"),
        ({"body": None}, "validation-failed"),
        ({"body": {}}, "validation-failed"),
        ({"body": {**submit_body(), "surprise": 1}}, "validation-failed"),
        ({"body": submit_body(tenant_id="initech"), "tenant_id": "initech"}, "not-found"),
        ({"body": submit_body(deadline="2020-01-01T00:00:00Z")}, "command-expired"),
        ({"body": submit_body(execution_profile={"queue_name": "root"})}, "policy-refused"),
    ],
    ids=["tenant", "node", "job", "key", "no body", "empty", "field", "stranger", "late", "queue"],
)
def test_a_bad_submit_is_rejected_and_nothing_is_written(
    connection: psycopg.Connection, settings: NodeSettings, changes: dict[str, Any], problem: str
) -> None:
    assert problem_of(decide(connection, settings, envelope(**changes))) == problem
    assert nothing_written(connection)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tenant_id": "globex"}, "tenant-mismatch"),
        ({"body": cancel_body(management_node_id="n2")}, "node-mismatch"),
        ({"job_id": "job-2"}, "validation-failed"),
        ({"body": {"job_id": "job-1"}}, "validation-failed"),
    ],
    ids=["tenant", "node", "job", "junk"],
)
def test_a_bad_cancel_is_rejected_and_nothing_is_written(
    connection: psycopg.Connection, settings: NodeSettings, changes: dict[str, Any], problem: str
) -> None:
    assert problem_of(decide(connection, settings, envelope("cancel", **changes))) == problem
    assert nothing_written(connection)


def test_i7_an_inspection_sees_its_own_tenants_jobs_only(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, envelope())

    verdict = decide(connection, settings, envelope("inspect", tenant_id="globex"))

    assert problem_of(verdict) == "not-found"


@pytest.mark.parametrize("content", [None, "tenants = ["], ids=["missing", "broken"])
def test_a_node_without_a_policy_cannot_decide_but_still_remembers(
    connection: psycopg.Connection,
    settings: NodeSettings,
    content: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = decide(connection, settings, envelope())
    if content is None:
        settings.policy_file.unlink()
    else:
        settings.policy_file.write_text(content)

    other = envelope(
        job_id="job-2", idempotency_key="key-fedcba9876543210", body=submit_body(job_id="job-2")
    )
    verdict = decide(connection, settings, other)

    assert problem_of(verdict) == "node-failed"
    assert verdict.problem is not None
    assert verdict.problem.retry
    assert str(settings.policy_file) not in verdict.problem.model_dump_json()
    assert str(settings.policy_file) in caplog.text
    assert row(connection, job="job-2") is None
    assert decide(connection, settings, envelope()).acceptance == first.acceptance


def test_an_owners_change_of_the_policy_counts_at_once(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace("cpu = 4", "cpu = 1"))
    shape = {"cpu": 2, "memory_mib": 256, "walltime_seconds": 60}

    verdict = decide(connection, settings, envelope(body=submit_body(resource_shape=shape)))

    assert problem_of(verdict) == "policy-refused"
    assert verdict.problem is not None
    assert [error.field for error in verdict.problem.errors] == ["resource_shape.cpu"]


@pytest.mark.parametrize("operation", ["submit", "cancel", "inspect"])
def test_i23_for_a_tenant_that_the_policy_does_not_name_there_is_nothing(
    connection: psycopg.Connection, settings: NodeSettings, operation: str
) -> None:
    """Whatever the adapter let through: no claim, no tombstone, no view."""
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace('"acme", ', ""))

    assert problem_of(decide(connection, settings, envelope(operation))) == "not-found"
    assert row(connection) is None


def test_i23_a_tenant_that_the_policy_names_no_more_sees_nothing_but_may_stop_its_jobs(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, envelope())
    policy = settings.policy_file.read_text()
    settings.policy_file.write_text(policy.replace('"acme", ', ""))

    assert problem_of(decide(connection, settings, envelope("inspect"))) == "not-found"
    stopped = decide(connection, settings, envelope("cancel"))
    assert stopped.cancellation is not None
    assert stopped.cancellation.status == "cancelled"


@pytest.mark.parametrize("operation", ["submit", "cancel", "inspect"])
def test_without_the_database_there_is_no_verdict(
    connection: psycopg.Connection, settings: NodeSettings, open_connection: Any, operation: str
) -> None:
    """The adapter's waiter times out and the client repeats its key: a rejection would be a lie."""
    open_connection().execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    for _ in range(2):  # as it breaks, and once it is known to be broken
        with pytest.raises(psycopg.OperationalError):
            decide(connection, settings, envelope(operation))


def test_what_nobody_expected_is_logged_and_told_as_a_failure(
    connection: psycopg.Connection, settings: NodeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    connection.execute("DROP TABLE byoc.stream")

    verdict = decide(connection, settings, envelope())

    assert problem_of(verdict) == "node-failed"
    assert verdict.problem is not None
    assert "stream" not in verdict.problem.model_dump_json()
    assert "byoc.stream" in caplog.text
    assert row(connection) is None


def test_a_decision_is_logged_without_the_commands_content(
    connection: psycopg.Connection, settings: NodeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {**submit_body()["workload"], "env": {"TOKEN": "s3cret"}, "argv": ["s3cret"]}

    decide(connection, settings, envelope(body=submit_body(workload=secret)))

    assert f"command={COMMAND_ID}" in caplog.text
    assert "outcome=accepted tenant=acme job=job-1" in caplog.text
    assert "s3cret" not in caplog.text
    assert KEY not in caplog.text
