"""How a node proves who it is: assertions good once, access tokens, and what must never pass for either."""

from __future__ import annotations

import base64
import json
import time
from uuid import uuid4

import httpx
import jwt
import pytest

from aiida_byoc.contracts.enrolment import ASSERTION_TYPE, thumbprint
from tests.service.enrolled import FORM, NodeKey, access_token, ask_for_token, bearer, beat
from tests.service.keys import Keys, hs256_with_the_public_key
from tests.service.node import PROBLEMS


def unauthenticated(response) -> bool:
    return response.status_code == 401 and response.json()["type"] == PROBLEMS + "unauthenticated"


def test_an_access_token_is_short_bound_to_its_key_and_not_to_be_kept(http, node_id, key):
    response = ask_for_token(http, node_id, key.assertion(node_id))

    assert response.headers["Cache-Control"] == "no-store"
    answer = response.json()
    assert answer["token_type"] == "Bearer"
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == answer["expires_in"] <= 600
    assert (claims["sub"], claims["aud"], claims["iss"]) == (
        node_id,
        "byoc-adapter",
        "https://adapter.example",
    )
    assert claims["cnf"] == {"jkt": key.key_id}


def test_another_replica_takes_the_token(http, own_adapter, node_id, key):
    token = access_token(http, node_id, key)
    with httpx.Client(base_url=own_adapter().url, trust_env=False) as other:
        assert beat(other, node_id, token).status_code == 200


def test_a_node_that_the_settings_declare_may_use_tokens_too(http, keys):
    """By the thumbprint of its key, or by the name that the operator gave it."""
    [jwk] = keys.jwks("n1")["keys"]
    claims = {"iss": "n1", "sub": "n1", "aud": "byoc-adapter", "iat": now(0), "exp": now(300)}
    claims["jti"] = str(uuid4())
    assertion = jwt.encode(claims, keys.private["n1"], "ES256", headers={"kid": thumbprint(jwk)})

    response = ask_for_token(http, "n1", assertion)

    assert response.status_code == 200
    assert beat(http, "n1", response.json()["access_token"]).status_code == 200


def test_an_agent_of_the_version_before_signs_every_request_itself(http, node_id, key):
    """Without a kid, and again and again with the same token."""
    token = key.assertion(node_id, head={}, jti=None)

    assert beat(http, node_id, token).status_code == 200
    assert beat(http, node_id, token).status_code == 200


def now(seconds: int) -> int:
    return int(time.time()) + seconds


CLAIMS = {
    "expired": lambda: {"iat": now(-400), "exp": now(-100)},
    "not yet valid": lambda: {"nbf": now(100)},
    "issued in the future": lambda: {"iat": now(100), "exp": now(300)},
    "wrong audience": lambda: {"aud": "convex"},
    "wrong issuer": lambda: {"iss": "n1"},
    "wrong subject": lambda: {"sub": "n1"},
    "no expiry": lambda: {"exp": None},
    "no time of issue": lambda: {"iat": None},
    "no audience": lambda: {"aud": None},
    "no subject": lambda: {"sub": None},
}
ONLY_OF_ASSERTIONS = {
    "one audience of several": lambda: {"aud": ["byoc-adapter", "elsewhere"]},
    "too long-lived": lambda: {"exp": now(301)},
    "no name": lambda: {"jti": None},
    "a short name": lambda: {"jti": "x" * 15},
    "a long name": lambda: {"jti": "x" * 65},
    "a name that is none": lambda: {"jti": 1234567890123456},
}
ONLY_OF_BEARERS = {"too long-lived": lambda: {"exp": now(700)}}


@pytest.mark.parametrize("fault", CLAIMS | ONLY_OF_ASSERTIONS)
def test_an_assertion_at_fault_gets_no_token(fault, http, node_id, key):
    changes = (CLAIMS | ONLY_OF_ASSERTIONS)[fault]()

    assert unauthenticated(ask_for_token(http, node_id, key.assertion(node_id, **changes)))


