"""Only what a configured key signed, for this audience, now, gets in; all refusals look the same."""

from __future__ import annotations

import asyncio
import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from adapter import auth
from adapter.clients import Issuers, OpaqueTokens
from adapter.registry import Registry
from adapter.settings import Settings
from adapter.tokens import LEEWAY_SECONDS, AccessTokens
from aiida_byoc.contracts.problems import ProblemError
from tests.eventually import eventually

CLIENT_ISSUER = "https://product.example"


class ClientGuard:
    """The guard of clients with these settings, whom no product helps; one call at a time."""

    def __init__(self, settings: Settings) -> None:
        registry = Registry(settings.nodes, None, seconds=60)
        opaque = OpaqueTokens(None, seconds=60)
        self._guard = auth.ClientGuard(Issuers(settings), opaque, registry)

    def admit(self, *where, **what) -> auth.ClientIdentity:
        return asyncio.run(self._guard.admit(*where, **what))


class NodeGuard:
    """The same for nodes."""

    def __init__(self, settings: Settings) -> None:
        registry = Registry(settings.nodes, None, seconds=60)
        tokens = AccessTokens(settings.convex, settings.audience)
        self._guard = auth.NodeGuard(registry, tokens, settings.audience)

    def admit(self, *where) -> auth.NodeIdentity:
        return asyncio.run(self._guard.admit(*where))

    def now_knows(self, registry: Registry) -> None:
        """What the product says has changed."""
        self._guard._registry = registry


def request(*authorizations: str) -> Request:
    headers = [(b"authorization", value.encode("latin-1")) for value in authorizations]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def bearer(token: str) -> Request:
    return request(f"Bearer {token}")


def refusal(call) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        call()
    return caught.value


@pytest.fixture
def clients(make_settings):
    return ClientGuard(make_settings())


@pytest.fixture
def nodes(make_settings):
    return NodeGuard(make_settings())


def test_a_client_acts_for_the_tenant_of_its_token(clients, product, client_claims):
    client = clients.admit(bearer(product.sign(client_claims)), "n1", scope="jobs:read")

    assert (client.subject, client.tenant_id) == ("user-1", "acme")
    assert client.scopes == {"jobs:submit", "jobs:read"}


def test_a_node_acts_for_itself(nodes, node_key, node_claims):
    node = nodes.admit(bearer(node_key.sign(node_claims)), "n1")

    assert (node.node_id, node.tenants) == ("n1", {"acme", "globex"})


CLAIM_FAULTS = {
    "expired": {"exp": 1_000_000_000},
    "issued in the future": {"iat": 4_000_000_000},
    "other audience": {"aud": "convex"},
    "no audience": {"aud": None},
    "no expiry": {"exp": None},
    "no time of issue": {"iat": None},
    "no subject": {"sub": None},
    "other issuer": {"iss": "https://elsewhere.example"},
    "no issuer": {"iss": None},
    "issuer is no string": {"iss": ["https://product.example"]},
    "no tenant": {"tenant_id": None},
    "tenant is no name": {"tenant_id": "acme\n"},
    "tenant is no string": {"tenant_id": ["acme"]},
    "expiry is no number": {"exp": "tomorrow"},
    "expiry beyond numbers": {"exp": float("inf")},
}


@pytest.mark.parametrize("fault", CLAIM_FAULTS)
def test_a_claim_at_fault_is_no_credential(fault, clients, product, client_claims):
    claims = {**client_claims, **CLAIM_FAULTS[fault]}
    token = product.sign({name: value for name, value in claims.items() if value is not None})

    error = refusal(lambda: clients.admit(bearer(token), "n1", scope="jobs:read"))

    assert error.problem() == ProblemError("unauthenticated").problem()


def test_sixty_seconds_of_clock_skew_are_forgiven(clients, product, client_claims):
    late = {**client_claims, "exp": client_claims["iat"] - 30}

    assert clients.admit(bearer(product.sign(late)), "n1", scope="jobs:read")


def test_a_token_that_was_taken_is_good_until_its_time_is_over(clients, product, client_claims):
    soon = {**client_claims, "exp": client_claims["iat"] - LEEWAY_SECONDS + 5}
    token = bearer(product.sign(soon))
    assert clients.admit(token, "n1", scope="jobs:read")

    def refused() -> bool:
        try:
            clients.admit(token, "n1", scope="jobs:read")
        except ProblemError as error:
            return error.kind.name == "unauthenticated"
        return False

    assert eventually(refused, "the token to expire", seconds=30)


