"""What is refused whole, what is missing, and who holds a job: the rest flows, and nobody sends the same job twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events import redelivery
from aiida_byoc.events import stream as streams
from aiida_byoc.events.relay import BatchRefused, deliver
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, report, walk
from tests.postgres.product import Product
from tests.postgres.reading import stream

LIFE = ("launched", "queued", "running", "succeeded")


@pytest.fixture
def product() -> Product:
    return Product()


def lived(connection: psycopg.Connection, job: str = "job-1") -> str:
    submission = accept(connection, job)
    walk(connection, submission, *LIFE)
    return submission


def due(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE byoc.stream SET not_before = now()")


class Choking:
    """Refuses every batch that holds a given event of a job; the rest reaches the product."""

    def __init__(self, product: Product, job: str, seq: int, problem: str | None) -> None:
        self.product, self.job, self.seq, self.problem = product, job, seq, problem

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        if any(
            (each["data"]["submission_id"], each["data"]["seq"]) == (self.job, self.seq)
            for each in batch
        ):
            raise BatchRefused("HTTP 422: no", self.problem)
        return self.product.events(batch)


def until_quiet(step: Callable[[], int], rounds: int = 50) -> int:
    """Repeat until nothing is settled any more; return how often that took."""
    for count in range(rounds):
        if not step():
            return count
    raise AssertionError(f"still busy after {rounds} rounds")


def test_i14_a_batch_refused_whole_is_halved_until_the_culprit_stands_alone(
    connection: psycopg.Connection, product: Product
) -> None:
    jobs = [lived(connection, f"job-{number}") for number in range(12)]
    sick = jobs[7]
    sink = Choking(product, sick, 3, "validation-failed")

    until_quiet(lambda: deliver(connection, sink))

    for job in jobs:
        everything = [1, 2] if job == sick else [1, 2, 3, 4, 5]
        assert product.order(job) == everything
    kept = stream(connection, sick)
    assert kept["acked_seq"] == 2
    assert (kept["quarantine"]["seq"], kept["quarantine"]["code"]) == (3, "validation-failed")


def test_i14_what_a_proxy_refuses_waits_and_the_others_flow(
    connection: psycopg.Connection, product: Product
) -> None:
    """A page without the contract's words proves nothing against the event: it is never given up for that."""
    sick, healthy = lived(connection, "job-1"), lived(connection, "job-2")
    sink = Choking(product, sick, 1, None)

    for _ in range(8):
        connection.execute(
            "UPDATE byoc.stream SET not_before = now() WHERE submission_id = %s", (healthy,)
        )
        try:
            deliver(connection, sink)
        except BatchRefused:
            continue

    assert product.order(healthy) == [1, 2, 3, 4, 5]
    kept = stream(connection, sick)
    assert (kept["acked_seq"], kept["quarantine"], kept["claimed_by"]) == (0, None, None)
    assert kept["failures"] >= 1
    due(connection)
    assert deliver(connection, product) == 5


def test_i15_the_product_gets_what_it_lacks_below_what_it_has(
    connection: psycopg.Connection, product: Product
) -> None:
    job = accept(connection)
    walk(connection, job, *LIFE[:3])
    deliver(connection, product)
    walk(connection, job, "succeeded")
    asked: list[list[int]] = []

    class Restored:
        """Has nothing of 2 and 3 any more, and says so until it has them."""

        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            seqs = [each["data"]["seq"] for each in batch]
            asked.append(seqs)
            lacking = {2, 3} - {seq for seqs in asked for seq in seqs}
            return Acknowledgement(
                next_seq={job: seqs[-1] + 1},
                missing_from={job: min(lacking)} if lacking else None,
            )

    deliver(connection, Restored())
    assert stream(connection, job)["acked_seq"] == 1
    due(connection)
    assert deliver(connection, Restored()) == 4

    assert asked == [[5], [2, 3, 4, 5]]
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["failures"]) == (5, 0)


@pytest.mark.parametrize("missing", [0, -3, 6, 99])
def test_a_wish_without_sense_changes_nothing(
    connection: psycopg.Connection, product: Product, missing: int
) -> None:
    job = lived(connection)

    class Odd:
        def events(self, _: list[dict[str, Any]]) -> Acknowledgement:
            return Acknowledgement(next_seq={job: 6}, missing_from={job: missing, "nobody": 1})

    assert deliver(connection, Odd()) == 5
    assert stream(connection, job)["acked_seq"] == 5


def test_a_product_that_contradicts_itself_is_asked_again_and_not_hurried(
    connection: psycopg.Connection,
) -> None:
    """It acknowledges an event that it says it lacks: the event is sent again, later and later."""
    job = lived(connection)

    class Contradicting:
        def events(self, _: list[dict[str, Any]]) -> Acknowledgement:
            return Acknowledgement(next_seq={job: 6}, missing_from={job: 5})

    for failures in (1, 2):
        deliver(connection, Contradicting())
        kept = stream(connection, job)
        assert (kept["acked_seq"], kept["failures"]) == (4, failures)
        due(connection)


