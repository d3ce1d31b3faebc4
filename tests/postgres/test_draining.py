"""A draining node takes no new job, and answers everything else as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from aiida_byoc.agent.channel import decide
from aiida_byoc.commands import ledger
from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.draining import draining_since, is_draining, set_draining
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.commands.viewing import view
from aiida_byoc.contracts.delivery import Command
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.node import NodeSettings
from tests.builders import KEY, NOW, cancel, placement, submit, submit_body
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, served
from tests.postgres.reading import nothing_written, row, wait_for_lock

COMMAND_ID = "22222222-2222-4222-8222-222222222222"


def test_a_node_takes_jobs_until_it_is_told_otherwise(connection: psycopg.Connection) -> None:
    assert not is_draining(connection)
    assert not set_draining(connection, False)

    assert set_draining(connection, True)
    since = draining_since(connection)
    assert is_draining(connection)
    assert since is not None

    assert not set_draining(connection, True)
    assert draining_since(connection) == since

    assert set_draining(connection, False)
    assert not is_draining(connection)
    assert accept(connection)


def test_a_new_job_is_refused_and_leaves_no_trace(connection: psycopg.Connection) -> None:
    set_draining(connection, True)

    with pytest.raises(ProblemError) as caught:
        accept(connection)

    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (503, "node-draining")
    assert problem.retry_after is not None
    assert problem.retry_after >= 60
    assert nothing_written(connection)


def test_what_was_accepted_is_answered_launched_and_cancelled(
    connection: psycopg.Connection,
) -> None:
    command = submit()
    first, _ = ledger.accept(connection, command, KEY, place=lambda _: placement(), now=NOW)
    set_draining(connection, True)

    later = NOW + timedelta(days=1)
    again, replayed = ledger.accept(
        connection, command, KEY, place=lambda _: placement(), now=later
    )
    assert replayed
    assert again == first
    assert view(connection, "acme", "job-1").job.state == "accepted"
    with connection.transaction():
        job = next_job(connection, Limits())
        assert job is not None
        assert job["job_id"] == "job-1"
    cancellation, _ = ledger.cancel(connection, cancel(), serve=served, now=later)
    assert cancellation.status == "cancelled"


def test_a_cancel_of_an_unknown_job_is_still_recorded(connection: psycopg.Connection) -> None:
    """It wins over a submission that comes after the drain."""
    set_draining(connection, True)
    ledger.cancel(connection, cancel(), serve=served, now=NOW)
    set_draining(connection, False)

    with pytest.raises(ProblemError, match="job-cancelled"):
        accept(connection)


def test_the_verdict_carries_the_pause(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    set_draining(connection, True)
    body = submit_body()
    command = Command(
        command_id=COMMAND_ID,
        operation="submit",
        tenant_id="acme",
        job_id="job-1",
        idempotency_key=KEY,
        body=body,
    )

    verdict = decide(connection, settings, command)

    assert verdict.outcome == "rejected"
    assert verdict.problem is not None
    assert verdict.problem.type.endswith("/node-draining")
    assert verdict.problem.retry_after == 300


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"tenant_id": "hooli"}, "not-found"),
        ({"execution_profile": {"queue_name": "nowhere"}}, "policy-refused"),
    ],
    ids=["another tenant", "a command that would not be taken anyway"],
)
def test_whoever_the_node_is_not_there_for_hears_nothing_of_it(
    connection: psycopg.Connection, settings: NodeSettings, change: dict[str, object], refusal: str
) -> None:
    set_draining(connection, True)
    body = submit_body(**change)
    command = Command(
        command_id=COMMAND_ID,
        operation="submit",
        tenant_id=body["tenant_id"],
        job_id="job-1",
        idempotency_key=KEY,
        body=body,
    )

    verdict = decide(connection, settings, command)

    assert verdict.problem is not None
    assert verdict.problem.type.endswith(f"/{refusal}")


def test_nothing_is_accepted_once_the_drain_is_told(
    open_connection: Connect, connection: psycopg.Connection
) -> None:
    """It waits for the acceptance under way, which counts as before it."""
    accepting, draining = open_connection(), open_connection()
    with ThreadPoolExecutor(1) as pool:
        with accepting.transaction():
            accept(accepting, "before")
            told = pool.submit(set_draining, draining, True)
            wait_for_lock(connection, draining)
        assert told.result(timeout=30)

    assert row(connection, job="before") is not None
    with pytest.raises(ProblemError, match="node-draining"):
        accept(accepting, "after")
