"""What an operator decides about events: try again, give one up, send them once more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from aiida_byoc.contracts.delivery import Acknowledgement, QuarantinedEvent
from aiida_byoc.events import redelivery
from aiida_byoc.events.redelivery import NotQuarantined, Replay
from aiida_byoc.events.relay import deliver
from tests.builders import NOW
from tests.postgres.jobs import accept, walk
from tests.postgres.product import Product
from tests.postgres.reading import events, stream

LIFE = ("launched", "queued", "running", "succeeded")


@pytest.fixture
def product() -> Product:
    return Product()


def lived(connection: psycopg.Connection, job: str = "job-1", **command: Any) -> str:
    submission = accept(connection, job, **command)
    walk(connection, submission, *LIFE)
    return submission


class Refusing:
    """Takes everything but one event of one job."""

    def __init__(self, product: Product, job: str, seq: int) -> None:
        self.product, self.job, self.seq = product, job, seq

    def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
        taken, refused = [], []
        for each in batch:
            data = each["data"]
            stopped = data["submission_id"] == self.job and refused
            if (data["submission_id"], data["seq"]) == (self.job, self.seq):
                refused = [
                    QuarantinedEvent(
                        submission_id=self.job, seq=self.seq, code="seq_conflict", message="no"
                    )
                ]
            elif not stopped:
                taken.append(each)
        answer = self.product.events(taken) if taken else Acknowledgement(next_seq={})
        return answer.model_copy(update={"quarantined": refused})


@pytest.fixture
def sick(connection: psycopg.Connection, product: Product) -> str:
    """A job that stands still at its third event, beside one that ended well."""
    lived(connection, "job-2")
    job = lived(connection, "job-1")
    deliver(connection, Refusing(product, job, 3))
    return job


def test_a_quarantined_job_is_listed_with_its_cause(
    connection: psycopg.Connection, sick: str
) -> None:
    [found] = redelivery.quarantined(connection)

    told = {name: found[name] for name in ("status", "tenant_id", "job_id", "seq", "code")}
    assert told == {
        "status": "quarantined", "tenant_id": "acme", "job_id": "job-1", "seq": 3, "code": "seq_conflict",
    }  # fmt: skip
    assert found["waiting"] == 3
    assert found["since"]
    assert stream(connection, sick)["acked_seq"] == 2


@pytest.mark.parametrize(
    ("who", "count"),
    [({}, 1), ({"tenant": "acme"}, 1), ({"tenant": "acme", "job": "job-1"}, 1),
     ({"tenant": "globex"}, 0), ({"tenant": "acme", "job": "job-2"}, 0)],
)  # fmt: skip
def test_i14_a_retry_sends_the_same_event_again(
    connection: psycopg.Connection, product: Product, sick: str, who: dict[str, str], count: int
) -> None:
    refused = events(connection, sick)[2]

    assert redelivery.retry(connection, **who) == count

    assert deliver(connection, product) == 3 * count
    if count:
        assert product.arrived[sick][2] == (3, refused.id)
        assert product.order(sick) == [1, 2, 3, 4, 5]
        assert redelivery.quarantined(connection) == []


def test_a_dropped_event_never_arrives_and_the_others_do(
    connection: psycopg.Connection, product: Product, sick: str
) -> None:
    assert redelivery.drop(connection, "acme", "job-1", reason="of no use", by="ann") == 3

    while deliver(connection, product):
        pass
    assert product.order(sick) == [1, 2, 4, 5]
    assert stream(connection, sick)["acked_seq"] == 5
    [kept] = redelivery.quarantined(connection)
    assert (kept["status"], kept["seq"], kept["code"]) == ("dropped", 3, "seq_conflict")
    assert (kept["dropped_by"], kept["reason"]) == ("ann", "of no use")
    assert len(events(connection, sick)) == 5, "the outbox forgets nothing"


def test_a_stream_that_ends_in_a_dropped_event_is_delivered(
    connection: psycopg.Connection, product: Product
) -> None:
    job = lived(connection)
    deliver(connection, Refusing(product, job, 5))
    redelivery.drop(connection, "acme", "job-1", reason="r", by="b")

    assert deliver(connection, product) == 0
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["latest_seq"], kept["claimed_by"]) == (5, 5, None)
    assert product.order(job) == [1, 2, 3, 4]


def test_what_the_product_lacks_because_it_was_dropped_is_not_sent(
    connection: psycopg.Connection, product: Product, sick: str
) -> None:
    redelivery.drop(connection, "acme", "job-1", reason="r", by="b")

    class Lacking:
        def events(self, batch: list[dict[str, Any]]) -> Acknowledgement:
            return product.events(batch).model_copy(
                update={"next_seq": {sick: 6}, "missing_from": {sick: 3}}
            )

    assert deliver(connection, Lacking()) == 3
    assert stream(connection, sick)["acked_seq"] == 5


@pytest.mark.parametrize("job", ["job-2", "nobody"])
def test_nothing_is_dropped_of_a_job_that_does_not_stand_still(
    connection: psycopg.Connection, sick: str, job: str
) -> None:
    with pytest.raises(NotQuarantined, match=f"job {job} of tenant acme is not quarantined"):
        redelivery.drop(connection, "acme", job, reason="r", by="b")
    with pytest.raises(NotQuarantined):
        redelivery.drop(connection, "globex", "job-1", reason="r", by="b")
    assert len(redelivery.quarantined(connection)) == 1


def test_i15_a_replay_of_all_brings_everything_in_order(
    connection: psycopg.Connection, product: Product
) -> None:
    jobs = [lived(connection, f"job-{number}") for number in range(3)]
    deliver(connection, product)
    empty = Product()

    assert redelivery.replay(connection) == Replay(jobs=3, events=15)
    assert deliver(connection, empty) == 15

    assert {job: empty.arrived[job] for job in jobs} == {job: product.arrived[job] for job in jobs}
    assert deliver(connection, empty) == 0


def test_a_replay_of_one_job_or_tenant_leaves_the_others(
    connection: psycopg.Connection, product: Product
) -> None:
    first, second = lived(connection, "job-1"), lived(connection, "job-2")
    deliver(connection, product)

    assert redelivery.replay(connection, tenant="globex") == Replay()
    assert redelivery.replay(connection, tenant="acme", job="job-2") == Replay(jobs=1, events=5)

    assert stream(connection, first)["acked_seq"] == 5
    assert stream(connection, second)["acked_seq"] == 0


def test_a_replay_since_a_time_begins_there(
    connection: psycopg.Connection, product: Product
) -> None:
    early, late = lived(connection, "job-1"), lived(connection, "job-2")
    deliver(connection, product)
    connection.execute(
        "UPDATE byoc.event SET occurred_at = occurred_at + interval '1 hour'"
        " WHERE submission_id = %s AND seq >= 4",
        (late,),
    )

    done = redelivery.replay(connection, since=NOW + timedelta(minutes=30))

    assert done == Replay(jobs=1, events=2)
    assert stream(connection, early)["acked_seq"] == 5
    assert stream(connection, late)["acked_seq"] == 3


def test_a_replay_counts_what_stands_still_and_moves_no_further_than_that(
    connection: psycopg.Connection, sick: str
) -> None:
    done = redelivery.replay(connection)

    assert done == Replay(jobs=2, events=7, quarantined=1)
    kept = stream(connection, sick)
    assert kept["acked_seq"] == 0
    assert kept["quarantine"] is not None


def test_what_is_no_longer_kept_is_left_out(
    connection: psycopg.Connection, product: Product
) -> None:
    """Retention keeps the newest event, which carries the full state."""
    job = lived(connection)
    deliver(connection, product)
    connection.execute("DELETE FROM byoc.event WHERE seq < 5")

    assert redelivery.replay(connection) == Replay(jobs=1, events=1)
    empty = Product()
    assert deliver(connection, empty) == 1
    assert empty.order(job) == [5]


def test_a_replay_goes_in_portions(
    connection: psycopg.Connection, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "_JOBS_AT_ONCE", 2)
    for number in range(5):
        accept(connection, f"job-{number}")
    deliver(connection, product)

    assert redelivery.replay(connection) == Replay(jobs=5, events=5)
