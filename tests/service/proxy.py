"""A broken copy of an implementation: a proxy that passes everything on, but for the one thing that it gets wrong."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

_HOPS = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass
class Passing:
    """A request on its way, or the answer to it."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    status: int = 0


class Broken:
    """Passes on to a port of this machine.

    Args:
        ask: changes a request before it is passed on.
        answer: changes an answer before it is passed back; gets the request too.
        early: what to answer before the other side does; `None` waits.
    """

    def __init__(
        self,
        port: int,
        ask: Callable[[Passing], Passing] = lambda asked: asked,
        answer: Callable[[Passing, Passing], Passing] = lambda _, answered: answered,
        early: Callable[[Passing], Passing | None] = lambda _: None,
    ) -> None:
        pool = ThreadPoolExecutor(32)

        def passed(asked: Passing) -> Passing:
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            upstream.request(asked.method, asked.path, asked.content, asked.headers)
            told = upstream.getresponse()
            headers = {
                name: value for name, value in told.getheaders() if name.lower() not in _HOPS
            }
            answered = Passing(asked.method, asked.path, headers, told.read(), told.status)
            upstream.close()
            return answered

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            headers: Message

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                kept = {
                    name: value for name, value in self.headers.items() if name.lower() not in _HOPS
                }
                asked = ask(Passing(self.command, self.path, kept, self.rfile.read(length)))
                work = pool.submit(passed, asked)
                answered = early(asked) or answer(asked, work.result())
                self.send_response_only(answered.status)
                for name, value in {
                    **answered.headers,
                    "Content-Length": str(len(answered.content)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answered.content)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def changed(passing: Passing, **changes: Any) -> Passing:
    """Another request or answer."""
    return replace(passing, **changes)
