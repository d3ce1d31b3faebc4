"""Many claim the same at the same moment: one wins, and nobody goes without an answer."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import psycopg

from aiida_byoc.commands import ledger
from aiida_byoc.contracts.delivery import JobAcceptance
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import NOW, placement, submit
from tests.postgres.conftest import Connect
from tests.postgres.reading import events, wait_for_lock

THREADS = 40
KEYS = 30
START_SECONDS = 30


def test_i1_one_claim_per_key(open_connection: Connect, connection: psycopg.Connection) -> None:
    """40 threads submit the same 30 commands in 40 orders: one row and one first event each, all answered alike."""
    connections = [open_connection() for _ in range(THREADS)]
    together = threading.Barrier(THREADS, timeout=START_SECONDS)

    def submit_all(number: int) -> dict[int, tuple[JobAcceptance, bool]]:
        order = random.Random(number).sample(range(KEYS), KEYS)  # noqa: S311  (no secret)
        together.wait()
        return {
            key: ledger.accept(
                connections[number],
                submit(job_id=f"job-{key}"),
                f"key-of-sixteen-{key:02}",
                place=lambda _: placement(),
                now=NOW,
            )
            for key in order
        }

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(submit_all, range(THREADS)))

    by_key: dict[int, list[tuple[JobAcceptance, bool]]] = defaultdict(list)
    for answer in answers:
        for key, verdict in answer.items():
            by_key[key].append(verdict)
    for verdicts in by_key.values():
        assert len(verdicts) == THREADS
        assert len({acceptance.submission_id for acceptance, _ in verdicts}) == 1
        assert sum(not replayed for _, replayed in verdicts) == 1
        told = events(connection, verdicts[0][0].submission_id)
        assert [each.data.state for each in told] == ["accepted"]
    rows = connection.execute("SELECT count(*) FROM byoc.job").fetchone()
    assert rows == (KEYS,)


def test_i1_one_key_for_one_job(open_connection: Connect, connection: psycopg.Connection) -> None:
    """Twenty keys race for one job_id: one gets it, the others hear of the conflict."""
    count = 20
    connections = [open_connection() for _ in range(count)]
    together = threading.Barrier(count, timeout=START_SECONDS)

    def claim(number: int) -> str:
        together.wait()
        try:
            ledger.accept(
                connections[number],
                submit(),
                f"key-of-sixteen-{number:02}",
                place=lambda _: placement(),
                now=NOW,
            )
        except ProblemError as problem:
            return problem.kind.name
        return "accepted"

    with ThreadPoolExecutor(count) as pool:
        outcomes = list(pool.map(claim, range(count)))

    assert sorted(outcomes) == ["accepted"] + ["job-id-conflict"] * (count - 1)


def test_a_winner_that_rolls_back_leaves_the_key_to_the_next(open_connection: Connect) -> None:
    """A claim that is waited for and never committed is no claim."""
    first, second, watcher = open_connection(), open_connection(), open_connection()
    command, key = submit(), "key-of-sixteen-00"
    with ThreadPoolExecutor(1) as pool:
        with first.transaction(force_rollback=True):
            ledger.accept(first, command, key, place=lambda _: placement(), now=NOW)
            waiting = pool.submit(
                ledger.accept, second, command, key, place=lambda _: placement(), now=NOW
            )
            wait_for_lock(watcher, second)
        _, replayed = waiting.result(timeout=START_SECONDS)

    assert not replayed
    assert watcher.execute("SELECT count(*) FROM byoc.event").fetchone() == (1,)