def test_a_nodes_token_that_was_taken_is_good_until_its_time_is_over(nodes, node_key, node_claims):
    soon = {**node_claims, "exp": node_claims["iat"] - LEEWAY_SECONDS + 5}
    token = bearer(node_key.sign(soon))
    assert nodes.admit(token, "n1").node_id == "n1"
    assert refusal(lambda: nodes.admit(token, "n2")).kind.name == "not-found"

    def refused() -> bool:
        try:
            nodes.admit(token, "n1")
        except ProblemError as error:
            return error.kind.name == "unauthenticated"
        return False

    assert eventually(refused, "the token to expire", seconds=30)


def test_a_nodes_token_that_was_taken_is_good_until_its_key_is_gone(
    make_settings, node_key, other_node_key, node_claims
):
    settings = make_settings()
    nodes = NodeGuard(settings)
    token = bearer(node_key.sign(node_claims))
    assert nodes.admit(token, "n1").node_id == "n1"

    other = {"n1": settings.nodes["n1"].model_copy(update={"jwks": settings.nodes["n2"].jwks})}
    nodes.now_knows(Registry(other, None, seconds=60))

    assert refusal(lambda: nodes.admit(token, "n1")).kind.name == "unauthenticated"


def _unsigned(claims):
    return jwt.encode(claims, None, "none")


def _signed_with_the_public_key(claims, signer):
    """The classic confusion: HS256 with the text of the public key as shared secret."""
    public = signer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    header = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": signer.kid}).encode())
    body = header + b"." + part(json.dumps(claims).encode())
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body, public)
    return (body + b"." + part(signature)).decode()


def test_forged_tokens_are_no_credential(clients, product, other_node_key, client_claims):
    """Unsigned, signed with the public key as a secret, by another key, or altered: all the same."""
    genuine = product.sign(client_claims)
    head, _, tail = genuine.split(".")
    altered = jwt.encode({**client_claims, "tenant_id": "globex"}, "x" * 32).split(".")[1]
    forged = [
        _unsigned(client_claims),
        _signed_with_the_public_key(client_claims, product),
        other_node_key.sign(client_claims),
        other_node_key.sign(client_claims, kid=product.kid),
        product.sign(client_claims, kid="unknown"),
        f"{head}.{altered}.{tail}",
        genuine[:-8],
    ]

    for token in forged:
        error = refusal(lambda token=token: clients.admit(bearer(token), "n1", scope="jobs:read"))
        assert error.problem() == ProblemError("unauthenticated").problem()


@pytest.mark.parametrize(
    "values",
    [(), ("",), ("Bearer",), ("Basic dXNlcjpwYXNz",), ("Bearer a.b",), ("Bearer a.b.c d",)],
)
def test_no_bearer_token_is_no_credential(values, clients):
    error = refusal(lambda: clients.admit(request(*values), "n1", scope="jobs:read"))

    assert error.kind.name == "unauthenticated"


def test_two_authorization_headers_are_none(clients, product, client_claims):
    value = f"Bearer {product.sign(client_claims)}"

    error = refusal(lambda: clients.admit(request(value, value), "n1", scope="jobs:read"))

    assert error.kind.name == "unauthenticated"


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_junk_never_breaks_the_guard(make_settings_once, junk):
    error = refusal(
        lambda: ClientGuard(make_settings_once).admit(bearer(junk), "n1", scope="jobs:read")
    )

    assert error.kind.name == "unauthenticated"


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.just({"a": 1}),
)
NAMES = ("iss", "sub", "aud", "exp", "iat", "nbf", "kid", "alg", "crit", "b64", "typ", "jwk")


