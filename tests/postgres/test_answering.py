"""The channel's rounds against an adapter that is scripted: when verdicts leave, and when they leave again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from aiida_byoc.agent.answering import Answering
from aiida_byoc.agent.client import AdapterClient, AdapterUnavailable
from aiida_byoc.agent.inventory import Inventory
from aiida_byoc.agent.logs import LogDesk
from aiida_byoc.agent.reader import Reader
from aiida_byoc.node import NodeSettings
from tests.builders import submit_body
from tests.postgres.adapters import client_of, serving


def submission(number: int, **changes: Any) -> dict[str, Any]:
    """A command as the adapter hands it over."""
    name = f"job-{number}"
    return {
        "command_id": f"33333333-3333-4333-8333-{number:012}",
        "operation": "submit",
        "tenant_id": "acme",
        "job_id": name,
        "idempotency_key": f"key-0123456789abc-{number}",
        "body": submit_body(job_id=name, **changes),
    }


class Scripted(ThreadingHTTPServer):
    """Answers the polls with `batches` in their turn, then with none; a batch of `None` is a connection that breaks."""

    batches: list[list[dict[str, Any]] | None]
    polls: list[dict[str, Any]]


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.polls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            batch = server.batches.pop(0) if server.batches else []
            if batch is None:
                return
            body = json.dumps({"commands": batch, "takes_verdicts": True}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = Scripted(("127.0.0.1", 0), Handler)
    server.batches, server.polls = [], []
    with serving(server):
        yield server


@pytest.fixture
def client(settings: NodeSettings, adapter: Scripted) -> AdapterClient:
    return client_of(settings, adapter)


@pytest.fixture
def answering(settings: NodeSettings) -> Answering:
    return Answering(settings, LogDesk(settings, Reader([])))


def given(poll: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (each["command_id"][-1], each["verdict"]["outcome"]) for each in poll.get("verdicts", [])
    ]


def test_each_poll_gives_the_verdicts_of_the_one_before(
    connection: psycopg.Connection, client: AdapterClient, adapter: Scripted, answering: Answering
) -> None:
    adapter.batches = [[submission(1)], [submission(2), submission(3), submission(1)]]

    assert answering.step(connection, client) == 0

    assert [given(poll) for poll in adapter.polls] == [
        [],
        [("1", "accepted")],
        [("2", "accepted"), ("3", "accepted"), ("1", "replayed")],
    ]


def test_verdicts_that_were_cut_off_go_with_the_next_poll(
    connection: psycopg.Connection, client: AdapterClient, adapter: Scripted, answering: Answering
) -> None:
    adapter.batches = [[submission(1)], None]
    with pytest.raises(AdapterUnavailable):
        answering.step(connection, client)

    answering.step(connection, client)

    assert [given(poll) for poll in adapter.polls] == [[], *[[("1", "accepted")]] * 2]


def test_an_array_that_is_too_large_for_slurm_is_refused_before_it_is_accepted(
    connection: psycopg.Connection,
    client: AdapterClient,
    adapter: Scripted,
    answering: Answering,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = submission(1)["body"]["workload"]["image"]
    array = {"kind": "array", "image": image, "argv": ["x"], "tasks": {"count": 10}, "pack": 1}
    adapter.batches = [[submission(1, workload=array)]]
    answering.step(connection, client)

    monkeypatch.setattr(Inventory, "largest_array", 5)
    adapter.batches = [[submission(2, workload=array)]]
    for _ in range(
        2
    ):  # a verdict that asked nothing of the database leaves with the next step's first poll
        answering.step(connection, client)

    verdicts = [given(poll) for poll in adapter.polls if given(poll)]
    assert verdicts == [[("1", "accepted")], [("2", "rejected")]]
    (error,) = next(poll for poll in reversed(adapter.polls) if given(poll))["verdicts"][0][
        "verdict"
    ]["problem"]["errors"]
    assert (error["field"], error["remedy"]) == ("workload.pack", "use 2 or more")


def test_what_was_decided_before_the_database_was_lost_is_told(
    connection: psycopg.Connection,
    client: AdapterClient,
    adapter: Scripted,
    answering: Answering,
    open_connection: Any,
) -> None:
    """Nothing of a transaction that was not committed is."""
    adapter.batches = [[submission(1)], [submission(2)]]
    backend = connection.info.backend_pid
    connection.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
    )
    connection.execute(
        "CREATE TRIGGER lose BEFORE INSERT ON byoc.job FOR EACH ROW WHEN (NEW.job_id = 'job-2')"
        " EXECUTE FUNCTION lose()"
    )
    with pytest.raises(psycopg.OperationalError):
        answering.step(connection, client)
    again = open_connection()
    assert again.info.backend_pid != backend

    answering.step(again, client)

    assert [given(poll) for poll in adapter.polls] == [[], [("1", "accepted")], []]
