"""Names of things. One form for all of them, safe in paths, labels and log lines."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints

__all__ = [
    "IDEMPOTENCY_KEY",
    "NAME",
    "Digest",
    "IdempotencyKey",
    "Name",
    "Traceparent",
    "trace_id_of",
]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""The form of tenant, workspace, job, node and policy-entry names."""

Name = Annotated[str, StringConstraints(pattern=NAME), Field(examples=["acme"])]

IDEMPOTENCY_KEY = r"^[A-Za-z0-9._~-]{16,128}$"
"""The characters of an `Idempotency-Key` inside its quotes (draft-ietf-httpapi-idempotency-key-header)."""

IdempotencyKey = Annotated[str, StringConstraints(pattern=IDEMPOTENCY_KEY)]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""An OCI content digest; only SHA-256 is accepted."""

_TRACEPARENT = r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$"

Traceparent = Annotated[
    str,
    Field(
        description="W3C Trace Context, version 00",
        json_schema_extra={"pattern": r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    ),
]


def trace_id_of(traceparent: str) -> str:
    """Return the 32 hexadecimal digits of the trace; raise `ValueError` when it is not W3C version 00."""
    if not re.fullmatch(_TRACEPARENT, traceparent):
        raise ValueError(
            "must be a W3C traceparent: 00-<32 hex>-<16 hex>-<2 hex>, ids not all zero"
        )
    return traceparent[3:35]
