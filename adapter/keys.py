"""Keys as the settings hold them: public ones to verify with, one private one to sign with."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, field_validator

from aiida_byoc.contracts.enrolment import thumbprint

__all__ = ["Algorithm", "Jwks", "load_service_key", "usable_keys"]

Algorithm = Literal["ES256", "EdDSA", "RS256"]

_PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_MIN_RSA_BITS = 2048
_MOST_KEYS = 64


class Jwks(BaseModel):
    """A JWK Set (RFC 7517) of public, asymmetric keys: P-256, Ed25519, or RSA of at least 2048 bits."""

    model_config = ConfigDict(frozen=True)

    keys: list[dict[str, Any]]

    @field_validator("keys")
    @classmethod
    def _public_and_strong(cls, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not keys:
            raise ValueError("must hold at least one key")
        for position, key in enumerate(keys):
            _check_public(key, position)
        return keys

    def candidates(self, kid: object) -> list[jwt.PyJWK]:
        """The keys a token with this `kid` may be signed with; without one, every key of the set.

        A key goes by its `kid` and by its thumbprint (RFC 7638), and is the same object each time.
        """
        return [key for names, key in self._named if kid is None or kid in names]

    @cached_property
    def _named(self) -> list[tuple[tuple[object, ...], jwt.PyJWK]]:
        return [((key.get("kid"), thumbprint(key)), jwt.PyJWK(key)) for key in self.keys]


def usable_keys(content: object) -> Jwks | None:
    """The keys of a fetched set that may verify signatures; `None` when it holds none.

    What we do not understand is left out, as RFC 7517 §5 wants; so is what settings would refuse.
    """
    keys = content.get("keys") if isinstance(content, dict) else None
    usable: list[dict[str, Any]] = []
    for key in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(key, dict) or key.get("use", "sig") != "sig":
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError):
            _check_public(key, len(usable))
            thumbprint(key)
            usable.append(key)
    return Jwks(keys=usable) if usable else None


def _check_public(key: dict[str, Any], position: int) -> None:
    if key.get("kty") not in {"EC", "OKP", "RSA"}:
        raise ValueError(f"key {position}: kty must be EC, OKP or RSA; shared secrets are refused")
    if _PRIVATE_MEMBERS & key.keys():
        raise ValueError(f"key {position} is a private key: give its public half only")
    try:
        parsed = jwt.PyJWK(key)
    except jwt.PyJWTError as error:
        raise ValueError(f"key {position} is not a usable JWK") from error
    if parsed.algorithm_name not in {"ES256", "EdDSA", "RS256"}:
        raise ValueError(f"key {position}: only ES256, EdDSA and RS256 keys are accepted")
    if isinstance(parsed.key, rsa.RSAPublicKey) and parsed.key.key_size < _MIN_RSA_BITS:
        raise ValueError(f"key {position}: RSA keys need at least {_MIN_RSA_BITS} bits")


def load_service_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the ES256 key (PEM, or a private JWK); raise `ValueError` with a sentence that names no content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    try:
        key: object
        if content.lstrip().startswith(b"{"):
            key = jwt.PyJWK.from_json(content.decode()).key
        else:
            key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise ValueError("holds neither a private JWK nor an unencrypted PEM key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("must hold a private P-256 key (ES256)")
    return key