@pytest.mark.parametrize("fault", CLAIMS | ONLY_OF_BEARERS)
def test_a_self_signed_token_at_fault_is_no_credential(fault, http, node_id, key):
    changes = (CLAIMS | ONLY_OF_BEARERS)[fault]()

    assert unauthenticated(beat(http, node_id, key.assertion(node_id, **changes)))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forged(node_id: str, key: NodeKey, keys) -> dict[str, str]:
    """Tokens that nobody who holds the node's key signed, or not by the agreed algorithm."""
    genuine = key.assertion(node_id)
    head, body, signature = genuine.split(".")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    stranger = NodeKey()
    keys.private["forged"] = key.private
    confused = hs256_with_the_public_key(keys, "forged", claims)
    with_kid = part({"alg": "HS256", "typ": "JWT", "kid": key.key_id})
    del keys.private["forged"]
    return {
        "another key": stranger.assertion(node_id, head={"kid": key.key_id}),
        "another key under its own name": stranger.assertion(node_id),
        "none": f"{part({'alg': 'none', 'kid': key.key_id})}.{body}.{signature}",
        "unsigned": jwt.encode(claims, None, "none", headers={"kid": key.key_id}) + signature,
        "hs256 with the public key": confused,
        "hs256 with the public key and its name": f"{with_kid}.{confused.partition('.')[2]}",
        "its key in the header": stranger.assertion(
            node_id, head={"kid": stranger.key_id, "jwk": stranger.jwk}
        ),
        "a critical extension": key.assertion(
            node_id, head={"kid": key.key_id, "crit": ["byoc"], "byoc": True}
        ),
        "altered": f"{head}.{part({**claims, 'extra': 1})}.{signature}",
        "es256": jwt.encode(claims, keys.private["stranger"], "ES256", headers={"kid": key.key_id}),
    }


@pytest.mark.parametrize("forgery", forged("n", NodeKey(), Keys()))
def test_a_forgery_is_neither_assertion_nor_credential(forgery, http, node_id, key, keys):
    token = forged(node_id, key, keys)[forgery]

    assert unauthenticated(ask_for_token(http, node_id, token))
    assert unauthenticated(beat(http, node_id, token))


def test_an_assertion_without_a_kid_gets_no_token(http, node_id, key):
    assert unauthenticated(ask_for_token(http, node_id, key.assertion(node_id, head={})))


def test_sixty_seconds_of_skew_are_forgiven(http, node_id, key):
    fast = key.assertion(node_id, iat=now(50), exp=now(350))
    slow = key.assertion(node_id, iat=now(-340), exp=now(-40))

    assert ask_for_token(http, node_id, fast).status_code == 200
    assert ask_for_token(http, node_id, slow).status_code == 200


def test_an_assertion_is_good_once(http, node_id, key):
    assertion = key.assertion(node_id)
    name = jwt.decode(assertion, options={"verify_signature": False})["jti"]

    assert ask_for_token(http, node_id, assertion).status_code == 200
    assert unauthenticated(ask_for_token(http, node_id, assertion))
    assert unauthenticated(ask_for_token(http, node_id, key.assertion(node_id, jti=name)))


def test_a_name_counts_for_its_node_alone(http, convex, node_id, key):
    other, name = NodeKey(), str(uuid4())
    convex.registry.enrol(f"{node_id}-b", other.key_id, other.jwk, "acme")

    for one, signer in ((node_id, key), (f"{node_id}-b", other)):
        assert ask_for_token(http, one, signer.assertion(one, jti=name)).status_code == 200


def test_who_cannot_sign_uses_no_name_up(http, node_id, key):
    name = str(uuid4())
    forgery = NodeKey().assertion(node_id, head={"kid": key.key_id}, jti=name)

    assert unauthenticated(ask_for_token(http, node_id, forgery))
    assert ask_for_token(http, node_id, key.assertion(node_id, jti=name)).status_code == 200


def test_an_assertion_is_for_the_nodes_own_path(http, node_id, key):
    assert unauthenticated(ask_for_token(http, "n1", key.assertion(node_id)))
    assert beat(http, "n1", access_token(http, node_id, key)).status_code == 404


