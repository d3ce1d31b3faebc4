"""Logs over HTTP: a chunk, its bytes, a stream that is bounded, resumed, and ended by either side."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.eventually import eventually
from tests.service.node import PROBLEMS

PATH = "/v1/nodes/n1/jobs/job-7/logs"


class Written:
    """What a job of the scripted node has written, per attempt; it can go on writing."""

    def __init__(self, *attempts: bytes, state: str = "running") -> None:
        self.attempts = list(attempts)
        self.state = state
        self.asked: list[dict[str, Any]] = []
        self.asked_at = 0.0

    def decide(self, command: dict[str, Any]) -> dict[str, Any]:
        """Answer as a node does."""
        wanted = command["body"]
        self.asked.append(wanted)
        self.asked_at = time.monotonic()
        latest = max(len(self.attempts), 1)
        attempt = wanted.get("attempt", latest)
        content = self.attempts[attempt - 1] if attempt <= len(self.attempts) else b""
        is_closed = attempt < latest or self.state in {"succeeded", "failed"}
        offset = wanted["offset"]
        offset = offset if offset >= 0 else max(0, len(content) + offset)
        part = content[offset : offset + wanted["limit"]]
        try:
            encoding, data = "utf-8", part.decode()
        except UnicodeDecodeError:
            encoding, data = "base64", base64.b64encode(part).decode()
        log = {
            "node_id": "n1",
            "tenant_id": command["tenant_id"],
            "job_id": command["job_id"],
            "state": self.state,
            "latest_attempt": latest,
            "attempt": attempt,
            "stream": wanted["stream"],
            **({"task": wanted["task"]} if "task" in wanted else {}),
            "offset": offset,
            "next_offset": offset + len(part),
            "size": len(content),
            "encoding": encoding,
            "data": data,
            "complete": is_closed and offset + len(part) >= len(content),
        }
        return {"outcome": "answered", "log": log}


@pytest.fixture
def read(http: httpx.Client, keys: Any) -> Callable[..., httpx.Response]:
    """GET the log of job-7."""

    def read(tenant: str = "acme", accept: str = "*/*", **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {keys.client(tenant)}", "Accept": accept}
        return http.get(PATH, params=query, headers=headers)

    return read


class Stream:
    """A follower's connection."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next event: its kind, its id, its data."""
        event: dict[str, Any] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if not line and event:
                return event
            if name in {"event", "id", "data"}:
                event[name] = json.loads(value) if name == "data" else value
        return {"event": "closed"}


@pytest.fixture
def follow(adapter: Any, keys: Any) -> Iterator[Callable[..., Any]]:
    """Follow the log of job-7; connections are closed after the test."""
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=30, trust_env=False))

        @contextmanager
        def follow(
            url: str = adapter.url, tenant: str = "acme", token: str | None = None, **query: Any
        ) -> Iterator[Stream]:
            headers = {"Authorization": f"Bearer {token or keys.client(tenant)}"}
            if last := query.pop("last", None):
                headers["Last-Event-ID"] = last
            asked = {"follow": "true", **query}
            with http.stream("GET", url + PATH, params=asked, headers=headers) as response:
                if not response.is_success:
                    response.read()
                yield Stream(response)

        yield follow


def problem(response: httpx.Response) -> str:
    return response.json()["type"].removeprefix(PROBLEMS)


def test_a_chunk_comes_from_the_node_as_it_was_asked_for(node, read):
    written = Written(b"0123456789")
    node.decide = written.decide

    response = read(stream="stderr", offset=-4, limit=2, attempt=1)

    assert response.status_code == 200
    assert response.json()["data"] == "67"
    assert written.asked == [{"stream": "stderr", "offset": -4, "limit": 2, "attempt": 1}]
    assert node.received[-1]["tenant_id"] == "acme"


def test_the_log_of_a_task_is_asked_for_by_its_number(node, read, follow):
    """Followed, it ends with the task: its job goes on."""
    written = Written(b"from a task\n")
    node.decide = written.decide

    answer = read(task=42).json()

    assert (answer["task"], answer["data"]) == (42, "from a task\n")
    assert written.asked == [{"stream": "stdout", "offset": 0, "limit": 65536, "task": 42}]
    node.decide = lambda command: _completed(written.decide(command))
    with follow(task=42) as stream:
        assert [stream.next()["event"], stream.next()["event"]] == ["log", "end"]


def _completed(verdict: dict[str, Any]) -> dict[str, Any]:
    return {**verdict, "log": {**verdict["log"], "complete": True}}


