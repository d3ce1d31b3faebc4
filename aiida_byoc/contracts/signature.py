"""The product's signature under a command: a detached JWS (RFC 7515, appendix F) over its canonical JSON (RFC 8785).

The node verifies it with keys that its owner took from the product, so an adapter that somebody took over cannot invent
a job. `docs/contracts/command-signature.md`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import StringConstraints

from aiida_byoc.contracts.canonical import canonical_json

__all__ = ["SIGNATURE_HEADER", "Signature", "signing_input"]

SIGNATURE_HEADER = "Byoc-Signature"
"""The header that carries it from the product to the adapter; RFC 6648: no `X-`."""

Signature = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,512}\.\.[A-Za-z0-9_-]{1,512}$")
]
"""`<protected header>..<signature>`: a compact JWS without its payload."""


def signing_input(
    protected: str, operation: str, idempotency_key: str | None, body: Mapping[str, Any]
) -> bytes:
    """What is signed (RFC 7515 §5.1): the protected header, and the intent in base64url.

    The intent holds the operation and the key too, so that no signature serves for another request. Raises `ValueError`
    where the body has no canonical form.
    """
    intent = {"operation": operation, "idempotency_key": idempotency_key, "body": body}
    payload = base64.urlsafe_b64encode(canonical_json(intent)).rstrip(b"=")
    return protected.encode("ascii") + b"." + payload
