"""What the document does not list is not served: methods, paths, documentation, websockets."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.security.inventory import PATHS, ROUTES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")
UNSERVED = [
    "/",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
    "/metrics",
    "/health",
    "/admin",
    "/.env",
    "/v1",
    "/v1/",
    "/v1/nodes",
    "/v1/nodes:enroll/",
    "/v1/nodes/n1",
    "/v1/nodes/n1/jobs/",
    "/v1/nodes//jobs",
    "/v1/nodes/n1/jobs/job-1/logs/more",
    "/v1/nodes/n1/../n1/events/x",
    "/v1/nodes/n1%2F..%2Fn2%2Fevents",
    "//v1/nodes/n1/events",
    "/V1/nodes/n1/events",
    "/v2/nodes/n1/events",
]


def places(path: str) -> str:
    return path.format(node_id="n1", job_id="job-1", command_id="c" * 36, key_id="k" * 43)


@pytest.mark.parametrize("path", PATHS)
def test_a_method_that_the_document_does_not_list_is_405(path, adapter, problem):
    """With a credential or without; `Allow` says what there is, and no method is read as another."""
    allowed = {route.method for route in ROUTES if route.path == path}
    with httpx.Client(base_url=adapter.url, trust_env=False) as http:
        for method in METHODS:
            if method in allowed:
                continue
            headers = {
                "X-HTTP-Method-Override": next(iter(allowed)),
                "Origin": "https://product.example",
                "Access-Control-Request-Method": next(iter(allowed)),
            }
            response = http.request(method, places(path), headers=headers)
            assert response.status_code == 405, f"{method}: {response.text}"
            assert set(response.headers["Allow"].split(", ")) == allowed
            if method != "HEAD":
                assert problem(response) == (405, "method-not-allowed")
            assert not any(name.startswith("access-control-") for name in response.headers)


@pytest.mark.parametrize("path", UNSERVED)
def test_what_is_not_served_is_a_404_problem(path, adapter, problem, same):
    """For every method, and word for word the same."""
    with httpx.Client(base_url=adapter.url, trust_env=False) as http:
        unknown = http.get("/nothing/of/the/kind")
        url = httpx.URL(adapter.url).copy_with(raw_path=path.encode())
        for method in ("GET", "POST", "DELETE"):
            response = http.request(method, url)
            assert problem(response) == (404, "not-found")
            assert same(response) == same(unknown)


@pytest.mark.parametrize("path", [*PATHS, "/", "/ws"])
def test_no_path_speaks_websocket(path, adapter):
    """The request is answered as the plain GET that it also is."""
    status = {405, 404} if path not in {"/livez", "/readyz"} else {200}
    if any(route.path == path and route.method == "GET" for route in ROUTES):
        status |= {401}
    head = (
        f"GET {places(path)} HTTP/1.1\r\nHost: adapter\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", adapter.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4096)

    assert int(answer.split(b" ")[1]) in status