def test_without_parameters_the_first_64_kib_of_stdout_are_meant(node, read):
    written = Written(b"x" * 70_000)
    node.decide = written.decide

    assert len(read().json()["data"]) == 65536
    assert written.asked == [{"stream": "stdout", "offset": 0, "limit": 65536}]


def test_bytes_alone_for_whoever_prefers_text(node, read):
    node.decide = Written(b"\x00\xffbinary\n", state="failed").decide

    response = read(accept="text/plain")

    assert response.content == b"\x00\xffbinary\n"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    told = {name: response.headers[f"Log-{name}"] for name in ("Next-Offset", "Size", "Complete")}
    assert told == {"Next-Offset": "9", "Size": "9", "Complete": "true"}
    assert response.headers["Log-State"] == "failed"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stream=stdin", "stream"),
        ("offset=1e3", "offset"),
        ("offset=", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("limit=0", "limit"),
        ("limit=65537", "limit"),
        ("limit=-1", "limit"),
        ("attempt=0", "attempt"),
        ("task=-1", "task"),
        ("task=100000", "task"),
        ("task=0x1", "task"),
        ("follow=yes", "follow"),
        ("folow=true", "folow"),
        ("offset=1&offset=2", "offset"),
        ("tail=10", "tail"),
        ("a%0Ab=1", "a?b"),
    ],
)
def test_a_bad_parameter_is_named_and_the_node_is_not_asked(query, field, node, http, keys):
    headers = {"Authorization": f"Bearer {keys.client('acme')}"}

    response = http.get(f"{PATH}?{query}", headers=headers)

    assert (response.status_code, problem(response)) == (422, "validation-failed")
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert response.json()["errors"][0]["remedy"]
    assert node.received == []


@pytest.mark.parametrize("last", ["0:1", "1:-1", "1", "x:y", "1:1:1", "1:99999999999999999"])
def test_a_last_event_id_of_somebody_else_is_refused(last, node, http, keys):
    headers = {"Authorization": f"Bearer {keys.client('acme')}", "Last-Event-ID": last}

    response = http.get(PATH, headers=headers)

    assert (response.status_code, problem(response)) == (422, "validation-failed")
    assert [error["field"] for error in response.json()["errors"]] == ["Last-Event-ID"]


def test_a_log_needs_the_scope_to_read(node, http, keys):
    token = keys.client("acme", scope="jobs:submit jobs:cancel")

    response = http.get(PATH, headers={"Authorization": f"Bearer {token}"})

    assert (response.status_code, problem(response)) == (403, "forbidden")


def test_what_the_node_refuses_is_the_clients_answer_also_of_a_follower(node, read, follow):
    """Before any event: the status says it."""
    assert problem(read()) == "not-found"
    with follow() as stream:
        assert (stream.response.status_code, problem(stream.response)) == (404, "not-found")


def test_a_node_that_knows_no_logs_is_not_asked(node, read):
    node.operations = []
    try:
        eventually(lambda: problem(read()) == "operation-unsupported", "the node to be known")
        node.received.clear()
        read()
        assert node.received == []
    finally:
        node.operations = ["logs", "receipt"]
        eventually(lambda: problem(read()) == "not-found", "the node to know logs again")


def test_a_follower_gets_all_of_it_as_it_is_written_and_then_the_end(node, follow):
    written = Written(b"one\n")
    node.decide = written.decide
    with follow() as stream:
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["cache-control"] == "no-store"
        first = stream.next()
        assert (first["event"], first["id"], first["data"]["data"]) == ("log", "1:4", "one\n")
        written.attempts[0] += b"two\n"
        second = stream.next()
        assert (second["data"]["offset"], second["data"]["data"]) == (4, "two\n")
        written.attempts[0] += b"three\n"
        written.state = "succeeded"
        last, end = stream.next(), stream.next()

        assert (last["data"]["data"], end["event"]) == ("three\n", "end")
        assert (end["data"]["state"], end["data"]["data"]) == ("succeeded", "")
        assert stream.next() == {"event": "closed"}


def test_a_long_log_comes_in_bounded_chunks_without_pauses(node, follow):
    content = bytes(range(256)) * 8000
    node.decide = Written(content, state="failed").decide
    began, got = time.monotonic(), b""
    with follow() as stream:
        while (event := stream.next())["event"] != "end":
            part = base64.b64decode(event["data"]["data"])
            assert len(part) <= 65536
            got += part

    assert got == content
    assert time.monotonic() - began < 10  # a pause after each chunk would take 16 s


