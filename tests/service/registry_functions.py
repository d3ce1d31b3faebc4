"""What the product's registry promises, in memory: nodes, their keys, one-time secrets and service tokens."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

Jwk = dict[str, str]

ADDED_AT = "2026-03-01T12:00:00.000Z"
MOST_KEYS = 2


@dataclass
class RegisteredNode:
    """A node with its owner first among the tenants; `keys` by thumbprint, the oldest first."""

    tenants: list[str]
    keys: dict[str, Jwk] = field(default_factory=dict)
    state: str = "active"


@dataclass
class _Secret:
    node_id: str
    until: float
    used_by: str | None = None


class RegistryFunctions:
    """`registry:*` as the adapter calls them.

    Attributes:
        asked: the names of the functions that were called, with the node each was about.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Know nothing any more."""
        self.nodes: dict[str, RegisteredNode] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.signing_keys: list[Jwk] = []
        self.asked: list[tuple[str, str]] = []
        self._secrets: dict[str, _Secret] = {}

    def create(self, node_id: str, *tenants: str) -> str:
        """Make a node, or let it be enrolled anew; return the one-time secret."""
        self.nodes.setdefault(node_id, RegisteredNode(list(tenants)))
        secret = secrets.token_urlsafe(32)
        self._end_secrets(node_id)
        self._secrets[_hash(secret)] = _Secret(node_id, time.time() + 900)
        return secret

    def enrol(self, node_id: str, key_id: str, jwk: Jwk, *tenants: str) -> None:
        """A node that was enrolled already."""
        self.nodes[node_id] = RegisteredNode(list(tenants), {key_id: jwk})

    def expire(self, secret: str) -> None:
        """Let the fifteen minutes be over."""
        self._secrets[_hash(secret)].until = 0

    def service_token(self, tenant_id: str, *scopes: str, seconds: float = 3600) -> str:
        """A new service token."""
        token = f"byoc_st_{secrets.token_urlsafe(32)}"
        self.tokens[_hash(token)] = {
            "token_id": f"st-{len(self.tokens)}",
            "tenant_id": tenant_id,
            "scopes": list(scopes),
            "expires_at": (time.time() + seconds) * 1000,
        }
        return token

    def revoke_token(self, token: str) -> None:
        """Let a service token be good for nothing."""
        del self.tokens[_hash(token)]

    def call(self, kind: str, path: str, args: dict[str, Any], scopes: list[str]) -> Any:
        """Answer a call of the adapter."""
        name = path.removeprefix("registry:")
        is_query = name in {"node", "serviceToken", "productKeys"}
        assert kind == ("query" if is_query else "mutation"), f"{path} is no {kind}"
        assert f"registry:{'read' if is_query else 'write'}" in scopes
        self.asked.append((name, args.get("node_id", "")))
        method = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
        return getattr(self, f"_{method}")(**args)

    def _node(self, node_id: str) -> Any:
        node = self.nodes.get(node_id)
        return node and {
            "node_id": node_id,
            "tenants": node.tenants,
            "keys": [
                {"key_id": key_id, "jwk": jwk, "added_at": ADDED_AT}
                for key_id, jwk in node.keys.items()
                if node.state != "revoked"
            ],
            "state": node.state,
            "version": 1.0,
        }

    def _redeem(self, node_id: str, secret_hash: str, key: dict[str, Any]) -> Any:
        secret, key_id = self._secrets.get(secret_hash), key["key_id"]
        if (
            secret is None
            or secret.node_id != node_id
            or secret.until < time.time()
            or secret.used_by not in {None, key_id}
        ):
            return {"outcome": "refused"}
        node = self.nodes[node_id]
        if secret.used_by is None:
            secret.used_by, node.keys, node.state = key_id, {key_id: key["jwk"]}, "active"
        return {"outcome": "enrolled", "tenants": node.tenants}

    def _add_key(self, node_id: str, key: dict[str, Any], by: str) -> Any:
        node, key_id = self.nodes.get(node_id), key["key_id"]
        if node is None or node.state == "revoked" or by not in node.keys:
            return {"outcome": "unknown"}
        if key_id in node.keys:
            return {"outcome": "present"}
        if len(node.keys) >= MOST_KEYS:
            return {"outcome": "too_many"}
        node.keys[key_id] = key["jwk"]
        return {"outcome": "added"}

    def _retire_key(self, node_id: str, key_id: str, by: str) -> Any:
        node = self.nodes.get(node_id)
        if node is None or node.state == "revoked" or by not in node.keys:
            return {"outcome": "unknown"}
        if key_id not in node.keys:
            return {"outcome": "absent"}
        if len(node.keys) == 1:
            return {"outcome": "last"}
        del node.keys[key_id]
        return {"outcome": "retired"}

    def _revoke(self, node_id: str, tenant_id: str, actor: str) -> Any:
        node = self.nodes.get(node_id)
        if node is None or node.tenants[0] != tenant_id:
            return {"outcome": "unknown"}
        assert actor
        self._end_secrets(node_id)
        node.state = "revoked"
        return {"outcome": "revoked"}

    def _end_secrets(self, node_id: str) -> None:
        """Neither a revoked node nor a new token leaves an earlier one good for anything."""
        for secret in self._secrets.values():
            if secret.node_id == node_id:
                secret.until = 0

    def _service_token(self, **args: str) -> Any:
        told = self.tokens.get(args["hash"])
        return told if told and told["expires_at"] > time.time() * 1000 else None

    def _product_keys(self) -> Any:
        return {"keys": self.signing_keys}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
