"""Huge, deep and malformed requests against the socket: the adapter answers or closes, and keeps none of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.security.wire import (
    connected,
    everything,
    exchange,
    head,
    resident_mib,
    statuses,
)

JOBS = "POST /v1/nodes/n1/jobs HTTP/1.1"
MIB = 1024 * 1024


pytestmark = pytest.mark.usefixtures("others_are_served")
HUGE = b"A" * MIB
HEADS = {
    "huge header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: " + HUGE,
    "huge target": b"GET /" + HUGE,
    "huge method": HUGE,
    "many headers": b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 100_000,
    "huge name": b"GET /livez HTTP/1.1\r\nHost: a\r\n" + HUGE + b": b\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "junk": bytes(range(256)) * 8 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/9.9": b"GET /livez HTTP/9.9\r\nHost: a\r\n\r\n",
    "folded header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c: d\r\n\r\n\x00",
    "space before colon": b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nabcde",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n",
    "bare CR": b"GET /livez HTTP/1.1\rHost: a\r\r",
    "beyond ASCII": "GET /ü HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_none_is_refused_or_dropped(case, hostile):
    before = resident_mib(hostile.process.pid)

    answer = exchange(hostile.port, HEADS[case])

    assert statuses(answer) in ([], [400], [200]), answer
    if statuses(answer) == [200]:  # what may be read so, and was
        assert case == "folded header"
    if statuses(answer) == [400]:
        assert b"content-type: application/problem+json" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400
    assert resident_mib(hostile.process.pid) - before < 16


# A request whose end two parsers would see at different places, and within it a second one.
INNER = b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Smuggled: 1\r\n\r\n"
SMUGGLING = {
    "length and chunks": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "chunks and length": ["Transfer-Encoding: chunked", "Content-Length: 4"],
    "two lengths": ["Content-Length: 0", "Content-Length: 50"],
    "a list of lengths": ["Content-Length: 0, 50"],
    "a length with a sign": ["Content-Length: +0"],
    "a negative length": ["Content-Length: -1"],
    "a length in hex": ["Content-Length: 0x0"],
    "an endless length": ["Content-Length: " + "9" * 30],
    "a coding unknown": ["Transfer-Encoding: gzip"],
    "two codings": ["Transfer-Encoding: gzip, chunked"],
    "chunked twice": ["Transfer-Encoding: chunked, chunked"],
    "a coding in disguise": ["Transfer-Encoding: \x0bchunked"],
    "two coding headers": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "space before the colon": ["Transfer-Encoding : chunked"],
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_no_request_hides_in_another(case, hostile, allowed):
    """One answer at most, and the connection ends: nobody reads the rest as a request."""
    lines = [JOBS, "Host: a", *(f"{k.replace('_', '-')}: {v}" for k, v in allowed.items())]
    start = "\r\n".join([*lines, *SMUGGLING[case], "", ""]).encode("latin-1")

    answer = exchange(hostile.port, start + b"0\r\n\r\n" + INNER)

    assert statuses(answer) in ([], [400], [413], [501]), answer
    assert b'"status":"ok"' not in answer


CHUNKS = {
    "no length": b"\r\n\r\n",
    "no hex": b"zz\r\n\r\n",
    "a huge length": b"f" * 17 + b"\r\n",
    "a longer chunk": b"1\r\nabc\r\n0\r\n\r\n",
    "an endless extension": b"1;" + b"a" * MIB,
    "an endless trailer": b"0\r\n" + b"X-A: b\r\n" * 100_000,
    "a negative length": b"-1\r\n\r\n",
    "bare line feeds": b"1\n{\n0\n\n",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_chunks_that_are_none_end_the_request(case, hostile, allowed):
    before = resident_mib(hostile.process.pid)

    answer = exchange(
        hostile.port, head(JOBS, **allowed, Transfer_Encoding="chunked") + CHUNKS[case]
    )

    assert statuses(answer) in ([], [400]), answer
    assert resident_mib(hostile.process.pid) - before < 16


def endless(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield b" " * 65536


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_huge_body_is_refused_and_not_kept(has_token, is_chunked, hostile, allowed):
    """64 MiB at routes that take KiB: with a credential or without, with a length or without."""
    before = resident_mib(hostile.process.pid)
    if not has_token:
        del allowed["Authorization"]
    framing = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(64 * MIB)}
    with connected(hostile.port) as connection:
        connection.sendall(head(JOBS, **allowed, **framing))
        try:
            for part in endless(64 * MIB):
                connection.sendall(b"10000\r\n" + part + b"\r\n" if is_chunked else part)
            connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        answer = everything(connection)

    assert statuses(answer) in ([], [413] if has_token else [401])
    assert resident_mib(hostile.process.pid) - before < 32


BODIES: dict[str, bytes] = {
    "deep lists": b"[" * 100_000,
    "deep and whole": b"[" * 50_000 + b"]" * 50_000,
    "deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "a name twice": b'{"tenant_id":"acme","tenant_id":"globex"}',
    "a name twice inside": b'{"workload":{"image":"a","image":"b"}}',
    "invalid UTF-8": b'{"tenant_id":"\xff\xfe"}',
    "overlong UTF-8": b'{"tenant_id":"\xc0\xaf"}',
    "a surrogate": b'{"tenant_id":"\\ud800"}',
    "a surrogate in UTF-8": b'{"tenant_id":"\xed\xa0\x80"}',
    "NUL": b'{"tenant_id":"\\u0000"}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "NaN": b'{"cpu":NaN}',
    "a number without end": b"9" * 200_000,
    "an exponent": b'{"cpu":1e999999999}',
    "many names": b"{" + b",".join(b'"%d":1' % n for n in range(20_000)) + b"}",
    "compressed": b"\x1f\x8b\x08\x00" + b"\x00" * 100,
    "two documents": b"{}{}",
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("path", ["/n1/jobs", "/n1/events", "/n1/heartbeat", ":enroll"])
def test_a_hostile_body_is_a_problem_of_the_caller(case, path, hostile, keys, problem):
    """Never a failure of ours, and nothing of it is repeated."""
    token = keys.client("acme") if path == "/n1/jobs" else keys.node("n1")
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Idempotency-Key": f'"{uuid4()}"',
    }
    url = f"{hostile.url}/v1/nodes{path}"

    response = httpx.post(url, content=BODIES[case], headers=headers, timeout=10, trust_env=False)

    assert problem(response) in {
        (400, "malformed-request"),
        (413, "payload-too-large"),
        (422, "validation-failed"),
    }
    assert len(response.content) < 16 * 1024
