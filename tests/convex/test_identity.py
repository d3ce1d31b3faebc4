"""Who a node and a client are, from the product's functions through the adapter, to what both may do: nothing is fake.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiida_byoc.contracts.enrolment import EnrolmentToken, thumbprint
from tests.convex.conftest import Deployment, Tenant
from tests.eventually import eventually
from tests.service import registry_cases
from tests.service.adapter_process import Adapter
from tests.service.enrolled import NodeKey, access_token, ask_for_token, bearer, beat, enrol

QUICK = 2.0
"""For how long the adapter believes the product, in seconds."""


@dataclass(frozen=True)
class Owner:
    """The owner of a node that the product knows and no settings declare."""

    tenant: Tenant
    node_id: str
    http: httpx.Client

    def manage(self, kind: str, path: str, **args: Any) -> Any:
        """Call a function of the tenant."""
        answer = self.tenant.manage(kind, path, **args)
        assert answer["status"] == "success", answer
        return answer["value"]

    def enrolment_token(self, path: str = "nodes:create") -> EnrolmentToken:
        answer = self.manage("action", path, node_id=self.node_id)
        return EnrolmentToken.parse(answer["enrolment_token"])

    def enrol(self, key: NodeKey, token: EnrolmentToken | None = None) -> httpx.Response:
        return enrol(self.http, self.node_id, (token or self.enrolment_token()).secret, key)


@pytest.fixture
def owner(deployment: Deployment, tenant: Tenant, tmp_path) -> Iterator[Owner]:
    key_file = tmp_path / "service.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_file.write_bytes(deployment.service.key.private_bytes(*form))
    settings = {
        "registry_seconds": QUICK,
        "convex": {
            "url": deployment.convex.url,
            "service_issuer": deployment.service.iss,
            "service_key_file": str(key_file),
            "key_id": deployment.service.kid,
        },
    }
    adapter = Adapter(tmp_path, settings)
    with httpx.Client(base_url=adapter.url, timeout=40, trust_env=False) as http:
        yield Owner(tenant, f"new-{tenant.suffix}", http)
    adapter.stop()


def test_a_node_is_created_enrolled_heard_of_and_revoked(owner):
    key, token = NodeKey(), owner.enrolment_token()

    enrolment = owner.enrol(key, token)

    assert enrolment.status_code == 201, enrolment.text
    assert enrolment.json()["tenants"] == [owner.tenant.tenant_id]
    # What no adapter can forge: the key that came past it, in the token, signs commands.
    published = [thumbprint(jwk) for jwk in enrolment.json()["product_keys"]]
    assert token.product_key_id in published
    access = access_token(owner.http, owner.node_id, key)
    assert beat(owner.http, owner.node_id, access).status_code == 200
    status = owner.tenant.query("nodes:get", node_id=owner.node_id)["value"]["status"]
    assert status["state"] == "online"

    owner.manage("mutation", "nodes:revoke", node_id=owner.node_id)

    eventually(lambda: beat(owner.http, owner.node_id, access).status_code == 401, "the revocation")
    assert owner.enrol(NodeKey(), token).status_code == 401
    again = owner.enrolment_token("nodes:renewToken")
    assert owner.enrol(key, again).status_code == 201
    assert beat(owner.http, owner.node_id, access_token(owner.http, owner.node_id, key)).is_success


def test_a_poll_in_flight_ends_when_the_product_revokes_the_node(owner):
    key = NodeKey()
    owner.enrol(key)
    access = access_token(owner.http, owner.node_id, key)
    path = f"/v1/nodes/{owner.node_id}/commands/poll"

    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(owner.http.post, path, json={"wait_seconds": 30}, headers=bearer(access))
        owner.manage("mutation", "nodes:revoke", node_id=owner.node_id)
        assert poll.result(15).status_code == 401


def test_a_key_is_changed_without_a_gap(owner):
    old, new = NodeKey(), NodeKey()
    owner.enrol(old)
    before = access_token(owner.http, owner.node_id, old)
    keys = f"/v1/nodes/{owner.node_id}/keys"
    body = {"public_key": new.jwk, "proof": new.assertion(owner.node_id)}

    added = owner.http.post(keys, json=body, headers=bearer(before))
    after = access_token(owner.http, owner.node_id, new)
    assert beat(owner.http, owner.node_id, before).status_code == 200
    retired = owner.http.post(f"{keys}/{old.key_id}/retire", headers=bearer(after))

    assert [key["key_id"] for key in added.json()["keys"]] == [old.key_id, new.key_id]
    assert [key["key_id"] for key in retired.json()["keys"]] == [new.key_id]
    assert beat(owner.http, owner.node_id, after).status_code == 200
    assert beat(owner.http, owner.node_id, before).status_code == 401
    last = owner.http.post(f"{keys}/{new.key_id}/retire", headers=bearer(after))
    assert (last.status_code, last.json()["errors"][0]["field"]) == (422, "key_id")


def test_a_service_token_manages_the_node_of_its_tenant_until_it_is_revoked(owner):
    key = NodeKey()
    owner.enrol(key)
    made = owner.manage(
        "action", "serviceTokens:create", name="ci", scopes=["jobs:read", "nodes:manage"], days=1
    )
    headers = bearer(made["token"])
    path = f"/v1/nodes/{owner.node_id}"
    assert owner.http.get(f"{path}/jobs/job-1", headers=headers).status_code == 503

    assert owner.http.post(f"{path}/revoke", headers=headers).status_code == 204
    assert ask_for_token(owner.http, owner.node_id, key.assertion(owner.node_id)).status_code == 401

    owner.manage("mutation", "serviceTokens:revoke", token_id=made["token_id"])
    eventually(
        lambda: owner.http.post(f"{path}/revoke", headers=headers).status_code == 401,
        "the token to be good for nothing",
    )


def test_the_registry_keeps_the_promises_that_the_fake_one_is_held_to(deployment, tenant):
    node_id = f"told-{tenant.suffix}"
    paths = iter(["nodes:create", "nodes:renewToken"])

    def call(name, **args):
        kind = "query" if name in {"node", "serviceToken"} else "mutation"
        authorization = tenant.service(node_id=node_id)
        answer = deployment.call(kind, f"registry:{name}", args, authorization)
        assert answer["status"] == "success", answer
        return answer["value"]

    def secret():
        answer = tenant.manage("action", next(paths), node_id=node_id)
        return EnrolmentToken.parse(answer["value"]["enrolment_token"]).secret

    registry_cases.play(node_id, tenant.tenant_id, call, secret)
