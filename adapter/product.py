"""What the product is asked: who nodes are and what they sign with, what service tokens are good for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from adapter.deployment import Deployment
from aiida_byoc.contracts.enrolment import PublicKey, Thumbprint
from aiida_byoc.contracts.identity import Name

__all__ = ["Product", "Redemption", "RegisteredNode", "ServiceTokenRecord"]

_MOST_OF_ACTOR = 256
_TIMEOUT = httpx.Timeout(5, connect=3)
"""Somebody waits for the answer before anything else is done."""


def _instant(value: object) -> object:
    """Convex counts time in milliseconds since the epoch; RFC 3339 is read as well."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value / 1000, UTC)
    return value


Instant = Annotated[datetime, BeforeValidator(_instant)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Jwk(_Told):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Thumbprint


class _Key(_Told):
    jwk: _Jwk
    added_at: Instant


class RegisteredNode(_Told):
    """A node as the product knows it; one that was not enrolled yet has no keys."""

    node_id: Name
    tenants: list[Name]
    keys: list[_Key]
    state: Literal["active", "draining", "revoked"]


class ServiceTokenRecord(_Told):
    """What an opaque token is good for."""

    token_id: str
    tenant_id: Name
    scopes: list[str]
    expires_at: Instant


class Redemption(_Told):
    """Whether a one-time secret was good, and the tenants of the node that it made known."""

    outcome: Literal["enrolled", "refused"]
    tenants: list[Name] = []


class _Added(_Told):
    outcome: Literal["added", "present", "too_many", "unknown"]


class _Retired(_Told):
    outcome: Literal["retired", "absent", "last", "unknown"]


class _Revoked(_Told):
    outcome: Literal["revoked", "unknown"]


class _KeySet(_Told):
    keys: list[dict[str, Any]]


_Answer = TypeVar("_Answer", bound=_Told)


class Product:
    """Calls the product's registry; whatever fails is `product-unavailable`, and repeating is safe."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    async def node(self, node_id: str) -> RegisteredNode | None:
        """The node, or `None` when there is none of this name."""
        told = await self._ask("query", node_id, "registry:node", {"node_id": node_id})
        return None if told is None else self._read(RegisteredNode, told, node_id)

    async def service_token(self, node_id: str, token_hash: str) -> ServiceTokenRecord | None:
        """What the token with this SHA-256 (hex) is good for; `None` when it is good for nothing (any more)."""
        told = await self._ask("query", node_id, "registry:serviceToken", {"hash": token_hash})
        return None if told is None else self._read(ServiceTokenRecord, told, node_id)

    async def signing_keys(self, node_id: str) -> list[dict[str, Any]]:
        """The public JWKs that the product signs commands with."""
        told = await self._ask("query", node_id, "registry:productKeys", {})
        return self._read(_KeySet, told, node_id).keys

    async def redeem(self, node_id: str, secret_hash: str, key: PublicKey) -> Redemption:
        """Use a one-time secret, known by its SHA-256 (hex), up for this node and key."""
        args = {"node_id": node_id, "secret_hash": secret_hash, "key": _named(key)}
        told = await self._ask("mutation", node_id, "registry:redeem", args)
        return self._read(Redemption, told, node_id)

    async def add_key(self, node_id: str, key: PublicKey, by: str) -> str:
        """Add a live key, asked by another: `added`, `present`, `too_many`, or `unknown` (`by` is no live key)."""
        args = {"node_id": node_id, "key": _named(key), "by": by}
        told = await self._ask("mutation", node_id, "registry:addKey", args)
        return self._read(_Added, told, node_id).outcome

    async def retire_key(self, node_id: str, key_id: str, by: str) -> str:
        """Let a key be live no longer: `retired`, `absent`, `last` when there is no other, or `unknown` as above."""
        args = {"node_id": node_id, "key_id": key_id, "by": by}
        told = await self._ask("mutation", node_id, "registry:retireKey", args)
        return self._read(_Retired, told, node_id).outcome

    async def revoke(self, node_id: str, tenant_id: str, actor: str) -> bool:
        """Take a node's credentials away for good; whether the tenant owns such a node."""
        args = {"node_id": node_id, "tenant_id": tenant_id, "actor": actor[:_MOST_OF_ACTOR]}
        told = await self._ask("mutation", node_id, "registry:revoke", args)
        return self._read(_Revoked, told, node_id).outcome == "revoked"

    async def _ask(
        self, kind: Literal["query", "mutation"], node_id: str, path: str, args: dict[str, Any]
    ) -> Any:
        answer = await self._deployment.call(kind, node_id, path, args, _TIMEOUT)
        if answer.status != "success":
            sentence = f"The product refused {path}."
            raise self._deployment.alert(node_id, sentence, answer.errorData)
        return answer.value

    def _read(self, model: type[_Answer], told: Any, node_id: str) -> _Answer:
        try:
            return model.model_validate(told)
        except ValidationError as error:
            raise self._deployment.alert(node_id, "The product's answer cannot be read.") from error


def _named(key: PublicKey) -> dict[str, Any]:
    return {"key_id": key.key_id, "jwk": key.model_dump()}
