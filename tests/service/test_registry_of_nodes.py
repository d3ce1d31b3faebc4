"""Nodes that the product knows: how long the adapter believes it, and how soon a revocation or another key counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.eventually import eventually
from tests.service.adapter_process import Adapter
from tests.service.conformance import conforms
from tests.service.enrolled import NodeKey, access_token, ask_for_token, bearer, beat
from tests.service.node import PROBLEMS

QUICK = 2.0
"""For how long the adapter of this module believes the product, in seconds."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory, keys, convex_session, base_settings) -> Iterator[Adapter]:
    directory = tmp_path_factory.mktemp("quick")
    settings = base_settings(directory, keys, convex_session) | {"registry_seconds": QUICK}
    adapter = Adapter(directory, settings)
    yield adapter
    adapter.stop()


@pytest.fixture
def http(quick, document) -> Iterator[httpx.Client]:
    hooks = {"response": [lambda response: conforms(response, document)]}
    with httpx.Client(base_url=quick.url, event_hooks=hooks, timeout=40, trust_env=False) as http:
        yield http


@pytest.fixture
def polling(quick, convex, node_id, key) -> Iterator[Callable[[str], httpx.Response]]:
    """Starts a long poll with a token, and gives its end."""
    pool = ThreadPoolExecutor(4)

    def poll(token: str):
        started = threading.Event()

        def run() -> httpx.Response:
            with httpx.Client(base_url=quick.url, timeout=40, trust_env=False) as http:
                started.set()
                return http.post(
                    f"/v1/nodes/{node_id}/commands/poll",
                    json={"wait_seconds": 30},
                    headers=bearer(token),
                )

        done = pool.submit(run)
        started.wait(10)
        return done

    yield poll
    pool.shutdown(wait=True)


def in_flight(convex, node_id: str) -> None:
    """Wait until the adapter has asked for the node while its poll is open."""
    asked = convex.registry.asked
    eventually(lambda: asked.count(("node", node_id)) >= 3, "the adapter to ask again")


def test_a_poll_in_flight_ends_when_the_node_is_revoked(http, convex, polling, node_id, key):
    """The product is told by somebody else; this adapter only hears of it when it asks again."""
    poll = polling(access_token(http, node_id, key))
    in_flight(convex, node_id)
    assert not poll.done()

    convex.registry.nodes[node_id].state = "revoked"

    response = poll.result(10)
    assert response.status_code == 401
    assert response.json()["type"] == PROBLEMS + "unauthenticated"


def test_revoking_at_this_adapter_ends_its_polls_at_once(http, polling, keys, node_id, key):
    token = access_token(http, node_id, key)
    poll = polling(token)

    answer = http.post(f"/v1/nodes/{node_id}/revoke", headers=bearer(keys.client("acme")))

    assert answer.status_code == 204
    assert poll.result(10).status_code == 401
    assert beat(http, node_id, token).status_code == 401
    assert ask_for_token(http, node_id, key.assertion(node_id)).status_code == 401
    assert beat(http, node_id, key.assertion(node_id)).status_code == 401


def test_revoking_twice_is_revoking(http, keys, node_id):
    for _ in range(2):
        answer = http.post(f"/v1/nodes/{node_id}/revoke", headers=bearer(keys.client("acme")))
        assert answer.status_code == 204


def test_only_the_owner_revokes(http, convex, keys, node_id):
    convex.registry.nodes[node_id].tenants.append("globex")

    shared = http.post(f"/v1/nodes/{node_id}/revoke", headers=bearer(keys.client("globex")))
    foreign = http.post(f"/v1/nodes/{node_id}/revoke", headers=bearer(keys.client("initech")))
    unscoped = http.post(
        f"/v1/nodes/{node_id}/revoke", headers=bearer(keys.client("acme", scope="jobs:submit"))
    )

    assert shared.status_code == foreign.status_code == 404
    assert shared.json() == foreign.json()
    assert unscoped.status_code == 403
    assert convex.registry.nodes[node_id].state == "active"