@given(st.dictionaries(st.sampled_from(NAMES), HOSTILE))
def test_hostile_headers_and_claims_never_break_the_guard(make_settings_once, content):
    """Well-formed parts with any JSON inside."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"iss": "https://product.example", **content}
    token = f"{part({'alg': 'ES256', **content})}.{part(claims)}.{part('x')}"

    error = refusal(
        lambda: ClientGuard(make_settings_once).admit(bearer(token), "n1", scope="jobs:read")
    )

    assert error.kind.name == "unauthenticated"


@pytest.fixture(scope="module")
def make_settings_once(product, tmp_path_factory):
    key_file = tmp_path_factory.mktemp("keys") / "service.pem"
    key_file.write_bytes(product.pem())
    return Settings(
        client_issuers=[{"issuer": "https://product.example", "jwks": product.jwks}],
        convex={
            "url": "http://127.0.0.1:1",
            "service_issuer": "https://adapter.example",
            "service_key_file": str(key_file),
            "key_id": "service-1",
        },
    )


def test_the_scope_is_checked_before_the_node(clients, product, client_claims):
    token = product.sign(client_claims)

    error = refusal(lambda: clients.admit(bearer(token), "nowhere", scope="jobs:cancel"))

    assert error.kind.name == "forbidden"
    assert "jobs:cancel" in error.detail


def test_a_node_of_others_does_not_exist(clients, product, client_claims):
    """A node that does not serve the tenant and one that never was are the same 404."""
    token = product.sign(client_claims)

    foreign = refusal(lambda: clients.admit(bearer(token), "n2", scope="jobs:read"))
    unknown = refusal(lambda: clients.admit(bearer(token), "n9", scope="jobs:read"))

    assert foreign.kind.name == "not-found"
    assert foreign.problem() == unknown.problem()


def test_a_node_may_sign_with_ed25519_and_name_no_key(make_settings, node_claims):
    """As our own agent does."""
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
    nodes = {"n1": {"jwks": {"keys": [{**jwk, "kid": "n1-1"}]}, "tenants": ["acme"]}}
    guard = NodeGuard(make_settings(nodes=nodes))

    assert guard.admit(bearer(jwt.encode(node_claims, key, "EdDSA")), "n1").node_id == "n1"


def test_while_keys_are_rotated_both_are_good(make_settings, product, client_claims):
    """A token that names no key is tried against each of the set."""
    successor = type(product)("product-2")
    jwks = {"keys": [successor.jwk, product.jwk]}
    guard = ClientGuard(make_settings(client_issuers=[{"issuer": CLIENT_ISSUER, "jwks": jwks}]))

    for signer in (product, successor):
        for token in (signer.sign(client_claims), jwt.encode(client_claims, signer.key, "ES256")):
            assert guard.admit(bearer(token), "n1", scope="jobs:read")


def test_an_issuer_signs_only_by_its_own_algorithms(make_settings, client_claims):
    """An RSA key in the set is no use unless the operator allowed RS256 for this issuer."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    issuer = {"issuer": CLIENT_ISSUER, "jwks": {"keys": [jwk]}}
    token = bearer(jwt.encode(client_claims, key, "RS256"))

    strict = ClientGuard(make_settings(client_issuers=[issuer]))
    allowed = ClientGuard(make_settings(client_issuers=[{**issuer, "algorithms": ["RS256"]}]))

    assert refusal(lambda: strict.admit(token, "n1", scope="jobs:read"))
    assert allowed.admit(token, "n1", scope="jobs:read").tenant_id == "acme"


def test_clients_and_nodes_do_not_pass_for_each_other(
    make_settings, product, node_key, client_claims, node_claims
):
    clients, nodes = ClientGuard(make_settings()), NodeGuard(make_settings())

    as_node = refusal(lambda: nodes.admit(bearer(product.sign(client_claims)), "n1"))
    as_client = refusal(
        lambda: clients.admit(bearer(node_key.sign(node_claims)), "n1", scope="jobs:read")
    )

    assert as_node.kind.name == as_client.kind.name == "unauthenticated"


def test_a_node_cannot_speak_for_another(nodes, node_key, other_node_key, node_claims):
    at_the_other = refusal(lambda: nodes.admit(bearer(node_key.sign(node_claims)), "n2"))
    in_its_name = refusal(lambda: nodes.admit(bearer(other_node_key.sign(node_claims)), "n1"))
    other_subject = refusal(
        lambda: nodes.admit(bearer(node_key.sign({**node_claims, "sub": "n2"})), "n1")
    )

    assert at_the_other.kind.name == "not-found"
    assert in_its_name.kind.name == other_subject.kind.name == "unauthenticated"


def test_without_configuration_nobody_gets_in(
    make_settings, product, node_key, client_claims, node_claims
):
    empty = make_settings(client_issuers=[], nodes={})

    as_client = refusal(
        lambda: ClientGuard(empty).admit(
            bearer(product.sign(client_claims)), "n1", scope="jobs:read"
        )
    )
    as_node = refusal(lambda: NodeGuard(empty).admit(bearer(node_key.sign(node_claims)), "n1"))

    assert as_client.kind.name == as_node.kind.name == "unauthenticated"
