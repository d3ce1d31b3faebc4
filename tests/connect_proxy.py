"""An HTTP proxy that lets CONNECT through: the only way out of many a campus."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Proxy", "connect_proxy"]

Dial = Callable[[str, int], socket.socket]


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        asked: the request line and headers of each connection.
        refuses: whether it answers 407.
    """

    url: str
    asked: list[str] = field(default_factory=list)
    refuses: bool = False


@contextlib.contextmanager
def connect_proxy(dial: Dial, address: str = "127.0.0.1", port: int = 0) -> Iterator[Proxy]:
    """Serve until the end.

    Args:
        dial: opens the connection that a client asks for.
    """
    with socket.create_server((address, port)) as listener:
        proxy = Proxy(f"http://{address}:{listener.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_serve, args=(proxy, client, dial), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield proxy
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _serve(proxy: Proxy, client: socket.socket, dial: Dial) -> None:
    with client, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        proxy.asked.append(head.decode())
        if proxy.refuses:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        _, where, _ = head.decode().split(" ", 2)
        host, _, port = where.rpartition(":")
        with dial(host, int(port)) as upstream:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_carry, args=(upstream, client), daemon=True)
            back.start()
            _carry(client, upstream)
            back.join(5)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
