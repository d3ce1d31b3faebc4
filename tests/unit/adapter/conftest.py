"""Keys, settings and tokens as an operator would have them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from adapter.settings import Settings

AUDIENCE = "byoc-adapter"
CLIENT_ISSUER = "https://product.example"
SUBMISSION = "11111111-1111-4111-8111-111111111111"


@dataclass
class Signer:
    """An ES256 key pair and the key set others verify it by."""

    kid: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def jwk(self) -> dict[str, Any]:
        public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
        return {**public, "kid": self.kid, "alg": "ES256"}

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.jwk]}

    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """Sign claims as they are, also ones that no library would issue."""
        payload = json.dumps(claims).encode()
        return jwt.PyJWS().encode(payload, self.key, "ES256", {"kid": self.kid, **headers})


@pytest.fixture(scope="session")
def product() -> Signer:
    return Signer("product-1")


@pytest.fixture(scope="session")
def node_key() -> Signer:
    return Signer("n1-1")


@pytest.fixture(scope="session")
def other_node_key() -> Signer:
    return Signer("n2-1")


@pytest.fixture
def service_key_file(tmp_path: Path) -> Path:
    path = tmp_path / "service.pem"
    path.write_bytes(Signer("service-1").pem())
    return path


@pytest.fixture
def make_settings(
    product: Signer, node_key: Signer, other_node_key: Signer, service_key_file: Path
) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "client_issuers": [{"issuer": CLIENT_ISSUER, "jwks": product.jwks}],
            "nodes": {
                "n1": {"jwks": node_key.jwks, "tenants": ["acme", "globex"]},
                "n2": {"jwks": other_node_key.jwks, "tenants": ["globex"]},
            },
            "convex": {
                "url": "http://127.0.0.1:1",
                "service_issuer": "https://adapter.example",
                "service_key_file": str(service_key_file),
                "key_id": "service-1",
            },
        }
        return Settings(**{**values, **changes})

    return make


@pytest.fixture
def client_claims() -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": CLIENT_ISSUER,
        "sub": "user-1",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 300,
        "tenant_id": "acme",
        "scope": "jobs:submit jobs:read",
    }


@pytest.fixture
def node_claims() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": "n1", "sub": "n1", "aud": AUDIENCE, "iat": now, "exp": now + 300}


@pytest.fixture
def make_event() -> Callable[..., dict[str, Any]]:
    """An event of node n1 as it travels; keywords change `data`."""
    proof: dict[str, dict[str, Any]] = {
        "held": {"reason": "transport down"},
        "succeeded": {"result": {"exit_code": 0}},
        "failed": {"error": {"code": "exit_code", "message": "exit 3", "retryable": False}},
    }

    def make(seq: int = 1, state: str = "accepted", **data: Any) -> dict[str, Any]:
        when = f"2026-02-15T10:00:{seq % 60:02d}.000Z"
        content = {
            "tenant_id": "acme",
            "workspace_id": "lab",
            "job_id": "job-1",
            "submission_id": SUBMISSION,
            "seq": seq,
            "attempt": 1,
            "state": state,
            "occurred_at": when,
            "trace_id": "a" * 32,
            **proof.get(state, {}),
            **data,
        }
        return {
            "specversion": "1.0",
            "id": f"{content['submission_id']}-{seq}",
            "source": "/nodes/n1",
            "type": f"org.aiida-byoc.execution.{state}.v1",
            "subject": content["job_id"],
            "time": when,
            "data": content,
        }

    return make
