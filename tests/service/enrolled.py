"""A node with an Ed25519 key of its own, and what it signs."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aiida_byoc.contracts.enrolment import ASSERTION_TYPE, thumbprint

FORM = "application/x-www-form-urlencoded"


class NodeKey:
    """A key pair with the name it goes by."""

    def __init__(self, private: Ed25519PrivateKey | None = None) -> None:
        self.private = private or Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self.private.public_key()))
        self.jwk = {name: public[name] for name in ("kty", "crv", "x")}
        self.key_id = thumbprint(self.jwk)

    def assertion(self, node_id: str, *, head: dict[str, Any] | None = None, **changes: Any) -> str:
        """What it signs to say that it is this node; a claim of `None` is left out."""
        now = int(time.time())
        claims = {
            "iss": node_id,
            "sub": node_id,
            "aud": "byoc-adapter",
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid4()),
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": self.key_id} if head is None else head
        return jwt.encode(claims, self.private, "EdDSA", headers=headers)


def enrol(http: httpx.Client, node_id: str, secret: str, key: NodeKey) -> httpx.Response:
    """Show a one-time secret and a key."""
    body = {"node_id": node_id, "secret": secret, "public_key": key.jwk}
    return http.post("/v1/nodes:enroll", json=body)


def ask_for_token(
    http: httpx.Client, node_id: str, assertion: str, **changes: Any
) -> httpx.Response:
    """Ask for an access token."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
        **changes,
    }
    return http.post(f"/v1/nodes/{node_id}/token", data=form)


def access_token(http: httpx.Client, node_id: str, key: NodeKey) -> str:
    """An access token for the key."""
    response = ask_for_token(http, node_id, key.assertion(node_id))
    assert response.status_code == 200, response.text
    return response.json()["access_token"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def beat(http: httpx.Client, node_id: str, token: str) -> httpx.Response:
    """Say that the node lives."""
    report = {"sent_at": "2026-03-01T12:00:00Z", "versions": {}}
    return http.post(f"/v1/nodes/{node_id}/heartbeat", json=report, headers=bearer(token))
