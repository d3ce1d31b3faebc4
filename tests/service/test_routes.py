"""Every route that the document lists, against every credential that must not open it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm

from tests.service.adapter_process import ROOT
from tests.service.enrolled import NodeKey, access_token, bearer
from tests.service.keys import SCOPES
from tests.service.node import PROBLEMS

PATHS = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
GUARDED = [
    (method.upper(), path, next(iter(operation["security"][0])))
    for path, item in PATHS.items()
    for method, operation in item.items()
    if operation["security"]
]
OPEN = {
    f"{method.upper()} {path}"
    for path, item in PATHS.items()
    for method, operation in item.items()
    if not operation["security"]
}
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
        "POST /v1/nodes/{node_id}/keys",
        "POST /v1/nodes/{node_id}/keys/{key_id}/retire",
        "POST /v1/nodes/{node_id}/revoke",
    ]
    assert {
        "GET /livez",
        "GET /readyz",
        "POST /v1/nodes:enroll",  # brings a one-time secret
        "POST /v1/nodes/{node_id}/token",  # brings an assertion
    } == OPEN


def url(path: str, node_id: str = "n2") -> str:
    names = {"job_id": "job-1", "command_id": uuid4(), "key_id": "k" * 43}
    return path.format(node_id=node_id, **names)


@pytest.fixture
def guests(convex, http) -> dict[str, tuple[str, NodeKey]]:
    """Enrolled nodes, whom the adapter knows from the product alone."""
    guests = {}
    for name, tenant in (("own", "globex"), ("other", "acme"), ("revoked", "globex")):
        node_id, key = f"{name}-{uuid4()}", NodeKey()
        convex.registry.enrol(node_id, key.key_id, key.jwk, tenant)
        guests[name] = (node_id, key)
    return guests


@pytest.fixture
def wrong_of_guests(convex, http, keys, guests) -> Callable[[str], dict[str, str]]:
    """The same for the enrolled node `own`, of tenant globex, and the credentials that the product knows of."""

    def make(kind: str) -> dict[str, str]:
        registry, (node_id, key), (other, other_key) = (
            convex.registry,
            guests["own"],
            guests["other"],
        )
        revoked, revoked_key = guests["revoked"]
        late = access_token(http, revoked, revoked_key)
        registry.nodes[revoked].state = "revoked"
        gone = registry.service_token("globex", *SCOPES.split(" "))
        registry.revoke_token(gone)
        genuine = registry.service_token("globex", *SCOPES.split(" "))
        credentials = {
            "service token of nobody": f"byoc_st_{'x' * 43}",
            "revoked service token": gone,
            "expired service token": registry.service_token(
                "globex", *SCOPES.split(" "), seconds=-1
            ),
            "service token cut off": genuine[:-1],
            "service token of another tenant": registry.service_token("acme", *SCOPES.split(" ")),
            "access token of another node": access_token(http, other, other_key),
            "access token of a revoked node": late,
            "self-signed by another node": other_key.assertion(other),
            "self-signed by another key": NodeKey().assertion(node_id, head={"kid": key.key_id}),
            "self-signed by a node that nobody knows": NodeKey().assertion(f"nobody-{uuid4()}"),
            "another tenant's": keys.client("acme"),
        }
        if kind == "client":
            credentials["access token of the node"] = access_token(http, node_id, key)
        else:
            credentials["service token"] = genuine
            credentials["client"] = keys.client("globex")
        return {name: f"Bearer {token}" for name, token in credentials.items()}

    return make


def refusals(http, route, node_id: str, command, credentials: dict) -> None:
    """Refused before anything is read: never a 2xx, never a 5xx; the body is the same for all kinds of no."""
    method, path, _ = route
    command = {**command, "tenant_id": "globex", "management_node_id": node_id}
    seen: dict[str, list] = {}
    for name, value in credentials.items():
        headers = {"Idempotency-Key": f'"{uuid4()}"'}
        if value is not None:
            headers["Authorization"] = value
        response = http.request(method, url(path, node_id), json=command, headers=headers)
        assert response.status_code in {401, 404}, f"{name}: {response.text}"
        seen.setdefault(str(response.status_code), []).append(response.json())
    for bodies in seen.values():
        assert all(body == bodies[0] for body in bodies)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_no_wrong_credential_opens_a_route(route, http, keys, command):
    refusals(http, route, "n2", command, wrong_credentials(keys, route[2]))


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_no_wrong_credential_opens_a_route_of_an_enrolled_node(
    route, http, command, guests, wrong_of_guests
):
    refusals(http, route, guests["own"][0], command, wrong_of_guests(route[2]))


@pytest.fixture
def right(http, convex, keys, guests) -> dict[str, Callable[[], str]]:
    """Who may come in, and how."""
    own, key = guests["own"]
    return {
        "client": lambda: keys.client("globex"),
        "client of a guest": lambda: keys.client("globex"),
        "service token": lambda: convex.registry.service_token("globex", *SCOPES.split(" ")),
        "self-signed by the declared": lambda: keys.node("n2"),
        "self-signed by a guest": lambda: key.assertion(own),
        "access token": lambda: access_token(http, own, key),
    }


RIGHT = {
    "client": ("client", "n2"),
    "client of a guest": ("client", "own"),
    "service token": ("client", "own"),
    "self-signed by the declared": ("node", "n2"),
    "self-signed by a guest": ("node", "own"),
    "access token": ("node", "own"),
}


@pytest.mark.parametrize(
    ("route", "credential"),
    [(route, name) for route in GUARDED for name, (kind, _) in RIGHT.items() if kind == route[2]],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_right_credential_gets_past_the_guard(route, credential, http, guests, right):
    """So that the matrices above refuse for the right reason."""
    method, path, _ = route
    token = right[credential]()
    node_id = guests["own"][0] if RIGHT[credential][1] == "own" else "n2"

    response = http.request(method, url(path, node_id), content=b"x", headers=bearer(token))

    past = {200, 204, 400, 415, 503}
    if node_id == "n2" and path.endswith(("/keys", "/retire", "/revoke")):
        past = {403}  # what the settings declare, nobody changes over the wire
        assert "settings declare this node" in response.json()["detail"]
    assert response.status_code in past, response.text


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
