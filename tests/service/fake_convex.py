"""A product that answers on the wire as Convex does, and fails on demand."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from aiida_byoc.contracts.conformance.projections import EpochMismatchError, Projections
from tests.service.keys import Keys
from tests.service.registry_functions import RegistryFunctions


class FakeConvex:
    """`POST /api/mutation` and `POST /api/query` as Convex answers them.

    Attributes:
        faults: met first, one per call: `reset`, `lost-reply`, a status (`503`), a status that asks for a pause
            (`503 7`), `slow` (the call is carried out, its answer waits until `go_on` is set), or `late` (the call
            itself waits until then).
        down: whether every call meets a reset.
        poison: updates for which a call is refused whole, without a reason.
        projections: what it stored.
        registry: the nodes and service tokens that it knows.
        calls: what it was asked.
        entered: released once for each call that waits.
    """

    def __init__(self, keys: Keys) -> None:
        self.faults: deque[str] = deque()
        self.down = False
        self.poison: set[str] = set()
        self.projections = Projections()
        self.registry = RegistryFunctions()
        self.heartbeats: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()
        self._guard = threading.Lock()
        self._public = keys.private["service"].public_key()
        handler = type("Handler", (_Handler,), {"product": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, authorization: str, kind: str, call: dict[str, Any]) -> dict[str, Any]:
        """Carry a call out, one at a time, as transactions are."""
        with self._guard:
            return self._call(authorization, kind, call)

    def _call(self, authorization: str, kind: str, call: dict[str, Any]) -> dict[str, Any]:
        token = authorization.removeprefix("Bearer ")
        claims = jwt.decode(token, self._public, ["ES256"], audience="convex")
        self.tokens.append(token)
        self.calls.append(call)
        args = call["args"]
        if call["path"].startswith("registry:"):
            value = self.registry.call(kind, call["path"], args, claims["scope"].split(" "))
            return {"status": "success", "value": value}
        assert kind == "mutation"
        if call["path"] == "nodes:recordHeartbeat":
            assert args["node_id"] == claims["node_id"]
            self.heartbeats.append(args)
            return {"status": "success", "value": {"outcome": "applied"}}
        assert call["path"] == "projections:applyProjections"
        updates = args["updates"]
        if self.poison & {update["projection_id"] for update in updates}:
            return {"status": "error", "errorMessage": "Server Error"}
        if not updates:
            return _refusal("invalid")
        try:
            outcomes = self.projections.apply(claims["node_id"], updates)
        except EpochMismatchError:
            return _refusal("epoch_mismatch")
        return {"status": "success", "value": {"outcomes": outcomes}}

    @property
    def stored(self) -> list[str]:
        """The ids of what it took, in the order of arrival."""
        return [update["projection_id"] for update in self.projections.timeline.values()]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _refusal(code: str) -> dict[str, Any]:
    data = {"code": code, "message": "A sentence on why"}
    return {"status": "error", "errorMessage": "Server Error", "errorData": data}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # many may come at once


class _Handler(BaseHTTPRequestHandler):
    product: FakeConvex
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        call = json.loads(self.rfile.read(length))
        fault = self.product.faults.popleft() if self.product.faults else ""
        if fault == "reset" or self.product.down:
            return self._reset()
        if fault[:1].isdigit():
            status, _, pause = fault.partition(" ")
            return self._answer(int(status), {"code": "Injected", "message": fault}, pause)
        if fault == "late":
            self._wait()
        answer = self.product.answer(
            self.headers["Authorization"], self.path.removeprefix("/api/"), call
        )
        if fault == "slow":
            self._wait()
        return self._reset() if fault == "lost-reply" else self._answer(200, answer)

    def _wait(self) -> None:
        self.product.entered.release()
        self.product.go_on.wait(60)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def _answer(self, status: int, body: object, pause: str = "") -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        if pause:
            self.send_header("Retry-After", pause)
        self.send_header("Content-Length", str(len(content)))
        with contextlib.suppress(ConnectionError):  # who asked may have given up
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        if not self.connection._closed:
            super().finish()
