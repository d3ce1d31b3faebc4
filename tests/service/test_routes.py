"""Every route that the document lists, against every credential that must not open it."""

from __future__ import annotations

import base64
import json
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm

from tests.service.adapter_process import ROOT
from tests.service.node import PROBLEMS

PATHS = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
GUARDED = [
    (method.upper(), path, next(iter(operation["security"][0])))
    for path, item in PATHS.items()
    for method, operation in item.items()
    if operation["security"]
]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def hs256_with_the_public_key(keys, key: str, claims: dict) -> str:
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secret = keys.private[key].public_key().public_bytes(*form)

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed, secret))).decode()


def wrong_credentials(keys, kind: str) -> dict[str, str | None]:
    """Named credentials, none of which opens a route of `kind` at node n2 for tenant acme."""
    mint, name = (keys.client, "globex") if kind == "client" else (keys.node, "n2")
    key = "product" if kind == "client" else "n2"
    genuine = mint(name)
    claims = jwt.decode(genuine, options={"verify_signature": False})
    head, body, signature = genuine.split(".")
    return {
        "none": None,
        "empty": "",
        "junk": "Bearer junk",
        "basic": "Basic dXNlcjpwYXNz",
        "expired": f"Bearer {mint(name, exp=1_000_000_000)}",
        "not yet issued": f"Bearer {mint(name, iat=4_000_000_000)}",
        "other audience": f"Bearer {mint(name, aud='convex')}",
        "no issuer": f"Bearer {mint(name, iss='https://elsewhere.example')}",
        "stranger's key": f"Bearer {mint(name, key='stranger')}",
        "unsigned": f"Bearer {jwt.encode(claims, None, 'none')}",
        "signature cut off": f"Bearer {head}.{body}.",
        "signature altered": f"Bearer {head}.{body}.{signature[::-1]}",
        "hs256 with public key": f"Bearer {hs256_with_the_public_key(keys, key, claims)}",
        "tenant of others": f"Bearer {keys.client('acme')}",
        "other node": f"Bearer {keys.node('n1')}",
        "other kind": f"Bearer {keys.node('n2') if kind == 'client' else keys.client('globex')}",
    }


def test_the_inventory_is_what_the_design_promises():
    """A new route must be added here, and with it to the matrix below."""
    assert sorted(f"{method} {path}" for method, path, _ in GUARDED) == [
        "GET /v1/nodes/{node_id}/jobs/{job_id}",
        "GET /v1/nodes/{node_id}/jobs/{job_id}/logs",
        "POST /v1/nodes/{node_id}/commands/poll",
        "POST /v1/nodes/{node_id}/commands/{command_id}/verdict",
        "POST /v1/nodes/{node_id}/events",
        "POST /v1/nodes/{node_id}/heartbeat",
        "POST /v1/nodes/{node_id}/jobs",
        "POST /v1/nodes/{node_id}/jobs/{job_id}/cancel",
    ]


def url(path: str) -> str:
    return path.format(node_id="n2", job_id="job-1", command_id=uuid4())


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_no_wrong_credential_opens_a_route(route, http, keys, command):
    """Refused before anything is read: never a 2xx, never a 5xx; the body is the same for all kinds of no."""
    method, path, kind = route
    command = {**command, "tenant_id": "globex", "management_node_id": "n2"}
    seen: dict[str, list] = {}
    for name, value in wrong_credentials(keys, kind).items():
        headers = {"Idempotency-Key": f'"{uuid4()}"'}
        if value is not None:
            headers["Authorization"] = value
        response = http.request(method, url(path), json=command, headers=headers)
        assert response.status_code in {401, 404}, f"{name}: {response.text}"
        seen.setdefault(str(response.status_code), []).append(response.json())
    for bodies in seen.values():
        assert all(body == bodies[0] for body in bodies)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_the_right_credential_gets_past_the_guard(route, http, keys):
    """So that the matrix above refuses for the right reason."""
    method, path, kind = route
    token = keys.client("globex") if kind == "client" else keys.node("n2")
    headers = {"Authorization": f"Bearer {token}"}

    response = http.request(method, url(path), content=b"x", headers=headers)

    past = {415, 400, 503, 200}
    assert response.status_code in past, response.text


@pytest.mark.parametrize("scope", ["", "jobs:read jobs:cancel", "jobs:submitted", ["jobs:submit"]])
def test_a_client_without_the_scope_is_forbidden(scope, http, keys, command):
    headers = {
        "Authorization": f"Bearer {keys.client('acme', scope=scope)}",
        "Idempotency-Key": f'"{uuid4()}"',
    }

    response = http.post("/v1/nodes/n1/jobs", json=command, headers=headers)

    assert (response.status_code, response.json()["type"]) == (403, PROBLEMS + "forbidden")
    assert "jobs:submit" in response.json()["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_a_method_the_document_does_not_list_is_405(path, http):
    allowed = {method.upper() for method in PATHS[path]}
    for method in METHODS:
        if method in allowed:
            continue
        response = http.request(method, url(path))
        assert response.status_code == 405, method
        assert set(response.headers["Allow"].split(", ")) == allowed
        if method != "HEAD":
            assert response.json()["type"] == PROBLEMS + "method-not-allowed"


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/metrics", "/v1", "/v1/nodes/n1/jobs/", "/v1/nodes//jobs"]
)
def test_what_is_not_served_is_a_404_problem(path, http):
    response = http.get(path)

    assert (response.status_code, response.json()["type"]) == (404, PROBLEMS + "not-found")


def test_the_document_is_served_as_it_is_published(adapter, document):
    assert httpx.get(f"{adapter.url}/openapi.json", trust_env=False).json() == document
