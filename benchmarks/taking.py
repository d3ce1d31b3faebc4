"""A product that takes everything at once and keeps nothing: `python -m benchmarks.taking PORT`.

The lab's own product is in memory without indexes: each further batch takes it longer (measured: 0.1 s of CPU for a
hundred updates when it is empty, 0.36 s after fifteen hundred), so a long backlog would measure nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

__all__ = ["answer"]


def answer(call: dict[str, Any]) -> dict[str, Any]:
    """What Convex answers to a call of a function: every update is applied."""
    updates = call["args"].get("updates", [])
    outcomes = [{"projection_id": each["projection_id"], "outcome": "applied"} for each in updates]
    return {"status": "success", "value": {"outcomes": outcomes}}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            _, _, rest = head.partition("content-length:")
            length = int(rest.partition("\r\n")[0] or 0)
            call = json.loads(await reader.readexactly(length) or '{"args": {}}')
            body = json.dumps(answer(call)).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
    writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
