"""What pages of other origins may read in a browser: nothing, unless the operator names them."""

from __future__ import annotations

import httpx
import pytest

from tests.service.adapter_process import Adapter

PAGE = "https://product.example"
JOB = "/v1/nodes/n1/jobs/job-1"
OTHERS = [
    "https://other.example",
    "http://product.example",
    "https://product.example:8443",
    "https://product.example.other.example",
    "https://PRODUCT.example",
    "null",
    "*",
    "",
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, keys, convex_session, base_settings):
    """An adapter that two pages may read."""
    directory = tmp_path_factory.mktemp("adapter")
    origins = {"cors_origins": [PAGE, "http://127.0.0.1:5173"]}
    adapter = Adapter(directory, base_settings(directory, keys, convex_session) | origins)
    with httpx.Client(base_url=adapter.url, trust_env=False) as client:
        yield client
    adapter.stop()


def preflight(client: httpx.Client, origin: str, path: str = JOB) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,last-event-id",
    }
    return client.options(path, headers=headers)


def cors(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "access-control" in name}


@pytest.mark.parametrize("origin", [PAGE, "http://127.0.0.1:5173"])
@pytest.mark.parametrize("path", [JOB, f"{JOB}/logs?follow=true"])
def test_the_preflight_of_a_named_page_allows_to_read_with_a_token(shared, origin, path):
    response = preflight(shared, origin, path)

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Vary"] == "Origin"
    assert cors(response) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET",
        "access-control-allow-headers": "authorization, last-event-id",
        "access-control-expose-headers": "X-Request-Id, Retry-After",
        "access-control-max-age": "600",
    }


def test_a_named_page_reads_answers_and_refusals(shared, keys):
    for headers, status in [({}, 401), ({"Authorization": f"Bearer {keys.client('acme')}"}, 503)]:
        response = shared.get(JOB, headers={**headers, "Origin": PAGE})

        assert response.status_code == status, response.text
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert response.headers["X-Request-Id"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", OTHERS)
def test_other_pages_are_told_nothing(shared, origin):
    refused, answer = preflight(shared, origin), shared.get("/livez", headers={"Origin": origin})

    assert (refused.status_code, answer.status_code) == (405, 200)
    assert refused.headers["Content-Type"] == "application/problem+json"
    for response in (refused, answer):
        assert cors(response) == {}
        assert response.headers["Vary"] == "Origin"


def test_a_method_named_options_alone_is_no_preflight(shared):
    assert shared.options(JOB, headers={"Origin": PAGE}).status_code == 405


def test_without_origins_no_answer_speaks_of_them(http):
    for response in (preflight(http, PAGE), http.get("/livez", headers={"Origin": PAGE})):
        assert cors(response) == {}
        assert "Vary" not in response.headers
