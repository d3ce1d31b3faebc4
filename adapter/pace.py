"""How slowly a body may come: what arrives byte by byte must not hold a request open."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Pace"]

_BYTES_A_SECOND = 1024
"""As Apache's `RequestReadTimeout`: what has come earns time for what is to come."""


class Pace:
    """Gives a body `seconds` to arrive, and one more for each KiB (ASGI); only waiting for the client counts."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whoever reads its body gets `malformed-request` when the time is up."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left, is_whole = self._seconds, False
        clock = asyncio.get_running_loop().time

        async def receive_in_time() -> Message:
            nonlocal left, is_whole
            if is_whole:
                return await receive()
            began = clock()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError as error:
                left = 0.0
                raise ProblemError(
                    "malformed-request", "The body did not arrive in time."
                ) from error
            left += len(message.get("body", b"")) / _BYTES_A_SECOND - (clock() - began)
            is_whole = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)
