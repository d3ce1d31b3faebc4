"""The proxy does to a request what its rule says, and leaves the others alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from lab.chaos.proxy import Fault, FaultProxy, Rule
from lab.paths import LabPaths
from tests.eventually import eventually


@dataclass
class Server:
    """What a server behind a proxy has seen."""

    proxy: FaultProxy
    seen: list[bytes] = field(default_factory=list)

    def post(self, path: str = "/a", seconds: float = 10) -> httpx.Response:
        """Send a request through the proxy."""
        return httpx.post(f"{self.proxy.url}{path}", content=b"body", timeout=seconds)


@pytest.fixture
def server(paths: LabPaths) -> Iterator[Server]:
    """An echo on the loopback, behind a proxy."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            behind.seen.append(body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{upstream.server_port}"
        behind = Server(FaultProxy(url, paths.ports("proxy")[0]))
        try:
            yield behind
        finally:
            behind.proxy.close()
            upstream.shutdown()


@pytest.mark.parametrize(
    ("fault", "seen"), [(Fault.DROP, 0), (Fault.LOSE_ANSWER, 1), (Fault.CUT_ANSWER, 1)]
)
def test_a_lost_request_or_answer_is_a_broken_connection(
    server: Server, fault: Fault, seen: int
) -> None:
    """The client cannot tell whether the server has seen it; the next request passes."""
    with server.proxy.rule(Rule(fault, times=1)):
        with pytest.raises(httpx.TransportError):
            server.post()
        assert len(server.seen) == seen

        assert server.post().content == b"body"


@pytest.mark.parametrize(("fault", "status"), [(Fault.THROTTLE, 429), (Fault.UNAVAILABLE, 503)])
def test_a_refusal_says_when_to_come_back(server: Server, fault: Fault, status: int) -> None:
    """The server has not seen it."""
    with server.proxy.rule(Rule(fault)):
        answer = server.post()

    assert (answer.status_code, answer.headers["Retry-After"], server.seen) == (status, "1", [])


def test_a_duplicate_arrives_after_the_answer(server: Server) -> None:
    """Twice at the server, one answer."""
    with server.proxy.rule(Rule(Fault.DUPLICATE, times=1)):
        assert server.post().content == b"body"

    eventually(lambda: server.seen == [b"body", b"body"], "the second copy")


def test_a_black_hole_swallows(server: Server) -> None:
    """Only the client's own patience ends it."""
    with server.proxy.rule(Rule(Fault.BLACK_HOLE)), pytest.raises(httpx.ReadTimeout):
        server.post(seconds=0.5)

    assert server.seen == []


def test_a_rule_is_for_the_requests_it_names_and_acts_at_their_moment(server: Server) -> None:
    """Before the server has seen a request, or after it has and before the client knows."""
    moments: list[int] = []
    for fault in (Fault.NONE, Fault.LOSE_ANSWER):
        rule = Rule(fault, match="^POST /b", action=lambda: moments.append(len(server.seen)))
        with server.proxy.rule(rule):
            server.post("/a")
            if fault is Fault.NONE:
                server.post("/b")
            else:
                with pytest.raises(httpx.TransportError):
                    server.post("/b")
        assert rule.applied == 1

    assert moments == [1, 4]
