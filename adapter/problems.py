"""Every refusal leaves as RFC 9457 `application/problem+json`; the catalogue is in the contracts."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiida_byoc.contracts.identity import NAME
from aiida_byoc.contracts.problems import CATALOGUE, ProblemError

__all__ = ["MEDIA_TYPE", "RequestBoundary", "install_problems", "problem_response", "responses"]

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = 5
_TO_BE_RETRIED = {429, 503, 504}
_log = logging.getLogger(__name__)


def problem_response(error: ProblemError, headers: dict[str, str] | None = None) -> Response:
    """Write the problem with the headers its status calls for."""
    extra = dict(headers or {})
    if error.kind.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if error.kind.status in _TO_BE_RETRIED:
        extra["Retry-After"] = str(error.retry_after or _RETRY_AFTER_SECONDS)
    body = error.problem().model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, error.kind.status, extra, MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this class alone
    _log.log(
        logging.INFO if error.kind.status < 500 else logging.WARNING,
        "A request was refused.",
        extra={
            "event": "request.refused",
            "problem": error.kind.name,
            "node_id": _name(request, "node_id"),
            "job_id": _name(request, "job_id"),
            "request_id": request.state.request_id,
        },
    )
    return problem_response(error)


def _name(request: Request, parameter: str) -> str | None:
    """A name of the path for the log; what is none may be anything, a secret among others, and stays out."""
    value = request.path_params.get(parameter)
    return value if isinstance(value, str) and re.fullmatch(NAME, value) else None


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    if error.status_code == 405:
        return problem_response(ProblemError("method-not-allowed"), {"Allow": _methods(request)})
    if error.status_code == 404:
        return problem_response(ProblemError("not-found"))
    return problem_response(ProblemError("malformed-request"))


def _methods(request: Request) -> str:
    """Those of all routes of the path; the framework names the first one's alone."""
    here = [
        route
        for route in iter_route_contexts(request.app.routes)
        if compile_path(route.path or "")[0].match(request.scope["path"])
    ]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))


def install_problems(app: FastAPI) -> None:
    """Make `app` answer its own refusals, the framework's and the unforeseen ones as problems."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(RequestBoundary)


class RequestBoundary:
    """Names every request (`X-Request-Id`) and turns what nobody foresaw into a constant problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            _log.exception(
                "A request failed on our side.",
                extra={"event": "request.failed", "request_id": request_id},
            )
            if started:
                raise
            error = ProblemError("internal-error")
            body = error.problem(f"urn:uuid:{request_id}").model_dump(mode="json")
            response = JSONResponse(body, error.kind.status, media_type=MEDIA_TYPE)
            await response(scope, receive, send_named)


def responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Declare, for OpenAPI, the problems a route may answer; `internal-error` always belongs to them."""
    by_status: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for name in sorted({*names, "internal-error"}):
        problem = ProblemError(name).problem().model_dump(mode="json", exclude_none=True)
        by_status[CATALOGUE[name].status][name] = {
            "summary": CATALOGUE[name].title,
            "value": problem,
        }
    return {
        status: {
            "description": "; ".join(example["summary"] for example in examples.values()),
            "headers": _headers(status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": examples,
                }
            },
        }
        for status, examples in sorted(by_status.items())
    }


def _headers(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string", "const": "Bearer"}}
    if status in _TO_BE_RETRIED:
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return headers
