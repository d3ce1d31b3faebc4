"""The lanes and the adapter they share: one failure is one, a pause is everybody's, and operators can see why."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent import relaying
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.relaying import Destination, relay_lanes
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.node import NodeSettings
from tests.eventually import eventually
from tests.postgres.adapters import client_of, serving
from tests.postgres.conftest import Connect
from tests.postgres.jobs import accept
from tests.postgres.reading import stream


class Refusing(ThreadingHTTPServer):
    """An adapter that answers every batch with the same problem, or `takes` all of it."""

    name, retry_after, asked, takes = "product-unavailable", "", 0, False


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked += 1
            error = ProblemError(server.name)
            body = error.problem().model_dump_json().encode()
            if server.takes:
                told = {one["data"]["submission_id"]: one["data"]["seq"] + 1 for one in sent}
                body = json.dumps({"next_seq": told, "quarantined": []}).encode()
            self.send_response(200 if server.takes else error.kind.status)
            if server.retry_after:
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = Refusing(("127.0.0.1", 0), Handler)
    with serving(server):
        yield server


@pytest.fixture
def client(settings: NodeSettings, adapter: Refusing) -> AdapterClient:
    return client_of(settings, adapter)


def trouble(connection: psycopg.Connection) -> list[Any]:
    return connection.execute("SELECT problem FROM byoc.relay_trouble").fetchall()


def test_a_wish_to_wait_binds_every_lane(
    connection: psycopg.Connection, client: AdapterClient, adapter: Refusing
) -> None:
    job = accept(connection)
    adapter.retry_after = "100"
    steps = relay_lanes()

    waits = [step(connection, client) for step in [*steps.values(), *steps.values()]]

    assert adapter.asked == 1
    assert all(90 < wait <= 100 for wait in waits)
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["failures"], kept["claimed_by"]) == (0, 0, None)


def test_i16_an_epoch_that_the_product_does_not_know_is_told_loudly(
    connection: psycopg.Connection,
    client: AdapterClient,
    adapter: Refusing,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = accept(connection)
    adapter.name = "epoch-mismatch"

    with caplog.at_level(logging.INFO):
        wait = next(iter(relay_lanes().values()))(connection, client)

    assert wait <= 60
    [record] = [one for one in caplog.records if "adapter_unavailable" in one.getMessage()]
    assert record.levelno == logging.ERROR
    assert "problem=epoch-mismatch" in record.getMessage()
    assert trouble(connection) == [("epoch-mismatch",)]
    kept = stream(connection, job)
    assert (kept["acked_seq"], kept["quarantine"]) == (0, None)


@pytest.mark.parametrize("name", ["validation-failed", "malformed-request", "payload-too-large"])
def test_i14_an_event_that_the_adapter_cannot_read_stops_its_job(
    connection: psycopg.Connection, client: AdapterClient, adapter: Refusing, name: str
) -> None:
    first = next(iter(relay_lanes().values()))
    job = accept(connection)
    adapter.name = name

    assert first(connection, client) == relaying._GATHER_SECONDS  # no failure

    quarantine = stream(connection, job)["quarantine"]
    assert (quarantine["seq"], quarantine["code"]) == (1, name)
    assert trouble(connection) == []


@pytest.mark.parametrize("name", ["unauthenticated", "forbidden", "not-found", "internal-error"])
def test_no_other_refusal_gives_an_event_up(
    connection: psycopg.Connection, client: AdapterClient, adapter: Refusing, name: str
) -> None:
    job = accept(connection)
    adapter.name = name

    next(iter(relay_lanes().values()))(connection, client)

    assert stream(connection, job)["quarantine"] is None
    assert trouble(connection) == [(name,)]


def test_lanes_that_meet_the_same_outage_make_it_no_longer(connection: psycopg.Connection) -> None:
    """Four lanes that fail together are one failure; the next failure is the next."""
    destination = Destination()
    error = AdapterUnavailable("HTTP 503: away", 0, status=503)

    for _ in range(4):
        destination.failed(connection, error, asked_at=0.0)
    together = destination._backoff._failures
    later = eventually(lambda: destination.pause() == 0.0, "the pause to end")
    destination.failed(connection, error, asked_at=float("inf"))

    assert (together, later, destination._backoff._failures) == (1, True, 2)


def test_waiting_is_for_ever_and_bounded(connection: psycopg.Connection) -> None:
    destination = Destination()
    error = AdapterUnavailable("ConnectError")

    waits = [destination.failed(connection, error, float("inf")) for _ in range(200)]

    assert max(waits) <= 60
    assert len(set(waits)) > 100, "full jitter"
    assert max(waits[-50:]) > 10


def test_the_trouble_is_told_once_and_goes_with_its_cause(
    connection: psycopg.Connection, open_connection: Connect
) -> None:
    destination = Destination()
    watcher = open_connection()
    causes = itertools.chain.from_iterable(
        [[AdapterUnavailable("ConnectError")] * 2, [AdapterUnavailable("x", status=502)]]
    )
    seen = []
    for error in causes:
        destination.failed(connection, error, float("inf"))
        seen += watcher.execute("SELECT problem, since FROM byoc.relay_trouble").fetchall()

    assert [problem for problem, _ in seen] == ["unreachable", "unreachable", "http-502"]
    assert seen[0] == seen[1]
    assert seen[1][1] < seen[2][1]
    destination.succeeded(connection)
    assert trouble(watcher) == []


def test_after_a_few_events_one_lane_lets_others_gather_and_the_other_lanes_rest(
    connection: psycopg.Connection, client: AdapterClient, adapter: Refusing
) -> None:
    """More at work would find a few each, and a batch of a few costs as much as a full one."""
    adapter.takes = True
    first, *others = relay_lanes().values()
    accept(connection)
    gathering = first(connection, client)
    assert 0 < gathering < relaying._IDLE_SECONDS

    for number, lane in enumerate(others):
        accept(connection, f"few-{number}")
        assert lane(connection, client) > relaying._IDLE_SECONDS


def test_every_lane_goes_on_while_there_is_a_backlog(
    connection: psycopg.Connection, client: AdapterClient, adapter: Refusing
) -> None:
    adapter.takes = True
    lanes = relay_lanes()
    for number in range(MAX_EVENT_BATCH * len(lanes)):
        accept(connection, f"many-{number}")

    assert [lane(connection, client) for lane in lanes.values()] == [0] * len(lanes)


def test_an_event_that_comes_while_the_first_lane_waits_is_delivered(
    connection: psycopg.Connection,
    open_connection: Connect,
    client: AdapterClient,
    adapter: Refusing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter.takes = True
    first = next(iter(relay_lanes().values()))
    lane = open_connection()
    monkeypatch.setattr(relaying, "_IDLE_SECONDS", 0.0)
    first(lane, client)  # from now on it hears of what is committed
    monkeypatch.setattr(relaying, "_IDLE_SECONDS", 100.0)

    def deliver() -> None:
        while not adapter.asked:
            first(lane, client)

    with ThreadPoolExecutor() as pool:
        working = pool.submit(deliver)
        job = accept(connection)
        eventually(lambda: stream(connection, job)["acked_seq"] == 1, "the event to be delivered")
        working.result(10)
