"""The node's key (Ed25519) in its file, and what is told of it: the public half, and its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aiida_byoc.contracts.enrolment import PublicKey
from aiida_byoc.node import SettingsError
from aiida_byoc.private_file import NotPrivate, read_private, write_private

__all__ = ["made_key", "private_key", "public_key"]


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the node's key.

    Raises:
        SettingsError: it cannot be used, or others may read it; one sentence with what helps.
    """
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except OSError as error:
        raise SettingsError(f"the node's key {path} cannot be read: {error.strerror}") from error
    except NotPrivate as error:
        raise SettingsError(
            f"the node's key {path} {error}, and if somebody may have read it, change the key"
            " (`verdi data byoc node rotate-key`)"
        ) from error
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"the node's key {path} is not a private key in PEM form without a password"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"the node's key {path} is not an Ed25519 key")
    return key


def made_key(path: Path) -> Ed25519PrivateKey:
    """The key of that file, which is made if it is not there; never half of one.

    Raises:
        SettingsError: as `private_key`.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private_key(path)


def public_key(key: Ed25519PrivateKey) -> PublicKey:
    """The public half as a JWK (RFC 8037)."""
    members: dict[str, Any] = jwt.get_algorithm_by_name("EdDSA").to_jwk(
        key.public_key(), as_dict=True
    )
    return PublicKey.model_validate({name: members[name] for name in ("kty", "crv", "x")})
