"""Whatever a node sends: a documented problem, or an event set aside; nothing of that job applied, other jobs go on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.service.events import BATCH, event
from tests.service.node import PROBLEMS

SECRET = "hunter2"
MIB = 1024 * 1024


def whole(job: str) -> bytes:
    return json.dumps([event(job, 1), event(job, 2)]).encode()


# What is sent in place of a batch, made of the bytes of a good one, and the problem it gets.
BYTES = {
    "nothing": (lambda good: b"", 400, "malformed-request"),
    "junk": (lambda good: b"\x00\xff" * 500, 400, "malformed-request"),
    "compressed": (lambda good: b"\x1f\x8b\x08\x00" + good, 400, "malformed-request"),
    "another encoding": (lambda good: good.decode().encode("utf-16"), 400, "malformed-request"),
    "cut off": (lambda good: good[:-7], 400, "malformed-request"),
    "two documents": (lambda good: good + good, 400, "malformed-request"),
    "a name twice": (
        lambda good: good.replace(b'"seq": 2', b'"seq": 2, "seq": 3'),
        400,
        "malformed-request",
    ),
    "NaN": (lambda good: good.replace(b'"seq": 2', b'"seq": NaN'), 400, "malformed-request"),
    "Infinity": (
        lambda good: good.replace(b'"seq": 2', b'"seq": -Infinity'),
        400,
        "malformed-request",
    ),
    "a number without end": (
        lambda good: good.replace(b'"seq": 2', b'"seq": ' + b"9" * 10_000),
        400,
        "malformed-request",
    ),
    "deep": (lambda good: b"[" * 100_000, 400, "malformed-request"),
    "deep and whole": (lambda good: b"[" * 5000 + b"]" * 5000, 400, "malformed-request"),
    "an object": (lambda good: b"{}", 422, "validation-failed"),
    "a string": (lambda good: b'"x"', 422, "validation-failed"),
    "null": (lambda good: b"null", 422, "validation-failed"),
    "an empty batch": (lambda good: b"[]", 422, "validation-failed"),
    "a batch of 101": (
        lambda good: b"[" + b",".join([good[1:-1]] * 51) + b"]",
        422,
        "validation-failed",
    ),
    "8 MiB and more": (lambda good: good + b" " * 8 * MIB, 413, "payload-too-large"),
}


@pytest.mark.parametrize("case", BYTES)
def test_what_is_no_batch_is_a_problem_and_nothing_is_applied(case, deliver, convex, job):
    """I21: and the node goes on with the next request."""
    spoil, status, name = BYTES[case]
    stored = len(convex.stored)

    response = deliver(spoil(whole(job)))

    assert (response.status_code, response.json()["type"]) == (status, PROBLEMS + name)
    assert len(convex.stored) == stored
    assert deliver(whole(job)).json()["next_seq"] == {job: 3}


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/cloudevents+json", f"{BATCH}; charset=utf-16", "json", "", "*/*"],
)
def test_another_media_type_is_refused(content_type, deliver, convex, job):
    response = deliver(whole(job), content_type)

    assert (response.status_code, response.json()["type"]) == (
        415,
        PROBLEMS + "unsupported-media-type",
    )
    assert f"{job}:1" not in convex.stored


def answer_to(adapter, keys, framing: str, body: Iterator[bytes]) -> bytes:
    """The status line for a request that is written as far as the adapter reads."""
    head = (
        f"POST /v1/nodes/n1/events HTTP/1.1\r\nHost: adapter\r\n{framing}\r\n"
        f"Authorization: Bearer {keys.node('n1')}\r\nContent-Type: {BATCH}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", adapter.port), timeout=30) as connection:
        connection.sendall(head.encode())
        try:
            for chunk in body:
                connection.sendall(chunk)
                connection.setblocking(False)
                try:
                    if answer := connection.recv(65536):
                        return answer
                except BlockingIOError:
                    pass
                finally:
                    connection.settimeout(30)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return connection.recv(65536)


def test_100_mb_are_refused_before_they_are_sent(adapter, keys, convex):
    """By their declared length; nobody has to send the body to learn it."""
    answer = answer_to(adapter, keys, f"Content-Length: {100 * MIB}", iter([b"["]))

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_100_mb_in_pieces_are_refused_after_8(adapter, keys, convex):
    sent = []

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(MIB)
            yield f"{MIB:x}\r\n".encode() + b" " * MIB + b"\r\n"

    answer = answer_to(adapter, keys, "Transfer-Encoding: chunked", pieces())

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert 8 <= len(sent) < 100


@pytest.mark.parametrize("off", [-10, 10])
def test_a_length_that_lies_gets_nothing_through(off, adapter, keys, convex, job):
    """Too short: the rest is no request. Too long: the body never comes to its end."""
    content = whole(job)

    answer = answer_to(adapter, keys, f"Content-Length: {len(content) + off}", iter([content]))

    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert f"{job}:1" not in convex.stored


def data(**fields):
    def change(raw):
        raw["data"].update(fields)

    return change


def envelope(**fields):
    def change(raw):
        raw.update(fields)

    return change


def without(field: str):
    return lambda raw: raw["data"].pop(field)


EVENTS = {
    "source of another node": (envelope(source="/nodes/n2"), "forbidden"),
    "source of a name that begins alike": (envelope(source="/nodes/n11"), "forbidden"),
    "source elsewhere": (envelope(source="https://n1/nodes/n1"), None),
    "no source": (lambda raw: raw.pop("source"), "validation-failed"),
    "tenant of others": (data(tenant_id="initech"), "forbidden"),
    "another event type": (envelope(type="org.aiida-byoc.execution.queued.v1"), None),
    "an unknown event type": (envelope(type="com.example.created"), None),
    "another subject": (envelope(subject="job-of-others"), None),
    "no id": (lambda raw: raw.pop("id"), None),
    "an unknown state": (data(state=SECRET), None),
    "no state": (without("state"), None),
    "seq 0": (data(seq=0), None),
    "a negative seq": (data(seq=-2), None),
    "seq as a string": (data(seq="2"), None),
    "a fractional seq": (data(seq=2.5), None),
    "seq true": (data(seq=True), None),
    "no seq": (without("seq"), None),
    "attempt 0": (data(attempt=0), None),
    "a name that is none": (data(workspace_id="../etc"), None),
    "a time without offset": (data(occurred_at="2026-02-15T10:00:00"), None),
    "no time at all": (envelope(time="yesterday"), None),
    "half a character": (data(reason="\ud800"), None),
    "a usage that is not finite": (
        data(result={"exit_code": 0, "usage": {"cpu_seconds": float("inf")}}),
        None,
    ),
    "a long text": (data(reason="x" * 100_000), None),
    "another form of epoch": (data(epoch="0123"), None),
    "data that is no object": (envelope(data=[SECRET]), None),
    "deep data": (data(scheduler=json.loads("[" * 90 + "]" * 90)), None),
    "a result without exit code": (data(result={"outputs": []}), None),
    "an output of minus one byte": (
        data(result={"exit_code": 0, "outputs": [{"name": "a", "size": -1, "sha256": "b" * 64}]}),
        None,
    ),
}


@pytest.mark.parametrize("case", EVENTS)
def test_an_event_at_fault_stops_its_job_and_no_other(case, deliver, convex):
    """I14: it is set aside by name, what came before it is kept, what follows it waits."""
    change, code = EVENTS[case]
    bad, before, after = (str(uuid4()) for _ in range(3))
    spoiled = event(bad, 2)
    change(spoiled)
    batch = [
        event(before, 1),
        event(bad, 1),
        spoiled,
        event(bad, 3),
        event(after, 1),
        event(before, 2),
    ]

    response = deliver(json.dumps(batch).replace("Infinity", "1e400").encode())

    assert response.status_code == 200
    answer = response.json()
    [quarantined] = answer["quarantined"]
    assert quarantined["code"] == (code or "validation-failed")
    assert quarantined["event_id" if "data" in case else "submission_id"] in (bad, f"{bad}-2")
    assert SECRET not in response.text
    assert {before: 3, after: 2}.items() <= answer["next_seq"].items()
    assert answer["next_seq"][bad] <= 2
    assert [name for name in convex.stored if bad in name] == [f"{bad}:1"]


def test_one_job_told_otherwise_stops_alone_among_twenty(deliver, convex):
    bad, *good = (str(uuid4()) for _ in range(21))
    deliver([event(bad, 1), event(bad, 2)])
    batch = [event(name, seq) for seq in (1, 2) for name in good]
    batch[17:17] = [event(bad, 2, reason="told otherwise"), event(bad, 3)]

    answer = deliver(batch).json()

    assert [(one["submission_id"], one["seq"], one["code"]) for one in answer["quarantined"]] == [
        (bad, 2, "seq_conflict")
    ]
    assert answer["next_seq"] == dict.fromkeys(good, 3)
    assert f"{bad}:3" in convex.stored  # the product decides for each update by itself
    assert {f"{name}:{seq}" for name in good for seq in (1, 2)} <= set(convex.stored)


def test_a_seq_that_no_number_of_the_product_can_hold_is_its_own_jobs_fault(deliver, job):
    other = str(uuid4())

    answer = deliver([event(job, 10**30), event(other, 1)]).json()

    assert [(one["submission_id"], one["code"]) for one in answer["quarantined"]] == [
        (job, "invalid")
    ]
    assert answer["next_seq"] == {other: 2}


HEARTBEATS = {
    "half a character": b'{"sent_at": "2026-02-15T10:00:00Z", "versions": {"a": "\\ud800"}}',
    "half a character as a name": b'{"sent_at": "2026-02-15T10:00:00Z", "versions": {"\\ud800": "1"}}',
}


@pytest.mark.parametrize("case", HEARTBEATS)
def test_a_heartbeat_that_cannot_be_stored_is_refused(case, http, keys, convex):
    told = len(convex.heartbeats)
    headers = {"Authorization": f"Bearer {keys.node('n1')}", "Content-Type": "application/json"}

    response = http.post("/v1/nodes/n1/heartbeat", content=HEARTBEATS[case], headers=headers)

    assert response.status_code in {400, 422}
    assert len(convex.heartbeats) == told


def test_a_gap_in_a_batch_is_no_fault_and_sent_again(deliver, convex, job):
    other = str(uuid4())

    answer = deliver([event(job, 1), event(job, 3), event(other, 1), event(job, 2)]).json()

    assert answer == {"next_seq": {job: 2, other: 2}, "quarantined": []}
    assert [name for name in convex.stored if job in name] == [f"{job}:1"]
