"""The only outbound client: mutations of the product's Convex deployment, as the adapter's service identity.

Convex over HTTP is not idempotent by itself; the functions called here are, so an unknown outcome may be repeated.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx
import jwt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from adapter.keys import load_service_key
from adapter.settings import ConvexSettings
from aiida_byoc.contracts import Heartbeat, ProjectionOutcome, ProjectionUpdate
from aiida_byoc.contracts.problems import ProblemError

__all__ = ["Convex", "ServiceTokens", "UpdatesRefusedError"]

_TOKEN_SECONDS = 300
_RENEW_BEFORE_SECONDS = 60
_SCOPE = "projections:write heartbeats:write"
_CONNECT_SECONDS = 3
_HEARTBEAT_TIMEOUT = httpx.Timeout(3)
_LONGEST_PAUSE_SECONDS = 300
_BROKEN_CONNECTION = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_log = logging.getLogger(__name__)


class UpdatesRefusedError(Exception):
    """Convex refused the call as a whole, before any update was applied: at least one of them is poison."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: str
    value: Any = None
    errorData: Any = None  # noqa: N815 - Convex's name


_OUTCOMES = TypeAdapter(list[ProjectionOutcome])


class ServiceTokens:
    """Short-lived ES256 tokens, one per node, so that Convex can check what that node may write."""

    def __init__(self, settings: ConvexSettings) -> None:
        self._settings = settings
        self._key = load_service_key(settings.service_key_file)
        self._minted: dict[str, tuple[float, str]] = {}

    def token(self, node_id: str) -> str:
        """A token that is valid for at least another minute."""
        now = time.time()
        renew_at, token = self._minted.get(node_id, (0.0, ""))
        if now >= renew_at:
            token = self._mint(node_id, int(now))
            self._minted[node_id] = (now + _TOKEN_SECONDS - _RENEW_BEFORE_SECONDS, token)
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


class Convex:
    """Calls the product's mutations; every failure is a problem of the catalogue or `UpdatesRefusedError`."""

    def __init__(self, settings: ConvexSettings, client: httpx.AsyncClient | None = None) -> None:
        self._tokens = ServiceTokens(settings)
        # A proxy of the environment cannot reach a deployment on this very machine.
        self._client = client or httpx.AsyncClient(
            base_url=str(settings.url),
            timeout=httpx.Timeout(settings.timeout_seconds, connect=_CONNECT_SECONDS),
            trust_env=not _is_loopback(settings.url.host or ""),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def apply(
        self, node_id: str, updates: Sequence[ProjectionUpdate]
    ) -> list[ProjectionOutcome]:
        """Apply up to 100 updates in one transaction; one outcome per update, in their order.

        Raises:
            UpdatesRefusedError: nothing was applied and repeating the same call cannot help.
            ProblemError: `product-unavailable`; the outcome may be unknown, repeating is safe.
                `epoch-mismatch`; nothing was applied, and nothing will be until the product's operator decides.
        """
        answer = await self._mutate(
            node_id,
            "projections:applyProjections",
            {"updates": [update.wire() for update in updates]},
        )
        if answer.status != "success":
            if answer.errorData is None:
                raise UpdatesRefusedError
            if _field(answer.errorData, "code") == "epoch_mismatch":
                raise self._stranger(node_id, _field(answer.errorData, "message"))
            raise self._alert(node_id, "The product refused the adapter's call.", answer.errorData)
        try:
            outcomes = _OUTCOMES.validate_python(answer.value["outcomes"])
        except (ValidationError, KeyError, TypeError) as error:
            raise self._alert(node_id, "The product's answer cannot be read.") from error
        if [item.projection_id for item in outcomes] != [item.projection_id for item in updates]:
            raise self._alert(node_id, "The product answered for other updates than were sent.")
        return outcomes

    async def answers(self, node_id: str) -> bool:
        """Whether `applyProjections` runs at all: it refuses an empty call in its own words (`errorData`)."""
        answer = await self._mutate(node_id, "projections:applyProjections", {"updates": []})
        return answer.status == "success" or answer.errorData is not None

    async def record_heartbeat(self, node_id: str, heartbeat: Heartbeat, received_at: str) -> None:
        """Store the node's last report; raises `product-unavailable` when that did not work."""
        report = heartbeat.model_dump(mode="json", exclude_none=True)
        args = {"node_id": node_id, "report": report, "received_at": received_at}
        answer = await self._mutate(node_id, "nodes:recordHeartbeat", args, _HEARTBEAT_TIMEOUT)
        if answer.status != "success":
            raise self._alert(node_id, "The product refused a heartbeat.", answer.errorData)

    async def _mutate(
        self,
        node_id: str,
        path: str,
        args: dict[str, Any],
        timeout: httpx.Timeout | None = None,
    ) -> _Answer:
        try:
            response = await self._post(node_id, path, args, timeout)
            if response.status_code == 401:
                self._tokens.discard(node_id)
                response = await self._post(node_id, path, args, timeout)
        except httpx.HTTPError as error:
            raise ProblemError("product-unavailable") from error
        if response.status_code in {200, 560}:
            try:
                return _Answer.model_validate_json(response.content)
            except ValidationError as error:
                raise self._alert(node_id, "The product's answer cannot be read.") from error
        if response.status_code in {400, 401, 403, 404}:
            raise self._alert(node_id, f"The product answered {response.status_code}.")
        raise ProblemError("product-unavailable", retry_after=_retry_after(response))

    async def _post(
        self, node_id: str, path: str, args: dict[str, Any], timeout: httpx.Timeout | None
    ) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self._tokens.token(node_id)}",
            "Convex-Request-Id": uuid4().hex,
        }
        body = {"path": path, "args": args, "format": "json"}
        request = self._client.build_request(
            "POST",
            "/api/mutation",
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
    def _alert(node_id: str, sentence: str, error_data: Any = None) -> ProblemError:
        """Say that an operator is needed: time alone will not cure this."""
        code = _field(error_data, "code")
        _log.error(
            sentence,
            extra={"event": "product.misconfigured", "node_id": node_id, "code": code},
        )
        return ProblemError("product-unavailable")

    @staticmethod
    def _stranger(node_id: str, sentence: str | None) -> ProblemError:
        """Say that the node tells a history that the product's operator has not accepted."""
        error = ProblemError("epoch-mismatch", sentence and f"{sentence}.")
        _log.error(
            "The product does not know this history of a node.",
            extra={"event": "node.epoch_mismatch", "node_id": node_id},
        )
        return error


def _field(error_data: Any, name: str) -> str | None:
    value = error_data.get(name) if isinstance(error_data, dict) else None
    return value if isinstance(value, str) else None


def _retry_after(response: httpx.Response) -> int | None:
    """The pause that Convex asks for, in seconds, within reason; `None` where it names none."""
    value = response.headers.get("Retry-After", "")
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        return None
    return min(max(int(value), 1), _LONGEST_PAUSE_SECONDS)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
