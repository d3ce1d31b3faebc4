"""Every route, against every credential that must not open it: exactly the problem that is due, in the same bytes."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.security.inventory import GUARDED, LIST, OPEN, ROUTES, served
from tests.service.enrolled import NodeKey, ask_for_token, bearer, enrol


def test_the_inventory_is_what_was_agreed(application):
    """A new route is covered by what follows as it is; that it came must be noticed: add it to routes.txt."""
    names, others = served(application)

    assert sorted(map(str, ROUTES)) == LIST.read_text().splitlines()
    assert names == {f"{route.method} {route.path}" for route in ROUTES}
    assert others == []  # no websocket, no mounted application, no documentation


def test_what_needs_no_credential_brings_a_secret_or_tells_nothing():
    assert {f"{route.method} {route.path}" for route in OPEN} == {
        "GET /livez",
        "GET /readyz",
        "POST /v1/nodes/{node_id}/token",
        "POST /v1/nodes:enroll",
    }


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_no_wrong_credential_opens_a_route(route, world, command, problem, same):
    """Before anything of the request is believed; who is refused cannot tell one reason from another."""
    seen: dict[Any, set[bytes]] = {}
    for node_id in (world.own, "n2"):
        body = {**command, "tenant_id": "globex", "management_node_id": node_id}
        for name, (value, expected) in world.wrong(route.credential, route.scope).items():
            headers = {"Idempotency-Key": f'"{uuid4()}"'}
            if value is not None:
                headers["Authorization"] = value
            sent = [(key, text.encode("latin-1")) for key, text in headers.items()]

            response = world.http.request(route.method, route.url(node_id), json=body, headers=sent)

            assert (name, *problem(response)) == (name, *expected)
            seen.setdefault(expected, set()).add(same(response))
    assert {status: len(answers) for status, answers in seen.items()} == dict.fromkeys(seen, 1)


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_two_credentials_are_none(route, world, problem):
    [(node_id, token), *_] = world.right(route.credential).values()
    twice = [("Authorization", f"Bearer {token}")] * 2

    response = world.http.request(route.method, route.url(node_id), headers=twice)

    assert problem(response) == (401, "unauthenticated")


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_the_right_credential_gets_past_the_guard(route, world):
    """So that the matrix above refuses for the right reason."""
    for name, (node_id, token) in world.right(route.credential).items():
        response = world.http.request(
            route.method, route.url(node_id), content=b"x", headers=bearer(token)
        )

        past = {200, 204, 400, 415, 503}
        changes = route.method == "POST" and route.path.endswith(("/keys", "/retire", "/revoke"))
        if node_id == "n2" and changes:
            past = {403}  # what the settings declare, nobody changes over the wire
            assert "settings declare this node" in response.json()["detail"]
        assert response.status_code in past, f"{name}: {response.text}"


def test_no_wrong_secret_enrols_a_node(world, problem, same):
    """Unknown, another node's, expired, used by another key, of a revoked node: one answer."""
    registry, name = world.registry, f"node-{uuid4()}"
    used, foreign, late, gone = (
        registry.create(node_id, "globex") for node_id in (name, "node-b", "node-c", "node-d")
    )
    assert enrol(world.http, name, used, NodeKey()).status_code == 201
    registry.expire(late)
    registry.call("mutation", "registry:revoke", _revocation("node-d"), ["registry:write"])
    tries = [
        (name, used),
        (name, foreign),
        ("node-c", late),
        ("node-d", gone),
        ("node-b", "x" * 43),
        ("nobody", "x" * 43),
        ("n2", "x" * 43),
        (world.own, foreign),
    ]

    answers = [enrol(world.http, node_id, secret, NodeKey()) for node_id, secret in tries]

    assert {problem(answer) for answer in answers} == {(401, "enrolment-refused")}
    assert len({same(answer) for answer in answers}) == 1
    assert (
        enrol(world.http, "node-b", foreign, NodeKey()).status_code == 201
    )  # the tries cost nothing


def _revocation(node_id: str) -> dict[str, str]:
    return {"node_id": node_id, "tenant_id": "globex", "actor": "user-1"}


def test_no_wrong_assertion_gets_a_token(world, problem, same):
    """Whose node it is, whether there is one, whether it was revoked: nobody learns it here."""
    stranger = NodeKey()
    tries = {
        "another's path": (world.other, world.own_key.assertion(world.own)),
        "nobody's path": ("nobody", world.own_key.assertion(world.own)),
        "another's name": (world.other, world.own_key.assertion(world.other)),
        "nobody's name": ("nobody", stranger.assertion("nobody")),
        "another key": (world.own, stranger.assertion(world.own)),
        "another key's name": (
            world.own,
            stranger.assertion(world.own, head={"kid": world.own_key.key_id}),
        ),
        "revoked": (world.revoked, world.revoked_key.assertion(world.revoked)),
        "junk": (world.own, "a.b.c"),
        "a client's token": (world.own, world.keys.client("globex")),
        "an access token": (world.own, world.access(world.own, world.own_key)),
    }

    answers = {name: ask_for_token(world.http, *each) for name, each in tries.items()}

    assert {name: problem(answer) for name, answer in answers.items()} == dict.fromkeys(
        tries, (401, "unauthenticated")
    )
    assert len({same(answer) for answer in answers.values()}) == 1
