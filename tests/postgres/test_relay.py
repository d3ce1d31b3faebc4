"""Undelivered events to the product: in order per job, until it has them, whatever fails on the way."""

from __future__ import annotations

import psycopg
import pytest

from aiida_byoc.contracts.delivery import Acknowledgement
from aiida_byoc.events.relay import deliver
from tests.postgres.jobs import accept, report, walk
from tests.postgres.product import Lost, Product
from tests.postgres.reading import stream


@pytest.fixture
def product() -> Product:
    return Product()


def lived(connection: psycopg.Connection, job: str = "job-1") -> str:
    """A job with the five events of a whole life."""
    submission = accept(connection, job)
    walk(connection, submission, "launched", "queued", "running", "succeeded")
    return submission


def due(connection: psycopg.Connection) -> None:
    """Let the back-off of every job be over."""
    connection.execute("UPDATE byoc.stream SET not_before = now()")


def test_nothing_to_deliver_bothers_nobody(
    connection: psycopg.Connection, product: Product
) -> None:
    assert deliver(connection, product) == 0
    assert product.batches == []


def test_events_arrive_in_order_and_once(connection: psycopg.Connection, product: Product) -> None:
    jobs = [lived(connection, f"job-{number}") for number in range(3)]

    assert deliver(connection, product) == 15
    assert deliver(connection, product) == 0

    for job in jobs:
        assert product.order(job) == [1, 2, 3, 4, 5]
        assert stream(connection, job)["acked_seq"] == 5
    assert len(product.batches) == 1


def test_what_comes_later_follows(connection: psycopg.Connection, product: Product) -> None:
    job = accept(connection)
    deliver(connection, product)
    walk(connection, job, "launched")

    assert deliver(connection, product) == 1
    assert product.order(job) == [1, 2]


def test_i11_a_partial_acknowledgement_goes_on_where_it_stopped(
    connection: psycopg.Connection, product: Product
) -> None:
    job = lived(connection)
    product.limit = 2

    settled = [deliver(connection, product) for _ in range(3)]

    assert settled == [2, 2, 1]
    assert product.order(job) == [1, 2, 3, 4, 5]
    assert [body["data"]["seq"] for body in product.batches[1]] == [3, 4, 5]


def test_i14_poison_stops_its_own_job_only(
    connection: psycopg.Connection, product: Product
) -> None:
    sick, healthy = lived(connection, "job-1"), lived(connection, "job-2")
    product.poison = {sick}

    deliver(connection, product)
    assert product.order(healthy) == [1, 2, 3, 4, 5]
    quarantine = stream(connection, sick)["quarantine"]
    assert (quarantine["seq"], quarantine["code"]) == (1, "poison")
    assert stream(connection, healthy)["quarantine"] is None

    later = lived(connection, "job-3")
    assert deliver(connection, product) == 5
    assert product.order(later) == [1, 2, 3, 4, 5]
    assert product.order(sick) == []


def test_what_was_taken_before_the_poison_counts(connection: psycopg.Connection) -> None:
    job = lived(connection)

    class Halfway:
        def events(self, _: list[dict[str, object]]) -> Acknowledgement:
            refused = {"submission_id": job, "seq": 3, "code": "poison", "message": "no"}
            return Acknowledgement.model_validate({"next_seq": {job: 3}, "quarantined": [refused]})

    assert deliver(connection, Halfway()) == 3
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["quarantine"]["seq"]) == (2, 3)


def test_a_job_of_which_nothing_is_said_waits_and_the_others_flow(
    connection: psycopg.Connection, product: Product
) -> None:
    mute, other = lived(connection, "job-1"), lived(connection, "job-2")
    product.silent = {mute}

    assert deliver(connection, product) == 5
    kept = stream(connection, mute)
    assert (kept["acked_seq"], kept["failures"]) == (0, 1)
    assert product.order(other) == [1, 2, 3, 4, 5]

    product.silent = set()
    due(connection)
    assert deliver(connection, product) == 5
    kept = stream(connection, mute)
    assert (product.order(mute), kept["failures"]) == ([1, 2, 3, 4, 5], 0)


