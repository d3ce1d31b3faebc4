"""What a tenant may have of the node: counted in the transaction that accepts, so that nobody slips through."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent.channel import decide
from aiida_byoc.commands import allowance, ledger
from aiida_byoc.commands.quotas import Quota
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.delivery import Command, JobAcceptance
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.node import NodeSettings
from tests.builders import KEY, NOW, POLICY, cancel, placement, submit, submit_body
from tests.postgres.conftest import Connect
from tests.postgres.jobs import report, served, walk
from tests.postgres.reading import nothing_written, row, wait_for_lock

HOUR = 3600


def accept(
    connection: psycopg.Connection,
    job: str,
    quota: Quota,
    *,
    key: str | None = None,
    now: datetime = NOW,
    nodes: int = 1,
    walltime: int = 60,
    **command: Any,
) -> tuple[JobAcceptance, bool]:
    shape = {"cpu": 1, "memory_mib": 256, "walltime_seconds": walltime, "nodes": nodes}
    return ledger.accept(
        connection,
        submit(job_id=job, resource_shape=shape, **command),
        key or f"key-of-sixteen-{job}",
        place=lambda _: placement(),
        quota=lambda _: quota,
        now=now,
    )


def refused(connection: psycopg.Connection, job: str, quota: Quota, **how: Any) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        accept(connection, job, quota, **how)
    problem = caught.value.problem()
    assert (problem.status, problem.type.rpartition("/")[2]) == (429, "quota-exceeded")
    assert problem.retry
    assert problem.retry_after is not None
    assert row(connection, job=job) is None
    return caught.value


def ran(connection: psycopg.Connection, submission: str, hours: float, state: str) -> None:
    """The job's end, with what its record says of its time."""
    timings = {
        "started": utc_now_text(NOW - timedelta(hours=hours)),
        "ended": utc_now_text(NOW),
    }
    assert report(connection, submission, state, facts={"timings": timings}) is not None


def used(connection: psycopg.Connection) -> list[tuple[int, float]]:
    """Attempts and node hours."""
    found = connection.execute("SELECT attempt, node_seconds FROM byoc.usage ORDER BY attempt")
    return [(attempt, seconds / HOUR) for attempt, seconds in found]


def test_so_many_may_wait(connection: psycopg.Connection) -> None:
    quota = Quota(queued=2)
    first, _ = accept(connection, "a", quota)
    accept(connection, "b", quota)

    detail = refused(connection, "c", quota).detail
    assert detail == "The quota queued is used up: 2 jobs wait, the node's policy allows 2."

    report(connection, first.submission_id, "launched")
    accept(connection, "c", quota)


def test_with_a_bound_for_those_under_way_both_count_together(
    connection: psycopg.Connection,
) -> None:
    """A burst is taken as if the launcher had already begun with it."""
    quota = Quota(running=2, queued=1)
    accepted = [accept(connection, job, quota)[0].submission_id for job in ("a", "b", "c")]

    detail = refused(connection, "d", quota).detail
    assert "queued" in detail
    assert "3 jobs have not ended, the node's policy allows 2 under way and 1 that wait" in detail

    for submission in accepted[:2]:
        walk(connection, submission, "launched", "queued")
    refused(connection, "d", quota)
    report(connection, accepted[0], "succeeded")
    accept(connection, "d", quota)


def test_those_under_way_alone_refuse_nothing(connection: psycopg.Connection) -> None:
    for job in ("a", "b", "c"):
        accept(connection, job, Quota(running=1))


def test_a_cancelled_job_makes_room(connection: psycopg.Connection) -> None:
    quota = Quota(queued=1)
    accept(connection, "a", quota)
    refused(connection, "b", quota)

    ledger.cancel(connection, cancel(job_id="a"), serve=served, now=NOW)

    accept(connection, "b", quota)


def test_a_cancel_of_an_unknown_job_takes_no_place(connection: psycopg.Connection) -> None:
    ledger.cancel(connection, cancel(job_id="x"), serve=served, now=NOW)

    accept(connection, "a", Quota(queued=1, submissions_per_minute=1))


