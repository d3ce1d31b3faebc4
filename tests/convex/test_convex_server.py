"""The lab's server itself: how it starts, ends and what it refuses to start with."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial

import httpx
import pytest

from lab import process
from lab.process import LabError


@pytest.fixture(scope="module")
def served(new_lab):
    lab = new_lab()
    return (lab, *lab.ready())


def test_the_log_says_where_it_listens(served):
    _, convex, daemon = served
    line = f"ready {convex.url}\n"
    process.wait_until(lambda: line in daemon.log.read_text(), 30, line, logs=[daemon.log])


def test_it_listens_on_loopback_alone(served):
    _, convex, _ = served
    port = int(convex.url.rsplit(":", 1)[1])
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # would fail if the server held every address


def test_no_other_route_exists(served):
    _, convex, _ = served
    for method, route in [("GET", "/"), ("GET", "/api/query"), ("POST", "/api/function")]:
        response = httpx.request(method, convex.url + route, json={})
        assert response.status_code == 404
        assert response.json()["code"] == "NotFound"
    assert httpx.post(f"{convex.site_url}/anything").status_code == 404


def test_a_body_beyond_16_mib_is_refused_and_the_connection_lives_on(served):
    _, convex, _ = served
    with httpx.Client(base_url=convex.url) as client:
        response = client.post("/api/query", content=b"x" * (16 * 1024 * 1024 + 1))
        assert response.status_code == 413
        assert client.get("/version").status_code == 200


def test_it_ends_at_once_and_forgets(new_lab):
    lab = new_lab()
    convex, daemon = lab.ready()
    with httpx.Client(base_url=convex.url) as client:
        assert client.get("/version").is_success  # an idle connection does not hold it up
        os.kill(daemon.pid, signal.SIGTERM)
        process.wait_until(lambda: not daemon.alive, 5, "the server's end", logs=[daemon.log])
    again, restarted = lab.ready()
    assert again == convex
    process.stop(lab.paths, restarted.name)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CONVEX_SERVER_PORT", "http", "CONVEX_SERVER_PORT is not a port"),
        ("CONVEX_SERVER_ADMIN_KEY", "a:b", "may hold no colon"),
        ("BYOC_SERVICE_JWKS", "", "not set in the environment: BYOC_SERVICE_JWKS"),
        ("BYOC_SIGNING_KEY", "", "not set in the environment: BYOC_SIGNING_KEY"),
        ("BYOC_SERVICE_ISSUER", "https://product.test", "must be set, and differ"),
        ("BYOC_PRODUCT_JWKS", "data:application/json,{}", "JSON Web Key Set malformed"),
    ],
)
def test_it_does_not_start_with_nonsense(new_lab, variable, value, reason):
    lab = new_lab(**{variable: value})
    _, daemon = lab.start()
    with pytest.raises(LabError, match=reason):
        process.wait_until(partial(bool, 0), 30, "an error", needs=[daemon])