def test_a_job_with_much_to_tell_holds_up_no_other(
    connection: psycopg.Connection, product: Product
) -> None:
    """Whoever waited longest is next, and nobody takes more than a share of a batch."""
    talkative = accept(connection, "job-0")
    walk(connection, talkative, "launched")
    for attempt in range(2, 80):
        report(connection, talkative, "queued", attempt=attempt)
    others = [lived(connection, f"job-{number}") for number in range(1, 30)]

    for _ in range(3):
        deliver(connection, product)

    first = [each["data"]["submission_id"] for each in product.batches[0]]
    assert first.count(talkative) == streams.EVENTS_PER_JOB
    assert all(product.order(job) == [1, 2, 3, 4, 5] for job in others)


@pytest.mark.parametrize("wanted", [-1, 0, 7, 2**40])
def test_an_acknowledgement_without_sense_changes_nothing_and_is_logged(
    connection: psycopg.Connection, wanted: int, caplog: pytest.LogCaptureFixture
) -> None:
    job = lived(connection)

    class Odd:
        def events(self, _: list[dict[str, Any]]) -> Acknowledgement:
            return Acknowledgement(next_seq={job: wanted})

    with caplog.at_level(logging.WARNING):
        assert deliver(connection, Odd()) == 0
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["failures"]) == (0, 1)
    assert "acknowledgement_ignored" in caplog.text


def test_more_is_not_believed_than_was_sent(connection: psycopg.Connection) -> None:
    """Whatever the product says: an event that was never sent is not delivered."""
    job = accept(connection)
    walk(connection, job, "launched")
    for attempt in range(2, 40):
        report(connection, job, "queued", attempt=attempt)

    class Generous:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            assert len(batch) == streams.EVENTS_PER_JOB
            return Acknowledgement(next_seq={job: 41})

    assert deliver(connection, Generous()) == streams.EVENTS_PER_JOB
    assert stream(connection, job)["acked_seq"] == streams.EVENTS_PER_JOB


def test_i11_a_job_is_in_one_hand_at_a_time(open_connection: Connect, product: Product) -> None:
    """While one lane waits for the answer, the other finds nothing of that job; what is new comes afterwards."""
    one, two = open_connection(), open_connection()
    job, other = lived(one, "job-1"), accept(one, "job-2")
    seen: list[int] = []

    class Slow:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            walk(two, other, "launched")
            seen.append(deliver(two, Product(), lane="two"))
            return product.events(batch)

    assert deliver(one, Slow(), lane="one") == 6
    assert seen == [0]
    assert deliver(two, product, lane="two") == 1
    assert product.order(job) == [1, 2, 3, 4, 5]


def test_i11_a_dead_lanes_claim_is_its_successors_at_once_and_in_the_end_anybodys(
    open_connection: Connect, product: Product
) -> None:
    one, two = open_connection(), open_connection()
    lived(one)
    assert streams.claim(one, "one") != []

    assert streams.claim(two, "two") == []
    assert streams.claim(two, "one") != []
    two.execute("UPDATE byoc.stream SET claimed_until = now() - interval '1 second'")
    assert deliver(two, product, lane="two") == 5


def test_i11_a_lane_that_lost_its_claim_notes_nothing(
    open_connection: Connect, product: Product
) -> None:
    one, two = open_connection(), open_connection()
    job = lived(one)

    class Stalled:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            two.execute("UPDATE byoc.stream SET claimed_until = now() - interval '1 second'")
            assert streams.claim(two, "two") != []
            return product.events(batch)

    deliver(one, Stalled(), lane="one")
    kept = stream(two, job)
    assert (kept["acked_seq"], kept["claimed_by"]) == (0, "two")


def test_a_replay_is_not_undone_by_what_is_on_its_way(
    open_connection: Connect, product: Product
) -> None:
    relay, operator = open_connection(), open_connection()
    job = accept(relay)
    walk(relay, job, "launched", "queued")
    deliver(relay, product)
    walk(relay, job, "running")

    class Meanwhile:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            assert redelivery.replay(operator).events == 3
            return product.events(batch)

    deliver(relay, Meanwhile())
    assert stream(relay, job)["acked_seq"] == 0
    deliver(relay, product)
    assert product.order(job) == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_batch_is_bounded_in_bytes(
    connection: psycopg.Connection, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred events of the largest size would be more than the adapter takes."""
    jobs = [lived(connection, f"job-{number}") for number in range(6)]
    monkeypatch.setattr(streams, "MAX_BATCH_BYTES", 1500)

    until_quiet(lambda: deliver(connection, product))

    for job in jobs:
        assert product.order(job) == [1, 2, 3, 4, 5]
    assert all(len(json.dumps(batch[:-1])) < 1500 for batch in product.batches)
    assert len(product.batches) >= 10
