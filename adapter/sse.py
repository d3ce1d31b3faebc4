"""Server-sent events (HTML Living Standard, 9.2) that end when the client is gone, slow beyond measure, or served."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from adapter.reading import disconnected

__all__ = ["MEDIA_TYPE", "Event", "EventStream"]

MEDIA_TYPE = "text/event-stream"

_SEND_SECONDS = 60.0
"""A client that takes nothing for so long is gone, whatever its connection says."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way may keep events, nor hold them back (nginx)."""
_KEEP_ALIVE = b":\n\n"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; whoever reconnects names the last `id` that it got."""

    kind: str
    data: dict[str, Any]
    id: str | None = None

    def wire(self) -> bytes:
        """As it is sent; JSON has no line breaks."""
        lines = [f"event: {self.kind}", f"data: {json.dumps(self.data, ensure_ascii=False)}"]
        if self.id is not None:
            lines.append(f"id: {self.id}")
        return "\n".join([*lines, "", ""]).encode()


class EventStream(StreamingResponse):
    """The answer to one request (ASGI); the next event is asked for once the last has been taken.

    Args:
        events: `None` among them keeps the connection alive.
        finished: called at the end, whatever the end was.
    """

    def __init__(
        self, events: AsyncGenerator[Event | None, None], finished: Callable[[], object]
    ) -> None:
        super().__init__(_written(events), headers=_HEADERS, media_type=MEDIA_TYPE)
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of the two sides is done."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            _log.info("A client took no events any more.", extra={"event": "follower.stalled"})
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.wait({sending, gone})
            self._finished()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for body in self.body_iterator:
            async with asyncio.timeout(_SEND_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _written(events: AsyncGenerator[Event | None, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield event.wire() if event is not None else _KEEP_ALIVE
