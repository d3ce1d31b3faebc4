"""From HTTP to messages: headers and bodies, bounded and strict, before any of our models sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.identity import IDEMPOTENCY_KEY, trace_id_of
from aiida_byoc.contracts.problems import FieldError, ProblemError

__all__ = ["JSON", "disconnected", "idempotency_key", "json_body", "traceparent_header"]

JSON = ("application/json",)
_SF_STRING = re.compile(f'"({IDEMPOTENCY_KEY.strip("^$")})"')
_CHARSET = re.compile(r'charset="?utf-8"?', re.IGNORECASE)


def idempotency_key(headers: Headers) -> str:
    """The key inside the quotes of the one `Idempotency-Key` header, an RFC 8941 string without parameters."""
    found = headers.getlist("idempotency-key")
    match = _SF_STRING.fullmatch(found[0].strip(" ")) if len(found) == 1 else None
    if match is None:
        count = f"{len(found)} headers" if len(found) != 1 else "another form"
        raise ProblemError(
            "idempotency-key-invalid",
            errors=[
                FieldError(
                    field="Idempotency-Key",
                    message=f"must be one quoted string; found {count}",
                    remedy='send Idempotency-Key: "<16 to 128 of A-Z a-z 0-9 . _ ~ ->"',
                )
            ],
        )
    return match[1]


def traceparent_header(headers: Headers) -> str | None:
    """The W3C trace context of the request; what is not valid is treated as absent, as the standard wants."""
    value = headers.get("traceparent")
    try:
        if value is not None:
            trace_id_of(value)
    except ValueError:
        return None
    return value


async def disconnected(receive: Receive) -> None:
    """Return once the other side has gone away; nothing of the request may be wanted any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def json_body(
    request: Request,
    limit: int,
    *,
    media_types: Sequence[str] = JSON,
    if_empty: Any = None,
) -> Any:
    """Read and parse a JSON body of at most `limit` bytes.

    Args:
        if_empty: what an absent body means; `None` when a body is required.

    Raises:
        ProblemError: `unsupported-media-type`, `payload-too-large`, `malformed-request`, in this order.
    """
    may_be_empty = if_empty is not None and "content-type" not in request.headers
    if not may_be_empty:
        _check_media_type(request.headers, media_types)
    body = await _bounded(request, limit)
    if not body and if_empty is not None:
        return if_empty
    if may_be_empty:
        _check_media_type(request.headers, media_types)
    try:
        return strict_json(body)
    except ValueError as error:
        raise ProblemError("malformed-request", f"The body cannot be read: {error}.") from error


def _check_media_type(headers: Headers, media_types: Sequence[str]) -> None:
    values = headers.getlist("content-type")
    media_type, _, parameters = (values[0] if len(values) == 1 else "").partition(";")
    known = media_type.strip().lower() in media_types
    if not known or (parameters.strip() and not _CHARSET.fullmatch(parameters.strip())):
        raise ProblemError(
            "unsupported-media-type",
            f"Send Content-Type: {media_types[0]}.",
            errors=[FieldError(field="Content-Type", message=f"must be {media_types[0]}")],
        )


async def _bounded(request: Request, limit: int) -> bytes:
    """Read the body; the declared length refuses early, the counted length decides."""
    too_large = ProblemError("payload-too-large", f"The body must not exceed {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
    except ClientDisconnect as error:
        raise ProblemError("malformed-request", "The body ended early.") from error
    return bytes(body)
