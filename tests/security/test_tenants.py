"""Two tenants at one adapter, over every route and every id: what is another's is not there, word for word."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest

from tests.eventually import eventually
from tests.security.inventory import GUARDED
from tests.service.enrolled import NodeKey, bearer
from tests.service.events import event

OF_CLIENTS = [route for route in GUARDED if route.credential == "client"]
OF_NODES = [route for route in GUARDED if route.credential == "node"]


def body_for(route, command: dict[str, Any], node_id: str) -> dict[str, Any]:
    """A command of globex that fits the route."""
    asked = {**command, "tenant_id": "globex", "management_node_id": node_id, "job_id": "job-1"}
    if not route.path.endswith("/cancel"):
        return asked
    kept = ("schema_version", "tenant_id", "workspace_id", "job_id", "management_node_id")
    return {name: asked[name] for name in (*kept, "requested_by")}


@pytest.mark.parametrize("route", OF_CLIENTS, ids=str)
def test_another_tenants_node_is_not_there(route, world, command, refused_alike):
    """Neither one that lives, nor a revoked one, nor one without a key: all are as nodes that never were."""
    gone, _ = world._enrol("acme")
    world.registry.nodes[gone].state = "revoked"
    world.registry.create("awaited", "acme")
    names = ["never-was", world.other, gone, "awaited", "N2", "x" * 300]
    headers = {**world.client(), "Idempotency-Key": f'"{uuid4()}"'}

    answers = [
        world.http.request(
            route.method, route.url(name), json=body_for(route, command, name), headers=headers
        )
        for name in names
    ]

    refused_alike(answers, 404, "not-found")
    assert world.registry.nodes[world.other].state == "active"


@pytest.mark.parametrize("route", [r for r in OF_CLIENTS if "/jobs" in r.path], ids=str)
def test_what_reaches_a_shared_node_bears_the_tenant_of_the_credential(route, world, node, command):
    """The node decides by that tenant; the adapter lets nothing else stand for it, in body, query or header."""
    mine = world.client("globex")
    node.received.clear()
    for job_id in ("job-1", str(uuid4())):
        body = body_for(route, command, "n1") | {"job_id": job_id}
        headers = {**mine, "Idempotency-Key": f'"{uuid4()}"', "X-Tenant-Id": "acme"}
        world.http.request(route.method, route.url("n1", job_id=job_id), json=body, headers=headers)

    assert {each["tenant_id"] for each in node.received} == {"globex"}
    assert len({each["command_id"] for each in node.received}) >= 2
    bodies = [each["body"] for each in node.received if each.get("body")]
    assert {each.get("tenant_id", "globex") for each in bodies} <= {"globex"}


@pytest.mark.parametrize(
    "route", [r for r in OF_CLIENTS if r.scope in {"jobs:submit", "jobs:cancel"}], ids=str
)
def test_nobody_commands_for_another_tenant(route, world, node, command, refused_alike):
    """Whether there is such a tenant, or such a node, is not to be learnt from how it is refused."""
    node.received.clear()

    def ask(**changes: str):
        headers = {**world.client(), "Idempotency-Key": f'"{uuid4()}"'}
        body = {**body_for(route, command, "n1"), **changes}
        return world.http.request(route.method, route.url("n1"), json=body, headers=headers)

    tenants = [ask(tenant_id=name) for name in ("acme", "nobody")]
    nodes = [ask(management_node_id=name) for name in ("n2", world.other, "never-was")]

    refused_alike(tenants, 403, "tenant-mismatch")
    refused_alike(nodes, 422, "node-mismatch")
    assert node.received == []


@pytest.mark.parametrize("route", OF_NODES, ids=str)
def test_a_node_speaks_at_its_own_path_alone(route, world, refused_alike):
    """Of another's node it hears what it hears of none, whatever it sends."""
    token = world.access(world.own, world.own_key)
    names = ["never-was", "n1", "n2", world.other, world.revoked]

    answers = [
        world.http.request(route.method, route.url(name), content=b"x", headers=bearer(token))
        for name in names
    ]

    refused_alike(answers, 404, "not-found")


