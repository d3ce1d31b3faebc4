"""The relay beside others: a second relay, hooks that write, and a long backlog."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH, Acknowledgement
from aiida_byoc.events.relay import EventSink, deliver
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept, report, walk
from tests.postgres.product import Lost, Product
from tests.postgres.reading import stream

PATIENCE = 30


def test_a_slow_product_holds_up_no_hook(open_connection: Connect) -> None:
    """No lock is held while the product thinks: an event commits meanwhile, and is delivered next."""
    relay, hook = open_connection(), open_connection()
    job = accept(hook)
    hook.execute("SET lock_timeout = '5s'")
    product = Product()
    thinking, done = threading.Event(), threading.Event()

    def think() -> None:
        thinking.set()
        assert done.wait(PATIENCE)

    product.before = think
    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(deliver, relay, product)
        try:
            assert thinking.wait(PATIENCE)
            walk(hook, job, "launched")
        finally:
            done.set()
        assert delivery.result(PATIENCE) == 1

    assert deliver(relay, product) == 1
    assert product.order(job) == [1, 2]


def test_i11_two_relays_interleaved_lose_nothing(open_connection: Connect) -> None:
    """The slower one read less, and answers last: it does not undo what the faster one achieved."""
    slow, fast, hook = open_connection(), open_connection(), open_connection()
    job = accept(hook)
    product = Product()
    batches: list[int] = []

    class Overtaken:
        def events(self, batch: list[dict[str, object]]) -> Acknowledgement:
            walk(hook, job, "launched", "queued")
            batches.append(deliver(fast, product))
            return product.events(batch).model_copy(update={"next_seq": {job: 2}})

    deliver(slow, Overtaken())

    assert batches == [3]
    assert stream(hook, job)["acked_seq"] == 3
    assert product.latest[job] == 3
    assert deliver(slow, product) == 0


class Forgetful:
    """Passes on to a product, and loses every third answer."""

    def __init__(self, product: Product) -> None:
        self._product, self._guard, self._calls = product, threading.Lock(), 0

    def events(self, batch: list[dict[str, object]]) -> Acknowledgement:
        with self._guard:
            self._calls += 1
            answer = self._product.events(batch)
            if self._calls % 3 == 0:
                raise Lost
            return answer


def relay_until(
    finished: threading.Event, connection: psycopg.Connection, sink: EventSink, lane: str
) -> None:
    """Relay until everything has arrived, once nobody writes any more."""
    deadline = time.monotonic() + PATIENCE
    while not (finished.is_set() and everything_arrived(connection)):
        assert time.monotonic() < deadline
        with contextlib.suppress(Lost):
            deliver(connection, sink, lane=lane)


def everything_arrived(connection: psycopg.Connection) -> bool:
    left = connection.execute(
        "SELECT count(*) FROM byoc.stream WHERE acked_seq < latest_seq"
    ).fetchone()
    return left == (0,)


def test_i10_relays_and_writers_at_once(open_connection: Connect) -> None:
    """Two relays, four writers, a product whose answers get lost: everything arrives, in order."""
    attempts = range(2, 10)
    relays = [open_connection() for _ in range(2)]
    writers = [open_connection() for _ in range(4)]
    submissions = [accept(writers[0], f"job-{number}") for number in range(12)]
    product = Product()
    finished = threading.Event()

    def write(number: int) -> None:
        for submission in submissions[number :: len(writers)]:
            walk(writers[number], submission, "launched")
            for attempt in attempts:
                report(writers[number], submission, "queued", attempt=attempt)

    with ThreadPoolExecutor(6) as pool:
        sink = Forgetful(product)
        delivering = [
            pool.submit(relay_until, finished, relay, sink, f"relay-{number}")
            for number, relay in enumerate(relays)
        ]
        try:
            for written in [pool.submit(write, number) for number in range(4)]:
                written.result(PATIENCE)
        finally:
            finished.set()
        for each in delivering:
            each.result(PATIENCE)

    everything = list(range(1, len(attempts) + 3))
    for submission in submissions:
        assert list(dict.fromkeys(product.order(submission))) == everything
        assert len(set(product.arrived[submission])) == len(everything)


def test_a_long_backlog_goes_in_bounded_batches(connection: psycopg.Connection) -> None:
    """10,000 jobs undelivered: no batch above the limit, no job twice in the first rounds, none left out at the end."""
    backlog = 10_000
    model = accept(connection)
    connection.execute(
        "CREATE TEMP TABLE copy AS SELECT gen_random_uuid() AS id, n"
        " FROM generate_series(2, %s) AS n",
        (backlog,),
    )
    connection.execute(
        "INSERT INTO byoc.job (submission_id, tenant_id, workspace_id, job_id, idempotency_key,"
        " fingerprint, command, placement, trace_id, accepted_at, state, seq, snapshot)"
        " SELECT copy.id, tenant_id, workspace_id, 'job-' || n, 'key-of-sixteen-' || n,"
        " fingerprint, command, placement, trace_id, accepted_at, state, seq, snapshot"
        " FROM byoc.job, copy WHERE submission_id = %s",
        (model,),
    )
    connection.execute(
        "INSERT INTO byoc.event SELECT copy.id, seq, copy.id::text, jsonb_set(jsonb_set(jsonb_set("
        "jsonb_set(body, '{id}', to_jsonb(copy.id::text)), '{subject}', to_jsonb('job-' || n)),"
        " '{data,job_id}', to_jsonb('job-' || n)), '{data,submission_id}', to_jsonb(copy.id::text)),"
        " occurred_at FROM byoc.event, copy WHERE submission_id = %s",
        (model,),
    )
    connection.execute("INSERT INTO byoc.stream (submission_id, latest_seq) SELECT id, 1 FROM copy")
    product = Product()

    settled = [deliver(connection, product) for _ in range(20)]

    sent = [body["data"]["submission_id"] for batch in product.batches for body in batch]
    assert len(sent) == len(set(sent)) == sum(settled)
    assert all(0 < count <= MAX_EVENT_BATCH for count in settled)
    while deliver(connection, product):
        pass
    assert len(product.latest) == backlog