def test_a_follower_goes_on_in_the_next_attempt(node, follow):
    written = Written(b"first\n")
    node.decide = written.decide
    with follow() as stream:
        stream.next()
        written.attempts[0] += b"dies\n"
        written.attempts.append(b"second\n")
        written.state = "succeeded"
        rest, other, end = stream.next(), stream.next(), stream.next()

    assert (rest["event"], rest["data"]["data"]) == ("log", "dies\n")
    assert (other["event"], other["id"], other["data"]["data"]) == ("attempt", "2:7", "second\n")
    assert end["event"] == "end"


def test_a_follower_that_was_cut_off_goes_on_where_it_was(node, follow):
    """By the id of the last event, which names the attempt as well."""
    written = Written(b"first\n", b"second\n", state="succeeded")
    node.decide = written.decide
    with follow(last="1:3") as stream:
        events = [stream.next(), stream.next(), stream.next()]

    assert [event["event"] for event in events] == ["log", "attempt", "end"]
    assert [event["data"]["data"] for event in events] == ["st\n", "second\n", ""]


def test_an_outage_of_the_node_does_not_end_the_stream(node, follow):
    written = Written(b"one\n")
    node.decide = written.decide
    with follow() as stream:
        stream.next()
        node.decide = lambda _: node.reject("node-failed", 503)
        trouble = stream.next()
        assert (trouble["event"], trouble["data"]["status"]) == ("problem", 503)
        assert "id" not in trouble
        written.attempts[0] += b"two\n"
        node.decide = written.decide

        assert stream.next()["data"]["data"] == "two\n"


def test_a_client_that_goes_away_stops_the_asking(node, follow):
    written = Written(b"one\n")
    node.decide = written.decide
    with follow() as stream:
        stream.next()

    def has_been_quiet() -> bool:
        """Longer than between any two looks."""
        return time.monotonic() - written.asked_at > 4

    eventually(has_been_quiet, "the adapter to ask no more", seconds=30)


def test_followers_of_a_tenant_are_bounded_and_no_other_tenants(node, own_adapter, keys, follow):
    written = Written(b"one\n")
    adapter = own_adapter(log_requests_per_tenant=2)
    other = node.__class__(adapter.url, keys)
    other.decide = written.decide
    try:
        with follow(adapter.url) as one, follow(adapter.url) as two:
            assert [one.next()["event"], two.next()["event"]] == ["log", "log"]
            with follow(adapter.url) as third:
                refused = third.response
            assert (refused.status_code, problem(refused)) == (429, "too-many-requests")
            assert int(refused.headers["Retry-After"]) >= 1
            with follow(adapter.url, tenant="globex") as foreign:
                assert foreign.next()["event"] == "log"

        def free() -> bool:
            with follow(adapter.url) as stream:
                return bool(stream.response.is_success)

        eventually(free, "a place", seconds=20)
    finally:
        other.stop()


def test_a_stream_does_not_outlive_the_clients_token_or_the_setting(
    node, own_adapter, keys, follow
):
    """The client comes again, with a token that is good."""
    adapter = own_adapter(follow_seconds=2)
    other = node.__class__(adapter.url, keys)
    other.decide = Written(b"one\n").decide
    try:
        for token in (None, keys.client("acme", exp=int(time.time()) + 2)):
            began = time.monotonic()
            with follow(adapter.url, token=token) as stream:
                assert stream.next()["event"] == "log"
                assert stream.next()["event"] == "closed"
            assert time.monotonic() - began < 10
    finally:
        other.stop()


def test_a_stream_does_not_outlive_a_service_token_that_was_revoked(
    node, own_adapter, convex, keys, follow
):
    adapter = own_adapter(registry_seconds=1)
    other = node.__class__(adapter.url, keys)
    other.decide = Written(b"one\n").decide
    token = convex.registry.service_token("acme", "jobs:read")
    try:
        with follow(adapter.url, token=token) as stream:
            assert stream.next()["event"] == "log"
            convex.registry.revoke_token(token)
            end = stream.next()
            assert (end["event"], end["data"]["status"]) == ("problem", 401)
            assert stream.next()["event"] == "closed"
    finally:
        other.stop()


def test_an_adapter_that_stops_ends_its_streams_at_once(node, own_adapter, keys, follow):
    adapter = own_adapter()
    other = node.__class__(adapter.url, keys)
    other.decide = Written(b"one\n").decide
    try:
        with follow(adapter.url) as stream:
            stream.next()
            stopping = threading.Thread(target=adapter.stop)
            began = time.monotonic()
            stopping.start()
            assert stream.next()["event"] == "closed"
            stopping.join()
        assert time.monotonic() - began < 5
    finally:
        other.stop()
