"""Nodes' identities as owners and the adapter meet them: over HTTP, by the names that the adapter calls.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from aiida_byoc.contracts.enrolment import EnrolmentToken, PublicKey

REDEMPTIONS = 50


def new_key() -> dict[str, Any]:
    """A public key as the adapter passes it on."""
    members = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True)
    key = PublicKey(**{name: members[name] for name in ("kty", "crv", "x")})
    return {"key_id": key.key_id, "jwk": key.model_dump()}


class Owner:
    """The owner of one new node, and the adapter that speaks for it."""

    def __init__(self, deployment, tenant):
        self.deployment, self.tenant = deployment, tenant
        self.node_id = f"made-{tenant.suffix}"
        answer = tenant.manage("action", "nodes:create", node_id=self.node_id)
        self.token = EnrolmentToken.parse(answer["value"]["enrolment_token"])

    def adapter(self, kind: str, path: str, **args: Any) -> Any:
        args = {"node_id": self.node_id} | args
        service = self.tenant.service(node_id=self.node_id)
        answer = self.deployment.call(kind, path, args, service)
        assert answer["status"] == "success", answer
        return answer["value"]

    def redeem(self, key: dict[str, Any], token: EnrolmentToken | None = None) -> Any:
        secret = (token or self.token).secret
        return self.adapter(
            "mutation",
            "registry:redeem",
            secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
            key=key,
        )

    @property
    def registered(self) -> Any:
        return self.adapter("query", "registry:node")

    @property
    def status(self) -> Any:
        return self.tenant.query("nodes:get", node_id=self.node_id)["value"]["status"]


@pytest.fixture
def owner(deployment, tenant):
    return Owner(deployment, tenant)


REFUSED = {"outcome": "refused"}


def test_of_fifty_that_redeem_a_token_at_once_one_wins(owner):
    keys = [new_key() for _ in range(REDEMPTIONS)]

    with ThreadPoolExecutor(REDEMPTIONS) as pool:
        answers = list(pool.map(owner.redeem, keys))

    assert Counter(answer["outcome"] for answer in answers) == {"enrolled": 1, "refused": 49}
    winner = next(
        key
        for key, answer in zip(keys, answers, strict=True)
        if answer == {"outcome": "enrolled", "tenants": [owner.tenant.tenant_id]}
    )
    [live] = owner.registered["keys"]
    assert {name: live[name] for name in winner} == winner


def test_a_node_is_made_enrolled_rotated_and_revoked(owner):
    assert owner.status["state"] == "enrolling"
    assert owner.registered["keys"] == []
    first, second = new_key(), new_key()
    assert owner.redeem(first)["outcome"] == "enrolled"

    def add(key, by):
        return owner.adapter("mutation", "registry:addKey", key=key, by=by["key_id"])["outcome"]

    def retire(key, by):
        args = {"key_id": key["key_id"], "by": by["key_id"]}
        return owner.adapter("mutation", "registry:retireKey", **args)["outcome"]

    assert add(second, by=first) == "added"
    assert retire(first, by=second) == "retired"
    [live] = owner.registered["keys"]
    assert live["key_id"] == second["key_id"]

    version = owner.registered["version"]
    answer = owner.tenant.manage("mutation", "nodes:revoke", node_id=owner.node_id)
    assert answer["value"] == {"changed": True}
    assert owner.registered | {"version": None} == {
        "node_id": owner.node_id,
        "tenants": [owner.tenant.tenant_id],
        "keys": [],
        "state": "revoked",
        "version": None,
    }
    assert owner.registered["version"] > version
    assert owner.status["state"] == "revoked"

    renewed = owner.tenant.manage("action", "nodes:renewToken", node_id=owner.node_id)
    token = EnrolmentToken.parse(renewed["value"]["enrolment_token"])
    assert owner.redeem(first) == REFUSED
    assert owner.redeem(first, token)["outcome"] == "enrolled"
    assert owner.registered["state"] == "active"


def test_the_token_names_the_key_that_the_product_signs_with(deployment, owner):
    answer = deployment.call("query", "registry:productKeys", {}, owner.tenant.service())

    current = answer["value"]["keys"][0]

    assert current["kid"] == owner.token.product_key_id
    assert "d" not in current
