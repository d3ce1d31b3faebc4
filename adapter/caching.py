"""Answers kept for a while, in bounded memory; many who ask at once ask once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Allowance", "Cached"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_PAUSE_SECONDS = 5.0
"""After a failure an answer that still counts is used for so long before anybody asks again."""


class Allowance:
    """How often something may happen: `burst` times at once, then `rate` times a second (a token bucket)."""

    def __init__(
        self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Whether it may happen once more now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """It was none of the kind that is to be bounded."""
        self._left = min(self._burst, self._left + 1)


@dataclass(slots=True)
class _Entry(Generic[Value]):
    value: Value | None
    asked_at: float
    not_before: float = 0.0


class Cached(Generic[Key, Value]):
    """What `load` says of a key; `None` is an answer too: there is no such thing.

    An answer counts from when the question was asked. It is asked again after half of `seconds`; while that fails, it
    counts until all of them are over, and then the failure does.

    Args:
        seconds: how long an answer counts.
        unknown_seconds: how long it counts that there is no such thing.
        most: how many answers are kept, of things that are and of things that are not.
        strangers: bounds how often `load` is asked of keys that are not known to be anything.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        load: Callable[[Key], Awaitable[Value | None]],
        *,
        seconds: float,
        unknown_seconds: float,
        most: int,
        strangers: Allowance,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._unknown_seconds = min(unknown_seconds, seconds)
        self._most = most
        self._strangers = strangers
        self._clock = clock
        self._known: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._unknown: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._flights: dict[Key, asyncio.Task[Value | None]] = {}
        self._forgotten = asyncio.Event()

    async def get(self, key: Key, *, at_most: float | None = None) -> Value | None:
        """The answer, which is at most so many seconds old if that can be had.

        Raises:
            ProblemError: what `load` raised, when no answer counts any more; `product-unavailable` when strangers ask
                too often.
        """
        entry = self._entry(key)
        if entry is not None and self._clock() < self._due(entry, at_most):
            return entry.value
        try:
            return await self._ask(key)
        except ProblemError:
            if entry is None or self._clock() >= entry.asked_at + self._counts(entry):
                raise
            entry.not_before = self._clock() + min(_PAUSE_SECONDS, self._seconds / 10)
            return entry.value

    def forget(self, key: Key) -> None:
        """Ask again next time, whoever waits included."""
        self._known.pop(key, None)
        self._unknown.pop(key, None)
        self._flights.pop(key, None)
        self._forgotten.set()
        self._forgotten = asyncio.Event()

    async def until_due(self, key: Key) -> None:
        """Wait until the answer for `key` is to be asked for again."""
        entry = self._entry(key)
        if entry is None:
            return
        forgotten, due = self._forgotten, self._due(entry, None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(due - self._clock(), 0)):
                await forgotten.wait()

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def _entry(self, key: Key) -> _Entry[Value] | None:
        return self._known.get(key) or self._unknown.get(key)

    def _counts(self, entry: _Entry[Value]) -> float:
        return self._seconds if entry.value is not None else self._unknown_seconds

    def _due(self, entry: _Entry[Value], at_most: float | None) -> float:
        """When it is asked again: once it is too old for the caller, but not right after a failure."""
        after = self._counts(entry) / (2 if entry.value is not None else 1)
        due = entry.asked_at + (after if at_most is None else min(after, at_most))
        return min(max(due, entry.not_before), entry.asked_at + self._counts(entry))

    async def _ask(self, key: Key) -> Value | None:
        flight = self._flights.get(key)
        if flight is None:
            is_stranger = key not in self._known
            if is_stranger and not self._strangers.take():
                raise ProblemError("product-unavailable", "Too many unknown names; retry.")
            flight = asyncio.ensure_future(self._fly(key, is_stranger=is_stranger))
            self._flights[key] = flight
            flight.add_done_callback(_look)
        return await asyncio.shield(flight)

    async def _fly(self, key: Key, *, is_stranger: bool) -> Value | None:
        flight, asked_at = asyncio.current_task(), self._clock()
        try:
            value = await self._load(key)
        finally:
            is_current = self._flights.get(key) is flight
            if is_current:
                del self._flights[key]
        if is_stranger and value is not None:
            self._strangers.give_back()
        if is_current:  # else somebody wanted it forgotten meanwhile
            self._keep(key, _Entry(value, asked_at))
        return value

    def _keep(self, key: Key, entry: _Entry[Value]) -> None:
        here, there = self._known, self._unknown
        if entry.value is None:
            here, there = there, here
        there.pop(key, None)
        here[key] = entry
        here.move_to_end(key)
        while len(here) > self._most:
            here.popitem(last=False)


def _look(flight: asyncio.Task[Value | None]) -> None:
    """A failure that everybody who asked has stopped waiting for is no news."""
    if not flight.cancelled():
        flight.exception()
