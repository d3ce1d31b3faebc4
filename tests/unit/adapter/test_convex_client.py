"""Every answer of Convex has one reaction; tokens are short, per node, and renewed once when refused."""

from __future__ import annotations

import asyncio
import json

import httpx
import jwt
import pytest

from adapter.convex import Convex, UpdatesRefusedError
from adapter.deployment import Deployment, ServiceTokens
from adapter.keys import load_service_key
from adapter.projection import project
from aiida_byoc.contracts import ExecutionEvent
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.validation import validated


@pytest.fixture
def settings(make_settings):
    return make_settings().convex


@pytest.fixture
def update(make_event):
    return project(validated(ExecutionEvent, make_event(2, "queued")))


def applied(update) -> httpx.Response:
    outcome = {"projection_id": update.projection_id, "outcome": "applied"}
    return httpx.Response(200, json={"status": "success", "value": {"outcomes": [outcome]}})


def client(settings, *answers):
    """A client whose calls meet `answers` in order; an exception is raised as if by the transport."""
    requests, left = [], iter(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url=str(settings.url))
    return Convex(Deployment(settings, http)), requests


def apply(settings, update, *answers):
    convex, requests = client(settings, *answers)
    return asyncio.run(convex.apply("n1", [update])), requests


def test_an_update_is_sent_as_the_service_on_behalf_of_its_node(settings, update):
    [outcome], [request] = apply(settings, update, applied(update))

    assert outcome.outcome == "applied"
    assert (request.method, request.url.path) == ("POST", "/api/mutation")
    assert json.loads(request.content) == {
        "path": "projections:applyProjections",
        "args": {"updates": [update.wire()]},
        "format": "json",
    }
    assert request.headers["Convex-Request-Id"]
    token = request.headers["Authorization"].removeprefix("Bearer ")
    public = load_service_key(settings.service_key_file).public_key()
    claims = jwt.decode(token, public, ["ES256"], audience="convex", issuer=settings.service_issuer)
    assert claims["sub"] == "adapter"
    assert claims["node_id"] == "n1"
    assert claims["scope"].split() == [
        "projections:write",
        "heartbeats:write",
        "registry:read",
        "registry:write",
    ]
    assert claims["exp"] - claims["iat"] == 300
    assert jwt.get_unverified_header(token)["kid"] == "service-1"


def test_a_token_is_reused_per_node_and_renewed_in_time(settings, monkeypatch):
    now = [1_800_000_000.0]
    monkeypatch.setattr("adapter.deployment.time.time", lambda: now[0])
    tokens = ServiceTokens(settings)

    first = tokens.token("n1")
    assert tokens.token("n1") == first
    assert tokens.token("n2") != first
    now[0] += 241
    assert tokens.token("n1") != first


OUTAGES = {
    "refused connection": [httpx.ConnectError("refused")],
    "time-out": [httpx.ReadTimeout("late")],
    "two resets": [httpx.ReadError("reset"), httpx.ReadError("reset")],
    "408": [httpx.Response(408)],
    "429": [httpx.Response(429)],
    "500": [httpx.Response(500)],
    "503": [httpx.Response(503, json={"code": "Overloaded", "message": "busy"})],
    "401 twice": [httpx.Response(401), httpx.Response(401)],
    "403": [httpx.Response(403)],
    "400": [httpx.Response(400)],
    "redirect": [httpx.Response(302, headers={"location": "http://127.0.0.1:2/"})],
    "no JSON": [httpx.Response(200, text="<html>")],
    "no outcomes": [httpx.Response(200, json={"status": "success", "value": None})],
    "too few outcomes": [
        httpx.Response(200, json={"status": "success", "value": {"outcomes": []}})
    ],
    "refused by code": [
        httpx.Response(200, json={"status": "error", "errorData": {"code": "forbidden"}})
    ],
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_one_problem_whatever_its_kind(outage, settings, update):
    """And all scripted answers were asked for: no retry too many, none too few."""
    answers = OUTAGES[outage]
    convex, requests = client(settings, *answers)

    with pytest.raises(ProblemError, match="product-unavailable"):
        asyncio.run(convex.apply("n1", [update]))

    assert len(requests) == len(answers)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "passed_on"),
    [
        ("7", 7),
        ("0", 1),
        ("86400", 300),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("\u0667", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_the_pause_that_convex_asks_for_is_passed_on_within_reason(
    status, asked, passed_on, settings, update
):
    headers = {"Retry-After": asked.encode()}

    with pytest.raises(ProblemError, match="product-unavailable") as refused:
        apply(settings, update, httpx.Response(status, headers=headers))

    assert refused.value.retry_after == passed_on


def test_an_epoch_that_the_product_does_not_know_is_a_problem_of_its_own(settings, update, caplog):
    """I16: no outage, so that the node can tell its operator what is wrong."""
    error = {"code": "epoch_mismatch", "message": "The node tells 0123abcd"}
    answer = httpx.Response(200, json={"status": "error", "errorData": error})

    with pytest.raises(ProblemError, match="epoch-mismatch: The node tells 0123abcd"):
        apply(settings, update, answer)

    assert [record.event for record in caplog.records] == ["node.epoch_mismatch"]


def test_what_needs_an_operator_is_logged_as_an_error(settings, update, caplog):
    with pytest.raises(ProblemError):
        apply(settings, update, httpx.Response(403))

    [record] = caplog.records
    assert (record.levelname, record.event) == ("ERROR", "product.misconfigured")


@pytest.mark.parametrize("status", [200, 560])
def test_an_error_without_data_refuses_the_call_as_a_whole(status, settings, update):
    answer = httpx.Response(status, json={"status": "error", "errorMessage": "Server Error"})

    with pytest.raises(UpdatesRefusedError):
        apply(settings, update, answer)


def test_one_reset_is_repeated_and_one_401_gets_a_new_token(settings, update, monkeypatch):
    now = iter(range(1_800_000_000, 1_800_000_100))
    monkeypatch.setattr("adapter.deployment.time.time", lambda: next(now))

    [outcome], _ = apply(settings, update, httpx.ReadError("reset"), applied(update))
    assert outcome.outcome == "applied"

    [outcome], requests = apply(settings, update, httpx.Response(401), applied(update))
    assert outcome.outcome == "applied"
    assert requests[0].headers["Authorization"] != requests[1].headers["Authorization"]


@pytest.mark.parametrize(
    ("answer", "runs"),
    [
        ({"status": "error", "errorData": {"code": "invalid"}}, True),
        ({"status": "success", "value": {"outcomes": []}}, True),
        ({"status": "error", "errorMessage": "Could not find public function"}, False),
    ],
)
def test_a_function_that_runs_is_told_from_one_that_does_not(answer, runs, settings):
    convex, _ = client(settings, httpx.Response(200, json=answer))

    assert asyncio.run(convex.answers("n1")) is runs
