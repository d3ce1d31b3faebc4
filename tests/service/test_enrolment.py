"""How a node becomes known: one secret, one key, once; and nobody learns why it did not work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.service.enrolled import NodeKey, access_token, ask_for_token, beat, enrol
from tests.service.node import PROBLEMS


@pytest.fixture
def node_id() -> str:
    """A node that nobody spoke of yet."""
    return f"node-{uuid4()}"


def test_a_node_enrols_gets_a_token_and_is_there(http, convex, node_id):
    convex.registry.signing_keys = [{"kty": "EC", "crv": "P-256", "x": "…", "y": "…"}]
    key, secret = NodeKey(), convex.registry.create(node_id, "acme", "globex")

    enrolment = enrol(http, node_id, secret, key)

    assert enrolment.status_code == 201
    assert enrolment.headers["Cache-Control"] == "no-store"
    assert enrolment.json() == {
        "node_id": node_id,
        "key_id": key.key_id,
        "tenants": ["acme", "globex"],
        "audience": "byoc-adapter",
        "product_keys": convex.registry.signing_keys,
    }
    token = access_token(http, node_id, key)
    assert beat(http, node_id, token).status_code == 200
    assert convex.heartbeats[-1]["node_id"] == node_id


def test_the_adapter_may_have_asked_for_the_node_before_it_was_enrolled(http, convex, node_id):
    key, secret = NodeKey(), convex.registry.create(node_id, "acme")
    assert ask_for_token(http, node_id, key.assertion(node_id)).status_code == 401

    assert enrol(http, node_id, secret, key).status_code == 201

    assert beat(http, node_id, access_token(http, node_id, key)).status_code == 200


def test_only_the_hash_of_the_secret_travels(http, convex, node_id):
    secret = convex.registry.create(node_id, "acme")
    convex.calls.clear()
    enrol(http, node_id, secret, NodeKey())

    assert any(call["path"] == "registry:redeem" for call in convex.calls)
    assert secret not in str(convex.calls)


def test_of_fifty_who_show_a_secret_at_once_one_wins(adapter, convex, node_id):
    secret, keys = convex.registry.create(node_id, "acme"), [NodeKey() for _ in range(50)]

    def show(key: NodeKey) -> httpx.Response:
        with httpx.Client(base_url=adapter.url, timeout=30, trust_env=False) as http:
            return enrol(http, node_id, secret, key)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(show, keys))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [401] * 49
    [winner] = [answer.json()["key_id"] for answer in answers if answer.status_code == 201]
    assert list(convex.registry.nodes[node_id].keys) == [winner]


def test_the_same_key_may_ask_again_as_its_answer_may_be_lost(http, convex, node_id):
    key, secret = NodeKey(), convex.registry.create(node_id, "acme")

    first, again = (enrol(http, node_id, secret, key) for _ in range(2))

    assert again.status_code == 201
    assert again.json() == first.json()


REFUSED = {
    "unknown secret": lambda registry, node_id: "x" * 43,
    "expired": lambda registry, node_id: (
        registry.expire(one := registry.create(node_id, "a")) or one
    ),
    "another node's": lambda registry, node_id: registry.create(f"{node_id}-other", "acme"),
    "used": None,
    "declared in the settings": None,
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_refusal_is_the_same(case, http, convex, node_id):
    registry = convex.registry
    if case == "used":
        secret = registry.create(node_id, "acme")
        assert enrol(http, node_id, secret, NodeKey()).status_code == 201
    elif case == "declared in the settings":
        node_id = "n1"
        secret = registry.create(node_id, "acme")
    else:
        secret = REFUSED[case](registry, node_id)

    response = enrol(http, node_id, secret, NodeKey())

    assert response.status_code == 401
    assert response.json() == {
        "type": PROBLEMS + "enrolment-refused",
        "title": "The enrolment token is not valid",
        "status": 401,
        "detail": "Ask the product for a new enrolment token: one is good once, for 15 minutes, for one node.",
        "retry": False,
        "errors": [],
    }
    assert secret not in response.text


def test_a_new_enrolment_replaces_the_keys_and_lifts_a_revocation(http, convex, node_id):
    old, new = NodeKey(), NodeKey()
    enrol(http, node_id, convex.registry.create(node_id, "acme"), old)
    token = access_token(http, node_id, old)
    convex.registry.nodes[node_id].state = "revoked"

    assert enrol(http, node_id, convex.registry.create(node_id, "acme"), new).status_code == 201

    assert beat(http, node_id, access_token(http, node_id, new)).status_code == 200
    assert beat(http, node_id, token).status_code == 401
    assert ask_for_token(http, node_id, old.assertion(node_id)).status_code == 401


@pytest.mark.parametrize("fault", ["reset", "503", "500"])
def test_while_the_product_is_down_the_secret_is_not_used_up(fault, http, convex, node_id):
    key, secret = NodeKey(), convex.registry.create(node_id, "acme")
    convex.faults.extend([fault, fault])

    response = enrol(http, node_id, secret, key)

    assert response.status_code == 503
    assert response.json()["type"] == PROBLEMS + "product-unavailable"
    convex.faults.clear()
    assert enrol(http, node_id, secret, key).status_code == 201


def test_when_the_answer_of_the_product_is_lost_the_node_asks_again(http, convex, node_id):
    key, secret = NodeKey(), convex.registry.create(node_id, "acme")
    convex.faults.extend(["", "lost-reply", "lost-reply"])

    assert enrol(http, node_id, secret, key).status_code == 503
    assert enrol(http, node_id, secret, key).status_code == 201


BODIES = {
    "no secret": ({"secret": ...}, "secret"),
    "short secret": ({"secret": "x" * 42}, "secret"),
    "no name": ({"node_id": "../n"}, "node_id"),
    "private key": ({"public_key": {"d": "x" * 43}}, "public_key.d"),
    "other curve": ({"public_key": {"crv": "X25519"}}, "public_key.crv"),
    "unknown": ({"tenant_id": "acme"}, "tenant_id"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_field_at_fault_is_named_and_not_repeated(case, http, convex, node_id):
    changes, field = BODIES[case]
    body = {"node_id": node_id, "secret": "s" * 43, "public_key": NodeKey().jwk}
    for name, value in changes.items():
        if value is ...:
            del body[name]
        else:
            body[name] = {**body[name], **value} if isinstance(value, dict) else value

    response = http.post("/v1/nodes:enroll", json=body)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert "s" * 43 not in response.text
    assert convex.registry.asked == []
