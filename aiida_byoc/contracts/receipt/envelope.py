"""How a receipt is signed: DSSE v1, an envelope around bytes, so that no reader has to write JSON as the signer did."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from aiida_byoc.contracts.base import Fact
from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.receipt.statement import Statement

__all__ = ["MAX_RECEIPT_BYTES", "PAYLOAD_TYPE", "Envelope", "EnvelopeSignature", "signed_bytes"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_RECEIPT_BYTES = 512 * 1024
"""A longer payload does not travel through an adapter; the node's operator can still write it to a file."""

_Base64 = StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$")


class EnvelopeSignature(Fact):
    """One signature (Ed25519), and by whose key; the name helps to find the key and proves nothing."""

    keyid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
    sig: Annotated[str, _Base64]


class Envelope(Fact):
    """A signed receipt: DSSE v1."""

    model_config = ConfigDict(serialize_by_alias=True)

    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    payload: Annotated[str, _Base64, Field(description="Statement, in base64")]
    signatures: Annotated[list[EnvelopeSignature], Field(min_length=1, max_length=16)]

    @property
    def content(self) -> bytes:
        """The payload's bytes; `ValueError` for what is no base64."""
        return base64.b64decode(self.payload, validate=True)

    def claim(self) -> Statement | None:
        """What it says, whoever signed it; `None` where that is no statement of ours."""
        try:
            return Statement.model_validate_json(_plain(self.content))
        except (ValidationError, ValueError):
            return None


def signed_bytes(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's pre-authentication encoding: what the signature is over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _plain(payload: bytes) -> bytes:
    strict_json(payload)  # two members of one name would say two things
    return payload