def service_signed(keys, node_id: str, key: NodeKey, head: dict | None = None, **changes) -> str:
    """A token signed with the adapter's own key."""
    claims = {
        "iss": "https://adapter.example",
        "sub": node_id,
        "aud": "byoc-adapter",
        "iat": now(0),
        "exp": now(500),
        "jti": str(uuid4()),
        "cnf": {"jkt": key.key_id},
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, keys.private["service"], "ES256", headers=head or {"typ": "at+jwt"})


ACCESS = {
    "expired": {"iat": now(-1000), "exp": now(-100)},
    "wrong audience": {"aud": "convex"},
    "wrong subject": {"sub": "nobody"},
    "no key": {"cnf": None},
    "a key that is none": {"cnf": "jkt"},
    "another key": {"cnf": {"jkt": "x" * 43}},
    "no name": {"jti": None},
}


def test_a_token_of_the_services_key_opens_if_all_is_right(http, keys, node_id, key):
    """So that the matrix below refuses for the right reason."""
    assert beat(http, node_id, service_signed(keys, node_id, key)).status_code == 200


@pytest.mark.parametrize("fault", ACCESS)
def test_an_access_token_at_fault_is_no_credential(fault, http, keys, node_id, key):
    assert unauthenticated(beat(http, node_id, service_signed(keys, node_id, key, **ACCESS[fault])))


def test_what_else_the_service_key_signs_is_no_access_token(http, convex, keys, node_id, key):
    """The very tokens that the adapter shows the product, and ones of its kind for us."""
    beat(http, node_id, access_token(http, node_id, key))

    assert unauthenticated(beat(http, node_id, convex.tokens[-1]))
    assert unauthenticated(
        beat(http, node_id, service_signed(keys, node_id, key, head={"typ": "JWT"}))
    )


def test_an_access_token_is_no_credential_of_a_client_nor_for_the_product(
    http, convex, node_id, key
):
    token = access_token(http, node_id, key)

    assert http.get(f"/v1/nodes/{node_id}/jobs/job-1", headers=bearer(token)).status_code == 401
    assert jwt.decode(token, options={"verify_signature": False})["aud"] != "convex"
    assert unauthenticated(ask_for_token(http, node_id, token))


FORMS = {
    "json": (json.dumps({"grant_type": "client_credentials"}), "application/json", 415, None),
    "no body": ("", FORM, 422, "client_assertion"),
    "junk": ("junk", FORM, 400, None),
    "not ascii": ("grant_type=\xff".encode("latin-1"), FORM, 400, None),
    "a field twice": ("grant_type=a&grant_type=b", FORM, 400, None),
    "many fields": ("&".join(f"f{n}=1" for n in range(20)), FORM, 400, None),
    "too large": ("client_assertion=" + "x" * 9000, FORM, 413, None),
    "unknown field": ("scope=all", FORM, 422, "scope"),
    "other grant": ("grant_type=password", FORM, 422, "grant_type"),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_form_at_fault_is_refused_before_it_is_believed(case, http, convex, node_id):
    content, media_type, status, field = FORMS[case]

    response = http.post(
        f"/v1/nodes/{node_id}/token", content=content, headers={"Content-Type": media_type}
    )

    assert response.status_code == status, response.text
    if field is not None:
        assert field in [error["field"] for error in response.json()["errors"]]
    assert convex.registry.asked == []


def test_the_grant_is_the_one_of_the_contract(http, node_id, key):
    assertion = key.assertion(node_id)

    for changes in ({"grant_type": "password"}, {"client_assertion_type": ASSERTION_TYPE + "x"}):
        assert ask_for_token(http, node_id, assertion, **changes).status_code == 422
    assert ask_for_token(http, node_id, assertion).status_code == 200


def test_a_node_asks_for_no_endless_number_of_tokens(http, node_id, key):
    answers = {ask_for_token(http, node_id, key.assertion(node_id)).status_code for _ in range(256)}
    response = ask_for_token(http, node_id, key.assertion(node_id))

    assert answers == {200}
    assert (response.status_code, response.headers["Retry-After"]) == (429, "30")
