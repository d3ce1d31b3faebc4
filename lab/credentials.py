"""Keys and tokens of a lab: who may speak, made anew for each lab, real for the adapter and for Convex."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from aiida_byoc.contracts.enrolment import thumbprint
from lab.convex import Issuer
from lab.paths import LabPaths

__all__ = [
    "ADAPTER_AUDIENCE",
    "CONVEX_AUDIENCE",
    "Credentials",
    "SigningKey",
    "Tenant",
    "make",
    "make_signing_jwk",
]

ADAPTER_AUDIENCE = "byoc-adapter"
CONVEX_AUDIENCE = "convex"
PRODUCT_ISSUER = "https://product.byoc.localhost"
COMMAND_ISSUER = "https://product.byoc.localhost/commands"
SERVICE_ISSUER = "https://adapter.byoc.localhost"
SERVICE_KEY_ID = "service-1"
SCOPES = "jobs:submit jobs:cancel jobs:read nodes:manage"
TOKEN_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A tenant of the lab with one user, whose token both adapter and Convex accept."""

    tenant_id: str
    workspace_id: str
    user_id: str
    token: str

    @property
    def token_identifier(self) -> str:
        """The name by which Convex knows the user."""
        return f"{PRODUCT_ISSUER}|{self.user_id}"


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A key (ES256) of the product: a private JWK in a file of mode 0600, and its thumbprint."""

    file: Path
    key_id: str

    @property
    def jwk(self) -> dict[str, str]:
        """The private key."""
        members: dict[str, str] = json.loads(self.file.read_text())
        return members

    @property
    def public(self) -> dict[str, str]:
        """Its public half."""
        return {name: value for name, value in self.jwk.items() if name != "d"}


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Everybody's keys: public halves by value, private halves as files of the lab.

    Attributes:
        product: signs users' tokens.
        service: signs the adapter's tokens for the product.
        signing: signs the product's commands, for nodes.
        commands: signs the product's tokens for the adapter, by `commands_key`.
    """

    product: Issuer
    service: Issuer
    service_key_file: Path
    signing: SigningKey
    commands: Issuer
    commands_key: SigningKey
    node_jwks: dict[str, Any]
    node_key_file: Path
    tenants: list[Tenant]


def make(paths: LabPaths, names: list[str]) -> Credentials:
    """Make all keys, and a token for one user of each tenant."""
    directory = paths.directory("keys")
    product = ec.generate_private_key(ec.SECP256R1())
    service = ec.generate_private_key(ec.SECP256R1())
    node = ed25519.Ed25519PrivateKey.generate()
    commands = _keep_signing_key(directory / "product-commands.json")
    return Credentials(
        product=Issuer(iss=PRODUCT_ISSUER, jwks=_jwks(product, "ES256", "product-1")),
        service=Issuer(iss=SERVICE_ISSUER, jwks=_jwks(service, "ES256", SERVICE_KEY_ID)),
        service_key_file=_keep(directory / "service.pem", service),
        signing=_keep_signing_key(directory / "product-signing.json"),
        commands=Issuer(iss=COMMAND_ISSUER, jwks={"keys": [commands.public]}),
        commands_key=commands,
        node_jwks=_jwks(node, "EdDSA", "node-1"),
        node_key_file=_keep(directory / "node.pem", node),
        tenants=[_tenant(name, product) for name in names],
    )


def make_signing_jwk() -> dict[str, str]:
    """A new private key of the product for commands (ES256); its `kid` is its thumbprint (RFC 7638)."""
    key = ec.generate_private_key(ec.SECP256R1())
    members: dict[str, str] = ECAlgorithm.to_jwk(key, as_dict=True)
    return {**members, "alg": "ES256", "use": "sig", "kid": thumbprint(members)}


def _keep_signing_key(file: Path) -> SigningKey:
    jwk = make_signing_jwk()
    file.touch(mode=0o600)
    file.write_text(json.dumps(jwk))
    return SigningKey(file=file, key_id=jwk["kid"])


def _tenant(name: str, key: ec.EllipticCurvePrivateKey) -> Tenant:
    now = int(time.time())
    claims = {
        "iss": PRODUCT_ISSUER,
        "sub": f"user-of-{name}",
        "aud": [ADAPTER_AUDIENCE, CONVEX_AUDIENCE],
        "iat": now,
        "exp": now + TOKEN_DAYS * 86400,
        "tenant_id": name,
        "scope": SCOPES,
    }
    token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "product-1"})
    return Tenant(
        tenant_id=name, workspace_id=f"{name}-research", user_id=f"user-of-{name}", token=token
    )


def _jwks(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, algorithm: str, kid: str
) -> dict[str, Any]:
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())
    members = json.loads(public) if isinstance(public, str) else public
    return {"keys": [{**members, "kid": kid, "alg": algorithm, "use": "sig"}]}


def _keep(file: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file