def test_so_many_a_minute(connection: psycopg.Connection) -> None:
    """The pause that is told is the right one: a second less is too little."""
    quota = Quota(submissions_per_minute=2)
    accept(connection, "a", quota, now=NOW)
    accept(connection, "b", quota, now=NOW + timedelta(seconds=20))

    error = refused(connection, "c", quota, now=NOW + timedelta(seconds=25))
    assert "submissions_per_minute" in error.detail
    assert error.retry_after == 35
    refused(connection, "c", quota, now=NOW + timedelta(seconds=59))
    accept(connection, "c", quota, now=NOW + timedelta(seconds=60))
    assert refused(connection, "d", quota, now=NOW + timedelta(seconds=61)).retry_after == 19


def test_node_hours_are_what_ran_and_what_is_asked_for(connection: psycopg.Connection) -> None:
    quota = Quota(node_hours=10, node_hours_days=30)
    first, _ = accept(connection, "a", quota, nodes=2, walltime=4 * HOUR)

    error = refused(connection, "b", quota, walltime=3 * HOUR)
    assert error.detail == (
        "The quota node_hours is used up: 0.00 node hours ran in the last 30 days, 8.00 are asked for by jobs that"
        " have not ended and 3.00 by this one, the node's policy allows 10."
    )
    assert error.retry_after == 3600
    accept(connection, "b", quota, walltime=2 * HOUR)

    walk(connection, first.submission_id, "launched", "queued", "running")
    ran(connection, first.submission_id, 0.5, "succeeded")
    assert used(connection) == [(1, 1.0)]
    accept(connection, "c", quota, walltime=7 * HOUR)
    refused(connection, "d", quota)


def test_what_ran_leaves_the_window(connection: psycopg.Connection) -> None:
    quota = Quota(node_hours=2, node_hours_days=1)
    first, _ = accept(connection, "a", quota, walltime=2 * HOUR)
    walk(connection, first.submission_id, "launched", "queued", "running")
    ran(connection, first.submission_id, 2, "failed")

    error = refused(connection, "b", quota, now=NOW + timedelta(hours=23))
    assert error.retry_after == HOUR
    accept(connection, "b", quota, now=NOW + timedelta(hours=24))


def test_a_job_that_never_ran_used_nothing(connection: psycopg.Connection) -> None:
    quota = Quota(node_hours=1, node_hours_days=1)
    first, _ = accept(connection, "a", quota, walltime=HOUR)
    walk(connection, first.submission_id, "launched", "queued", "cancelled")

    assert used(connection) == []
    accept(connection, "b", quota, walltime=HOUR)


def test_every_attempt_counts(connection: psycopg.Connection) -> None:
    """One that left no record by what was seen of it: running, then another attempt in the queue."""
    first, _ = accept(connection, "a", Quota(), nodes=3)
    walk(connection, first.submission_id, "launched", "queued", "running")
    connection.execute(
        "UPDATE byoc.event SET occurred_at = occurred_at - interval '2 hours'"
        " WHERE body #>> '{data,state}' = 'running'"
    )
    assert report(connection, first.submission_id, "queued", attempt=2) is not None
    assert used(connection) == [(1, 6.0)]
    report(connection, first.submission_id, "running", attempt=2)
    ran(connection, first.submission_id, 1, "failed")

    assert used(connection) == [(1, 6.0), (2, 3.0)]


def test_a_repetition_is_never_refused(connection: psycopg.Connection) -> None:
    """Nor is it told of a quota where something else is wrong with it."""
    quota = Quota(queued=1, submissions_per_minute=1, node_hours=0.02, node_hours_days=1)
    first, _ = accept(connection, "a", quota)
    refused(connection, "b", quota)

    again, replayed = accept(connection, "a", quota)
    assert replayed
    assert again == first
    with pytest.raises(ProblemError, match="job-id-conflict"):
        accept(connection, "a", quota, key=KEY)
    with pytest.raises(ProblemError, match="idempotency-key-reused"):
        accept(connection, "c", quota, key="key-of-sixteen-a")


def test_tenants_do_not_share_their_quotas_nor_hear_of_each_other(
    connection: psycopg.Connection,
) -> None:
    quota = Quota(queued=1, submissions_per_minute=1, node_hours=0.02, node_hours_days=1)
    accept(connection, "a", quota, tenant_id="globex")

    accept(connection, "a", quota)
    for bound in ("queued", "submissions_per_minute", "node_hours"):
        only = Quota(**{bound: getattr(quota, bound), "node_hours_days": 1})
        said = refused(connection, "b", only).problem().model_dump_json()
        assert f"The quota {bound} is used up" in said
        assert "globex" not in said


