"""Service tokens over HTTP: made by a tenant's owner, found by the adapter, ended at once."""

from __future__ import annotations

import hashlib

import pytest

WANTED = {"name": "pipeline", "scopes": ["jobs:submit", "jobs:read"], "days": 7}


@pytest.fixture
def made(tenant):
    return tenant.manage("action", "serviceTokens:create", **WANTED)["value"]


@pytest.fixture
def found(deployment, tenant):
    def ask(token):
        args = {"hash": hashlib.sha256(token.encode()).hexdigest()}
        return deployment.call("query", "registry:serviceToken", args, tenant.service())["value"]

    return ask


def test_the_adapter_finds_it_until_it_is_revoked(tenant, made, found):
    assert found(made["token"]) == {
        "token_id": made["token_id"],
        "tenant_id": tenant.tenant_id,
        "scopes": ["jobs:read", "jobs:submit"],
        "expires_at": made["expires_at"],
    }
    revoked = tenant.manage("mutation", "serviceTokens:revoke", token_id=made["token_id"])
    assert revoked["value"] == {"changed": True}
    assert found(made["token"]) is None


def test_nobody_reads_its_text_again(tenant, made):
    [listed] = tenant.query("serviceTokens:list")["value"]
    assert listed["name"] == WANTED["name"]
    assert made["token"] not in str(listed)


def test_a_service_token_opens_nothing_of_the_product(deployment, tenant, made):
    body = {"path": "nodes:list", "args": {"tenant_id": tenant.tenant_id}}
    response = deployment.post("/api/query", body, f"Bearer {made['token']}")
    assert response.status_code == 401


@pytest.mark.parametrize("who", ["a member", "a stranger", "the adapter"])
def test_nobody_but_owners_makes_one(deployment, tenant, rival, who):
    authorization, code = {
        "a member": (tenant.member, "forbidden"),
        "a stranger": (rival.user, "not_found"),
        "the adapter": (tenant.service(), "not_found"),
    }[who]
    args = {"tenant_id": tenant.tenant_id, **WANTED}

    answer = deployment.call("action", "serviceTokens:create", args, authorization)

    assert deployment.error_code(answer) == code
