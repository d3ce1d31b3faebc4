"""Whether a command carries the product's signature: checked on the node, first, whatever the adapter said.

The node's owner took the product's keys when the node was enrolled, past the adapter, so an adapter that somebody took
over can withhold commands, but cannot invent one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from aiida_byoc.contracts.delivery import Command
from aiida_byoc.contracts.enrolment import thumbprint
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.signature import signing_input

__all__ = [
    "ALGORITHMS",
    "SIGNED",
    "KeysError",
    "ProductKeys",
    "check",
    "load_product_keys",
    "product_keys",
    "verify",
]

ALGORITHMS = frozenset({"ES256", "EdDSA"})
"""Fixed here: what a header says chooses among them only what the key is made for."""

SIGNED = frozenset({"submit", "cancel"})
"""Operations that change something, and so need a signature where one is required."""

_HEADER = {"alg", "kid", "typ"}
_PRIVATE = "d"

ProductKeys = Mapping[str, jwt.PyJWK]
"""Public keys of the product, by their thumbprint (RFC 7638)."""


class KeysError(Exception):
    """The product's keys cannot be used; the message is for the node's owner."""


def product_keys(jwks: Any) -> dict[str, jwt.PyJWK]:
    """The keys of a JWK Set (RFC 7517), by the names that we compute ourselves.

    Raises:
        KeysError: it is none, or holds a key of another kind than the product's.
    """
    found = {}
    try:
        for members in jwks["keys"]:
            key = jwt.PyJWK(members)
            if key.algorithm_name not in ALGORITHMS or _PRIVATE in members:
                raise KeysError("holds a key that is not a public P-256 or Ed25519 key")
            found[thumbprint(members)] = key
    except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise KeysError("is not a JWK Set of public keys") from error
    if not found:
        raise KeysError("holds no key")
    return found


@functools.lru_cache(maxsize=4)
def _keys_of(content: bytes) -> dict[str, jwt.PyJWK]:
    """The keys of a file with this content, which is read for every command and seldom another."""
    return product_keys(json.loads(content))


def load_product_keys(path: Path) -> dict[str, jwt.PyJWK]:
    """The keys of a file.

    Raises:
        KeysError: it cannot be read, or used.
    """
    helps = "enrol the node again (`verdi data byoc node enroll`)"
    try:
        return _keys_of(path.read_bytes())
    except OSError as error:
        raise KeysError(
            f"the product's keys {path} cannot be read: {error.strerror}; {helps}"
        ) from error
    except ValueError as error:
        raise KeysError(f"the product's keys {path} are not JSON; {helps}") from error
    except KeysError as error:
        raise KeysError(f"the product's key file {path} {error}; {helps}") from error


def check(command: Command, keys: ProductKeys, *, required: bool) -> None:
    """Raise `signature-invalid` for a signature that does not hold, and for none where one is required."""
    if command.signature is not None:
        verify(command, keys)
    elif required and command.operation in SIGNED:
        raise ProblemError("signature-invalid")


def verify(command: Command, keys: ProductKeys) -> None:
    """Verify the signature over operation, key and body; raise `signature-invalid`, always in the same words."""
    try:
        protected, _, signature = (command.signature or "").partition("..")
        header = jwt.get_unverified_header(f"{protected}..{signature}")
        key = keys[header["kid"]]
        if not header.keys() <= _HEADER or header["alg"] != key.algorithm_name:
            raise ProblemError("signature-invalid")
        signed = signing_input(
            protected, command.operation, command.idempotency_key, command.body or {}
        )
        jwt.PyJWS(sorted(ALGORITHMS)).decode(
            f"{signed.decode('ascii')}.{signature}", key, algorithms=[key.algorithm_name]
        )
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ProblemError("signature-invalid") from error
