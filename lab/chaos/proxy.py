"""A proxy on the loopback that loses, delays, doubles and refuses HTTP/1.1 requests.

It runs in a thread of whoever tests. Each request travels on a connection of its own, so that a fault of one touches
no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultProxy", "Rule"]

_LATER_SECONDS = 1.0
_BLACK_HOLE_SECONDS = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\n(?:connection|expect):[^\r]*", re.IGNORECASE)


class Fault(StrEnum):
    """What may happen to one request."""

    NONE = "none"
    """It passes; useful with an action."""
    DROP = "drop"
    """The connection is closed before the server has seen the request."""
    LOSE_ANSWER = "lose-answer"
    """The server carries it out; the connection is closed before a byte of the answer."""
    CUT_ANSWER = "cut-answer"
    """The same, in the middle of the answer."""
    DELAY = "delay"
    """It arrives later than others that were sent after it."""
    DUPLICATE = "duplicate"
    """It is answered, and arrives once more a while later."""
    THROTTLE = "throttle"
    """429 with `Retry-After`, the server has not seen it."""
    UNAVAILABLE = "unavailable"
    """503 with `Retry-After`, the server has not seen it."""
    BLACK_HOLE = "black-hole"
    """Nothing comes back until the client gives up; the server has not seen it."""


@dataclass
class Rule:
    """Which requests suffer what.

    Args:
        fault: what happens to a request.
        match: regular expression, searched in `METHOD path`.
        carrying: bytes that the request must have in it.
        chance: how likely each matching request suffers.
        times: for how many requests the rule lasts; `None`: until it is removed.
        action: called from the proxy's thread when the request arrives, or, with a fault after execution, when the
            server has answered and nothing of the answer has left.
    """

    fault: Fault
    match: str = ""
    carrying: bytes = b""
    chance: float = 1.0
    times: int | None = None
    action: Callable[[], object] | None = None
    applied: int = field(default=0, init=False)
    """How many requests suffered it, or are about to."""


_REFUSALS = {
    Fault.THROTTLE: b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n",
    Fault.UNAVAILABLE: b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n",
}
_EXECUTED = {Fault.LOSE_ANSWER, Fault.CUT_ANSWER}


class FaultProxy:
    """Forwards to one server what `rules` leave of the traffic; the first rule that applies decides."""

    def __init__(self, upstream: str, port: int, seed: int = 0) -> None:
        """Listen on a port of 127.0.0.1, in a thread that ends with `close`.

        Args:
            upstream: the server's URL; only host and port count.
        """
        self.url = f"http://127.0.0.1:{port}"
        self.counts: Counter[Fault] = Counter()
        """How many requests suffered what; written by the proxy's thread."""
        parts = urlsplit(upstream)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._random = random.Random(seed)  # noqa: S311  (reproducible, not secret)
        self._rules: list[Rule] = []
        self._later: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", port)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)

    @contextlib.contextmanager
    def rule(self, rule: Rule) -> Iterator[Rule]:
        """Apply a rule for a while."""
        self.add(rule)
        try:
            yield rule
        finally:
            self.remove(rule)

    def add(self, rule: Rule, *, first: bool = False) -> None:
        """Apply a rule from now on, after those that are there or before them; each request suffers one of them."""
        self._rules = [rule, *self._rules] if first else [*self._rules, rule]

    def remove(self, rule: Rule) -> None:
        """End a rule."""
        self._rules = [each for each in self._rules if each is not rule]

    def clear(self) -> None:
        """End every rule."""
        self._rules = []

    def close(self) -> None:
        """Cut every connection and stop."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _cut(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _choose(self, line: str, request: bytes) -> Rule:
        for rule in self._rules:
            lasts = rule.times is None or rule.applied < rule.times
            fits = re.search(rule.match, line) and rule.carrying in request
            if lasts and fits and self._random.random() < rule.chance:
                rule.applied += 1
                return rule
        return Rule(Fault.NONE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request, line = await _read_request(reader)
            rule = self._choose(line, request)
            if rule.action is not None and rule.fault not in _EXECUTED:
                rule.action()
            await self._answer(rule, request, reader, writer)
            self.counts[rule.fault] += 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side went away: the other sees a closed connection
        finally:
            writer.close()

    async def _answer(
        self,
        rule: Rule,
        request: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if rule.fault is Fault.DROP:
            return
        if rule.fault in _REFUSALS:
            writer.write(_REFUSALS[rule.fault] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        if rule.fault is Fault.BLACK_HOLE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), _BLACK_HOLE_SECONDS)
            return
        if rule.fault is Fault.DELAY:
            await asyncio.sleep(self._random.uniform(0, 2 * _LATER_SECONDS))
        try:
            answer = await self._forward_for(reader, request)
        except OSError:
            rule.applied -= 1  # the server is not there: nothing was carried out
            raise
        if rule.fault in _EXECUTED:
            if rule.action is not None:
                rule.action()
            answer = answer[: len(answer) // 2] if rule.fault is Fault.CUT_ANSWER else b""
        writer.write(answer)
        await writer.drain()
        if rule.fault is Fault.DUPLICATE:
            again = asyncio.create_task(self._repeat(request))
            self._later.add(again)
            again.add_done_callback(self._later.discard)

    async def _repeat(self, request: bytes) -> None:
        await asyncio.sleep(self._random.uniform(0, 2 * _LATER_SECONDS))
        with contextlib.suppress(OSError):
            await self._forward(request)

    async def _forward_for(self, client: asyncio.StreamReader, request: bytes) -> bytes:
        """Forward for as long as the client waits: a server must see that who polled it is gone."""
        forwarded = asyncio.create_task(self._forward(request))
        gone = asyncio.create_task(client.read(1))
        await asyncio.wait({forwarded, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not forwarded.done():
            forwarded.cancel()
            raise ConnectionResetError
        return forwarded.result()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        head, separator, body = answer.partition(b"\r\n\r\n")
        if not separator:
            raise ConnectionResetError
        return _alone(head) + body


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """One request, to be forwarded on a connection of its own, and its `METHOD path`."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    line = head.partition(b"\r\n")[0].decode("latin-1").rpartition(" ")[0]
    return _alone(head[:-4]) + body, line


def _alone(head: bytes) -> bytes:
    return _CONNECTION.sub(b"", head) + b"\r\nconnection: close\r\n\r\n"
