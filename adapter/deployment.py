"""The way to the product's Convex deployment: one HTTP client, and the adapter's identity as its service.

Convex over HTTP is not idempotent by itself; the functions called here are, so an unknown outcome may be repeated.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any, Literal
from uuid import uuid4

import httpx
import jwt
from pydantic import BaseModel, ConfigDict, ValidationError

from adapter.hosts import is_loopback
from adapter.keys import load_service_key
from adapter.settings import ConvexSettings
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Answer", "Deployment", "ServiceTokens", "member"]

_TOKEN_SECONDS = 300
_RENEW_BEFORE_SECONDS = 60
_MOST_TOKENS = 4096
_SCOPE = "projections:write heartbeats:write registry:read registry:write"
_CONNECT_SECONDS = 3
_LONGEST_PAUSE_SECONDS = 300
_BROKEN_CONNECTION = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_log = logging.getLogger(__name__)


class Answer(BaseModel):
    """What a function answered: `value` on success, else `errorData` where the function refused in its own words."""

    model_config = ConfigDict(extra="ignore")

    status: str
    value: Any = None
    errorData: Any = None  # noqa: N815 - Convex's name


class ServiceTokens:
    """Short-lived ES256 tokens, one per node, so that Convex can check what that node may write."""

    def __init__(self, settings: ConvexSettings) -> None:
        self._settings = settings
        self._key = load_service_key(settings.service_key_file)
        self._minted: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def token(self, node_id: str) -> str:
        """A token that is valid for at least another minute."""
        now = time.time()
        renew_at, token = self._minted.get(node_id, (0.0, ""))
        if now >= renew_at:
            token = self._mint(node_id, int(now))
            self._minted[node_id] = (now + _TOKEN_SECONDS - _RENEW_BEFORE_SECONDS, token)
            if len(self._minted) > _MOST_TOKENS:  # also names that are no node's are asked for
                self._minted.popitem(last=False)
        return token

    def discard(self, node_id: str) -> None:
        """Forget the token: the next one is new."""
        self._minted.pop(node_id, None)

    def _mint(self, node_id: str, now: int) -> str:
        claims = {
            "iss": self._settings.service_issuer,
            "sub": "adapter",
            "aud": self._settings.audience,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
            "scope": _SCOPE,
            "node_id": node_id,
        }
        headers = {"kid": self._settings.key_id}
        return jwt.encode(claims, self._key, algorithm="ES256", headers=headers)


class Deployment:
    """Calls functions; every failure on the way is a problem of the catalogue."""

    def __init__(self, settings: ConvexSettings, client: httpx.AsyncClient | None = None) -> None:
        self._tokens = ServiceTokens(settings)
        # A proxy of the environment cannot reach a deployment on this very machine.
        self._client = client or httpx.AsyncClient(
            base_url=str(settings.url),
            timeout=httpx.Timeout(settings.timeout_seconds, connect=_CONNECT_SECONDS),
            trust_env=not is_loopback(settings.url.host or ""),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(
        self,
        kind: Literal["query", "mutation"],
        node_id: str,
        path: str,
        args: dict[str, Any],
        timeout: httpx.Timeout | None = None,
    ) -> Answer:
        """Call a function on behalf of a node.

        Raises:
            ProblemError: `product-unavailable`; the outcome may be unknown.
        """
        try:
            response = await self._post(kind, node_id, path, args, timeout)
            if response.status_code == 401:
                self._tokens.discard(node_id)
                response = await self._post(kind, node_id, path, args, timeout)
        except httpx.HTTPError as error:
            raise ProblemError("product-unavailable") from error
        if response.status_code in {200, 560}:
            try:
                return Answer.model_validate_json(response.content)
            except ValidationError as error:
                raise self.alert(node_id, "The product's answer cannot be read.") from error
        if response.status_code in {400, 401, 403, 404}:
            raise self.alert(node_id, f"The product answered {response.status_code}.")
        raise ProblemError("product-unavailable", retry_after=_retry_after(response))

    async def _post(
        self,
        kind: str,
        node_id: str,
        path: str,
        args: dict[str, Any],
        timeout: httpx.Timeout | None,
    ) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self._tokens.token(node_id)}",
            "Convex-Request-Id": uuid4().hex,
        }
        body = {"path": path, "args": args, "format": "json"}
        request = self._client.build_request(
            "POST",
            f"/api/{kind}",
            json=body,
            headers=headers,
            timeout=timeout or self._client.timeout,
        )
        try:
            return await self._client.send(request)
        except _BROKEN_CONNECTION:
            # A kept connection that Convex closed meanwhile; a second failure is an outage.
            return await self._client.send(request)

    @staticmethod
    def alert(node_id: str, sentence: str, error_data: Any = None) -> ProblemError:
        """Say that an operator is needed: time alone will not cure this."""
        code = member(error_data, "code")
        _log.error(
            sentence,
            extra={"event": "product.misconfigured", "node_id": node_id, "code": code},
        )
        return ProblemError("product-unavailable")


def member(error_data: Any, name: str) -> str | None:
    """A string of the function's own words."""
    value = error_data.get(name) if isinstance(error_data, dict) else None
    return value if isinstance(value, str) else None


def _retry_after(response: httpx.Response) -> int | None:
    """The pause that Convex asks for, in seconds, within reason; `None` where it names none."""
    value = response.headers.get("Retry-After", "")
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        return None
    return min(max(int(value), 1), _LONGEST_PAUSE_SECONDS)
