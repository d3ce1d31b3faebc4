"""A product that answers on the wire as Convex does, and fails on demand."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from tests.service.keys import Keys


class FakeConvex:
    """`POST /api/mutation` as Convex answers it; `faults` are met first, one per call."""

    def __init__(self, keys: Keys) -> None:
        self.faults: deque[str] = deque()
        self.poison: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.stored: list[str] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self._public = keys.private["service"].public_key()
        product = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                call = json.loads(self.rfile.read(length))
                fault = product.faults.popleft() if product.faults else None
                if fault == "reset":
                    return self._reset()
                if fault in {"401", "429", "503"}:
                    return self._answer(int(fault), {"code": "Injected", "message": fault})
                answer = product._call(self.headers["Authorization"], call)
                if fault == "lost-reply":
                    return self._reset()
                return self._answer(200, answer)

            def _reset(self) -> None:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                self.close_connection = True

            def _answer(self, status: int, body: object) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

            def finish(self) -> None:
                if not self.connection._closed:
                    super().finish()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _call(self, authorization: str, call: dict[str, Any]) -> dict[str, Any]:
        token = authorization.removeprefix("Bearer ")
        claims = jwt.decode(token, self._public, ["ES256"], audience="convex")
        self.tokens.append(token)
        args = call["args"]
        if call["path"] == "nodes:recordHeartbeat":
            assert args["node_id"] == claims["node_id"]
            self.heartbeats.append(args)
            return {"status": "success", "value": {"outcome": "applied"}}
        assert call["path"] == "projections:applyProjections"
        ids = [update["projection_id"] for update in args["updates"]]
        if self.poison & set(ids):
            return {"status": "error", "errorMessage": "Server Error"}
        if not ids:
            return {"status": "error", "errorMessage": "x", "errorData": {"code": "invalid"}}
        outcomes = [{"projection_id": name, **self._outcome(name)} for name in ids]
        return {"status": "success", "value": {"outcomes": outcomes}}

    def _outcome(self, name: str) -> dict[str, str]:
        if name in self.rejected:
            return {"outcome": "rejected", "code": self.rejected[name]}
        if name in self.stored:
            return {"outcome": "duplicate"}
        self.stored.append(name)
        return {"outcome": "applied"}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
