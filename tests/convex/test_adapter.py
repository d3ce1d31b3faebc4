"""What a node sends, through the adapter, to the functions: a bad event stops its own job, and nothing of it is shown.

Against the lab's server, or against a real deployment when `CONVEX_URL` is set (conftest.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.convex.conftest import Deployment, Signer, Tenant
from tests.service.adapter_process import Adapter
from tests.service.events import event

ONE, TWO = "aaaaaaaaaaaaaaaa", "5555555555555555"
AUDIENCE = "byoc-adapter"


@dataclass(frozen=True)
class Node:
    """A node of the tenant, which reports through the adapter."""

    tenant: Tenant
    signer: Signer
    http: httpx.Client

    def event(self, job: str, seq: int, **data: Any) -> dict[str, Any]:
        """An event of the job whose submission_id this is; keywords change `data`."""
        told = event(job, seq, tenant_id=self.tenant.tenant_id, **data)
        return {**told, "source": f"/nodes/{self.signer.iss}"}

    def deliver(self, *events: Any) -> httpx.Response:
        token = self.signer.token(self.signer.iss, aud=AUDIENCE)
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.post(f"/v1/nodes/{self.signer.iss}/events", json=events, headers=headers)

    def shown(self, job: str) -> dict[str, Any] | None:
        """What the tenant's user sees of the job."""
        answer = self.tenant.query("jobs:get", job_id=event(job, 1)["data"]["job_id"])
        return answer.get("value")


@pytest.fixture
def nodes(deployment: Deployment, tenant: Tenant, tmp_path) -> Iterator[Callable[[str], Node]]:
    """The tenant's node, and another one that serves the tenant too; by the end of their names."""
    key_file = tmp_path / "service.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_file.write_bytes(deployment.service.key.private_bytes(*form))
    signers = {name: Signer.generate(tenant.node_id + name) for name in ("", "-second")}
    declared = [{"node_id": tenant.node_id + "-second", "tenant_ids": [tenant.tenant_id]}]
    deployment.call("mutation", "tenancy:seed", {"nodes": declared}, deployment.admin)
    settings = {
        "nodes": {
            signer.iss: {"jwks": signer.issuer.jwks, "tenants": [tenant.tenant_id, "unheard-of"]}
            for signer in signers.values()
        },
        "convex": {
            "url": deployment.convex.url,
            "service_issuer": deployment.service.iss,
            "service_key_file": str(key_file),
            "key_id": deployment.service.kid,
        },
        "client_issuers": [
            {"issuer": deployment.product.iss, "jwks": deployment.product.issuer.jwks}
        ],
    }
    adapter = Adapter(tmp_path, settings)
    with httpx.Client(base_url=adapter.url, timeout=30, trust_env=False) as http:
        yield lambda name="": Node(tenant, signers[name], http)
    adapter.stop()


@pytest.fixture
def node(nodes: Callable[..., Node]) -> Node:
    return nodes()


def jobs(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


def verdicts(response: httpx.Response) -> list[tuple[str, int, str]]:
    assert response.status_code == 200, response.text
    return [
        (one["submission_id"], one["seq"], one["code"]) for one in response.json()["quarantined"]
    ]


def test_one_job_told_otherwise_stops_alone_among_twenty(node):
    """I14: the product has that seq with other content."""
    bad, *good = jobs(21)
    node.deliver(node.event(bad, 1), node.event(bad, 2))
    before = node.shown(bad)
    batch = [node.event(job, seq) for seq in (1, 2) for job in good]
    batch.insert(17, node.event(bad, 2, reason="told otherwise"))

    response = node.deliver(*batch)

    assert verdicts(response) == [(bad, 2, "seq_conflict")]
    assert response.json()["next_seq"] == dict.fromkeys(good, 3)
    assert node.shown(bad) == before
    assert [node.shown(job)["seq"] for job in good] == [2] * 20


# How an event is spoiled, and the code that says so.
FAULTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda raw: raw.update(source="/nodes/another"), "forbidden"),
    (lambda raw: raw["data"].update(tenant_id="globex"), "forbidden"),
    (lambda raw: raw["data"].update(tenant_id="unheard-of"), "forbidden"),
    (lambda raw: raw["data"].update(seq=10**30), "invalid"),
    (lambda raw: raw["data"].update(seq=0), "validation-failed"),
    (lambda raw: raw["data"].update(state="vanished"), "validation-failed"),
    (lambda raw: raw.update(subject="another"), "validation-failed"),
    (lambda raw: raw.pop("id"), "validation-failed"),
    (lambda raw: raw["data"].update(epoch="yesterday"), "validation-failed"),
]


