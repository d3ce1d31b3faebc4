"""I9, I10: many writers, some of whom roll back; no gap, no doublet, nothing lost."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, report
from tests.postgres.reading import events, stream

WRITERS = 8
JOBS = 5
ROUNDS = 40


class ChangedItsMind(Exception):
    """Stands for whatever makes a process roll back."""


def test_i9_seq_is_contiguous_in_commit_order(
    open_connection: Connect, connection: psycopg.Connection
) -> None:
    """Each writer starts attempt after attempt of every job; a quarter of them roll back."""
    jobs = [accept(connection, f"job-{number}") for number in range(JOBS)]
    for job in jobs:
        report(connection, job, "launched")
    connections = [open_connection() for _ in range(WRITERS)]
    together = threading.Barrier(WRITERS, timeout=30)

    def write(number: int) -> list[tuple[str, int]]:
        chance = random.Random(number)  # noqa: S311  (no secret)
        committed = []
        together.wait()
        for attempt in range(2, ROUNDS + 2):
            job = chance.choice(jobs)
            back = chance.random() < 0.25
            with connections[number].transaction(force_rollback=back):
                seq = report(connections[number], job, "queued", attempt=attempt)
            if seq is not None and not back:
                committed.append((job, seq))
        return committed

    with ThreadPoolExecutor(WRITERS) as pool:
        told = [each for written in pool.map(write, range(WRITERS)) for each in written]

    assert len(told) == len(set(told)) > JOBS
    for job in jobs:
        kept = events(connection, job)
        assert [each.data.seq for each in kept][2:] == sorted(
            seq for name, seq in told if name == job
        )
        assert stream(connection, job)["latest_seq"] == len(kept)
        attempts = [each.data.attempt for each in kept]
        assert attempts == sorted(attempts)


def test_i10_a_transaction_that_idles_delays_only_its_own_job(open_connection: Connect) -> None:
    idle, busy = open_connection(), open_connection()
    first, second = accept(busy, "job-1"), accept(busy, "job-2")
    busy.execute("SET lock_timeout = '5s'")

    with idle.transaction():
        report(idle, first, "launched")
        assert report(busy, second, "launched") == 2
        assert len(events(busy, first)) == 1

    assert len(events(busy, first)) == 2
