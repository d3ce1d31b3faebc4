"""Signing a receipt, and checking one with nothing but the node's public key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.enrolment import PublicKey
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.receipt.envelope import PAYLOAD_TYPE, Envelope, signed_bytes
from aiida_byoc.contracts.receipt.statement import Statement
from aiida_byoc.contracts.validation import validated

__all__ = [
    "ReceiptError",
    "changed_outputs",
    "envelope_text",
    "public_keys",
    "read_envelope",
    "signed",
    "verified",
]

_MEMBERS = ("kty", "crv", "x")
_BLOCK = 1 << 20


class ReceiptError(Exception):
    """The receipt, a key or a file is not what it should be; the message is one sentence."""


def signed(statement: Statement, key: Ed25519PrivateKey) -> Envelope:
    """The statement under the node's signature. The same statement and key give the same bytes."""
    payload = statement.payload()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = PublicKey(kty="OKP", crv="Ed25519", x=_base64url(raw))
    signature = key.sign(signed_bytes(payload))
    return Envelope.model_validate(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": public.key_id, "sig": base64.b64encode(signature).decode()}],
        }
    )


def verified(envelope: Envelope, keys: Iterable[PublicKey]) -> Statement:
    """What the receipt says, once one of the keys is known to have signed it.

    Raises:
        ReceiptError: none of them has, or what they signed is no receipt of this version.
    """
    known = {key.key_id: key for key in keys}
    by_known = [each for each in envelope.signatures if each.keyid in known]
    if not by_known:
        named = ", ".join(each.keyid for each in envelope.signatures)
        raise ReceiptError(
            f"is signed with the key {named}, which is not among those given ({', '.join(known)});"
            " a node that changed its key signs with the new one"
        )
    if not any(_holds(envelope, each.sig, known[each.keyid]) for each in by_known):
        raise ReceiptError(
            f"does not bear the signature of {by_known[0].keyid}: it was changed after it was signed,"
            " or somebody else signed it"
        )
    statement = envelope.claim()
    if statement is None:
        raise ReceiptError("is signed, but is no receipt of a version that is known here")
    return statement


def changed_outputs(statement: Statement, directory: Path) -> Iterator[str]:
    """What is not in the directory as the job left it: a sentence each."""
    for name, expected in statement.outputs.items():
        path = directory / name
        if ".." in Path(name).parts or not path.is_file():
            yield f"{name} is not there"
            continue
        found = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        if found.hexdigest() != expected:
            yield f"{name} is another file: its SHA-256 is {found.hexdigest()}, not {expected}"


def read_envelope(content: bytes) -> Envelope:
    """Read a receipt.

    Raises:
        ReceiptError: it is none.
    """
    try:
        return validated(Envelope, strict_json(content), what="receipt")
    except ValueError as error:
        raise ReceiptError(f"is not JSON: {error}") from error
    except ProblemError as error:
        raise ReceiptError(f"is not a DSSE envelope: {error.detail}") from error


def public_keys(content: bytes) -> list[PublicKey]:
    """The Ed25519 keys of a JWK, or of a JWK Set, whose other keys are left out.

    Raises:
        ReceiptError: there is none.
    """
    try:
        found = strict_json(content)
        members: list[Any] = found.get("keys", [found])
        keys = [
            PublicKey.model_validate({name: each[name] for name in _MEMBERS})
            for each in members
            if each.get("crv") == "Ed25519"
        ]
    except (AttributeError, KeyError, TypeError, ValidationError, ValueError) as error:
        raise ReceiptError("is not a public key (JWK), nor a set of such (JWK Set)") from error
    if not keys:
        raise ReceiptError("holds no Ed25519 key")
    return keys


def envelope_text(envelope: Envelope) -> str:
    """A receipt as a file holds it."""
    return json.dumps(envelope.model_dump(mode="json"), indent=2) + "\n"


def _holds(envelope: Envelope, signature: str, key: PublicKey) -> bool:
    try:
        raw = base64.urlsafe_b64decode(key.x + "=")
        Ed25519PublicKey.from_public_bytes(raw).verify(
            base64.b64decode(signature, validate=True), signed_bytes(envelope.content)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
