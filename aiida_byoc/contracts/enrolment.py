"""How a node becomes known, and how it proves who it is: `docs/contracts/node-enrolment.md`."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from aiida_byoc.contracts.base import Fact, Order, UtcTime
from aiida_byoc.contracts.canonical import canonical_json
from aiida_byoc.contracts.identity import NAME, Name

__all__ = [
    "ASSERTION_TYPE",
    "MAX_ASSERTION_SECONDS",
    "MAX_TOKEN_SECONDS",
    "AccessToken",
    "Enrolment",
    "EnrolmentRequest",
    "EnrolmentToken",
    "KeyAddition",
    "NodeKey",
    "NodeKeys",
    "PublicKey",
    "SigningKey",
    "SigningKeys",
    "TokenRequest",
    "thumbprint",
]

MAX_TOKEN_SECONDS = 600
"""Longest life of a node's access token, in seconds."""

MAX_ASSERTION_SECONDS = 300
"""Longest life of an assertion, in seconds: it is good once, at once."""

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 §2.2."""

Thumbprint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""SHA-256 in base64url without padding, 43 characters (RFC 7638); also the form of 256 random bits."""

CompactJws = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", max_length=4096),
]


class PublicKey(Order):
    """The public half of an Ed25519 key as a JWK (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Thumbprint

    @property
    def key_id(self) -> str:
        """Its name everywhere: the thumbprint (RFC 7638)."""
        return thumbprint(self.model_dump())


class EnrolmentRequest(Order):
    """A node with a one-time secret that brings its public key."""

    node_id: Name
    secret: Annotated[Thumbprint, Field(description="256 random bits")]
    public_key: PublicKey


class Enrolment(Fact):
    """The answer: the node is known from now on."""

    node_id: Name
    key_id: Thumbprint
    tenants: list[Name]
    audience: str
    product_keys: Annotated[
        list[dict[str, Any]], Field(description="public JWKs that the product signs commands with")
    ]


class TokenRequest(Order):
    """A node that asks for an access token (RFC 6749 §4.4, RFC 7523 §2.2), as a form."""

    grant_type: Literal["client_credentials"]
    client_assertion_type: Literal["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
    client_assertion: CompactJws


class AccessToken(Fact):
    """The answer (RFC 6749 §5.1)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: Annotated[int, Field(gt=0, le=MAX_TOKEN_SECONDS, description="seconds")]


class KeyAddition(Order):
    """A node's second key. `proof` is an assertion as for a token, signed with that key: it is really there."""

    public_key: PublicKey
    proof: CompactJws


class NodeKey(Fact):
    """A live key of a node."""

    key_id: Thumbprint
    added_at: UtcTime


class NodeKeys(Fact):
    """The live keys of a node, oldest first: one, or two while it changes them."""

    keys: Annotated[list[NodeKey], Field(max_length=2)]


class SigningKey(Fact):
    """A live key of a node as a JWK (RFC 7517), for whoever has something that the node signed."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Thumbprint
    kid: Thumbprint
    use: Literal["sig"]
    alg: Literal["EdDSA"]

    @classmethod
    def of(cls, key: PublicKey) -> SigningKey:
        """The key under its name."""
        return cls(**key.model_dump(), kid=key.key_id, use="sig", alg="EdDSA")


class SigningKeys(Fact):
    """The live keys of a node as a JWK Set, the oldest first."""

    keys: Annotated[list[SigningKey], Field(max_length=64)]


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """What the owner carries from the product to the node: `byoc1.<node>.<secret>.<thumbprint>`, good once.

    `product_key_id` names the key that the product signs commands with: it comes past the adapter, so that no adapter
    can present another.
    """

    node_id: str
    secret: str
    product_key_id: str

    @classmethod
    def parse(cls, text: str) -> EnrolmentToken:
        """Read one; raise `ValueError` with a sentence that does not repeat it."""
        parts = text.strip().split(".")
        if (
            len(parts) != 4
            or parts[0] != "byoc1"
            or not re.fullmatch(NAME, parts[1])
            or not all(re.fullmatch(r"[A-Za-z0-9_-]{43}", part) for part in parts[2:])
        ):
            raise ValueError("is not an enrolment token: copy it whole, it begins with byoc1.")
        return cls(*parts[1:])

    def __str__(self) -> str:
        return f"byoc1.{self.node_id}.{self.secret}.{self.product_key_id}"

    def __repr__(self) -> str:
        return f"EnrolmentToken(node_id={self.node_id!r})"


_MEMBERS = {"OKP": ("crv", "kty", "x"), "EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}


def thumbprint(key: dict[str, Any]) -> str:
    """The name of a public key (RFC 7638, SHA-256): 43 characters of base64url. Raises `KeyError` for another kind."""
    members = {name: key[name] for name in _MEMBERS[key["kty"]]}
    digest = hashlib.sha256(canonical_json(members)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
