"""Clients that send requests one after the other over a connection each, as cheaply as Python can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.figures import per_second, quantile

__all__ = ["Answers", "request", "run"]

_LENGTH = b"content-length:"


@dataclass
class Answers:
    """What the clients got: seconds of each request, and how many answers had another status than wanted."""

    seconds: list[float] = field(default_factory=list)
    others: int = 0
    passed: float = 0.0

    @property
    def rate(self) -> float:
        """Requests answered as wanted, per second."""
        return per_second(len(self.seconds), self.passed)

    def quantile_ms(self, share: float) -> float:
        """So many milliseconds a request took at most, of this share of them."""
        return 1000 * quantile(self.seconds, share)


def request(method: str, url: str, token: str, body: bytes = b"", key: str = "") -> bytes:
    """A request as it goes over the wire."""
    parts = urlsplit(url)
    lines = [
        f"{method} {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(body)}",
    ]
    if body:
        lines.append("Content-Type: application/json")
    if key:
        lines.append(f'Idempotency-Key: "{key}"')
    return "\r\n".join([*lines, "", ""]).encode() + body


def run(
    url: str, make: Callable[[], bytes], *, clients: int, seconds: float, wanted: int
) -> Answers:
    """Let so many clients send what `make` makes for so many seconds.

    Raises:
        OSError: the server is not there, or closed a connection.
    """
    return asyncio.run(_run(url, make, clients, seconds, wanted))


async def _run(
    url: str, make: Callable[[], bytes], clients: int, seconds: float, wanted: int
) -> Answers:
    parts = urlsplit(url)
    answers = Answers()
    began = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            writer.write(make())
            status = await _status(reader)
            if status == wanted:
                answers.seconds.append(time.perf_counter() - sent)
            else:
                answers.others += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(clients)))
    answers.passed = time.perf_counter() - began
    return answers


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next(
        (int(each[len(_LENGTH) :]) for each in lines if each.lower().startswith(_LENGTH)), 0
    )
    await reader.readexactly(length)
    return int(lines[0].split()[1])
