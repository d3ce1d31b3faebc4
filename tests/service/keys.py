"""One key pair for each who signs, and the tokens they would sign."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, HMACAlgorithm

CLIENT_ISSUER = "https://product.example"
SCOPES = "jobs:submit jobs:cancel jobs:read nodes:manage"


class Keys:
    """One ES256 key pair for each who signs."""

    def __init__(self) -> None:
        names = ("product", "n1", "n2", "service", "stranger")
        self.private = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}

    def jwks(self, name: str) -> dict[str, Any]:
        return {"keys": [json.loads(ECAlgorithm.to_jwk(self.private[name].public_key()))]}

    def pem(self, name: str) -> bytes:
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.private[name].private_bytes(*form)

    def client(self, tenant: str, *, key: str = "product", **changes: Any) -> str:
        claims = {"iss": CLIENT_ISSUER, "sub": "user-1", "tenant_id": tenant, "scope": SCOPES}
        return self._sign(key, {**claims, **changes})

    def node(self, node_id: str, *, key: str | None = None, **changes: Any) -> str:
        return self._sign(key or node_id, {"iss": node_id, "sub": node_id, **changes})

    def _sign(self, key: str, claims: dict[str, Any]) -> str:
        now = int(time.time())
        claims = {"aud": "byoc-adapter", "iat": now, "exp": now + 600, **claims}
        return jwt.encode(claims, self.private[key], "ES256")


def hs256_with_the_public_key(keys: Keys, key: str, claims: dict[str, Any]) -> str:
    """A token for whoever lets it choose the algorithm: the secret is what everybody knows."""
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secret = keys.private[key].public_key().public_bytes(*form)

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed, secret))).decode()
