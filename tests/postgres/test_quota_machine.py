"""Quotas against a model of them, in whatever order Hypothesis can think of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aiida_byoc.commands import ledger
from aiida_byoc.commands.quotas import Quota, Quotas
from aiida_byoc.contracts.base import utc_now_text
from aiida_byoc.contracts.lifecycle import ExecutionState
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox
from tests.builders import NOW, cancel, placement, proof, submit
from tests.postgres.jobs import served

HOUR = 3600
TENANTS = st.sampled_from(["acme", "globex", "hooli"])
QUOTAS = Quotas(
    queued=2,
    node_hours=6,
    node_hours_days=1,
    tenants={
        "globex": Quota(running=1, queued=2, submissions_per_minute=2, node_hours=1000),
        "hooli": Quota(queued=1000, submissions_per_minute=3),
    },
)


@dataclass
class Job:
    """What must be true of an accepted job."""

    tenant: str
    name: str
    submission: str
    accepted_at: datetime
    asked: int
    nodes: int
    state: str = "accepted"
    used: float = 0
    ended_at: datetime | None = None


class QuotaMachine(RuleBasedStateMachine):
    """Tenants who submit, and a node that launches, runs and ends, while time goes on."""

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__()
        self.connection = connection
        connection.execute("TRUNCATE byoc.job CASCADE")
        self.now = NOW
        self.jobs: list[Job] = []
        self.names = 0

    def _submit(self, tenant: str, name: str, nodes: int, hours: int) -> tuple[str, bool]:
        shape = {"cpu": 1, "memory_mib": 256, "walltime_seconds": hours * HOUR, "nodes": nodes}
        acceptance, replayed = ledger.accept(
            self.connection,
            submit(tenant_id=tenant, job_id=name, resource_shape=shape),
            f"key-of-sixteen-{name}",
            place=lambda _: placement(),
            quota=QUOTAS.of,
            now=self.now,
        )
        return acceptance.submission_id, replayed

    def _exceeded(self, tenant: str, asked: int) -> str | None:
        """The first quota that one more job would exceed."""
        quota, jobs = QUOTAS.of(tenant), [job for job in self.jobs if job.tenant == tenant]
        minute, day = self.now - timedelta(minutes=1), self.now - timedelta(days=1)
        if quota.submissions_per_minute is not None:
            recent = [job for job in jobs if job.accepted_at > minute]
            if len(recent) >= quota.submissions_per_minute:
                return "submissions_per_minute"
        living = [job for job in jobs if job.ended_at is None]
        waiting = [job for job in living if quota.running or job.state == "accepted"]
        if len(waiting) >= (quota.queued or 0) + (quota.running or 0):
            return "queued"
        used = sum(job.used for job in jobs if job.ended_at is not None and job.ended_at > day)
        promised = sum(job.asked for job in living)
        return "node_hours" if used + promised + asked > (quota.node_hours or 0) * HOUR else None

    @rule(tenant=TENANTS, nodes=st.integers(1, 2), hours=st.integers(1, 2))
    def submit_one(self, tenant: str, nodes: int, hours: int) -> None:
        self.names += 1
        name, asked = f"job-{self.names}", nodes * hours * HOUR
        exceeded = self._exceeded(tenant, asked)
        if exceeded is not None:
            with pytest.raises(ProblemError, match="quota-exceeded") as caught:
                self._submit(tenant, name, nodes, hours)
            assert f"The quota {exceeded} is used up" in caught.value.detail
            assert 1 <= (caught.value.retry_after or 0) <= 24 * HOUR
            return
        submission, replayed = self._submit(tenant, name, nodes, hours)
        assert not replayed
        self.jobs.append(Job(tenant, name, submission, self.now, asked, nodes))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Whatever is used up."""
        job = data.draw(st.sampled_from(self.jobs))
        hours = job.asked // job.nodes // HOUR

        assert self._submit(job.tenant, job.name, job.nodes, hours) == (job.submission, True)

    @precondition(lambda self: any(job.ended_at is None for job in self.jobs))
    @rule(data=st.data(), minutes=st.integers(0, 240))
    def go_on(self, data: st.DataObject, minutes: int) -> None:
        """A job is launched; one that is under way ends, as its record says of its time."""
        job = data.draw(st.sampled_from([job for job in self.jobs if job.ended_at is None]))
        if job.state == "accepted":
            self._report(job, "launched")
            self._report(job, "queued")
            job.state = "queued"
            return
        started = self.now - timedelta(minutes=minutes)
        self._report(
            job, "failed", {"started": utc_now_text(started), "ended": utc_now_text(self.now)}
        )
        job.used, job.ended_at = minutes * 60.0 * job.nodes, self.now

    @precondition(lambda self: any(job.state == "accepted" for job in self.jobs))
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs if job.state == "accepted"]))
        order = cancel(tenant_id=job.tenant, job_id=job.name)
        ledger.cancel(self.connection, order, serve=served, now=self.now)
        job.state, job.ended_at = "cancelled", self.now

    @rule(seconds=st.sampled_from([1, 30, 60, 3 * HOUR, 12 * HOUR]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def _report(self, job: Job, state: str, timings: dict[str, str] | None = None) -> None:
        facts = proof(ExecutionState(state)) | ({"timings": timings} if timings else {})
        told = outbox.Report(state=ExecutionState(state), occurred_at=self.now, facts=facts)
        assert outbox.append(self.connection, job.submission, told) is not None


def test_quotas_are_as_their_model(connection: psycopg.Connection) -> None:
    run_state_machine_as_test(
        lambda: QuotaMachine(connection),
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
