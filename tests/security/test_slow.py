"""Slow and silent clients against the socket: the adapter lets go of them in time, and serves everybody else."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.security.hostile import PATIENCE
from tests.security.wire import (
    connected,
    drip,
    ever,
    everything,
    head,
    resident_mib,
    statuses,
    until_reset,
)
from tests.service.node import ScriptedNode

JOBS = "POST /v1/nodes/n1/jobs HTTP/1.1"
MIB = 1024 * 1024


pytestmark = pytest.mark.usefixtures("others_are_served")


def serves_within(url: str, seconds: float) -> None:
    began = time.monotonic()
    with httpx.Client(base_url=url, timeout=seconds, trust_env=False) as http:
        for _ in range(20):
            assert http.get("/livez").status_code == 200
    assert time.monotonic() - began < seconds


def test_who_sends_slowly_is_cut_off_and_holds_up_nobody(hostile, allowed):
    """Nothing at all, a head or a body byte by byte, chunks without end, a body that was refused long ago."""
    token = {name: value for name, value in allowed.items() if name != "Authorization"}
    slow: dict[str, tuple[bytes, Callable[[], Iterator[bytes]]]] = {
        "nothing": (b"", ever(b"")),
        "a head": (b"GET /livez HTTP/1.1\r\n", ever(b"X-A: b\r\n")),
        "a line": (b"GET /", ever(b"a")),
        "a body": (head(JOBS, **allowed, Content_Length="9000"), ever(b" ")),
        "chunks": (head(JOBS, **allowed, Transfer_Encoding="chunked"), ever(b"1\r\n \r\n")),
        "a chunk's length": (head(JOBS, **allowed, Transfer_Encoding="chunked"), ever(b"0")),
        "a refused body": (head(JOBS, **token, Content_Length="9000"), ever(b" ")),
        "refused chunks": (head(JOBS, **token, Transfer_Encoding="chunked"), ever(b"1\r\n \r\n")),
        "an enrolment": (
            head(
                "POST /v1/nodes:enroll HTTP/1.1",
                Content_Type="application/json",
                Content_Length="4000",
            ),
            ever(b" "),
        ),
        "a second head": (head("GET /livez HTTP/1.1") + b"GET /l", ever(b"i")),
    }
    took: dict[str, float] = {}

    def send(name: str) -> None:
        begin, parts = slow[name]
        with connected(hostile.port) as connection:
            connection.sendall(begin)
            took[name] = drip(connection, parts(), every=0.2, most=20)

    threads = [threading.Thread(target=send, args=(name,)) for name in slow]
    for thread in threads:
        thread.start()
    serves_within(hostile.url, 15)
    for thread in threads:
        thread.join(30)

    assert took.keys() == slow.keys()


def test_a_body_that_comes_too_slowly_is_told_so(hostile, allowed):
    with connected(hostile.port) as connection:
        connection.sendall(head(JOBS, **allowed, Content_Length="9000") + b"{")
        answer = everything(connection)

    assert statuses(answer) == [400]
    assert (
        json.loads(answer.partition(b"\r\n\r\n")[2])["detail"] == "The body did not arrive in time."
    )


def test_a_body_that_keeps_coming_may_take_its_time(hostile, allowed, command, keys):
    """Each KiB earns a second: a slow link is no attack."""
    node = ScriptedNode(hostile.url, keys)
    try:
        content = json.dumps(command).encode().ljust(16 * 1024)
        with connected(hostile.port) as connection:
            connection.sendall(
                head(JOBS, **allowed, Content_Length=str(len(content)), Connection="close")
            )
            began = time.monotonic()
            for start in range(0, len(content), 4096):
                connection.sendall(content[start : start + 4096])
                threading.Event().wait(PATIENCE / 2)
            answer = everything(connection)
        assert time.monotonic() - began > PATIENCE
        assert statuses(answer) == [202]
    finally:
        node.stop()


def test_who_reads_no_answer_is_let_go(hostile):
    """Many answers asked for, none read: what waits to be sent is bounded, and given up."""
    before = resident_mib(hostile.process.pid)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hostile.port))
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 64 * MIB:
                sent += connection.send(head("GET /nowhere HTTP/1.1") * 100)
        serves_within(hostile.url, 15)
        assert until_reset(connection, 30)

    assert sent < 64 * MIB
    assert resident_mib(hostile.process.pid) - before < 32


def test_a_thousand_idle_connections_leave_room_for_others(hostile):
    """More than the 1024 files of many a system's default, if the adapter did not ask for what it may have."""
    before = resident_mib(hostile.process.pid)
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(hostile.port)) for _ in range(1000)]
        serves_within(hostile.url, 20)
        used = resident_mib(hostile.process.pid) - before
        for connection in idle:
            assert connection.recv(1) == b""  # each is closed, unanswered, in its time

    assert used < 64


def test_the_adapter_asks_for_the_files_that_it_may_have(own_adapter):
    """Started with a soft limit it still holds more connections than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 64 + len(list(Path("/proc/self/fd").iterdir()))  # this process has to live with it too
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        small = own_adapter()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with ExitStack() as stack:
        for _ in range(few + 100):
            stack.enter_context(connected(small.port))
        serves_within(small.url, 15)