def test_a_command_is_answered_by_its_node_alone(world, node, command, keys, refused_alike):
    """Another node guesses its id right: it hears that there is none, and who waits hears nothing of it."""
    node.deciding.clear()
    heard: list[Any] = []

    def submit() -> None:
        headers = {**world.client("acme"), "Idempotency-Key": f'"{uuid4()}"'}
        heard.append(world.http.post("/v1/nodes/n1/jobs", json=command, headers=headers))

    waiting = threading.Thread(target=submit)
    waiting.start()
    try:
        eventually(lambda: node.received, "the command at its node")
        command_id = node.received[0]["command_id"]
        polled = world.http.post(
            "/v1/nodes/n2/commands/poll", json={"wait_seconds": 0}, headers=bearer(keys.node("n2"))
        )
        guess, miss = (
            world.http.post(
                f"/v1/nodes/n2/commands/{name}/verdict",
                json=node.reject("policy-refused", 422),
                headers=bearer(keys.node("n2")),
            )
            for name in (command_id, str(uuid4()))
        )
    finally:
        node.deciding.set()
        waiting.join(10)

    assert polled.json() == {"commands": [], "takes_verdicts": True}
    refused_alike([guess, miss], 404, "not-found")
    assert heard[0].status_code == 202


def test_a_node_changes_no_key_but_its_own(world, same):
    token = bearer(world.access(world.own, world.own_key))
    before = dict(world.registry.nodes[world.other].keys)

    guess, miss = (
        world.http.post(f"/v1/nodes/{world.own}/keys/{name}/retire", headers=token)
        for name in (world.other_key.key_id, NodeKey().key_id)
    )

    assert guess.status_code == 200
    assert same(guess) == same(miss)
    assert [key["key_id"] for key in guess.json()["keys"]] == [world.own_key.key_id]
    assert world.registry.nodes[world.other].keys == before


def test_a_node_adds_no_key_that_another_holds(world, problem):
    """A proof is for one node; what another signed for itself cannot be shown here."""
    token = bearer(world.access(world.own, world.own_key))
    body = {"public_key": world.other_key.jwk, "proof": world.other_key.assertion(world.other)}

    response = world.http.post(f"/v1/nodes/{world.own}/keys", json=body, headers=token)

    assert problem(response) == (422, "validation-failed")
    assert list(world.registry.nodes[world.own].keys) == [world.own_key.key_id]


CLAIMS = {
    "another node's event": lambda node_id: {"source": "/nodes/n1"},
    "a tenant that it does not serve": lambda node_id: {"source": f"/nodes/{node_id}"},
    "no node's": lambda node_id: {"source": "/nodes/never-was"},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_node_tells_nothing_of_others_jobs(claim, world, convex):
    """Its event is set aside; the product hears nothing of it."""
    told = {
        **event(str(uuid4()), 1),
        **CLAIMS[claim](world.own),
    }  # of acme, whom `own` does not serve
    before = list(convex.stored)

    response = world.http.post(
        f"/v1/nodes/{world.own}/events",
        json=[told],
        headers=bearer(world.access(world.own, world.own_key)),
    )

    assert response.status_code == 200
    assert [each["event_id"] for each in response.json()["quarantined"]] == [told["id"]]
    assert convex.stored == before


def test_only_the_owner_revokes(world, refused_alike):
    """A tenant that the node also serves is not its owner: to it there is nothing to revoke."""
    world.registry.nodes[world.other].tenants.append("globex")

    shared, missing = (
        world.http.post(f"/v1/nodes/{name}/revoke", headers=world.client())
        for name in (world.other, "never-was")
    )

    refused_alike([shared, missing], 404, "not-found")
    assert world.registry.nodes[world.other].state == "active"