def test_two_never_take_the_last_place(
    open_connection: Connect, connection: psycopg.Connection
) -> None:
    """Thirty submissions for ten places, of two tenants at once, twice."""
    threads, places = 30, 10
    connections = [open_connection() for _ in range(threads)]
    for bound in (Quota(queued=places), Quota(submissions_per_minute=places)):
        connection.execute("TRUNCATE byoc.job CASCADE")
        together = threading.Barrier(threads, timeout=30)

        def claim(
            number: int, bound: Quota = bound, together: threading.Barrier = together
        ) -> tuple[str, str]:
            tenant = ("acme", "globex")[number % 2]
            together.wait()
            for job in range(places + 1):  # one thread alone may take all the places
                try:
                    accept(connections[number], f"j-{number}-{job}", bound, tenant_id=tenant)
                except ProblemError as problem:
                    return tenant, problem.kind.name
            return tenant, "accepted all"

        with ThreadPoolExecutor(threads) as pool:
            ends = set(pool.map(claim, range(threads)))

        assert ends == {("acme", "quota-exceeded"), ("globex", "quota-exceeded")}
        counts = connection.execute(
            "SELECT tenant_id, count(*) FROM byoc.job GROUP BY tenant_id ORDER BY tenant_id"
        )
        assert counts.fetchall() == [("acme", places), ("globex", places)]


def test_copies_of_one_submission_share_the_last_place(open_connection: Connect) -> None:
    """Whoever comes second finds the place taken by itself."""
    threads = 20
    connections = [open_connection() for _ in range(threads)]
    together = threading.Barrier(threads, timeout=30)

    def claim(number: int) -> tuple[str, bool]:
        together.wait()
        acceptance, replayed = accept(connections[number], "a", Quota(queued=1))
        return acceptance.submission_id, replayed

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(claim, range(threads)))

    assert len({submission for submission, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1


def test_who_has_no_such_quota_waits_for_nobody(open_connection: Connect) -> None:
    holding, free, other, bounded, watcher = (open_connection() for _ in range(5))
    with ThreadPoolExecutor(1) as pool:
        with holding.transaction():
            allowance.one_at_a_time(holding, "acme")
            accept(free, "free", Quota(running=1))
            accept(other, "other", Quota(queued=1), tenant_id="globex")
            waiting = pool.submit(accept, bounded, "bounded", Quota(queued=9))
            wait_for_lock(watcher, bounded)
        _, replayed = waiting.result(timeout=30)

    assert not replayed


def test_the_policy_is_asked_and_the_verdict_tells(
    connection: psycopg.Connection, settings: NodeSettings
) -> None:
    def verdict(tenant: str, number: int) -> tuple[str, str]:
        body = submit_body(tenant_id=tenant, job_id=f"job-{number}")
        command = Command(
            command_id="22222222-2222-4222-8222-222222222222",
            operation="submit",
            tenant_id=tenant,
            job_id=f"job-{number}",
            idempotency_key=f"{KEY}-{number}",
            body=body,
        )
        given = decide(connection, settings, command)
        return given.outcome, given.problem.type.rpartition("/")[2] if given.problem else ""

    settings.policy_file.write_text(
        f"{POLICY}\n[quotas]\nqueued = 1\n\n[quotas.tenants.globex]\nqueued = 2\nnode_hours = 0.001\n"
    )
    assert verdict("acme", 1) == ("accepted", "")
    assert verdict("acme", 2) == ("rejected", "quota-exceeded")
    assert verdict("globex", 1) == ("rejected", "policy-refused")
    settings.policy_file.write_text(f"{POLICY}\n[quotas.tenants.globex]\nqueued = 2\n")
    assert verdict("acme", 2) == ("accepted", "")
    assert [verdict("globex", number)[0] for number in (1, 2, 3)] == [
        "accepted",
        "accepted",
        "rejected",
    ]


def test_what_an_input_refuses_later_takes_no_place(connection: psycopg.Connection) -> None:
    workload = {
        **submit_body()["workload"],
        "inputs": [{"name": "x", "job": {"job_id": "nobody", "output": "y"}}],
    }
    with pytest.raises(ProblemError, match="input-not-found"):
        accept(connection, "a", Quota(queued=1), workload=workload)

    assert nothing_written(connection)
    accept(connection, "a", Quota(queued=1))
