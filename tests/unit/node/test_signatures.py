"""The product's signature: whatever was changed on the way, the command is refused, always in the same words."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from aiida_byoc.commands.signatures import (
    KeysError,
    check,
    load_product_keys,
    product_keys,
    verify,
)
from aiida_byoc.contracts.delivery import Command
from aiida_byoc.contracts.enrolment import thumbprint
from aiida_byoc.contracts.problems import ProblemError
from aiida_byoc.contracts.signature import signing_input
from tests.builders import KEY, cancel_body, submit_body

COMMAND_ID = "33333333-3333-4333-8333-333333333333"
KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def members(algorithm: str, key: Any = None) -> dict[str, Any]:
    public = (key or KEYS[algorithm]).public_key()
    made: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    return made


NAMES = {algorithm: thumbprint(members(algorithm)) for algorithm in KEYS}
KNOWN = product_keys({"keys": [members(algorithm) for algorithm in KEYS]})


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(
    operation: str = "submit",
    *,
    algorithm: str = "ES256",
    key: Any = None,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> Command:
    """A command as the product signed it; keywords change it afterwards."""
    body = {"submit": submit_body(), "cancel": cancel_body()}[operation]
    idempotency_key = KEY if operation == "submit" else None
    protected = encoded(json.dumps(header or {"alg": algorithm, "kid": NAMES[algorithm]}).encode())
    signer = jwt.get_algorithm_by_name(algorithm)
    made = signer.sign(
        signing_input(protected, operation, idempotency_key, body), key or KEYS[algorithm]
    )
    return Command.model_validate(
        {
            "command_id": COMMAND_ID,
            "operation": operation,
            "tenant_id": "acme",
            "job_id": "job-1",
            "idempotency_key": idempotency_key,
            "body": body,
            "signature": f"{protected}..{encoded(made)}",
            **changes,
        }
    )


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
@pytest.mark.parametrize("operation", ["submit", "cancel"])
def test_what_the_product_signed_passes(operation: str, algorithm: str) -> None:
    check(signed(operation, algorithm=algorithm), KNOWN, required=True)


@pytest.mark.parametrize(
    "command",
    [
        signed(body=submit_body(workload={**submit_body()["workload"], "argv": ["rm"]})),
        signed(body=submit_body(tenant_id="globex")),
        signed(body=submit_body(management_node_id="n2")),
        signed(body=submit_body(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")),
        signed(body=None),
        signed(idempotency_key="key-fedcba9876543210"),
        signed(idempotency_key=None),
        signed(operation="submit").model_copy(update={"operation": "cancel"}),
        signed("cancel").model_copy(update={"operation": "submit"}),
        signed(key=ec.generate_private_key(ec.SECP256R1())),
        signed(header={"alg": "ES256", "kid": "A" * 43}),
        signed(header={"alg": "ES256"}),
        signed(header={"alg": "ES256", "kid": 7}),
        signed(header={"alg": "ES256", "kid": ["x"]}),
        signed(header={"alg": "EdDSA", "kid": NAMES["ES256"]}),
        signed(header={"alg": "HS256", "kid": NAMES["ES256"]}),
        signed(header={"alg": "none", "kid": NAMES["ES256"]}),
        signed(header={"alg": "ES256", "kid": NAMES["ES256"], "crit": ["b64"], "b64": False}),
        signed(header={"alg": "ES256", "kid": NAMES["ES256"], "b64": False}),
        signed(header={"alg": "ES256", "kid": NAMES["ES256"], "jwk": members("ES256")}),
        signed(signature=f"{encoded(b'[]')}..AAAA"),
        signed(signature="AAAA..AAAA"),
        signed(body={"x": 2**60}),
    ],
    ids=[
        *("body", "tenant", "node", "trace", "no body", "key", "no key", "operation", "other way"),
        *("forged", "unknown kid", "no kid", "kid number", "kid list", "other alg", "HS256"),
        *("none", "crit", "b64", "own jwk", "no header", "junk", "no canonical form"),
    ],
)
def test_whatever_was_changed_is_refused_in_the_same_words(command: Command) -> None:
    for required in (True, False):
        with pytest.raises(ProblemError) as caught:
            check(command, KNOWN, required=required)

        assert caught.value.kind.name == "signature-invalid"
        assert caught.value.detail == caught.value.kind.remedy


def test_none_is_enough_only_where_none_is_required() -> None:
    bare = signed(signature=None)

    check(bare, KNOWN, required=False)
    check(bare.model_copy(update={"operation": "inspect"}), KNOWN, required=True)
    check(bare.model_copy(update={"operation": "logs"}), KNOWN, required=True)
    with pytest.raises(ProblemError, match="signature-invalid"):
        check(bare, KNOWN, required=True)


def test_a_signature_holds_only_by_a_known_key() -> None:
    with pytest.raises(ProblemError, match="signature-invalid"):
        verify(signed(), {})


@pytest.mark.parametrize(
    "content",
    [
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "AAAA"}]},
        {"keys": [{**members("ES256"), "d": "AAAA"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]},
        {"keys": [members("ES384", ec.generate_private_key(ec.SECP384R1()))]},
        {"keys": "none"},
        {"keys": [7]},
        [],
        None,
    ],
)
def test_other_keys_than_the_products_kinds_are_refused(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(content))

    with pytest.raises(KeysError, match=r"keys\.json .*node enroll"):
        load_product_keys(file)


def test_keys_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="cannot be read: No such file"):
        load_product_keys(tmp_path / "keys.json")
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(KeysError, match="are not JSON"):
        load_product_keys(tmp_path / "keys.json")
