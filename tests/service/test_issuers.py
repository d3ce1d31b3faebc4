"""Clients' tokens as Clerk and Convex issue them: where keys, tenant, scopes and audience are found; else a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.eventually import eventually
from tests.service.enrolled import bearer
from tests.service.issuers import KEYS, IssuerServer, SigningKey
from tests.service.node import PROBLEMS


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    server = IssuerServer()
    yield server
    server.stop()


@pytest.fixture
def ask(own_adapter, issuer) -> Callable[..., Callable[[str], httpx.Response]]:
    """An adapter that knows this issuer alone, and how a client asks it: is there the job?"""

    def with_settings(**settings):
        adapter = own_adapter(client_issuers=[{"issuer": issuer.url, **settings}])

        def ask(token: str) -> httpx.Response:
            path = f"{adapter.url}/v1/nodes/n1/jobs/job-1"
            return httpx.get(path, headers=bearer(token), timeout=20, trust_env=False)

        return ask

    return with_settings


def let_in(response: httpx.Response) -> bool:
    """The node is not there: all else was right."""
    return response.json()["type"] == PROBLEMS + "node-unreachable"


def refused(response: httpx.Response, name: str = "unauthenticated") -> bool:
    return response.json()["type"] == PROBLEMS + name


def test_clerk(ask, issuer):
    """RS256, organisation in `o.id` (session tokens, version 2), scopes as its permissions; `aud` by a JWT template."""
    key = SigningKey("ins_1", "RS256")
    issuer.keys = [key.jwk]
    look = ask(
        discovery=True,
        algorithms=["RS256"],
        tenant_claim="o.id",
        scope_claim="permissions",
        scope_prefix="org:",
    )

    def token(**changes) -> str:
        claims = {
            "tenant_id": None,
            "scope": None,
            "azp": "https://product.example",
            "sid": "sess_1",
            "v": 2,
            "o": {"id": "acme", "rol": "admin", "slg": "acme-labs"},
            "permissions": ["org:jobs:read", "org:sys_memberships:manage"],
        }
        return key.sign(issuer.claims(**{**claims, **changes}))

    assert let_in(look(token()))
    assert refused(look(token(permissions=["jobs:read"])), "forbidden")
    assert refused(look(token(permissions="org:jobs:read,org:x")), "forbidden")
    assert refused(look(token(o=None, tenant_id="acme")))
    assert refused(look(token(o={"id": ["acme"]})))
    assert refused(look(token(o="acme")))
    assert refused(look(token(aud=None)))
    assert refused(look(token(o={"id": "globex2"})), "not-found")


def test_clerk_of_version_1(ask, issuer):
    """Organisation and permissions at the top: `org_id`, `org_permissions`."""
    key = SigningKey("ins_1", "RS256")
    issuer.keys = [key.jwk]
    look = ask(
        jwks_url=issuer.url + KEYS,
        algorithms=["RS256"],
        tenant_claim="org_id",
        scope_claim="org_permissions",
        scope_prefix="org:",
    )
    claims = {"tenant_id": None, "scope": None, "org_permissions": ["org:jobs:read"]}

    assert let_in(look(key.sign(issuer.claims(org_id="acme", **claims))))
    assert refused(look(key.sign(issuer.claims(org_id=None, **claims))))


def test_tokens_for_convex(ask, issuer):
    """`aud` is `convex` there, and the adapter takes it from this issuer only."""
    key = SigningKey("one", "RS256")
    issuer.keys = [key.jwk]
    look = ask(discovery=True, algorithms=["RS256"], audience="convex")

    assert let_in(look(key.sign(issuer.claims(aud="convex"))))
    assert let_in(look(key.sign(issuer.claims(aud=["convex", "else"]))))
    assert refused(look(key.sign(issuer.claims(aud="byoc-adapter"))))


def test_claims_may_have_dots_in_their_names(ask, issuer):
    key = SigningKey("one")
    issuer.keys = [key.jwk]
    look = ask(jwks_url=issuer.url + KEYS, tenant_claim="https://product.example/tenant")

    claims = issuer.claims(tenant_id=None, **{"https://product.example/tenant": "acme"})
    assert let_in(look(key.sign(claims)))


def test_a_new_key_is_found_by_its_name_and_the_old_one_is_gone(ask, issuer):
    old, new = SigningKey("old"), SigningKey("new")
    issuer.keys = [old.jwk]
    look = ask(jwks_url=issuer.url + KEYS, refetch_seconds=0.05)
    taken = old.sign(issuer.claims())
    assert let_in(look(taken))

    issuer.keys = [old.jwk, new.jwk]
    eventually(lambda: let_in(look(new.sign(issuer.claims()))), "it to look again")
    assert let_in(look(taken))
    assert let_in(look(old.sign(issuer.claims())))
    issuer.keys = [new.jwk]

    def gone() -> bool:
        unknown = look(SigningKey("junk").sign(issuer.claims()))  # makes it look again
        late = look(old.sign(issuer.claims()))
        return refused(unknown) and refused(look(taken)) and refused(late)

    eventually(gone, "the old key to go")
    assert let_in(look(new.sign(issuer.claims())))


@pytest.mark.parametrize("fault", ["huge", "redirect", "500", "junk", "reset"])
def test_while_the_keys_cannot_be_had_it_is_an_outage(fault, ask, issuer):
    key = SigningKey("one")
    issuer.keys, issuer.fault, issuer.elsewhere = [key.jwk], fault, issuer.url + KEYS + "?again"
    look = ask(jwks_url=issuer.url + KEYS)

    response = look(key.sign(issuer.claims()))

    assert response.status_code == 503
    assert refused(response, "product-unavailable")
    assert response.headers["Retry-After"]
    assert issuer.asked == {KEYS: 1}


def test_a_token_cannot_send_the_adapter_elsewhere(ask, issuer):
    """Neither `jku`, `jwk` nor `x5u` in its header counts, nor an issuer that nobody configured."""
    other = IssuerServer()
    stranger = SigningKey("stranger")
    issuer.keys, other.keys = [SigningKey("one").jwk], [stranger.jwk]
    look = ask(jwks_url=issuer.url + KEYS)

    for headers in ({"jku": other.url + KEYS}, {"x5u": other.url + KEYS}, {"jwk": stranger.jwk}):
        assert refused(look(stranger.sign(issuer.claims(), **headers)))
    assert refused(look(stranger.sign(issuer.claims(iss=other.url))))
    assert not other.asked
    other.stop()


def test_an_issuer_signs_by_the_algorithms_of_its_settings_alone(ask, issuer):
    key = SigningKey("one", "RS256")
    issuer.keys = [key.jwk]

    assert refused(ask(jwks_url=issuer.url + KEYS)(key.sign(issuer.claims())))
