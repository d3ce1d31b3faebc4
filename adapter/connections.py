"""HTTP/1.1 that no client holds up for nothing: uvicorn bounds neither a slow head nor an unread answer."""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from adapter.problems import MEDIA_TYPE
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["allow_connections", "patient"]

_Stage = Literal["asking", "answering", "idle"]
_UNREAD = 3
"""So many times longer may a client take nothing of an answer: links are lost for a while."""


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol for a server whose clients get so long for the head of a request."""

    class Patient(_Connection):
        patience = seconds

    return Patient


def allow_connections() -> None:
    """Use as many file descriptors as the system lets us have, not the few that it suggests."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Http(h11.Connection):
    """HTTP/1.1 of which everybody on the way sees the same requests (RFC 9112 §6.3, §11.2).

    The head of an answer whose length is known goes with its body: apart each costs a system call, and wakes whoever
    waits for both. One that is made bit by bit goes at once.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self._head: list[bytes] = []

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        data = super().send_with_data_passthrough(event)
        if isinstance(event, h11.Response) and any(
            name == b"content-length" for name, _ in event.headers
        ):
            self._head = data or []
            return []
        if data is not None:
            data, self._head = [*self._head, *data], []
        return data

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
            if event.http_version not in {b"1.0", b"1.1"}:
                raise h11.RemoteProtocolError("not HTTP/1.1")
        return event


class _Connection(H11Protocol):
    """One connection and whose turn it is.

    `asking`: the client is to send the head of a request, or the rest of a body that nobody reads any more.
    `answering`: the application is at work, which bounds the body's time itself, but not that of a client that reads
    nothing of a long answer. `idle`: nothing has begun.
    """

    patience = 20.0
    _stage: _Stage | None = None
    _timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Http()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Say in the catalogue's words that this is no HTTP; close where an answer is under way already."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE} or self._now() == "answering":
            self.transport.abort()
            return
        problem = ProblemError("malformed-request", "This is no valid HTTP/1.1 request.").problem()
        body = json.dumps(problem.model_dump(mode="json", exclude_none=True)).encode()
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        answer: list[Any] = [
            h11.Response(status_code=400, headers=headers, reason="Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in answer))
        self.transport.close()

    def _now(self) -> _Stage:
        if self.cycle is None:
            return "asking"
        if not self.cycle.response_complete:
            return "answering"
        is_unfinished = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        return "asking" if is_unfinished else "idle"

    def _look(self) -> None:
        """Start the time of a new stage; each further byte of the same stage wins none."""
        stage = self._now()
        if stage != self._stage:
            self._stage = stage
            self._watch()

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = {
            "asking": self.patience,
            "answering": _UNREAD * self.patience,
            "idle": self.timeout_keep_alive,
        }[self._stage or "asking"]
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        is_read = (
            not self.flow.write_paused or self.transport.get_write_buffer_size() < self._unsent
        )
        if self._stage == "answering" and is_read and not self.transport.is_closing():
            self._watch()
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # a close would wait until somebody reads
        else:
            self.transport.close()
