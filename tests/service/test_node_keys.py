"""A node changes its key: two live at most, each on the word of a live one, and there is no moment without."""

from __future__ import annotations

import httpx
import pytest

from tests.eventually import eventually
from tests.service.enrolled import NodeKey, access_token, ask_for_token, bearer, beat
from tests.service.node import PROBLEMS


def add(http, node_id: str, token: str, new: NodeKey, **changes) -> httpx.Response:
    body = {"public_key": new.jwk, "proof": new.assertion(node_id), **changes}
    return http.post(f"/v1/nodes/{node_id}/keys", json=body, headers=bearer(token))


def retire(http, node_id: str, token: str, key_id: str) -> httpx.Response:
    return http.post(f"/v1/nodes/{node_id}/keys/{key_id}/retire", headers=bearer(token))


def live(response: httpx.Response) -> list[str]:
    return [key["key_id"] for key in response.json()["keys"]]


def test_a_key_is_changed_without_a_gap(http, node_id, key):
    """At every step the token of before still works, and the new one does at once."""
    new, token = NodeKey(), access_token(http, node_id, key)

    added = add(http, node_id, token, new)
    assert (added.status_code, live(added)) == (201, [key.key_id, new.key_id])
    assert beat(http, node_id, token).status_code == 200
    successor = access_token(http, node_id, new)
    assert beat(http, node_id, successor).status_code == 200

    retired = retire(http, node_id, successor, key.key_id)
    assert (retired.status_code, live(retired)) == (200, [new.key_id])
    assert beat(http, node_id, successor).status_code == 200
    assert beat(http, node_id, token).status_code == 401
    assert beat(http, node_id, key.assertion(node_id)).status_code == 401
    assert ask_for_token(http, node_id, key.assertion(node_id)).status_code == 401


def test_a_lost_answer_is_asked_for_again(http, node_id, key):
    new, token = NodeKey(), access_token(http, node_id, key)

    assert live(add(http, node_id, token, new)) == live(add(http, node_id, token, new))
    assert live(retire(http, node_id, token, new.key_id)) == [key.key_id]
    assert live(retire(http, node_id, token, new.key_id)) == [key.key_id]


def test_a_third_key_is_one_too_many_and_the_last_one_stays(http, node_id, key):
    token = access_token(http, node_id, key)
    last = retire(http, node_id, token, key.key_id)
    add(http, node_id, token, NodeKey())
    third = add(http, node_id, token, NodeKey())

    assert (last.status_code, last.json()["errors"][0]["field"]) == (422, "key_id")
    assert (third.status_code, third.json()["type"]) == (409, PROBLEMS + "too-many-keys")


PROOFS = {
    "by the old key": lambda new, old, node_id: old.assertion(node_id),
    "by the old key in its name": lambda new, old, node_id: old.assertion(
        node_id, head={"kid": new.key_id}
    ),
    "for another node": lambda new, old, node_id: new.assertion("n1"),
    "for another audience": lambda new, old, node_id: new.assertion(node_id, aud="convex"),
    "expired": lambda new, old, node_id: new.assertion(node_id, iat=1, exp=2),
    "junk": lambda new, old, node_id: "a.b.c",
}


@pytest.mark.parametrize("case", PROOFS)
def test_a_key_that_does_not_sign_for_itself_is_not_added(case, http, convex, node_id, key):
    new = NodeKey()
    token = access_token(http, node_id, key)

    response = add(http, node_id, token, new, proof=PROOFS[case](new, key, node_id))

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["proof"]
    assert list(convex.registry.nodes[node_id].keys) == [key.key_id]


def test_a_proof_is_good_once(http, node_id, key):
    new, token = NodeKey(), access_token(http, node_id, key)
    proof = new.assertion(node_id)

    assert add(http, node_id, token, new, proof=proof).status_code == 201
    assert add(http, node_id, token, new, proof=proof).status_code == 422
    assert ask_for_token(http, node_id, proof).status_code == 401


def test_a_key_that_another_replica_added_counts_soon(http, convex, node_id, key):
    """What the adapter does not know it asks for, before its answer is old."""
    beat(http, node_id, access_token(http, node_id, key))
    new = NodeKey()
    convex.registry.nodes[node_id].keys[new.key_id] = new.jwk

    def works() -> bool:
        return ask_for_token(http, node_id, new.assertion(node_id)).status_code == 200

    eventually(works, "the new key to count")
