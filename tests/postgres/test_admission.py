"""Which accepted job is launched next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from aiida_byoc.commands.admission import next_job
from aiida_byoc.commands.housekeeping import Limits
from tests.postgres.jobs import accept, report

Connect = Callable[[], psycopg.Connection]


def launch_all(connection: psycopg.Connection, limits: Limits) -> list[str]:
    """Launch until no job has room; return the job ids in the order of their launches."""
    launched = []
    while True:
        with connection.transaction():
            job = next_job(connection, limits)
            if job is None:
                return launched
            report(connection, str(job["submission_id"]), "launched")
            launched.append(job["job_id"])


@pytest.fixture
def in_order(connection: psycopg.Connection) -> Callable[..., str]:
    """Accept jobs one second after the other."""
    accepted = 0

    def accept_next(job: str, tenant: str = "acme") -> str:
        nonlocal accepted
        accepted += 1
        submission = accept(connection, job, tenant_id=tenant)
        connection.execute(
            "UPDATE byoc.job SET accepted_at = %s WHERE submission_id = %s",
            (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=accepted), submission),
        )
        return submission

    return accept_next


def test_jobs_wait_in_order_until_others_have_ended(
    connection: psycopg.Connection, in_order: Callable[..., str]
) -> None:
    """Never more than the limit; each end admits the oldest that waits."""
    submissions = {job: in_order(job) for job in ("a", "b", "c", "d")}
    limits = Limits(active_jobs=2)

    assert launch_all(connection, limits) == ["a", "b"]
    report(connection, submissions["b"], "running")
    assert launch_all(connection, limits) == []
    report(connection, submissions["b"], "held")
    assert launch_all(connection, limits) == []
    assert report(connection, submissions["a"], "failed") is not None
    assert launch_all(connection, limits) == ["c"]


def test_a_tenant_at_its_limit_blocks_nobody(
    connection: psycopg.Connection, in_order: Callable[..., str]
) -> None:
    """Others' younger jobs pass it."""
    for job in ("a1", "a2", "a3"):
        in_order(job)
    in_order("g1", "globex")

    limits = Limits(active_jobs=10, active_jobs_per_tenant=2)

    assert launch_all(connection, limits) == ["a1", "g1", "a2"]


def test_a_deadline_counts_without_room(
    connection: psycopg.Connection, in_order: Callable[..., str]
) -> None:
    """A job that waits for room past its deadline is told so, not kept waiting."""
    in_order("a")
    late = in_order("late")
    connection.execute("UPDATE byoc.job SET deadline = now() WHERE submission_id = %s", (late,))
    limits = Limits(active_jobs=1)
    with connection.transaction():
        first = next_job(connection, limits)
        assert first is not None
        report(connection, str(first["submission_id"]), "launched")

    with connection.transaction():
        second = next_job(connection, limits)

    assert second is not None
    assert second["job_id"] == "late"


def test_two_launchers_keep_the_limit_together(
    open_connection: Connect, in_order: Callable[..., str]
) -> None:
    """While one counts and launches, the other launches nothing; after its commit it counts the launch."""
    in_order("a")
    in_order("b")
    one, other = open_connection(), open_connection()
    limits = Limits(active_jobs=1)

    with one.transaction():
        job = next_job(one, limits)
        assert job is not None
        report(one, str(job["submission_id"]), "launched")
        with other.transaction():
            assert next_job(other, limits) is None
    with other.transaction():
        assert next_job(other, limits) is None