def test_a_poll_ends_when_its_key_is_retired_and_another_goes_on(
    http, convex, polling, node_id, key
):
    successor = NodeKey()
    convex.registry.nodes[node_id].keys[successor.key_id] = successor.jwk
    old, new = (polling(access_token(http, node_id, one)) for one in (key, successor))

    del convex.registry.nodes[node_id].keys[key.key_id]

    assert old.result(10).status_code == 401
    assert not new.done()
    convex.registry.nodes[node_id].state = "revoked"
    assert new.result(10).status_code == 401


def test_while_the_product_is_down_the_last_answer_counts_and_then_nothing_does(
    http, convex, node_id, key
):
    token = access_token(http, node_id, key)
    convex.down = True

    first = beat(http, node_id, token)
    eventually(lambda: beat(http, node_id, token).status_code == 503, "the answer to be old")
    late = beat(http, node_id, token)

    assert first.status_code == 200
    assert late.json()["type"] == PROBLEMS + "product-unavailable"
    assert int(late.headers["Retry-After"]) > 0
    for path in (f"/v1/nodes/{node_id}/commands/poll", f"/v1/nodes/{node_id}/events"):
        assert http.post(path, json={}, headers=bearer(token)).status_code == 503
    assert ask_for_token(http, node_id, key.assertion(node_id)).status_code == 503
    convex.down = False
    eventually(lambda: beat(http, node_id, token).status_code == 200, "the product to answer")


def test_a_poll_in_flight_does_not_outlive_what_the_adapter_knows(
    http, convex, polling, node_id, key
):
    poll = polling(access_token(http, node_id, key))
    in_flight(convex, node_id)
    convex.down = True

    assert poll.result(10).status_code == 503


def test_what_the_settings_declare_needs_no_product(http, convex, keys):
    convex.down = True

    assert beat(http, "n1", keys.node("n1")).status_code == 200
    assert convex.registry.asked == []


def test_a_service_token_is_good_until_it_is_revoked(http, convex, node_id):
    token = convex.registry.service_token("acme", "jobs:read")
    path = f"/v1/nodes/{node_id}/jobs/job-1"
    assert http.get(path, headers=bearer(token)).status_code == 503  # the node is not there
    forbidden = http.post(f"{path}/cancel", headers=bearer(token))
    assert forbidden.status_code == 403

    convex.registry.revoke_token(token)

    eventually(lambda: http.get(path, headers=bearer(token)).status_code == 401, "the revocation")


def test_only_the_hash_of_a_service_token_travels(http, convex, node_id):
    token = convex.registry.service_token("acme", "jobs:read")
    convex.calls.clear()
    http.get(f"/v1/nodes/{node_id}/jobs/job-1", headers=bearer(token))

    assert any(call["path"] == "registry:serviceToken" for call in convex.calls)
    assert token not in str(convex.calls)


def test_a_client_does_not_see_a_node_before_it_is_shared_nor_after(http, convex, keys, node_id):
    path, headers = f"/v1/nodes/{node_id}/jobs/job-1", bearer(keys.client("globex"))
    assert http.get(path, headers=headers).status_code == 404

    convex.registry.nodes[node_id].tenants.append("globex")
    # 503: the node is not there, but now it may be asked
    eventually(lambda: http.get(path, headers=headers).status_code == 503, "the share")
    convex.registry.nodes[node_id].tenants.remove("globex")
    eventually(lambda: http.get(path, headers=headers).status_code == 404, "its end")


def test_the_product_is_asked_once_for_what_many_want_at_once(http, quick, convex, node_id, key):
    token = access_token(http, node_id, key)
    convex.registry.asked.clear()

    def look(_: int) -> int:
        with httpx.Client(base_url=quick.url, timeout=30, trust_env=False) as one:
            return beat(one, node_id, token).status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(look, range(40))) == {200}
    assert convex.registry.asked.count(("node", node_id)) <= 20


def test_a_name_that_nobody_has_is_asked_for_once_in_a_while(http, convex):
    name = f"nobody-{uuid4()}"

    statuses = {beat(http, name, NodeKey().assertion(name)).status_code for _ in range(10)}

    assert statuses == {401}
    assert convex.registry.asked.count(("node", name)) < 10
