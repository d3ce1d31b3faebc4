"""What a route needs beside a credential, and the document of all; tests/security holds each to its guard."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.service.node import PROBLEMS


@pytest.mark.parametrize(
    "scope", ["", "jobs:read jobs:cancel", "jobs:submitted", [["jobs:submit"]], {"jobs:submit": 1}]
)
def test_a_client_without_the_scope_is_forbidden(scope, http, keys, command):
    headers = {
        "Authorization": f"Bearer {keys.client('acme', scope=scope)}",
        "Idempotency-Key": f'"{uuid4()}"',
    }

    response = http.post("/v1/nodes/n1/jobs", json=command, headers=headers)

    assert (response.status_code, response.json()["type"]) == (403, PROBLEMS + "forbidden")
    assert "jobs:submit" in response.json()["detail"]


def test_the_document_is_served_as_it_is_published_to_whom_it_is_exposed(own_adapter, document):
    url = own_adapter(expose_docs=True).url

    assert httpx.get(f"{url}/openapi.json", trust_env=False).json() == document
    assert httpx.get(f"{url}/docs", trust_env=False).is_success
