"""What each route declares in OpenAPI: credential, body, answer, headers and every problem it may answer.

Bodies are parsed by hand (bounded, strict, in a fixed order of checks), so the framework cannot infer them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, HttpUrl, TypeAdapter
from pydantic.json_schema import models_json_schema

from adapter.answers import LOG_HEADERS, Health, HeartbeatReceipt
from adapter.problems import responses
from aiida_byoc.contracts import (
    Acknowledgement,
    CancelJobCommand,
    CommandBatch,
    ExecutionEvent,
    Heartbeat,
    JobAcceptance,
    JobCancellation,
    JobView,
    LogChunk,
    LogRequest,
    PollRequest,
    Problem,
    SubmitJobCommand,
    Verdict,
)
from aiida_byoc.contracts.delivery import MAX_EVENT_BATCH
from aiida_byoc.contracts.enrolment import (
    AccessToken,
    Enrolment,
    EnrolmentRequest,
    KeyAddition,
    NodeKeys,
    SigningKeys,
    TokenRequest,
)
from aiida_byoc.contracts.identity import IDEMPOTENCY_KEY
from aiida_byoc.contracts.receipt.envelope import Envelope
from aiida_byoc.contracts.signature import SIGNATURE_HEADER, Signature

__all__ = ["answer", "declare", "describe"]

_MODELS: tuple[type[BaseModel], ...] = (
    AccessToken,
    Acknowledgement,
    CancelJobCommand,
    CommandBatch,
    Enrolment,
    EnrolmentRequest,
    Envelope,
    ExecutionEvent,
    Health,
    Heartbeat,
    HeartbeatReceipt,
    JobAcceptance,
    JobCancellation,
    JobView,
    KeyAddition,
    LogChunk,
    NodeKeys,
    PollRequest,
    Problem,
    SigningKeys,
    SubmitJobCommand,
    TokenRequest,
    Verdict,
)
_REF = "#/components/schemas/{model}"
_HEADERS: dict[str, Any] = {
    "X-Request-Id": {
        "description": "names this request in the adapter's log",
        "schema": {"type": "string", "format": "uuid"},
    },
    "Retry-After": {
        "description": "seconds to wait before the same request, with the same key, is sent again",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Location": {
        "description": "path of the job at its node",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Cache-Control": {
        "description": "nobody on the way may keep the answer",
        "schema": {"type": "string", "const": "no-store"},
    },
    "Idempotency-Replayed": {
        "description": "present when the key was used before: no second job was started",
        "schema": {"type": "string", "const": "true"},
    },
    **{
        header: {
            "description": f"with text/plain alone: `{name}` of the LogChunk",
            "schema": {"type": "string"},
        }
        for header, name in LOG_HEADERS.items()
    },
}
_PARAMETERS: dict[str, Any] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": "RFC 8941 string, quotes included; mint it once per command and repeat it on every retry",
        "schema": {"type": "string", "pattern": f'^"{IDEMPOTENCY_KEY.strip("^$")}"$'},
        "example": '"01J9ZK5T7Q8R2M4N6P8S0V2X4Y"',
    },
    SIGNATURE_HEADER: {
        "name": SIGNATURE_HEADER,
        "in": "header",
        "required": False,
        "description": "the product's detached JWS over operation, key and body; the node may insist on it",
        "schema": TypeAdapter(Signature).json_schema(),
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "required": False,
        "description": "W3C Trace Context; used when the body names none",
        "schema": {"type": "string"},
    },
    **{
        name: {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in LogRequest.model_json_schema()["properties"].items()
    },
    "follow": {
        "name": "follow",
        "in": "query",
        "required": False,
        "description": "as server-sent events: `log`, `attempt`, `end` (a LogChunk each), `problem` (a Problem)",
        "schema": {"type": "boolean", "default": False},
    },
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "the id of the last event; goes before offset and attempt",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*:[0-9]+$"},
    },
}
_SECURITY_SCHEMES = {
    "client": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "JWT of a configured issuer (claims iss, sub, aud, iat, exp, scopes and the tenant), or a"
        " service token byoc_st_…",
    },
    "node": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "access token of POST /v1/nodes/{node_id}/token; or, as older agents do, a JWT of at most 10"
        " minutes signed by the node's own key: iss and sub are the node's name; claims aud, iat, exp",
    },
}
_DESCRIPTION = (
    "Takes commands for management nodes, hands them over and projects what the nodes report. "
    "Every 5xx, timeout and reset is ambiguous: repeating the request with the same key is always safe. "
    "A path answers methods it does not list with the problem method-not-allowed (405) and an Allow header."
)


def answer(
    status: int,
    model: type[BaseModel] | None = None,
    *,
    headers: Sequence[str] = (),
    also: Sequence[str] = (),
) -> dict[int | str, dict[str, Any]]:
    """Declare what a route answers when it does what it is for, or says it cannot in its own words.

    Args:
        also: media types in which it answers as well, if asked to.
    """
    declared: dict[str, Any] = {
        "description": (model.__doc__ or "").splitlines()[0] if model else "Done.",
        "headers": {name: _header(name) for name in ("X-Request-Id", *headers)},
    }
    if model is not None:
        declared["content"] = {
            "application/json": {"schema": _schema(model)},
            **{media_type: {"schema": {"type": "string"}} for media_type in also},
        }
    return {status: declared}


def declare(
    operation_id: str,
    *,
    answer: dict[int | str, dict[str, Any]],
    otherwise: dict[int | str, dict[str, Any]] | None = None,
    credential: str | None = None,
    scope: str | None = None,
    body: Any = None,
    body_required: bool = True,
    media_types: Sequence[str] = ("application/json",),
    problems: Sequence[str] = (),
    parameters: Sequence[str] = (),
) -> dict[str, Any]:
    """The keyword arguments of a route decorator.

    Args:
        body: a contract model, or `list[Model]` for a batch.
        problems: names from the catalogue; `internal-error` is added.
    """
    extra: dict[str, Any] = {
        "security": [{credential: [scope] if scope else []}] if credential else [],
        "parameters": [_PARAMETERS[name] for name in parameters],
    }
    if body is not None:
        schema = _schema(body)
        extra["requestBody"] = {
            "required": body_required,
            "content": {media_type: {"schema": schema} for media_type in media_types},
        }
    return {
        "operation_id": operation_id,
        "openapi_extra": extra,
        "responses": {**answer, **(otherwise or {}), **responses(*problems)},
    }


def describe(app: FastAPI, public_url: HttpUrl | None) -> None:
    """Make `app` publish the complete document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, public_url)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, public_url: HttpUrl | None) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": str(public_url)}] if public_url else None,
    )
    for path in document["paths"].values():
        for operation in path.values():
            _without_framework_errors(operation)
    _, schemas = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    document["components"] = {
        "schemas": schemas["$defs"],
        "headers": _HEADERS,
        "securitySchemes": _SECURITY_SCHEMES,
    }
    return document


def _without_framework_errors(operation: dict[str, Any]) -> None:
    """Drop the 422 that the framework assumes for path parameters: it is never sent."""
    content = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in content:
        del operation["responses"]["422"]


def _schema(body: Any) -> dict[str, Any]:
    items = get_args(body)
    if items:
        return {
            "type": "array",
            "items": _schema(items[0]),
            "minItems": 1,
            "maxItems": MAX_EVENT_BATCH,
        }
    return {"$ref": _REF.format(model=body.__name__)}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
