"""Following a job's log: chunk after chunk, attempt after attempt, until the job has ended and all of it was sent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from adapter.channel import Channel
from adapter.sse import Event
from aiida_byoc.contracts import LogChunk, LogRequest
from aiida_byoc.contracts.lifecycle import TERMINAL
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Doors", "Follower", "follow"]

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 3.0
"""Seconds between two looks at a log that says nothing."""
_KEEP_ALIVE_SECONDS = 15.0

Read = Callable[[LogRequest], Awaitable[LogChunk]]


class Doors:
    """How many requests of each tenant may be open at a time.

    Args:
        most: for one tenant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, tenant_id: str) -> Callable[[], None]:
        """Take a place; the answer gives it back, once.

        Raises:
            ProblemError: `too-many-requests`.
        """
        if self._open[tenant_id] >= self._most:
            raise ProblemError(
                "too-many-requests",
                f"{self._most} requests for logs are open; close some, or retry.",
                retry_after=5,
            )
        self._open[tenant_id] += 1
        return lambda: self._leave(tenant_id)

    def _leave(self, tenant_id: str) -> None:
        self._open[tenant_id] -= 1
        self._open += Counter()  # forgets who has none open


async def follow(
    read: Read, first: LogChunk, request: LogRequest, *, channel: Channel, until: float
) -> AsyncGenerator[Event | None, None]:
    """The events of one follower; `None` when there is nothing to tell for a while.

    Args:
        read: asks the node.
        first: the answer to `request`.
        channel: says when the process wants to stop.
        until: when the stream ends in any case (monotonic, seconds); the client may come again.
    """
    follower = Follower(request)
    heard: LogChunk | ProblemError = first
    while True:
        for event in follower.hear(heard, time.monotonic()):
            yield event
        if follower.is_done:
            return
        await channel.idle(follower.pause)
        if channel.is_closing or time.monotonic() >= until:
            return
        try:
            heard = await read(follower.request)
        except ProblemError as error:
            heard = error


class Follower:
    """What one client has been told, and what to ask the node next.

    Attributes:
        request: what to ask.
        pause: how long to wait before that, in seconds.
        is_done: whether nothing can follow.
    """

    def __init__(self, request: LogRequest) -> None:
        self.request = request
        self.pause = 0.0
        self.is_done = False
        self._told: LogChunk | None = None
        self._told_at = 0.0
        self._next_pause = _FIRST_PAUSE
        self._in_trouble = False

    def hear(self, said: LogChunk | ProblemError, now: float) -> list[Event | None]:
        """Take the node's answer; return what the client is told. `now` is monotonic, in seconds."""
        events: list[Event | None] = [
            *(self._read(said) if isinstance(said, LogChunk) else self._failed(said))
        ]
        if not events and now - self._told_at >= _KEEP_ALIVE_SECONDS:
            events = [None]
        if events:
            self._told_at = now
        return events

    def _read(self, chunk: LogChunk) -> Iterator[Event]:
        told, self._told, self._in_trouble = self._told, chunk, False
        is_another = told is not None and chunk.attempt != told.attempt
        if told is None or chunk.data or is_another or chunk.state is not told.state:
            yield _event("attempt" if is_another else "log", chunk)
        has_another = chunk.complete and chunk.attempt < chunk.latest_attempt
        # A task has ended before its job; whether it is run again only a later attempt tells.
        is_over = chunk.state in TERMINAL or self.request.task is not None
        if chunk.complete and not has_another and is_over:
            rest = {"offset": chunk.next_offset, "encoding": "utf-8", "data": ""}
            yield _event("end", chunk.model_copy(update=rest))
            self.is_done = True
        place = (chunk.attempt + 1, 0) if has_another else (chunk.attempt, chunk.next_offset)
        self.request = self.request.model_copy(
            update=dict(zip(("attempt", "offset"), place, strict=True))
        )
        if chunk.data:
            self._next_pause = _FIRST_PAUSE
        has_more = bool(chunk.data) and chunk.next_offset < chunk.size
        self.pause = 0.0 if has_more or has_another else self._longer_pause()

    def _failed(self, error: ProblemError) -> Iterator[Event]:
        if not self._in_trouble or not error.kind.retry:
            yield Event("problem", error.problem().model_dump(mode="json", exclude_none=True))
        self._in_trouble, self.is_done = True, not error.kind.retry
        self.pause = max(self._longer_pause(), float(error.retry_after or 0))

    def _longer_pause(self) -> float:
        pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
        return pause


def _event(kind: str, chunk: LogChunk) -> Event:
    """The chunk as an event; whoever has it asks next from its end."""
    return Event(
        kind,
        chunk.model_dump(mode="json", exclude_none=True),
        f"{chunk.attempt}:{chunk.next_offset}",
    )
