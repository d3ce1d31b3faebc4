"""Ledger, outbox and relay against a model of them, in whatever order Hypothesis can think of."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.lifecycle import SUCCESSORS, TERMINAL, ExecutionState, may_follow
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.events import outbox
from aiida_byoc.events.relay import deliver
from tests.builders import NOW, cancel, placement, submit
from tests.postgres.jobs import report, served
from tests.postgres.product import Product
from tests.postgres.reading import events, row

S = ExecutionState
JOBS = st.sampled_from(["job-1", "job-2"])
KEYS = st.sampled_from(["key-0123456789-a", "key-0123456789-b", "key-0123456789-c"])
ATTEMPTS = st.integers(min_value=1, max_value=3)


@dataclass
class Job:
    """What must be true of a job; `told` holds its events as (state, attempt)."""

    key: str | None = None
    cpu: int = 1
    submission: str = ""
    told: list[tuple[ExecutionState, int]] = field(default_factory=list)
    held_from: ExecutionState | None = None
    cancelled: bool = False

    @property
    def state(self) -> ExecutionState | None:
        return self.told[-1][0] if self.told else None

    @property
    def attempt(self) -> int:
        return self.told[-1][1]


class LedgerMachine(RuleBasedStateMachine):
    """Everybody who writes to the node's tables, one at a time."""

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__()
        self.connection = connection
        connection.execute("TRUNCATE byoc.job CASCADE")
        self.jobs: dict[str, Job] = {}
        self.product = Product()

    @rule(job=JOBS, key=KEYS, cpu=st.integers(min_value=1, max_value=2))
    def submit(self, job: str, key: str, cpu: int) -> None:
        shape = {"cpu": cpu, "memory_mib": 256, "walltime_seconds": 60}
        refusal = self._refusal(job, key, cpu)
        try:
            acceptance, replayed = ledger.accept(
                self.connection,
                submit(job_id=job, resource_shape=shape),
                key,
                place=lambda _: placement(),
                now=NOW,
            )
        except ProblemError as problem:
            if problem.kind.name != refusal:
                raise
            return
        assert refusal is None
        assert replayed == (job in self.jobs)
        if not replayed:
            self.jobs[job] = Job(key, cpu, acceptance.submission_id, [(S.ACCEPTED, 1)])
        assert acceptance.submission_id == self.jobs[job].submission

    def _refusal(self, job: str, key: str, cpu: int) -> str | None:
        for name, known in self.jobs.items():
            if known.key == key:
                return None if (name, known.cpu) == (job, cpu) else "idempotency-key-reused"
        if job not in self.jobs:
            return None
        return "job-cancelled" if self.jobs[job].key is None else "job-id-conflict"

    @rule(job=JOBS)
    def cancel(self, job: str) -> None:
        cancellation, repeated = ledger.cancel(
            self.connection, cancel(job_id=job), serve=served, now=NOW
        )
        known = self.jobs.setdefault(job, Job())
        assert repeated == known.cancelled
        known.cancelled = True
        if known.state in TERMINAL:
            ended = "cancelled" if known.state is S.CANCELLED else "already_ended"
            assert cancellation.status == ended
            return
        at_once = known.state in {None, S.ACCEPTED}
        assert cancellation.status == ("cancelled" if at_once else "cancelling")
        if known.state is S.ACCEPTED:
            known.told.append((S.CANCELLED, 1))

    def _draw_job(self, data: st.DataObject) -> Job:
        living = [name for name, job in self.jobs.items() if job.told]
        return self.jobs[data.draw(st.sampled_from(living))]

    def _tell(self, job: Job, following: ExecutionState, attempt: int) -> None:
        assert job.state is not None
        has_place = attempt >= job.attempt and may_follow(
            job.state, following, held_from=job.held_from, new_attempt=attempt > job.attempt
        )

        seq = report(self.connection, job.submission, following, attempt=attempt)

        assert seq == (len(job.told) + 1 if has_place else None)
        if has_place:
            job.held_from = job.state if following is S.HELD else None
            job.told.append((following, attempt))

    @precondition(lambda self: any(job.told for job in self.jobs.values()))
    @rule(data=st.data(), state=st.sampled_from(sorted(S)), attempt=ATTEMPTS)
    def report_anything(self, data: st.DataObject, state: str, attempt: int) -> None:
        """News from a hook: in time, late, repeated or impossible."""
        self._tell(self._draw_job(data), ExecutionState(state), attempt)

    @precondition(lambda self: any(job.told for job in self.jobs.values()))
    @rule(data=st.data(), again=st.booleans())
    def report_progress(self, data: st.DataObject, again: bool) -> None:
        """News that have their place, more often than not."""
        job = self._draw_job(data)
        assert job.state is not None
        following = sorted(SUCCESSORS[job.state])
        if following:
            self._tell(job, data.draw(st.sampled_from(following)), job.attempt + again)

    @precondition(lambda self: any(job.told for job in self.jobs.values()))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        job = self._draw_job(data)

        seq = outbox.resume(self.connection, job.submission, NOW)

        assert (seq is not None) == (job.state is S.HELD)
        if job.held_from is not None:
            job.told.append((job.held_from, job.attempt))
            job.held_from = None

    @rule()
    def relay(self) -> None:
        deliver(self.connection, self.product)
        for job in self.jobs.values():
            assert self.product.order(job.submission) == list(range(1, len(job.told) + 1))

    @invariant()
    def the_tables_are_as_the_model(self) -> None:
        for name, job in self.jobs.items():
            kept = row(self.connection, job=name)
            assert kept is not None
            assert (kept["idempotency_key"], kept["seq"]) == (job.key, len(job.told))
            assert (kept["state"], kept["held_from"]) == (job.state, job.held_from)
            assert (kept["cancel_requested_at"] is not None) == job.cancelled
            told = events(self.connection, str(kept["submission_id"]))
            assert [(each.data.state, each.data.attempt) for each in told] == job.told
            assert not any(each.data.state in TERMINAL for each in told[:-1])


def test_i1_i6_i9_i13_ledger_and_outbox_are_as_their_model(connection: psycopg.Connection) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(connection),
        settings=settings(
            max_examples=80,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
