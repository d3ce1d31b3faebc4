"""Holds an answer of the adapter against the OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema

PROBLEM = "application/problem+json"


def conforms(response: httpx.Response, document: dict[str, Any]) -> None:
    """Fail unless the document declares this status, problem, body and header for this route."""
    response.read()
    operation = _operation(response.request, document)
    if operation is None:  # no such path or method: the document says so in its description
        assert response.status_code in {404, 405}, response.text
        assert response.headers["content-type"] == PROBLEM
        return
    declared = operation["responses"].get(str(response.status_code))
    assert declared is not None, f"{response.status_code} is not declared: {response.text}"
    media_type = response.headers.get("content-type")
    content = declared.get("content", {})
    assert (media_type in content) if media_type else not content
    if media_type is None or "json" not in media_type:
        return
    schema = {**content[media_type]["schema"], "components": document["components"]}
    jsonschema.validate(response.json(), schema)
    if media_type == PROBLEM:
        name = response.json()["type"].rpartition("/")[2]
        assert name in content[PROBLEM]["examples"], f"{name} is not declared"
        assert response.json()["status"] == response.status_code
        for header in {"WWW-Authenticate", "Retry-After"} & declared["headers"].keys():
            assert header in response.headers


def _operation(request: httpx.Request, document: dict[str, Any]) -> dict[str, Any] | None:
    for path, item in document["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path):
            return item.get(request.method.lower())
    return None