def test_every_kind_of_bad_event_in_one_batch_stops_its_own_job_alone(node):
    """I14: seen by the adapter, or only by the product."""
    good, bad = jobs(20), jobs(len(FAULTS))
    batch = [node.event(job, 1) for job in good]
    for place, (job, (spoil, _)) in enumerate(zip(bad, FAULTS, strict=True)):
        batch.insert(2 * place, node.event(job, 1))
        spoil(batch[2 * place])
    batch.insert(5, "junk")

    response = node.deliver(*batch)

    found = {one.get("submission_id"): one["code"] for one in response.json()["quarantined"]}
    codes = [code for _, code in FAULTS]
    assert found == {None: "validation-failed", **dict(zip(bad, codes, strict=True))}
    assert response.json()["next_seq"] == dict.fromkeys(good, 2)
    assert [node.shown(job) for job in bad] == [None] * len(bad)
    assert [node.shown(job)["seq"] for job in good] == [1] * 20


def test_a_node_cannot_tell_of_another_nodes_job_of_the_same_tenant(nodes):
    """I23: the product knows whose job it is."""
    job, own = jobs(2)
    first, second = nodes(), nodes("-second")
    first.deliver(first.event(job, 1))
    before = first.shown(job)

    response = second.deliver(second.event(job, 2, state="cancelled"), second.event(own, 1))

    assert verdicts(response) == [(job, 2, "forbidden")]
    assert response.json()["next_seq"] == {own: 2}
    assert first.shown(job) == before
    assert first.deliver(first.event(job, 2)).json()["next_seq"] == {job: 3}


def test_what_is_missing_is_asked_for_until_it_is_there(node):
    """I15: a product that lost something says so by itself."""
    [job] = jobs(1)

    ahead = node.deliver(node.event(job, 4), node.event(job, 5))
    back = node.deliver(*(node.event(job, seq) for seq in (1, 2)))
    whole = node.deliver(node.event(job, 3), node.event(job, 4))

    assert (ahead.json()["next_seq"], ahead.json()["missing_from"]) == ({job: 6}, {job: 1})
    assert back.json()["missing_from"] == {job: 3}
    assert "missing_from" not in whole.json()
    assert (node.shown(job)["seq"], "missing" in node.shown(job)) == (5, False)


def test_a_restored_node_is_refused_until_an_operator_accepts_its_history(deployment, node):
    """I16: nothing is overwritten in silence."""
    job, other = jobs(2)
    node.deliver(*(node.event(job, seq, epoch=ONE) for seq in (1, 2, 3)))
    before = node.shown(job)
    restored = [
        node.event(other, 1, epoch=ONE),
        node.event(job, 2, state="held", reason="restored", epoch=TWO),
    ]

    refused = [node.deliver(*restored) for _ in range(2)]

    for response in refused:
        assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (
            409,
            "epoch-mismatch",
        )
        assert TWO[:8] in response.json()["detail"]
        assert node.tenant.tenant_id not in response.text
    assert (node.shown(job), node.shown(other)) == (before, None)

    decision = {"node_id": node.signer.iss, "epoch": TWO}
    deployment.call("mutation", "nodes:acceptEpoch", decision, deployment.admin)

    accepted = node.deliver(*restored).json()
    assert (accepted["next_seq"], accepted["missing_from"]) == ({other: 2, job: 3}, {job: 1})
    assert (node.shown(job)["seq"], node.shown(job)["epoch"]) == (2, TWO)


def test_nobody_without_the_key_accepts_an_epoch(deployment, node):
    decision = {"node_id": node.signer.iss, "epoch": TWO}
    for who in (None, node.tenant.user, node.tenant.service()):
        answer = deployment.call("mutation", "nodes:acceptEpoch", decision, who)
        assert deployment.error_code(answer) is None
    assert "epoch" not in node.tenant.query("nodes:list")["value"][0]
