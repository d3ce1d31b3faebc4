"""The keys of an issuer that publishes them: fetched when they are needed, never more than the issuer can bear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import httpx
import jwt

from adapter.hosts import is_loopback, is_safe
from adapter.keys import Jwks, usable_keys
from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["PublishedKeys"]

_FETCH_SECONDS = 5.0
_MOST_BYTES = 256 * 1024
_FRESH_SECONDS = 300.0
_GOOD_SECONDS = 3600.0
"""A set that cannot be fetched again counts for so long, and then the issuer has no keys."""
_PAUSE_SECONDS = 5.0
"""Between two attempts while there are no keys at all."""
_DISCOVERY = "/.well-known/openid-configuration"
_log = logging.getLogger(__name__)


class _UnusableError(Exception):
    """What was fetched is no key set; the text says why, in our words."""


class PublishedKeys:
    """The key set at a URL, or at the one that the issuer's discovery document names.

    Args:
        issuer: `iss`, exactly; with discovery also where its document is.
        url: of the key set; `None` for discovery.
        refetch_seconds: how often at most an unknown `kid` makes us look again.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        issuer: str,
        url: str | None,
        *,
        refetch_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer, self._url = issuer, url
        self._refetch = refetch_seconds
        self._clock = clock
        self._keys: Jwks | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def candidates(self, kid: object) -> list[jwt.PyJWK]:
        """The keys that a token with this `kid` may be signed with; without one, all of them.

        Raises:
            ProblemError: `product-unavailable` when the issuer's keys cannot be had.
        """
        is_old = self._clock() - self._fetched_at >= _FRESH_SECONDS
        if self._keys is None:
            await self._fetch_unless_tried(_PAUSE_SECONDS)
        elif is_old and not self._fetching.locked():  # else what is known will do meanwhile
            await self._fetch_unless_tried(self._refetch)
        found = self._known(kid)
        if not found and self._keys is not None:
            await self._fetch_unless_tried(self._refetch)
            found = self._known(kid)
        if self._keys is None:
            raise ProblemError(
                "product-unavailable", "The keys of the token's issuer cannot be had now; retry."
            )
        return found

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    def _known(self, kid: object) -> list[jwt.PyJWK]:
        return self._keys.candidates(kid) if self._keys is not None else []

    async def _fetch_unless_tried(self, seconds: float) -> None:
        async with self._fetching:
            if self._clock() - self._tried_at < seconds:
                return
            self._tried_at = self._clock()
            try:
                async with asyncio.timeout(_FETCH_SECONDS):
                    self._keys = await self._fetch()
                self._fetched_at = self._tried_at
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, _UnusableError) as error:
                if self._clock() - self._fetched_at >= _GOOD_SECONDS:
                    self._keys = None
                code = str(error) if isinstance(error, _UnusableError) else type(error).__name__
                _log.warning(
                    "The keys of an issuer of clients could not be fetched.",
                    extra={"event": "issuer.unreachable", "issuer": self._issuer, "code": code},
                )

    async def _fetch(self) -> Jwks:
        url = self._url or await self._discovered()
        keys = usable_keys(await self._get(url))
        if keys is None:
            raise _UnusableError("no usable keys")
        return keys

    async def _discovered(self) -> str:
        """Where the issuer says its keys are (OpenID Connect Discovery 1.0 §4)."""
        document = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _UnusableError("the discovery document is another issuer's")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_safe(url):
            raise _UnusableError("jwks_uri is not https")
        return url

    async def _get(self, url: str) -> object:
        """A JSON document of bounded size, from there and nowhere else."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client(url).stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                raise _UnusableError(f"status {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise _UnusableError("too large")
        try:
            return strict_json(bytes(body))
        except ValueError as error:
            raise _UnusableError("no JSON") from error

    def _client(self, url: str) -> httpx.AsyncClient:
        """A client that goes through the environment's proxy, unless the issuer is on this very machine."""
        is_here = is_loopback(httpx.URL(url).host)
        if is_here not in self._clients:
            self._clients[is_here] = httpx.AsyncClient(
                timeout=_FETCH_SECONDS, trust_env=not is_here, follow_redirects=False
            )
        return self._clients[is_here]