def test_a_job_that_waits_is_not_asked_for_again_too_early(
    connection: psycopg.Connection, product: Product
) -> None:
    job = lived(connection)
    connection.execute("UPDATE byoc.stream SET not_before = now() + interval '1 hour'")

    assert deliver(connection, product) == 0
    assert product.order(job) == []


@pytest.mark.parametrize(("failures", "limit"), [(0, 1), (3, 8), (200, 60)])
def test_the_wait_grows_and_is_bounded(
    connection: psycopg.Connection, product: Product, failures: int, limit: int
) -> None:
    job = lived(connection)
    product.silent = {job}
    connection.execute("UPDATE byoc.stream SET failures = %s", (failures,))
    before = connection.execute("SELECT now()").fetchone()
    assert before is not None

    deliver(connection, product)

    after = connection.execute("SELECT now()").fetchone()
    assert after is not None
    until = stream(connection, job)["not_before"]
    assert before[0] <= until
    assert (until - after[0]).total_seconds() <= limit


def test_i10_a_transport_error_leaves_everything(
    connection: psycopg.Connection, product: Product
) -> None:
    job = lived(connection)
    before = stream(connection, job)

    def fail() -> None:
        raise Lost

    product.before = fail
    with pytest.raises(Lost):
        deliver(connection, product)

    assert stream(connection, job) == before
    product.before = lambda: None
    assert deliver(connection, product) == 5
    assert product.order(job) == [1, 2, 3, 4, 5]


def test_i10_an_answer_that_was_lost_means_the_same_ids_again(
    connection: psycopg.Connection, product: Product
) -> None:
    """A relay that dies between POST and acknowledgement repeats itself; the product tells by the ids."""
    job = lived(connection)

    def die() -> None:
        raise Lost

    product.after = die
    with pytest.raises(Lost):
        deliver(connection, product)
    product.after = lambda: None
    deliver(connection, product)

    first, second = product.batches
    assert first == second
    assert product.order(job) == [1, 2, 3, 4, 5] * 2
    assert stream(connection, job)["acked_seq"] == 5


def test_i15_a_product_that_was_set_back_gets_what_it_lost(
    connection: psycopg.Connection, product: Product
) -> None:
    job = accept(connection)
    walk(connection, job, "launched", "queued")
    deliver(connection, product)
    product.restore(job, 1)
    walk(connection, job, "running")

    deliver(connection, product)
    due(connection)
    deliver(connection, product)

    assert product.latest[job] == 4
    assert product.lacking(job) == set()
    assert product.order(job) == [1, 2, 3, 4, 2, 3, 4]
    assert stream(connection, job)["acked_seq"] == 4


def test_a_product_that_wants_what_is_not_there_is_not_hurried(
    connection: psycopg.Connection,
) -> None:
    """A node restored from a backup must not post in a loop, nor skip what it will say next."""
    job = lived(connection)

    class FromTheFuture:
        def events(self, _: list[dict[str, object]]) -> Acknowledgement:
            return Acknowledgement(next_seq={job: 99})

    assert deliver(connection, FromTheFuture()) == 0
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["failures"]) == (0, 1)


def test_an_answer_about_other_jobs_changes_nothing(connection: psycopg.Connection) -> None:
    asked, other = accept(connection, "job-1"), accept(connection, "job-2")
    connection.execute(
        "UPDATE byoc.stream SET not_before = now() + interval '1 hour' WHERE submission_id = %s",
        (other,),
    )

    class Confused:
        def events(self, _: list[dict[str, object]]) -> Acknowledgement:
            refused = {"submission_id": other, "seq": 1, "code": "poison", "message": "no"}
            return Acknowledgement.model_validate(
                {"next_seq": {asked: 2, other: 2}, "quarantined": [refused]}
            )

    assert deliver(connection, Confused()) == 1
    kept = stream(connection, other)
    assert (kept["acked_seq"], kept["quarantine"]) == (0, None)


def test_a_late_report_does_not_reach_the_product(
    connection: psycopg.Connection, product: Product
) -> None:
    job = lived(connection)
    deliver(connection, product)

    assert report(connection, job, "running") is None
    assert deliver(connection, product) == 0
