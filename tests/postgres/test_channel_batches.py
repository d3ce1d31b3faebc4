"""Commands that come together are claimed together, each as if it were alone."""

from __future__ import annotations

from typing import Any

import psycopg

from aiida_byoc.agent.channel import decide, decide_all
from aiida_byoc.contracts.delivery import Command
from aiida_byoc.node import NodeSettings
from tests.builders import cancel_body, submit_body
from tests.postgres.envelopes import envelope, problem_of
from tests.postgres.reading import row, states


def numbered(number: int, **changes: Any) -> Command:
    """A submission of its own job under its own key."""
    name = f"job-{number}"
    own = {
        "job_id": name,
        "idempotency_key": f"key-0123456789abc-{number}",
        "body": submit_body(job_id=name),
    }
    return envelope(**{**own, **changes})


def told(
    connection: psycopg.Connection, settings: NodeSettings, commands: list[Command]
) -> list[str]:
    """What became of each: the outcome, or the problem."""
    decided = list(decide_all(connection, settings, commands))
    assert [command for command, _ in decided] == commands
    return [
        problem_of(verdict) if verdict.outcome == "rejected" else verdict.outcome
        for _, verdict in decided
    ]


def test_submissions_that_follow_each_other_are_one_transaction(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    assert told(connection, settings, [numbered(n) for n in range(3)]) == ["accepted"] * 3

    written = connection.execute(
        "SELECT job_id, xmin, accepted_at FROM byoc.job ORDER BY accepted_at"
    )
    jobs = written.fetchall()
    assert [name for name, _, _ in jobs] == ["job-0", "job-1", "job-2"]
    assert len({xmin for _, xmin, _ in jobs}) == 1
    assert len({moment for _, _, moment in jobs}) == 3  # the launcher takes the oldest first
    for name, _, _ in jobs:
        kept = row(connection, job=name)
        assert kept is not None
        assert states(connection, str(kept["submission_id"])) == ["accepted"]


def test_what_is_refused_in_a_batch_leaves_the_rest_alone(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    decide(connection, settings, numbered(1))
    first = numbered(2)
    commands = [
        numbered(0),
        numbered(1),  # known before
        first,
        first,  # the same again
        numbered(2, idempotency_key="key-fedcba9876543210"),  # its job
        numbered(3, idempotency_key=first.idempotency_key),  # its key
        numbered(4, body=submit_body(job_id="job-4", deadline="2020-01-01T00:00:00Z")),
        numbered(5, body={}),
        numbered(6, idempotency_key=None),
        numbered(7, body=submit_body(job_id="job-7", execution_profile={"queue_name": "root"})),
        numbered(8),
    ]

    assert told(connection, settings, commands) == [
        "accepted",
        "replayed",
        "accepted",
        "replayed",
        "job-id-conflict",
        "idempotency-key-reused",
        "command-expired",
        "validation-failed",
        "idempotency-key-invalid",
        "policy-refused",
        "accepted",
    ]
    names = connection.execute("SELECT job_id FROM byoc.job ORDER BY job_id").fetchall()
    assert [name for (name,) in names] == ["job-0", "job-1", "job-2", "job-8"]


def test_what_nobody_foresaw_fails_the_one_command_that_it_is_about(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    connection.execute("ALTER TABLE byoc.job ADD CONSTRAINT unforeseen CHECK (job_id <> 'job-1')")

    outcomes = told(connection, settings, [numbered(n) for n in range(3)])

    assert outcomes == ["accepted", "node-failed", "accepted"]
    assert row(connection, job="job-1") is None


def test_a_batch_keeps_the_order_of_its_commands(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    """A cancel that comes first wins; one that comes later finds the job."""
    early, late = (
        envelope("cancel", job_id=name, body=cancel_body(job_id=name))
        for name in ("job-0", "job-1")
    )

    assert told(connection, settings, [early, numbered(0), numbered(1), late]) == [
        "accepted",
        "job-cancelled",
        "accepted",
        "accepted",
    ]


def test_a_quota_counts_what_the_same_batch_took(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    policy = settings.policy_file
    policy.write_text(policy.read_text() + "\n[quotas]\nqueued = 2\n")

    outcomes = told(connection, settings, [numbered(n) for n in range(4)])

    assert outcomes == ["accepted", "accepted", "quota-exceeded", "quota-exceeded"]
