"""How answers go over the wire: whole, so that who waits for one is woken once."""

from __future__ import annotations

import socket


def test_an_answer_comes_in_one_piece(adapter, keys, node):
    asked = (
        f"GET /v1/nodes/n1/jobs/nothing HTTP/1.1\r\nHost: adapter\r\n"
        f"Authorization: Bearer {keys.client('globex')}x\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", adapter.port), timeout=10) as connection:
        for _ in range(20):
            connection.sendall(asked)
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            [length] = [
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ]
            assert head.startswith(b"HTTP/1.1 401")
            assert len(body) == length > 0
