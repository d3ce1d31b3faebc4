"""The benchmarks' clients, against a server of the standard library."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import clients


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Idempotency-Key"], body))
        self.send_response(202 if body == b"{}" else 422)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize(("body", "right"), [(b"{}", True), (b"[]", False)])
def test_each_client_sends_one_request_after_the_other(server, body, right):
    url = f"http://127.0.0.1:{server.server_port}"

    def make():
        return clients.request("POST", f"{url}/jobs", "token", body, "key-1")

    answers = clients.run(url, make, clients=2, seconds=0.2, wanted=202)

    assert set(server.seen) == {("/jobs", '"key-1"', body)}
    assert len(server.seen) == len(answers.seconds) + answers.others
    assert (answers.others == 0, answers.rate > 0) == (right, right)
