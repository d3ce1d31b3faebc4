"""Pages of other origins that may read the adapter's answers in a browser (CORS): those that the operator names.

The credential stays what it is everywhere, a bearer token: browsers add none by themselves, so none is allowed to.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Cors"]

# Pages read: commands come from the product, which signs them.
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "authorization, last-event-id",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "X-Request-Id, Retry-After"


class Cors:
    """Answers preflights of the given origins and lets their pages read; to everything else it adds nothing (ASGI)."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a preflight of another origin goes its way to a 405."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Headers(scope=scope)
        origin = request.get("Origin")
        allowed = origin if origin in self._origins else None

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if allowed is not None:
                    headers["Access-Control-Allow-Origin"] = allowed
                    headers["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        is_preflight = scope["method"] == "OPTIONS" and "Access-Control-Request-Method" in request
        if allowed is not None and is_preflight:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send_shared)
        else:
            await self._app(scope, receive, send_shared)
