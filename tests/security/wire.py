"""Requests as bytes, for what no HTTP client would send."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Connection = socket.socket


@contextlib.contextmanager
def connected(port: int, seconds: float = 20) -> Iterator[Connection]:
    """A connection to the adapter."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        yield connection


def head(line: str, **headers: str) -> bytes:
    """The head of a request; underscores in names are hyphens."""
    lines = [line, "Host: adapter", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def everything(connection: Connection) -> bytes:
    """All that comes until the other side is done; a reset ends it too."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            got += part
    return bytes(got)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in the stream."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line.split(b" ")[1]) for line in lines]


def exchange(port: int, content: bytes, *, then_close: bool = True) -> bytes:
    """Send these bytes, and read until the adapter closes."""
    with connected(port) as connection:
        with contextlib.suppress(OSError):  # refused long before it was all sent
            connection.sendall(content)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def drip(connection: Connection, parts: Iterator[bytes], every: float, most: float) -> float:
    """Send a part every so many seconds until the other side ends it; return how long that took.

    Raises:
        AssertionError: it had not ended after `most` seconds.
    """
    began = time.monotonic()
    connection.settimeout(every)
    while time.monotonic() < began + most:
        try:
            connection.sendall(next(parts))
            while connection.recv(65536):
                pass
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        return time.monotonic() - began
    raise AssertionError(f"held for {most} s")


def until_reset(connection: Connection, most: float) -> bool:
    """Whether the other side breaks the connection off in so many seconds; nothing is read meanwhile."""
    broken = select.poll()
    broken.register(connection, 0)  # errors and hang-ups are told always
    return bool(broken.poll(most * 1000))


def resident_mib(pid: int) -> float:
    """What a process holds in memory, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def ever(part: bytes) -> Callable[[], Iterator[bytes]]:
    """The same part again and again."""

    def parts() -> Iterator[bytes]:
        while True:
            yield part

    return parts
