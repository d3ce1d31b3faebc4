"""From HTTP to messages: headers and bodies, bounded and strict, before any of our models sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from aiida_byoc.contracts.canonical import strict_json
from aiida_byoc.contracts.identity import IDEMPOTENCY_KEY, trace_id_of
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.contracts.signature import SIGNATURE_HEADER, Signature

__all__ = [
    "FORM",
    "JSON",
    "disconnected",
    "form_body",
    "idempotency_key",
    "json_body",
    "signature_header",
    "traceparent_header",
]

JSON = ("application/json",)
FORM = ("application/x-www-form-urlencoded",)
_MOST_FORM_FIELDS = 16
_SIGNATURE = get_args(Signature)[1].pattern
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


def signature_header(headers: Headers) -> str | None:
    """The product's signature, if the one `Byoc-Signature` header is there; `validation-failed` in another form."""
    found = headers.getlist(SIGNATURE_HEADER)
    if not found:
        return None
    if len(found) == 1 and re.fullmatch(_SIGNATURE, found[0]):
        return found[0]
    raise ProblemError(
        "validation-failed",
        f"The header {SIGNATURE_HEADER} does not fit its contract.",
        errors=[
            FieldError(
                field=SIGNATURE_HEADER,
                message="must be one detached JWS: <protected header>..<signature>",
                remedy="send it as the product wrote it, or leave it out",
            )
        ],
    )


async def form_body(request: Request, limit: int) -> dict[str, str]:
    """Read a form (`application/x-www-form-urlencoded`) of at most `limit` bytes in which no field comes twice.

    Raises:
        ProblemError: `unsupported-media-type`, `payload-too-large`, `malformed-request`, in this order.
    """
    _check_media_type(request.headers, FORM)
    body = await _bounded(request, limit)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_FORM_FIELDS,
        )
    except ValueError as error:
        raise ProblemError("malformed-request", "The body is no form.") from error
    if len(dict(pairs)) != len(pairs):
        raise ProblemError("malformed-request", "The form has a field twice.")
    return dict(pairs)


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
